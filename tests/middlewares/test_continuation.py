"""What the caller of a broken-off answer reads: one answer, nothing lost, nothing twice, and an end where it must end."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from headgate.gateway import registry, rules
from headgate.gateway.call import Attempt, Call
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.continuing.said import MAX_CHARACTERS, MAX_PENDING, Said
from headgate.gateway.continuing.seam import Seam, overlap
from headgate.gateway.errors import Cut, GatewayError, upstream_error
from headgate.gateway.ir.event import (
    ChoiceStop,
    Chunk,
    Event,
    Keepalive,
    PartDelta,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    StopReason,
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.fold import Response, fold
from headgate.gateway.ir.message import Part, Reasoning, Refusal, Request, Text, ToolCall
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.middlewares.continuation import LEAST_TOKENS, PROMPT, Continue, ContinueOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from ..fakes.provider import FakeProvider, Received
from ..fakes.script import Script, Think, Tokens, Use, script
from ..server.house import CHAT, MESSAGES, begin, body_of, serving, until

KNOWN = (
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and nothing "
    "particular to interest me on shore:\n\n    | a | b |\n    |---|---|\n    | 1 | 2 |\n\nI thought I would sail about a "
    "little and see the watery part of the world. 42424242 haha, murmuring “naïve” 世界世界 🙂🙂!!!!!!!! the end"
)
Play = GatewayError | tuple[Sequence[Event], GatewayError | None]


def answer(
    *parts: Part | str, reason: StopReason | None = "stop", output: int | None = 5, pieces: int = 3, choice: int = 0
) -> list[Event]:
    """The events of one answer; without a ``reason`` it breaks off inside its last part."""
    events: list[Event] = [ResponseStart("id", "m")]
    for index, given_part in enumerate(parts):
        part = Text(given_part) if isinstance(given_part, str) else given_part
        words = part.arguments if isinstance(part, ToolCall) else part.text  # type: ignore[union-attr]
        empty = {"arguments": ""} if isinstance(part, ToolCall) else {"text": ""}
        events.append(PartStart(index, msgspec.structs.replace(part, **empty), choice))
        size = max(1, -(-len(words) // pieces))
        events += [PartDelta(index, words[at : at + size], choice) for at in range(0, len(words), size)]
        if reason is not None or index + 1 < len(parts):
            events.append(PartStop(index, choice))
    if reason is not None:
        events.append(ChoiceStop(reason, reason, choice))
        if output is not None:
            events.append(UsageReport(Usage(input_tokens=10, output_tokens=output)))
        events += [ResponseStop(), Terminator()]
    return events


class Provider:
    """The rest of a chain: plays one answer after another, chunk by chunk or as a whole."""

    def __init__(self, *plays: Play | Sequence[Event], whole: bool = False) -> None:
        self.plays: list[Play] = [play if isinstance(play, (GatewayError, tuple)) else (play, None) for play in plays]
        self.asked: list[Request] = []
        self.whole = whole

    async def __call__(self, call: Call) -> Reply:
        self.asked.append(call.request)
        call.decision.attempts.append(Attempt("upstream", "m", 0.0))
        play = self.plays.pop(0)
        if isinstance(play, GatewayError):
            raise play
        events, error = play
        if self.whole:
            return Reply.whole(Chunk(tuple(events)), call.scope, 200, {"x": "1"})
        return Reply(Listed([Chunk((event,), b"raw") for event in events], error), call.scope)


async def told(call: Call, provider: Provider, **options: Any) -> tuple[Response, GatewayError | None, list[Event]]:
    """What the caller reads, and how it ends."""
    reply = await Continue(ContinueOptions(**options))(call, provider)
    events: list[Event] = []
    error: GatewayError | None = None
    try:
        async for chunk in reply:
            events += chunk.events
    except GatewayError as caught:
        error = caught
    assert provider.plays == [], "not all was asked for"
    return fold(events), error, events


def call_with(call: Call, **changes: Any) -> Call:
    """The call with another request; without a limit unless said."""
    return call.with_request(msgspec.structs.replace(call.request, **{"max_output_tokens": None, **changes}))


@pytest.fixture
async def call(call_of: Callable[..., Call]) -> Call:
    """A stream's call, without a limit."""
    return call_with(call_of(stream=True))


def words_of(response: Response) -> str:
    (choice,) = response.choices
    return "".join(part.text for part in choice.parts if isinstance(part, Text))


