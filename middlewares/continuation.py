"""Go on where an answer broke off: the provider's cap on its length was reached, or the connection was cut.

The model is asked again, with what it said so far and a user's turn that says to go on, since newer models refuse to be
prefilled; the caller sees one answer. Never past the caller's own limit, and never from inside a tool call.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from ..gateway.call import Call, Step
from ..gateway.chain import Next
from ..gateway.continuing.ending import is_cut_short
from ..gateway.continuing.said import Said
from ..gateway.continuing.seam import Seam
from ..gateway.doors import APART
from ..gateway.errors import GatewayError
from ..gateway.ir.message import Message, Request, Text
from ..gateway.relay.reply import Reply
from ..gateway.relay.source import Listed
from ..gateway.relay.splice import End
from ..gateway.tokens import by_size
from ..gateway.units import seconds

_log: Final = logging.getLogger("headgate.continue")
LEAST_TOKENS: Final = 16
"""What must be left of the caller's limit: OpenAI's Responses take no less, and a few tokens are a matter of counting."""
PROMPT: Final = (
    "Your last message was cut off. Continue exactly where you stopped, without repeating anything of it and without any "
    "introduction: your next words are appended to it as they are."
)
_NOT_CONTINUED: Final = APART | {"openai.completions", "ollama.generate"}
"""Formats without a conversation that a turn could be added to."""


class ContinueOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``rounds`` is how often it asks again at most. ``on`` (in quotes: YAML reads it as true): ``length``, the provider's cap
    was reached; ``cut``, the connection ended before the answer did. ``prompt`` is what the user's turn says. ``overlap`` is
    how many characters at the start of a round are compared with the end of what was said, to leave out what is repeated;
    0 compares nothing."""

    rounds: Annotated[int, Meta(ge=1, le=20)] = 3
    on: tuple[Literal["length", "cut"], ...] = ("length", "cut")
    prompt: Annotated[str, Meta(min_length=1)] = PROMPT
    overlap: Annotated[int, Meta(ge=0, le=4000)] = 200


class Continue:
    """Follows every answer to its end, and asks for more of those that broke off."""

    Options: ClassVar[type[Struct]] = ContinueOptions
    needs_usage = True

    def __init__(self, options: ContinueOptions) -> None:
        self.options = options
        self._endings = frozenset(options.on)

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Return the answer, in as many rounds as it takes."""
        reply = await call_next(call)
        if call.codec.format in _NOT_CONTINUED or call.counts:
            return reply
        chunks = reply.gathered()
        if chunks is not None:
            if len(chunks) == 1:
                reply = Reply.whole(chunks[0], call.scope, reply.status, reply.headers)
                broke_off = is_cut_short(chunks[0])
            else:
                reply = Reply(Listed(chunks), call.scope, reply.status, reply.headers)
                broke_off = any(map(is_cut_short, chunks))
            if not broke_off or "length" not in self._endings:
                return reply
        following = _Following(self.options, self._endings, call, call_next)
        return reply.through(following).then(following.decide)


class _Following(Said):
    """One answer: hears what is said, and decides at the end of each round whether another follows.

    ``_spent`` are the output tokens so far, by the provider's word or, of a round that was cut, by their size; ``_told``
    those that providers told.
    """

    __slots__ = ("_options", "_endings", "_call", "_call_next", "_spent", "_told")

    def __init__(self, options: ContinueOptions, endings: frozenset[str], call: Call, call_next: Next) -> None:
        super().__init__()
        self._options = options
        self._endings = endings
        self._call = call
        self._call_next = call_next
        self._spent = 0
        self._told = 0

    def decide(self, end: End) -> Awaitable[Reply | None] | None:
        """Return the next round, or None if this was the last."""
        error = end.error
        if error is None and end.reason != "length":
            return None
        ending = "length" if error is None else error.kind
        if ending not in self._endings or end.round >= self._options.rounds:
            return None
        self.read()
        if not self.fits:
            return None
        added = self.added
        if not added.strip() and (error is None or end.round or added or self.unseen):
            return None  # a round without a word; only where there was nothing at all, the same question is asked again
        request = self._call.request
        if (request.n or 1) > 1:
            return None
        room = self._room(request, end, added)
        if room is not None and room < LEAST_TOKENS:
            return None
        return self._ask(request, room, end.round + 1, ending)

    def _room(self, request: Request, end: End, added: str) -> int | None:
        """Return what is left of the caller's limit, None if there is none. Where nobody knows, nothing is left."""
        if request.max_output_tokens is None:
            return None
        total = 0 if end.usage is None else end.usage.output_tokens or 0
        told, self._told = total - self._told, total
        if end.error is not None:
            told = max(told, by_size(added) + self.unseen // 4)
        elif told <= 0:
            return 0
        self._spent += told
        return request.max_output_tokens - self._spent

    async def _ask(self, request: Request, room: int | None, number: int, ending: str) -> Reply:
        text = self.text
        call = self._call.replace(cause="continue")
        if text:
            call = call.with_request(_going_on(request, text, self._options.prompt, room))
        decision = self._call.decision
        _log.info("%s: the answer ended as %s: round %d of %d", call.request_id, ending, number, self._options.rounds)
        now, began = call.scope.loop.time, call.began
        started = seconds(now() - began)
        facts: dict[str, str | int | float | bool] = {"round": number, "ending": ending}
        try:
            reply = await self._call_next(call)
            if text:
                reply.through(Seam(text, self._options.overlap))
            await reply.opened()  # a round that fails before it said anything is one that cannot be had
        except GatewayError as error:
            decision.steps.append(
                Step("continue", "round", started, seconds(now() - began), {**facts, "error": error.kind})
            )
            raise
        decision.steps.append(Step("continue", "round", started, seconds(now() - began), facts))
        decision.rounds = number
        self.begin()
        return reply.through(self)


def _going_on(request: Request, text: str, prompt: str, room: int | None) -> Request:
    """Return the request for what comes after ``text``, with ``room`` tokens left.

    What forces the form of an answer holds for one from its start, so it is dropped for the middle of one.
    """
    messages = request.messages
    said = Message("assistant", (Text(text),), brief=True)
    if messages and messages[-1].role == "assistant" and (parts := messages[-1].parts):
        # The caller had begun the answer itself: the two are one turn.
        last = parts[-1]
        joined = (*parts[:-1], replace(last, text=last.text + text)) if type(last) is Text else (*parts, Text(text))
        messages, said = messages[:-1], replace(messages[-1], parts=joined)
    choice, thinking = request.tool_choice, request.reasoning
    if choice is not None and (choice.mode in ("required", "tool") or choice.required):
        choice = None
    if thinking is not None and room is not None and (thinking.budget_tokens or 0) >= room:
        thinking = None
    return replace(
        request,
        messages=(*messages, said, Message("user", (Text(prompt),), brief=True)),
        tool_choice=choice,
        reasoning=thinking,
        response_format=None,
        max_output_tokens=request.max_output_tokens if room is None else room,
    )


__all__ = ["Continue", "ContinueOptions"]
