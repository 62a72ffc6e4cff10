"""What leaves and what comes back: kinds, modes, numbering, restoring in any split, and that nothing planted gets out."""

from __future__ import annotations

import base64
import doctest
import gzip
import itertools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import headgate.gateway.redaction as package
import msgspec
import pytest
from headgate.gateway import registry, rules, secret_shapes
from headgate.gateway.call import Call
from headgate.gateway.codecs.base import RequestFacts, UpstreamFacts
from headgate.gateway.errors import CallerError, GatewayError, Unsupported, upstream_error
from headgate.gateway.ir.event import (
    ChoiceStop,
    Chunk,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponseStart,
    Wire,
)
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.message import (
    Citation,
    Media,
    Message,
    Reasoning,
    ReasoningOptions,
    Request,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from headgate.gateway.passing.request import Passed, Upload
from headgate.gateway.redaction import Masking, Redactor, Restoring, redact_request
from headgate.gateway.redaction import prefilter as prefilter_module
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.gateway.units import Secret
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
    ("secret", "hg-0123456789abcdefABCDEF0123456789abcdefABCDE"),
    ("secret", "glpat-0123456789abcdefABCD"),
    ("secret", "npm_0123456789abcdefABCDEF0123456789ab"),
    ("secret", "SG.0123456789abcdefABCD.0123456789abcdefABCD"),
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
    for module in (package, secret_shapes):
        told = doctest.testmod(module)
        assert told.failed == 0 and told.attempted > 3


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
    "text",
    [
        *("a@" * 50_000, "2 " * 50_000, "-----BEGIN A-----" * 5_000, "::" * 50_000, "sk-" * 50_000),
        *("://a:" * 50_000, "bearer " * 30_000, "AA00 " * 30_000, "%40" * 50_000, "\u200b" * 100_000, "1.2." * 50_000),
        "<EMAIL_1> a@b.example " * 10_000,
    ],
)
def test_linear_time(text: str) -> None:
    Redactor().session().find(text)  # the time-out of the suite is the judge


@pytest.mark.timeout(30)
def test_linear_time_in_many_parts() -> None:
    texts = tuple(Text(f"{number}@corp.example ") for number in range(20_000))
    session = Redactor().session()
    new = redact_request(request_of(Message("user", texts)), session)
    assert texts_of(new)[-1] == "<EMAIL_20000> "
    stage = Restoring(session)
    for _ in range(2000):
        assert stage.feed(Chunk((PartDelta(0, "<EMAIL_"),))) is None
        assert stage.feed(Chunk((PartDelta(0, "20000>"),))) == Chunk((PartDelta(0, "19999@corp.example"),))


HIDDEN = [
    "ann\u200b@corp.example",
    "ann%40corp.example",
    "ann\\u0040corp.example",
    "ann\\\\u0040corp.example",
    "ann\\\\\\\\u0040corp.example",
    "ａｎｎ＠corp.example",
    "4111\u00a01111\u00a01111\u00a01111",
    "4111‑1111‑1111‑1111",
    "4111\u200b111111111111",
    "٤١١١١١١١١١١١١١١١",
    "+49\u202f170\u202f1234567",
    "sk-proj-\u200b0123456789abcdefABCDEF",
    "sk-proj-0123456789abcdef\u00adABCDEF",
    "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000",
    "de89-3704-0044-0532-0130-00",
]


