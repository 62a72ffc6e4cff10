"""Failures, as each SDK's users meet them: the right exception, status, waiting time and request id; never a clean end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from ..fakes.gateway import Served
from ..fakes.provider import FakeProvider
from ..fakes.script import Script, Use, script
from .talk import ANTHROPIC, CALLERS, MODELS, OPENAI, Talk

Begin = Callable[..., Talk]
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
to_each = pytest.mark.parametrize("to", MODELS)
from_each = pytest.mark.parametrize("caller", CALLERS)
plain_and_watched = pytest.mark.parametrize("prefix", ["", "x-"], ids=["plain", "watched"])
standalone_only = pytest.mark.parametrize("served", ["standalone"], indirect=True)
SDK: dict[str, Any] = {OPENAI: openai, ANTHROPIC: anthropic}


def _say(talk: Begin, caller: str, model: str, stream: bool) -> Talk:
    conversation = talk(caller, model, stream=stream)
    conversation.say("Hi.")
    return conversation


ERRORS: list[tuple[int, dict[str, tuple[str, set[int]]]]] = [
    (400, {OPENAI: ("BadRequestError", {400}), ANTHROPIC: ("BadRequestError", {400})}),
    (401, {OPENAI: ("AuthenticationError", {401}), ANTHROPIC: ("AuthenticationError", {401})}),
    (403, {OPENAI: ("PermissionDeniedError", {403}), ANTHROPIC: ("PermissionDeniedError", {403})}),
    (404, {OPENAI: ("NotFoundError", {404}), ANTHROPIC: ("NotFoundError", {404})}),
    (429, {OPENAI: ("RateLimitError", {429}), ANTHROPIC: ("RateLimitError", {429})}),
    (500, {OPENAI: ("InternalServerError", {500, 502}), ANTHROPIC: ("InternalServerError", {500, 502})}),
    (503, {OPENAI: ("InternalServerError", {503}), ANTHROPIC: ("InternalServerError", {503, 529})}),
    (529, {OPENAI: ("InternalServerError", {503, 529}), ANTHROPIC: ("OverloadedError", {529})}),
]


@pytest.mark.parametrize(("status", "expected"), ERRORS, ids=[str(status) for status, _ in ERRORS])
@both
@to_each
@from_each
@standalone_only
async def test_http_errors(
    provider: FakeProvider,
    talk: Begin,
    caller: str,
    to: str,
    stream: bool,
    status: int,
    expected: dict[str, tuple[str, set[int]]],
) -> None:
    provider.answer(script(status=status, headers={"retry-after": "7"} if status in (429, 503, 529) else {}))
    name, statuses = expected[caller]
    with pytest.raises(SDK[caller].APIStatusError) as caught:
        await _say(talk, caller, MODELS[to], stream).hear()
    error = caught.value
    assert isinstance(error, getattr(SDK[caller], name)), repr(error)
    assert error.status_code in statuses
    assert error.response.headers.get("retry-after") == ("7" if status in (429, 503, 529) else None)
    assert error.request_id, "the SDK shows no request id"
    assert error.response.headers["x-request-id"]
    body = error.response.json()
    if caller == OPENAI:
        assert {"message", "type", "param", "code"} <= set(body["error"])
    else:
        assert body["type"] == "error"
        assert {"type", "message"} <= set(body["error"])
        assert body["request_id"]
    if caller == to:
        assert error.response.content == provider.last.body


@both
@to_each
@from_each
async def test_our_key_is_refused_and_not_shown(
    provider: FakeProvider, talk: Begin, caller: str, to: str, stream: bool
) -> None:
    provider.expected_refusals = [{OPENAI: "Incorrect API key provided.", ANTHROPIC: "invalid x-api-key"}[to]]
    model = {OPENAI: "badkey-gpt", ANTHROPIC: "badkey-claude"}[to]
    with pytest.raises(SDK[caller].AuthenticationError) as caught:
        await _say(talk, caller, model, stream).hear()
    assert "sk-" not in caught.value.response.text


@both
@from_each
async def test_nobody_listens(provider: FakeProvider, talk: Begin, caller: str, stream: bool) -> None:
    with pytest.raises(SDK[caller].InternalServerError) as caught:
        await _say(talk, caller, "gone-gpt", stream).hear()
    assert caught.value.status_code == 502
    assert caught.value.request_id


@both
@to_each
@from_each
async def test_the_callers_key_is_refused(
    provider: FakeProvider, chat: openai.AsyncOpenAI, talk: Begin, caller: str, to: str, stream: bool
) -> None:
    conversation: Any = _say(talk, caller, MODELS[to], stream)
    conversation.client = conversation.client.with_options(api_key="sk-nobody-knows-me")
    with pytest.raises(SDK[caller].AuthenticationError) as caught:
        await conversation.hear()
    assert "sk-nobody" not in caught.value.response.text
    assert caught.value.request_id
    assert provider.requests == []


@from_each
@both
async def test_no_such_model(provider: FakeProvider, talk: Begin, caller: str, stream: bool) -> None:
    with pytest.raises(SDK[caller].NotFoundError) as caught:
        await _say(talk, caller, "llama-unheard-of", stream).hear()
    assert "llama-unheard-of" in caught.value.message
    assert caught.value.request_id


@to_each
@from_each
async def test_a_retried_error_is_not_seen(provider: FakeProvider, talk: Begin, caller: str, to: str) -> None:
    for stream in (False, True):
        provider.answer(script(status=503), script("At last."))
        heard = await _say(talk, caller, "x-" + MODELS[to], stream).hear()
        assert heard.text == "At last."
    assert len(provider.requests) == 4


BROKEN: dict[str, Script] = {
    "closed": script("One two three four five six", Use("look"), cut_after=4),
    "reset": script("One two three four five six", cut_after=3, cut="reset"),
    "half a frame": script("One two three four five six", cut_after=4, half=True),
    "half a frame, then a proper end": script("One two three four five six", cut_after=4, half=True, cut="eof"),
    "a proper end without the end mark": script("One two three four five six", cut_after=4, cut="eof"),
    "an error event": script("One two three four five six", error_after=4),
    "byte by byte, then cut": script("One two three", piece=1, cut_after=900),
}


@pytest.mark.parametrize("how", BROKEN)
@plain_and_watched
@to_each
@from_each
async def test_broken_streams_never_end_cleanly(
    provider: FakeProvider, talk: Begin, caller: str, to: str, prefix: str, how: str
) -> None:
    provider.answer(BROKEN[how])
    conversation = _say(talk, caller, prefix + MODELS[to], True)
    with pytest.raises(SDK[caller].APIError) as caught:
        await conversation.hear()
    # Well-formed, in the caller's own format, in a stream that was closed as it should: no transport fault.
    assert not isinstance(caught.value, SDK[caller].APIConnectionError)
    assert isinstance(caught.value.body, dict)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("how", ["closed", "reset"])
@to_each
@from_each
async def test_broken_whole_answers(provider: FakeProvider, talk: Begin, caller: str, to: str, how: str) -> None:
    provider.answer(BROKEN[how])
    with pytest.raises(SDK[caller].InternalServerError) as caught:
        await _say(talk, caller, MODELS[to], False).hear()
    assert caught.value.status_code == 502


STRANGE: dict[str, Script] = {
    "HTML with status 200": script(wire=b"<html><body>Hi</body></html>", content_type="text/html"),
    "an empty body": script(wire=b""),
    "a JSON array": script(wire=b"[1, 2]"),
    "half a body": script(wire=b'{"id": "x", "choices": [{"ind', content_type="application/json"),
    "an error inside a 200": script(
        wire=b'{"type": "error", "error": {"type": "api_error", "message": "no luck", "code": 502}}'
    ),
    "a whole body where a stream was asked for, in words": script(wire=b"upstream says hi", content_type="text/plain"),
    "a redirect": script(status=302, headers={"location": "http://127.0.0.1:9/"}, wire=b""),
    "HTML with status 502": script(status=502, wire=b"<html>bad gateway</html>", content_type="text/html"),
    "nothing with status 503": script(status=503, wire=b""),
    "text with status 429": script(
        status=429, wire=b"slow down", content_type="text/plain", headers={"retry-after": "3"}
    ),
}


@pytest.mark.parametrize("how", STRANGE)
@both
@to_each
@from_each
@standalone_only
async def test_strange_answers(
    provider: FakeProvider, talk: Begin, caller: str, to: str, stream: bool, how: str
) -> None:
    provider.answer(STRANGE[how], script("All is well."))
    conversation = _say(talk, caller, MODELS[to], stream)
    with pytest.raises(SDK[caller].APIError) as caught:
        await conversation.hear()
    error = caught.value
    assert not isinstance(error, SDK[caller].APIConnectionError)
    assert "<html>" not in str(error.body)
    if isinstance(error, SDK[caller].APIStatusError):
        assert error.request_id
        # In a stream that begins, and then says nothing that can be understood, the error comes in-band.
        expected = {429} if "429" in how else {503, 529} if "503" in how else {502, 200} if stream else {502}
        assert error.status_code in expected
    assert (await conversation.hear()).text == "All is well."


@to_each
@from_each
async def test_a_stream_may_say_its_type_without_a_charset(
    provider: FakeProvider, talk: Begin, caller: str, to: str
) -> None:
    provider.answer(
        script("Hi.", content_type="text/event-stream"), script("Hi.", content_type="Text/Event-Stream;charset=UTF-8")
    )
    for _ in range(2):
        assert (await _say(talk, caller, MODELS[to], True).hear()).text == "Hi."


@to_each
@from_each
async def test_a_whole_answer_to_a_streamed_request(provider: FakeProvider, talk: Begin, caller: str, to: str) -> None:
    # Some servers ignore "stream": their whole answer is the same events at once.
    from ..fakes import anthropic_api, openai_api

    play = script("Not streamed.")
    body = openai_api.whole(play, 1, "m") if to == OPENAI else anthropic_api.whole(play, 1, "m", provider.issued)
    provider.answer(script(wire=body, content_type="application/json"))
    assert (await _say(talk, caller, MODELS[to], True).hear()).text == "Not streamed."


@from_each
@to_each
async def test_a_stall_after_the_first_words(
    provider: FakeProvider, tls: Any, tmp_path: Any, caller: str, to: str
) -> None:
    from ..fakes.gateway import serving
    from .conftest import anthropic_client, openai_client
    from .talk import AnthropicTalk, OpenAITalk

    provider.answer(script("One two three", stall_after=4))
    async with serving(provider, tmp_path, idle="300ms") as served:
        client: Any = openai_client(served, tls) if caller == OPENAI else anthropic_client(served, tls)
        async with client:
            talk: Talk = (OpenAITalk if caller == OPENAI else AnthropicTalk)(client, MODELS[to], True)
            talk.say("Hi.")
            with pytest.raises(SDK[caller].APIError, match="sent nothing"):
                await talk.hear()
    assert provider.last.outcome == "aborted"


async def test_it_serves_on(served: Served, provider: FakeProvider, talk: Begin) -> None:
    """After failures of each kind on the same connections, the next call works."""
    provider.answer(script("a b c", cut_after=3), script(status=500), script("Fine."))
    conversation = _say(talk, OPENAI, MODELS[OPENAI], True)
    for _ in range(2):
        with pytest.raises(openai.APIError):
            await conversation.hear()
    assert (await conversation.hear()).text == "Fine."
    assert served.gateway.in_flight == 0
