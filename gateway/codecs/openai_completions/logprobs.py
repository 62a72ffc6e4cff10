"""Log probabilities, both ways: parallel arrays here, an entry for each token in the IR, as in Chat Completions.

``{"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}], "text_offset": [0]}`` is
``{"content": [{"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "a", "logprob": -1.0}]}]}``. Offsets, which count
from the start of the prompt, have no place there; they are kept with the stop of their choice. The first token of an echoed
prompt has a null for its probability.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from ...wire.members import BAD_JSON, NULL, encode_json

OFFSETS: Final = "logprobs.text_offset"
"""The name of the offsets among the members that a choice has beside its text."""


class _Arrays(Struct):
    tokens: list[str | None] | None = None
    token_logprobs: list[Raw] | None = None
    top_logprobs: list[dict[str, Raw] | None] | None = None
    text_offset: list[Raw] | None = None


class _Top(Struct):
    token: str
    logprob: Raw = NULL


class _Entry(Struct):
    token: str
    logprob: Raw = NULL
    top_logprobs: list[_Top] | None = None


class _Entries(Struct):
    content: list[_Entry] | None = None


_ARRAYS: Final = msgspec.json.Decoder(_Arrays)
_ENTRIES: Final = msgspec.json.Decoder(_Entries)


def read_logprobs(raw: Raw, offsets: list[Raw]) -> Raw | None:
    """Return the IR's entries for the arrays ``raw``, None for none; their offsets are added to ``offsets``.

    Raises msgspec.ValidationError for what are no such arrays.
    """
    it = _ARRAYS.decode(raw)
    offsets += it.text_offset or ()
    if not it.tokens:
        return None
    entries: list[dict[str, Any]] = []
    for number, token in enumerate(it.tokens):
        entry: dict[str, Any] = {"token": token or "", "logprob": _at(it.token_logprobs, number)}
        top = None if it.top_logprobs is None or number >= len(it.top_logprobs) else it.top_logprobs[number]
        entry["top_logprobs"] = [{"token": word, "logprob": chance} for word, chance in (top or {}).items()]
        entries.append(entry)
    return Raw(encode_json({"content": entries}))


def _at(chances: list[Raw] | None, number: int) -> Raw:
    return NULL if chances is None or number >= len(chances) else chances[number]


def write_logprobs(pieces: tuple[Raw, ...], offsets: Raw | None, start: int) -> dict[str, Any] | None:
    """Return the arrays for pieces of the IR's entries, None for none; without ``offsets`` they are counted from ``start``."""
    entries: list[_Entry] = []
    for piece in pieces:
        try:
            entries += _ENTRIES.decode(piece).content or ()
        except BAD_JSON:
            continue
    if not entries:
        return None
    counted: list[int] = []
    for entry in entries:
        counted.append(start)
        start += len(entry.token)
    asked = any(entry.top_logprobs for entry in entries)
    tops = [_tops(entry) for entry in entries] if asked else None
    return {
        "tokens": [entry.token for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": tops,
        "text_offset": counted if offsets is None else offsets,
    }


def _tops(entry: _Entry) -> dict[str, Raw] | None:
    return {top.token: top.logprob for top in entry.top_logprobs} if entry.top_logprobs else None
