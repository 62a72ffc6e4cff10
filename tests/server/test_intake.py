"""What a request may look like: ids, headers, media types, packed and endless bodies, and who is believed to have sent it."""

from __future__ import annotations

import contextlib
import gzip
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate.gateway.server.intake import request_id_of

from .house import CHAT, MESSAGES, SIMULATED, House, Wire, body_of, head_of, serving, wire

IDS = {
    "trace-42.a:b_c": True,
    "A" * 128: True,
    "0": True,
    "A" * 129: False,
    "": False,
    "-leading": False,
    "a b": False,
    "a\nb": False,
    "a\n": False,
    'a"b': False,
    "ü": False,
    "a\x00": False,
    "٣": False,
}


@pytest.mark.parametrize("presented", IDS)
def test_request_ids(presented: str) -> None:
    assert (request_id_of(presented) == presented) is IDS[presented]


def test_a_new_id_each_time() -> None:
    made = {request_id_of(None) for _ in range(1000)}
    assert len(made) == 1000
    assert all(request_id_of(each) == each for each in made)


def small(max_body: str = "64KiB", **more: str) -> str:
    options = ", ".join(f"{name}: {value}" for name, value in {"max_body": max_body, **more}.items())
    return f"server: {{max_header: 4KiB, {options}}}\n" + _dedented(SIMULATED)


