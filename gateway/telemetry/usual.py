"""The spans of the calls that most calls are, from templates: one attempt that was answered, and nobody did anything else.

What calls of one kind have in common is written once; of each there are ids, times, and what it used. It comes to the very
bytes that ``build`` and ``otlp`` write, in a fifth of the time; a test holds the two together. What depends on one text or
number alone is looked up by it, and made where it is missing.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from ..ir.event import Usage
from ..ir.loss import Loss
from . import otlp
from .build import NS, Builder, losses_of, usage_of
from .noting import Over
from .otlp import SIZES, TIMES
from .reading import MAX_TEXT, Asked, Told, read_asked, settings_asked, settings_in, told_by

_MAX_KINDS: Final = 1000
_LONG: Final = 256
"""Bytes of settings that are remembered: beyond them they are some caller's words."""
_FIRST: Final = otlp.event_around("headgate.first_token")
_FIRST_S: Final = otlp.doubles_of("gen_ai.response.time_to_first_chunk")
_COST: Final = otlp.doubles_of("headgate.cost.usd")
_REQUEST_ID: Final = otlp.Heads("headgate.request.id")
_RESPONSE_ID: Final = otlp.Heads("gen_ai.response.id")
_UPSTREAM_ID: Final = otlp.Heads("headgate.upstream.request.id")
_INPUT: Final = otlp.Numbers("gen_ai.usage.input_tokens")
_OUTPUT: Final = otlp.Numbers("gen_ai.usage.output_tokens")
_unhex: Final = bytes.fromhex


class _Kind(Struct, frozen=True):
    """Of the call's span and of the attempt's: what stands before the times, the attributes that are always the same, and what
    stands at the end. ``call_size`` and ``attempt_size`` are bytes of a span beside what is its own."""

    call: bytes
    call_fixed: bytes
    call_flags: bytes
    call_size: int
    attempt: bytes
    attempt_fixed: bytes
    attempt_flags: bytes
    attempt_size: int


