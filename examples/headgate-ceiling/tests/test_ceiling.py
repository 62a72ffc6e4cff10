"""Ceiling, in a gateway without a socket, before an adapter that keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from headgate import AdapterContext, Call, Gateway, Reply
from headgate.gateway import registry, rules
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.errors import CallerError
from headgate.gateway.ir.event import Chunk
from headgate.gateway.ir.message import Request
from msgspec import Struct

ASKED: list[tuple[Request, bool]] = []


class Keeping:
    """The end of the chain. It keeps each request, and whether it came byte for byte as the caller sent it."""

    class Options(Struct, frozen=True):
        """None."""

    def __init__(self, options: Options, context: AdapterContext) -> None:
        pass

    async def __call__(self, call: Call, /) -> Reply:
        ASKED.append((call.request, call.body is not None))
        return Reply.whole(Chunk(()), call.scope)


RULES = """
version: 1
upstreams: {here: {adapter: "%s:Keeping"}}
routes:
  - {name: all, chain: [{use: "headgate_ceiling:Ceiling", with: %s}], to: here}
"""


def asked(tmp_path: Path, options: dict[str, Any], said: dict[str, Any], format: str = "openai.chat") -> Request:
    """Return what the provider would be asked for."""
    file = tmp_path / "routes.yaml"
    file.write_text(RULES % (__name__, json.dumps(options)))
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **said}

    async def ask() -> None:
        async with Gateway.load(file) as gateway:
            await (await gateway.handle(format, json.dumps(body).encode())).collect()

    ASKED.clear()
    asyncio.run(ask())
    ((request, untouched),) = ASKED
    assert request.messages[0].parts[0].text == "Hello"  # type: ignore[union-attr]
    assert untouched == (request == _plain(format, body))
    return request


def _plain(format: str, body: dict[str, Any]) -> Request:
    return registry.codec(format).decode_request(json.dumps(body).encode(), RequestFacts("/", {}, {}))


CAP: dict[str, Any] = {"max_output_tokens": 100}
LOWERED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (CAP, {"max_tokens": 500}, {"max_output_tokens": 100}),
    (CAP, {"max_tokens": 100}, {"max_output_tokens": 100}),
    (CAP, {"max_tokens": 7}, {"max_output_tokens": 7}),
    (CAP, {}, {"max_output_tokens": 100}),
    ({"max_choices": 2}, {"n": 8}, {"n": 2, "max_output_tokens": None}),
    ({"max_choices": 2}, {}, {"n": None}),
    ({"temperature": 0}, {"temperature": 1.5}, {"temperature": 0}),
    ({"temperature": 0.2}, {}, {"temperature": 0.2}),
    (
        {"without": ["seed", "stop", "user"]},
        {"seed": 3, "stop": ["x"], "user": "u"},
        {"seed": None, "stop": (), "user": None},
    ),
    ({"without": ["seed"]}, {}, {"seed": None}),
]


@pytest.mark.parametrize(("options", "said", "want"), LOWERED)
def test_what_goes_on(tmp_path: Path, options: dict[str, Any], said: dict[str, Any], want: dict[str, Any]) -> None:
    request = asked(tmp_path, options, said)
    assert {name: getattr(request, name) for name in want} == want


def test_every_format_has_the_same_ceiling(tmp_path: Path) -> None:
    assert asked(tmp_path, CAP, {"max_tokens": 500}, "anthropic.messages").max_output_tokens == 100
    assert asked(tmp_path, CAP, {"options": {"num_predict": 500}}, "ollama.chat").max_output_tokens == 100


def test_more_may_be_refused(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="max_output_tokens is 500, and at most 100 here"):
        asked(tmp_path, {**CAP, "above": "refuse"}, {"max_tokens": 500})
    assert asked(tmp_path, {**CAP, "above": "refuse"}, {"max_tokens": 50}).max_output_tokens == 50


NONSENSE: list[dict[str, Any]] = [
    {},
    {"above": "refuse"},
    {"max_output_tokens": 0},
    {"temperature": 3},
    {"without": ["model"]},
    {"temperature": 1, "without": ["temperature"]},
    {"max_tokens": 5},
]


@pytest.mark.parametrize("options", NONSENSE)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, Any]) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(RULES % (__name__, json.dumps(options)))
    errors = [each for each in rules.check(file) if each.severity == "error"]
    assert errors
    assert all(each.line == 5 for each in errors)
