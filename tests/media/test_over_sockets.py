"""Images by URL towards a provider that takes bytes alone, over real sockets."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from ..fakes.gateway import ENVIRONMENT
from ..fakes.provider import FakeProvider
from ..fakes.script import script
from ..server.house import CHAT, MESSAGES, House, serving

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 50
RULES = """
server: {{anonymous: allow}}
media: {{fetch: {{hosts: ["127.0.0.1:{port}", "localhost:{port}"], max_size: 1KB, timeout: 2s, private: {private}}}}}
upstreams:
  local: {{adapter: ollama, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
  chat: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, emulate: {{media_urls: fetch}}}}
  takes-urls: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
routes:
  - {{name: chat, match: {{model: chat}}, to: chat}}
  - {{name: takes-urls, match: {{model: takes-urls}}, to: takes-urls}}
  - {{name: refuses, match: {{model: refuses}}, to: local, loss: refuse}}
  - {{name: rest, to: local}}
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No failure here is one of the gateway's own."""
    caplog.set_level(logging.INFO, "headgate")
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake
        assert fake.unanswered == 0 and fake.refusals == []


class Files:
    """A server of images; ``asked`` counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.port = 0

    async def serve(self, request: web.Request) -> web.Response:
        """Answer by name."""
        self.asked += 1
        if request.path == "/page":
            return web.Response(text="<html>", content_type="text/html")
        kind = "application/octet-stream" if request.path == "/unnamed" else "image/png"
        return web.Response(body=PNG * (100 if request.path == "/large" else 1), content_type=kind)


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    made = Files()
    app = web.Application()
    app.router.add_get("/{name:.*}", made.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture(params=["allow"])
async def house(
    request: pytest.FixtureRequest, tmp_path: Path, provider: FakeProvider, files: Files
) -> AsyncIterator[House]:
    rules = RULES.format(base=provider.base, port=files.port, private=request.param)
    async with serving(tmp_path, rules) as made:
        yield made
        await made.idle()


def seen(*urls: str, model: str = "local") -> dict[str, Any]:
    """A request that shows images."""
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": model, "messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, *images]}]}


async def post(house: House, body: dict[str, Any], path: str = CHAT) -> httpx.Response:
    """Ask."""
    async with httpx.AsyncClient() as client:
        return await client.post(house.base + path, json=body)


@pytest.mark.parametrize("name", ["a.png", "unnamed"])
async def test_an_image_is_fetched(provider: FakeProvider, house: House, files: Files, name: str) -> None:
    url = f"http://127.0.0.1:{files.port}/{name}"
    response = await post(house, seen(url, url))
    assert response.status_code == 200 and "headgate-loss" not in response.headers
    data = base64.b64encode(PNG).decode()
    assert provider.last.json["messages"][0]["images"] == [data, data]
    assert files.asked == 1, "what stands there twice is fetched once"


async def test_of_an_anthropic_caller_with_a_tool_result(provider: FakeProvider, house: House, files: Files) -> None:
    image = {"type": "image", "source": {"type": "url", "url": f"http://127.0.0.1:{files.port}/a"}}
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [image]}]},
    ]
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    body = {"model": "local", "max_tokens": 50, "messages": messages, "tools": tools}
    response = await post(house, body, MESSAGES)
    assert response.status_code == 200
    assert base64.b64encode(PNG).decode() in provider.last.raw.decode()


async def test_an_upstream_that_says_so(provider: FakeProvider, house: House, files: Files) -> None:
    """A chat vendor that takes data alone, although its format has addresses."""
    await post(house, seen(f"http://127.0.0.1:{files.port}/a.png", model="chat"))
    image = provider.last.json["messages"][0]["content"][1]
    assert image["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


async def test_an_upstream_that_takes_urls_gets_them(provider: FakeProvider, house: House, files: Files) -> None:
    url = f"http://127.0.0.1:{files.port}/a.png"
    await post(house, seen(url, model="takes-urls"))
    assert provider.last.json["messages"][0]["content"][1]["image_url"]["url"] == url
    assert files.asked == 0


@pytest.mark.parametrize(("name", "why"), [("page", "text/html"), ("large", "larger than 1000 bytes")])
async def test_what_is_no_image(provider: FakeProvider, house: House, files: Files, name: str, why: str) -> None:
    response = await post(house, seen(f"http://127.0.0.1:{files.port}/{name}"))
    error = response.json()["error"]
    assert response.status_code == 400 and why in error["message"]
    assert error["param"] == "messages[0].content[1]"
    assert provider.requests == []


async def test_a_host_that_is_not_allowed(provider: FakeProvider, house: House, files: Files) -> None:
    """As without all this: the words go without the image, the loss is told; or the route refuses it, with a hint."""
    response = await post(house, seen("https://elsewhere.example/a.png"))
    assert response.status_code == 200 and "headgate-loss" in response.headers
    assert "images" not in provider.last.json["messages"][0]
    refused = await post(house, seen("https://elsewhere.example/a.png", model="refuses"))
    assert refused.status_code == 400 and "media.fetch" in refused.json()["error"]["message"]
    assert files.asked == 0


@pytest.mark.parametrize("house", ["refuse"], indirect=True)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_private_addresses(provider: FakeProvider, house: House, files: Files, host: str) -> None:
    response = await post(house, seen(f"http://{host}:{files.port}/a.png"))
    assert response.status_code == 400 and "not allowed" in response.json()["error"]["message"]
    assert files.asked == 0 and provider.requests == []


async def test_too_many(provider: FakeProvider, house: House, files: Files) -> None:
    response = await post(house, seen(*(f"http://127.0.0.1:{files.port}/{n}" for n in range(17))))
    assert response.status_code == 400 and "more than 16 files" in response.json()["error"]["message"]
    assert files.asked == 0


async def test_who_shows_nothing_gets_the_providers_bytes(provider: FakeProvider, house: House) -> None:
    provider.answer(script("Hi"))
    response = await post(house, {"model": "takes-urls", "messages": [{"role": "user", "content": "Hello"}]})
    assert response.content == provider.last.body
