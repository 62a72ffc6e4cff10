"""What an adapter says it would send is what it sends: to a transport that writes it down."""

import asyncio
import json

import pytest
from headgate.gateway import registry, rules
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.errors import GatewayError, UpstreamError
from headgate.gateway.rules.explain import explain
from headgate.gateway.rules.given import pose_bytes
from headgate.gateway.server.gateway import Gateway
from msgspec.structs import replace

RULES = """
version: 1
upstreams:
  openai: {adapter: openai, key: env:TEST_KEY, headers: {x-title: ours}}
  anthropic: {adapter: anthropic, key: env:TEST_KEY, max_output_tokens: 77}
  passing: {adapter: anthropic, base_url: "http://127.0.0.1:9", credential: pass-through}
chains: {base: [log]}
targets:
  both: {select: [{match: {model: a-*}, use: anthropic/big}, {use: openai}]}
routes:
  - {name: strict, match: {header.x-strict: "1"}, to: openai, loss: refuse}
  - {name: passing, match: {header.x-to: passing}, to: passing}
  - {name: openai, match: {header.x-to: openai}, chain: base, to: openai/renamed}
  - {name: anthropic, match: {header.x-to: anthropic}, to: anthropic}
  - {name: both, chain: base, to: both}
"""
MESSAGES = [{"role": "user", "content": "Hello"}]
OPENAI = {"model": "m", "messages": MESSAGES}
ANTHROPIC = {"model": "m", "max_tokens": 9, "top_k": 3, "messages": MESSAGES}


class Notebook:
    """A transport that writes down what it is asked to send."""

    def __init__(self):
        self.sent = None

    async def submit(self, head, body, deadlines, scope):
        self.sent = (head.method, head.url, {**(getattr(head.standing, "headers", None) or {}), **head.headers}, body)
        raise UpstreamError("not today", kind="connect")

    async def aclose(self):
        pass


async def sent_by(format, body, facts):
    """Return what a live call sends, or its error when it sends nothing."""
    notebook = Notebook()
    async with Gateway(rules.loads(RULES)) as gateway:
        scope, plan = gateway.open_scope()
        for upstream in plan.upstreams.values():
            upstream.adapter.context = replace(upstream.adapter.context, transport=notebook)
        try:
            call, route = gateway.prepare(
                plan, registry.codec(format), body, facts, scope, "req_explain", scope.loop.time()
            )
            await route.entry(call)
        except GatewayError as error:
            return notebook.sent or error.message
        finally:
            scope.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("format", ["openai.chat", "anthropic.messages"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-to": "openai"},
        {"x-to": "anthropic", "anthropic-version": "2024-01-01", "anthropic-beta": "b", "x-title": "theirs"},
        {"x-to": "passing", "x-api-key": "callers"},
        {"x-to": "passing", "authorization": "Bearer sk-ant-oat-callers"},
        {"x-to": "passing", "authorization": "Basic callers"},
        {"x-strict": "1", "cookie": "no", "traceparent": "t"},
    ],
    ids=lambda headers: "-".join(headers.values()) or "none",
)
@pytest.mark.parametrize("model", ["m", "a-1"])
def test_preview_is_what_is_sent(monkeypatch, stream, format, headers, model):
    monkeypatch.setenv("TEST_KEY", "providers-key")
    asked = {**(OPENAI if format == "openai.chat" else ANTHROPIC), "model": model, "stream": stream}
    body = json.dumps(asked).encode()
    facts = RequestFacts("/v1/x", {"beta": "true", "key": "callers"}, headers)
    live = asyncio.run(sent_by(format, body, facts))
    told = explain(rules.loads(RULES), pose_bytes(registry.codec(format), body, facts)).outgoing
    if isinstance(live, str):
        assert told.preview is None
        assert told.refusal.message == live
        return
    preview = told.preview
    assert (preview.method, preview.url, dict(preview.headers), preview.body) == live
    secret = {name for name, value in preview.headers.items() if "providers-key" in value or "callers" in value}
    assert secret == preview.secret_headers
    assert "callers" not in repr(preview) + preview.url


def test_only_what_would_be_lost_is_refused(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "k")
    plan = rules.loads(RULES)
    facts = RequestFacts("", {}, {"x-strict": "1"})
    told = explain(plan, pose_bytes(registry.codec("anthropic.messages"), json.dumps(ANTHROPIC).encode(), facts))
    assert told.outgoing.refusal.kind == "unsupported"
    assert [loss.path for loss in told.outgoing.losses] == ["top_k"]
    kept = {name: value for name, value in ANTHROPIC.items() if name != "top_k"}
    told = explain(plan, pose_bytes(registry.codec("anthropic.messages"), json.dumps(kept).encode(), facts))
    assert told.outgoing.refusal is None