@pytest.mark.parametrize("value", HIDDEN)
@pytest.mark.parametrize("around", ["{}", "so {}, you see", "\u200b{}\u200b"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_other_spellings(value: str, around: str, ascii_only: bool) -> None:
    text = around.format(value)
    session = Redactor().session()
    shown = session.text(text)
    assert value not in shown and len(session.values) == 1
    assert session.values.popitem()[1] == value
    assert Redactor().suspicious(json.dumps({"a": text}, ensure_ascii=ascii_only).encode())


@pytest.mark.parametrize("with_re2", [True, False])
def test_what_stands_before_makes_it_a_secret(monkeypatch: pytest.MonkeyPatch, with_re2: bool) -> None:
    if with_re2:
        pytest.importorskip("re2")
    else:
        monkeypatch.setattr(prefilter_module, "load_re2", lambda: None)
        monkeypatch.setitem(prefilter_module.POSSIBLE, "secret", prefilter_module._secret)
    for text, value in [
        ("postgres://app:hunter2!x@localhost:5432/db", "hunter2!x"),
        ("Authorization: Basic YW5uOmh1bnRlcjI=", "YW5uOmh1bnRlcjI="),
        ("x-api-key: 0123456789abcdef0123", "0123456789abcdef0123"),
        ("AccountKey=AAAA0123456789abcdefAAAA0123456789abcdef==;", "AAAA0123456789abcdefAAAA0123456789abcdef=="),
        (
            '{"aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1"}',
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1",
        ),
    ]:
        redactor = Redactor(["secret"])
        assert [text[each.start : each.end] for each in redactor.find(text)] == [value]
        # Some write slashes as \\/, and a text may hold such JSON, or JSON that holds some.
        spellings = [text, text.replace("/", "\\/"), text.replace("/", "\\\\/")] if "://" in text else [text]
        for spelled in spellings:
            assert [spelled[each.start : each.end] for each in redactor.find(spelled)] == [value]
            body = json.dumps({"a": spelled})
            for each in (body, body.replace("/", "\\/"), json.dumps({"b": body})):
                assert redactor.suspicious(each.encode())
    for harmless in (
        "api_key = get_the_api_key_of_somebody()",
        "http://localhost:8080/a@b",
        "the basic understanding of it",
    ):
        assert Redactor(["secret"]).find(harmless) == []


@pytest.mark.parametrize("with_re2", [True, False])
@pytest.mark.parametrize("kinds", [(), ("email",), ("card", "iban"), ("secret", "ip", "phone")])
def test_the_prefilter_misses_nothing(monkeypatch: pytest.MonkeyPatch, with_re2: bool, kinds: Any) -> None:
    if with_re2:
        pytest.importorskip("re2")
    else:
        monkeypatch.setattr(prefilter_module, "load_re2", lambda: None)
    redactor = Redactor(kinds, words=["Falcon"])
    for kind, value in FOUND:
        body = json.dumps({"a": f"x {value} y"}).encode()
        assert redactor.suspicious(body) or kind not in kinds
    assert redactor.suspicious(b'{"a": "a FALCON"}')
    assert not redactor.suspicious(json.dumps(chat("Hello, you.", "Hi, ä %!", "Über 12 Euro")).encode())
    assert not redactor.suspicious(json.dumps(chat("Hello.")).replace("user", "us\\u0065r").encode())


def test_the_prefilter_sees_texts_in_a_row() -> None:
    redactor = Redactor()
    split = {"role": "user", "content": [{"type": "text", "text": "41"}, {"text": "1111111111111", "type": "text"}]}
    for one in (split, dict(reversed(split.items()))):
        assert redactor.suspicious(json.dumps({"messages": [one]}).encode())
    turns = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}, {"role": "assistant", "content": "Hi"}]
    assert not redactor.suspicious(json.dumps({"messages": turns * 3}).encode())


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
        metadata={"who": ANN, BOB: "x"},
        tool_choice=ToolChoice("auto", extra={"why": msgspec.Raw(json.dumps(ANN).encode())}),
        reasoning=ReasoningOptions(extra={"why": msgspec.Raw(json.dumps(ANN).encode())}),
        extra={"unknown": msgspec.Raw(json.dumps({"deep": [ANN]}).encode()), ANN: msgspec.Raw(b"1")},
    )
    new = redact_request(request, Redactor().session())
    shown = registry.codec("openai.chat").encode_request(new, UpstreamFacts()).body.decode()
    assert ANN not in shown and BOB not in shown and ANN not in repr(new)
    call = new.messages[1].parts[1]
    assert isinstance(call, ToolCall)
    assert call.arguments == '{"to": "<EMAIL_1>", "n": 1.0, "card": "<CARD_1>", "key": "a\\n<EMAIL_2>"}'
    assert new.user == "<EMAIL_1>" and new.metadata == {"who": "<EMAIL_1>", "<EMAIL_3>": "x"}
    assert bytes(new.extra["unknown"]) == b'{"deep": ["<EMAIL_1>"]}' and "<EMAIL_1>" in new.extra
    assert redact_request(said("nothing here"), Redactor().session()) == said("nothing here")


@pytest.mark.parametrize(
    "number", ["4111111111111111", "4111111111111111.0", "-4111111111111111", "4111111111111111.00"]
)
def test_numbers_of_cards(number: str) -> None:
    session = Redactor().session()
    parts = (ToolCall("c", "f", f'{{"a": [{number}, 1.5, 4111111111111112.0]}}'),)
    (call,) = redact_request(request_of(Message("assistant", parts)), session).messages[0].parts
    assert call == ToolCall("c", "f", '{"a": ["<CARD_1>", 1.5, 4111111111111112.0]}')
    assert session.values == {"CARD_1": number}


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
    assert parts("4", "00533466396571", "3") == ["<CARD_1>", "", ""]  # of which the middle looks like a phone number


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


