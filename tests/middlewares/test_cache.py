"""Which calls are equal, what is kept of their answers, how it is given again, and how calls under way share one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway import registry, rules
from headgate.gateway.call import Attempt, Call
from headgate.gateway.errors import Cancelled, GatewayError, upstream_error
from headgate.gateway.facts import Principal
from headgate.gateway.ir.event import Chunk, PartDelta
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed, Sink
from headgate.gateway.stores.memory import MemoryStore
from headgate.gateway.units import Duration, Size
from headgate.middlewares.cache import Cache, CacheOptions

from ..server.house import begin, until

CODEC = registry.codec("openai.chat")
MESSAGES = registry.codec("anthropic.messages")
Make = Callable[..., Call]


def whole(text: str = "hi", reason: str = "stop", **more: Any) -> bytes:
    """A provider's answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    told = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return json.dumps(told | {"usage": usage} | more).encode()


def frames(*words: str, reason: str | None = "stop", done: bool = True) -> list[bytes]:
    """A provider's stream."""
    base = {"id": "chatcmpl-2", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    told: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in told]
    if reason is not None:
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
    lines = [b"data: %b\n\n" % json.dumps(base | {"choices": [choice]}).encode() for choice in choices]
    return [*lines, b"data: [DONE]\n\n"] if done else lines


def chunks_of(pieces: list[bytes]) -> list[Chunk]:
    """What a stream decoder makes of them."""
    decoder = CODEC.stream_decoder()
    return [chunk for piece in pieces if (chunk := decoder.feed(piece)) is not None]


class Tap:
    """A stream that the test feeds. A Source[Chunk]."""

    def __init__(self) -> None:
        self.sink: Sink[Chunk] | None = None
        self.paused = False
        self.aborted = False

    def connect(self, sink: Sink[Chunk], /) -> None:
        self.sink = sink

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True
        self.sink = None

    def say(self, *chunks: Chunk) -> None:
        assert self.sink is not None
        for chunk in chunks:
            assert self.sink is not None
            self.sink.push(chunk)

    def end(self, error: GatewayError | None = None) -> None:
        assert self.sink is not None
        sink, self.sink = self.sink, None
        sink.end(error)


class Upstream:
    """The rest of a chain: each play is a whole body, an error, chunks, or a Tap; ``gate`` holds it back."""

    def __init__(self, *plays: bytes | GatewayError | list[Chunk] | Tap) -> None:
        self.plays = list(plays)
        self.calls: list[Call] = []
        self.gate: asyncio.Event | None = None

    async def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        play = self.plays.pop(0)
        if self.gate is not None:
            await self.gate.wait()
        call.decision.attempts.append(Attempt("upstream", "m", 0.0, status=200))
        if isinstance(play, GatewayError):
            raise play
        headers = {"x-ratelimit-remaining": "7"}
        if isinstance(play, bytes):
            chunk = Chunk(None, play, CODEC.whole, CODEC.decode_response, CODEC.read_usage)
            return Reply.whole(chunk, call.scope, 200, headers)
        return Reply(Listed(play) if isinstance(play, list) else play, call.scope, 200, headers)


def cache_of(**options: Any) -> Cache:
    return Cache(CacheOptions(**options))


def asking(make: Make, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None, **more: Any) -> Call:
    """A call with a body of its own."""
    said = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]} | (body or {})
    call = make(headers, stream=bool(said.get("stream")), **more)
    raw = json.dumps({name: value for name, value in said.items() if value is not None}).encode()
    return call.replace(body=raw, peek=call.codec.peek(raw, call.facts))


def text_of(chunks: list[Chunk]) -> str:
    return "".join(event.text for chunk in chunks for event in chunk.events if isinstance(event, PartDelta))


async def heard(cache: Cache, call: Call, upstream: Upstream) -> list[Chunk]:
    return await (await cache(call, upstream)).collect()


