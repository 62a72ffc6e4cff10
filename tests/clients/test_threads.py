"""Message threads: a conversation that Anthropic's server holds, for a provider that holds none.

The SDK's tool runner asks for one by default, and sends the new messages alone from the second turn on. It sends the whole
conversation again when it is told ``thread_unsupported_request``: what is said in any other way loses the first turns.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any, Final

import anthropic
import httpx
import pytest

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import FakeProvider
from ..fakes.script import Use, script
from .test_formats import PROVIDERS, served

FOREIGN: Final = [name for name in PROVIDERS if name not in ("anthropic.messages", "openai.completions")]
BETA: Final = "message-threads-2026-08-12"


def _client(base: str, tls: ssl.SSLContext) -> anthropic.AsyncAnthropic:
    http = anthropic.DefaultAsyncHttpxClient(verify=tls)
    return anthropic.AsyncAnthropic(api_key=CALLER_KEY, base_url=base, max_retries=0, timeout=10, http_client=http)


@anthropic.beta_async_tool
async def look(at: str) -> str:
    """Looks.

    Args:
        at: What to look at.
    """
    return f"a picture of {at}"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("to", FOREIGN)
async def test_a_tool_runner_keeps_its_first_turn(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, to: str, stream: bool
) -> None:
    provider.answer(script(Use("look", '{"at": "sea"}')), script("A picture."))
    async with served(provider, tmp_path) as base, _client(base, tls) as client:
        messages: Any = [{"role": "user", "content": "What is the word for blue water?"}]
        runner = client.beta.messages.tool_runner(
            model=to, max_tokens=100, messages=messages, tools=[look], stream=stream
        )
        answer = await runner.until_done()
    assert [block.text for block in answer.content if block.type == "text"] == ["A picture."]
    assert len(provider.requests) == 2
    told = provider.last.raw.decode()
    assert "blue water" in told
    assert "a picture of sea" in told


@pytest.mark.parametrize("thread", [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}])
@pytest.mark.parametrize("to", FOREIGN)
async def test_the_refusal_is_the_one_that_the_api_documents(
    provider: FakeProvider, tmp_path: Path, to: str, thread: dict[str, str]
) -> None:
    async with served(provider, tmp_path) as base, httpx.AsyncClient() as http:
        body = {"model": to, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "thread": thread}
        headers = {"x-api-key": CALLER_KEY, "anthropic-version": "2023-06-01", "anthropic-beta": BETA}
        answer = await http.post(f"{base}/v1/messages?beta=true", json=body, headers=headers)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["details"] == {"error_code": "thread_unsupported_request"}
    assert "thread" in error["message"]
    assert not provider.requests


@pytest.mark.parametrize("thread", [None, {}])
async def test_a_request_without_a_thread_is_none(provider: FakeProvider, tmp_path: Path, thread: Any) -> None:
    async with served(provider, tmp_path) as base, httpx.AsyncClient() as http:
        body = {"model": "openai.chat", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"x-api-key": CALLER_KEY, "anthropic-version": "2023-06-01"}
        answer = await http.post(f"{base}/v1/messages", json={**body, "thread": thread}, headers=headers)
    assert answer.status_code == (200 if thread is None else 400)


async def test_a_provider_of_the_format_is_asked_for_the_thread_as_it_came(
    provider: FakeProvider, tmp_path: Path
) -> None:
    provider.extra = frozenset({"thread"})
    async with served(provider, tmp_path) as base, httpx.AsyncClient() as http:
        body = {"model": "anthropic.messages", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"x-api-key": CALLER_KEY, "anthropic-version": "2023-06-01", "anthropic-beta": BETA}
        sent = json.dumps({**body, "thread": {"type": "create"}}).encode()
        answer = await http.post(f"{base}/v1/messages?beta=true", content=sent, headers=headers)
    assert answer.status_code == 200
    assert provider.last.raw == sent
    assert provider.last.headers["anthropic-beta"] == BETA
