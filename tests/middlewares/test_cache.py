"""Which calls are equal, what is kept of their answers, how it is given again, and how calls under way share one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway import registry, rules
from headgate.gateway.caching.flight import Flight
from headgate.gateway.call import Attempt, Call
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.errors import Cancelled, GatewayError, upstream_error
from headgate.gateway.facts import Principal
from headgate.gateway.ir.event import Chunk, Event, PartDelta, ResponseStart
from headgate.gateway.ir.fold import fold
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed, Sink
from headgate.gateway.stores.base import Key
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
    assert (len(upstream.calls), second.decision.attempts, dict(reply.headers)) == (1, [], {"age": "0"})
    assert [(step.middleware, step.what) for step in second.decision.steps] == [("cache", "hit")]
    assert first.decision.steps == []
    later = asking(call_of).replace(began_unix=first.began_unix + 12)
    assert (await cache(later, upstream)).headers == {"age": "12"}


PRINCIPAL = Principal("k", "team", "tenant")
DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "words": ({}, {"body": {"messages": [{"role": "user", "content": "Bye"}]}}),
    "a setting": ({}, {"body": {"max_tokens": 7}}),
    "an unknown member": ({}, {"body": {"frobnicate": 1}}),
    "the user": ({"body": {"user": "a"}}, {"body": {"user": "b"}}),
    "a beta": ({}, {"headers": {"anthropic-beta": "x"}}),
    "a header that providers may read": ({}, {"headers": {"openai-something-new": "x"}}),
    "the organization": ({}, {"headers": {"openai-organization": "x"}}),
    "strangers' keys": ({"headers": {"authorization": "Bearer a"}}, {"headers": {"authorization": "Bearer b"}}),
    "the tenant": ({"principal": PRINCIPAL}, {"principal": Principal("k", "team", "other")}),
}
ALIKE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "zero": ({}, {"body": {"temperature": None}}),
    "no stream, said": ({}, {"body": {"stream": False}}),
    "another header": ({}, {"headers": {"x-other": "1", "user-agent": "y"}}),
    "what only browsers need": ({}, {"headers": {"anthropic-dangerous-direct-browser-access": "true"}}),
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


@pytest.mark.parametrize("more", [b"", b'"%b":1,' % (b"long" * 1000)], ids=["few members", "long names"])
async def test_members_in_their_order_without_those_that_say_how_it_is_delivered(call_of: Make, more: bytes) -> None:
    keys = cache_of(ignore=("user", "model"))._keys
    bodies = [
        b'{"model":"m",%b"messages":[],"max_tokens":5}' % more,
        b'{"stream":true,%b"messages":[],"stream_options":{"include_usage":true},"max_tokens":5}' % more,
        b'{ "user" : "a", %b "messages":[] ,"max_tokens" : 5,"model":"m","stream":false}' % more,
        b'{%b"max_tokens":5,"messages":[]}' % more,
        b'{%b"messages":[],"max_tokens":5.0}' % more,
    ]
    found = [keys.of(call_of(format="openai.chat").replace(body=body)) for body in bodies]
    assert found[0] is not None
    assert found[0] == found[1] == found[2]
    assert len(set(found)) == 3


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
        ({"cache-control": "max-age=60"}, "hit", 1, "one"),
        ({"cache-control": "max-age=59"}, "miss", 2, "two"),
        ({"cache-control": "public, max-age=nonsense"}, "hit", 1, "one"),
        ({"cache-control": "max-age=0"}, "miss", 2, "two"),
        ({"headgate-cache": "Max-Age=3"}, "miss", 2, "two"),
        ({"cache-control": "x-no-store, no-cacheable"}, "hit", 1, "one"),
        ({"headgate-cache": "only"}, "hit", 1, "one"),
    ],
)
async def test_what_a_caller_may_ask(call_of: Make, headers: dict[str, str], said: str, calls: int, kept: str) -> None:
    cache, upstream = cache_of(), Upstream(whole("one"), whole("two"))
    await heard(cache, asking(call_of), upstream)
    call = asking(call_of, headers=headers)
    call.began_unix += 60
    await heard(cache, call, upstream)
    assert (call.decision.cache, len(upstream.calls)) == (said, calls)
    assert text_of(await heard(cache, asking(call_of), upstream)) == kept


@pytest.mark.parametrize("headers", [{"cache-control": "only-if-cached"}, {"headgate-cache": "only"}])
async def test_who_wants_a_kept_answer_or_none(call_of: Make, headers: dict[str, str]) -> None:
    cache, upstream = cache_of(), Upstream()
    with pytest.raises(GatewayError) as caught:
        await heard(cache, asking(call_of, headers=headers), upstream)
    assert (caught.value.status, upstream.calls) == (504, [])


async def test_only_answers_with_status_200(call_of: Make) -> None:
    async def partial(call: Call) -> Reply:
        upstream.calls.append(call)
        return Reply.whole(Chunk(None, whole(), CODEC.whole, CODEC.decode_response), call.scope, 203)

    cache, upstream = cache_of(), Upstream()
    for _ in range(2):
        assert (await cache(asking(call_of), partial)).status == 203
    assert len(upstream.calls) == 2


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


USAGE = {"stream": True, "stream_options": {"include_usage": True}}
HOW: dict[str, dict[str, Any]] = {"whole": {}, "stream": {"stream": True}, "stream with usage": USAGE}


def answer_to(how: str) -> bytes | list[Chunk]:
    if how == "whole":
        return whole("ab")
    pieces = frames("a", "b")
    if how == "stream with usage":
        told = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        frame = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": told}
        pieces.insert(-1, b"data: %b\n\n" % json.dumps(frame).encode())
    return chunks_of(pieces)


@pytest.mark.parametrize("first", HOW)
@pytest.mark.parametrize("second", HOW)
async def test_however_it_was_asked_for_first(call_of: Make, first: str, second: str) -> None:
    """What does not tell the usage that is asked for is asked anew; what tells more than that is told without it."""
    cache, upstream = cache_of(), Upstream(answer_to(first), answer_to(second))
    await heard(cache, asking(call_of, HOW[first]), upstream)
    call = asking(call_of, HOW[second])
    chunks = await heard(cache, call, upstream)
    assert text_of(chunks) == "ab"
    assert len(upstream.calls) == (2 if first == "stream" and second != "stream" else 1)
    encoder = CODEC.stream_encoder(AnswerContext(stream_usage=second == "stream with usage"))
    spelled = b"".join(map(encoder.encode, chunks)) + encoder.close(None)
    if second == "whole":
        assert any(chunk.usage is not None for chunk in chunks)
    else:
        assert (b'"prompt_tokens":' in spelled) == (second == "stream with usage")
        assert spelled.count(b"[DONE]") == 1


async def test_an_answer_that_was_changed_on_its_way(call_of: Make) -> None:
    changed = [Chunk(chunk.events) for chunk in chunks_of(frames("a", "b"))]
    cache, upstream = cache_of(), Upstream(changed)
    await heard(cache, asking(call_of, {"stream": True, "stream_options": {"include_usage": True}}), upstream)
    told = await heard(cache, asking(call_of, {"stream": True, "stream_options": {"include_usage": True}}), upstream)
    assert text_of(told) == "ab"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_without_id_and_date(call_of: Make, stream: bool) -> None:
    """As the simulator tells it, or Anthropic behind something that changes answers: what is made up is no loss."""
    said = chunks_of(frames("a", "b"))
    bare = [Chunk(tuple(replace_start(event) for event in chunk.events)) for chunk in said]
    cache, upstream = cache_of(), Upstream(bare)
    await heard(cache, asking(call_of, {"stream": stream}), upstream)
    for again in (stream, not stream):
        call = asking(call_of, {"stream": again})
        assert (text_of(await heard(cache, call, upstream)), call.decision.cache) == ("ab", "hit")


def replace_start(event: Event) -> Event:
    return ResponseStart() if isinstance(event, ResponseStart) else event


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


HI = [{"role": "user", "content": "Hi"}]
HI_IN_PARTS = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
SPELLINGS: list[tuple[str, dict[str, Any]]] = [
    ("openai.chat", {"messages": HI, "max_completion_tokens": 9}),
    ("openai.chat", {"messages": HI, "max_tokens": 9, "stream": False}),
    ("openai.chat", {"messages": HI_IN_PARTS, "max_tokens": 9, "stream": True}),
    ("anthropic.messages", {"messages": HI, "max_tokens": 9, "stream": False}),
    ("anthropic.messages", {"messages": HI_IN_PARTS, "max_tokens": 9, "stream": True}),
    ("openai.responses", {"input": "Hi", "max_output_tokens": 9, "stream": False}),
    (
        "openai.responses",
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}], "max_output_tokens": 9},
    ),
    (
        "gemini",
        {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], "generationConfig": {"maxOutputTokens": 9}},
    ),
]


async def test_across_formats_it_is_what_is_asked_that_counts(call_of: Make) -> None:
    keys = []
    for format, body in SPELLINGS:
        codec, raw = registry.codec(format), json.dumps({"model": "m"} | body).encode()
        call = call_of(format=format)
        call = call.replace(body=raw, peek=codec.peek(raw, call.facts), _request=None)
        keys.append(cache_of(across_formats=True)._keys.of(call))
    assert keys == keys[:1] * len(SPELLINGS)


async def test_a_request_that_was_changed_is_equal_however_it_is_delivered(call_of: Make) -> None:
    """As behind a redact: that it says ``stream: false`` is no member of its own."""
    cache, upstream = cache_of(), Upstream(whole())
    for said in ({}, {"stream": False}, {"stream": True}):
        call = asking(call_of, said)
        await heard(cache, call.with_request(call.request), upstream)
    assert len(upstream.calls) == 1


FORMATS = ["openai.chat", "openai.responses", "anthropic.messages", "gemini", "ollama.chat"]


@pytest.mark.parametrize("caller", FORMATS)
@pytest.mark.parametrize("kept", ["whole", "stream with usage"])
async def test_a_kept_answer_reads_as_a_live_one_in_every_format(call_of: Make, caller: str, kept: str) -> None:
    answer, codec = answer_to(kept), registry.codec(caller)
    live = [Chunk(CODEC.decode_response(answer), answer, CODEC.whole)] if isinstance(answer, bytes) else answer
    cache, upstream = cache_of(across_formats=True), Upstream(answer)
    await heard(cache, asking(call_of, HOW[kept]), upstream)
    spelled: list[list[Any]] = []
    context = AnswerContext("req", 7, "m", True)
    call = asking(call_of, HOW[kept])
    call = call.with_request(call.request).replace(codec=codec)
    for chunks in (live, await heard(cache, call, upstream)):
        encoder = codec.stream_encoder(context)
        streamed = b"".join(map(encoder.encode, chunks)) + encoder.close(None)
        whole_body = codec.encode_response([event for chunk in chunks for event in chunk.events], context).body
        decoder = codec.stream_decoder()
        read = [chunk for chunk in (decoder.feed(streamed), decoder.close()) if chunk is not None]
        assert decoder.error is None
        spelled.append([fold([event for chunk in read for event in chunk.events]), whole_body])
    assert spelled[0] == spelled[1]
    assert (call.decision.cache, len(upstream.calls)) == ("hit", 1)


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
    assert [step.what for call in calls for step in call.decision.steps] == ["joined"] * 99


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


class Broken(MemoryStore):
    """A store that takes nothing."""

    def put(self, key: Key, value: bytes, ttl_s: float | None = None, /) -> None:
        raise RuntimeError("the disk is on fire")


@pytest.mark.parametrize("play", ["whole", "stream", "collected"])
async def test_a_fault_while_keeping_is_no_fault_of_the_answer(
    call_of: Make, play: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither for who asked nor for those who wait."""
    plays: dict[str, Any] = {"whole": whole("a"), "stream": chunks_of(frames("a")), "collected": chunks_of(frames("a"))}
    upstream = Upstream(plays[play])
    cache, upstream.gate = cache_of(), asyncio.Event()
    cache.store = Broken(10, 10_000, 60)
    tasks = [begin(heard(cache, asking(call_of, {"stream": play == "stream"}), upstream)) for _ in range(3)]
    await asyncio.sleep(0)
    upstream.gate.set()
    async with asyncio.timeout(2):
        assert [text_of(answer) for answer in await asyncio.gather(*tasks)] == ["a"] * 3
    assert [record.getMessage() for record in caplog.records] == ["an answer could not be kept"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_somebody_further_out_drops_the_answer(call_of: Make, stream: bool) -> None:
    """The first caller's answer is never read: those who wait for it must not wait for ever."""
    told, tap = chunks_of(frames("a")), Tap()
    cache, upstream = cache_of(), Upstream(tap, told)
    first = asking(call_of, {"stream": stream})
    await cache(first, upstream)
    other = begin(heard(cache, asking(call_of, {"stream": stream}), upstream))
    await asyncio.sleep(0)
    first.scope.close()
    if stream:  # it is the second's own now, else it is asked for anew
        tap.say(*told)
        tap.end()
    async with asyncio.timeout(2):
        assert text_of(await other) == "a"
    assert (len(upstream.calls), cache._flights) == (1 if stream else 2, {})


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_who_waits_hears_that_its_own_call_is_over(call_of: Make, stream: bool) -> None:
    upstream = Upstream(chunks_of(frames("a")) if stream else whole("a"))
    cache, upstream.gate = cache_of(), asyncio.Event()
    calls = [asking(call_of, {"stream": stream}) for _ in range(2)]
    first, second = (begin(heard(cache, call, upstream)) for call in calls)
    await asyncio.sleep(0)
    calls[1].scope.close()
    async with asyncio.timeout(2):
        with pytest.raises(Cancelled):
            await second
    upstream.gate.set()
    assert text_of(await first) == "a"
    assert not calls[1].scope.items


async def test_two_tries_of_one_call_hear_the_same(call_of: Make) -> None:
    """As of a hedge: the one that is given up must not end the other."""
    told, tap = chunks_of(frames("a")), Tap()
    cache, upstream = cache_of(), Upstream(tap)
    call = asking(call_of, {"stream": True})
    one, two = await cache(call, upstream), await cache(call.replace(cause="hedge"), upstream)
    reading = begin(two.collect())
    await until(lambda: tap.sink is not None)
    one.abort()
    tap.say(*told)
    tap.end()
    async with asyncio.timeout(2):
        assert text_of(await reading) == "a"


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
@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_the_first_leaves_before_anything_came(call_of: Make, stream: bool, how: str) -> None:
    """It is asked for once more, and then whoever leaves."""
    answer: Any = chunks_of(frames("a")) if stream else whole("a")
    upstream = Upstream(answer, answer)
    cache, upstream.gate = cache_of(), asyncio.Event()
    calls = [asking(call_of, {"stream": stream}) for _ in range(7)]
    tasks = [begin(heard(cache, calls[0], upstream))]
    await asyncio.sleep(0)
    tasks += [begin(heard(cache, call, upstream)) for call in calls[1:]]
    await asyncio.sleep(0)
    for number in range(3):
        if how == "closed" and number:
            calls[number].scope.close()
        tasks[number].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[number]
        calls[number].scope.close()
        await until(lambda: len(upstream.calls) == 2)
    upstream.gate.set()
    assert {text_of(answer) for answer in await asyncio.gather(*tasks[3:])} == {"a"}
    assert sorted(call.decision.cache for call in calls[3:]) == ["hit"] * 4
    assert [step.what for step in calls[6].decision.steps] == ["joined"]
    assert (len(upstream.calls), cache._flights, cache._room) == (2, {}, cache.options.max_size)
    assert all(not call.scope.items and not call.scope.watched and not call.scope.tasks for call in calls)
    later = asking(call_of, {"stream": stream})
    assert (text_of(await heard(cache, later, upstream)), later.decision.cache) == ("a", "hit")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_nobody_waits_any_more_for_what_was_asked_anew(call_of: Make, stream: bool) -> None:
    upstream = Upstream(b"", b"")
    cache, upstream.gate = cache_of(), asyncio.Event()
    calls = [asking(call_of, {"stream": stream}) for _ in range(2)]
    first = begin(heard(cache, calls[0], upstream))
    await asyncio.sleep(0)
    second = begin(heard(cache, calls[1], upstream))
    await asyncio.sleep(0)
    first.cancel()
    await until(lambda: len(upstream.calls) == 2)
    (flight,) = cache._flights.values()
    assert isinstance(flight, Flight)
    (task,) = flight.scope.tasks
    second.cancel()
    await asyncio.wait([first, second, task], timeout=2)
    assert (task.cancelled(), cache._flights) == (True, {})


async def test_the_time_of_the_first_is_not_that_of_the_others(call_of: Make) -> None:
    upstream = Upstream(upstream_error("timeout.total", "x"), whole("a"))
    cache, upstream.gate = cache_of(), asyncio.Event()
    tasks = [begin(heard(cache, asking(call_of), upstream)) for _ in range(3)]
    await asyncio.sleep(0)
    upstream.gate.set()
    failed, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert getattr(failed, "kind", "") == "timeout.total"
    assert [text_of(answer) for answer in others if isinstance(answer, list)] == ["a", "a"]


async def test_who_waits_keeps_its_own_time(call_of: Make) -> None:
    upstream = Upstream(whole("a"))
    cache, upstream.gate = cache_of(), asyncio.Event()
    first = begin(heard(cache, asking(call_of), upstream))
    await asyncio.sleep(0)
    hasty = asking(call_of)
    with pytest.raises(GatewayError) as caught:
        await heard(cache, hasty.replace(deadline=hasty.scope.loop.time() - 1), upstream)
    assert caught.value.kind == "timeout.total"
    upstream.gate.set()
    assert text_of(await first) == "a"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_fault_of_the_chain_is_everybodys_at_once(call_of: Make, stream: bool) -> None:
    asked: list[Call] = []
    gate = asyncio.Event()

    async def faulty(call: Call) -> Reply:
        asked.append(call)
        await gate.wait()
        raise ValueError("oops")

    cache = cache_of()
    tasks = [begin(cache(asking(call_of, {"stream": stream}), faulty)) for _ in range(4)]
    await asyncio.sleep(0)
    gate.set()
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, ValueError)
    assert [repr(other) for other in others] == ["HouseError(internal, 500, 'an internal error')"] * 3
    assert len(asked) == 1


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