async def test_the_same_again(call_of: Make) -> None:
    cache, upstream = cache_of(), Upstream(whole())
    first, second = asking(call_of), asking(call_of)
    reply = await cache(first, upstream)
    assert (await reply.collect())[0].raw == whole()
    assert dict(reply.headers) == {"x-ratelimit-remaining": "7"}
    reply = await cache(second, upstream)
    (chunk,) = await reply.collect()
    assert (chunk.raw, chunk.wire) == (whole(), CODEC.whole)
    assert (first.decision.cache, second.decision.cache) == ("miss", "hit")
    assert (len(upstream.calls), second.decision.attempts, dict(reply.headers)) == (1, [], {})


PRINCIPAL = Principal("k", "team", "tenant")
DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "words": ({}, {"body": {"messages": [{"role": "user", "content": "Bye"}]}}),
    "a setting": ({}, {"body": {"max_tokens": 7}}),
    "an unknown member": ({}, {"body": {"frobnicate": 1}}),
    "the user": ({"body": {"user": "a"}}, {"body": {"user": "b"}}),
    "a beta": ({}, {"headers": {"anthropic-beta": "x"}}),
    "the organization": ({}, {"headers": {"openai-organization": "x"}}),
    "strangers' keys": ({"headers": {"authorization": "Bearer a"}}, {"headers": {"authorization": "Bearer b"}}),
    "the tenant": ({"principal": PRINCIPAL}, {"principal": Principal("k", "team", "other")}),
}
ALIKE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "zero": ({}, {"body": {"temperature": None}}),
    "no stream, said": ({}, {"body": {"stream": False}}),
    "another header": ({}, {"headers": {"x-other": "1", "user-agent": "y"}}),
    "another key of the tenant": ({"principal": PRINCIPAL}, {"principal": Principal("l", "other", "tenant")}),
}


@pytest.mark.parametrize("how", DIFFERENT)
async def test_what_is_not_equal(call_of: Make, how: str) -> None:
    cache, upstream = cache_of(), Upstream(whole("one"), whole("two"))
    one, two = DIFFERENT[how]
    assert text_of(await heard(cache, asking(call_of, **one), upstream)) == "one"
    assert text_of(await heard(cache, asking(call_of, **two), upstream)) == "two"


@pytest.mark.parametrize("how", ALIKE)
async def test_what_is_equal(call_of: Make, how: str) -> None:
    cache, upstream = cache_of(), Upstream(whole())
    for more in ALIKE[how]:
        await heard(cache, asking(call_of, **more), upstream)
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("change", ["route", "target", "upstream", "model"])
async def test_where_it_goes_counts(call_of: Make, change: str) -> None:
    cache, upstream = cache_of(), Upstream(whole(), whole())
    await heard(cache, asking(call_of), upstream)
    other = asking(call_of)
    if change == "model":
        other = other.replace(model="n")
    else:
        setattr(other.decision, change, "other")
    await heard(cache, other, upstream)
    assert len(upstream.calls) == 2


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], int]] = {
    "vary": ({"vary": ("X-Arm",)}, {"headers": {"x-arm": "a"}}, {"headers": {"x-arm": "b"}}, 2),
    "ignore": ({"ignore": ("user",)}, {"body": {"user": "a"}}, {"body": {"user": "b"}}, 1),
    "per team": ({"per": "team"}, {"principal": PRINCIPAL}, {"principal": Principal("k", "b", "tenant")}, 2),
    "per key": ({"per": "key"}, {"principal": PRINCIPAL}, {"principal": Principal("l", "team", "tenant")}, 2),
    "warm": ({}, {"body": {"temperature": 0.5}}, {"body": {"temperature": 0.5}}, 2),
    "cold": ({}, {"body": {"temperature": 0.0}}, {"body": {"temperature": 0.0}}, 1),
    "any": ({"any_temperature": True}, {"body": {"temperature": 0.5}}, {"body": {"temperature": 0.5}}, 1),
    "too large": ({"max_answer": Size(50)}, {}, {}, 2),
    "one entry": ({"max_entries": 1}, {}, {}, 1),
}


@pytest.mark.parametrize("how", OPTIONS)
async def test_options(call_of: Make, how: str) -> None:
    options, one, two, calls = OPTIONS[how]
    cache, upstream = cache_of(**options), Upstream(whole(), whole())
    await heard(cache, asking(call_of, **one), upstream)
    await heard(cache, asking(call_of, **two), upstream)
    assert len(upstream.calls) == calls


