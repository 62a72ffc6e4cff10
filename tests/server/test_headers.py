"""What the headers of an answer say of its call: the upstream once something was sent there, never before."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from .house import CHAT, body_of, head_of, serving, wire

RULES = """
upstreams:
  sim: {adapter: simulator}
  busy: {adapter: simulator, script: ["error 429"]}
chains:
  base: [{auth: {keys: [{name: ada, key: env:TEST_CALLER_KEY}]}}, log]
targets:
  some: {select: [{match: {request.tools: true}, use: sim}]}
  either: {select: [use: busy], on_failure: [{kinds: [rate_limit], use: sim}]}
routes:
  - {name: some, match: {model: some}, chain: base, to: some}
  - {name: either, match: {model: either}, chain: base, to: either}
  - {name: busy, match: {model: busy}, chain: base, to: busy}
  - {name: rest, chain: base, to: sim}
"""
CALLER = {"authorization": "Bearer sk-the-callers-key-at-the-gateway"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("model", "headers", "status", "route", "upstream", "attempts"),
    [
        ("m", CALLER, 200, "rest", "sim", "1"),
        ("either", CALLER, 200, "either", "sim", "2"),
        ("busy", CALLER, 429, "busy", "busy", "1"),
        ("some", CALLER, 404, "some", None, None),
        ("m", {}, 401, "rest", None, None),
        ("either", {"authorization": "Bearer wrong"}, 401, "either", None, None),
    ],
)
async def test_an_upstream_is_named_once_it_was_tried(
    tmp_path: Path,
    http: aiohttp.ClientSession,
    model: str,
    headers: dict[str, str],
    status: int,
    route: str,
    upstream: str | None,
    attempts: str | None,
    stream: bool,
) -> None:
    async with serving(tmp_path, RULES) as house:
        body = body_of(model=model, stream=stream)
        given = {"content-type": "application/json", **headers}
        async with http.post(house.base + CHAT, data=body, headers=given) as answer:
            await answer.read()
        assert answer.status == status
        assert answer.headers["headgate-route"] == route
        assert answer.headers.get("headgate-upstream") == upstream
        assert answer.headers.get("headgate-attempts") == attempts


async def test_headers_that_a_keep_alive_sends_say_what_is_known_by_then(
    tmp_path: Path, provider: FakeProvider
) -> None:
    provider.answer(script("Late.", wait_s=0.3))
    rules = f"""
        server: {{keep_alive: 50ms}}
        upstreams: {{openai: {{adapter: openai, base_url: "{provider.base}/v1", key: env:TEST_PROVIDER_KEY}}}}
        routes: [{{name: all, to: openai}}]
    """
    async with serving(tmp_path, rules) as house, wire(house) as client:
        house.gateway.clock.tick_s = 0.02
        body = body_of(stream=True)
        client.send(head_of(house, len(body)) + body)
        status, headers = await client.head()
        assert (status, provider.last.outcome) == (200, "running")
        assert (headers["headgate-upstream"], headers["headgate-attempts"]) == ("openai", "1")
        await client.pieces()


HIDDEN = "server: {response_headers: [x-request-id, headgate-cache]}\n"


async def test_what_one_gateway_hides_another_shows(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    for number, rules in enumerate((RULES, HIDDEN + RULES, RULES)):
        (place := tmp_path / str(number)).mkdir()
        async with serving(place, rules) as house:
            given = {"content-type": "application/json", **CALLER}
            async with http.post(house.base + CHAT, data=body_of(model="m"), headers=given) as answer:
                await answer.read()
            ours = {name.lower() for name in answer.headers if name.lower().startswith(("headgate-", "x-request"))}
            shown = {"headgate-route", "headgate-upstream", "headgate-attempts"}
            assert ours == (shown if rules is not RULES else {*shown, "x-request-id"})
