"""Which calls belong to one session, in every format, whatever a client adds from turn to turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from headgate.gateway import registry
from headgate.gateway.accounts.affinity import SESSION_HEADERS, Session, Sessions, session_by, session_of
from headgate.gateway.call import Call, Decision
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.facts import Principal, WireFacts
from headgate.gateway.ir.loss import Ledger
from headgate.gateway.relay.scope import Clock, Scope
from hypothesis import given, settings
from hypothesis import strategies as st

Make = Callable[..., Call]


@pytest.fixture
async def call_of() -> AsyncIterator[Make]:
    clock = Clock()

    def make(body: Any, format: str = "openai.chat", headers: dict[str, str] | None = None, **more: Any) -> Call:
        codec = registry.codec(format)
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        facts = RequestFacts("/v1/x", {}, headers or {})
        peek = codec.peek(b'{"model": "m", "messages": []}', facts)
        wire = WireFacts(format, peek, facts, data)
        call = Call(
            codec, data, peek, facts, Scope(clock), "r", 0.0, time.time(), "m", Decision("r"), Ledger(), wire=wire
        )
        return call.replace(**more)

    yield make
    clock.close()


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


BLOCK = {"type": "text", "text": "Hi"}
CACHED = {**BLOCK, "cache_control": {"type": "ephemeral"}}
TURNS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "openai.chat",
        {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, user("Hi")]},
        {"messages": [{"role": "system", "content": "Be brief."}, user("Hi"), user("More")], "model": "m", "n": 1},
    ),
    (
        "anthropic.messages",
        {"system": [BLOCK], "messages": [{"role": "user", "content": [CACHED]}]},
        {
            "system": [CACHED],
            "messages": [{"role": "user", "content": [BLOCK]}, {"role": "assistant", "content": "Yes?"}],
        },
    ),
    (
        "openai.responses",
        {"instructions": "Be brief.", "input": [user("Hi")]},
        {"instructions": "Be brief.", "input": [user("Hi"), {"type": "reasoning", "id": "r"}, user("More")]},
    ),
    (
        "gemini",
        {"systemInstruction": {"parts": [{"text": "S"}]}, "contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
        {
            "systemInstruction": {"parts": [{"text": "S"}]},
            "contents": [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": [{"text": "Yes?"}]}],
        },
    ),
    ("openai.chat", {"prompt_cache_key": "k", "messages": [user("Hi")]}, {"prompt_cache_key": "k", "messages": []}),
    ("ollama.generate", {"prompt": "Hi"}, {"prompt": "Hi", "stream": False}),
]


@pytest.mark.parametrize(
    ("format", "first", "second"), TURNS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_later_turns_are_of_the_same_session(call_of: Make, format: str, first: Any, second: Any) -> None:
    session = session_of(call_of(first, format))
    assert session is not None
    assert session_of(call_of(second, format)) == session


async def test_others_are_of_another(call_of: Make) -> None:
    bodies = [
        {"messages": [user("Hi")]},
        {"messages": [user("Ho")]},
        {"messages": [{"role": "system", "content": "Hi"}, user("Hi")]},
        {"messages": [user("Hi")], "prompt_cache_key": "k"},
        {"system": "Hi", "messages": [user("Hi")]},
        {"messages": [user("Hi", content=[BLOCK, BLOCK])]},
    ]
    assert len({session_of(call_of(body)) for body in bodies}) == len(bodies)


async def test_a_tenant_and_a_model_have_sessions_of_their_own(call_of: Make) -> None:
    body = {"messages": [user("Hi")]}
    theirs = Principal("k", tenant="acme")
    calls = [call_of(body), call_of(body, principal=theirs), call_of(body, model="other")]
    calls += [call_of(body, headers={"session-id": "1"}), call_of(body, headers={"session-id": "1"}, principal=theirs)]
    assert len({session_of(call) for call in calls}) == 5


@pytest.mark.parametrize("name", SESSION_HEADERS)
async def test_what_the_client_says_goes_first(call_of: Make, name: str) -> None:
    one = session_of(call_of({"messages": [user("Hi")]}, headers={name: "s1"}))
    other = session_of(call_of({"messages": [user("Ho")]}, headers={name: "s1"}))
    assert one == other == ("", ("m", "s1"))
    long = session_of(call_of({}, headers={name: "x" * 100_000}))
    assert long is not None and len(str(long)) < 200


async def test_a_changed_request_is_of_the_session_that_it_came_with(call_of: Make) -> None:
    call = call_of({"messages": [user("Hi")]})
    assert session_of(call.replace(body=None)) == session_of(call)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"{}", {"messages": []}, {"messages": None}, {"messages": [1]}, {"messages": "x"},
     {"messages": [{"role": 4, "content": {"a": 1}}]}, {"input": ["a", "b"]}, {"messages": [[["x"]]]},
     {"messages": [user("Hi", content=[1, 2])]}, {"system": 4, "messages": [user("Hi")]}],
)  # fmt: skip
async def test_whatever_comes(call_of: Make, body: Any) -> None:
    session = session_of(call_of(body))
    assert session is None or session[1]


MEMBERS = st.sampled_from(["messages", "content", "role", "text", "parts", "system", "input"])
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner),
)


@settings(max_examples=60)
@given(ANY)
def test_any_json(value: Any) -> None:
    async def ask() -> Session | None:
        clock = Clock()
        codec = registry.codec("openai.chat")
        facts = RequestFacts("/v1/x", {}, {})
        peek = codec.peek(b'{"model": "m"}', facts)
        body = msgspec.json.encode(value)
        call = Call(codec, body, peek, facts, Scope(clock), "r", 0.0, 0.0, "m", Decision("r"), Ledger())
        try:
            return session_of(call)
        finally:
            clock.close()

    asyncio.run(ask())


async def test_by_a_fact(call_of: Make) -> None:
    by_user = session_by(lambda call: call.facts.headers.get("x-user"))
    assert by_user(call_of({})) is None
    assert by_user(call_of({}, headers={"x-user": ""})) is None
    assert by_user(call_of({}, headers={"x-user": "u"})) == ("", "u")
    assert by_user(call_of({}, headers={"x-user": "u"}, model="other")) == ("", "u")  # whatever the model
    assert session_by(lambda call: 7)(call_of({})) == ("", "7")


def test_sessions_are_renewed_forgotten_and_bounded() -> None:
    sessions = Sessions(10.0, 2)
    sessions.bind(("", "a"), "x", 0.0)
    assert (sessions.of(("", "a"), 9.9), sessions.of(("", "b"), 1.0)) == ("x", None)
    assert sessions.of(("", "a"), 10.0) is None and not sessions.known
    sessions.bind(("", "a"), "x", 0.0)
    sessions.bind(("", "b"), "y", 0.0)
    sessions.bind(("", "a"), "x", 1.0)
    sessions.bind(("", "c"), "z", 1.0)
    assert [key for _, key in sessions.known] == ["a", "c"]
    assert sessions.of(("", "a"), -500.0) is None  # the clock went back