async def test_the_temperature_of_formats_that_keep_it_elsewhere(call_of: Make) -> None:
    keys = cache_of()._keys
    for format, settings in (("gemini", "generationConfig"), ("ollama.chat", "options")):
        for temperature, kept in ((0, True), (0.7, False)):
            call = call_of(format="openai.chat").replace(codec=registry.codec(format))
            body = json.dumps({settings: {"temperature": temperature}}).encode()
            assert (keys.of(call.replace(body=body)) is not None) == kept


@pytest.mark.parametrize(
    ("headers", "said", "calls", "kept"),
    [
        ({"cache-control": "no-store"}, "bypass", 2, "one"),
        ({"headgate-cache": "bypass"}, "bypass", 2, "one"),
        ({"cache-control": "no-cache"}, "miss", 2, "two"),
        ({"headgate-cache": "refresh"}, "miss", 2, "two"),
        ({"cache-control": "max-age=5"}, "hit", 1, "one"),
    ],
)
async def test_what_a_caller_may_ask(call_of: Make, headers: dict[str, str], said: str, calls: int, kept: str) -> None:
    cache, upstream = cache_of(), Upstream(whole("one"), whole("two"))
    await heard(cache, asking(call_of), upstream)
    call = asking(call_of, headers=headers)
    await heard(cache, call, upstream)
    assert (call.decision.cache, len(upstream.calls)) == (said, calls)
    assert text_of(await heard(cache, asking(call_of), upstream)) == kept


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "unheard_of"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_only_good_ends(call_of: Make, reason: str, stream: bool) -> None:
    play = chunks_of(frames("a", "b", reason=reason)) if stream else whole(reason=reason)
    cache, upstream = cache_of(), Upstream(play, play)
    for _ in range(2):
        await heard(cache, asking(call_of, {"stream": stream}), upstream)
    assert len(upstream.calls) == (1 if reason in ("stop", "length") else 2)


@pytest.mark.parametrize("cut", range(5))
async def test_a_stream_cut_at_every_event(call_of: Make, cut: int) -> None:
    told = chunks_of(frames("a", "b", "c"))
    tap = Tap()
    cache, upstream = cache_of(), Upstream(tap, told)
    reply = await cache(asking(call_of, {"stream": True}), upstream)
    reading = begin(reply.collect())
    await until(lambda: tap.sink is not None)
    tap.say(*told[:cut])
    tap.end(upstream_error("cut", "x"))
    with pytest.raises(GatewayError):
        await reading
    assert text_of(await heard(cache, asking(call_of, {"stream": True}), upstream)) == "abc"
    assert len(upstream.calls) == 2


async def test_a_stream_that_ends_without_its_mark_is_not_kept(call_of: Make) -> None:
    told = chunks_of(frames("a", reason=None, done=False))
    cache, upstream = cache_of(), Upstream(told, told)
    for _ in range(2):
        await heard(cache, asking(call_of, {"stream": True}), upstream)
    assert len(upstream.calls) == 2


async def test_errors_are_not_kept(call_of: Make) -> None:
    cache, upstream = cache_of(), Upstream(upstream_error("overloaded", "x"), whole())
    with pytest.raises(GatewayError):
        await heard(cache, asking(call_of), upstream)
    assert text_of(await heard(cache, asking(call_of), upstream)) == "hi"


async def test_the_bytes_of_a_stream(call_of: Make) -> None:
    cache, upstream = cache_of(), Upstream(chunks_of(frames("a", "b")))
    for _ in range(2):
        told = await heard(cache, asking(call_of, {"stream": True}), upstream)
        assert b"".join(chunk.raw or b"" for chunk in told) == b"".join(frames("a", "b"))
        assert {chunk.wire for chunk in told} == {CODEC.streamed}


