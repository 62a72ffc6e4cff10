"""What codecs of operations share, and what a service is: the way from one call to a provider's requests and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn, Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct

from ...errors import DecodeError, GatewayError, HouseError, Malformed, UpstreamError
from ...ir.event import Event, Usage, Wire
from ...ir.loss import Loss
from ...ir.message import Extra, Request
from ...wire.members import BAD_JSON, Members, encode_json, fault
from ...wire.outline import outline
from ...wire.patch import set_member
from ...wire.surrogates import mend_halves
from ..base import AnswerContext, Encoded, Peek, RequestFacts, StreamDecoder, StreamEncoder, UpstreamFacts, Wording
from ..ledger import says_something
from .errors import encode_error

MAX_CALLS: Final = 64
"""Into how many requests to a provider one call is split at most: beyond this the caller must ask several times."""
T = TypeVar("T")


# -- towards providers


class Finished(Struct, frozen=True):
    """The answer for the caller. ``usage`` is for the record; ``losses`` are those of the answer."""

    body: bytes
    usage: Usage | None = None
    losses: tuple[Loss, ...] = ()


class Errand(Struct, frozen=True):
    """The requests that one call takes at a provider, paths below its base URL, and what makes one answer of theirs.

    ``finish`` takes the bodies in the order of the requests. It raises Malformed for what is no answer to them.
    """

    requests: tuple[Encoded, ...]
    finish: Callable[[Sequence[bytes]], Finished]
    losses: tuple[Loss, ...] = ()


class Service(Protocol):
    """How a provider serves one operation. ``operation`` is the caller's format, ``format`` the provider's."""

    operation: str
    format: str

    def errand(self, body: bytes, model: str) -> Errand:
        """Return what to send for a caller's ``body``, asking for ``model``. Raises CallerError for what cannot be said."""
        ...


def lost(extra: Mapping[str, Raw], provider: str) -> tuple[Loss, ...]:
    """Return the losses of a request whose unknown members a provider of another format has no word for."""
    return tuple(
        Loss("lost", name, name, f"{provider} has no such parameter")
        for name, raw in extra.items()
        if says_something(name, raw)
    )


def read_answer(kind: msgspec.json.Decoder[T], body: bytes) -> T:
    """Read a provider's answer. Raises Malformed."""
    try:
        return kind.decode(body)
    except BAD_JSON as error:
        raise Malformed(f"the provider's answer cannot be read: {str(error)[:200]}") from error


# -- from callers


def read_request(body: bytes, read: Callable[[Members], T]) -> T:
    """Read a caller's request; half a letter in a text becomes U+FFFD. Raises DecodeError."""
    try:
        return read(Members(body, ""))
    except DecodeError:
        mended = mend_halves(body)
        if mended is body:
            raise
    return read(Members(mended, ""))


class _Peek(Struct):
    model: str | None = None
    metadata: Raw | None = None


_PEEK: Final = msgspec.json.Decoder(_Peek)


class OperationCodec:
    """The codec of an operation, as far as operations are alike. It stands in ``Call.codec`` for auth, rules and log.

    Its requests are read as a ``Request`` whose messages are the texts, so that middlewares can look at them and change
    them. There are no streams, and nothing else is ever translated into it: its answers are written by a service.
    """

    format: str
    default_model: str | None = None
    """What a request without a model asks for; None: it must name one."""
    content_type: str = "application/json"
    stream_content_type: str = "application/json"
    wording: Wording | None = None

    def __init__(self) -> None:
        self.whole = self.streamed = Wire(self.format, "json")

    def for_caller(self, facts: RequestFacts) -> OperationCodec:
        return self

    def peek(self, body: bytes, facts: RequestFacts) -> Peek:
        """Read the model. Raises DecodeError."""
        try:
            seen = _PEEK.decode(body)
        except BAD_JSON as error:
            mended = mend_halves(body)
            if mended is body:
                raise fault(error) from error
            return self.peek(mended, facts)
        model = self.default_model if seen.model is None else seen.model
        if model is None:
            raise DecodeError("model", "expected a string, but it is missing")
        return Peek(model, metadata=seen.metadata)

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        raise NotImplementedError

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        raise NotImplementedError

    def request_path(self, model: str, stream: bool) -> str:
        raise NotImplementedError

    def patch_request(self, body: bytes, peek: Peek, *, model: str | None, stream_usage: bool) -> bytes:
        """Rename the model; every other byte stays."""
        if model is None or model == peek.model:
            return body
        return set_member(mend_halves(body), "model", encode_json(model))

    outline = staticmethod(outline)

    def read_usage(self, usage: Raw) -> Usage | None:
        return None

    def decode_response(self, body: bytes) -> tuple[Event, ...]:
        self._never()

    def encode_response(self, events: Sequence[Event], context: AnswerContext) -> Encoded:
        self._never()

    def stream_decoder(self, *, hide_usage: bool = False) -> StreamDecoder:
        self._never()

    def stream_encoder(self, context: AnswerContext) -> StreamEncoder:
        self._never()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        self._never()

    def encode_error(self, error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
        return encode_error(error, request_id)

    def _never(self) -> NoReturn:
        raise HouseError(f"{self.format} is no conversation: only a service answers it")


def write_members(known: Mapping[str, object], extra: Extra) -> bytes:
    """Write a request: what is None is left out, and what nobody knows follows."""
    return encode_json({**{name: value for name, value in known.items() if value is not None}, **extra})


__all__ = [
    "MAX_CALLS",
    "Errand",
    "Finished",
    "OperationCodec",
    "Service",
    "lost",
    "read_answer",
    "read_request",
    "write_members",
]
