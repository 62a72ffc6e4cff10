"""Around an adapter: puts back what it signed in earlier turns, and keeps what it signs in this one.

A caller whose format the provider speaks brings everything back itself and is not looked at. Signatures are put back only
for the upstream and the model that made them; for any other they are left out, and the ledger says so.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Sequence
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from ..call import Call
from ..chain import Next
from ..codecs.base import Codec
from ..codecs.ledger import in_the_callers_words
from ..errors import GatewayError, HouseError
from ..ir.event import Chunk, Event, PartDelta, PartPatch, PartStart
from ..ir.fold import fold
from ..ir.loss import Loss
from ..ir.message import Message, Part, Reasoning, Request
from ..relay.reply import Reply
from ..stores.base import Key, Store
from .turn import SIGNING, Turn, by_calls, by_words, put_back, read, since_last_turn, steps_of, write

_log = logging.getLogger("headgate.reasoning")

SPACE: Final = "reasoning"
_ANYTHING: Final = "anything"
"""The name under which stands whether there is anything of a tenant: most have nothing to look for."""
MAX_EVENTS: Final = 200_000
"""Events of one answer that are looked at; a longer one is not remembered. Some 20 MB of a provider's shortest deltas."""


@runtime_checkable
class Speaks(Protocol):
    """An adapter that says which formats its provider speaks."""

    def codecs(self) -> tuple[Codec, ...]:
        """Return those of the formats; the first is what callers of others are translated to."""
        ...


class Policy(Struct, frozen=True):
    """Where what was signed is kept, and for how many seconds."""

    store: Store
    ttl_s: float


class ReasoningMemory:
    """Wraps the adapter of the upstream ``name``. ``silent`` are the names of routes that want none of this."""

    def __init__(self, name: str, adapter: Next, formats: Iterable[str], policy: Policy) -> None:
        self.name = name
        self.silent: set[str] = set()
        self._adapter = adapter
        self._formats = frozenset(formats)
        self._policy = policy

    def __call__(self, call: Call, /) -> Awaitable[Reply]:
        """Serve ``call`` by way of the adapter."""
        if call.codec.format in self._formats or call.decision.route in self.silent:
            return self._adapter(call)
        return self._serve(call)

    async def _serve(self, call: Call) -> Reply:
        request = call.request
        recalled = await self._recall(call, request)
        reply = await self._adapter(call if recalled is request else call.with_request(recalled))
        asked = since_last_turn(request.messages, len(request.messages))
        return reply.through(_Listener(self, call.principal.tenant, call.model, tuple(asked)))

    # -- the way out

    async def _recall(self, call: Call, request: Request) -> Request:
        """Return the request with what was signed in its earlier turns; itself if nothing is known of them."""
        messages = request.messages
        turns = [
            position
            for position, message in enumerate(messages)
            if message.role == "assistant" and not _is_signed(message)
        ]
        if not turns:
            return request
        try:
            found = await self._find(call.principal.tenant, messages, turns)
        except HouseError as fault:
            # The provider may well answer without it; if not, it says why.
            _log.warning("%s: earlier reasoning is not put back: %s", call.request_id, fault.message)
            call.decision.notes.append(f"reasoning not put back: {fault.message}")
            return request
        new = list(messages)
        losses: list[Loss] = []
        for position, value in found.items():
            new[position] = self._back(messages[position], read(value), call.model, f"messages[{position}]", losses)
        if not losses:
            return request
        call.ledger.add_request(in_the_callers_words(request, losses))
        return replace(request, messages=tuple(new))

    async def _find(self, tenant: str, messages: Sequence[Message], turns: Iterable[int]) -> dict[int, bytes]:
        """Return what is kept of the turns at these positions: by their calls, and by their words where that finds nothing."""
        called = [(position, name) for position in turns for name in by_calls(messages[position].parts)]
        first = [Key(SPACE, tenant, name) for name in (_ANYTHING, *(name for _, name in called))]
        anything, *values = await self._policy.store.get(first)
        found: dict[int, bytes] = {}
        if anything is None:
            return found
        for (position, _), value in zip(called, values, strict=True):
            if value is not None:
                found.setdefault(position, value)
        spoken: dict[int, Key] = {}
        for position in turns:
            if position not in found and (name := _said(messages, position)) is not None:
                spoken[position] = Key(SPACE, tenant, name)
        if spoken:
            values = await self._policy.store.get(list(spoken.values()))
            found.update({at: value for at, value in zip(spoken, values, strict=True) if value is not None})
        return found

    def _back(self, message: Message, turn: Turn, model: str, path: str, losses: list[Loss]) -> Message:
        if (turn.upstream, turn.model) != (self.name, model):
            why = f"signed for {turn.upstream}/{turn.model}, of no use to another model"
            losses.append(Loss("lost", path, "reasoning", why))
            return message
        whole = put_back(message, turn.steps)
        if whole is None:
            losses.append(Loss("lost", path, "reasoning", "the turn was changed since: its signature has no place"))
            return message
        losses.append(Loss("emulated", path, "reasoning", "kept by the gateway and put back"))
        return whole

    # -- the way back

    def keep(self, tenant: str, model: str, asked: Iterable[Message], parts: tuple[Part, ...]) -> None:
        """Keep what is signed in an answer."""
        steps = steps_of(parts)
        if not steps:
            return
        value, words = write(Turn(self.name, model, steps)), by_words(asked, parts)
        for name in (*by_calls(parts), *([] if words is None else [words])):
            self._policy.store.put(Key(SPACE, tenant, name), value, self._policy.ttl_s)
        self._policy.store.put(Key(SPACE, tenant, _ANYTHING), b"", self._policy.ttl_s)


def _said(messages: Sequence[Message], position: int) -> str | None:
    return by_words(since_last_turn(messages, position), messages[position].parts)


def _is_signed(message: Message) -> bool:
    """Whether the caller brought a signature back itself."""
    return any(isinstance(part, Reasoning) and (part.signature or part.redacted is not None) for part in message.parts)


class _Listener:
    """Hears an answer; at its clean end, what is signed in it is kept."""

    __slots__ = ("_memory", "_tenant", "_model", "_asked", "_events")

    def __init__(self, memory: ReasoningMemory, tenant: str, model: str, asked: tuple[Message, ...]) -> None:
        self._memory = memory
        self._tenant = tenant
        self._model = model
        self._asked = asked
        self._events: list[Event] = []

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Hear a chunk."""
        events = self._events
        if len(events) <= MAX_EVENTS:
            for event in chunk.events:
                kind = type(event)
                if kind is PartDelta or kind is PartStart or kind is PartPatch:
                    events.append(event)
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """Keep what was signed, unless the answer broke off."""
        events, self._events = self._events, []
        if error is not None or len(events) > MAX_EVENTS:
            return
        choices = fold(events).choices
        if choices:
            self._memory.keep(self._tenant, self._model, self._asked, choices[0].parts)


def around(name: str, adapter: Next, policy: Policy) -> ReasoningMemory | None:
    """Return the memory for ``adapter``; None if it says nothing of its formats, or translates to one that signs nothing."""
    if not isinstance(adapter, Speaks):
        return None
    formats = [codec.format for codec in adapter.codecs()]
    if not formats or formats[0] not in SIGNING:
        return None
    return ReasoningMemory(name, adapter, formats, policy)