async def test_a_whole_answer_told_as_a_stream_and_the_other_way(call_of: Make) -> None:
    cache, upstream = cache_of(), Upstream(whole("first"))
    await heard(cache, asking(call_of), upstream)
    (chunk,) = await heard(cache, asking(call_of, {"stream": True}), upstream)
    assert (text_of([chunk]), chunk.is_whole) == ("first", True)
    usage = json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
                        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})  # fmt: skip
    pieces = frames("a", "b")
    pieces.insert(-1, f"data: {usage}\n\n".encode())
    cache, upstream = cache_of(), Upstream(chunks_of(pieces), whole("asked"))
    await heard(cache, asking(call_of, {"stream": True, "stream_options": {"include_usage": True}}), upstream)
    assert text_of(await heard(cache, asking(call_of), upstream)) == "ab"
    # In this one nobody asked for usage: it may not be told without it, nor with a frame of usage.
    cache, upstream = cache_of(), Upstream(chunks_of(frames("a", "b")), whole("asked"))
    await heard(cache, asking(call_of, {"stream": True}), upstream)
    assert text_of(await heard(cache, asking(call_of), upstream)) == "asked"


async def test_an_answer_that_was_changed_on_its_way(call_of: Make) -> None:
    changed = [Chunk(chunk.events) for chunk in chunks_of(frames("a", "b"))]
    cache, upstream = cache_of(), Upstream(changed)
    await heard(cache, asking(call_of, {"stream": True, "stream_options": {"include_usage": True}}), upstream)
    told = await heard(cache, asking(call_of, {"stream": True, "stream_options": {"include_usage": True}}), upstream)
    assert text_of(told) == "ab"


async def test_a_request_that_was_changed(call_of: Make) -> None:
    cache, upstream = cache_of(), Upstream(whole(), whole("other"))
    for _ in range(2):
        call = asking(call_of)
        await heard(cache, call.with_request(call.request), upstream)
    assert len(upstream.calls) == 1
    warm = asking(call_of, {"temperature": 1})
    await heard(cache, warm.with_request(warm.request), upstream)
    assert (warm.decision.cache, len(upstream.calls)) == ("bypass", 2)


async def test_across_formats(call_of: Make) -> None:
    cache, upstream = cache_of(across_formats=True), Upstream(whole(), whole())
    await heard(cache, asking(call_of, {"max_completion_tokens": 9}), upstream)
    other = asking(call_of, {"max_tokens": 9}).replace(codec=MESSAGES)
    assert text_of(await heard(cache, other, upstream)) == "hi"
    assert other.decision.cache == "hit"
    extra = {"frobnicate": 1}  # a member that each format has for itself
    await heard(cache, asking(call_of, extra), upstream)
    assert cache._keys.of(asking(call_of, extra)) != cache._keys.of(asking(call_of, extra).replace(codec=MESSAGES))


async def test_what_cannot_be_read_goes_by(call_of: Make) -> None:
    cache = cache_of()
    for change in ({"body": b"{nonsense"}, {"counts": True}):
        call, upstream = asking(call_of).replace(**change), Upstream(whole())
        await heard(cache, call, upstream)
        assert call.decision.cache == "bypass"


async def test_time_goes_by(call_of: Make) -> None:
    now = [0.0]
    cache, upstream = cache_of(), Upstream(whole(), whole())
    cache.store = MemoryStore(10, 10_000, 60, lambda: now[0])
    for now[0], calls in ((0.0, 1), (59.0, 1), (61.0, 2), (1.0, 2)):
        await heard(cache, asking(call_of), upstream)
        assert len(upstream.calls) == calls


async def test_a_reload_keeps_what_is_kept(call_of: Make) -> None:
    old, upstream = cache_of(), Upstream(whole(), whole())
    await heard(old, asking(call_of), upstream)
    new = cache_of(ttl=Duration(10), version="")
    new.carry_over(old)
    await heard(new, asking(call_of), upstream)
    assert len(upstream.calls) == 1
    newer = cache_of(version="2")
    newer.carry_over(new)
    await heard(newer, asking(call_of), upstream)
    assert len(upstream.calls) == 2