# -- no character lost or doubled


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("repeated", [0, 5, 25, 60])
async def test_cut_at_every_place(call: Call, whole: bool, repeated: int) -> None:
    """``repeated``: so many characters of the end the provider says once more, where that is a telling overlap."""
    for at in range(1, len(KNOWN)):
        back = repeated if overlap(KNOWN[:at], KNOWN[max(0, at - repeated) : at], 200) == repeated else 0
        provider = Provider(answer(KNOWN[:at], reason="length"), answer(KNOWN[at - back :], pieces=9), whole=whole)
        if not KNOWN[:at].strip():
            continue
        response, error, events = await told(call, provider)
        assert (words_of(response), error, response.choices[0].reason) == (KNOWN, None, "stop"), at
        assert len(response.choices[0].parts) == 1
        assert response.usage == Usage(input_tokens=20, output_tokens=10)
        assert sum(isinstance(event, ResponseStart) for event in events) == 1


async def test_connection_cut_at_every_event(call: Call) -> None:
    first = answer(KNOWN, pieces=20, reason=None)
    for at in range(len(first) + 1):
        said = "".join(event.text for event in first[:at] if isinstance(event, PartDelta))
        provider = Provider((first[:at], Cut("cut")), answer(KNOWN[len(said) :]))
        if said == KNOWN:
            provider = Provider((first[:at], Cut("cut")), answer("", reason="stop"))
        response, error, _ = await told(call, provider)
        assert (words_of(response), error, response.choices[0].reason) == (KNOWN, None, "stop"), at


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_seam_in_any_chunks(data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(KNOWN) - 1))
    back = data.draw(st.integers(0, min(at, 80)))
    head = KNOWN[at - back :]
    if back and overlap(KNOWN[:at], KNOWN[at - back : at], 200) != back:
        head = KNOWN[at:]
    places = sorted(data.draw(st.sets(st.integers(0, len(head)), max_size=12)) | {0, len(head)})
    seam, heard = Seam(KNOWN[:at], 200), ""
    chunks = [Chunk((PartStart(0, Text("")),))]
    chunks += [Chunk((PartDelta(0, head[low:high]), Keepalive())) for low, high in itertools.pairwise(places)]
    for chunk in [*map(seam.feed, chunks), seam.close(None)]:
        heard += "".join(event.text for event in (chunk.events if chunk else ()) if isinstance(event, PartDelta))
        assert len(head) - len(heard) >= 0
    assert KNOWN[:at] + heard == KNOWN


@pytest.mark.parametrize(
    ("said", "head", "size"),
    [
        ("the quick bro", "brown fox", 0),  # three letters may be chance
        ("a wonderful prog", "programme of", 4),
        ("a wonderful prog", "prog", 0),
        ("a wonderful prog", "prog ress", 0),
        ("a subprog", "programme", 0),
        ("so he said that he would come", "that he would come later", 18),
        ("so he said that he would come", "he would come", 13),
        ("-------------------", "-------------------", 0),
        ("\n                    ", "                    x", 0),
        ("one two three four, one two three four, ", "one two three four, five", 0),
        ("row: one\nrow: one\n", "row: one\nrow: one\nrow: two\n", 0),  # as many rows again, or the same ones?
        ("so: row: one\nrow: one\nro", "row: one\nrow: one\nrow: two\n", 0),
        ("so: row: one\nrow: two\n", "row: one\nrow: two\nrow: three\n", 18),
        ("", "anything at all", 0),
        ("anything at all", "", 0),
    ],
)
def test_what_counts_as_an_overlap(said: str, head: str, size: int) -> None:
    assert overlap(said, head, 200) == size
    assert overlap(said, head, 3) == 0


async def test_text_is_held_only_while_it_may_be_repeated() -> None:
    seam = Seam("and so they lived happily", 200)
    assert seam.feed(Chunk((PartStart(0, Text("")),))) is not None
    assert seam.feed(Chunk((PartDelta(0, "they"),))) is None
    freed = seam.feed(Chunk((PartDelta(0, "X"),)))
    assert freed is not None
    assert "".join(event.text for event in freed.events if isinstance(event, PartDelta)) == "theyX"
    later = seam.feed(Chunk((PartDelta(0, "they"),)))
    assert later is not None and later.events == (PartDelta(0, "they"),)


