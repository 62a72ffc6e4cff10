"""Spans out of records: one for the call, below it one for each attempt at a provider and for what middlewares did.

The call's span is of kind SERVER, since the gateway serves it; attempts are the CLIENT spans of the GenAI conventions. Tokens
stand on the call alone: a backend that sums them over spans would count them twice. Everything here runs off the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from ..call import Attempt, Step
from ..chain import Reached
from ..ids import span_id
from ..ir.event import Usage
from ..ir.loss import Loss
from .content import input_of, output_of
from .names import operation_of, provider_by_format, provider_of
from .reading import Told, settings_in, settings_of, short, told_by
from .record import Record
from .span import CLIENT, INTERNAL, SERVER, Attributes, Event, Fixed, Span

_MAX_FIXED: Final = 1000
_MAX_LOSSES: Final = 32
_MAX_ATTEMPTS: Final = 64
_MAX_STEPS: Final = 64
_NONE: Final = Fixed([])
_UNTOLD: Final = Told("", "", ())
_SWITCHED: Final = 101
"""The status of a WebSocket that is open."""
NS: Final = 1_000_000_000
_EVENTS: Final = {"continue": "headgate.continuation"}
"""Names of events where it is not the cause of the attempt."""


class Builder:
    """Makes spans for one gateway. ``reached`` says where its upstreams are, ``max_content`` how much of a conversation a
    span holds."""

    def __init__(self, reached: Mapping[str, Reached], max_content: int) -> None:
        self.max_content = max_content
        self._places: dict[str, tuple[str, Attributes]] = {}
        self._calls: dict[tuple[object, ...], tuple[str, Fixed]] = {}
        self._attempts: dict[tuple[object, ...], tuple[str, Fixed]] = {}
        for name, place in reached.items():
            url = urlsplit(place.base_url or "")
            host = url.hostname or ""
            attributes: Attributes = []
            if host:
                attributes = [("server.address", host)]
                attributes.append(("server.port", url.port or (443 if url.scheme == "https" else 80)))
            self._places[name] = provider_of(place.adapter, host), attributes

    def spans(self, record: Record) -> list[Span]:
        """Return the spans of a call, its own first."""
        told = self._told(record)
        operation = operation_of(record.codec.format, record.counts, bool(record.passed))
        whole = self._call(record, operation, told)
        made = [whole]
        attempts = record.attempts
        for at, attempt in enumerate(attempts[:_MAX_ATTEMPTS]):
            made.append(self._attempt(record, operation, at, attempt, told, whole.span_id))
            if attempt.cause:
                whole.events.append(self._cause(record, at, attempt))
        if record.stream and record.first_s is not None and not record.passed:
            whole.events.append(Event("headgate.first_token", _at(record, record.first_s), []))
        if len(whole.events) > 1:
            whole.events.sort(key=lambda event: event.at_ns)
        for step in record.steps[:_MAX_STEPS]:
            made.append(_step(record, step, whole.span_id))
        return made

    def _told(self, record: Record) -> Told:
        if record.whole is not None:
            return told_by(record.whole)
        reasons = record.reasons
        if not reasons and record.error and record.first_s is not None and not record.passed:
            reasons = ("error",)  # what was received of the answer has no end
        return Told(record.response_id, record.response_model, reasons)

    # -- the call

    def _call(self, record: Record, operation: str, told: Told) -> Span:
        who, format = record.principal, record.codec.format
        path = "" if record.passed else short(record.path)
        model = short(record.model)  # kept below: no longer than told
        attempts = record.attempts
        account = attempts[-1].account if attempts else ""
        key = (
            (operation, format, path, model, record.stream, record.route, record.upstream, record.chain, who),
            (
                record.status,
                record.error,
                len(attempts),
                account,
                record.cache,
                record.rounds,
                short(told.model),
                told.reasons,
            ),
        )
        known = self._calls.get(key)
        if known is None:
            if len(self._calls) >= _MAX_FIXED:
                self._calls.clear()
            known = self._calls[key] = self._fixed_of_call(record, operation, path, told, account)
        name, fixed = known
        own: Attributes = [("headgate.request.id", short(record.request_id))]
        if told.id:
            own.append(("gen_ai.response.id", short(told.id)))
        if record.passed:
            own.append(("http.request.method", record.passed))
            own.append(("url.path", short(record.path)))
        if record.body is not None:
            own += settings_of(record.body)
        elif record.settings is not None:
            own += settings_in(record.settings)
        if record.stream and record.first_s is not None:
            own.append(("gen_ai.response.time_to_first_chunk", record.first_s - record.started_s))
        if record.cache != "hit":  # what a kept answer tells was spent when it was made
            own += [] if record.usage is None else usage_of(record.usage)
        if record.cost_usd is not None:
            own.append(("headgate.cost.usd", record.cost_usd))
        own += losses_of(record.lost, record.answer_lost)
        if record.facts is not None:
            own += input_of(record, self.max_content)
            own += output_of(record, self.max_content)
        parent, trace = record.parent, record.trace
        failed = bool(record.error) and record.error != "cancelled" and (record.status >= 500 or record.status < 400)
        started, ended = _at(record, record.started_s), _at(record, record.ended_s)
        return Span(
            name,
            SERVER,
            trace.trace_id,
            trace.span_id,
            parent,
            record.remote,
            started,
            ended,
            fixed,
            own,
            [],
            failed,
            trace.flags,
            trace.state,
        )

    def _fixed_of_call(self, record: Record, operation: str, path: str, told: Told, account: str) -> tuple[str, Fixed]:
        format, who = record.codec.format, record.principal
        model = short(record.model)
        provider = self._places.get(record.upstream, (provider_by_format(format),))[0]
        pairs: Attributes = [("gen_ai.operation.name", operation), ("gen_ai.provider.name", provider)]
        if model:
            pairs.append(("gen_ai.request.model", model))
        if record.stream:
            pairs.append(("gen_ai.request.stream", True))
        if path:
            pairs += [("http.request.method", "POST"), ("url.path", short(path))]
        pairs.append(("headgate.format", format))
        for name, value in (
            ("headgate.route", record.route),
            ("headgate.upstream", record.upstream),
            ("headgate.key", who.key),
            ("headgate.tenant", who.tenant),
            ("headgate.team", who.team or ""),
        ):
            if value:
                pairs.append((name, value))
        if record.chain:
            pairs.append(("headgate.chain", record.chain))
        pairs.append(("headgate.attempts", len(record.attempts)))
        if account:
            pairs.append(("headgate.account.id", account))
        if record.cache:
            pairs.append(("headgate.cache", record.cache))
        if record.rounds:
            pairs.append(("headgate.rounds", record.rounds))
        _add_end(pairs, record.status, record.error)
        _add_told(pairs, told)
        return f"{operation} {model}" if model else operation, Fixed(pairs)

    # -- attempts

    def _attempt(self, record: Record, operation: str, at: int, attempt: Attempt, told: Told, parent: str) -> Span:
        format, status = attempt.format or record.codec.format, attempt.status
        last = at == len(record.attempts) - 1
        ended_s, ended_by = self._end_of(record, at, attempt)
        error: str = attempt.error or ended_by
        answered = last and status is not None and 200 <= status < 300
        if not answered:
            told = _UNTOLD
        number, model = _number(record, at), short(attempt.model)
        key = (
            (operation, format, attempt.upstream, model, record.stream, attempt.account, attempt.cause),
            (number, status, error, short(told.model), told.reasons),
        )
        known = self._attempts.get(key)
        if known is None:
            if len(self._attempts) >= _MAX_FIXED:
                self._attempts.clear()
            name, pairs = self._fixed_of_attempt(record, operation, format, attempt)
            pairs.append(("headgate.attempt", number))
            _add_end(pairs, status, error)
            _add_told(pairs, told)
            known = self._attempts[key] = name, Fixed(pairs)
        name, fixed = known
        own: Attributes = []
        if told.id:
            own.append(("gen_ai.response.id", short(told.id)))
        if attempt.request_id:
            own.append(("headgate.upstream.request.id", short(attempt.request_id)))
        if attempt.cost_usd is not None:
            own.append(("headgate.cost.usd", attempt.cost_usd))
        if attempt.calls > 1:
            own.append(("headgate.requests", attempt.calls))
        first_s = record.first_s
        if answered and record.stream and first_s is not None and first_s >= attempt.started_s:
            own.append(("gen_ai.response.time_to_first_chunk", first_s - attempt.started_s))
        trace = record.trace
        return Span(
            name,
            CLIENT,
            trace.trace_id,
            attempt.span_id or span_id(),
            parent,
            False,
            _at(record, attempt.started_s),
            _at(record, ended_s),
            fixed,
            own,
            [],
            bool(error) and error != "cancelled",
            trace.flags,
            trace.state,
        )

    def _fixed_of_attempt(
        self, record: Record, operation: str, format: str, attempt: Attempt
    ) -> tuple[str, Attributes]:
        model = short(attempt.model)
        provider, place = self._places.get(attempt.upstream) or (provider_by_format(format), [])
        pairs: Attributes = [("gen_ai.operation.name", operation), ("gen_ai.provider.name", provider)]
        if model:
            pairs.append(("gen_ai.request.model", model))
        if record.stream:
            pairs.append(("gen_ai.request.stream", True))
        pairs += place
        pairs += [("headgate.format", format), ("headgate.upstream", attempt.upstream)]
        if attempt.account:
            pairs.append(("headgate.account.id", attempt.account))
        if attempt.cause:
            pairs.append(("headgate.cause", attempt.cause))
        return f"{operation} {model}" if model else operation, pairs

    @staticmethod
    def _end_of(record: Record, at: int, attempt: Attempt) -> tuple[float, str]:
        """Return when an attempt was over, and with what error if nobody wrote that down.

        An attempt at a stream has its end noted when the stream begins. It went on until what came after it began, or to
        the end of the call; beside a hedge it may have gone on, and nobody knows.
        """
        ended_s = attempt.ended_s
        if ended_s is None:
            return record.ended_s, "cancelled" if record.error == "cancelled" else ""
        last = at == len(record.attempts) - 1
        if attempt.status is None and attempt.error is None and (record.error == "cancelled" or not last):
            return ended_s, "cancelled"
        status = attempt.status or 0
        opened = 200 <= status < 300 and (record.stream or bool(record.passed))
        if not opened and status != _SWITCHED:
            return ended_s, ""
        error = ""
        if last:
            ended_s = max(ended_s, record.ended_s)
            error = record.error
        else:
            following = record.attempts[at + 1]
            if following.cause != "hedge":
                ended_s = max(ended_s, following.started_s)
        return ended_s, error

    @staticmethod
    def _cause(record: Record, at: int, attempt: Attempt) -> Event:
        attributes: Attributes = [
            ("headgate.attempt", _number(record, at)),
            ("headgate.upstream", attempt.upstream),
        ]
        if attempt.account:
            attributes.append(("headgate.account.id", attempt.account))
        if at and attempt.cause != "hedge" and (error := record.attempts[at - 1].error) is not None:
            attributes.append(("error.type", error))
        name = _EVENTS.get(attempt.cause) or f"headgate.{attempt.cause}"
        return Event(name, _at(record, attempt.started_s), attributes)


def _number(record: Record, at: int) -> int:
    """Return which attempt it is, by when they began: of two side by side, the one that answered is listed last."""
    attempts = record.attempts
    if len(attempts) < 2:
        return at + 1
    began = attempts[at].started_s
    return 1 + sum(
        each.started_s < began or (each.started_s == began and number < at)
        for number, each in enumerate(attempts[:_MAX_ATTEMPTS])
    )


def _at(record: Record, seconds: float) -> int:
    """Return the time so many seconds after a call began, in nanoseconds since 1970."""
    return int((record.began_unix + seconds) * NS)


def _step(record: Record, step: Step, parent: str) -> Span:
    own: Attributes = [("headgate.middleware", step.middleware), ("headgate.step", step.what)]
    own += [
        (f"headgate.{step.middleware}.{name}", short(value) if isinstance(value, str) else value)
        for name, value in list(step.facts.items())[:16]
    ]
    trace = record.trace
    return Span(
        f"{step.middleware} {step.what}",
        INTERNAL,
        trace.trace_id,
        span_id(),
        parent,
        False,
        _at(record, step.started_s),
        _at(record, step.ended_s),
        _NONE,
        own,
        [],
        False,
        trace.flags,
        trace.state,
    )


def _add_end(own: Attributes, status: int | None, error: str) -> None:
    if status:
        own.append(("http.response.status_code", status))
    if error:
        own.append(("error.type", error))


def _add_told(own: Attributes, told: Told) -> None:
    if told.model:
        own.append(("gen_ai.response.model", short(told.model)))
    if told.reasons:
        own.append(("gen_ai.response.finish_reasons", told.reasons))


def usage_of(usage: Usage) -> Attributes:
    """Return what an answer used, as attributes."""
    own: Attributes = []
    if (read := usage.all_input) is not None:
        own.append(("gen_ai.usage.input_tokens", read))
    if usage.output_tokens is not None:
        own.append(("gen_ai.usage.output_tokens", usage.output_tokens))
    if usage.cache_read_input_tokens is not None:
        own.append(("gen_ai.usage.cache_read.input_tokens", usage.cache_read_input_tokens))
    if (written := usage.cache_creation_input_tokens) is not None:
        # Renamed in 2026: backends know the one or the other.
        own.append(("gen_ai.usage.cache_write.input_tokens", written))
        own.append(("gen_ai.usage.cache_creation.input_tokens", written))
    if usage.reasoning_output_tokens is not None:
        own.append(("gen_ai.usage.reasoning.output_tokens", usage.reasoning_output_tokens))
    if usage.estimated:
        own.append(("headgate.usage.estimated", True))
    return own


def losses_of(lost: Sequence[Loss], answer_lost: Sequence[Loss]) -> Attributes:
    """Return what a request and an answer lost on their way, as attributes."""
    return [
        (name, tuple(short(f"{loss.kind} {loss.path}") for loss in losses[:_MAX_LOSSES]))
        for name, losses in (("headgate.loss", lost), ("headgate.loss.answer", answer_lost))
        if losses
    ]


__all__ = ["NS", "Builder", "losses_of", "usage_of"]
