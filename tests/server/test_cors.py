"""Browsers: nothing for them unless the rules name their origin; and then what they need, on refusals too."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from .house import CHAT, SIMULATED, body_of, serving

ORIGIN = "https://app.example"


def rules(origins: str) -> str:
    return f"server: {{cors: {{origins: {origins}}}}}\n" + "\n".join(line.strip() for line in SIMULATED.splitlines())


def cors_of(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {
        name.lower(): value for name, value in response.headers.items() if name.lower().startswith("access-control")
    }


async def test_off_by_default(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serving(tmp_path) as house:
        headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        preflight = await http.options(house.base + CHAT, headers=headers)
        assert preflight.status == 405
        assert cors_of(preflight) == {}
        response = await http.post(house.base + CHAT, json=json.loads(body_of()), headers={"Origin": ORIGIN})
        assert response.status == 200
        assert cors_of(response) == {}


ALLOWED = [
    ("['*']", ORIGIN, "*"),
    (f"['{ORIGIN}']", ORIGIN, ORIGIN),
    (f"['https://other.example', '{ORIGIN}']", ORIGIN, ORIGIN),
    (f"['{ORIGIN}']", "https://app.example.evil.example", None),
    (f"['{ORIGIN}']", "https://evil.example", None),
    (f"['{ORIGIN}']", "http://app.example", None),
    (f"['{ORIGIN}']", "https://APP.example", None),
    (f"['{ORIGIN}']", "null", None),
]


@pytest.mark.parametrize(("origins", "origin", "allowed"), ALLOWED)
async def test_preflight(
    tmp_path: Path, http: aiohttp.ClientSession, origins: str, origin: str, allowed: str | None
) -> None:
    async with serving(tmp_path, rules(origins)) as house:
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, x-stainless-os",
        }
        for path in (CHAT, "/v1/messages", "/v1/models"):
            response = await http.options(house.base + path, headers=headers)
            if allowed is None:
                assert response.status in (404, 405)
                assert cors_of(response) == {}
                continue
            assert response.status == 204
            given = cors_of(response)
            assert given["access-control-allow-origin"] == allowed
            assert "POST" in given["access-control-allow-methods"]
            assert given["access-control-allow-headers"] == "authorization, content-type, x-stainless-os"
            assert "access-control-allow-credentials" not in given
            assert "Origin" in response.headers["Vary"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_answers(tmp_path: Path, http: aiohttp.ClientSession, stream: bool) -> None:
    async with serving(tmp_path, rules(f"['{ORIGIN}']")) as house:
        for origin, allowed in ((ORIGIN, ORIGIN), ("https://evil.example", None)):
            response = await http.post(
                house.base + CHAT, json=json.loads(body_of(stream=stream)), headers={"Origin": origin}
            )
            assert response.status == 200
            assert cors_of(response).get("access-control-allow-origin") == allowed
            assert await response.read()


async def test_refusals_and_lists_are_readable_too(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serving(tmp_path, rules(f"['{ORIGIN}']")) as house:
        headers = {"Origin": ORIGIN, "Content-Type": "application/json"}
        answers = [
            await http.post(house.base + CHAT, data=b"[]", headers=headers),
            await http.get(house.base + "/v1/models", headers=headers),
            await http.get(house.base + "/v1/models/none", headers=headers),
            await http.get(house.base + "/nowhere", headers=headers),
        ]
        assert [response.status for response in answers] == [400, 200, 404, 404]
        for response in answers:
            assert cors_of(response)["access-control-allow-origin"] == ORIGIN
            assert "Origin" in response.headers["Vary"]
