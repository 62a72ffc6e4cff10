"""Whole answers, both ways: a response object into events, and events into a response object."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import DecodeError, Malformed, UpstreamError, upstream_error
from ...ir.event import Event, ResponsePatch, ResponseStop, UsageReport
from ...ir.message import Part
from ...wire.members import Members, encode_json
from ...wire.surrogates import mend_halves
from ..base import AnswerContext, Encoded
from .errors import error_in
from .output_reader import read_ending, read_item, read_start, stop_of, unfold
from .output_writer import OutputWriter
from .usage import read_usage


def decode_response(body: bytes) -> tuple[Event, ...]:
    """Read a whole answer. Raises UpstreamError: malformed, or the error that a 200 carries."""
    try:
        return _decode(body)
    except DecodeError as error:
        raise Malformed(f"the answer is not a response: {error.message}", details=error.path) from error


def _decode(body: bytes) -> tuple[Event, ...]:
    it = Members(mend_halves(body), "")
    if it.raw("error") is not None and it.raw("output") is None:
        told = error_in(body)
        if told is not None:
            raise _with_raw(told, body)
    output = it.array("output")
    if output is None:
        raise DecodeError("output", "expected an array, but it is missing")
    try:
        ending = read_ending(it)
    except UpstreamError as error:
        raise _with_raw(error, None) from error
    usage = it.take("usage")
    start, late = read_start(it)
    events: list[Event] = [start]
    parts: list[Part] = []
    for position, raw in enumerate(output):
        for piece in read_item(raw, f"output[{position}]"):
            events += unfold(piece, len(parts))
            parts.append(piece.part)
    if late:
        events.append(ResponsePatch(late))
    events.append(stop_of(ending, parts))
    if usage is not None and (report := read_usage(usage)) is not None:
        events.append(UsageReport(report))
    events.append(ResponseStop())
    return tuple(events)


def _with_raw(error: UpstreamError, body: bytes | None) -> UpstreamError:
    """The error with the body that tells it, where that is one that a caller may be sent."""
    error.raw = body if body is not None and error.raw is not None else None
    return error


def encode_response(events: Sequence[Event], context: AnswerContext) -> Encoded:
    """Write a whole answer. Raises UpstreamError(malformed) for tool arguments of another format that are no JSON object."""
    writer = OutputWriter(context)
    for event in events:
        writer.add(event, None)
    writer.finish(None)
    if writer.failed is not None:
        raise upstream_error("upstream_error", f"the provider ended the answer with an error ({writer.failed})")
    writer.check_arguments()
    return Encoded(encode_json(writer.response()), losses=tuple(writer.losses))
