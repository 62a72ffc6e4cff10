"""A planted secret reaches no provider, log, error, body file or store: over real sockets, the whole chain, both directions.

HEADGATE_EXAMPLES says how many requests are made up; ``make fuzz-secrets`` asks for 10,000.
"""

from __future__ import annotations

import json
import logging
import os
import random
import string
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from ..fakes.collector import Collector, collecting
from ..fakes.provider import FakeProvider
from ..fakes.script import Say, Script, Use, script
from ..server.house import CHAT, House, serving

ASKED: Final = int(os.environ.get("HEADGATE_EXAMPLES") or 150)
SEED: Final = random.randrange(2**32) if "HEADGATE_EXAMPLES" in os.environ else 6
RULES: Final = """
server: {{anonymous: allow}}
stores: {{disk: {{kind: sqlite, path: state.db}}}}
defaults: {{responses: {{store: disk}}, reasoning: {{store: disk}}}}
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
chains:
  log: [log: {{to: "{directory}/access.jsonl", bodies: redacted, bodies_in: bodies}}]
  redact: [redact: {{restore: true, words: [Project Falcon]}}]
  rest: [cache: {{store: disk}}, retry: {{tries: 2, backoff: 1ms}}]
  around: [trace: {{endpoint: "{collector}"}}, {{chain: log}}, {{chain: redact}}, {{chain: rest}}]
  within: [{{chain: log}}, {{chain: redact}}, trace: {{endpoint: "{collector}", content: true}}, {{chain: rest}}]
routes:
  - {{name: claude, match: {{model: "claude-*"}}, chain: around, to: anthropic}}
  - {{name: gpt, chain: within, to: openai}}
"""
_TOKEN: Final = string.ascii_letters + string.digits
_SHAPES: Final = (
    "sk-{32}",
    "sk-ant-api03-{40}",
    "ghp_{36}",
    "hf_{34}",
    "gsk_{40}",
    "xoxb-{24}",
    "AIza{35}",
    "glpat-{20}",
    "mail",
)


def planted(dice: random.Random) -> str:
    """A secret that nobody made up before."""

    def token(count: int) -> str:
        return "".join(dice.choices(_TOKEN, k=count))

    kind = dice.randrange(len(_SHAPES) + 4)
    if kind < len(_SHAPES) - 1:
        head, _, count = _SHAPES[kind].rstrip("}").partition("{")
        return head + token(int(count))
    if kind == len(_SHAPES) - 1:
        return f"{token(9).lower()}@{token(8).lower()}.example"
    if kind == len(_SHAPES):
        return f"eyJ{token(16)}.{token(24)}.{token(30)}"
    if kind == len(_SHAPES) + 1:
        return "AKIA" + "".join(dice.choices(string.ascii_uppercase + string.digits, k=16))
    if kind == len(_SHAPES) + 2:
        return f"-----BEGIN PRIVATE KEY-----\n{token(64)}\n{token(30)}==\n-----END PRIVATE KEY-----"
    digits = "4" + "".join(dice.choices(string.digits, k=14))
    return next(digits + last for last in string.digits if _luhn(digits + last))


def _luhn(digits: str) -> bool:
    doubled = [int(each) * (2 if at % 2 else 1) for at, each in enumerate(reversed(digits))]
    return sum(each - 9 if each > 9 else each for each in doubled) % 10 == 0


