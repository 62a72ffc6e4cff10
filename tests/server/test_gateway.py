"""The Gateway without its HTTP surface: life, calls without a socket, reloads, several in one process, guests in a host."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from headgate import Gateway, GatewayError
from headgate.gateway.errors import CallerError, Cancelled, NotFound, UpstreamError
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.message import Text
from headgate.gateway.rules import RulesError
from headgate.gateway.server.gateway import Gateway as Same

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from .house import CHAT, SIMULATED, begin, body_of, load, serving, until, write_rules

RULES = """
server: {{{server}}}
upstreams: {{openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY{more}}}}}
routes: [{{name: {name}, to: openai}}]
"""


def rules(provider: FakeProvider, name: str = "first", server: str = "", more: str = "") -> str:
    return RULES.format(base=provider.base, name=name, server=server, more=more)


def text_of(chunks: list[Any]) -> str:
    events = [event for chunk in chunks for event in chunk.events]
    return "".join(part.text for choice in fold(events).choices for part in choice.parts)


# --- without a socket


def test_it_is_what_the_package_promises() -> None:
    assert Gateway is Same


@pytest.mark.parametrize("format", ["openai.chat", "anthropic.messages"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_handle(tmp_path: Path, provider: FakeProvider, format: str, stream: bool) -> None:
    provider.answer(script("One two three"))
    async with load(tmp_path, rules(provider)) as gateway:
        reply = await gateway.handle(format, body_of(stream=stream), {"X-Request-ID": "mine"})
        assert reply.status == 200
        chunks = await reply.collect()
        assert text_of(chunks) == "One two three"
        await until(lambda: gateway.in_flight == 0)
    assert provider.last.headers["x-request-id"] == "mine"


async def test_handle_and_iterate(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script("One two three"))
    async with load(tmp_path, rules(provider)) as gateway:
        reply = await gateway.handle("openai.chat", body_of(stream=True))
        chunks = [chunk async for chunk in reply]
        assert len(chunks) > 1
        assert text_of(chunks) == "One two three"
        await until(lambda: gateway.in_flight == 0)


@pytest.mark.parametrize("way", ["aclose", "abort", "break", "aclose after a chunk", "never read"])
async def test_whoever_stops_reading_closes_the_provider(tmp_path: Path, provider: FakeProvider, way: str) -> None:
    provider.answer(script("One two three", stall_after=3))
    gateway = load(tmp_path, rules(provider))
    await gateway.start()
    reply = await gateway.handle("openai.chat", body_of(stream=True))
    if way == "aclose":
        await reply.aclose()
    elif way == "abort":
        reply.abort()
    elif way == "never read":
        await gateway.aclose()
    else:
        chunks = aiter(reply)
        await anext(chunks)
        await (reply if way.startswith("aclose") else chunks).aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(provider.last.over.wait(), 1)
    await until(lambda: gateway.in_flight == 0)
    assert provider.last.outcome == "aborted"
    await gateway.aclose()


async def test_a_reader_is_woken_when_the_gateway_closes(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script("One two three", stall_after=3), script("x", stall_after=1))
    gateway = load(tmp_path, rules(provider))
    for stream in (True, False):
        async with asyncio.timeout(3):
            task = begin(_collected(gateway, stream))
            await provider.received(1 if stream else 2)
            await asyncio.sleep(0.05)
            if not stream:
                await gateway.aclose()
            else:
                gateway.clock.close()
            with pytest.raises((Cancelled, UpstreamError, asyncio.CancelledError)):
                await task
    await until(lambda: {each.outcome for each in provider.requests} == {"aborted"})


async def _collected(gateway: Gateway, stream: bool) -> list[Any]:
    return await (await gateway.handle("openai.chat", body_of(stream=stream))).collect()


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1beta/models/a%2Fb:streamGenerateContent?alt=sse", {}),
        ("/v1beta/models/a/b:streamGenerateContent", {}),
        ("", {"model": "a/b", "stream": True}),
    ],
)
async def test_a_model_in_the_path_needs_no_socket(tmp_path: Path, path: str, more: dict[str, Any]) -> None:
    body = json.dumps({"contents": [{"role": "user", "parts": [{"text": "Hello"}]}], **more}).encode()
    text = "upstreams: {sim: {adapter: simulator}}\nroutes: [{name: all, match: {model: a/b}, to: sim}]"
    async with load(tmp_path, text) as gateway:
        chunks = await (await gateway.handle("gemini", body, path=path)).collect()
        answer = fold([event for chunk in chunks for event in chunk.events])
        assert [part.text for part in answer.choices[0].parts if isinstance(part, Text)] == ["You said: Hello"]


ERRORS: list[tuple[str, bytes, type[GatewayError], str]] = [
    ("bedrock.converse", body_of(), NotFound, "not_found"),
    ("openai.chat", b"[]", CallerError, "invalid_request"),
    ("openai.chat", b"", CallerError, "invalid_request"),
    ("openai.chat", body_of(model="none"), NotFound, "not_found"),
    ("openai.chat", body_of("/sim error 429 slow down"), UpstreamError, "rate_limit"),
    ("openai.chat", body_of("/sim nonsense"), CallerError, "invalid_request"),
]


@pytest.mark.parametrize(("format", "body", "kind", "word"), ERRORS)
async def test_handle_raises(tmp_path: Path, format: str, body: bytes, kind: type[GatewayError], word: str) -> None:
    text = "upstreams: {sim: {adapter: simulator}}\nroutes: [{name: all, match: {model: m}, to: sim}]"
    async with load(tmp_path, text) as gateway:
        with pytest.raises(kind) as caught:
            await gateway.handle(format, body)
        assert caught.value.kind == word
        assert gateway.in_flight == 0


async def test_an_error_after_the_headers_ends_the_reading(tmp_path: Path) -> None:
    async with load(tmp_path) as gateway:
        reply = await gateway.handle("openai.chat", body_of("/sim fail 3 overloaded\nhi", stream=True))
        seen = 0
        with pytest.raises(UpstreamError) as caught:  # noqa: PT012  # the loop is what raises
            async for _ in reply:
                seen += 1
        assert (seen, caught.value.kind) == (3, "overloaded")
        await until(lambda: gateway.in_flight == 0)


# --- life


async def test_start_and_close_are_idempotent(tmp_path: Path) -> None:
    gateway = load(tmp_path)
    await gateway.aclose()
    gateway = load(tmp_path)
    await gateway.start()
    await gateway.start()
    await gateway.aclose()
    await gateway.aclose()


LIVING = """
import msgspec
HISTORY = []
FAULTS = []
class Living:
    class Options(msgspec.Struct):
        name: str = "x"
    def __init__(self, options): self.name = options.name
    async def start(self):
        HISTORY.append("start " + self.name)
        if FAULTS:
            raise FAULTS.pop()
    async def stop(self): HISTORY.append("stop " + self.name)
    async def __call__(self, call, call_next, /): return await call_next(call)