def test_digests_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_HASH_KEY", "k" * 100)
    options = RedactOptions(mode="hash", key=Secret("env:TEST_HASH_KEY"))
    shown = [Redact(options)._redactor.session(tenant=tenant).text(ANN) for tenant in ("a", "a", "b")]
    assert shown[0] == shown[1] != shown[2]  # after a restart, in another worker; not for another tenant
    with pytest.raises(ValueError, match="key"):
        RedactOptions(key=Secret("env:TEST_HASH_KEY"))
    new = Redact(options)
    new.carry_over(Redact(RedactOptions(mode="hash")))
    assert new._redactor.session(tenant="a").text(ANN) == shown[0]


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


SPELLED_LESS, SPELLED_MORE = ("<", "\\u003c", "\\u003C"), (">", "\\u003e", "\\u003E")


def beginning(text: str, names: tuple[str, ...], in_json: bool) -> int:
    """Where a placeholder begins that ``text`` ends in the middle of, by trying all of them; its length if none does."""
    spelled = [f"<{name}>" for name in names]
    if in_json:
        spelled = [less + name + more for name in names for less in SPELLED_LESS for more in SPELLED_MORE]
    for at in range(max(0, len(text) - max(map(len, spelled))), len(text)):
        is_escaped = in_json and (at - len(text[:at].rstrip("\\"))) % 2 == 1
        if not is_escaped and any(each != text[at:] and each.startswith(text[at:]) for each in spelled):
            return at
    return len(text)


@examples
@given(data=st.data())
def test_never_later_than_the_chunk_that_completes_it(data: st.DataObject) -> None:
    session = Redactor(words=['say "hi"\n\\']).session()
    session.text(f'{ANN} {KEY} say "hi"\n\\ {BOB}')
    names = tuple(session.values)
    in_json, ascii_only = data.draw(st.booleans()), data.draw(st.booleans())
    bits = st.sampled_from(
        [*(f"<{name}>" for name in names), "<EMAIL_9>", "<EMAIL_1", "<E", "<", "a ", "é", "\\", '"', "\n"]
    )
    said = "".join(data.draw(st.lists(bits, max_size=8)))
    text = json.dumps({"a": said}, ensure_ascii=data.draw(st.booleans())) if in_json else said
    if in_json and data.draw(st.booleans()):
        text = text.replace("<", "\\u003c").replace(">", "\\u003E")
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=len(text))))
    pieces = [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]

    def whole(text: str) -> str:
        """What the caller should have of ``text``."""
        for name in names if in_json else ():
            for less, more in itertools.product(SPELLED_LESS, SPELLED_MORE):
                value = json.dumps(session.values[name], ensure_ascii=False)[1:-1].replace("\\", "\\\\")
                text = re.sub(rf"(?<!\\)((?:\\\\)*){re.escape(less + name + more)}", rf"\1{value}", text)
        return text if in_json else session.restore(text)

    stage, wire = Restoring(session), Wire("anthropic.messages", "sse")
    start = PartStart(0, ToolCall("c", "f") if in_json else Text(""))
    assert stage.feed(Chunk((start,), b'data: {"start": 1}', wire)) is not None
    heard, told = "", ""
    for piece in pieces:
        told += piece
        waits = len(told) - len(piece) > beginning(told[: len(told) - len(piece)], names, in_json)
        raw = json.dumps({"delta": piece}, ensure_ascii=ascii_only).encode()
        chunk = Chunk((PartDelta(0, piece),), b"data: " + raw, wire)
        passed = stage.feed(chunk)
        heard += "".join(event.text for event in passed.events if isinstance(event, PartDelta)) if passed else ""
        at = beginning(told, names, in_json)
        assert heard == whole(told[:at])
        if not waits and at == len(told) and "_" not in piece:
            assert passed is chunk
    tail = stage.close(None)
    heard += "".join(event.text for event in tail.events if isinstance(event, PartDelta)) if tail else ""
    assert heard == whole(text)


