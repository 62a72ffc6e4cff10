"""Members of a request that both Completions APIs spell alike. How they were spelled is remembered by a null, or as it came."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from ..errors import DecodeError
from ..wire.members import BAD_JSON, NULL, Members, encode_json, is_string, string_of, why
from ..wire.patch import set_member
from .base import Peek


class _Options(Struct):
    stream_options: Raw = NULL


_OPTIONS: Final = msgspec.json.Decoder(_Options)
_STRINGS: Final = msgspec.json.Decoder(list[str])


def read_stop(it: Members) -> tuple[str, ...]:
    """Take ``stop``, a string or several. Raises DecodeError."""
    raw = it.take("stop")
    if raw is None:
        return ()
    if is_string(raw):
        it.rest["stop"] = NULL
        return (string_of(raw, "stop"),)
    try:
        found = tuple(_STRINGS.decode(raw))
    except BAD_JSON as error:
        raise DecodeError("stop", why(error, "a string or an array of strings")) from error
    if not found:
        it.rest["stop"] = raw
    return found


def read_stream_options(it: Members) -> bool | None:
    """Take ``stream_options``; return whether they ask for usage, None if they do not say. Raises DecodeError."""
    raw = it.raw("stream_options")
    options = it.object("stream_options")
    if options is None:
        return None
    usage = options.boolean("include_usage")
    if usage is None and not options.rest and raw is not None:
        it.rest["stream_options"] = raw
    it.adopt("stream_options", options)
    return usage


def patch_request(body: bytes, peek: Peek, *, model: str | None, stream_usage: bool) -> bytes:
    """Rename the model and ask for usage in a stream; every other byte stays. The same object when nothing changes."""
    if model is not None and model != peek.model:
        body = set_member(body, "model", encode_json(model))
    if stream_usage and peek.stream and not peek.stream_usage:
        options = _OPTIONS.decode(body).stream_options
        asked = set_member(b"{}" if options == NULL else bytes(options), "include_usage", b"true")
        body = set_member(body, "stream_options", asked)
    return body
