"""What the access log says of a call, and ``headgate replay`` reads again."""

from __future__ import annotations

from msgspec import Struct

from ..call import Attempt
from ..ir.loss import Loss


class Line(Struct, omit_defaults=True):
    """What is said of a call. ``time`` is Unix seconds, ``outcome`` is ``ok``, ``cancelled`` or the kind of the error.
    ``tokens`` is the size of the request as rules count it, ``exact_tokens`` what a tokenizer found where a rule asked for
    that; ``team`` and ``tags`` are the caller's: with them ``headgate replay`` can decide about the call once more.
    ``counts``: no answer was asked for, but how many tokens the request has. Of a call that was passed on as it came there are
    ``received_bytes`` of its request and ``sent_bytes`` of its answer."""

    time: float
    request_id: str
    method: str
    path: str
    format: str
    model: str
    route: str
    upstream: str
    key: str
    stream: bool
    status: int
    outcome: str
    duration_ms: float
    first_token_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    usage_estimated: bool = False
    upstream_model: str | None = None
    chain: tuple[str, ...] = ()
    tenant: str = ""
    remote: str | None = None
    attempts: list[Attempt] = []
    tokens: int = 0
    exact_tokens: int | None = None
    team: str | None = None
    tags: tuple[str, ...] = ()
    loss: list[Loss] = []
    answer_loss: list[Loss] = []
    counts: bool = False
    received_bytes: int | None = None
    sent_bytes: int | None = None
    error: str | None = None
    rounds: int = 0
    cache: str = ""
    notes: list[str] = []
    cost_usd: float | None = None
    cost_estimated: bool = False
    trace_id: str = ""
