"""Content blocks into parts: the one reader for requests, whole answers and the starts of streamed blocks.

Source: the block types of the Messages API (types ``ContentBlockParam`` and ``ContentBlock`` of its Python SDK 2.11, and
their beta twins). A block that has no word in the IR, a server tool's result among them, becomes ``Opaque``, verbatim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from ...errors import DecodeError
from ...ir.message import CacheMark, Citation, Media, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from ..ledger import KEPT
from .members import BAD_JSON, FORMAT, Members, is_object, is_string, says

KEPT_RESULT: Final = f"{KEPT}search_result"
"""The member of ``extra`` that is a whole ``search_result``, verbatim."""


def read_content(raw: Raw, path: str) -> tuple[tuple[Part, ...], bool]:
    """Return the parts of a ``content`` member, and whether it was a plain string."""
    if is_string(raw):
        return (Text(_string(raw, path)),), True
    return tuple(read_block(block, f"{path}[{i}]") for i, block in enumerate(_array(raw, path))), False


def read_block(raw: Raw | bytes, path: str) -> Part:
    """Return the part that one content block says. Raises DecodeError with a path below ``path``."""
    block = Members(raw, path)
    kind = block.take_string("type")
    if kind is None:
        raise DecodeError(block.at("type"), "expected a string, but it is missing")
    read = _READERS.get(kind)
    if read is None and kind.endswith("_tool_use") and block.has("id") and block.has("name"):
        return _tool_call(block, kind)
    part = read(block) if read is not None else _search_result(raw, block) if kind == "search_result" else None
    return part if part is not None else Opaque(FORMAT, kind, bytes(raw), take_cache(block))


def take_cache(block: Members) -> CacheMark | None:
    """Take ``cache_control`` out of an object."""
    mark = block.take_object("cache_control")
    if mark is None:
        return None
    if bytes(mark.rest.get("type", b"")) == b'"ephemeral"':
        del mark.rest["type"]
    return CacheMark(mark.take_string("ttl"), mark.extra())


def read_citation(raw: Raw, path: str) -> Citation:
    """Return one citation of a text block, or of a ``citations_delta``."""
    it = Members(raw, path)
    kind = it.need_string("type")
    url = it.take_string("url")
    title = it.take_string("title") or it.take_string("document_title")
    return Citation(FORMAT, kind, bytes(raw), url=url, title=title, cited_text=it.take_string("cited_text"))


def _text(block: Members) -> Text:
    text = block.need_string("text")
    citations: tuple[Citation, ...] = ()
    if says(block.rest.get("citations"), b"[]"):
        raws = block.take_array("citations") or ()
        citations = tuple(read_citation(raw, f"{block.at('citations')}[{i}]") for i, raw in enumerate(raws))
    cache = take_cache(block)
    return Text(text, citations, cache, block.extra())


def _thinking(block: Members) -> Reasoning:
    text = block.need_string("thinking")
    signature = block.take_string("signature")
    return Reasoning(text, signature, origin=FORMAT, extra=block.extra())


def _redacted_thinking(block: Members) -> Reasoning:
    redacted = block.need_string("data")
    return Reasoning(redacted=redacted, origin=FORMAT, extra=block.extra())


def _tool_use(block: Members) -> ToolCall:
    return _tool_call(block, "")


def _tool_call(block: Members, server: str) -> ToolCall:
    id, name = block.need_string("id"), block.need_string("name")
    arguments = ""
    if (raw := block.take("input")) is not None:
        if not is_object(raw):
            raise DecodeError(block.at("input"), "expected an object")
        arguments = _utf8(bytes(raw), block.at("input"))
    cache = take_cache(block)
    return ToolCall(id, name, arguments, server=server, cache=cache, extra=block.extra())


def _tool_result(block: Members) -> ToolResult:
    id = block.need_string("tool_use_id")
    parts: list[Text | Media | Opaque] = []
    brief = False
    # An empty array differs from none only in its spelling, which is what ``extra`` is for.
    if says(block.rest.get("content"), b"[]") and (raw := block.take("content")) is not None:
        content, brief = read_content(raw, block.at("content"))
        for i, part in enumerate(content):
            if not isinstance(part, (Text, Media, Opaque)):
                raise DecodeError(f"{block.at('content')}[{i}].type", "not a block that a tool result may hold")
            parts.append(part)
    is_error = says(block.rest.get("is_error"), b"false") and bool(block.take_boolean("is_error"))
    cache = take_cache(block)
    return ToolResult(id, tuple(parts), is_error, cache=cache, extra=block.extra(), brief=brief)


def _image(block: Members) -> Media | None:
    return _sourced("image", block)


def _document(block: Members) -> Media | None:
    return _sourced("document", block)


def _sourced(kind: Literal["image", "document"], block: Members) -> Media | None:
    """The media of a block with a ``source``; None for a type of source that we have no word for."""
    raw = block.rest.get("source")
    source = block.take_object("source")
    if source is None:
        raise DecodeError(block.at("source"), "expected an object, but it is missing")
    media: Media
    match source.take_string("type"):
        case "base64":
            media = Media(kind, source.need_string("media_type"), data=source.need_string("data"))
        case "text" if kind == "document":
            media = Media(kind, source.need_string("media_type"), text=source.need_string("data"))
        case "url":
            media = Media(kind, uri=source.need_string("url"))
        case "file":
            media = Media(kind, file_id=source.need_string("file_id"))
        case None:
            raise DecodeError(source.at("type"), "expected a string, but it is missing")
        case _:
            assert raw is not None
            block.rest["source"] = raw
            return None
    if kind == "document":
        media = msgspec.structs.replace(media, name=block.take_string("title"))
    return _media(media, block, source)


def _media(media: Media, block: Members, source: Members) -> Media:
    cache = take_cache(block)
    if source.rest:
        block.rest["source"] = Raw(msgspec.json.encode(source.rest))
    return msgspec.structs.replace(media, cache=cache, extra=block.extra())


class _Words(Struct, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class _Found(Struct):
    content: list[_Words]
    source: str
    title: str


def _search_result(raw: Raw | bytes, block: Members) -> Media | None:
    """The block as what other formats can say of it, a document of text; None if it says more than that.

    ``extra`` holds the whole block, for this format, and whether it is to be cited, which another loses.
    """
    try:
        found = _FOUND.decode(raw)
    except BAD_JSON:
        return None
    text = "\n".join((found.title, found.source, *(words.text for words in found.content)))
    if not block.rest.keys() <= _FOUND_MEMBERS:
        return None
    extra = {KEPT_RESULT: Raw(bytes(raw))}
    if "citations" in block.rest:
        extra["citations"] = block.rest["citations"]
    cache = take_cache(block)
    return Media("document", "text/plain", text=text, cache=cache, extra=extra)


_FOUND: Final = msgspec.json.Decoder(_Found)
_FOUND_MEMBERS: Final = frozenset({"content", "source", "title", "citations", "cache_control"})

_READERS: Final[Mapping[str, Callable[[Members], Part | None]]] = {
    "text": _text,
    "thinking": _thinking,
    "redacted_thinking": _redacted_thinking,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "image": _image,
    "document": _document,
}


def _utf8(data: bytes, path: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(path, f"not valid UTF-8: {error.reason}") from error


def _string(raw: Raw, path: str) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except BAD_JSON as error:
        raise DecodeError(path, f"not valid JSON: {error}") from error


def _array(raw: Raw, path: str) -> list[Raw]:
    try:
        return msgspec.json.decode(raw, type=list[Raw])
    except msgspec.ValidationError as error:
        raise DecodeError(path, "expected a string or an array of blocks") from error
    except RecursionError as error:
        raise DecodeError(path, "nested too deep") from error
