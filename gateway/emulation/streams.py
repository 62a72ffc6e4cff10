"""Providers that know one way of answering: never as a stream, or as nothing else.

Every answer is a stream of events inside the gateway, so only the request differs: what comes back is told to the caller as
it wanted it. Keep-alives go out meanwhile as for any answer that takes its time.
"""

from __future__ import annotations

from msgspec.structs import replace

from ..call import Call
from ..codecs.ledger import in_the_callers_words
from ..ir.loss import Loss

_OF_A_STREAM = "stream_options"


def whole(call: Call) -> Call:
    """Return the call for a provider that never streams; the same if no stream is wanted."""
    if not call.peek.stream:
        return call
    request = call.request
    extra = {name: raw for name, raw in request.extra.items() if name.partition(".")[0] != _OF_A_STREAM}
    _note(call, "the provider does not stream: its whole answer is told as a stream")
    return call.with_request(replace(request, stream=False, stream_usage=None, extra=extra))


def streamed(call: Call) -> Call:
    """Return the call for a provider that only streams; the same if a stream is wanted."""
    if call.peek.stream:
        return call
    _note(call, "the provider only streams: a whole answer is gathered from that")
    inner = call.with_request(replace(call.request, stream=True))
    inner.wants_usage = True
    return inner


def _note(call: Call, why: str) -> None:
    call.ledger.add_request(in_the_callers_words(call.request, (Loss("emulated", "stream", "stream", why),)))