@pytest.mark.parametrize("between", [ChoiceStop("stop"), PartPatch(1, citation=Citation("f", "k", b"{}")), PartStop(0)])
@pytest.mark.parametrize("masks", [False, True])
def test_a_value_goes_on_beyond_what_is_no_end_of_it(masks: bool, between: Event) -> None:
    session = Redactor().session()
    session.text(ANN)
    stage, said = (
        (Masking(Redactor()), ("I: ann@corp", ".example ")) if masks else (Restoring(session), ("<EMA", "IL_1>"))
    )
    heard = ""
    for event in (PartDelta(1, said[0], 1), between, PartDelta(1, said[1], 1), PartStop(1, 1)):
        chunk = stage.feed(Chunk((event,)))
        heard += "".join(event.text for event in chunk.events if isinstance(event, PartDelta)) if chunk else ""
    assert heard == ("I: *** " if masks else ANN)


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


def test_a_frame_without_a_placeholder_is_not_read() -> None:
    session = Redactor().session()
    session.text(ANN)
    stage = Restoring(session)
    wire = Wire("openai.chat", "sse")
    start = Chunk((PartStart(0, ToolCall("c", "f")),), b'data: {"name":"f"}', wire)
    assert stage.feed(start) is start
    plain = Chunk((PartDelta(0, '{"to": "'),), b'data: "{\\"to\\": \\""', wire)
    assert stage.feed(plain) is plain
    half = Chunk((PartDelta(0, "\\u003"),), b'data: "\\\\u003"', wire)
    assert stage.feed(half) is None
    whole = stage.feed(Chunk((PartDelta(0, 'cEMAIL_1>"}'),), b'data: "cEMAIL_1>"', wire))
    assert whole is not None and whole.events == (PartDelta(0, f'{ANN}"}}'),)
    stop = ChoiceStop("stop_sequence", stop_sequence="<EMAIL_1>")
    assert stage.feed(Chunk((stop,))) == Chunk((ChoiceStop("stop_sequence", stop_sequence=ANN),))


MASKED = [value for _, value in FOUND if " / " not in value] + [
    "GB29 NWBK 6016 1331 9268 19",
    "Bearer 0a1b2c3d4e5f6a7b8c9d0e1f",
    "aws_secret_access_key = wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY1",
]


@examples
@given(data=st.data())
def test_what_a_model_says_is_masked_in_any_split(data: st.DataObject) -> None:
    value = data.draw(st.sampled_from(MASKED))
    before = data.draw(st.sampled_from(["", "So: ", "It has 5 of 12, NASA says: ", '{"a": "']))
    text = before + value + data.draw(st.sampled_from(["", " and so on.", "\n12 34", '"}']))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=len(text))))
    pieces = [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]
    redactor = Redactor()
    stage, out = Masking(redactor), []
    first, opened, _, *rest = answer("", ToolCall("c", "f") if before[:1] == "{" else Text(""))
    for event in (first, opened, *(PartDelta(0, piece) for piece in pieces), *rest):
        if (chunk := stage.feed(Chunk((event,)))) is not None:
            out += chunk.events
    assert stage.close(None) is None
    said = "".join(event.text for event in out if isinstance(event, PartDelta))
    assert said == Redactor(mode="mask").session(restore=False).text(text)
    assert value not in said
    assert out[-1] == rest[-1]


def test_masking_waits_for_one_word_at_most() -> None:
    stage = Masking(Redactor())
    heard = told = ""
    for word in ["It", " was", " a", " dark", " night", ", in", " 1812", " or", " so", ", they", " say"]:
        told += word
        chunk = stage.feed(Chunk((PartDelta(0, word),)))
        heard += "".join(event.text for event in chunk.events if isinstance(event, PartDelta)) if chunk else ""
        assert len(heard) >= len(told) - (len("1812 or") if " 1812" in told[-8:] else len("night,"))
    tail = stage.close(None)
    assert tail is not None and (heard + tail.events[0].text) == "It was a dark night, in 1812 or so, they say"  # type: ignore[union-attr]


def test_masked_arguments_are_json() -> None:
    stage = Masking(Redactor())
    out: list[Event] = []
    for event in answer('{"card": 4111111111111111, "to": "ann@corp.example"}', ToolCall("c", "f")):
        out += chunk.events if (chunk := stage.feed(Chunk((event,)))) else ()
    (whole,) = fold(out).choices[0].parts
    assert json.loads(whole.arguments) == {"card": "***1111", "to": "***"}  # type: ignore[union-attr]


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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "gzip"])
async def test_what_is_passed_on_in_another_encoding(call_of: Callable[..., Call], encoding: str) -> None:
    text = json.dumps({"prompt": ANN})
    head = gzip.compress(text.encode()) if encoding == "gzip" else text.encode(encoding)
    passed = Passed("POST", "/v1/x", upload=Upload(head, None, len(head)), media_type="application/json")
    upstream = Upstream()
    with pytest.raises(Unsupported):
        await Redact(RedactOptions())(call_of(passed=passed), upstream)
    assert upstream.calls == []
    call = call_of(passed=passed)
    await Redact(RedactOptions(unreadable="pass"))(call, upstream)
    assert upstream.calls == [call] and call.decision.notes == ["redact: passed on, and not looked into"]