class Usual:
    """Writes for one gateway; ``builder`` makes what the templates are made of."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._asked: dict[Asked, bytes] = {}

    def written(self, over: Over) -> bytes:
        """Return the spans of a call as they are written."""
        return self._short(over) or b"".join(map(otlp.encode_span, self.builder.spans(over.record())))

    def _short(self, over: Over) -> bytes | None:
        """Return the same the short way; None if it is not for this call."""
        noting, heard, place = over.noting, over.heard, over.place
        call = noting.call
        decision, ledger = call.decision, call.ledger
        attempts = decision.attempts
        if (
            over.error
            or len(attempts) != 1
            or noting.attempts
            or decision.rounds
            or noting.kept is not None
            or call.passed is not None
            or len(decision.steps) != noting.steps
        ):
            return None
        told = over.told if heard.whole is None else told_by(heard.whole)
        attempt, peek, who = attempts[0], call.peek, decision.caller or call.principal
        status, attempt_s, span_id = attempt.status, attempt.ended_s, attempt.span_id
        if (
            status is None
            or not 200 <= status < 300
            or attempt_s is None
            or attempt.error
            or attempt.cause
            or attempt.calls != 1
            or not span_id
        ):
            return None
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
            status,
            over.status,
            told.model,
            told.reasons,
            who.key,
            who.tenant,
            who.team,
            place.flags,
            place.remote,
        )
        kind = self._kinds.get(key) or self._learn(key, over, told)
        provider_id = attempt.request_id or ""
        if kind is None or len(told.id) > MAX_TEXT or len(provider_id) > MAX_TEXT:
            return None

        own = call.request_id.encode("utf-8", "replace")
        own = _REQUEST_ID[len(own)] + own
        of_attempt = b""
        if told.id:
            id = told.id.encode("utf-8", "replace")
            of_attempt = _RESPONSE_ID[len(id)] + id
            own += of_attempt
        if provider_id:
            id = provider_id.encode("utf-8", "replace")
            of_attempt += _UPSTREAM_ID[len(id)] + id
        body = call.body
        if body is None:
            own += otlp.encode_pairs(settings_in(call.request))
        elif len(body) <= over.most_asked and (asked := read_asked(body)) is not None:
            settings = self._asked.get(asked)
            own += self._settings(asked) if settings is None else settings
        if attempt.cost_usd is not None:
            of_attempt += _COST(attempt.cost_usd)
        event, began, ends_s, born = b"", noting.started_s, over.ended_s, call.began_unix
        if peek.stream:
            first_s = heard.first_s
            attempt_s = max(ends_s, attempt_s)
            if first_s is not None:
                own += _FIRST_S(first_s - began)
                event = _FIRST(int((born + first_s) * NS))
                if first_s >= attempt.started_s:
                    of_attempt += _FIRST_S(first_s - attempt.started_s)
        if (usage := heard.usage) is not None:
            own += _usage(usage)
        if decision.cost_usd is not None:
            own += _COST(decision.cost_usd)
        if ledger.request or ledger.answer:
            own += _losses(tuple(ledger.request), tuple(ledger.answer))

        trace_id, id_of_call = _unhex(place.trace_id), _unhex(place.span_id)
        state = above = b""
        if place.state:
            state = otlp.state_of(place.state)
        if place.parent:
            above = b"\x22\x08" + _unhex(place.parent)
        return b"".join(
            (
                b"\x12",
                SIZES[kind.call_size + len(state) + len(above) + len(own) + len(event)],
                b"\x0a\x10",
                trace_id,
                b"\x12\x08",
                id_of_call,
                state,
                above,
                kind.call,
                TIMES(0x39, int((born + began) * NS), 0x41, int((born + ends_s) * NS)),
                kind.call_fixed,
                own,
                event,
                kind.call_flags,
                b"\x12",
                SIZES[kind.attempt_size + len(state) + len(of_attempt)],
                b"\x0a\x10",
                trace_id,
                b"\x12\x08",
                _unhex(span_id),
                state,
                b"\x22\x08",
                id_of_call,
                kind.attempt,
                TIMES(0x39, int((born + attempt.started_s) * NS), 0x41, int((born + attempt_s) * NS)),
                kind.attempt_fixed,
                of_attempt,
                kind.attempt_flags,
            )
        )

    def _learn(self, key: tuple[object, ...], over: Over, told: Told) -> _Kind | None:
        """Remember what calls of this kind have in common; None where that would be to remember somebody's words."""
        call = over.noting.call
        if max(map(len, (told.model, call.peek.model, call.facts.path, call.request_id))) > MAX_TEXT:
            return None
        whole, tried = self.builder.spans(over.record())
        names = otlp.name_of(whole), otlp.name_of(tried)
        fixed = otlp.encode_pairs(whole.fixed.pairs), otlp.encode_pairs(tried.fixed.pairs)
        flags = otlp.flags_of(whole.flags, whole.remote), otlp.flags_of(tried.flags, tried.remote)
        # Of a call: two ids and what stands before each, and the times. Of an attempt: the id of its call beside them.
        sizes = [len(b"".join(parts)) + 46 for parts in zip(names, fixed, flags, strict=True)]
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        self._kinds[key] = kind = _Kind(
            names[0], fixed[0], flags[0], sizes[0], names[1], fixed[1], flags[1], sizes[1] + 10
        )
        return kind

    def _settings(self, asked: Asked) -> bytes:
        """Return what was asked for besides words, and remember it."""
        written = otlp.encode_pairs(settings_asked(asked))
        if len(written) < _LONG:
            if len(self._asked) >= _MAX_KINDS:
                self._asked.clear()
            self._asked[asked] = written
        return written


def _usage(usage: Usage) -> bytes:
    """Return what an answer used: mostly two counts."""
    read, written = usage.input_tokens, usage.output_tokens
    if (
        read is None
        or written is None
        or usage.cache_read_input_tokens is not None
        or usage.cache_creation_input_tokens is not None
        or usage.reasoning_output_tokens is not None
        or usage.estimated
    ):
        return otlp.encode_pairs(usage_of(usage))
    return _INPUT[read] + _OUTPUT[written]


_lost: Final[dict[tuple[tuple[Loss, ...], tuple[Loss, ...]], bytes]] = {}


def _losses(of_request: tuple[Loss, ...], of_answer: tuple[Loss, ...]) -> bytes:
    """Return what was lost on the way: the same in all calls of a kind, as a rule."""
    both = of_request, of_answer
    written = _lost.get(both)
    if written is None:
        written = otlp.encode_pairs(losses_of(*both))
        if len(written) < _LONG:
            if len(_lost) >= _MAX_KINDS:
                _lost.clear()
            _lost[both] = written
    return written
