"""Requests that no SDK would send, over plain HTTP: each gets its status in the caller's own error shape, with a request
id, and the gateway serves on."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ..fakes.gateway import CALLER_KEY, Served, serving
from ..fakes.provider import FakeProvider
from .talk import ANTHROPIC, MODELS, OPENAI

PATHS = {OPENAI: "/v1/chat/completions", ANTHROPIC: "/v1/messages"}
KEY = {"Authorization": f"Bearer {CALLER_KEY}"}
JSON = {**KEY, "Content-Type": "application/json"}
from_each = pytest.mark.parametrize("caller", PATHS)


@pytest.fixture(params=["standalone", "mounted"])
async def served(request: pytest.FixtureRequest, provider: FakeProvider, tmp_path: Any) -> AsyncIterator[Served]:
    """A gateway with a small body limit, as the limit is what some of these tests are about."""
    async with serving(provider, tmp_path, request.param, max_body="1MiB") as gateway:
        yield gateway
        async with aiohttp.ClientSession() as session:
            for caller in PATHS:
                response = await session.post(gateway.base + PATHS[caller], data=body(caller), headers=JSON)
                assert response.status == 200, "it does not serve on"
        assert gateway.gateway.in_flight == 0


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session


def body(caller: str, **changes: Any) -> bytes:
    """A request that works, with ``changes``; None takes a member away."""
    members = {"model": MODELS[caller], "messages": [{"role": "user", "content": "hi"}], "max_tokens": 64}
    if caller == OPENAI:
        del members["max_tokens"]
    members |= changes
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


async def refused(response: aiohttp.ClientResponse, caller: str, status: int | set[int]) -> str:
    """Check that ``response`` is an error in the caller's shape; return its message."""
    text = await response.text()
    assert response.status in (status if isinstance(status, set) else {status}), text
    assert response.content_type == "application/json"
    assert response.headers["x-request-id"]
    error = json.loads(text)
    if caller == OPENAI:
        assert set(error) == {"error"}
        assert {"message", "type", "param", "code"} <= set(error["error"])
    else:
        assert response.headers["request-id"]
        assert error["type"] == "error"
        assert error["request_id"]
        assert isinstance(error["error"]["type"], str)
    assert isinstance(error["error"]["message"], str)
    assert "Traceback" not in text
    assert CALLER_KEY not in text
    return str(error["error"]["message"])


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"model=gpt-5.4",
    "cut off": b'{"model": "gpt-5.4", "messages": [{"role": "us',
    "trailing words": b'{"model": "gpt-5.4", "messages": []} and more',
    "an array": b"[]",
    "a string": b'"hi"',
    "null": b"null",
    "no model": b'{"messages": []}',
    "model is a number": b'{"model": 5, "messages": []}',
    "model is null": b'{"model": null, "messages": []}',
    "stream is a word": b'{"model": "gpt-5.4", "stream": "yes", "messages": []}',
    "not UTF-8": b'{"model": "gpt-5.4", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "NaN": b'{"model": "gpt-5.4", "temperature": NaN, "messages": []}',
    "a depth bomb": b'{"model": "gpt-5.4", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a depth bomb, unclosed": b'{"model": "gpt-5.4", "messages": ' + b'[{"a":' * 90_000,
    "UTF-16": '{"model": "gpt-5.4"}'.encode("utf-16"),
}


@pytest.mark.parametrize("name", BODIES)
@from_each
async def test_bodies(
    served: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, name: str
) -> None:
    response = await http.post(served.base + PATHS[caller], data=BODIES[name], headers=JSON)
    message = await refused(response, caller, 400)
    assert len(message) < 1000
    if name == "not UTF-8" and caller == OPENAI:
        # Nobody reads the words of a request that goes to its own format: the provider is the one who refuses.
        provider.expected_refusals = ["We could not parse the JSON body of your request."]


DEEP = "[" * 500 + "]" * 500
MEMBERS: list[tuple[dict[str, Any], str]] = [
    ({"messages": "hi"}, "messages"),
    ({"messages": [5]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"text": "no type"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": 5, "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"tools": "none"}, "tools"),
    ({"tools": [5]}, "tools[0]"),
    ({"temperature": "warm"}, "temperature"),
]


@pytest.mark.parametrize(("change", "path"), MEMBERS, ids=[path for _, path in MEMBERS])
@from_each
async def test_wrong_types_are_named_by_their_path(
    served: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, change: dict[str, Any], path: str
) -> None:
    # Towards the other format the gateway must read it all; towards the same, the provider says what is wrong.
    other = ANTHROPIC if caller == OPENAI else OPENAI
    sent = body(caller, **{"model": MODELS[other], **change})
    response = await http.post(served.base + PATHS[caller], data=sent, headers=JSON)
    assert path in await refused(response, caller, 400)
    assert provider.requests == []


@from_each
async def test_broken_tool_arguments_in_history(
    served: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str
) -> None:
    if caller == ANTHROPIC:
        pytest.skip("arguments are objects there")
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": '}}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "x"},
    ]
    sent = body(caller, model=MODELS[ANTHROPIC], messages=turns)
    response = await http.post(served.base + PATHS[caller], data=sent, headers=JSON)
    assert "arguments" in await refused(response, caller, 400)
    assert provider.requests == []


@from_each
async def test_too_large(served: Served, http: aiohttp.ClientSession, caller: str) -> None:
    large = body(caller, user="x" * (1024 * 1024))
    response = await http.post(served.base + PATHS[caller], data=io.BytesIO(large), headers=JSON)
    assert "1048576" in await refused(response, caller, 413)


@from_each
async def test_too_large_without_a_length(served: Served, http: aiohttp.ClientSession, caller: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    try:
        response = await http.post(served.base + PATHS[caller], data=pieces(), headers=JSON)
    except aiohttp.ClientConnectionError:
        return  # refused so early that the client was still sending
    await refused(response, caller, 413)


@from_each
async def test_just_below_the_limit(
    served: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str
) -> None:
    filler = "x" * (1024 * 1024 - len(body(caller, messages=[{"role": "user", "content": ""}])))
    sent = body(caller, messages=[{"role": "user", "content": filler}])
    assert len(sent) == 1024 * 1024
    response = await http.post(served.base + PATHS[caller], data=sent, headers=JSON)
    assert response.status == 200
    assert provider.last.raw == sent


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@from_each
async def test_packed_bodies(
    served: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, encoding: str
) -> None:
    plain = body(caller)
    packed = gzip.compress(plain) if encoding == "gzip" else zlib.compress(plain)
    headers = {**JSON, "Content-Encoding": encoding}
    response = await http.post(served.base + PATHS[caller], data=packed, headers=headers)
    assert response.status == 200
    assert provider.last.raw == plain
    assert "Content-Encoding" not in provider.last.headers


PACKED: dict[str, tuple[str, bytes, int]] = {
    "a bomb": ("gzip", gzip.compress(b'{"model": "' + b"x" * (256 << 20) + b'"}', 1), 413),
    "not gzip": ("gzip", b"this is not gzip at all", 400),
    "half of a gzip": ("gzip", gzip.compress(b'{"model": "' + b"xyz" * 9999)[:60], 400),
    "an unknown coding": ("exi", b"{}", 415),
}


@pytest.mark.parametrize("name", PACKED)
@from_each
async def test_badly_packed_bodies(served: Served, http: aiohttp.ClientSession, caller: str, name: str) -> None:
    encoding, packed, status = PACKED[name]
    headers = {**JSON, "Content-Encoding": encoding}
    try:
        response = await http.post(served.base + PATHS[caller], data=io.BytesIO(packed), headers=headers)
    except aiohttp.ClientConnectionError:
        assert name == "a bomb", "the connection was closed without an answer"
        return
    await refused(response, caller, status)


@pytest.mark.parametrize(
    "media_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]
)
@from_each
async def test_media_types(served: Served, http: aiohttp.ClientSession, caller: str, media_type: str) -> None:
    response = await http.post(
        served.base + PATHS[caller], data=body(caller), headers={**KEY, "Content-Type": media_type}
    )
    assert "application/json" in await refused(response, caller, 415)


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "application/vnd.x+json", "APPLICATION/JSON"]
)
@from_each
async def test_media_types_that_will_do(
    served: Served, http: aiohttp.ClientSession, caller: str, media_type: str
) -> None:
    response = await http.post(
        served.base + PATHS[caller], data=body(caller), headers={**KEY, "Content-Type": media_type}
    )
    assert response.status == 200


