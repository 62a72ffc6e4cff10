"""What is noted of a call when it is over: values that nobody changes any more, and no more of them than spans tell."""

from __future__ import annotations

from msgspec import Struct

from ..call import Attempt, Step, TraceContext
from ..codecs.base import Codec, RequestFacts
from ..facts import Principal
from ..ir.event import Chunk, Event, Usage
from ..ir.loss import Loss
from ..ir.message import Request


class Record(Struct, gc=False):
    """One call. Times are seconds since it began, ``began_unix`` when that was.

    ``parent`` is the span id that it was called from, "" for none; ``remote`` says that this is another process's.
    ``status`` is the HTTP status that the caller saw, ``error`` the kind of what it ended with. ``first_s`` is None where
    there was no stream, or no content in it. ``body`` is the request as the caller wrote it, if it is small enough to be
    kept; ``settings`` is what a changed request asks for, without its messages. ``whole`` is an answer that came at once;
    of a stream there are ``response_id``, ``response_model`` and ``reasons``, the last by choice. ``events`` and
    ``request`` are content, and None unless that is captured. ``size`` is about how many bytes it holds.
    """

    trace: TraceContext
    parent: str
    remote: bool
    codec: Codec
    counts: bool
    passed: str
    path: str
    model: str
    stream: bool
    request_id: str
    principal: Principal
    route: str
    upstream: str
    chain: tuple[str, ...]
    cache: str
    rounds: int
    attempts: tuple[Attempt, ...]
    steps: tuple[Step, ...]
    lost: tuple[Loss, ...]
    answer_lost: tuple[Loss, ...]
    began_unix: float
    started_s: float
    ended_s: float
    first_s: float | None
    status: int
    error: str
    usage: Usage | None
    response_id: str
    response_model: str
    reasons: tuple[str, ...]
    whole: Chunk | None
    body: bytes | None
    settings: Request | None
    cost_usd: float | None
    size: int
    facts: RequestFacts | None = None
    request: Request | None = None
    events: tuple[Event, ...] | None = None