async def test_a_round_that_starts_with_its_words(call: Call) -> None:
    second: list[Event] = [PartStart(4, Text("ran up the hill, ")), PartDelta(4, "and fell"), PartStop(4)]
    provider = Provider(answer("Jack ran up the hill, ", reason="length"), [*second, ChoiceStop("stop")])
    response, _, _ = await told(call, provider)
    assert words_of(response) == "Jack ran up the hill, and fell"


async def test_no_overlap_is_looked_for_if_so_told(call: Call) -> None:
    provider = Provider(answer("Jack ran up the hill", reason="length"), answer("ran up the hill"))
    response, _, _ = await told(call, provider, overlap=0)
    assert words_of(response) == "Jack ran up the hillran up the hill"


# -- what is asked


async def test_what_the_next_round_is_asked(call: Call) -> None:
    provider = Provider(answer("one ", reason="length"), answer("two ", reason="length"), answer("three"))
    response, _, _ = await told(call, provider)
    assert words_of(response) == "one two three"
    first, second, third = provider.asked
    assert second.messages[: len(first.messages)] == first.messages
    assert [(message.role, message.parts[0]) for message in second.messages[len(first.messages) :]] == [
        ("assistant", Text("one ")),
        ("user", Text(PROMPT)),
    ]
    assert third.messages[-2].parts == (Text("one two "),)
    steps = [(step.middleware, step.what, dict(step.facts)) for step in call.decision.steps]
    assert steps == [("continue", "round", {"round": number, "ending": "length"}) for number in (1, 2)]
    assert all(0 <= step.started_s <= step.ended_s for step in call.decision.steps)
    assert (call.decision.rounds, len(call.decision.attempts)) == (2, 3)


async def test_the_turn_is_configurable(call: Call) -> None:
    provider = Provider(answer("one ", reason="length"), answer("two"))
    await told(call, provider, prompt="Weiter.")
    assert provider.asked[1].messages[-1].parts == (Text("Weiter."),)


async def test_a_turn_that_the_caller_had_begun(call: Call) -> None:
    user = call.request.messages[0]
    begun = msgspec.structs.replace(user, role="assistant", parts=(Text("{"),))
    provider = Provider(answer('"a": ', reason="length"), answer("1}"))
    response, _, _ = await told(call_with(call, messages=(user, begun)), provider)
    assert words_of(response) == '"a": 1}'
    assert [message.role for message in provider.asked[1].messages] == ["user", "assistant", "user"]
    assert provider.asked[1].messages[1].parts == (Text('{"a": '),)


# -- when it ends


async def test_at_most_so_many_rounds(call: Call) -> None:
    for rounds in (1, 3):
        provider = Provider(*[answer(f"{number} ", reason="length") for number in range(rounds + 1)])
        response, error, _ = await told(call, provider, rounds=rounds)
        assert (response.choices[0].reason, error) == ("length", None)
        assert words_of(response) == "".join(f"{number} " for number in range(rounds + 1))


REASONS: list[StopReason] = ["stop", "stop_sequence", "content_filter", "refusal", "pause", "context_window", "other"]


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("whole", [False, True])
async def test_other_ends_stand(call: Call, reason: StopReason, whole: bool) -> None:
    response, error, _ = await told(call, Provider(answer("one", reason=reason), whole=whole))
    assert (response.choices[0].reason, error) == (reason, None)
    assert call.decision.rounds == 0


async def test_the_reason_is_that_of_the_last_round(call: Call) -> None:
    provider = Provider(answer("one ", reason="length"), answer("two", reason="context_window"))
    response, _, _ = await told(call, provider)
    assert response.choices[0].reason == "context_window"


@pytest.mark.parametrize("nothing", ["", " \n", "one two three"])
async def test_a_round_that_adds_nothing_is_the_last(call: Call, nothing: str) -> None:
    provider = Provider(answer("so: one two three", reason="length"), answer(nothing, reason="length"))
    response, _, _ = await told(call, provider)
    assert words_of(response).strip() == "so: one two three"
    assert response.choices[0].reason == "length"


