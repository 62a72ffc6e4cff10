"""The spans of the calls that most calls are, from templates: one attempt that was answered, and nobody did anything else.

What calls of one kind have in common is written once; of each there are ids, times, and what it used. It comes to the very
bytes that ``build`` and ``otlp`` write, in a third of the time; a test holds the two together.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from ..ir.event import Usage
from . import otlp
from .build import Builder, nanoseconds, usage_of
from .noting import Over
from .reading import MAX_TEXT, Told, settings_of, short

_MAX_KINDS: Final = 1000
_FIRST: Final = otlp.event_around("headgate.first_token")
_FIRST_S: Final = otlp.doubles_of("gen_ai.response.time_to_first_chunk")
_COST: Final = otlp.doubles_of("headgate.cost.usd")
_REQUEST_ID: Final = otlp.texts_of("headgate.request.id")
_RESPONSE_ID: Final = otlp.texts_of("gen_ai.response.id")
_UPSTREAM_ID: Final = otlp.texts_of("headgate.upstream.request.id")
_INPUT: Final = otlp.numbers_of("gen_ai.usage.input_tokens")
_OUTPUT: Final = otlp.numbers_of("gen_ai.usage.output_tokens")


class _Kind(Struct, frozen=True):
    """Of the call's span and of the attempt's: what stands before the times, and the attributes that are always the same."""

    call: bytes
    call_fixed: bytes
    attempt: bytes
    attempt_fixed: bytes


class Usual:
    """Writes for one gateway; ``builder`` makes what the templates are made of."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._kinds: dict[tuple[object, ...], _Kind] = {}

    def written(self, over: Over) -> bytes:
        """Return the spans of a call as they are written."""
        short_way = self._short(over) if _is_usual(over) else None
        if short_way is not None:
            return short_way
        return b"".join(map(otlp.encode_span, self._builder.spans(over.record())))

    def _short(self, over: Over) -> bytes | None:
        noting, heard, place, ended_s = over.noting, over.heard, over.place, over.ended_s
        call = noting.call
        decision, is_stream, began_unix, began = call.decision, call.peek.stream, call.began_unix, noting.started_s
        attempt = decision.attempts[0]
        told = over.told
        kind = self._kind(over, told)
        if kind is None:
            return None
        id = _RESPONSE_ID(short(told.id)) if told.id else b""
        own = _REQUEST_ID(short(call.request_id)) + id
        if over.keeps_body and call.body is not None and (settings := settings_of(call.body)):
            own += otlp.encode_pairs(settings)
        of_attempt = id if not attempt.request_id else id + _UPSTREAM_ID(short(attempt.request_id))
        if attempt.cost_usd is not None:
            of_attempt += _COST(attempt.cost_usd)
        event, attempt_ended_s = b"", attempt.ended_s or 0.0
        if is_stream:
            first_s = heard.first_s
            attempt_ended_s = max(ended_s, attempt_ended_s)
            if first_s is not None:
                own += _FIRST_S(first_s - began)
                event = _FIRST(nanoseconds(began_unix, first_s))
                if first_s >= attempt.started_s:
                    of_attempt += _FIRST_S(first_s - attempt.started_s)
        if heard.usage is not None:
            own += _usage(heard.usage)
        if decision.cost_usd is not None:
            own += _COST(decision.cost_usd)
        trace_id, span_id = bytes.fromhex(place.trace_id), bytes.fromhex(place.span_id)
        call_span = otlp.span_of(
            trace_id,
            span_id,
            bytes.fromhex(place.parent) if place.parent else b"",
            place.state,
            kind.call,
            nanoseconds(began_unix, began),
            nanoseconds(began_unix, ended_s),
            kind.call_fixed + own + event,
            otlp.flags_of(place.flags, place.remote),
        )
        return call_span + otlp.span_of(
            trace_id,
            bytes.fromhex(attempt.span_id),
            span_id,
            place.state,
            kind.attempt,
            nanoseconds(began_unix, attempt.started_s),
            nanoseconds(began_unix, attempt_ended_s),
            kind.attempt_fixed + of_attempt,
            otlp.flags_of(place.flags, False),
        )

    def _kind(self, over: Over, told: Told) -> _Kind | None:
        noting = over.noting
        call = noting.call
        decision, peek = call.decision, call.peek
        attempt, who = decision.attempts[0], decision.caller or call.principal
        key = (
            call.codec.format,
            peek.model,
            peek.stream,
            call.facts.path,
            call.counts,
            decision.route,
            decision.upstream,
            decision.chain,
            decision.cache,
            attempt.upstream,
            attempt.model,
            attempt.account,
            attempt.format,
            attempt.status,
            over.status,
            told.model,
            told.reasons,
            who.key,
            who.tenant,
            who.team,
        )
        kind = self._kinds.get(key)
        if kind is None:
            if max(map(len, (told.model, peek.model, call.facts.path))) > MAX_TEXT:
                return None  # kinds are remembered
            if len(self._kinds) >= _MAX_KINDS:
                self._kinds.clear()
            whole, tried = self._builder.spans(over.record())
            kind = self._kinds[key] = _Kind(
                otlp.name_of(whole),
                otlp.encode_pairs(whole.fixed.pairs),
                otlp.name_of(tried),
                otlp.encode_pairs(tried.fixed.pairs),
            )
        return kind


def _usage(usage: Usage) -> bytes:
    """Return what an answer used: mostly two counts."""
    read, written = usage.all_input, usage.output_tokens
    if (
        read is None
        or written is None
        or usage.estimated
        or not (
            usage.cache_read_input_tokens is usage.cache_creation_input_tokens is usage.reasoning_output_tokens is None
        )
    ):
        return otlp.encode_pairs(usage_of(usage))
    return _INPUT(read) + _OUTPUT(written)


def _is_usual(over: Over) -> bool:
    noting = over.noting
    call = noting.call
    decision = call.decision
    attempts = decision.attempts
    if over.error or noting.attempts or decision.rounds or len(attempts) != 1 or call.passed is not None:
        return False
    attempt, ledger = attempts[0], call.ledger
    if (
        attempt.error
        or attempt.cause
        or attempt.calls != 1
        or ledger.request
        or ledger.answer
        or noting.kept is not None
    ):
        return False
    return (
        200 <= (attempt.status or 0) < 300
        and attempt.ended_s is not None
        and len(attempt.span_id) == 16
        and call.body is not None
        and len(decision.steps) == noting.steps
    )