class Ear:
    """Hears an answer, as long as it is let."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.ends: list[GatewayError | None] = []

    def push(self, chunk: Chunk, /) -> None:
        self.chunks.append(chunk)

    def end(self, error: GatewayError | None, /) -> None:
        self.ends.append(error)


async def test_slow_readers(call_of: Make) -> None:
    """They hold nobody back: the provider waits if all are slow, and who falls behind by more than the bound is let go."""
    told, tap = chunks_of(frames(*"abcdefgh")), Tap()
    size = sum(chunk.size for chunk in told[:4])
    cache, upstream = cache_of(max_answer=Size(size)), Upstream(tap, whole())
    replies = [await cache(asking(call_of, {"stream": True}), upstream) for _ in range(3)]
    flight = next(iter(cache._flights.values()))
    assert isinstance(flight, Flight)
    slow, quick, late = Ear(), Ear(), Ear()
    replies[0].connect(slow)
    replies[1].connect(quick)
    assert not tap.paused
    replies[0].pause()
    assert not tap.paused
    replies[1].pause()
    assert tap.paused
    replies[1].resume()
    assert not tap.paused
    tap.say(*told[:4])
    assert (len(slow.chunks), len(quick.chunks), list(cache._flights.values())) == (0, 4, [flight])
    replies[0].resume()
    assert slow.chunks == told[:4]
    replies[0].pause()
    tap.say(told[4])  # beyond the bound: nobody joins any more, and who has not even begun to listen is let go
    assert (tap.paused, cache._flights, len(flight.chunks), slow.ends) == (False, {}, 1, [])
    replies[2].connect(late)
    assert (late.chunks, [error and error.kind for error in late.ends]) == ([], ["cut"])
    tap.say(*told[5:9])
    assert ([error and error.kind for error in slow.ends], slow.chunks) == (["cut"], told[:4])
    replies[1].pause()
    assert tap.paused  # the last one: now it is its own pace that counts
    tap.say(*told[9:])
    assert quick.chunks == told[:9]
    replies[1].resume()
    tap.end()
    assert (quick.chunks, quick.ends) == (told, [None])
    assert text_of(await heard(cache, asking(call_of), upstream)) == "hi"


async def test_what_is_remembered_of_all_that_is_under_way_is_bounded(call_of: Make) -> None:
    """Beyond it an answer is told on, but nobody can join it any more."""
    taps = [Tap() for _ in range(3)]
    cache, upstream = cache_of(max_size=Size(2 * 64 * 1024), max_answer=Size(64 * 1024)), Upstream(*taps)
    ears = [Ear() for _ in taps]
    for number, ear in enumerate(ears):
        call = asking(call_of, {"stream": True, "messages": [{"role": "user", "content": str(number)}]})
        (await cache(call, upstream)).connect(ear)
    told = chunks_of(frames("a" * 20_000, "b"))
    for tap in taps:
        tap.say(*told[:2])
    assert (len(cache._flights), cache._room) == (2, 0)
    for tap in taps:
        tap.say(*told[2:])
        tap.end()
    assert (cache._flights, cache._room) == ({}, 2 * 64 * 1024)
    assert [(ear.chunks, ear.ends) for ear in ears] == [(told, [None])] * 3


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
