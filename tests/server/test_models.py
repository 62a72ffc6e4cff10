"""The model list: each client's own shape, and for each caller what it may use."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import ollama
import openai
import pytest
from aiohttp import web
from google.genai import errors as genai_errors

from ..clients.voices import gemini_client
from .house import serving

RULES = """
upstreams:
  one: {adapter: simulator, models: [listed-one, "vendor/with-slash"]}
  two: {adapter: simulator, models: [listed-two]}
chains:
  first: [{auth: {keys: [{name: a, key: env:KEY_A}, {name: both, key: env:KEY_BOTH}]}}]
  second: [{auth: {keys: [{name: b, key: env:KEY_B}, {name: both, key: env:KEY_BOTH}]}}]
routes:
  - {name: one, match: {model: [named-one, listed-one, "vendor/*", "glob-*"]}, chain: first, to: one}
  - {name: two, match: {model: [named-two, listed-two]}, chain: second, to: two}
  - {name: two-again, match: {model: named-three}, chain: second, to: two/listed-two}
"""
OF_ONE = ["named-one", "listed-one", "vendor/with-slash"]
OF_TWO = ["named-two", "listed-two", "named-three"]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B", "BOTH"):
        monkeypatch.setenv(f"KEY_{name}", f"secret-{name.lower()}-000000")


def ids(listed: Any) -> list[str]:
    return [entry["id"] for entry in listed["data"]]


@pytest.mark.parametrize(
    ("key", "expected"), [("a", OF_ONE), ("b", OF_TWO), ("both", [*OF_ONE, *OF_TWO])], ids=["a", "b", "both"]
)
async def test_each_caller_sees_its_own(
    tmp_path: Path, http: aiohttp.ClientSession, key: str, expected: list[str]
) -> None:
    async with serving(tmp_path, RULES) as house:
        for path in ("/v1/models", "/models"):
            response = await http.get(house.base + path, headers={"Authorization": f"Bearer secret-{key}-000000"})
            assert response.status == 200
            assert ids(await response.json()) == expected
        assert house.gateway.in_flight == 0


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nobody"}, {"x-api-key": "nobody"}])
async def test_strangers_see_nothing(tmp_path: Path, http: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    async with serving(tmp_path, RULES) as house:
        for more in ({}, {"anthropic-version": "2023-06-01"}):
            for path in ("/v1/models", "/v1/models/named-one", "/v1/models/none"):
                response = await http.get(house.base + path, headers={**headers, **more})
                assert response.status == 401
                parsed = await response.json()
                assert (parsed.get("type") == "error") is bool(more)
                assert "named" not in str(parsed)


async def test_open_routes_are_listed_to_anybody(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    text = RULES + "  - {name: open, match: {model: free}, to: two}\n"
    async with serving(tmp_path, text) as house:
        response = await http.get(house.base + "/v1/models")
        assert ids(await response.json()) == ["free"]
        response = await http.get(house.base + "/v1/models", headers={"x-api-key": "secret-a-000000"})
        assert ids(await response.json()) == [*OF_ONE, "free"]


async def test_a_single_model(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    headers = {"Authorization": "Bearer secret-a-000000"}
    async with serving(tmp_path, RULES) as house:
        for name in OF_ONE:
            response = await http.get(f"{house.base}/v1/models/{name}", headers=headers)
            parsed = await response.json()
            assert (response.status, parsed["id"], parsed["object"]) == (200, name, "model")
        for name in ("named-two", "glob-x", "%22%3Cscript%3E"):
            response = await http.get(f"{house.base}/v1/models/{name}", headers=headers)
            parsed = await response.json()
            assert response.status == 404
            assert parsed["error"]["code"] in ("model_not_found", "not_found")


async def test_as_the_sdks_read_it(tmp_path: Path) -> None:
    async with serving(tmp_path, RULES) as house:
        async with openai.AsyncOpenAI(api_key="secret-a-000000", base_url=house.base + "/v1", max_retries=0) as chat:
            assert [model.id async for model in await chat.models.list()] == OF_ONE
            model = await chat.models.retrieve("vendor/with-slash")
            assert (model.id, model.owned_by, type(model.created)) == ("vendor/with-slash", "headgate", int)
            with pytest.raises(openai.NotFoundError):
                await chat.models.retrieve("none")
        async with anthropic.AsyncAnthropic(api_key="secret-b-000000", base_url=house.base, max_retries=0) as claude:
            listed = [each async for each in claude.models.list()]
            assert [each.id for each in listed] == OF_TWO
            assert all(each.type == "model" and each.display_name == each.id for each in listed)
            assert (await claude.models.retrieve("named-two")).created_at.tzinfo is not None
            with pytest.raises(anthropic.AuthenticationError):
                await claude.with_options(api_key="nobody").models.list()


async def test_nothing_to_list(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serving(tmp_path, "upstreams: {sim: {adapter: simulator}}\nroutes: [{name: all, to: sim}]") as house:
        parsed = await (await http.get(house.base + "/v1/models")).json()
        assert parsed == {"object": "list", "data": []}
        parsed = await (await http.get(house.base + "/v1/models", headers={"anthropic-version": "2023-06-01"})).json()
        assert parsed == {"data": [], "has_more": False, "first_id": None, "last_id": None}


async def test_an_authenticator_that_breaks(
    tmp_path: Path, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "breaking_auth.py").write_text(
        "import msgspec\n"
        "class Broken:\n"
        "    class Options(msgspec.Struct):\n        pass\n"
        "    authenticates = True\n"
        "    def __init__(self, options): pass\n"
        "    async def identify(self, call, /): raise KeyError('a secret of the directory')\n"
        "    async def __call__(self, call, call_next, /): return await call_next(call)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = """
        upstreams: {sim: {adapter: simulator}}
        routes: [{name: all, chain: [{use: "breaking_auth:Broken"}], to: sim}]
    """
    async with serving(tmp_path, text) as house:
        response = await http.get(house.base + "/v1/models")
        assert response.status == 500
        parsed = await response.json()
        assert parsed["error"]["code"] == "internal"
        assert "secret of the directory" not in str(parsed)
        assert house.gateway.in_flight == 0
    assert "secret of the directory" in log.text
    log.clear()


async def test_our_headers_can_be_hidden(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    text = """
        server: {response_headers: false}
        upstreams: {sim: {adapter: simulator}}
        routes: [{name: all, match: {model: m}, to: sim}]
    """
    async with serving(tmp_path, text) as house:
        answers = [
            await http.get(house.base + "/v1/models"),
            await http.get(house.base + "/v1/models/none"),
            await http.post(house.base + "/v1/chat/completions", json={"model": "m", "messages": []}),
            await http.post(house.base + "/v1/chat/completions", json={"model": "none", "messages": []}),
        ]
        assert [response.status for response in answers] == [200, 404, 200, 404]
        for response in answers:
            assert [name for name in response.headers if name.lower().startswith(("headgate-", "x-request"))] == []


async def test_as_the_sdks_of_gemini_and_ollama_read_it(tmp_path: Path) -> None:
    async with serving(tmp_path, RULES) as house:
        async with gemini_client(house.base, "secret-a-000000", ssl.create_default_context()) as gemini:
            listed = [model async for model in await gemini.models.list()]
            assert [model.name for model in listed] == [f"models/{name}" for name in OF_ONE]
            assert listed[0].supported_actions == ["generateContent", "streamGenerateContent", "countTokens"]
            for name in ("vendor/with-slash", "models/vendor/with-slash"):
                assert (await gemini.models.get(model=name)).display_name == "vendor/with-slash"
            with pytest.raises(genai_errors.ClientError) as refused:
                await gemini.models.get(model="named-two")
            assert refused.value.code == 404
        client = ollama.AsyncClient(house.base, headers={"authorization": "Bearer secret-b-000000"})
        assert [model.model for model in (await client.list()).models] == OF_TWO
        assert (await client.ps()).models == []
        assert "completion" in ((await client.show("named-two")).capabilities or ())
        with pytest.raises(ollama.ResponseError) as unknown:
            await client.show("named-one")
        assert (unknown.value.status_code, unknown.value.error) == (404, "the model 'named-one' is not listed here")
        await client._client.aclose()


@pytest.mark.parametrize("mounted", [False, True], ids=["alone", "mounted"])
async def test_the_shape_is_that_of_the_client(tmp_path: Path, http: aiohttp.ClientSession, mounted: bool) -> None:
    key = {"Authorization": "Bearer secret-a-000000"}
    shapes = {
        "/v1/models": {"object", "data"},
        "/models": {"object", "data"},
        "/v1beta/models": {"models"},
        "/v1alpha/models": {"models"},
        "/api/tags": {"models"},
        "/v1beta/models/named-one": {"name", "displayName", "supportedGenerationMethods"},
        "/api/version": {"version"},
        "/api/ps": {"models"},
    }
    async with serving(tmp_path, RULES, host=web.Application() if mounted else None) as house:
        for path, members in shapes.items():
            response = await http.get(house.base + path, headers=key)
            assert (response.status, set(await response.json())) == (200, members), path
        for path in ("/v1/models", "/v1beta/models"):
            for query, headers in (("?key=secret-a-000000", {}), ("", {"x-goog-api-key": "secret-a-000000"})):
                response = await http.get(house.base + path + query, headers=headers)
                assert set(await response.json()) == {"models"}
        response = await http.get(house.base + "/v1beta/models?key=nobody")
        assert (response.status, (await response.json())["error"]["status"]) == (401, "UNAUTHENTICATED")
        response = await http.get(house.base + "/api/tags")
        assert (response.status, list(await response.json())) == (401, ["error"])
        for body in ("{", "[]", '{"model": 7}', "{}"):
            headers = {**key, "content-type": "application/json"}
            response = await http.post(house.base + "/api/show", data=body, headers=headers)
            assert (response.status, list(await response.json())) == (404 if body == "{}" else 400, ["error"])
        for path, format in (("/api/chat", "ollama"), ("/v1beta/models/m:generateContent", "gemini")):
            response = await http.get(house.base + path)
            assert (response.status, response.headers["Allow"]) == (405, "POST")
            told = (await response.json())["error"]
            assert isinstance(told, str) if format == "ollama" else told["status"] == "INVALID_ARGUMENT"
        response = await http.post(house.base + "/v1beta/models/m:invent", json={})
        assert (response.status, (await response.json())["error"]["status"]) == (404, "NOT_FOUND")


async def test_the_list_in_pages(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Whole unless somebody asks for pages, as each vendor's clients do."""
    key = {"Authorization": "Bearer secret-a-000000"}
    async with serving(tmp_path, RULES) as house:
        tls = ssl.create_default_context()
        async with gemini_client(house.base, "secret-a-000000", tls) as gemini:
            pager = await gemini.models.list(config={"page_size": 2})
            assert len(pager.page) == 2
            assert [model.name async for model in pager] == [f"models/{name}" for name in OF_ONE]
        async with anthropic.AsyncAnthropic(api_key="secret-a-000000", base_url=house.base, max_retries=0) as claude:
            first = await claude.models.list(limit=2)
            assert ([model.id for model in first.data], first.has_more) == (OF_ONE[:2], True)
            assert [model.id async for model in claude.models.list(limit=2)] == OF_ONE
            back = await claude.models.list(limit=1, before_id=OF_ONE[-1])
            assert ([model.id for model in back.data], back.has_more) == ([OF_ONE[-2]], len(OF_ONE) > 2)
        for query, last in (("pageSize=1", OF_ONE[0]), ("page_size=1&page_token=" + OF_ONE[0], OF_ONE[1])):
            listed = await (await http.get(f"{house.base}/v1beta/models?{query}", headers=key)).json()
            assert (listed["models"][0]["displayName"], listed["nextPageToken"]) == (last, last)
        listed = await (await http.get(f"{house.base}/v1beta/models?pageSize=0", headers=key)).json()
        assert (len(listed["models"]), "nextPageToken" in listed) == (len(OF_ONE), False)
        for path in ("/v1beta/models?pageSize=-1", "/v1beta/models?pageSize=x", "/v1beta/models?pageToken=nobody"):
            response = await http.get(house.base + path, headers=key)
            assert (response.status, (await response.json())["error"]["status"]) == (400, "INVALID_ARGUMENT")
        version = {**key, "anthropic-version": "2023-06-01"}
        for path in ("/v1/models?limit=many", "/v1/models?after_id=nobody"):
            response = await http.get(house.base + path, headers=version)
            assert (response.status, (await response.json())["type"]) == (400, "error")
        response = await http.get(f"{house.base}/v1/models?limit=1", headers=key)
        assert len((await response.json())["data"]) == len(OF_ONE)


async def test_the_path_tells_the_format_before_headers_do(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serving(tmp_path, RULES) as house:
        for path in ("/api/embeddings", "/api/pull", "/api/blobs/sha256:0", "/api/embed"):
            for headers in ({}, {"x-goog-api-key": "k"}, {"anthropic-version": "2023-06-01"}):
                response = await http.post(house.base + path, json={}, headers=headers)
                assert (response.status, isinstance((await response.json())["error"], str)) == (404, True), path
        key = {"x-goog-api-key": "secret-a-000000"}
        tags = await (await http.get(house.base + "/api/tags", headers=key)).json()
        assert [model["model"] for model in tags["models"]] == OF_ONE
        response = await http.get(house.base + "/v1beta/models", headers={**key, "anthropic-version": "2023-06-01"})
        assert [model["displayName"] for model in (await response.json())["models"]] == OF_ONE