@pytest.mark.parametrize(
    "parts",
    [
        (ToolCall("i", "f", '{"at": "somewh'),),
        ("Let me see.", ToolCall("i", "f", '{"at": "somewh')),
        ("Let me see.", ToolCall("i", "f", "{}"), "So"),
        (Refusal("I will n"),),
        (Reasoning("hm"),),
        ("",),
    ],
)
@pytest.mark.parametrize("how", ["length", "cut"])
async def test_what_never_goes_on(call: Call, parts: tuple[Part | str, ...], how: str) -> None:
    if how == "cut" and parts == ("",):
        return  # nothing at all was said: the same may be asked again
    play: Play = (answer(*parts, reason="length"), None) if how == "length" else (answer(*parts, reason=None), Cut("x"))
    response, error, _ = await told(call, Provider(play))
    if how == "length":
        assert (response.choices[0].reason, error) == ("length", None)
    else:
        assert error is not None and error.kind == "cut"


async def test_a_later_round_may_call_a_tool(call: Call) -> None:
    provider = Provider(
        answer("I will ", reason="length"), answer("look.", ToolCall("i", "f", "{}"), reason="tool_calls")
    )
    response, _, _ = await told(call, provider)
    assert response.choices[0].parts == (Text("I will look."), ToolCall("i", "f", "{}"))
    cut_again = Provider(answer("I will ", reason="length"), answer(ToolCall("i", "f", '{"a'), reason="length"))
    response, _, _ = await told(call, cut_again)
    assert response.choices[0].parts == (Text("I will "), ToolCall("i", "f", '{"a'))
    assert response.choices[0].reason == "length"


async def test_reasoning_is_told_once(call: Call) -> None:
    provider = Provider(
        answer(Reasoning("first I think"), "one ", reason="length"),
        answer(Reasoning("then I think"), "two", Reasoning("again"), "three"),
    )
    response, _, _ = await told(call, provider)
    assert response.choices[0].parts == (Reasoning("first I think"), Text("one two"), Text("three"))


async def test_several_choices_stand(call: Call) -> None:
    both = [*answer("one", reason="length")[:-3], PartStart(1, Text(""), 1), ChoiceStop("length", choice=1)]
    assert len((await told(call, Provider(both)))[0].choices) == 2
    await told(call_with(call, n=2), Provider(answer("one", reason="length")))


async def test_an_answer_that_is_too_long_to_keep(call: Call) -> None:
    response, _, _ = await told(call, Provider(answer("x" * (MAX_CHARACTERS + 1), reason="length")))
    assert response.choices[0].reason == "length"


def test_little_is_kept_unread() -> None:
    said = Said()
    for number in range(3 * MAX_PENDING):
        said.feed(Chunk((PartStart(0, Text("")),) if not number else (PartDelta(0, "x"),), b"x"))
        assert len(said._pending) < MAX_PENDING
    said.feed(Chunk((PartDelta(0, "y" * 100_000),), b"y" * 100_000))
    assert said._pending == [] and len(said.text) == 3 * MAX_PENDING - 1 + 100_000


@pytest.mark.parametrize("kind", ["rate_limit", "overloaded", "context_length", "cut"])
async def test_a_round_that_cannot_be_had(call: Call, kind: Any) -> None:
    response, error, _ = await told(call, Provider(answer("one", reason="length"), upstream_error(kind, "x")))
    assert (words_of(response), response.choices[0].reason, error) == ("one", "length", None)
    assert call.decision.rounds == 0
    (step,) = call.decision.steps
    assert (step.what, step.facts["error"]) == ("round", kind)
    _, error, _ = await told(call, Provider((answer("one", reason=None), Cut("first")), upstream_error(kind, "x")))
    assert error is not None and error.message == "first"


@pytest.mark.parametrize("begun", [[], [ResponseStart("id")], answer(Reasoning("hm"), reason=None)])
async def test_a_round_that_fails_before_it_said_anything(call: Call, begun: list[Event]) -> None:
    for error in (Cut("x"), upstream_error("timeout.idle", "x"), upstream_error("overloaded", "x")):
        response, seen, _ = await told(call, Provider(answer("one", reason="length"), (begun, error)))
        assert (words_of(response), response.choices[0].reason, seen) == ("one", "length", None)
        assert (call.decision.rounds, call.decision.steps[-1].facts["error"]) == (0, error.kind)


async def test_a_failure_inside_a_later_round(call: Call) -> None:
    broken = (answer(" two", reason=None), upstream_error("overloaded", "x"))
    response, error, _ = await told(call, Provider(answer("one", reason="length"), broken))
    assert words_of(response) == "one two" and error is not None and error.kind == "overloaded"


async def test_what_was_held_at_a_cut_is_not_lost(call: Call) -> None:
    provider = Provider(answer("the same", reason="length"), (answer("sam", reason=None), Cut("x")), answer("uel"))
    response, _, _ = await told(call, provider)
    assert words_of(response) == "the samesamuel"