def cut(dice: random.Random, text: str, most: int) -> list[str]:
    """``text`` in up to ``most`` pieces."""
    places = sorted(dice.sample(range(1, len(text)), min(len(text) - 1, dice.randrange(most))))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def request_of(dice: random.Random, secret: str, stream: bool) -> tuple[str, dict[str, Any]]:
    """A path and a body with the secret somewhere: in one piece, or over the parts of a message."""
    filler = " ".join(
        dice.choices(["so", "the", "key", "é", "<EMAIL_7>", "100%", '"quoted"', "a\\b"], k=dice.randrange(6))
    )
    text = f"{filler}\n{secret}\n{filler}"
    # Half an address is one, too: what is cut there is taken for it.
    pieces = [text] if "@" in secret else cut(dice, text, 4)
    parts = [{"type": "text", "text": piece} for piece in pieces]
    where = dice.choice(["text", "parts", "tool", "result", "system", "user"])
    messages: list[dict[str, Any]] = [{"role": "user", "content": text if where == "text" else "Hello."}]
    model = dice.choice(["gpt-4o", "claude-fake-4-5"])
    body: dict[str, Any] = {"model": model, "stream": stream, "max_tokens": 50}
    path = dice.choice([CHAT, "/v1/responses"])
    if path != CHAT:
        kept = text if where != "parts" else [{"type": "input_text", "text": part["text"]} for part in parts]
        del body["max_tokens"]
        return path, body | {"input": [{"role": "user", "content": kept}]}
    if where == "parts":
        messages[0]["content"] = parts
    elif where == "system":
        messages.insert(0, {"role": "system", "content": text})
    elif where == "user":
        messages[0]["content"] = text
        body["user"] = secret
    elif where in ("tool", "result"):
        given = json.dumps({"to": text if where == "tool" else "x"})
        use = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": given}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [use]})
        messages.append({"role": "tool", "tool_call_id": "call_1", "content": text if where == "result" else "ok"})
    return path, body | {"messages": messages}


def told(dice: random.Random) -> Script:
    """What the provider says: a placeholder in words and arguments, cut anywhere; or that something is wrong."""
    if dice.random() < 0.1:
        return script(status=400, error_message="No such thing: <SECRET_1> <EMAIL_1>")
    said = "It is <SECRET_1>, <EMAIL_1> or <CARD_1>."
    use = Use("f", '{"to": "<SECRET_1><EMAIL_1><CARD_1>"}', pieces=dice.randrange(1, 30))
    parts = (Say(said, pieces=dice.randrange(1, len(said))), *([use] if dice.random() < 0.5 else []))
    return Script(parts, piece=dice.choice([None, 0, dice.randrange(1, 50)]))


def rules(provider: FakeProvider, directory: Path, collector: Collector) -> str:
    return RULES.format(base=provider.base, directory=directory, collector=collector.base)


def spellings(secret: str) -> list[bytes]:
    """How bytes would hold it; of a longer one its middle, too."""
    escaped = json.dumps(secret)[1:-1]
    long = max(secret.split("\n"), key=len)
    return [each.encode() for each in {secret, escaped, json.dumps(escaped)[1:-1], long}]


async def ask(http: aiohttp.ClientSession, house: House, dice: random.Random, secret: str) -> None:
    path, body = request_of(dice, secret, dice.random() < 0.6)
    data = json.dumps(body, ensure_ascii=dice.random() < 0.5)
    response = await http.post(house.base + path, data=data, headers={"content-type": "application/json"})
    heard = await response.read()
    assert response.status in (200, 400), heard
    if response.status == 200 and not body["stream"]:
        assert any(each in heard for each in spellings(secret)), f"{body} {heard!r}"


async def test_a_planted_secret_goes_nowhere(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    dice = random.Random(SEED)
    secrets: list[str] = []
    async with collecting() as collector, serving(tmp_path, rules(provider, tmp_path, collector)) as house:
        for _ in range(ASKED):
            secret = planted(dice)
            secrets.append(secret)
            before = len(provider.requests)
            provider.answer(told(dice))
            await ask(http, house, dice, secret)
            if len(provider.requests) == before:  # out of the cache: a placeholder hides what differs
                provider._queue.clear()
            assert provider.refusals == []
            for received in provider.requests:
                shown = json.dumps([received.json, dict(received.headers)], ensure_ascii=False).encode()
                assert not [each for each in spellings(secret) if each in shown], (SEED, secret)
            provider.requests.clear()
            caplog_text = caplog.text.encode()
            assert not [each for each in spellings(secret) if each in caplog_text], (SEED, secret)
            caplog.clear()
    spans = [repr(span) for span in collector.spans]
    assert any("<SECRET_1>" in span for span in spans) and any("redact" in span for span in spans)
    spans_text = "".join(spans).encode() + b"".join(collector.raw)
    for secret in secrets:
        assert not [each for each in spellings(secret) if each in spans_text], (SEED, secret)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "routes.yaml"]
    assert {path.suffix for path in files} >= {".jsonl", ".db"} and len(files) >= 3
    for path in files:
        data = path.read_bytes()
        assert len(data) > 1000, path
        for secret in secrets:
            assert not [each for each in spellings(secret) if each in data], (SEED, path.name, secret)
