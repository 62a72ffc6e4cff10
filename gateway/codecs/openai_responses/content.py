"""Content parts of requests, both ways: texts, images, files, refusals, and their cache marks.

Source: ``ResponseInputContentParam``, ``ResponseOutputTextParam`` and ``ResponseOutputRefusalParam`` of OpenAI's SDK 3.52.
A message's texts are ``input_text``, the model's own ``output_text``; one that is spelled otherwise has its type kept.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from ...errors import DecodeError
from ...ir.loss import Loss
from ...ir.message import NO_EXTRA, CacheMark, Citation, Extra, Media, Opaque, Refusal, Text
from ...wire.members import ARRAY, BAD_JSON, NULL, Members, encode_json, why
from .members import FORMAT

DATA_URL: Final = re.compile(r"data:([^;,]+);base64,(.*)\Z", re.DOTALL)
"""The one spelling of a data: URL that can be written again from its media type and its data."""

BREAKPOINT: Final = "prompt_cache_breakpoint"
TYPE: Final = "kept.content_type"
ANNOTATIONS: Final = "kept.annotations"
_EXPLICIT: Final = Raw(b'"explicit"')
_EMPTY: Final = Raw(b"[]")

ContentPart = Text | Media | Refusal | Opaque


class _Spot(Struct):
    type: str = ""
    url: str | None = None
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


_SPOT: Final = msgspec.json.Decoder(_Spot)


def read_parts(raw: Raw, path: str, usual: str) -> tuple[ContentPart, ...]:
    """Return the parts of an array of content parts, whose texts are usually of the type ``usual``. Raises DecodeError."""
    try:
        items = ARRAY.decode(raw)
    except BAD_JSON as error:
        raise DecodeError(path, why(error, "a string or an array of content parts")) from error
    return tuple(_read_part(item, f"{path}[{i}]", usual) for i, item in enumerate(items))


def _read_part(raw: Raw, path: str, usual: str) -> ContentPart:
    it = Members(raw, path)
    kind = it.need_string("type")
    if kind in ("input_text", "output_text"):
        return _text(it, kind, usual)
    if kind == "refusal":
        return Refusal(it.need_string("refusal"), it.extra())
    if kind == "input_image":
        url, id, detail = it.string("image_url"), None, it.string("detail")
        if url is not None or (id := it.string("file_id")) is not None:
            cache = take_cache(it)
            data = DATA_URL.match(url) if url is not None else None
            if data is not None:
                return Media("image", data[1], data=data[2], detail=detail, cache=cache, extra=it.extra())
            return Media("image", uri=url, file_id=id, detail=detail, cache=cache, extra=it.extra())
    elif kind == "input_file" and (file := _file(it)) is not None:
        return file
    cache = take_cache(Members(raw, path))
    return Opaque(FORMAT, kind, bytes(raw), cache)


def _text(it: Members, kind: str, usual: str) -> Text:
    text = it.need_string("text")
    raws = it.array("annotations")
    cache = take_cache(it)
    if kind != usual:
        it.rest[TYPE] = Raw(encode_json(kind))
    citations = tuple(read_citation(raw, it.at(f"annotations[{i}]")) for i, raw in enumerate(raws or ()))
    if raws is not None and not raws:
        it.rest[ANNOTATIONS] = _EMPTY
    return Text(text, citations, cache, it.extra())


def read_citation(raw: Raw, path: str) -> Citation:
    """Read an annotation. Raises DecodeError for one that is no object."""
    try:
        spot = _SPOT.decode(raw)
    except BAD_JSON as error:
        raise DecodeError(path, why(error, "an annotation")) from error
    return Citation(FORMAT, spot.type, bytes(raw), spot.url, spot.title, start=spot.start_index, end=spot.end_index)


def _file(it: Members) -> Media | None:
    data, url, id, name = it.string("file_data"), None, None, it.string("filename")
    if data is None and (url := it.string("file_url")) is None and (id := it.string("file_id")) is None:
        return None
    detail, cache = it.string("detail"), take_cache(it)
    media_type = None
    if data is not None and (found := DATA_URL.match(data)):
        media_type, data = found[1], found[2]
    elif data is not None and data.startswith("data:"):
        # Spelled in a way that could not be written again from its parts.
        it.rest["kept.file_data"], url, data = NULL, data, None
    return Media("document", media_type, data, url, id, name=name, detail=detail, cache=cache, extra=it.extra())


def take_cache(it: Members) -> CacheMark | None:
    """Take the cache mark out of a content part; a null stands for a mode that is missing."""
    mark = it.object(BREAKPOINT)
    if mark is None:
        return None
    if mark.rest.get("mode") == _EXPLICIT:
        del mark.rest["mode"]
    else:
        mark.rest.setdefault("mode", NULL)
    return CacheMark(mark.string("ttl"), mark.extra())


def write_mark(cache: CacheMark) -> dict[str, Any]:
    """Return a mark that this format's reader made."""
    usual = {} if "mode" in cache.extra else {"mode": "explicit"}
    ttl = {} if cache.ttl is None else {"ttl": cache.ttl}
    return {**usual, **{name: raw for name, raw in cache.extra.items() if raw != NULL}, **ttl}


def write_media(part: Media, own: bool) -> dict[str, Any] | None:
    """Return the content part for ``part``, None when the format has none for it."""
    value: dict[str, Any]
    if part.kind == "image":
        value = {"type": "input_image"}
        if part.data is not None:
            value["image_url"] = f"data:{part.media_type or 'image/png'};base64,{part.data}"
        elif part.uri is not None:
            value["image_url"] = part.uri
        elif part.file_id is not None:
            value["file_id"] = part.file_id
        else:
            return None
    elif part.kind == "document":
        value = {"type": "input_file"}
        if part.data is not None:
            value["file_data"] = f"data:{part.media_type};base64,{part.data}" if part.media_type else part.data
        elif part.uri is not None:
            value["file_data" if own and "kept.file_data" in part.extra else "file_url"] = part.uri
        elif part.file_id is not None:
            value["file_id"] = part.file_id
        else:
            return None
        if part.name is not None:
            value["filename"] = part.name
    else:
        return None
    if part.detail is not None:
        value["detail"] = part.detail
    elif part.kind == "image" and not own:
        value["detail"] = "auto"  # demanded by strict readers; what is meant without it
    return value


def write_citation(citation: Citation, length: int, path: str) -> tuple[Any, list[Loss]]:
    """Return the annotation for ``citation`` in a text of ``length`` characters, and its losses.

    None when the format cannot say it.
    """
    if citation.format == FORMAT:
        return Raw(citation.raw), []
    path = f"{path}.annotations"
    if citation.url is None:
        return None, [Loss("lost", path, citation.kind, "of another format, and no address")]
    losses: list[Loss] = []
    if citation.cited_text is not None:
        losses.append(Loss("lost", path, "cited_text", "an annotation does not quote its source"))
    if citation.start is None:
        losses.append(Loss("emulated", path, "start_index", "the whole text is marked as cited"))
    spot = {
        "type": "url_citation",
        "url": citation.url,
        "title": citation.title or "",
        "start_index": citation.start or 0,
        "end_index": length if citation.end is None else citation.end,
    }
    return spot, losses


def own_members(extra: Extra) -> Extra:
    """``extra`` without what the reader only noted down for itself."""
    if not extra:
        return NO_EXTRA
    return {name: raw for name, raw in extra.items() if name != "item" and not name.startswith(("kept.", "item."))}