# --- calls under way


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_hundred_at_once(call_of: Make, stream: bool) -> None:
    upstream = Upstream(chunks_of(frames("a", "b")) if stream else whole("ab"))
    cache, upstream.gate = cache_of(), asyncio.Event()
    calls = [asking(call_of, {"stream": stream}) for _ in range(100)]
    tasks = [begin(heard(cache, call, upstream)) for call in calls]
    await asyncio.sleep(0)
    upstream.gate.set()
    answers = await asyncio.gather(*tasks)
    assert len({b"".join(chunk.raw or b"" for chunk in answer) for answer in answers}) == 1
    assert (len(answers), len(upstream.calls), len(cache._flights)) == (100, 1, 0)
    assert sorted(call.decision.cache for call in calls) == ["hit"] * 99 + ["miss"]


async def test_who_comes_late_hears_all_and_who_leaves_cuts_nobody(call_of: Make) -> None:
    told, tap = chunks_of(frames("a", "b", "c", "d")), Tap()
    cache, upstream = cache_of(), Upstream(tap)
    calls = [asking(call_of, {"stream": True}) for _ in range(3)]
    first = await cache(calls[0], upstream)
    one = begin(first.collect())
    await until(lambda: tap.sink is not None)
    tap.say(*told[:2])
    two = begin(heard(cache, calls[1], upstream))
    await asyncio.sleep(0)
    tap.say(told[2])
    first.abort()
    calls[0].scope.close()
    with pytest.raises(Cancelled):
        await one
    assert not tap.aborted
    assert calls[1].scope.items  # it rides there now
    tap.say(told[3])
    three = begin(heard(cache, calls[2], upstream))
    await asyncio.sleep(0)
    tap.say(*told[4:])
    tap.end()
    assert await two == told == await three
    assert len(upstream.calls) == 1
    assert not calls[1].scope.items and not calls[1].scope.watched
    assert text_of(await heard(cache, asking(call_of, {"stream": True}), upstream)) == "abcd"


async def test_a_scope_that_closes_first(call_of: Make) -> None:
    told, tap = chunks_of(frames("a")), Tap()
    cache, upstream = cache_of(), Upstream(tap)
    first, second = asking(call_of, {"stream": True}), asking(call_of, {"stream": True})
    await cache(first, upstream)
    other = begin(heard(cache, second, upstream))
    await until(lambda: tap.sink is not None)
    first.scope.close()
    tap.say(*told)
    tap.end()
    assert text_of(await other) == "a"


