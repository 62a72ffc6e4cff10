"""Health and readiness, as probes of an orchestrator read them."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import msgspec
import pytest
from headgate.gateway.server.gateway import Health
from headgate.gateway.server.generation import Reloads
from headgate.gateway.version import VERSION

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from .house import CHAT, body_of, head_of, serving, wire

RULES = """
upstreams:
  here: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
  gone: {{adapter: openai, key: "env:TEST_UNSET_KEY?"}}
routes:
  - {{name: gone, match: {{model: gone}}, to: gone}}
  - {{name: all, to: here}}
"""


async def _health(http: aiohttp.ClientSession, base: str) -> Health:
    response = await http.get(base + "/healthz")
    assert response.status == 200
    return msgspec.json.decode(await response.read(), type=Health)


async def test_health(
    tmp_path: Path, http: aiohttp.ClientSession, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_UNSET_KEY", raising=False)
    provider.answer(script("x", stall_after=2))
    async with serving(tmp_path, RULES.format(base=provider.base)) as house, wire(house) as client:
        health = await _health(http, house.base)
        assert (health.status, health.version, health.routes, health.in_flight) == ("ok", VERSION, 2, 0)
        assert health.loaded_at == house.gateway.loaded_at
        assert health.upstreams["here"] == "on"
        assert "TEST_UNSET_KEY" in health.upstreams["gone"]
        assert (health.generation, health.reloads) == (1, Reloads())
        body = body_of(stream=True)
        client.send(head_of(house, len(body)) + body)
        await client.head()
        assert (await _health(http, house.base)).in_flight == 1
        client.leave()
        await house.idle()
        assert (await _health(http, house.base)).in_flight == 0


async def test_readiness(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serving(tmp_path) as house:
        for draining, status in ((False, 200), (True, 503)):
            house.gateway.draining = draining
            response = await http.get(house.base + "/readyz")
            assert (response.status, await response.json()) == (status, {"ready": not draining})
            assert (await _health(http, house.base)).status == ("draining" if draining else "ok")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_while_draining_a_connection_serves_one_last_call(tmp_path: Path, stream: bool) -> None:
    """Clients with a connection of their own would keep the drain from ever ending."""
    body = body_of(stream=stream)
    async with serving(tmp_path) as house, wire(house) as client:
        house.gateway.draining = True
        client.send(head_of(house, len(body)) + body)
        status, headers = await client.head()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.rest(1)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_somebody_is_there(tmp_path: Path, http: aiohttp.ClientSession, method: str) -> None:
    async with serving(tmp_path) as house:
        for path in ("/", "/healthz", "/readyz"):
            response = await http.request(method, house.base + path)
            assert response.status == 200
            assert response.content_type == "application/json"
        assert (await http.post(house.base + "/healthz")).status == 404
        assert (await http.post(house.base + CHAT + "/", json={})).status == 404
