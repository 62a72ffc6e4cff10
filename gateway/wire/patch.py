"""Change one member of a JSON object in its bytes, and nothing else: the rest keeps spacing, order and spelling."""

from __future__ import annotations

import re

import msgspec

_ANY = msgspec.json.Decoder(dict[str, msgspec.Raw])


def set_member(body: bytes, key: str, value: bytes) -> bytes:
    """Return ``body`` with the top-level member ``key`` set to the JSON text ``value``, added at the end if missing.

    ``body`` must be a JSON object; raises msgspec.DecodeError if it is not, RecursionError if it is nested too deeply.
    A repeated key is resolved as readers do that let the last one win: all of them are replaced.
    """
    spans = _spans(body, key)
    if spans:
        pieces, done = [], 0
        for start, end in spans:
            pieces += [body[done:start], value]
            done = end
        return b"".join((*pieces, body[done:]))
    end = body.rindex(b"}")
    comma = b"" if body[:end].rstrip().endswith(b"{") else b","
    return b"%b%b%b:%b%b" % (body[:end], comma, msgspec.json.encode(key), value, body[end:])


def _spans(body: bytes, key: str) -> list[tuple[int, int]]:
    """Where the values of top-level members named ``key`` stand."""
    members = _ANY.decode(body)
    if key not in members:
        return []
    text = bytes(members[key])
    # One spelling of the name in the whole body, and none that hides it behind escapes: it can only be this member.
    name = b'"' + key.encode() + b'"'
    if _PLAIN.fullmatch(key) and body.count(name) == 1 and b"\\u00" not in body:
        found = re.compile(re.escape(name) + rb"\s*:\s*").search(body)
        if found is not None and body.startswith(text, found.end()):
            return [(found.end(), found.end() + len(text))]
    return _walk(body, key)


_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
"""Names that JSON can spell in one other way only: with \\u00XX for a letter."""
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]:,]', re.DOTALL)


def _walk(body: bytes, key: str) -> list[tuple[int, int]]:
    """The same by reading token after token; ``body`` is known to be valid JSON."""
    spans: list[tuple[int, int]] = []
    depth, name, start, expect_name = 0, "", 0, True
    for token in _TOKEN.finditer(body):
        mark = body[token.start()]
        if mark == 0x22:
            if depth == 1 and expect_name:
                name, expect_name = msgspec.json.decode(token.group(), type=str), False
        elif mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
            if depth == 0 and name == key and not expect_name:
                spans.append(_trim(body, start, token.start()))
        elif depth == 1 and mark == 0x3A:
            start = token.end()
        elif depth == 1 and mark == 0x2C:
            if name == key:
                spans.append(_trim(body, start, token.start()))
            expect_name = True
    return spans


def _trim(body: bytes, start: int, end: int) -> tuple[int, int]:
    text = body[start:end]
    return start + len(text) - len(text.lstrip()), end - (len(text) - len(text.rstrip()))