async def test_with_the_last_one_it_ends(call_of: Make) -> None:
    tap = Tap()
    cache, upstream = cache_of(), Upstream(tap)
    calls = [asking(call_of, {"stream": True}) for _ in range(2)]
    replies = [await cache(call, upstream) for call in calls]
    reading = [begin(reply.collect()) for reply in replies]
    await until(lambda: tap.sink is not None)
    for call, reply, task in zip(calls, replies, reading, strict=True):
        assert not tap.aborted
        reply.abort()
        call.scope.close()
        with pytest.raises(Cancelled):
            await task
    assert tap.aborted
    assert cache._flights == {}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_first_leaves_before_anything_came(call_of: Make, stream: bool) -> None:
    answer: Any = chunks_of(frames("a")) if stream else whole("a")
    upstream = Upstream(answer, answer)
    cache, upstream.gate = cache_of(), asyncio.Event()
    first = begin(heard(cache, asking(call_of, {"stream": stream}), upstream))
    await asyncio.sleep(0)
    others = [begin(heard(cache, asking(call_of, {"stream": stream}), upstream)) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    upstream.gate.set()
    assert {text_of(answer) for answer in await asyncio.gather(*others)} == {"a"}
    assert len(upstream.calls) == 2


async def test_a_failure_is_everybodys(call_of: Make) -> None:
    upstream = Upstream(upstream_error("overloaded", "busy", retry_after_s=3))
    cache, upstream.gate = cache_of(), asyncio.Event()
    tasks = [begin(heard(cache, asking(call_of), upstream)) for _ in range(5)]
    await asyncio.sleep(0)
    upstream.gate.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {(repr(error), getattr(error, "retry_after_s", None)) for error in errors} == {
        ("Overloaded(overloaded, 503, 'busy')", 3)
    }
    assert (len(set(map(id, errors))), len(upstream.calls)) == (5, 1)


async def test_a_failure_within_the_stream(call_of: Make) -> None:
    told, tap = chunks_of(frames("a")), Tap()
    cache, upstream = cache_of(), Upstream(tap)
    tasks = [begin(heard(cache, asking(call_of, {"stream": True}), upstream)) for _ in range(3)]
    await until(lambda: tap.sink is not None)
    tap.say(told[0])
    tap.end(upstream_error("cut", "gone"))
    assert [repr(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [
        "Cut(cut, 502, 'gone')"
    ] * 3


async def test_slow_readers(call_of: Make) -> None:
    """Below the bound the provider waits if all are slow, above it for the slowest; what all heard is forgotten then."""
    told, tap = chunks_of(frames(*"abcdefgh")), Tap()
    cache, upstream = cache_of(max_answer=Size(1000)), Upstream(tap, whole())
    replies = [await cache(asking(call_of, {"stream": True}), upstream) for _ in range(2)]
    (flight,) = cache._flights.values()

    class Ear:
        def __init__(self) -> None:
            self.chunks: list[Chunk] = []

        def push(self, chunk: Chunk, /) -> None:
            self.chunks.append(chunk)

        def end(self, error: GatewayError | None, /) -> None:
            assert error is None

    ears = [Ear(), Ear()]
    for reply, ear in zip(replies, ears, strict=True):
        reply.connect(ear)
    assert not tap.paused
    replies[0].pause()
    assert not tap.paused
    replies[1].pause()
    assert tap.paused
    replies[1].resume()
    assert not tap.paused
    tap.say(*told[:8])
    assert (tap.paused, cache._flights) == (True, {})  # beyond the bound
    assert [len(ear.chunks) for ear in ears] == [0, 8]
    replies[0].resume()
    assert not tap.paused
    tap.say(*told[8:])
    assert len(flight.chunks) == 0
    tap.end()
    assert ears[0].chunks == ears[1].chunks == told
    assert await cache._find(asking(call_of, {"stream": True}), cache._names(asking(call_of), "x")) is None


async def test_alone_if_one_wants(call_of: Make) -> None:
    upstream = Upstream(*[whole()] * 3)
    cache, upstream.gate = cache_of(single_flight=False), asyncio.Event()
    tasks = [begin(heard(cache, asking(call_of), upstream)) for _ in range(3)]
    await asyncio.sleep(0)
    upstream.gate.set()
    await asyncio.gather(*tasks)
    assert len(upstream.calls) == 3


# --- in a rule file

RULES = """
version: 1
server: {{anonymous: allow}}
{stores}
upstreams: {{sim: {{adapter: simulator}}}}
routes: [{{name: all, chain: [{{cache: {{{options}}}}}], to: sim}}]
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("ttl: 10m, max_answer: 2MiB, store: disk", []),
        ("store: dsk", ['there is no store "dsk"', 'nothing refers to the store "disk"']),
        ("ttl: 0s", ["ttl must be above zero"]),
        ("per: planet", ["per"]),
    ],
)
def test_options_in_a_file(tmp_path: Path, options: str, said: list[str]) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(RULES.format(options=options, stores="stores: {disk: {kind: sqlite, path: kept.db}}"))
    problems = [str(problem) for problem in rules.check(path)]
    if not said:
        assert problems == []
    else:
        assert said[0] in problems[0] and ":6" in problems[0]


async def test_embeddings(call_of: Make) -> None:
    codec = registry.codec("openai.embeddings")
    asked: list[Call] = []

    async def embedded(call: Call) -> Reply:
        asked.append(call)
        return Reply.whole(Chunk((), b'{"data": []}', codec.whole), call.scope)

    cache = cache_of(across_formats=True)
    for _ in range(2):
        call = call_of().replace(codec=codec, body=b'{"model": "m", "input": "Hello"}')
        (chunk,) = await (await cache(call, embedded)).collect()
        assert (chunk.raw, chunk.wire) == (b'{"data": []}', codec.whole)
    assert len(asked) == 1