def _dedented(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


async def answer(client: Wire) -> tuple[int, dict[str, str], Any]:
    status, headers = await client.head()
    return status, headers, json.loads(await client.read(int(headers["content-length"])))


async def ask(house: House, headers: dict[str, str], body: bytes | None = None, path: str = CHAT) -> tuple[int, Any]:
    body = body_of() if body is None else body
    async with wire(house) as client:
        client.send(head_of(house, len(body), headers, path=path) + body)
        status, given, parsed = await answer(client)
        if status >= 400:
            assert given["x-request-id"]
            assert given["content-type"] == "application/json"
        return status, parsed


# --- headers


@pytest.mark.parametrize(("size", "status"), [(3000, 200), (4096, 431), (12_000, 431)])
@pytest.mark.parametrize("spread", [False, True], ids=["one header", "many"])
async def test_header_limit(tmp_path: Path, size: int, status: int, spread: bool) -> None:
    headers = {f"x-{number}": "x" * 94 for number in range(size // 100)} if spread else {"x-long": "x" * size}
    options = {"max_field_size": 16384, "max_line_size": 16384}
    for path in (CHAT, MESSAGES):
        async with serving(tmp_path, small(), **options) as house:
            got, parsed = await ask(house, headers, path=path)
        assert got == status
        if status == 431:
            assert "4096" in parsed["error"]["message"]


async def test_headers_are_limited_for_the_model_list_too(tmp_path: Path) -> None:
    async with serving(tmp_path, small()) as house, wire(house) as client:
        client.send(head_of(house, 0, {"x-long": "x" * 5000}, path="/v1/models", method="GET"))
        assert (await answer(client))[0] == 431


REPEATED = {
    "authorization": 400,
    "x-api-key": 400,
    "content-type": 400,  # aiohttp's own doing
    "x-request-id": 400,
    "x-other": 200,
    "anthropic-beta": 200,
}


@pytest.mark.parametrize("name", REPEATED)
async def test_headers_that_stand_twice(tmp_path: Path, name: str) -> None:
    body = body_of()
    async with serving(tmp_path) as house, wire(house) as client:
        head = head_of(house, len(body), {name: "application/json"})
        client.send(head[:-2] + f"{name.title()}: text/plain\r\n\r\n".encode() + body)
        status, headers = await client.head()
        text = await client.read(int(headers["content-length"]))
    assert status == REPEATED[name]
    if status == 400:
        assert name in text.decode().lower()


async def test_the_same_value_twice_is_no_riddle(tmp_path: Path) -> None:
    body = body_of()
    async with serving(tmp_path) as house, wire(house) as client:
        client.send(head_of(house, len(body), {"x-api-key": "k"})[:-2] + b"X-API-Key: k\r\n\r\n" + body)
        assert (await answer(client))[0] == 200


# --- media types: what a page of a browser may send without asking first must not be served

MEDIA: list[tuple[dict[str, str], int]] = [
    ({"content-type": "application/json"}, 200),
    ({"content-type": "Application/JSON ; charset=UTF-8"}, 200),
    ({"content-type": "application/problem+json"}, 200),
    ({"content-type": "text/plain"}, 415),
    ({"content-type": "text/plain; x=application/json"}, 415),
    ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ({"content-type": "multipart/form-data; boundary=x"}, 415),
    ({"content-type": "application/jsonp"}, 415),
    ({"content-type": ""}, 415),
    ({"content-type": "text/plain, application/json"}, 415),
    ({}, 200),
    ({"origin": "https://evil.example"}, 415),
    ({"origin": "null"}, 415),
    ({"origin": "https://evil.example", "content-type": "application/json"}, 200),
]


@pytest.mark.parametrize(("headers", "status"), MEDIA)
async def test_media_types(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    body = body_of()
    async with serving(tmp_path) as house, wire(house) as client:
        head = head_of(house, len(body), headers).replace(b"content-type: application/json\r\n", b"", 1)
        if "json" in headers.get("content-type", "").lower():
            head = head_of(house, len(body), headers)
        client.send(head + body)
        got, _, parsed = await answer(client)
    assert got == status
    if status == 415:
        assert "application/json" in parsed["error"]["message"]
        assert parsed["error"]["code"] == "unsupported"


# --- bodies


@pytest.mark.parametrize("more", [0, 1])
async def test_body_limit(tmp_path: Path, more: int) -> None:
    room = 65536 - len(body_of(""))
    async with serving(tmp_path, small()) as house:
        status, parsed = await ask(house, {}, body_of("x" * (room + more)))
    assert status == (413 if more else 200)
    if more:
        assert "65536" in parsed["error"]["message"]


async def test_a_length_above_the_limit_is_refused_before_the_body(tmp_path: Path) -> None:
    async with serving(tmp_path, small()) as house, wire(house) as client:
        client.send(head_of(house, 10**9))
        assert (await answer(client))[0] == 413


async def test_a_body_without_a_length_is_limited_while_it_comes(tmp_path: Path) -> None:
    async with serving(tmp_path, small()) as house, wire(house) as client:
        client.send(head_of(house, None))
        for _ in range(9):
            client.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        # No end mark: the answer does not wait for one.
        assert (await answer(client))[0] == 413


async def test_a_chunked_body_in_single_bytes(tmp_path: Path) -> None:
    async with serving(tmp_path, small()) as house, wire(house) as client:
        client.send(head_of(house, None))
        for byte in body_of("single bytes"):
            client.send(b"1\r\n%c\r\n" % byte)
            await client.writer.drain()
        client.send(b"0\r\n\r\n")
        status, _, parsed = await answer(client)
    assert status == 200
    assert parsed["choices"][0]["message"]["content"] == "You said: single bytes"


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS = {"gzip": gzip.compress, "GZip": gzip.compress, "deflate": zlib.compress, "raw": raw_deflate}


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("size", [10, 60_000])
async def test_packed_bodies(tmp_path: Path, name: str, size: int) -> None:
    packed = PACKERS[name](body_of("y" * size))
    async with serving(tmp_path, small()) as house:
        status, parsed = await ask(house, {"content-encoding": "deflate" if name == "raw" else name}, packed)
    assert status == 200
    assert parsed["choices"][0]["message"]["content"] == "You said: " + "y" * size


BROKEN = {
    "truncated": gzip.compress(body_of("word " * 2000))[:-20],
    "truncated early": gzip.compress(body_of("word " * 2000))[:12],
    "garbage": b"this is no gzip",
    "a flipped byte": gzip.compress(body_of("word " * 2000))[:-6] + b"\x00" * 6,
    "plain": body_of(),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_packing(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, small()) as house:
        status, parsed = await ask(house, {"content-encoding": "gzip"}, BROKEN[name])
        assert status == 400, parsed
        assert (await ask(house, {}))[0] == 200, "it does not serve on"


async def test_what_follows_the_packed_body_is_not_believed(tmp_path: Path) -> None:
    """A second gzip member, or bytes after the end: either the whole is read, or refused."""
    async with serving(tmp_path, small()) as house:
        for tail in (gzip.compress(b"garbage"), b"garbage"):
            status, _ = await ask(house, {"content-encoding": "gzip"}, gzip.compress(body_of()) + tail)
            assert status in (200, 400)


@pytest.mark.parametrize("encoding", ["exi", "gzip, gzip", "compress", "x" * 100])
async def test_encodings_that_nobody_reads(tmp_path: Path, encoding: str) -> None:
    async with serving(tmp_path, small()) as house:
        status, parsed = await ask(house, {"content-encoding": encoding})
    assert status == 415
    assert len(parsed["error"]["message"]) < 200


def bomb(size: int) -> bytes:
    """Return a gzip of ``size`` megabytes of nothing, made of one block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(b"\x00" * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b"\x00" * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (size - 1)


async def test_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    packed = bomb(64)
    async with serving(tmp_path, small(max_body="1MiB")) as house, wire(house) as client:
        tracemalloc.start()
        client.send(head_of(house, len(packed), {"content-encoding": "gzip"}) + packed)
        status, _, _ = await answer(client)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert status == 413
    assert peak < 16 << 20


BOMBS: dict[str, tuple[str, str, dict[str, str]]] = {
    "too large": ("POST", CHAT, {}),
    "of another media type": ("POST", CHAT, {"content-type": "text/plain"}),
    "nowhere": ("POST", "/nowhere", {}),
    "another method": ("PUT", CHAT, {}),
    "for a list": ("GET", "/v1/models", {}),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_refused_bomb_is_not_unpacked_further(tmp_path: Path, name: str) -> None:
    """The answer is out, the connection closed: nobody works through the rest for the sake of politeness."""
    method, path, headers = BOMBS[name]
    packed = bomb(12_000)  # unpacked for ten seconds, if it were
    async with serving(tmp_path, small(max_body="1MiB")) as house, wire(house) as client:
        head = head_of(house, len(packed), {"content-encoding": "gzip", **headers}, method=method, path=path)
        client.send(head + packed)
        with contextlib.suppress(ConnectionError):
            await client.rest(5)
        await house.idle()


# --- the request line

PATHS = {
    "absolute": "http://x{path}",
    "query": "{path}?beta=true",
    "fragment": "{path}#x",
    "escaped": "/v1/%63hat/completions",
}


@pytest.mark.parametrize("name", PATHS)
async def test_rules_see_the_same_path_however_it_is_spelled(tmp_path: Path, name: str) -> None:
    """A rule on the path must not be evaded by another spelling of it."""
    text = """
        upstreams: {sim: {adapter: simulator}, other: {adapter: simulator}}
        routes:
          - {name: by-path, match: {path: /v1/chat/completions}, to: sim}
          - {name: rest, to: other}
    """
    body = body_of()
    async with serving(tmp_path, text) as house, wire(house) as client:
        client.send(head_of(house, len(body), path=PATHS[name].format(path=CHAT)) + body)
        status, headers, _ = await answer(client)
    assert status == 200
    assert headers["headgate-route"] == "by-path"


# --- where the caller is

FORWARDED: list[tuple[str | None, str, str]] = [
    ("127.0.0.0/8", "203.0.113.9", "203.0.113.9"),
    ("127.0.0.0/8", "203.0.113.9, 127.0.0.2", "203.0.113.9"),
    ("127.0.0.0/8", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
    ("127.0.0.0/8", "6.6.6.6, 203.0.113.9, 127.0.0.2", "203.0.113.9"),
    ("127.0.0.0/8", "127.0.0.3, 127.0.0.2", "127.0.0.3"),
    ("127.0.0.0/8", "2001:db8::1", "2001:db8::1"),
    ("127.0.0.0/8", "unknown", "127.0.0.1"),
    ("127.0.0.0/8", "203.0.113.9, unknown, 127.0.0.2", "127.0.0.2"),
    ("127.0.0.0/8", "203.0.113.9:1234", "127.0.0.1"),
    ("127.0.0.0/8", "'; DROP TABLE, 127.0.0.2", "127.0.0.2"),
    ("10.0.0.0/8", "203.0.113.9", "127.0.0.1"),
    (None, "203.0.113.9", "127.0.0.1"),
]


@pytest.mark.parametrize(("trusted", "header", "expected"), FORWARDED)
async def test_forwarded_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: str | None, header: str, expected: str
) -> None:
    more = {} if trusted is None else {"trusted_proxies": f"['{trusted}']"}
    async with serving(tmp_path, small(**more)) as house:
        seen: list[str | None] = []
        original = house.gateway.prepare

        def spy(*arguments: Any) -> Any:
            call, route = original(*arguments)
            seen.append(call.remote)
            return call, route

        monkeypatch.setattr(house.gateway, "prepare", spy)
        assert (await ask(house, {"x-forwarded-for": header}))[0] == 200
    assert seen == [expected]


async def test_expect_is_refused_early(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """A client that asks first need not send what is too large."""
    async with serving(tmp_path, small()) as house, wire(house) as client:
        client.send(head_of(house, 10**8, {"expect": "100-continue"}))
        line = await client.reader.readline()
        assert line.split()[1] in (b"100", b"413")