KEYS: dict[str, tuple[list[tuple[str, str]], int]] = {
    "none": ([], 401),
    "unknown": ([("Authorization", "Bearer sk-nobody")], 401),
    "another scheme": ([("Authorization", f"Basic {CALLER_KEY}")], 401),
    "an empty one": ([("Authorization", "Bearer ")], 401),
    "not ASCII": ([("x-api-key", "schlüssel")], 401),
    "as x-api-key": ([("x-api-key", CALLER_KEY)], 200),
    "as x-goog-api-key": ([("x-goog-api-key", CALLER_KEY)], 200),
    "as api-key": ([("api-key", CALLER_KEY)], 200),
    "in lower case": ([("authorization", f"bearer {CALLER_KEY}")], 200),
    "the same twice": ([("x-api-key", CALLER_KEY), ("Authorization", f"Bearer {CALLER_KEY}")], 200),
    "two different": ([("x-api-key", "sk-other"), ("Authorization", f"Bearer {CALLER_KEY}")], 401),
    "one header, two values": ([("x-api-key", "sk-other"), ("x-api-key", CALLER_KEY)], 400),
}


@pytest.mark.parametrize("name", KEYS)
@from_each
async def test_keys(
    served: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, name: str
) -> None:
    headers, status = KEYS[name]
    response = await http.post(
        served.base + PATHS[caller], data=body(caller), headers=[*headers, ("Content-Type", "application/json")]
    )
    if status != 200:
        await refused(response, caller, status)
        return
    assert response.status == 200
    # The caller's own key goes no further.
    assert CALLER_KEY not in str(provider.last.headers)


