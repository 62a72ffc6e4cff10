"""A Headgate on an ephemeral port, between test clients and a FakeProvider: standalone-like, or mounted in a host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from aiohttp import web
from headgate.gateway.server.gateway import Gateway
from headgate.gateway.server.handlers import make_server

from .provider import KEY, FakeProvider

Mode = Literal["standalone", "mounted"]
CALLER_KEY: Final = "sk-the-callers-key-at-the-gateway"
ENVIRONMENT: Final = {
    "TEST_PROVIDER_KEY": KEY,
    "TEST_WRONG_KEY": "sk-a-key-nobody-knows",
    "TEST_CALLER_KEY": CALLER_KEY,
}

# Models choose their upstream by prefix. Names in x-: the same through a chain that watches usage and may retry, so that
# the commit waits for content; renamed-: another model name at the provider; badkey-: a key that the provider refuses;
# gone-: nobody listens there.
RULES: Final = """
version: 1
server: {anonymous: allow, max_body: %(max_body)s, max_header: 16KiB, keep_alive: %(keep_alive)s}
defaults: {timeout: {connect: 2s, first_token: %(first_token)s, idle: %(idle)s, total: %(total)s}}
upstreams:
  openai: {adapter: openai, base_url: "%(base)s/v1", key: env:TEST_PROVIDER_KEY, models: [gpt-listed]}
  anthropic: {adapter: anthropic, base_url: "%(base)s", key: env:TEST_PROVIDER_KEY, models: [claude-listed]}
  openai-retried: {adapter: openai, base_url: "%(base)s/v1", key: env:TEST_PROVIDER_KEY, chain: again}
  anthropic-retried: {adapter: anthropic, base_url: "%(base)s", key: env:TEST_PROVIDER_KEY, chain: again}
  openai-badkey: {adapter: openai, base_url: "%(base)s/v1", key: env:TEST_WRONG_KEY}
  anthropic-badkey: {adapter: anthropic, base_url: "%(base)s", key: env:TEST_WRONG_KEY}
  openai-gone: {adapter: openai, base_url: "http://127.0.0.1:9/v1", key: env:TEST_PROVIDER_KEY}
chains:
  base: [{auth: {keys: [{name: test, key: env:TEST_CALLER_KEY}]}}]
  watched: [{chain: base}, log]
  again: [{retry: {tries: 2, backoff: 10ms}}]
routes:
  - {name: gpt-x, match: {model: "x-gpt-*"}, chain: watched, to: openai-retried/gpt-x}
  - {name: claude-x, match: {model: "x-claude-*"}, chain: watched, to: anthropic-retried/claude-fake-4-5}
  - {name: gpt-renamed, match: {model: renamed-gpt}, chain: base, to: openai/gpt-other}
  - {name: claude-renamed, match: {model: renamed-claude}, chain: base, to: anthropic/claude-fake-4-5}
  - {name: gpt-badkey, match: {model: badkey-gpt}, chain: base, to: openai-badkey}
  - {name: claude-badkey, match: {model: badkey-claude}, chain: base, to: anthropic-badkey}
  - {name: gone, match: {model: gone-gpt}, chain: base, to: openai-gone}
  - {name: gpt, match: {model: "gpt-*"}, chain: base, to: openai}
  - {name: claude, match: {model: "claude-*"}, chain: base, to: anthropic}
"""


@dataclass(frozen=True)
class Served:
    """A gateway that listens. ``base`` is spelled without ``/v1``."""

    base: str
    gateway: Gateway
    mode: Mode
    runner: web.AppRunner

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.runner.addresses[0][1])


@asynccontextmanager
async def serving(
    provider: FakeProvider,
    directory: Path,
    mode: Mode = "standalone",
    *,
    max_body: str = "8MiB",
    keep_alive: str = "15s",
    first_token: str = "10s",
    idle: str = "10s",
    total: str = "20s",
) -> AsyncIterator[Served]:
    """Serve RULES in front of ``provider``. The environment must hold ENVIRONMENT."""
    path = directory / "routes.yaml"
    path.write_text(
        RULES
        % {
            "base": provider.base,
            "max_body": max_body,
            "keep_alive": keep_alive,
            "first_token": first_token,
            "idle": idle,
            "total": total,
        }
    )
    gateway = Gateway.load(path)
    runner: web.BaseRunner
    if mode == "standalone":
        await gateway.start()
        runner = web.ServerRunner(make_server(gateway), shutdown_timeout=0.1)
        prefix = ""
    else:
        app = web.Application()
        gateway.mount(app, "/llm")
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        prefix = "/llm"
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Served(f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}", gateway, mode, runner)
    finally:
        await runner.cleanup()
        await gateway.aclose()
