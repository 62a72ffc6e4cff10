"""A conversation that is to be kept, without what was replaced in it: what is at rest holds no more than a provider saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ..codecs.base import Codec, RequestFacts, UpstreamFacts
from .json_text import redact_json_bytes
from .redactor import Session
from .request import redact_request


class _Body(Struct):
    input: tuple[Raw, ...] = ()


_BODY: Final = msgspec.json.Decoder(_Body)


def sealed(
    codec: Codec, response: bytes, items: tuple[Raw, ...], sessions: Sequence[Session]
) -> tuple[bytes, tuple[Raw, ...]]:
    """Return an answer of OpenAI's Responses and the items that led to it, with placeholders.

    ``sessions`` are those that the call passed, outermost first: they know which placeholder each value has.
    """
    body = msgspec.json.encode({"model": "", "input": items})
    for session in sessions:
        request = codec.decode_request(body, RequestFacts())
        redacted = redact_request(request, session)
        if redacted is not request:
            body = codec.encode_request(redacted, UpstreamFacts()).body
            items = _BODY.decode(body).input
        response = redact_json_bytes(response, session, "the answer")
    return response, items
