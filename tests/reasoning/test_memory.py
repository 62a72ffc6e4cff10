"""The memory around an adapter: what it asks of the store, whom it leaves alone, and where it stops listening."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from headgate.gateway.call import Call, Decision
from headgate.gateway.codecs import anthropic_messages, openai_chat
from headgate.gateway.codecs.base import Codec, Peek, RequestFacts
from headgate.gateway.errors import HouseError
from headgate.gateway.facts import Principal
from headgate.gateway.ir.event import ChoiceStop, Chunk, Event, PartDelta, PartStart, PartStop, ResponseStop
from headgate.gateway.ir.loss import Ledger
from headgate.gateway.ir.message import Message, Reasoning, Request, Text
from headgate.gateway.reasoning import memory as module
from headgate.gateway.reasoning.memory import Policy, ReasoningMemory, Speaks, around
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.stores.base import Key
from headgate.gateway.stores.memory import MemoryStore

CLAUDE = "anthropic.messages"
THOUGHT = Reasoning("Hm.", "sig", origin=CLAUDE)


class Asked(MemoryStore):
    """A memory store that tells what it was asked for."""

    def __init__(self) -> None:
        super().__init__(1000, 1 << 20, 60)
        self.questions: list[list[str]] = []
        self.fails = False

    async def get(self, keys: Sequence[Key], /) -> list[bytes | None]:
        self.questions.append([key.name.partition(" ")[0] for key in keys])
        if self.fails:
            raise HouseError("a store of this gateway cannot be read")
        return await super().get(keys)


class Provider:
    """An adapter that says ``events``."""

    def __init__(self, *codecs: Codec) -> None:
        self.events: tuple[Event, ...] = ()
        self.calls: list[Call] = []
        self._codecs = codecs or (anthropic_messages.CODEC,)

    def codecs(self) -> tuple[Codec, ...]:
        return self._codecs

    def says(self, *parts: Any) -> None:
        events: list[Event] = []
        for index, part in enumerate(parts):
            text = part.text
            empty = Reasoning("", part.signature, origin=CLAUDE) if isinstance(part, Reasoning) else Text("")
            events += [PartStart(index, empty), PartDelta(index, text), PartStop(index)]
        self.events = (*events, ChoiceStop("stop"), ResponseStop())

    async def __call__(self, call: Call, /) -> Reply:
        self.calls.append(call)
        return Reply.whole(Chunk(self.events), call.scope)


@pytest.fixture
async def scope() -> AsyncIterator[Scope]:
    clock = Clock()
    yield Scope(clock)
    clock.close()


def call_of(scope: Scope, *messages: Message, codec: Codec = openai_chat.CODEC, route: str = "r") -> Call:
    request = Request(codec.format, "m", messages)
    decision = Decision("req", route)
    call = Call(codec, b"{}", Peek("m"), RequestFacts(), scope, "req", 0.0, 0.0, "m", decision, Ledger())
    return call.replace(_request=request, principal=Principal("k", tenant="t"))


ASKS = Message("user", (Text("Well?"),))
ANSWER = Message("assistant", (Text("Yes."),))


async def test_a_first_turn_asks_nothing_and_a_later_one_little(scope: Scope) -> None:
    store, provider = Asked(), Provider()
    memory = around("up", provider, Policy(store, 60))
    assert memory is not None
    provider.says(Text("Yes."))
    await (await memory(call_of(scope, ASKS))).collect()
    assert store.questions == []
    later = call_of(scope, ASKS, ANSWER, ASKS)
    await (await memory(later)).collect()
    assert store.questions == [["anything"]]
    assert provider.calls[-1] is later  # and its bytes, were they of use, are its own
    assert len(store) == 0

    provider.says(THOUGHT, Text("Yes."))
    await (await memory(call_of(scope, ASKS))).collect()
    await (await memory(call_of(scope, ASKS, ANSWER, ASKS))).collect()
    assert store.questions[1:] == [["anything"], ["said"]]
    assert provider.calls[-1].request.messages[1].parts == (THOUGHT, Text("Yes."))


async def test_who_is_left_alone(scope: Scope) -> None:
    store, provider = Asked(), Provider(anthropic_messages.CODEC)
    memory = around("up", provider, Policy(store, 60))
    assert memory is not None
    memory.silent.add("quiet")
    provider.says(THOUGHT, Text("Yes."))
    for call in (
        call_of(scope, ASKS, ANSWER, ASKS, codec=anthropic_messages.CODEC),
        call_of(scope, ASKS, ANSWER, ASKS, route="quiet"),
    ):
        await (await memory(call)).collect()
        assert provider.calls[-1] is call
    assert store.questions == []
    assert len(store) == 0


def test_where_nothing_is_signed_there_is_no_memory() -> None:
    policy = Policy(Asked(), 60)
    assert around("up", Provider(openai_chat.CODEC, anthropic_messages.CODEC), policy) is None

    async def silent(call: Call) -> Reply:
        raise AssertionError

    assert not isinstance(silent, Speaks)
    assert around("up", silent, policy) is None


@pytest.mark.parametrize(("cap", "kept"), [(3, False), (4, True)])
async def test_a_very_long_answer_is_not_listened_to(
    scope: Scope, monkeypatch: pytest.MonkeyPatch, cap: int, kept: bool
) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", cap)
    store, provider = Asked(), Provider()
    memory = ReasoningMemory("up", provider, [CLAUDE], Policy(store, 60))
    provider.says(THOUGHT, Text("Yes."))
    await (await memory(call_of(scope, ASKS))).collect()
    assert (len(store) > 0) is kept


async def test_a_turn_that_the_caller_brought_back_itself(scope: Scope) -> None:
    store, provider = Asked(), Provider()
    memory = ReasoningMemory("up", provider, [CLAUDE], Policy(store, 60))
    provider.says(THOUGHT, Text("Yes."))
    whole = Message("assistant", (Reasoning("Hm.", "own", origin=CLAUDE), Text("Yes.")))
    await (await memory(call_of(scope, ASKS, whole, ASKS))).collect()
    assert store.questions == []
    assert provider.calls[-1].request.messages[1] is whole


async def test_a_store_that_fails_costs_the_reasoning_not_the_call(
    scope: Scope, caplog: pytest.LogCaptureFixture
) -> None:
    store, provider = Asked(), Provider()
    memory = ReasoningMemory("up", provider, [CLAUDE], Policy(store, 60))
    store.fails = True
    provider.says(Text("Yes."))
    call = call_of(scope, ASKS, ANSWER, ASKS)
    await (await memory(call)).collect()
    assert provider.calls[-1] is call
    assert "cannot be read" in caplog.text
    assert "cannot be read" in call.decision.notes[0]