async def test_answers_are_masked(call_of: Callable[..., Call]) -> None:
    chunk = Chunk(tuple(answer(f"Mine is {KEY}, yours <EMAIL_1>.")))
    call = with_body(call_of(), chat(f"I am {ANN}"))
    reply = await Redact(RedactOptions(restore=True, answers="mask"))(call, Upstream(chunk))
    events = [event for each in await reply.collect() for event in each.events]
    assert fold(events).choices[0].parts == (Text(f"Mine is ***, yours {ANN}."),)
    plain = with_body(call_of(), chat("Hello"))
    reply = await Redact(RedactOptions(answers="mask"))(plain, Upstream(chunk))
    events = [event for each in await reply.collect() for event in each.events]
    assert fold(events).choices[0].parts == (Text("Mine is ***, yours <EMAIL_1>."),)


async def test_counting_tokens(call_of: Callable[..., Call]) -> None:
    call = with_body(call_of(), chat(ANN)).replace(counts=True)
    whole = Chunk((), b'{"input_tokens": 5}', Wire("openai.chat", "json"))
    upstream = Upstream(whole)
    reply = await Redact(RedactOptions(restore=True, answers="mask"))(call, upstream)
    assert await reply.collect() == [whole]
    assert texts_of(upstream.calls[0].request) == ["<EMAIL_1>"]


async def test_what_it_says_for_a_trace(call_of: Callable[..., Call]) -> None:
    call = with_body(call_of(), chat(f"{ANN} {KEY}"))
    await Redact(RedactOptions())(call, Upstream())
    (step,) = call.decision.steps
    assert (step.middleware, step.what, step.facts) == ("redact", "found", {"email": 1, "secret": 1})
    assert 0 <= step.started_s <= step.ended_s


def test_a_text_document_in_base64() -> None:
    data = base64.b64encode(f"of {ANN}".encode()).decode()
    picture = Media("image", "image/png", data=data)
    new = redact_request(
        request_of(Message("user", (Media("document", "text/plain", data=data), picture))), Redactor().session()
    )
    document, same = new.messages[0].parts
    assert isinstance(document, Media) and document.data is not None
    assert base64.b64decode(document.data) == b"of <EMAIL_1>"
    assert same is picture


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("in_urls", [False, True])
def test_a_text_document_spelled_otherwise(encoding: str, in_urls: bool) -> None:
    text = f"Müller ÿ>? {ANN}"
    encode = base64.urlsafe_b64encode if in_urls else base64.b64encode
    data = encode(text.encode(encoding)).decode()
    part = Media("document", "text/plain", data=data.rstrip("=") if in_urls else data)
    (document,) = redact_request(request_of(Message("user", (part,))), Redactor().session()).messages[0].parts
    assert isinstance(document, Media) and document.data is not None
    shown = base64.b64decode(document.data)
    assert shown.decode(encoding).lstrip("\ufeff") == "Müller ÿ>? <EMAIL_1>"


def test_a_url_that_is_a_text() -> None:
    part = Media("document", "text/plain", uri=f"data:text/plain,of {ANN} and bob%40corp.example")
    (document,) = redact_request(request_of(Message("user", (part,))), Redactor().session()).messages[0].parts
    assert isinstance(document, Media) and document.uri == "data:text/plain,of <EMAIL_1> and <EMAIL_2>"


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
    [
        "{key: env:TEST_PROVIDER_KEY}",
        "{answers: stars}",
        "{unreadable: maybe}",
        "{kinds: [mail]}",
        "{mode: mask, restore: true}",
        '{patterns: {a: "("}}',
        "{word: [a]}",
        '{words: [""]}',
    ],
)
def test_bad_options_have_a_place(tmp_path: Path, options: str) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(
        "version: 1\nupstreams: {up: {adapter: simulator}}\n"
        f"routes:\n  - {{name: all, to: up, chain: [{{redact: {options}}}]}}\n"
    )
    problems = [str(problem) for problem in rules.check(file)]
    assert problems and all("routes.yaml:4" in problem for problem in problems)
