"""Traces of calls that official SDKs make: whole and streamed, from each format to each provider."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from headgate.middlewares.trace import Trace

from ..fakes.collector import collecting
from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import KEY, FakeProvider
from ..fakes.script import Tokens, Use, script
from ..server.house import serving
from .talk import ANTHROPIC, CALLERS, MODELS, OPENAI, AnthropicTalk, OpenAITalk

RULES = """
server: {{anonymous: allow}}
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, chain: [{{retry: {{backoff: 1ms}}}}]}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY, chain: [{{retry: {{backoff: 1ms}}}}]}}
chains:
  base:
    - trace: {{endpoint: "{collector}"}}
    - auth: {{keys: [{{name: test, key: env:TEST_CALLER_KEY}}]}}
routes:
  - {{name: gpt, match: {{model: "gpt-*"}}, chain: base, to: openai}}
  - {{name: claude, match: {{model: "claude-*"}}, chain: base, to: anthropic}}
"""
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def client_of(caller: str, base: str, tls: ssl.SSLContext) -> Any:
    options: dict[str, Any] = {"api_key": CALLER_KEY, "max_retries": 0, "timeout": 10}
    options["default_headers"] = {"traceparent": PARENT}
    if caller == OPENAI:
        return openai.AsyncOpenAI(
            base_url=base + "/v1", http_client=openai.DefaultAsyncHttpxClient(verify=tls), **options
        )
    return anthropic.AsyncAnthropic(base_url=base, http_client=anthropic.DefaultAsyncHttpxClient(verify=tls), **options)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("to", MODELS)
@pytest.mark.parametrize("caller", CALLERS)
async def test_a_conversation_with_a_tool(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, caller: str, to: str, stream: bool
) -> None:
    tokens = Tokens(fresh=20, cached=10, output=8)
    provider.answer(
        script(status=529 if to == ANTHROPIC else 503),
        script(Use("look", '{"at": "sea"}'), tokens=tokens),
        script("Waves.", tokens=tokens),
    )
    async with collecting() as collector:
        rules = RULES.format(base=provider.base, collector=collector.base)
        async with serving(tmp_path, rules) as house, client_of(caller, house.base, tls) as client:
            talk = (OpenAITalk if caller == OPENAI else AnthropicTalk)(client, MODELS[to], stream)
            talk.tools("look")
            talk.say("What is there?")
            heard = await talk.hear()
            talk.give({heard.calls[0][0]: "waves"})
            assert (await talk.hear()).text == "Waves."
            await house.idle()
            (trace,) = [each for each in house.gateway.plan.members.values() if isinstance(each, Trace)]
            trace.outlet.flush()
            first, second = await collector.until(2)
    for call, reasons in ((first, ["tool_call"]), (second, ["stop"])):
        about = call.attributes
        assert (call.name, call.trace_id, call.parent_id) == (f"chat {MODELS[to]}", PARENT[3:35], PARENT[36:52])
        assert about["gen_ai.response.finish_reasons"] == reasons
        assert about["gen_ai.provider.name"] == to
        assert about["gen_ai.usage.input_tokens"] == 30
        assert about["gen_ai.usage.cache_read.input_tokens"] == 10
        assert about["gen_ai.usage.output_tokens"] == 8
        assert about["headgate.key"] == "test"
        assert call.happened[-1:] == (["headgate.first_token"] if stream else call.happened[-1:])
    attempts = [*collector.attempts(first), *collector.attempts(second)]
    assert [each.failed for each in attempts] == [True, False, False]
    told = [received.headers["traceparent"] for received in provider.requests]
    assert told == [f"00-{PARENT[3:35]}-{each.span_id}-01" for each in attempts]
    assert first.happened[0] == "headgate.retry"
    for body in collector.raw:
        assert KEY.encode() not in body and CALLER_KEY.encode() not in body
        assert b"Waves" not in body and b"sea" not in body
