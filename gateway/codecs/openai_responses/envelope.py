"""The response object around the output items of an answer: what began it, how it ended, and what it cost.

A response repeats what was asked: where another format answers, its members are those of the request as it came. Minted
where nobody gave them, since clients demand them: ``id``, ``created_at``, and of that echo ``tools``, ``tool_choice``,
``parallel_tool_calls``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgspec import Raw

from ...ir.event import ChoiceStop, ResponsePatch, ResponseStart, Usage
from ...ir.loss import Loss, LossKind
from ...ir.message import Extra
from ...wire.members import BAD_JSON, OBJECT
from ..base import AnswerContext
from ..ledger import MAX_LOSSES
from ..openai_settings import shares_tiers
from .members import FORMAT, foreign
from .usage import write_usage
from .words import INCOMPLETE, INEXACT, REASONS

_TIER: Final = "service_tier"
_ECHOED: Final = (
    "background",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)
"""``Response`` of OpenAI's SDK 3.52, as far as it says what the request said."""
_PENDING: Final = frozenset({"queued", "in_progress", "cancelled"})


class Noted:
    """The losses of one answer: each once, no more than MAX_LOSSES. A stream loses the same thing many times."""

    __slots__ = ("losses",)

    def __init__(self) -> None:
        self.losses: list[Loss] = []

    def lose(self, losses: Iterable[Loss]) -> None:
        """Note losses."""
        for loss in losses:
            if len(self.losses) < MAX_LOSSES and loss not in self.losses:
                self.losses.append(loss)

    def note(self, kind: LossKind, path: str, what: str, why: str) -> None:
        """Note one."""
        self.lose([Loss(kind, path, what, why)])


class Envelope:
    """The members of one response. ``own``: its provider speaks this format; ``begun``: it has said so much as hello.

    ``refused`` says that the answer holds a refusal, in words of its own.
    """

    def __init__(self, context: AnswerContext, noted: Noted) -> None:
        self.own = False
        self.begun = False
        self.refused = False
        self.stop: ChoiceStop | None = None
        self.usage: Usage | None = None
        self._context = context
        self._noted = noted
        self._members: dict[str, Any] = {}
        self._late: dict[str, Raw] = {}
        self._shares_tiers = False

    def begin(self, event: ResponseStart) -> None:
        """Begin; when another provider goes on with the answer, its extras count from here, its id and model do not."""
        self.own = event.format == FORMAT
        self._shares_tiers = shares_tiers(event.format)
        if self.begun:
            return
        self.begun = True
        id, created = event.id, event.created
        if not id:
            id = f"resp_{self._context.request_id}"
            self._noted.note("minted", "id", "id", "the provider gave none")
        if created is None:
            created = self._context.created
            self._noted.note("minted", "created_at", "created_at", "the provider gave no date")
        value: dict[str, Any] = {"id": id, "object": "response", "created_at": created}
        value |= {"status": "", "error": None, "incomplete_details": None, "model": event.model or self._context.model}
        value["output"] = []
        if event.service_tier is not None:
            if self._shares_tiers:
                value["service_tier"] = event.service_tier
            else:
                tier = f"a tier of {event.format or 'another format'}"
                self._noted.note("lost", "service_tier", event.service_tier, tier)
        if self.own:
            _add_kept(value, event.extra)
        else:
            self._noted.lose(foreign(event.extra, ""))
            value |= _echo(self._context.asked)
        if "tools" not in value and "tool_choice" not in value and not self._context.asked:
            self._noted.note("minted", "tools", "tools", "the echo of the request: demanded here, and not known")
        for name, usual in (("parallel_tool_calls", True), ("tool_choice", "auto"), ("tools", [])):
            value.setdefault(name, usual)
        self._members = value

    def patch(self, event: ResponsePatch) -> None:
        """Take members that came late."""
        if self.own:
            self._late.update(event.extra)
            return
        extra = event.extra
        if self._shares_tiers and _TIER in extra:
            self._late[_TIER] = extra[_TIER]
            extra = {name: raw for name, raw in extra.items() if name != _TIER}
        self._noted.lose(foreign(extra, ""))

    def status(self) -> str:
        """The word for how the answer ended."""
        stop = self.stop
        if stop is None:
            return "completed"
        if self.own and stop.raw_reason:
            if stop.raw_reason in _PENDING:
                return stop.raw_reason
            if stop.raw_reason == "completed":
                return "completed"
            if INCOMPLETE.get(stop.raw_reason) == stop.reason or stop.reason == "other":
                return "incomplete"
        if stop.reason == "refusal" and self.refused:
            return "completed"
        return "incomplete" if stop.reason in REASONS else "completed"

    def ended(self, output: list[Any]) -> dict[str, Any]:
        """The response object of an answer that came to an end, well or incomplete."""
        status, stop = self.status(), self.stop
        if stop is None:
            self._noted.note("minted", "status", "status", "the provider told none")
        elif stop.reason in INEXACT and not self.own and not (stop.reason == "refusal" and self.refused):
            self._noted.note("emulated", "status", stop.raw_reason or stop.reason, INEXACT[stop.reason])
        value = self.response(status, output)
        if status == "incomplete" and stop is not None:
            word = stop.raw_reason if self.own and stop.raw_reason else REASONS.get(stop.reason, "max_output_tokens")
            if word != "incomplete":
                details: dict[str, Any] = {"reason": word}
                if self.own:
                    for name, raw in stop.extra.items():
                        details[name.removeprefix("incomplete_details.")] = raw
                value["incomplete_details"] = details
        if stop is not None and not self.own:
            self._noted.lose(foreign(stop.extra, ""))
        return value

    def started(self) -> dict[str, Any]:
        """The response object as it begins."""
        return {**self._members, "status": "in_progress", "output": [], "usage": None}

    def response(self, status: str, output: list[Any]) -> dict[str, Any]:
        """The response object with all that was told so far."""
        value = {**self._members, "status": status, "output": output}
        _add_kept(value, self._late)
        losses: list[Loss] = []
        value["usage"] = None if self.usage is None else write_usage(self.usage, losses)
        self._noted.lose(losses)
        return value


def _echo(asked: bytes) -> Extra:
    """Return the members of a request that its response repeats. It was read before: what is wrong now is no concern here."""
    try:
        members = OBJECT.decode(asked) if asked else {}
    except BAD_JSON:
        return {}
    return {name: raw for name in _ECHOED if (raw := members.get(name)) is not None}


def _add_kept(value: dict[str, Any], extra: Extra) -> None:
    """Write the members of an envelope, without the codec's own prefix."""
    for name, raw in extra.items():
        value[name.removeprefix("kept.")] = raw
