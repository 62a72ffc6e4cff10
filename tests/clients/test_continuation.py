"""An answer that breaks off, as the official SDKs of every conversation's format read it: once, to its end."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import pytest

from ..fakes.provider import FakeProvider
from ..fakes.script import Say, Tokens, Use, script
from ..server.house import serving
from .voices import CALLERS

RULES: Final = """
    server: {{anonymous: allow}}
    upstreams:
      openai.chat: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
      openai.responses: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, formats: [openai.responses]}}
      anthropic.messages: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
      gemini: {{adapter: gemini, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
      ollama.chat: {{adapter: ollama, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
    chains:
      main: [log, continue]
    routes:
      - {{name: chat, match: {{model: openai.chat}}, chain: main, to: openai.chat}}
      - {{name: responses, match: {{model: openai.responses}}, chain: main, to: openai.responses}}
      - {{name: messages, match: {{model: anthropic.messages}}, chain: main, to: anthropic.messages}}
      - {{name: gemini, match: {{model: gemini}}, chain: main, to: gemini}}
      - {{name: ollama, match: {{model: ollama.chat}}, chain: main, to: ollama.chat}}
"""
END: Final = {
    "openai.chat": "stop",
    "openai.responses": "completed",
    "anthropic.messages": "end_turn",
    "gemini": "STOP",
    "ollama.chat": "stop",
}
WORDS: Final = "Grüße 👋 from the other side, which goes on for some time."
stream = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
caller = pytest.mark.parametrize("caller", END)
to = pytest.mark.parametrize("to", ["openai.chat", "anthropic.messages", "gemini"])


@stream
@to
@caller
async def test_two_seams(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caller: str, to: str, stream: bool
) -> None:
    tokens = Tokens(fresh=12, output=7)
    provider.answer(
        script(WORDS[:7], stop="length", tokens=tokens),
        script(WORDS[7:40], stop="length", tokens=tokens),
        script(WORDS[20:], tokens=tokens),  # twenty characters of it once more
    )
    async with serving(tmp_path, RULES.format(base=provider.base)) as house:
        heard = await CALLERS[caller](house.base, to, stream, False, tls)
    assert (heard.text, heard.stop, heard.tokens) == (WORDS, END[caller], (36, 21))


@pytest.mark.parametrize("to", ["openai.chat", "anthropic.messages"])
@pytest.mark.parametrize("caller", ["openai.chat", "anthropic.messages"])
async def test_a_cut_stream(provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caller: str, to: str) -> None:
    provider.answer(script(Say(WORDS, 8), cut_after=6), script("Hello!"))
    async with serving(tmp_path, RULES.format(base=provider.base)) as house:
        heard = await CALLERS[caller](house.base, to, True, False, tls)
    assert (heard.text[:7], heard.text[-6:], heard.stop) == (WORDS[:7], "Hello!", END[caller])
    assert len(provider.requests) == 2


@pytest.mark.parametrize(("caller", "stream"), [("openai.chat", False), ("anthropic.messages", True)])
async def test_a_tool_call_that_broke_off_is_not_resumed(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caller: str, stream: bool
) -> None:
    provider.answer(script("Let me look.", Use("look", '{"at": "sea"}'), stop="length"))
    async with serving(tmp_path, RULES.format(base=provider.base)) as house:
        heard = await CALLERS[caller](house.base, "anthropic.messages", stream, True, tls)
    assert heard.stop == {"openai.chat": "length", "anthropic.messages": "max_tokens"}[caller]
    assert len(provider.requests) == 1