"""


@pytest.fixture
def living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "living_parts.py").write_text(LIVING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "living_parts", raising=False)
    import living_parts

    yield living_parts
    sys.modules.pop("living_parts", None)


def with_living(name: str) -> str:
    return f"""
        upstreams: {{sim: {{adapter: simulator}}}}
        routes: [{{name: all, chain: [{{use: "living_parts:Living", with: {{name: {name}}}}}], to: sim}}]
    """


async def test_concurrent_first_calls_start_it_once(tmp_path: Path, living: Any) -> None:
    gateway = load(tmp_path, with_living("one"))
    replies = await asyncio.gather(*(gateway.handle("openai.chat", body_of()) for _ in range(5)))
    for reply in replies:
        await reply.collect()
    await gateway.aclose()
    assert living.HISTORY == ["start one", "stop one"]


async def test_a_start_that_fails_is_not_taken_for_one(tmp_path: Path, living: Any) -> None:
    living.FAULTS += [OSError("no such file")]
    gateway = load(tmp_path, with_living("one"))
    with pytest.raises(OSError, match="no such file"):
        await gateway.handle("openai.chat", body_of())
    assert gateway.in_flight == 0
    await gateway.start()
    assert living.HISTORY == ["start one", "start one"]
    await gateway.aclose()
    assert living.HISTORY[-1] == "stop one"


# --- reload


async def test_calls_under_way_keep_the_old_rules(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script("One two three", pause_s=0.05), script("Two"))
    async with serving(tmp_path, rules(provider)) as house, aiohttp.ClientSession() as http:
        request = json.loads(body_of(stream=True))
        first = await http.post(house.base + CHAT, json=request)
        old = house.gateway.plan
        house.rewrite(rules(provider, "second"))
        await house.gateway.reload()
        assert house.gateway.plan is not old
        second = await http.post(house.base + CHAT, json=request)
        assert (first.headers["headgate-route"], second.headers["headgate-route"]) == ("first", "second")
        assert b"[DONE]" in await first.read()
        assert b"[DONE]" in await second.read()
        # The same upstream, configured alike: its connections are used on.
        old_pool, new_pool = old.upstreams["openai"].pool, house.gateway.plan.upstreams["openai"].pool
        assert old_pool is new_pool
        assert new_pool is not None
        await until(lambda: new_pool.holders == 1)
        third = await http.post(house.base + CHAT, json=request)
        assert b"Hello!"[:3] in await third.read() or third.status == 200
        assert provider.connections <= 2


async def test_a_pool_that_changed_is_closed_after_its_last_call(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script("One two three", pause_s=0.05))
    async with serving(tmp_path, rules(provider)) as house, aiohttp.ClientSession() as http:
        first = await http.post(house.base + CHAT, json=json.loads(body_of(stream=True)))
        pool = house.gateway.plan.upstreams["openai"].pool
        assert pool is not None
        house.rewrite(rules(provider, more=", pool: {max_connections: 3}"))
        await house.gateway.reload()
        assert pool.holders == 1
        assert b"[DONE]" in await first.read()
        await until(lambda: pool.holders == 0)
        await until(lambda: provider.connections == 0)


async def test_reloads_one_upon_another(tmp_path: Path, provider: FakeProvider) -> None:
    async with serving(tmp_path, rules(provider)) as house, aiohttp.ClientSession() as http:
        await asyncio.gather(*(house.gateway.reload() for _ in range(5)))
        response = await http.post(house.base + CHAT, json=json.loads(body_of()))
        assert response.status == 200
        pool = house.gateway.plan.upstreams["openai"].pool
        assert pool is not None
        await until(lambda: pool.holders == 1)


async def test_a_broken_file_keeps_the_old_rules(tmp_path: Path, provider: FakeProvider) -> None:
    async with serving(tmp_path, rules(provider)) as house, aiohttp.ClientSession() as http:
        for broken in ("routes: [", "routes: [{name: x, to: nowhere}]"):
            house.rewrite(broken)
            with pytest.raises(RulesError):
                await house.gateway.reload()
            health = await (await http.get(house.base + "/healthz")).json()
            assert not health["reloads"]["last"]["ok"]
            assert health["status"] == "ok"
            response = await http.post(house.base + CHAT, json=json.loads(body_of()))
            assert response.headers["headgate-route"] == "first"
        house.path.unlink()
        with pytest.raises((RulesError, OSError)):
            await house.gateway.reload()
        house.rewrite(rules(provider, "mended"))
        await house.gateway.reload()
        health = await (await http.get(house.base + "/healthz")).json()
        assert health["reloads"]["last"]["ok"]
        response = await http.post(house.base + CHAT, json=json.loads(body_of()))
        assert response.headers["headgate-route"] == "mended"


async def test_a_reload_does_not_open_the_door(tmp_path: Path) -> None:
    guarded = """
        upstreams: {sim: {adapter: simulator}}
        routes: [{name: all, chain: [{auth: {keys: [{name: a, key: env:TEST_CALLER_KEY}]}}], to: sim}]
    """
    async with serving(tmp_path, guarded) as house:
        house.gateway.listening = "0.0.0.0:8080"
        house.rewrite(SIMULATED)
        with pytest.raises(RulesError, match="E051"):
            await house.gateway.reload()
        assert "E051" in str(house.gateway.reload_error)
        house.gateway.listening = "127.0.0.1:8080"
        await house.gateway.reload()
        assert house.gateway.reload_error is None


async def test_a_part_that_does_not_start_keeps_the_old_rules(tmp_path: Path, living: Any) -> None:
    async with load(tmp_path, with_living("old")) as gateway:
        write_rules(tmp_path / "routes.yaml", with_living("new"))
        living.FAULTS += [OSError("disk full")]
        with pytest.raises(OSError, match="disk full"):
            await gateway.reload()
        assert gateway.reload_error == "disk full"
        assert (await (await gateway.handle("openai.chat", body_of())).collect())[0]
        await gateway.reload()
        await until(lambda: "stop old" in living.HISTORY)
    assert living.HISTORY == ["start old", "start new", "start new", "stop old", "stop new"]


async def test_a_gateway_without_a_file_cannot_reload(tmp_path: Path) -> None:
    gateway = Gateway(load(tmp_path).plan)
    with pytest.raises(ValueError, match="not loaded from a file"):
        await gateway.reload()


# --- neighbours


async def test_several_in_one_process(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    app = web.Application()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        text = SIMULATED.replace("adapter: simulator", f"adapter: simulator, script: ['text from {name}']")
        load(tmp_path / name, text).mount(app, f"/{name}")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with serving(tmp_path) as third:
        for url, said in ((f"{base}/a", "from a"), (f"{base}/b", "from b"), (third.base, "You said: Hello")):
            response = await http.post(url + CHAT, json=json.loads(body_of()))
            assert (await response.json())["choices"][0]["message"]["content"] == said
    response = await http.post(base + "/a" + CHAT, json=json.loads(body_of()))
    assert response.status == 200, "closing one closed another"
    await runner.cleanup()


async def test_a_guest_in_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http: aiohttp.ClientSession) -> None:
    """A host with packages called like our folders, its own middleware, routes and a small client_max_size."""
    for name in ("middlewares", "adapters", "gateway"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OF_THE_HOST = True\n")
        (tmp_path / name / "auth.py").write_text("raise RuntimeError('the wrong one')\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[str] = []

    @web.middleware
    async def around(request: web.Request, handler: Any) -> web.StreamResponse:
        seen.append(request.path)
        response: web.StreamResponse = await handler(request)
        return response

    async def own(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    host = web.Application(client_max_size=1024**2, middlewares=[around])
    host.router.add_post("/own", own)
    text = """
        upstreams: {sim: {adapter: simulator}}
        routes: [{name: all, chain: [{auth: {keys: [{name: a, key: env:TEST_CALLER_KEY}]}}, log], to: sim}]
    """
    async with serving(tmp_path, text, host=host) as house:
        import middlewares  # type: ignore[import-not-found]

        assert middlewares.OF_THE_HOST
        from ..fakes.gateway import CALLER_KEY

        headers = {"x-api-key": CALLER_KEY, "content-type": "application/json"}
        large = body_of("x" * 3_000_000)
        response = await http.post(house.base + CHAT, data=io.BytesIO(large), headers=headers)
        assert response.status == 200
        assert len(await response.read()) > 3_000_000
        own_url = house.base.removesuffix("/llm") + "/own"
        assert (await http.post(own_url, data=io.BytesIO(large))).status == 413
        assert await (await http.post(own_url, data=b"12345")).text() == "5"
    assert seen == ["/llm" + CHAT, "/own", "/own"]
    for name in ("middlewares", "adapters", "gateway"):
        sys.modules.pop(name, None)
