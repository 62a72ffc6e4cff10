"""The two cheap looks at a request body: what routing needs of it, and the change of a member in place.

Both are on the path of every call; neither decodes the messages.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...wire.members import BAD_JSON, NULL, fault
from ..base import Peek, RequestFacts


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Peek(Struct):
    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: Raw = NULL
    metadata: Raw = NULL


_PEEK: Final = msgspec.json.Decoder(_Peek)


def peek_request(body: bytes, facts: RequestFacts) -> Peek:
    """Read what routing needs, all of it in ``body``. Raises DecodeError, ``param`` being the member that is wrong."""
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
