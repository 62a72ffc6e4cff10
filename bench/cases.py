"""What is measured: kinds of traffic, the rules Headgate runs with, and which of the two meet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Per: TypeAlias = Literal["request", "chunk", "first"]
Provider: TypeAlias = Literal["http", "https"]
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
KEY = "bench-key-0123456789"
PROVIDER_KEY = "provider-key-0123456789"
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
FILLER = 'The quick brown fox jumps over the lazy dog; "quoted" words\n and a tab.\t' * 14

RULES = """
version: 1
upstreams:
  openai: {{adapter: openai, base_url: "{url}/v1", key: "env:BENCH_PROVIDER_KEY", {pool}}}
  anthropic: {{adapter: anthropic, base_url: "{url}", key: "env:BENCH_PROVIDER_KEY", {pool}}}
  openai-tls: {{adapter: openai, base_url: "{tls_url}/v1", key: "env:BENCH_PROVIDER_KEY", {tls_pool}}}
chains:
  auth: [{{auth: {{keys: [{{name: bench, key: "env:BENCH_KEY"}}]}}}}]
  full: [{{chain: auth}}, {{log: {{to: "{log}"}}}}]
routes:
  - {{name: pass, match: {{model: pass}}, chain: auth, to: openai}}
  - {{name: full, match: {{model: full}}, chain: full, to: openai}}
  - {{name: to-anthropic, match: {{model: to-anthropic}}, chain: full, to: anthropic}}
  - {{name: pass-tls, match: {{model: pass-tls}}, chain: auth, to: openai-tls}}
  - {{name: full-tls, match: {{model: full-tls}}, chain: full, to: openai-tls}}
"""


def rules(transport: str, port: int, tls_port: int, authority: Path | None, log: Path) -> str:
    """Return the text of a rule file: every upstream by ``transport``, the provider at ``port`` and, with TLS and a
    certificate of ``authority``, at ``tls_port``."""
    bundle = f'ca_bundle: "{authority}"' if authority else ""
    return RULES.format(
        url=f"http://127.0.0.1:{port}",
        tls_url=f"https://127.0.0.1:{tls_port}",
        pool=f"transport: {transport}, pool: {{max_connections: 2000}}",
        tls_pool=f"transport: {transport}, pool: {{max_connections: 2000, {bundle}}}",
        log=log,
    )


@dataclass(frozen=True)
class Load:
    """A kind of traffic, and what is counted of it: CPU per request, CPU per chunk, or time to the first chunk.

    With ``crowd`` every connection asks for one stream that lasts for most of the time, and they begin one after the
    other over the first part of it, so that their chunks do not come in step.
    """

    per: Per
    connections: int = 16
    chunks: int = 0
    pace_ms: int = 0
    prompt_kb: int = 0
    crowd: bool = False

    def order(self, model: str, format: str, port: int, seconds: float) -> dict[str, object]:
        """Return the order for the load generator."""
        turns = [
            {"role": "assistant" if at % 2 else "user", "content": f"{at} {FILLER}"} for at in range(self.prompt_kb)
        ]
        chunks = max(3, round(3 * seconds * 1000 / self.pace_ms)) if self.crowd else self.chunks
        turns.append({"role": "user", "content": f"bench chunks={chunks} pace={self.pace_ms}"})
        body = {"model": model, "max_tokens": 1000, "stream": chunks > 0, "messages": turns}
        return {
            "port": port,
            "path": PATHS[format],
            "body": json.dumps(body),
            "headers": {"Authorization": f"Bearer {KEY}"},
            "connections": self.connections,
            "seconds": 0 if self.crowd else seconds,
            "stream": chunks > 0,
            "chunks": chunks,
            "pace_ms": self.pace_ms,
            "ramp_s": min(1.0, seconds) if self.crowd else 0,
        }


LOADS = {
    "request, c=1": Load("request", connections=1),
    "request, c=16": Load("request"),
    "request, c=64": Load("request", connections=64),
    "request, 50 KB": Load("request", prompt_kb=50),
    "burst": Load("chunk", chunks=200),
    "paced": Load("chunk", chunks=100, pace_ms=5),
    "500 paced": Load("chunk", connections=500, pace_ms=50, crowd=True),
    "first chunk": Load("first", connections=1, chunks=1),
}
WARM_UP = LOADS["burst"]
ENDLESS = Load("chunk", connections=16, chunks=200_000)
"""Some 50 MB: more than any buffer between a provider and a client that does not read."""


@dataclass(frozen=True)
class Case:
    """A load, and what Headgate does with it. ``provider``: ``http``, or ``https`` for the one with TLS."""

    load: str
    chain: str
    model: str
    format: str = "openai"
    provider: Provider = "http"

    @property
    def name(self) -> str:
        """All that says which case it is."""
        return f"{self.load} {self.provider} {self.chain}"


TO_OPENAI = "auth, log; anthropic to openai"
TO_ANTHROPIC = "auth, log; openai to anthropic"
CASES = (
    Case("request, c=16", "auth", "pass"),
    Case("request, c=16", "auth, log", "full"),
    Case("request, c=16", TO_OPENAI, "full", "anthropic"),
    Case("request, c=16", TO_ANTHROPIC, "to-anthropic"),
    Case("request, c=1", "auth, log", "full"),
    Case("request, c=64", "auth, log", "full"),
    Case("request, 50 KB", "auth, log", "full"),
    Case("request, 50 KB", TO_OPENAI, "full", "anthropic"),
    Case("burst", "auth, log", "full"),
    Case("burst", TO_OPENAI, "full", "anthropic"),
    Case("paced", "auth, log", "full"),
    Case("paced", TO_OPENAI, "full", "anthropic"),
    Case("500 paced", "auth, log", "full"),
    Case("500 paced", TO_OPENAI, "full", "anthropic"),
    Case("first chunk", "auth, log", "full"),
    Case("first chunk", TO_OPENAI, "full", "anthropic"),
    Case("request, c=16", "auth", "pass-tls", provider="https"),
    Case("request, c=16", "auth, log", "full-tls", provider="https"),
    Case("request, c=16", TO_OPENAI, "full-tls", "anthropic", provider="https"),
    Case("paced", "auth, log", "full-tls", provider="https"),
    Case("paced", TO_OPENAI, "full-tls", "anthropic", provider="https"),
)