@from_each
async def test_headers_above_the_limit(served: Served, http: aiohttp.ClientSession, caller: str) -> None:
    many = {f"x-filler-{number}": "x" * 1000 for number in range(20)}
    response = await http.post(served.base + PATHS[caller], data=body(caller), headers={**JSON, **many})
    await refused(response, caller, 431)


@from_each
async def test_one_header_above_every_limit(served: Served, caller: str) -> None:
    # More than the HTTP parser takes: the answer is the host's, but the gateway must survive it.
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST %b HTTP/1.1\r\nhost: x\r\nx-long: %b\r\n\r\n" % (PATHS[caller].encode(), b"x" * 200_000))
    line = await asyncio.wait_for(reader.readline(), 5)
    assert line.split()[1] in (b"400", b"431")
    writer.close()
    await writer.wait_closed()


PLACES = ["/v1/nothing", "/v1/chat", "/nowhere/at/all", "/v1/messages/nothing"]


@pytest.mark.parametrize("place", PLACES)
async def test_nothing_is_there(served: Served, http: aiohttp.ClientSession, place: str) -> None:
    response = await http.post(served.base + place, data=b"{}", headers=JSON)
    await refused(response, OPENAI, 404)
    response = await http.post(served.base + place, data=b"{}", headers={**JSON, "anthropic-version": "2023-06-01"})
    await refused(response, ANTHROPIC, 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
@from_each
async def test_other_methods(served: Served, http: aiohttp.ClientSession, caller: str, method: str) -> None:
    response = await http.request(method, served.base + PATHS[caller], headers=KEY)
    await refused(response, caller, {404, 405})


async def test_clients_that_look_whether_anybody_is_there(served: Served, http: aiohttp.ClientSession) -> None:
    for method in ("HEAD", "GET"):
        response = await http.request(method, served.base + "/")
        assert response.status < 500


@from_each
async def test_a_request_id_is_kept_and_a_dangerous_one_is_not(
    served: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str
) -> None:
    for presented, kept in (("trace-42.a:b_c", True), ("a b", False), ("x" * 500, False), ('"><script>', False)):
        response = await http.post(
            served.base + PATHS[caller], data=body(caller), headers={**JSON, "x-request-id": presented}
        )
        assert (response.headers["x-request-id"] == presented) is kept
        assert provider.last.headers["x-request-id"] == response.headers["x-request-id"]


@from_each
async def test_a_client_that_leaves_while_sending(served: Served, provider: FakeProvider, caller: str) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    prefix = served.base.partition(str(served.port))[2]
    writer.write(
        b"POST %b%b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-type: application/json\r\n"
        b'content-length: 100000\r\n\r\n{"model": "gpt' % (prefix.encode(), PATHS[caller].encode(), CALLER_KEY.encode())
    )
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()
    async with asyncio.timeout(2):
        while served.gateway.in_flight:
            await asyncio.sleep(0.01)
    assert provider.requests == []


@from_each
async def test_headers_that_pass_and_that_do_not(
    served: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str
) -> None:
    headers = {
        **JSON,
        "cookie": "session=secret",
        "x-forwarded-for": "10.0.0.1",
        "anthropic-beta": "one-2026-01-01,two-2026-02-02",
        "anthropic-version": "2023-06-01",
        "x-app": "cli",
        "openai-organization": "org-1",
        "idempotency-key": "k1",
        "x-internal": "keep to yourself",
    }
    await http.post(served.base + PATHS[caller], data=body(caller), headers=headers)
    got = provider.last.headers
    assert got["idempotency-key"] == "k1"
    for name in ("cookie", "x-forwarded-for", "x-internal"):
        assert name not in got
    if caller == ANTHROPIC:
        assert got["anthropic-beta"] == "one-2026-01-01,two-2026-02-02"
        assert got["anthropic-version"] == "2023-06-01"
        assert got["x-app"] == "cli"
        assert "openai-organization" not in got
    else:
        assert got["openai-organization"] == "org-1"
        assert "anthropic-beta" not in got
