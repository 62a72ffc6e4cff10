"""Every text of a request that a provider would see, in the order in which a model reads them.

Tools come first, as in providers' caches: what only they hold keeps its number however long the conversation grows. Names of
tools, ids, signatures and the data of media are left alone.
"""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, TypeVar

from msgspec import Raw, Struct
from msgspec.structs import replace

from ..ir.message import (
    Citation,
    Extra,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Request,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from .json_text import redact_json, redact_json_bytes
from .redactor import Found, Session

S = TypeVar("S", bound=Struct)
_CERTAIN = frozenset({"secret", "card", "iban"})
"""Kinds that two texts do not make up together by chance."""
_METADATA = "the metadata"
_STANDARD = str.maketrans("-_", "+/")
"""Base64 as it is spelled in URLs, which some providers take as well."""


def redact_request(request: Request, session: Session) -> Request:
    """Return ``request`` without what must not leave; the same object if there is nothing. Raises CallerError: see Session."""
    return _changed(
        request,
        tools=_each(request.tools, lambda at, tool: _tool(tool, session, f"the tool {at + 1}")),
        response_format=_format(request.response_format, session),
        messages=_each(request.messages, lambda at, message: _message(message, session, at + 1)),
        stop=_each(request.stop, lambda _, stop: session.text(stop, "a stop sequence")),
        user=_text(request.user, session, "the member user"),
        metadata=None
        if request.metadata is None
        else {
            session.text(name, _METADATA): session.text(value, _METADATA) for name, value in request.metadata.items()
        },
        tool_choice=_around(request.tool_choice, session, "the tool choice"),
        reasoning=_around(request.reasoning, session, "the member for reasoning"),
        logit_bias=_json(request.logit_bias, session, "the member logit_bias"),
        extra=_extra(request.extra, session, "the request"),
    )


def _changed(old: S, **new: Any) -> S:
    """Return ``old`` with the members that differ; itself if none does."""
    different = {
        name: value for name, value in new.items() if value is not (now := getattr(old, name)) and value != now
    }
    return replace(old, **different) if different else old


def _each(items: tuple[Any, ...], change: Any) -> tuple[Any, ...]:
    return tuple([change(at, item) for at, item in enumerate(items)])


def _text(text: str | None, session: Session, where: str) -> str | None:
    return session.text(text, where) if text else text


def _json(data: bytes | None, session: Session, where: str) -> bytes | None:
    return redact_json_bytes(data, session, where) if data else data


def _extra(extra: Extra, session: Session, where: str) -> Extra:
    if not extra:
        return extra
    new = {}
    for name, raw in extra.items():
        data = bytes(raw)
        changed = redact_json_bytes(data, session, where)
        new[session.text(name, where)] = raw if changed is data else Raw(changed)
    return extra if all(new.get(name) is raw for name, raw in extra.items()) else new


def _around(part: Any, session: Session, where: str) -> Any:
    """Return ``part``, of which the members without a word may hold anything."""
    return _changed(part, extra=_extra(part.extra, session, where)) if part is not None and part.extra else part


def _tool(tool: Tool, session: Session, where: str) -> Tool:
    return _changed(
        tool,
        description=_text(tool.description, session, where),
        schema=_json(tool.schema, session, where),
        raw=_json(tool.raw, session, where),
        extra=_extra(tool.extra, session, where),
    )


def _format(wanted: ResponseFormat | None, session: Session) -> ResponseFormat | None:
    if wanted is None:
        return None
    where = "the response format"
    return _changed(
        wanted,
        description=_text(wanted.description, session, where),
        schema=_json(wanted.schema, session, where),
        extra=_extra(wanted.extra, session, where),
    )


def _message(message: Message, session: Session, number: int) -> Message:
    where = f"message {number} ({message.role})"
    return _changed(
        message,
        parts=_parts(message.parts, session, where),
        name=_text(message.name, session, where),
        extra=_extra(message.extra, session, where),
    )


def _parts(parts: tuple[Any, ...], session: Session, where: str) -> tuple[Any, ...]:
    """Change the parts; texts that follow one another are read as one, too, for what is cut by the border of two."""
    if len(parts) == 1:
        only = parts[0]
        new = _part(only, session, where)
        return parts if new is only else (new,)
    done: list[Part] = []
    at = 0
    while at < len(parts):
        end = at
        while end < len(parts) and isinstance(parts[end], Text):
            end += 1
        if end - at > 1:
            done += _run(parts[at:end], session, where)
        else:
            end = at + 1
            done.append(_part(parts[at], session, where))
        at = end
    return tuple(done)


def _run(parts: Sequence[Text], session: Session, where: str) -> list[Part]:
    """Texts that a model reads without a gap.

    What stands in one of them counts as found there. Besides there is what stands in none of them whole; and a secret, or a
    number with a checksum, of which a part only has some piece that looks like something itself.
    """
    texts = [part.text for part in parts]
    borders = [0, *accumulate(map(len, texts))]
    whole = "".join(texts)
    own = [
        Found(each.start + start, each.end + start, each.kind)
        for start, text in zip(borders, texts, strict=False)
        for each in session.find(text)
    ]
    found = _across(own, session.find(whole), borders)
    new: list[Part] = []
    at = 0  # of the finds, the first that may stand in this part
    for part, start, text in zip(parts, borders, texts, strict=False):
        end = start + len(text)
        while at < len(found) and found[at].end <= start:
            at += 1
        pieces: list[str] = []
        done = start
        number = at
        while number < len(found) and found[number].start < end:
            each = found[number]
            if each.start >= start:
                value = whole[each.start : each.end]
                pieces += (whole[done : each.start], session.name(value, each.kind, where))
            done = min(each.end, end)
            number += 1
        joined = "".join((*pieces, whole[done:end]))
        changed = part if joined == text else replace(part, text=joined)
        new.append(_around_text(changed, session, where))
    return new


def _across(own: list[Found], together: list[Found], borders: list[int]) -> list[Found]:
    """Return what to replace: what stands within the parts, and of what they hold together that which a border cuts."""
    ends = [each.end for each in own]
    dropped: set[int] = set()
    added: list[Found] = []
    for each in together:
        border = bisect_right(borders, each.start)
        if border == len(borders) or borders[border] >= each.end:
            continue
        first = last = bisect_right(ends, each.start)
        while last < len(own) and own[last].start < each.end:
            last += 1
        covers = first == last or (each.start <= own[first].start and own[last - 1].end <= each.end)
        if first == last or (covers and each.kind in _CERTAIN):
            dropped.update(range(first, last))
            added.append(each)
    return sorted((*(each for number, each in enumerate(own) if number not in dropped), *added)) if added else own


def _around_text(part: Text, session: Session, where: str) -> Text:
    return _changed(
        part,
        citations=_each(part.citations, lambda _, each: _citation(each, session, where)) if part.citations else (),
        extra=_extra(part.extra, session, where),
    )


def _citation(citation: Citation, session: Session, where: str) -> Citation:
    return _changed(
        citation,
        raw=redact_json_bytes(citation.raw, session, where),
        url=_text(citation.url, session, where),
        title=_text(citation.title, session, where),
        cited_text=_text(citation.cited_text, session, where),
    )


def _document(part: Media, session: Session, where: str) -> str | None:
    """A text in base64 is read; other data is not."""
    data, kind = part.data, (part.media_type or "").partition(";")[0].lower()
    if not data or not (kind.startswith("text/") or kind.endswith(("json", "xml", "yaml"))):
        return data
    try:
        whole = base64.b64decode(data.translate(_STANDARD) + "==")  # whose padding may be left out, too
    except ValueError:  # the provider's to refuse
        return data
    text, encoding = _read(whole)
    new = redact_json(text, session, where) if kind.endswith("json") else session.text(text, where)
    return data if new is text else base64.b64encode(new.encode(encoding, "surrogatepass")).decode()


def _read(data: bytes) -> tuple[str, str]:
    """Return the text that ``data`` is, and its encoding; Latin-1 has a character for every byte."""
    for encoding in ("utf-16",) if b"\0" in data else ("utf-8",):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            pass
    return data.decode("latin-1"), "latin-1"


def _part(part: Any, session: Session, where: str) -> Any:
    kind = type(part)
    if kind is Text:
        text = session.text(part.text, where)
        changed = part if text is part.text else replace(part, text=text)
        return _around_text(changed, session, where) if part.extra or part.citations else changed
    if kind is ToolCall:
        arguments = part.arguments
        if arguments:
            change = session.text if part.kind == "custom" else lambda text, at: redact_json(text, session, at)
            arguments = change(arguments, f"a tool call in {where}")
        return _changed(part, arguments=arguments, extra=_extra(part.extra, session, where))
    if kind is ToolResult:
        place = f"a tool result in {where}"
        return _changed(part, content=_parts(part.content, session, place), extra=_extra(part.extra, session, place))
    if kind is Reasoning or kind is Refusal:
        return _changed(part, text=session.text(part.text, where), extra=_extra(part.extra, session, where))
    if kind is Media:
        is_data = part.uri is not None and part.uri.startswith("data:") and ";base64," in part.uri[:200]
        return _changed(
            part,
            data=_document(part, session, where),
            text=_text(part.text, session, where),
            name=_text(part.name, session, where),
            uri=part.uri if is_data else _text(part.uri, session, where),
            extra=_extra(part.extra, session, where),
        )
    assert kind is Opaque
    return _changed(part, data=redact_json_bytes(part.data, session, where))
