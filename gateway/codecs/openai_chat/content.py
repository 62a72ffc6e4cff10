"""Content parts of messages, both ways: texts, images, audio, files, refusals, and their cache marks.

Sources: ``ChatCompletionContentPartParam`` of OpenAI's SDK 3.52 (text, image_url, input_audio, file, refusal;
``prompt_cache_breakpoint`` with mode explicit and ttl 30m or 12h). ``cache_control`` inside a part is how OpenRouter's and
LiteLLM's clients mark a prefix, in Anthropic's words; both become a CacheMark. What has no word here is Opaque.
"""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import Raw

from ...errors import DecodeError
from ...ir.message import NO_EXTRA, CacheMark, Extra, Media, Opaque, Refusal, Text
from ...wire.members import ARRAY, BAD_JSON, NULL, Members, why
from .members import FORMAT

DATA_URL: Final = re.compile(r"data:([^;,]+);base64,(.*)\Z", re.DOTALL)
"""The one spelling of a data: URL that can be written again from its media type and its data."""

_AUDIO: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_AUDIO_FORMATS: Final = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
_EPHEMERAL: Final = Raw(b'"ephemeral"')
_EXPLICIT: Final = Raw(b'"explicit"')
BREAKPOINT: Final = "prompt_cache_breakpoint"
"""A null of this name in a CacheMark's extra tells this spelling from ``cache_control``."""

ContentPart = Text | Media | Refusal | Opaque


def read_parts(raw: Raw, path: str) -> tuple[ContentPart, ...]:
    """Return the parts of an array of content parts. Raises DecodeError."""
    try:
        items = ARRAY.decode(raw)
    except BAD_JSON as error:
        raise DecodeError(path, why(error, "a string or an array of content parts")) from error
    return tuple(_read_part(item, f"{path}[{i}]") for i, item in enumerate(items))


def _read_part(raw: Raw, path: str) -> ContentPart:
    it = Members(raw, path)
    kind = it.need_string("type")
    if kind == "text":
        return Text(it.need_string("text"), cache=take_cache(it), extra=it.extra())
    if kind == "image_url":
        return _image(it)
    if kind == "input_audio":
        return _audio(it)
    if kind == "file":
        return _file(it)
    if kind == "refusal":
        return Refusal(it.need_string("refusal"), it.extra())
    return Opaque(FORMAT, kind, bytes(raw), take_cache(it))


def _image(it: Members) -> Media:
    image = it.object("image_url")
    if image is None:
        raise DecodeError(it.at("image_url"), "expected an object, but it is missing")
    url, detail = image.need_string("url"), image.string("detail")
    it.adopt("image_url", image)
    cache = take_cache(it)
    if found := DATA_URL.match(url):
        return Media("image", found[1], data=found[2], detail=detail, cache=cache, extra=it.extra())
    return Media("image", uri=url, detail=detail, cache=cache, extra=it.extra())


def _audio(it: Members) -> Media:
    audio = it.object("input_audio")
    if audio is None:
        raise DecodeError(it.at("input_audio"), "expected an object, but it is missing")
    data, format = audio.need_string("data"), audio.need_string("format")
    it.adopt("input_audio", audio)
    return Media("audio", _AUDIO.get(format, f"audio/{format}"), data=data, cache=take_cache(it), extra=it.extra())


def _file(it: Members) -> Media:
    file = it.object("file")
    if file is None:
        raise DecodeError(it.at("file"), "expected an object, but it is missing")
    data, id, name = file.string("file_data"), None, file.string("filename")
    if data is None and (id := file.string("file_id")) is None:
        raise DecodeError(file.path, "expected file_data or file_id")
    it.adopt("file", file)
    cache = take_cache(it)
    if data is None:
        return Media("document", file_id=id, name=name, cache=cache, extra=it.extra())
    if found := DATA_URL.match(data):
        return Media("document", found[1], data=found[2], name=name, cache=cache, extra=it.extra())
    if data.startswith(("https://", "http://", "data:")):
        return Media("document", uri=data, name=name, cache=cache, extra=it.extra())
    return Media("document", data=data, name=name, cache=cache, extra=it.extra())


def take_cache(it: Members) -> CacheMark | None:
    """Take the cache mark out of an object, in either spelling; of two the second stays where it is."""
    mark = it.object(BREAKPOINT)
    if mark is not None:
        _default(mark, "mode", _EXPLICIT)
        mark.rest[BREAKPOINT] = NULL
    elif (mark := it.object("cache_control")) is not None:
        _default(mark, "type", _EPHEMERAL)
    return None if mark is None else CacheMark(mark.string("ttl"), mark.extra())


def _default(mark: Members, name: str, usual: Raw) -> None:
    """Leave out a member that has its usual value; a null stands for one that is missing."""
    if mark.rest.get(name) == usual:
        del mark.rest[name]
    else:
        mark.rest.setdefault(name, NULL)


def write_mark(cache: CacheMark) -> tuple[str, dict[str, Any]]:
    """Return name and value of a mark that this format's reader made."""
    ttl = {} if cache.ttl is None else {"ttl": cache.ttl}
    if BREAKPOINT in cache.extra:
        usual = {} if "mode" in cache.extra else {"mode": "explicit"}
        return BREAKPOINT, {**usual, **_set(cache.extra), **ttl}
    usual = {} if "type" in cache.extra else {"type": "ephemeral"}
    return "cache_control", {**usual, **_set(cache.extra), **ttl}


def _set(extra: Extra) -> Extra:
    """A mark's members without those that are null, which only tell what was not there."""
    return {name: raw for name, raw in extra.items() if raw != NULL} or NO_EXTRA


def write_media(part: Media) -> dict[str, Any] | None:
    """Return the content part for ``part``, None when the format has none for it (video, documents by URL)."""
    if part.kind == "image":
        url = part.uri if part.data is None else f"data:{part.media_type or 'image/png'};base64,{part.data}"
        if url is None:
            return None
        image = {"url": url} if part.detail is None else {"url": url, "detail": part.detail}
        return {"type": "image_url", "image_url": image}
    if part.kind == "audio":
        format = _AUDIO_FORMATS.get(part.media_type or "")
        if format is None and (part.media_type or "").startswith("audio/"):
            format = (part.media_type or "").removeprefix("audio/")
        if part.data is None or format is None:
            return None
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": format}}
    if part.kind == "document":
        return _write_file(part)
    return None


def _write_file(part: Media) -> dict[str, Any] | None:
    file: dict[str, Any] = {}
    if part.file_id is not None:
        file["file_id"] = part.file_id
    elif part.data is not None:
        file["file_data"] = f"data:{part.media_type};base64,{part.data}" if part.media_type else part.data
    elif part.uri is not None:
        file["file_data"] = part.uri
    else:
        return None
    if part.name is not None:
        file["filename"] = part.name
    return {"type": "file", "file": file}
