"""What a client's message on a WebSocket asks for: a turn, which is a request as any other once its envelope is off.

A message is the body of the request that would be posted to the same path. For openai.responses it is a client event of
the API's WebSocket mode. Source: ``ResponsesClientEvent`` of OpenAI's SDK 3.52, and its guide, November 2026.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from ..errors import CallerError, DecodeError
from ..ir.event import Chunk, ResponseStart, ResponseStop, Terminator, Wire
from ..relay.reply import Reply
from ..relay.scope import Scope
from ..responses.errors import FORMAT as RESPONSES
from ..responses.memory import Lane
from ..wire.members import BAD_JSON, NULL, OBJECT, encode_json, fault, is_string, why
from .intake import Arrived
from .messages import Line, SocketOutlet

MAX_STREAM_ID: Final = 256
_TRUE: Final = Raw(b"true")
_FALSE: Final = Raw(b"false")


class Turn(Arrived, kw_only=True):
    """One request that came as a message. ``previous`` is the response it goes on from, if any."""

    line: Line
    lane: Lane | None = None
    stream_id: Raw | None = None
    previous: str = ""

    def outlet(self, wire: Wire) -> SocketOutlet:
        """Return the way back for a stream in ``wire``."""
        return SocketOutlet(self.line, wire, self.stream_id)

    @property
    def warms(self) -> bool:
        """Whether nothing is to be generated."""
        return self.lane is not None and self.lane.warms


class Asked(Struct, frozen=True):
    """A message without its envelope: the ``body`` of a request. ``lane`` is "" for the one without a name."""

    body: bytes
    lane: str = ""
    stream_id: Raw | None = None
    warms: bool = False
    previous: str = ""


class Steer(Struct, frozen=True):
    """The client event ``response.steer``, whose ``input`` nobody takes here."""

    input: Raw = NULL
    previous_response_id: str = ""


_STEER: Final = msgspec.json.Decoder(Steer)


def read_message(format: str, message: bytes) -> Asked | Steer:
    """Return what ``message`` asks for. Raises DecodeError.

    ``stream`` need not be said, being what a socket is for; where it is false, the answer is one message.
    """
    try:
        members = OBJECT.decode(message)
    except BAD_JSON as error:
        raise fault(error) from error
    if format != RESPONSES:
        if members.get("stream", NULL) == NULL:
            members["stream"] = _TRUE
            message = encode_json(members)
        return Asked(message)
    kind = members.pop("type", NULL)
    if kind == Raw(b'"response.steer"'):
        try:
            return _STEER.decode(message)
        except BAD_JSON as error:
            raise fault(error) from error
    if kind != Raw(b'"response.create"'):
        raise DecodeError("type", "expected response.create")
    generate, stream_id = members.pop("generate", NULL), members.pop("stream_id", NULL)
    if generate not in (NULL, _TRUE, _FALSE):
        raise DecodeError("generate", "expected a boolean")
    members["stream"] = _TRUE
    return Asked(
        encode_json(members),
        _name(stream_id),
        None if stream_id == NULL else stream_id,
        generate == _FALSE,
        _text(members.get("previous_response_id", NULL)),
    )


def _name(stream_id: Raw) -> str:
    if stream_id == NULL:
        return ""
    name = _text(stream_id)
    if not name or len(name) > MAX_STREAM_ID:
        raise DecodeError("stream_id", f"expected a string of 1 to {MAX_STREAM_ID} characters")
    return name


def _text(raw: Raw) -> str:
    """Return a string member; "" for what is none, which the API's own reader will say."""
    if not is_string(raw):
        return ""
    try:
        return msgspec.json.decode(raw, type=str)
    except BAD_JSON as error:
        raise DecodeError("", why(error, "a string")) from error


def warmed(scope: Scope, model: str) -> Reply:
    """Return the answer to a turn that generates nothing: a response without output, whose id is known from now on."""
    return Reply.whole(Chunk((ResponseStart(model=model), ResponseStop(), Terminator())), scope)


def unsteered(steer: Steer) -> bytes:
    """Return the event that gives the input back: a response is steered by what generates it, and no provider is asked."""
    message = "steering is not served here: send the input in a response.create once the response is over"
    error = {"type": "invalid_request_error", "code": "steering_not_supported", "message": message}
    return encode_json({"type": "response.steer.failed", "sequence_number": 0, "error": error, "steer": steer})


def lifetime_over(minutes: float) -> CallerError:
    """The connection is as old as one may get."""
    return _limit(
        "websocket_connection_limit_reached",
        f"Responses websocket connection limit reached ({minutes:g} minutes). "
        "Create a new websocket connection to continue.",
        f"this connection is {minutes:g} minutes old, which is as old as one may get: open another",
    )


def too_many_lanes(limit: int) -> CallerError:
    """One more ``stream_id`` than a connection may have."""
    told = f"Responses websocket stream limit reached ({limit} streams)."
    return _limit("websocket_stream_limit_reached", told, told)


def _limit(code: str, told: str, message: str) -> CallerError:
    """``told`` is what the Responses API says, ``message`` what a caller of any other format is told."""
    error = {"type": "invalid_request_error", "code": code, "message": told, "param": None}
    return CallerError(message, code=code, format=RESPONSES, raw=encode_json({"error": error}))