async def test_which_ends_it_goes_on_from(call: Call) -> None:
    response, _, _ = await told(call, Provider(answer("one", reason="length")), on=("cut",))
    assert response.choices[0].reason == "length"
    _, error, _ = await told(call, Provider((answer("one", reason=None), Cut("x"))), on=("length",))
    assert error is not None
    _, error, _ = await told(call, Provider((answer("one", reason=None), upstream_error("timeout.idle", "x"))))
    assert error is not None


async def test_the_same_question_again_if_nothing_was_said(call: Call) -> None:
    provider = Provider(([ResponseStart("id")], Cut("x")), answer(Reasoning("hm"), "one"))
    response, error, _ = await told(call, provider)
    assert response.choices[0].parts == (Reasoning("hm"), Text("one")) and error is None
    assert provider.asked[1] == provider.asked[0]
    provider = Provider(([ResponseStart("id")], Cut("x")), ([ResponseStart("id")], Cut("y")))
    _, error, _ = await told(call, provider)
    assert error is not None and error.message == "x"


# -- the caller's own limit


@pytest.mark.parametrize(
    ("limit", "outputs", "asked"),
    [
        (100, [100], [100]),
        (100, [100 - LEAST_TOKENS + 1], [100]),
        (100, [100 - LEAST_TOKENS, 5], [100, LEAST_TOKENS]),
        (1000, [400, 400, 200], [1000, 600, 200]),
        (1000, [None], [1000]),
        (None, [None, None, None, None], [None] * 4),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
async def test_never_past_the_callers_limit(
    call: Call, limit: int | None, outputs: list[int | None], asked: list[int | None], whole: bool
) -> None:
    provider = Provider(*[answer("word ", reason="length", output=output) for output in outputs], whole=whole)
    await told(call_with(call, max_output_tokens=limit), provider)
    assert [request.max_output_tokens for request in provider.asked] == asked


async def test_what_a_cut_round_took_goes_by_its_size(call: Call) -> None:
    provider = Provider((answer("x" * 400, reason=None), Cut("x")), answer("y", reason="length", output=90))
    await told(call_with(call, max_output_tokens=200), provider)
    assert [request.max_output_tokens for request in provider.asked] == [200, 100]


# -- whole answers


async def test_a_whole_answer_is_the_same_object(call: Call) -> None:
    provider = Provider(answer("one"), whole=True)
    chunk = Chunk(tuple(provider.plays[0][0]), b"raw")  # type: ignore[index]

    async def last(call: Call) -> Reply:
        return Reply.whole(chunk, call.scope, 203, {"x": "1"})

    reply = await Continue(ContinueOptions())(call, last)
    assert (reply.gathered(), reply.status, reply.headers) == ([chunk], 203, {"x": "1"})


@pytest.mark.parametrize("format", ["openai.completions", "openai.embeddings", "ollama.generate"])
async def test_what_is_no_conversation_passes(call_of: Callable[..., Call], format: str) -> None:
    call, replies = call_of(), []

    async def last(call: Call) -> Reply:
        replies.append(Reply.whole(Chunk(tuple(answer("one", reason="length"))), call.scope))
        return replies[0]

    assert await Continue(ContinueOptions())(call.replace(codec=registry.codec(format)), last) is replies[0]


async def test_a_caller_that_leaves_between_two_rounds(call: Call) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def last(call: Call) -> Reply:
        if not asked.is_set():
            asked.set()
            return Reply(Listed([Chunk(tuple(answer("one", reason="length")))]), call.scope)
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError("nobody let it go on")

    reply = await Continue(ContinueOptions())(call, last)
    reading = begin(reply.collect())
    await until(lambda: call.scope.tasks)
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait_for(left.wait(), 2)
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.parametrize(
    "options", ["{rounds: 0}", "{rounds: 21}", '{"on": [later]}', "{overlap: -1}", '{prompt: ""}', "{round: 1}"]
)
def test_options_that_are_refused(tmp_path: Path, options: str) -> None:
    file = tmp_path / "routes.yaml"
    upstreams = "version: 1\nupstreams: {sim: {adapter: simulator}}\nchains:\n  main: [{continue: "
    file.write_text(f"{upstreams}{options}}}]\nroutes: [{{name: all, chain: main, to: sim}}]\n")
    (problem,) = rules.check(file)
    assert "routes.yaml:4:" in str(problem)


# -- every pair of formats, in any pieces

FORMATS = ("openai.chat", "openai.responses", "anthropic.messages", "gemini", "ollama.chat")


class Wired:
    """A provider that speaks a format, goes on exactly where the assistant's turn ends, and breaks off where it likes."""

    def __init__(self, format: str, dice: random.Random) -> None:
        self.codec = registry.codec(format)
        self.dice = dice
        self.rounds = 0

    async def __call__(self, call: Call) -> Reply:
        self.rounds += 1
        turns = [turn for turn in call.request.messages if turn.role == "assistant"]
        said = "".join(part.text for turn in turns for part in turn.parts if isinstance(part, Text))
        assert KNOWN.startswith(said)
        rest, dice = KNOWN[len(said) :], self.dice
        words, how = rest[: dice.randint(13, 120)], dice.choice(("length", "cut"))
        if self.rounds > 8 or words == rest:
            words, how = rest, "stop"
        thoughts = [Reasoning("let me think")] if dice.random() < 0.3 else []
        pieces = dice.randint(3, 9)
        events = answer(*thoughts, words, reason="length" if how == "length" else "stop", pieces=pieces)
        if how == "cut":  # after two pieces of text: a round without a word is the last
            first = events.index(PartStart(len(thoughts), Text("")))
            events = events[: dice.randint(first + 3, len(events) - 4)]
        encoder = self.codec.stream_encoder(AnswerContext("req", 1, "m", True))
        spelled = b"".join(encoder.encode(Chunk((event,))) for event in events)
        spelled = spelled[: -dice.randint(0, 5) or None] if how == "cut" else spelled + encoder.close(None)
        decoder, chunks = self.codec.stream_decoder(), []
        while spelled:
            size = dice.randint(1, 200)
            chunks.append(decoder.feed(spelled[:size]))
            spelled = spelled[size:]
        chunks.append(decoder.close())
        assert decoder.error is None or (decoder.error.kind == how == "cut")
        return Reply(Listed([chunk for chunk in chunks if chunk is not None], decoder.error), call.scope)


@pytest.mark.parametrize("caller", FORMATS)
@pytest.mark.parametrize("to", FORMATS)
async def test_nothing_is_lost_or_doubled(call: Call, caller: str, to: str) -> None:
    codec = registry.codec(caller)
    for seed in range(8):
        provider = Wired(to, random.Random(seed))
        reply = await Continue(ContinueOptions(rounds=20))(call, provider)
        encoder = codec.stream_encoder(AnswerContext("req", 1, "m", True))
        spelled = b"".join([encoder.encode(chunk) async for chunk in reply]) + encoder.close(None)
        decoder = codec.stream_decoder()
        chunks = [chunk for chunk in (decoder.feed(spelled), decoder.close()) if chunk is not None]
        response = fold([event for chunk in chunks for event in chunk.events])
        assert decoder.error is None
        assert (words_of(response), response.choices[0].reason) == (KNOWN, "stop"), seed
        assert call.decision.rounds == provider.rounds - 1 > 0


# -- over sockets: every pair of formats

RULES = """
    server: {{anonymous: allow}}
    upstreams:
      openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
      anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
    chains:
      main: [{{log: {{to: "{log}"}}}}, {{continue: {{rounds: 2}}}}]
    routes:
      - {{name: gpt, match: {{model: "gpt-*"}}, chain: main, to: openai}}
      - {{name: claude, match: {{model: "claude-*"}}, chain: main, to: anthropic}}
"""
MODELS = ("gpt-4o", "claude-fake-4-5")


def read(path: str, stream: bool, body: bytes) -> tuple[str, str | None, int]:
    """The text, the reason and the output tokens of an answer as a caller of this path reads them."""
    if stream:
        datas = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
        events = [json.loads(data) for data in datas]
        if path == CHAT:
            choices = [choice for event in events for choice in event["choices"]]
            assert len({event["id"] for event in events}) == 1
            text = "".join(choice["delta"].get("content") or "" for choice in choices)
            reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
            usage = [event["usage"]["completion_tokens"] for event in events if event.get("usage")]
            assert len(reasons) == 1
            return text, reasons[0], usage[-1] if usage else -1
        kinds = [event["type"] for event in events]
        assert (kinds.count("message_start"), kinds.count("message_stop")) == (1, 1)
        assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
        text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
        (last,) = [event for event in events if event["type"] == "message_delta"]
        return text, last["delta"]["stop_reason"], last["usage"]["output_tokens"]
    whole = json.loads(body)
    if path == CHAT:
        choice = whole["choices"][0]
        return choice["message"]["content"], choice["finish_reason"], whole["usage"]["completion_tokens"]
    (block,) = whole["content"]
    return block["text"], whole["stop_reason"], whole["usage"]["output_tokens"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
async def test_over_sockets(
    provider: FakeProvider, http: aiohttp.ClientSession, tmp_path: Path, model: str, path: str, stream: bool
) -> None:
    log = tmp_path / "log"
    more = {"stream_options": {"include_usage": True}} if stream and path == CHAT else {}
    body = body_of(model=model, stream=stream, **{"max_tokens": 5000, **more})
    places = range(1, len(KNOWN) - 8, 29)
    async with serving(tmp_path, RULES.format(base=provider.base, log=log)) as house:
        for at in places:
            provider.answer(
                script(KNOWN[:at], stop="length", tokens=Tokens(output=7)),
                script(KNOWN[at : at + 8], stop="length", tokens=Tokens(output=7)),
                script(KNOWN[at + 8 :], tokens=Tokens(output=7)),
            )
            async with http.post(house.base + path, data=body) as response:
                text, reason, output = read(path, stream, await response.read())
                assert response.headers.get("headgate-rounds") == (None if stream else "2")
            assert (text, reason, output) == (KNOWN, "stop" if path == CHAT else "end_turn", 21)
    asked = provider.last.json
    assert asked["messages"][-1]["role"] == "user" and asked["messages"][-2]["role"] == "assistant"
    assert 5000 - 14 in (asked.get("max_tokens"), asked.get("max_completion_tokens"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["rounds"], line["output_tokens"]) for line in lines] == [(2, 21)] * len(places)


class Resuming(FakeProvider):
    """Goes on with ``text`` exactly where the assistant's turn ends, if nothing is queued."""

    text = "one two three"

    def _next(self, received: Received) -> Script:
        if self.unanswered:
            return super()._next(received)
        turns = [turn["content"] for turn in received.json["messages"] if turn["role"] == "assistant"]
        said = turns[0] if turns else ""
        return script(self.text[len(said if isinstance(said, str) else said[0]["text"]) :])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_cut_at_every_frame(http: aiohttp.ClientSession, tmp_path: Path, model: str, path: str) -> None:
    body = body_of(model=model, stream=True, max_tokens=5000)
    async with (
        Resuming() as provider,
        serving(tmp_path, RULES.format(base=provider.base, log=tmp_path / "log")) as house,
    ):
        for number, (at, how) in enumerate(itertools.product(range(1, 5), ("fin", "reset", "eof")), 1):
            provider.answer(script(provider.text, cut_after=at, cut=how))  # type: ignore[arg-type]  # of a Literal
            async with http.post(house.base + path, data=body) as response:
                heard, reason, _ = read(path, True, await response.read())
            assert (heard, reason) == (provider.text, "stop" if path == CHAT else "end_turn"), (at, how)
            assert len(provider.requests) == 2 * number
            assert provider.refusals == []


async def test_a_cut_tool_call_is_the_failure_it_is(
    provider: FakeProvider, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    provider.answer(script(Use("look", '{"at": "the sea"}'), cut_after=3))
    body = body_of(model="gpt-4o", stream=True)
    text = RULES.format(base=provider.base, log=tmp_path / "log")
    async with serving(tmp_path, text) as house, http.post(house.base + CHAT, data=body) as response:
        text = (await response.read()).decode()
    assert '"error"' in text and 'finish_reason":"' not in text.replace(" ", "")
    assert len(provider.requests) == 1


async def test_reasoning_over_sockets(provider: FakeProvider, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    provider.answer(script(Think("hm"), "one ", stop="length"), script(Think("again"), "two"))
    body = body_of(model="claude-fake-4-5", max_tokens=5000, thinking={"type": "enabled", "budget_tokens": 1024})
    text = RULES.format(base=provider.base, log=tmp_path / "log")
    async with serving(tmp_path, text) as house, http.post(house.base + MESSAGES, data=body) as response:
        content = json.loads(await response.read())["content"]
    assert [block["type"] for block in content] == ["thinking", "text"]
    assert (content[0]["thinking"], content[1]["text"]) == ("hm", "one two")
