"""Structured output where the provider has none: asked for in another way, checked, and once sent back to be mended.

The answer is held until it is valid, so that nothing passes as valid that is not. It then goes out as if the provider had
given it, as a whole or as a stream of one piece, with the usage of all turns.
"""

from __future__ import annotations

from typing import Final

from ..call import Call
from ..chain import Next
from ..codecs.ledger import in_place, in_the_callers_words
from ..errors import DecodeError, Malformed, Unsupported
from ..ir.event import (
    ChoicePatch,
    ChoiceStop,
    Chunk,
    Event,
    ResponsePatch,
    ResponseStop,
    StopReason,
    Terminator,
    Usage,
    UsageReport,
)
from ..ir.fold import Choice, Response, fold, unfold_parts
from ..ir.loss import Loss
from ..ir.message import Part, Text, ToolCall
from ..relay.reply import Reply
from ..relay.rounds import add_usage
from .asking import Asking, Found, is_wanted
from .checks import AT, Check, Checks
from .options import Way

TURNS: Final = 2
"""The first, and one to mend."""
_WHY: Final = {
    "tool": "the provider has none: a tool is asked for, and the gateway checks the answer",
    "instruction": "the provider has none: the prompt asks for it, and the gateway checks the answer",
}


async def structured(call: Call, call_next: Next, way: Way, checks: Checks) -> Reply:
    """Serve a call that wants structured output by way of ``call_next``; any other is handed on.

    Raises DecodeError for a schema that is none, Malformed for an answer that stays wrong, and what ``call_next`` raises.
    """
    request = call.request
    if not is_wanted(request):
        return await call_next(call)
    asking, check = _begin(call, way, checks)
    asked, usage = asking.request, None
    fault, mending = "", False
    for turn in range(TURNS):
        inner = call.with_request(asked)
        inner.wants_usage = True
        try:
            reply = await call_next(inner)
        except Unsupported:
            if not mending:
                raise
            mending = False
            break  # the provider's format has no words for an earlier turn
        heard = fold([event for chunk in await reply.collect() for event in chunk.events])
        if heard.usage is not None:
            usage = add_usage(usage, heard.usage)
        choice = heard.choices[0] if heard.choices else Choice()
        found = asking.read(choice)
        try:
            wrong = None if found.text is None else check.fault(found.text)
        except DecodeError as unchecked:
            raise in_place(request, unchecked) from unchecked
        if wrong is None or _is_cut(choice):
            return _told(call, reply, heard, choice, found, usage)
        fault = wrong
        if turn + 1 < TURNS:
            asked, mending = asking.mend(asked, choice, found, fault), True
    if call.decision.attempts:
        call.decision.attempts[-1].error = "malformed"
    again = ", nor when it was told" if mending else ""
    raise Malformed(f"the model did not keep to the schema{again}: {fault}")


def ask(call: Call, way: Way, checks: Checks) -> Call:
    """Return the first call that ``structured`` makes, noting it in the ledger; the same if nothing is wanted."""
    return call.with_request(_begin(call, way, checks)[0].request) if is_wanted(call.request) else call


def _begin(call: Call, way: Way, checks: Checks) -> tuple[Asking, Check]:
    request = call.request
    wanted = request.response_format
    assert wanted is not None
    asking = Asking(request, way)
    loss = Loss("emulated", "response_format", wanted.kind, _WHY[way])
    try:
        if wanted.kind == "json_schema" and wanted.schema is None:
            raise DecodeError(AT, "expected an object, but it is missing")
        check = checks.of(asking.schema)
    except DecodeError as fault:
        raise in_place(request, fault) from fault
    call.ledger.add_request(in_the_callers_words(request, (loss,)))
    return asking, check


def _is_cut(choice: Choice) -> bool:
    """Whether the answer says itself that it is not whole. So would a provider that knows structured output, and no more."""
    return choice.reason in ("length", "context_window", "content_filter", "refusal")


def _told(call: Call, reply: Reply, heard: Response, choice: Choice, found: Found, usage: Usage | None) -> Reply:
    """Return the answer as if the provider knew structured output."""
    parts: tuple[Part, ...] = found.parts
    reason: StopReason | None = choice.reason
    raw_reason = choice.raw_reason
    losses: list[Loss] = []
    if found.text is not None:
        calls = [part for part in parts if isinstance(part, ToolCall) and not part.server]
        # What was thought comes before what was said, and calls after it.
        kept = [part for part in parts if part not in calls]
        parts = (*kept, Text(found.text), *calls)
        if found.called is not None:
            if not calls and not _is_cut(choice):
                reason, raw_reason = "stop", ""
            if any(isinstance(part, Text) and part.text.strip() for part in choice.parts):
                losses.append(Loss("lost", "choices[0].text", "text", "words beside the structured answer"))
    if choice.logprobs:
        losses.append(Loss("lost", "choices[0].logprobs", "logprobs", "they are of what the provider was asked for"))
    call.ledger.add_answer(losses)
    events: list[Event] = [heard.start]
    if heard.extra:
        events.append(ResponsePatch(heard.extra))
    events += unfold_parts(parts, 0, 0)
    if choice.extra:
        events.append(ChoicePatch(0, choice.extra))
    if reason is not None:
        events.append(ChoiceStop(reason, raw_reason, 0, choice.stop_sequence, choice.stop_extra))
    if usage is not None:
        events.append(UsageReport(usage))
    events += (ResponseStop(), Terminator())
    return Reply.whole(Chunk(tuple(events)), call.scope, reply.status, reply.headers)
