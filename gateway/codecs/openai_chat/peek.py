"""The two cheap looks at a request body: what routing needs of it, and the change of a member in place.

Both are on the path of every call; neither decodes the messages.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...wire.patch import set_member
from ..base import Peek
from .members import BAD_JSON, NULL, encode_json, fault


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Peek(Struct):
    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: Raw = NULL
    metadata: Raw = NULL


class _Options(Struct):
    stream_options: Raw = NULL


_PEEK: Final = msgspec.json.Decoder(_Peek)
_OPTIONS: Final = msgspec.json.Decoder(_Options)


def peek_request(body: bytes) -> Peek:
    """Read what routing needs. Raises DecodeError, ``param`` being the member that is wrong."""
    try:
        seen = _PEEK.decode(body)
    except BAD_JSON as error:
        raise fault(error) from error
    options = seen.stream_options
    return Peek(
        seen.model,
        seen.stream is True,
        options.include_usage if options is not None else None,
        None if seen.tools == NULL else seen.tools,
        None if seen.metadata == NULL else seen.metadata,
    )


def patch_request(body: bytes, peek: Peek, *, model: str | None, stream_usage: bool) -> bytes:
    """Rename the model and ask for usage in a stream; every other byte stays. The same object when nothing changes."""
    if model is not None and model != peek.model:
        body = set_member(body, "model", encode_json(model))
    if stream_usage and peek.stream and not peek.stream_usage:
        options = _OPTIONS.decode(body).stream_options
        asked = set_member(b"{}" if options == NULL else bytes(options), "include_usage", b"true")
        body = set_member(body, "stream_options", asked)
    return body
