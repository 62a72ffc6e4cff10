"""What leaves and what comes back: kinds, modes, numbering, restoring in any split, and that nothing planted gets out."""

from __future__ import annotations

import doctest
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import headgate.gateway.redaction as package
import msgspec
import pytest
from headgate.gateway import registry, rules
from headgate.gateway.call import Call
from headgate.gateway.codecs.base import RequestFacts, UpstreamFacts
from headgate.gateway.errors import CallerError, GatewayError, Unsupported, upstream_error
from headgate.gateway.ir.event import ChoiceStop, Chunk, Event, PartDelta, PartPatch, PartStart, PartStop, ResponseStart
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.message import Message, Reasoning, Request, Text, ToolCall, ToolResult
from headgate.gateway.passing.request import Passed, Upload
from headgate.gateway.redaction import Redactor, Restoring, redact_request
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.middlewares.redact import Redact, RedactOptions
from hypothesis import given, settings
from hypothesis import strategies as st

_ASKED = os.environ.get("HEADGATE_EXAMPLES")
examples = settings(max_examples=int(_ASKED or 300), derandomize=_ASKED is None, database=None, deadline=None)
ANN, BOB = "ann@corp.example", "bob@corp.example"
KEY = "sk-proj-0123456789abcdefABCDEF"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg+/=\n-----END PRIVATE KEY-----"
FOUND: list[tuple[str, str]] = [
    ("email", ANN),
    ("email", "müller@bücher.example"),
    ("phone", "+49 170 1234567"),
    ("phone", "(415) 555-2671"),
    ("phone", "030 / 1234567"),
    ("card", "4111 1111 1111 1111"),
    ("card", "378282246310005"),
    ("iban", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB29NWBK60161331926819"),
    ("ip", "192.0.2.7"),
    ("ip", "2001:db8::1:2"),
    ("secret", KEY),
    ("secret", "sk-ant-api03-abcdefghijklmnop"),
    ("secret", "AKIAIOSFODNN7EXAMPLE"),
    ("secret", "AIza" + "0123456789abcdefghijABCDEFGHIJ01234"),
    ("secret", "ghp_0123456789abcdefABCDEF0123456789abcd"),
    ("secret", "xoxb-123456789012-abcdefghij"),
    ("secret", "sk_live_0123456789abcdef"),
    ("secret", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
    ("secret", PEM),
]
SPARED = [
    "2026-11-21 12:30:45",
    "01.02.2026 12:00",
    "4111 1111 1111 1112",
    "DE88 3704 0044 0532 0130 00",
    "300.1.2.3 and 1.2.3.4.5",
    "x[1::2], std::vector",
    "npm i pkg@1.2.3, @app.route",
    "a task-manager-for-everybody, bearer authentication",
    "1763732201123",
]


def request_of(*messages: Message, **more: Any) -> Request:
    return Request("openai.chat", "m", messages, **more)


def said(*texts: str) -> Request:
    """A request of one message for each text, by user and assistant in turn."""
    roles = itertools.cycle(("user", "assistant"))
    return request_of(*(Message(role, (Text(text),)) for role, text in zip(roles, texts, strict=False)))  # type: ignore[arg-type]


def texts_of(request: Request) -> list[str]:
    return [part.text for message in request.messages for part in message.parts if isinstance(part, Text)]


def redacted(*texts: str, **options: Any) -> list[str]:
    return texts_of(redact_request(said(*texts), Redactor(**options).session()))


class Upstream:
    """The rest of a chain: what it is asked, and what it answers."""

    def __init__(self, *chunks: Chunk, error: GatewayError | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        return Reply(Listed(self.chunks, self.error), call.scope)


def with_body(call: Call, body: dict[str, Any]) -> Call:
    data = json.dumps(body, ensure_ascii=False).encode()
    return call.replace(body=data, peek=call.codec.peek(data, call.facts), _request=None)


def chat(*texts: str) -> dict[str, Any]:
    roles = itertools.cycle(("user", "assistant"))
    return {"model": "m", "messages": [{"role": next(roles), "content": text} for text in texts]}


def answer(text: str, part: Any = None) -> list[Event]:
    return [ResponseStart("r"), PartStart(0, part or Text("")), PartDelta(0, text), PartStop(0), ChoiceStop("stop")]


# --- the package


def test_the_examples_of_the_package() -> None:
    assert doctest.testmod(package).failed == 0


@pytest.mark.parametrize(("kind", "value"), FOUND)
@pytest.mark.parametrize("around", ["{}", "before {} after", "({})", '{{"a": "{}"}}', "x\n{}\ny", r"\n{}\n"])
def test_what_is_found(kind: str, value: str, around: str) -> None:
    text = around.format(value)
    redactor = Redactor()
    assert [(each.kind, text[each.start : each.end]) for each in redactor.find(text)] == [(kind, value)]
    assert redactor.suspicious(json.dumps({"a": text}, ensure_ascii=False).encode())
    assert redactor.suspicious(json.dumps({"a": text}).replace("/", "\\/").encode())


@pytest.mark.parametrize("text", SPARED)
def test_what_is_not(text: str) -> None:
    assert Redactor().find(text) == []


@pytest.mark.parametrize(
    "text", ["a@" * 50_000, "2 " * 50_000, "-----BEGIN A-----" * 5_000, "::" * 50_000, "sk-" * 50_000]
)
def test_linear_time(text: str) -> None:
    Redactor().find(text)  # the time-out of the suite is the judge


def test_words_patterns_and_what_is_allowed() -> None:
    pytest.importorskip("re2")
    options: dict[str, Any] = {
        "words": ["Project Falcon", "Ärger", "C++"],
        "patterns": {"ticket": "T-[0-9]{4}"},
        "allow": ["@corp.example", "10.0.0.1"],
    }
    assert redacted(f"PROJECT FALCON, ärger, Falcon, T-1234 {ANN} 10.0.0.1 10.0.0.2", **options) == [
        f"<WORD_1>, <WORD_2>, Falcon, <TICKET_1> {ANN} 10.0.0.1 <IP_1>"
    ]
    assert Redactor((), words=["falcon"]).suspicious(b'{"a": "a FALCON"}')
    assert not Redactor((), words=["falcon"]).suspicious(b'{"a": "an owl"}')
    many = Redactor((), words=[f"word{number}" for number in range(3000)])
    assert [each.kind for each in many.find("word17 word9999 word2999")] == ["word", "word"]


@pytest.mark.parametrize("patterns", [{"a": "("}, {"email": "x"}, {"Bad Name": "x"}, {"a": "x" * 2000}])
def test_bad_patterns(patterns: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        Redactor(patterns=patterns)


def test_overlapping_finds_become_one() -> None:
    pytest.importorskip("re2")
    text = f"key={ANN}"
    assert redacted(text, patterns={"pair": "key=ann"}) == ["<EMAIL_1>"]


# --- the request


def test_numbers_are_of_the_conversation() -> None:
    turns = [f"{ANN} {BOB}", f"to {BOB}", f"and {ANN} c@corp.example"]
    for count in (1, 2, 3):
        assert redacted(*turns[:count]) == ["<EMAIL_1> <EMAIL_2>", "to <EMAIL_2>", "and <EMAIL_1> <EMAIL_3>"][:count]


def test_the_callers_own_placeholders() -> None:
    session = Redactor().session()
    before = redact_request(said(f"Use <EMAIL_1> for {ANN}"), session)
    assert texts_of(before) == ["Use <EMAIL_1> for <EMAIL_2>"]
    assert session.restore("<EMAIL_1> <EMAIL_2>") == f"<EMAIL_1> {ANN}"
    session = Redactor().session()
    after = redact_request(said(f"I am {ANN}", "hm", "what is <EMAIL_1>?"), session)
    assert texts_of(after) == ["I am <EMAIL_1>", "hm", "what is <EMAIL_2>?"]
    assert session.restore("<EMAIL_1>, <EMAIL_2>") == f"{ANN}, <EMAIL_1>"
    assert session.summary() == "1 email"


def test_every_place_of_a_request() -> None:
    arguments = (
        '{"to": "ann@corp.example", "n": 1.0, "card": 4111111111111111, "key": "' + "a\\n\\u0062ob@x.example" + '"}'
    )
    request = request_of(
        Message("system", (Text(f"serve {ANN}"),)),
        Message("assistant", (Reasoning(f"{ANN}?", signature="sig"), ToolCall("c1", "mail", arguments))),
        Message("tool", (ToolResult("c1", (Text(f"sent to {ANN}"),)),)),
        user=ANN,
        metadata={"who": ANN},
        extra={"unknown": msgspec.Raw(json.dumps({"deep": [ANN]}).encode())},
    )
    new = redact_request(request, Redactor().session())
    shown = registry.codec("openai.chat").encode_request(new, UpstreamFacts()).body.decode()
    assert ANN not in shown
    call = new.messages[1].parts[1]
    assert isinstance(call, ToolCall)
    assert call.arguments == '{"to": "<EMAIL_1>", "n": 1.0, "card": "<CARD_1>", "key": "a\\n<EMAIL_2>"}'
    assert new.user == "<EMAIL_1>" and new.metadata == {"who": "<EMAIL_1>"}
    assert bytes(new.extra["unknown"]) == b'{"deep": ["<EMAIL_1>"]}'
    assert redact_request(said("nothing here"), Redactor().session()) == said("nothing here")


def test_broken_arguments_are_text() -> None:
    new = redact_request(
        request_of(Message("assistant", (ToolCall("c", "f", f'{{"to": "{ANN}'),))), Redactor().session()
    )
    assert new.messages[0].parts == (ToolCall("c", "f", '{"to": "<EMAIL_1>'),)


def test_texts_in_a_row() -> None:
    def parts(*texts: str) -> list[str]:
        message = Message("user", tuple(Text(text) for text in texts))
        return texts_of(redact_request(request_of(message), Redactor().session()))

    assert parts("my key sk-pr", "oj-0123456789abcdef", " ok") == ["my key <SECRET_1>", "", " ok"]
    assert parts("my key " + KEY[:25], KEY[25:] + " ok") == ["my key <SECRET_1>", " ok"]
    assert parts("Hello", ANN, "bye") == ["Hello", "<EMAIL_1>", "bye"]
    assert parts("411111111111", "1111") == ["<CARD_1>", ""]


@pytest.mark.parametrize(
    ("mode", "shown"), [("mask", "*** ***1111 <EMAIL_1>"), ("replace", "<EMAIL_1> <CARD_1> <EMAIL_1>")]
)
def test_modes(mode: Any, shown: str) -> None:
    session = Redactor(mode=mode).session(restore=False)
    assert session.text(f"{ANN} 4111111111111111 <EMAIL_1>") == shown


def test_digests() -> None:
    redactor = Redactor(mode="hash")
    first, second = redactor.session(tenant="a").text(f"{ANN} {ANN}").split()
    assert first == second and first.startswith("<EMAIL:")
    assert redactor.session(tenant="b").text(ANN) != first
    assert Redactor(mode="hash").session(tenant="a").text(ANN) != first


def test_refusing_tells_no_value() -> None:
    with pytest.raises(CallerError, match=r"message 3 \(user\) holds a secret") as caught:
        redact_request(said("a", "b", KEY), Redactor(mode="refuse").session())
    assert KEY not in str(caught.value)


SECRETS = [value for kind, value in FOUND if kind == "secret"]


@examples
@given(data=st.data())
def test_a_planted_secret_never_leaves(data: st.DataObject) -> None:
    planted = data.draw(st.sampled_from([*SECRETS, ANN, "4111111111111111", "DE89370400440532013000"]))
    filler = st.text(st.sampled_from('ab .\n"\\/<>_1é{}'), max_size=12)
    text = data.draw(filler) + "\n" + planted + "\n" + data.draw(filler)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pieces = [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]
    where = data.draw(st.sampled_from(["parts", "result", "arguments", "name"]))
    before = [Message("user", (Text(data.draw(filler)),)) for _ in range(data.draw(st.integers(0, 3)))]
    texts = tuple(Text(piece) for piece in pieces)
    message = {
        "parts": Message("user", texts),
        "result": Message("tool", (ToolResult("c", texts),)),
        "arguments": Message("assistant", (ToolCall("c", "f", json.dumps({"a": text, "b": [text]})),)),
        "name": Message("user", (Text(text),), text),
    }[where]
    request = request_of(*before, message, extra={"x": msgspec.Raw(json.dumps(text).encode())})
    session = Redactor().session()
    new = redact_request(request, session)
    whole = "".join(each.text for each in new.messages[-1].parts if isinstance(each, Text))
    whole += "".join(
        "".join(inner.text for inner in each.content if isinstance(inner, Text))
        for each in new.messages[-1].parts
        if isinstance(each, ToolResult)
    )
    shown = msgspec.json.encode(new).decode()
    assert planted not in whole
    assert planted not in shown and json.dumps(planted)[1:-1] not in shown
    if where == "name":
        assert session.restore(texts_of(new)[-1]) == text
    sent = json.dumps({"a": text}, ensure_ascii=data.draw(st.booleans())).encode()
    assert Redactor().suspicious(sent)


# --- the answer


def restored(events: list[Event], session: Any, **more: Any) -> list[Event]:
    stage = Restoring(session, **more)
    out: list[Event] = []
    for event in events:
        if (chunk := stage.feed(Chunk((event,)))) is not None:
            out += chunk.events
    if (tail := stage.close(None)) is not None:
        out += tail.events
    return out


@examples
@given(data=st.data())
def test_restored_in_any_split(data: st.DataObject) -> None:
    session = Redactor(words=['say "hi"\n\\']).session()
    session.text(f'{ANN} {KEY} say "hi"\n\\ {BOB}')
    assert len(session.values) == 4
    in_json = data.draw(st.booleans())
    names = [
        "<EMAIL_1>",
        "<EMAIL_2>",
        "<SECRET_1>",
        "<WORD_1>",
        "<EMAIL_9>",
        "<EMAIL_1",
        "<EM",
        "<",
        "EMAIL_1>",
        "a",
        "é",
    ]
    said = "".join(data.draw(st.lists(st.sampled_from([*names, "\\", '"', "\n"]), max_size=8)))
    text = json.dumps({"a": said}, ensure_ascii=data.draw(st.booleans())) if in_json else said
    if in_json and data.draw(st.booleans()):
        text = text.replace("<", "\\u003c").replace(">", "\\u003E")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=len(text))))
    pieces = [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]
    part = ToolCall("c", "f") if in_json else data.draw(st.sampled_from([Text(""), Reasoning("")]))
    start, opened, _, *rest = answer("", part)
    out = restored([start, opened, *(PartDelta(0, piece) for piece in pieces), *rest], session)
    (whole,) = fold(out).choices[0].parts
    if in_json:
        assert isinstance(whole, ToolCall)
        assert json.loads(whole.arguments) == {"a": session.restore(said)}
    else:
        assert whole.text == session.restore(said)  # type: ignore[union-attr]
    assert out[-1] == rest[-1]


def test_no_more_is_held_than_one_placeholder() -> None:
    session = Redactor().session()
    session.text(ANN)
    stage = Restoring(session)
    shown = ""
    text = "a < b, <EMAIL_1> <EMAIL_2> <EMAIL"
    for count, letter in enumerate(text, 1):
        chunk = stage.feed(Chunk((PartDelta(0, letter),)))
        shown += "".join(event.text for event in chunk.events if isinstance(event, PartDelta)) if chunk else ""
        assert len(shown.replace(ANN, "<EMAIL_1>")) >= count - len("<EMAIL_1>")
    assert shown == f"a < b, {ANN} <EMAIL_2> "
    tail = stage.close(upstream_error("cut", "x"))
    assert tail is not None and tail.events == (PartDelta(0, "<EMAIL"),)


def test_parts_that_are_open_together_and_a_signature() -> None:
    session = Redactor().session()
    session.text(ANN)
    out = restored(
        [
            PartStart(0, Reasoning()),
            PartStart(1, Text("for <EM")),
            PartDelta(0, "<EMAI"),
            PartDelta(1, "AIL_1>"),
            PartPatch(0, signature="s"),
            PartStop(0),
            PartStop(1),
        ],
        session,
    )
    assert out[2:5] == [PartDelta(1, ANN), PartDelta(0, "<EMAI"), PartPatch(0, signature="s")]


def test_json_asked_for_as_text() -> None:
    session = Redactor().session()
    session.text(PEM)
    (whole,) = fold(restored(answer('{"key": "<SECRET_1>"}'), session, json_text=True)).choices[0].parts
    assert json.loads(whole.text) == {"key": PEM}  # type: ignore[union-attr]


# --- the middleware


async def test_nothing_found_nothing_touched(call_of: Callable[..., Call]) -> None:
    for text in ("Hello", "2026-11-21, 12 @ 5"):
        call = with_body(call_of(), chat(text))
        chunk = Chunk(tuple(answer("<EMAIL_1>")))
        upstream = Upstream(chunk)
        reply = await Redact(RedactOptions(restore=True))(call, upstream)
        assert upstream.calls == [call] and upstream.calls[0] is call
        assert (await reply.collect())[0] is chunk
        assert call.decision.notes == []


@pytest.mark.parametrize("restore", [True, False])
async def test_there_and_back(call_of: Callable[..., Call], restore: bool) -> None:
    call = with_body(call_of(), chat(f"I am {ANN}", "ok", f"{ANN} {KEY}"))
    untouched = Chunk((PartDelta(0, "ok "),), b"data: ok\n\n")
    upstream = Upstream(Chunk((PartStart(0, Text("")),)), untouched, Chunk((PartDelta(0, "<EMAIL_1>"),)))
    reply = await Redact(RedactOptions(restore=restore))(call, upstream)
    chunks = await reply.collect()
    assert chunks[1] is untouched
    assert chunks[2].events == (PartDelta(0, ANN if restore else "<EMAIL_1>"),)
    assert upstream.calls[0].body is None
    assert texts_of(upstream.calls[0].request) == ["I am <EMAIL_1>", "ok", "<EMAIL_1> <SECRET_1>"]
    assert call.decision.notes == ["redact: 2 email, 1 secret"]


@pytest.mark.parametrize("at", range(6))
async def test_cut_at_every_event(call_of: Callable[..., Call], at: int) -> None:
    call = with_body(call_of(stream=True), chat(ANN))
    events = [*answer("hm <EMA")[:3], PartDelta(0, "IL_1>!"), PartStop(0), ChoiceStop("stop")]
    upstream = Upstream(*(Chunk((event,)) for event in events[:at]), error=upstream_error("cut", "x"))
    reply = await Redact(RedactOptions(restore=True))(call, upstream)
    heard: list[Event] = []

    async def hear() -> None:
        async for chunk in reply:
            heard.extend(chunk.events)

    with pytest.raises(GatewayError, match="x"):
        await hear()
    text = "".join(event.text for event in heard if isinstance(event, PartDelta))
    assert text == ("", "", "", "hm <EMA", f"hm {ANN}!", f"hm {ANN}!", f"hm {ANN}!")[at]


async def test_escapes_hide_nothing(call_of: Callable[..., Call]) -> None:
    call = call_of()
    body = json.dumps(chat("mail ann@corp.example")).replace("@", "\\u0040").encode()
    upstream = Upstream()
    await Redact(RedactOptions())(call.replace(body=body), upstream)
    assert texts_of(upstream.calls[0].request) == ["mail <EMAIL_1>"]


async def test_embeddings(call_of: Callable[..., Call]) -> None:
    codec = registry.codec("openai.embeddings")
    body = b'{"model": "m", "input": ["a", "ann@corp.example"]}'
    facts = RequestFacts("/v1/embeddings")
    call = call_of().replace(codec=codec, facts=facts, body=body, peek=codec.peek(body, facts))
    upstream = Upstream()
    await Redact(RedactOptions())(call, upstream)
    assert upstream.calls[0].body == b'{"model": "m", "input": ["a", "<EMAIL_1>"]}'


async def test_what_is_passed_on(call_of: Callable[..., Call]) -> None:
    redact, upstream = Redact(RedactOptions()), Upstream()
    head = json.dumps({"model": "m", "prompt": ANN}).encode()
    json_call = Passed("POST", "/v1/x", upload=Upload(head, None, len(head)), media_type="application/json")
    await redact(call_of(passed=json_call), upstream)
    (sent,) = upstream.calls
    assert sent.passed is not None
    assert sent.passed.upload.head == b'{"model": "m", "prompt": "<EMAIL_1>"}'
    assert sent.passed.upload.length == len(sent.passed.upload.head)
    await redact(call_of(passed=Passed("GET", "/v1/files")), upstream)
    with pytest.raises(Unsupported):
        await redact(call_of(passed=Passed("POST", "/v1/files", upload=Upload(b"x"), media_type="image/png")), upstream)


async def test_a_reload_keeps_the_digests(call_of: Callable[..., Call]) -> None:
    old, new = Redact(RedactOptions(mode="hash")), Redact(RedactOptions(mode="hash", kinds=("email",)))
    new.carry_over(old)
    upstream = Upstream()
    for redact in (old, new):
        await redact(with_body(call_of(), chat(ANN)), upstream)
    first, second = (texts_of(call.request) for call in upstream.calls)
    assert first == second


@pytest.mark.parametrize(
    "options",
    ["{kinds: [mail]}", "{mode: mask, restore: true}", '{patterns: {a: "("}}', "{word: [a]}", '{words: [""]}'],
)
def test_bad_options_have_a_place(tmp_path: Path, options: str) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(
        "version: 1\nupstreams: {up: {adapter: simulator}}\n"
        f"routes:\n  - {{name: all, to: up, chain: [{{redact: {options}}}]}}\n"
    )
    problems = [str(problem) for problem in rules.check(file)]
    assert problems and all("routes.yaml:4" in problem for problem in problems)
