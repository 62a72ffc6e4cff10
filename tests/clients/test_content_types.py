"""Bodies whose type is not said, or is said to be something else: what clients send, and no web page can unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import FakeProvider
from ..fakes.script import script
from .test_formats import served

KEY: Final = {"authorization": f"Bearer {CALLER_KEY}"}
FORM: Final = "application/x-www-form-urlencoded"
BODIES: Final[dict[str, str]] = {
    "/api/chat": '{"model": "openai.chat", "stream": false, "messages": [{"role": "user", "content": "Hi"}]}',
    "/api/generate": '{"model": "openai.chat", "stream": false, "prompt": "Hi"}',
    "/v1/chat/completions": '{"model": "openai.chat", "messages": [{"role": "user", "content": "Hi"}]}',
    "/v1/messages": '{"model": "openai.chat", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}',
}
OLLAMA: Final = ["/api/chat", "/api/generate"]


async def post(base: str, path: str, headers: dict[str, str]) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        return await http.post(base + path, content=BODIES[path].encode(), headers={**KEY, **headers})


@pytest.mark.parametrize("mounted", [False, True], ids=["standalone", "mounted"])
@pytest.mark.parametrize("path", OLLAMA)
async def test_ollamas_own_examples_are_served(
    provider: FakeProvider, tmp_path: Path, path: str, mounted: bool
) -> None:
    """``curl http://localhost:11434/api/chat -d '{…}'``, as its documentation has it: curl says that it is a form."""
    provider.answer(script("Hello!"))
    async with served(provider, tmp_path, mounted=mounted) as base:
        answer = await post(base, path, {"content-type": FORM})
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    assert (told["message"]["content"] if path == "/api/chat" else told["response"]) == "Hello!"


async def test_a_model_is_shown_to_curl(provider: FakeProvider, tmp_path: Path) -> None:
    async with served(provider, tmp_path) as base, httpx.AsyncClient() as http:
        headers = {**KEY, "content-type": FORM}
        answer = await http.post(f"{base}/api/show", content=b'{"model": "own"}', headers=headers)
    assert answer.status_code in (200, 404)


@pytest.mark.parametrize("path", BODIES)
async def test_bytes_of_an_unknown_kind_are_read(provider: FakeProvider, tmp_path: Path, path: str) -> None:
    """What aiohttp's client says of text that it is handed as ``data``."""
    provider.answer(script("Hello!"))
    async with served(provider, tmp_path) as base:
        answer = await post(base, path, {"content-type": "application/octet-stream"})
    assert answer.status_code == 200


@pytest.mark.parametrize("said", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}])
@pytest.mark.parametrize("media_type", [FORM, "text/plain", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", BODIES)
async def test_a_web_page_is_not_read(
    provider: FakeProvider, tmp_path: Path, path: str, media_type: str, said: dict[str, str]
) -> None:
    async with served(provider, tmp_path) as base:
        answer = await post(base, path, {"content-type": media_type, **said})
    assert answer.status_code == 415
    assert not provider.requests


@pytest.mark.parametrize("media_type", ["text/plain", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", OLLAMA)
async def test_other_types_are_not_read(provider: FakeProvider, tmp_path: Path, path: str, media_type: str) -> None:
    async with served(provider, tmp_path) as base:
        answer = await post(base, path, {"content-type": media_type})
    assert answer.status_code == 415
