"""What nobody translates, over sockets: official SDKs and plain requests, through a gateway, to a provider of files."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import ssl
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from aiohttp import web
from headgate.gateway.server.gateway import Gateway
from headgate.gateway.server.handlers import make_server
from yarl import URL

from ..fakes.anthropic_checks import VERSIONS
from ..fakes.files_api import AUDIO, PIECE, FilesProvider
from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import KEY
from .voices import gemini_client

RULES = """
    version: 1
    server:
      anonymous: allow
      max_body: 1MiB
      receive: {receive}
      max_upload: {most}
      trusted_proxies: {trusted}
    upstreams:
      openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, passthrough: true}}
      retried: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, passthrough: true, chain: again}}
      audio: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, passthrough: [/v1/audio]}}
      badkey: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_WRONG_KEY, passthrough: true}}
      gone: {{adapter: openai, base_url: "http://127.0.0.1:9/v1", key: env:TEST_PROVIDER_KEY, passthrough: true}}
      claude: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY, passthrough: true}}
      google: {{adapter: gemini, base_url: "{base}", key: env:TEST_PROVIDER_KEY, passthrough: true}}
      theirs: {{adapter: openai, base_url: "{base}/v1", credential: pass-through, passthrough: true}}
      slow:
        adapter: openai
        base_url: "{base}/v1"
        key: env:TEST_PROVIDER_KEY
        passthrough: true
        timeout: {{write: 300ms}}
      likes: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
    chains:
      again: [{{retry: {{tries: 2, backoff: 10ms}}}}]
      base: [{{auth: {{keys: [{{name: test, key: env:TEST_CALLER_KEY}}]}}}}, {{log: {{to: "{log}"}}}}]
    targets:
      either: {{select: [{{use: likes}}], on_failure: [{{kinds: [rate_limit, overloaded], use: openai}}]}}
      down: {{select: [{{use: gone}}], on_failure: [{{kinds: [connect, rate_limit], use: openai}}]}}
    routes:
      - {{name: renamed, match: {{model: small}}, chain: base, to: openai/large}}
      - {{name: badkey, match: {{header.x-way: badkey}}, chain: base, to: badkey}}
      - {{name: again, match: {{path: "/v1/*", header.x-way: again}}, chain: base, to: retried}}
      - {{name: either, match: {{path: "/v1/*", header.x-way: either}}, chain: base, to: either}}
      - {{name: down, match: {{path: "/v1/*", header.x-way: down}}, chain: base, to: down}}
      - {{name: slow, match: {{path: "/v1/*", header.x-way: slow}}, chain: base, to: slow}}
      - {{name: likes, match: {{header.x-way: likes}}, to: likes}}
      - {{name: theirs, match: {{format: openai.passthrough, header.x-way: theirs}}, to: theirs}}
      - {{name: claude, match: {{format: anthropic.*}}, chain: base, to: claude}}
      - {{name: google, match: {{format: [gemini, gemini.passthrough]}}, chain: base, to: google}}
      - {{name: files, match: {{path: [/v1/files*, /v1/vector_stores*]}}, chain: base, to: openai}}
      - {{name: rest, chain: base, to: openai}}
"""


@dataclass
class House:
    """The gateway, the provider behind it, and its log."""

    base: str
    provider: FilesProvider
    log: Path
    gateway: Gateway
    http: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, bytes, Any]:
        """Return status, body and headers of an answer."""
        headers = {"authorization": f"Bearer {CALLER_KEY}", **more.pop("headers", {})}
        url = URL(self.base + path, encoded=True)
        if isinstance(more.get("data"), bytes):
            more["data"] = io.BytesIO(more["data"])
        async with self.http.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
            return answer.status, await answer.read(), answer.headers

    async def line(self) -> dict[str, Any]:
        """The last line of the log."""
        await until(lambda: self.gateway.in_flight == 0)
        await asyncio.sleep(0.25)
        found: dict[str, Any] = json.loads(self.log.read_text().splitlines()[-1])
        return found


async def until(claim: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not claim():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    directory: Path, mode: str = "standalone", receive: str = "5s", most: str = "16MiB", trusted: str = "[]"
) -> AsyncIterator[House]:
    async with FilesProvider() as provider, aiohttp.ClientSession() as http:
        path, log = directory / "routes.yaml", directory / "access.jsonl"
        rules = RULES.format(base=provider.base, log=log, receive=receive, most=most, trusted=trusted)
        path.write_text(textwrap.dedent(rules))
        gateway = Gateway.load(path)
        runner: web.BaseRunner[Any]
        prefix = ""
        if mode == "standalone":
            await gateway.start()
            runner = web.ServerRunner(make_server(gateway), shutdown_timeout=0.1)
        else:
            app = web.Application()
            gateway.mount(app, prefix := "/llm")
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield House(f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}", provider, log, gateway, http)
            await until(lambda: gateway.in_flight == 0)
        finally:
            await runner.cleanup()
            await gateway.aclose()


@pytest.fixture(params=["standalone", "mounted"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    async with serving(tmp_path, request.param) as house:
        yield house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with serving(tmp_path) as house:
        yield house


def openai_sdk(house: House, tls: ssl.SSLContext, **headers: str) -> openai.AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(verify=tls)
    return openai.AsyncOpenAI(
        api_key=CALLER_KEY,
        base_url=house.base + "/v1",
        max_retries=0,
        timeout=10,
        http_client=http,
        default_headers=headers,
    )


# -- official SDKs


async def test_openai_transcribes_a_file(either: House, tls: ssl.SSLContext) -> None:
    sound = b"RIFF" + bytes(300_000)
    async with openai_sdk(either, tls) as client:
        heard = await client.audio.transcriptions.create(model="whisper-1", file=("a.wav", sound, "audio/wav"))
    assert heard.text == "Hello there."
    seen = either.provider.last
    assert (seen.method, seen.target) == ("POST", "/v1/audio/transcriptions")
    assert sound in seen.body and b'name="model"\r\n\r\nwhisper-1\r\n' in seen.body
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert seen.headers["content-length"] == str(seen.size)
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    line = await either.line()
    assert (line["model"], line["format"], line["method"], line["status"]) == (
        "whisper-1",
        "openai.passthrough",
        "POST",
        200,
    )
    assert (line["received_bytes"], line["route"], line["outcome"]) == (seen.size, "rest", "ok")
    assert line["sent_bytes"] == len(b'{"text": "Hello there."}')


async def test_openai_speaks_and_draws(house: House, tls: ssl.SSLContext) -> None:
    async with openai_sdk(house, tls) as client:
        async with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="Hi") as said:
            assert said.headers["content-type"] == "audio/wav"
            assert await said.read() == AUDIO
        drawn = await client.images.generate(model="gpt-image-1", prompt="a cat")
        assert drawn.data is not None and drawn.data[0].b64_json == "aGVsbG8="
        edited = await client.images.edit(model="gpt-image-1", prompt="a hat", image=("a.png", b"\x89PNG", "image/png"))
        assert edited.data is not None
    assert [seen.target for seen in house.provider.seen] == [
        "/v1/audio/speech",
        "/v1/images/generations",
        "/v1/images/edits",
    ]
    assert json.loads(house.provider.seen[1].body) == {"model": "gpt-image-1", "prompt": "a cat"}


async def test_openai_keeps_files(either: House, tls: ssl.SSLContext) -> None:
    async with openai_sdk(either, tls) as client:
        made = await client.files.create(file=("a.jsonl", b"{}\n" * 100_000), purpose="batch")
        assert made.id == "file-1" and either.provider.last.size > 300_000
        assert [each.id async for each in client.files.list(limit=1, purpose="batch")] == ["file-1"]
        assert either.provider.last.target == "/v1/files?limit=1&purpose=batch"
        assert (await client.files.retrieve("file-1")).filename == "a.txt"
        content = await client.files.content("file-1")
        assert content.read() == PIECE * 3
        assert (await client.files.delete("file-1")).deleted
    assert either.provider.last.method == "DELETE" and "content-type" not in either.provider.last.headers


async def test_anthropic_batches_and_files(house: House, tls: ssl.SSLContext) -> None:
    http = anthropic.DefaultAsyncHttpxClient(verify=tls)
    async with anthropic.AsyncAnthropic(api_key=CALLER_KEY, base_url=house.base, max_retries=0, http_client=http) as it:
        message: Any = {"model": "claude-x", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
        batch = await it.messages.batches.create(requests=[{"custom_id": "a", "params": message}])
        assert batch.id == "msgbatch_1"
        assert house.provider.last.target == "/v1/messages/batches"
        assert house.provider.last.headers["x-api-key"] == KEY
        assert house.provider.last.headers["anthropic-version"] in VERSIONS
        await it.messages.batches.retrieve("msgbatch_1")
        assert (house.provider.last.method, house.provider.last.target) == ("GET", "/v1/messages/batches/msgbatch_1")
        # The same path as OpenAI's: the header says whose it is.
        raw = await it.get("/v1/files", cast_to=dict[str, object])
        assert raw["object"] == "list"
        assert house.provider.last.headers["x-api-key"] == KEY
        assert (await house.line())["format"] == "anthropic.passthrough"


@pytest.mark.parametrize("root", ["{provider}", "https://api.anthropic.com"])
async def test_anthropic_finds_its_results_at_the_gateway(either: House, tls: ssl.SSLContext, root: str) -> None:
    """The SDK goes where the batch says they are, with the key that it has."""
    root = root.format(provider=either.provider.base)
    either.provider.results_at = f"{root}/v1/messages/batches/msgbatch_1/results"
    http = anthropic.DefaultAsyncHttpxClient(verify=tls)
    async with anthropic.AsyncAnthropic(
        api_key=CALLER_KEY, base_url=either.base, max_retries=0, http_client=http
    ) as it:
        batch = await it.messages.batches.retrieve("msgbatch_1")
        assert batch.results_url == f"{either.base}/v1/messages/batches/msgbatch_1/results"
        results = [each async for each in await it.messages.batches.results("msgbatch_1")]
    assert [each.custom_id for each in results] == ["a"]
    assert either.provider.last.target == "/v1/messages/batches/msgbatch_1/results"
    assert either.provider.last.headers["x-api-key"] == KEY


async def test_a_new_call_says_where_it_is(either: House) -> None:
    status, body, headers = await either.ask(
        "POST", "/v1/realtime/calls", data=b"v=0", headers={"content-type": "application/sdp", "x-way": "again"}
    )
    prefix = URL(either.base).path.rstrip("/")
    assert (status, body, headers["location"]) == (201, b"v=0 answer", f"{prefix}/v1/realtime/calls/rtc_1")
    assert either.provider.last.headers["content-type"] == "application/sdp"


async def test_events_are_held_back_by_nobody(house: House) -> None:
    _, _, headers = await house.ask("POST", "/v1/audio/transcriptions?stream=1")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    _, _, headers = await house.ask("POST", "/v1/audio/transcriptions")
    assert "x-accel-buffering" not in headers


async def test_gemini_uploads_and_embeds(either: House, tls: ssl.SSLContext) -> None:
    sent = bytes(range(256)) * 2000
    async with gemini_client(either.base, CALLER_KEY, tls) as client:
        made = await client.files.upload(file=io.BytesIO(sent), config={"mime_type": "text/plain"})
        assert made.name == "files/f1" and made.size_bytes == len(sent)
        seen = either.provider.last
        assert (seen.size, seen.digest) == (len(sent), hashlib.sha256(sent).hexdigest())
        assert seen.headers["x-goog-upload-command"] == "upload, finalize" and seen.headers["x-goog-api-key"] == KEY
        found = await client.models.embed_content(model="gemini-embedding-001", contents="Hello")
    assert found.embeddings is not None and found.embeddings[0].values == [0.5, 0.25]
    assert either.provider.last.target == "/v1/models/gemini-embedding-001:batchEmbedContents"
    assert (await either.line())["model"] == "gemini-embedding-001"
    _, _, headers = await either.ask("GET", "/v1/files", headers={"x-goog-api-key": CALLER_KEY})
    assert headers["headgate-route"] == "google"


async def test_an_upload_url_leads_back_to_the_gateway(either: House) -> None:
    status, _, headers = await either.ask("POST", "/upload/v1beta/files", data=b"{}")
    assert status == 200
    assert headers["x-goog-upload-url"] == (f"{either.base}/upload/v1beta/files?upload_id=42&upload_protocol=resumable")


@pytest.mark.parametrize(("trusted", "scheme"), [("[127.0.0.0/8]", "https"), ("[10.0.0.0/8]", "http"), ("[]", "http")])
async def test_behind_a_proxy_it_leads_back_to_that(tmp_path: Path, trusted: str, scheme: str) -> None:
    async with serving(tmp_path, trusted=trusted) as house:
        told = {"x-forwarded-proto": "https", "host": "gateway.example"}
        _, _, headers = await house.ask("POST", "/upload/v1beta/files", data=b"{}", headers=told)
        assert headers["x-goog-upload-url"].startswith(f"{scheme}://gateway.example/upload/")


# -- what passes


async def test_only_what_may_passes(house: House) -> None:
    status, _, headers = await house.ask(
        "GET",
        "/v1/files?include[]=a&include[]=b%20c&api_key=sk-x&KEY=y&after=z",
        headers={
            "cookie": "a=b",
            "x-api-key": CALLER_KEY,
            "x-odd": "1",
            "openai-beta": "assistants=v2",
            "accept": "application/json",
            "connection": "x-odd",
        },
    )
    assert status == 200
    seen = house.provider.last
    assert seen.target == "/v1/files?include[]=a&include[]=b%20c&after=z"
    assert seen.headers["host"] == house.provider.base.removeprefix("http://")
    assert seen.headers["openai-beta"] == "assistants=v2"
    assert {"cookie", "x-odd", "x-api-key", "content-type"}.isdisjoint(seen.headers)
    assert CALLER_KEY not in str(seen.headers)
    assert headers["openai-version"] == "2020" and headers["headgate-upstream-request-id"] == "req_theirs"
    assert headers["headgate-route"] == "files" and headers["headgate-upstream"] == "openai"
    assert "set-cookie" not in headers and headers.get("server") != "theirs"


async def test_a_download_passes_with_its_headers_and_a_part_of_it(either: House) -> None:
    status, body, headers = await either.ask("GET", "/v1/files/file-1/content")
    assert (status, body) == (200, PIECE * 3)
    assert headers["content-length"] == str(len(body)) and headers["content-disposition"].startswith("attachment")
    status, body, headers = await either.ask("GET", "/v1/files/file-1/content", headers={"range": "bytes=2-5"})
    assert (status, body, headers["content-range"]) == (206, PIECE[2:6], f"bytes 2-5/{either.provider.download}")
    status, body, headers = await either.ask("HEAD", "/v1/files/file-1/content")
    assert (status, body, headers["content-length"]) == (200, b"", str(either.provider.download))


async def test_a_path_without_its_version_is_the_same(house: House) -> None:
    status, _, _ = await house.ask("POST", "/audio/speech", json={"model": "tts-1"})
    assert (status, house.provider.last.target) == (200, "/v1/audio/speech")
    assert (await house.line())["path"] == "/v1/audio/speech"


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmall\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--b--\r\n'
)


@pytest.mark.parametrize("size", [3, 400_000])
async def test_a_model_in_a_form_can_be_renamed(house: House, size: int) -> None:
    form, kind = FORM % (b"x" * size), {"content-type": "multipart/form-data; boundary=b"}
    status, _, headers = await house.ask("POST", "/v1/audio/transcriptions", data=form, headers=kind)
    assert (status, headers["headgate-route"]) == (200, "renamed")
    assert house.provider.last.body == form.replace(b"small", b"large")
    assert house.provider.last.headers["content-length"] == str(len(form))


async def test_a_model_in_json_can_be_renamed(house: House) -> None:
    body = b'{"prompt": "small",  "model":"small"}'
    kind = {"content-type": "application/json"}
    status, _, _ = await house.ask("POST", "/v1/images/generations", data=body, headers=kind)
    assert (status, house.provider.last.body) == (200, b'{"prompt": "small",  "model":"large"}')


async def test_a_chunked_upload_stays_one(house: House) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield PIECE

    status, _, _ = await house.ask("POST", "/v1/files", data=pieces())
    assert (status, house.provider.last.size) == (200, 20 * len(PIECE))
    assert house.provider.last.headers["transfer-encoding"] == "chunked"


async def test_a_packed_upload_goes_on_unpacked(house: House) -> None:
    sent = bytes(range(256)) * 4000
    packed = {"content-encoding": "gzip"}
    status, _, _ = await house.ask("POST", "/v1/files", data=gzip.compress(sent), headers=packed)
    assert (status, house.provider.last.digest) == (200, hashlib.sha256(sent).hexdigest())
    assert "content-encoding" not in house.provider.last.headers


async def test_the_callers_key_passes_where_the_route_says_so(house: House) -> None:
    headers = {"x-way": "theirs", "authorization": f"Bearer {KEY}"}
    status, _, _ = await house.ask("GET", "/v1/files", headers=headers)
    assert (status, house.provider.last.headers["authorization"]) == (200, f"Bearer {KEY}")


# -- errors


async def test_auth_guards_it(house: House) -> None:
    status, body, _ = await house.ask("GET", "/v1/files", headers={"authorization": "Bearer sk-nobody"})
    assert status == 401 and json.loads(body)["error"]["code"] in ("auth", "invalid_api_key")
    assert house.provider.seen == []


async def test_a_providers_error_keeps_its_words_and_no_key(house: House) -> None:
    status, body, headers = await house.ask("GET", "/v1/audio/speech", headers={"x-way": "badkey"})
    assert status == 401 and b"sk-a-key-nobody-knows" not in body and b"***" in body
    assert headers["headgate-error"] == "auth"
    assert (await house.line())["outcome"] == "auth"


async def test_redirects_are_not_followed(house: House) -> None:
    house.provider.redirect = "https://elsewhere.example/file?signature=1"
    status, body, headers = await house.ask("GET", "/v1/files/file-1/content")
    assert status == 502 and b"redirect" in body and "location" not in headers


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/v1/files/%2e%2e/organization/admin_api_keys", b"relative"),
        ("/v1/files/a%2fb", b"encoded"),
        ("/v1/files//content", b"empty"),
        ("/v1/files/a%5cb", b"several ways"),
        ("/v1/files/a%252e", b"several ways"),
    ],
)
async def test_odd_paths_do_not_pass(house: House, path: str, why: bytes) -> None:
    host = house.base.removeprefix("http://")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ") and why in answer
    assert house.provider.seen == []


async def test_a_page_of_another_origin_may_not_send_a_form(house: House) -> None:
    kind = {"content-type": "multipart/form-data; boundary=b", "origin": "https://evil.example"}
    status, _, _ = await house.ask("POST", "/v1/audio/transcriptions", data=FORM % b"x", headers=kind)
    assert status == 403 and house.provider.seen == []


async def test_a_body_may_be_larger_than_a_call_but_not_than_an_upload(house: House) -> None:
    assert (await house.ask("POST", "/v1/files", data=bytes(2 << 20)))[0] == 200
    status, body, _ = await house.ask("POST", "/v1/files", data=bytes(17 << 20))
    assert status == 413 and b"max_upload" in body and len(house.provider.seen) == 1

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(17 * 16):
            yield PIECE

    status, body, _ = await house.ask("POST", "/v1/files", data=pieces())
    assert status == 413 and b"max_upload" in body
    await until(lambda: house.provider.last.aborted)


async def test_a_failure_in_the_middle_of_an_answer_is_no_clean_end(either: House) -> None:
    either.provider.cut_after = len(PIECE)
    with pytest.raises(aiohttp.ClientPayloadError):
        await either.ask("GET", "/v1/files/file-1/content")
    assert (await either.line())["outcome"] == "cut"


# -- retry, and what serves what


async def test_a_small_request_is_sent_again(house: House) -> None:
    house.provider.failing = {1: 429}
    status, _, headers = await house.ask("POST", "/v1/files", data=b"abc", headers={"x-way": "again"})
    assert (status, headers["headgate-attempts"], len(house.provider.seen)) == (200, "2", 2)
    assert [seen.body for seen in house.provider.seen] == [b"abc", b"abc"]


async def test_a_large_one_is_not_once_it_was_begun(house: House) -> None:
    house.provider.failing = {1: 429}
    status, _, headers = await house.ask("POST", "/v1/files", data=bytes(1 << 20), headers={"x-way": "again"})
    assert (status, headers["headgate-attempts"], len(house.provider.seen)) == (429, "1", 1)


async def test_a_large_one_goes_elsewhere_if_nobody_listens(house: House) -> None:
    sent = bytes(range(256)) * 4096
    status, _, headers = await house.ask("POST", "/v1/files", data=sent, headers={"x-way": "down"})
    assert (status, headers["headgate-upstream"], headers["headgate-attempts"]) == (200, "openai", "2")
    assert house.provider.last.digest == hashlib.sha256(sent).hexdigest()


async def test_a_target_passes_by_who_does_not_serve_it(house: House) -> None:
    status, _, headers = await house.ask("GET", "/v1/files", headers={"x-way": "either"})
    assert (status, headers["headgate-upstream"]) == (200, "openai")


async def test_a_route_that_cannot_serve_it_is_passed_by(house: House) -> None:
    """Its upstream is no vendor's, and says nothing of such paths."""
    status, _, headers = await house.ask("POST", "/v1/audio/speech", json={}, headers={"x-way": "likes"})
    assert (status, headers["headgate-route"]) == (200, "rest")


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/v1/batches", "/v1/batches*"),  # the catch-all does not speak of it
        ("POST", "/v1/fine_tuning/jobs", "/v1/fine_tuning*"),
        ("DELETE", "/v1/models/ft:gpt:me", "/v1/models*"),
        ("POST", "/v1/realtime/client_secrets", "/v1/realtime*"),
        ("GET", "/v1/organization/admin_api_keys", "administration"),
        ("GET", "/v2/chat", "/v1"),
        ("POST", "/v2/rerank", "/v1"),
    ],
)
async def test_what_is_known_and_not_served_says_how(house: House, method: str, path: str, said: str) -> None:
    status, body, headers = await house.ask(method, path)
    assert (status, headers["headgate-error"]) == (501, "unsupported")
    assert said in json.loads(body)["error"]["message"]
    assert house.provider.seen == []


async def test_each_api_says_it_in_its_own_shape(house: House) -> None:
    status, body, _ = await house.ask("GET", "/v1/organizations/me", headers={"anthropic-version": "2023-06-01"})
    assert status == 501 and json.loads(body)["type"] == "error"
    status, body, _ = await house.ask("GET", "/v2/x", headers={"anthropic-version": "2023-06-01"})
    assert status == 501 and json.loads(body)["type"] == "error"
    status, body, _ = await house.ask("POST", "/api/embeddings")
    assert (status, list(json.loads(body))) == (404, ["error"]) and isinstance(json.loads(body)["error"], str)
    status, body, headers = await house.ask("GET", "/v1/messages/count_tokens")
    assert (status, headers["allow"], json.loads(body)["type"]) == (405, "POST", "error")
    for path in ("/v1/nonsense", "/v3/files", "/nonsense"):
        status, body, headers = await house.ask("GET", path)
        assert (status, headers["headgate-error"]) == (404, "not_found")


# -- bounds


async def test_a_client_that_leaves_in_the_middle_of_an_upload_closes_it(either: House) -> None:
    host = either.base.removeprefix("http://").partition("/")[0]
    prefix = either.base.removeprefix(f"http://{host}")
    _, writer = await asyncio.open_connection(*host.split(":"))
    head = f"POST {prefix}/v1/files HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {CALLER_KEY}\r\n"
    writer.write(head.encode() + b"content-length: 5000000\r\n\r\n" + bytes(1 << 20))
    await writer.drain()
    await until(lambda: bool(either.provider.seen) and either.provider.last.size > 100_000)
    writer.transport.abort()
    await until(lambda: either.provider.last.aborted)
    await until(lambda: either.gateway.in_flight == 0)


async def test_a_client_that_sends_nothing_more_is_given_up(tmp_path: Path) -> None:
    async with serving(tmp_path, receive="300ms") as house:
        host = house.base.removeprefix("http://")
        reader, writer = await asyncio.open_connection(*host.split(":"))
        head = f"POST /v1/files HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {CALLER_KEY}\r\n"
        writer.write(head.encode() + b"content-length: 500000\r\n\r\n" + bytes(200_000))
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
        assert answer.startswith(b"HTTP/1.1 408 ")
        writer.close()
        await until(lambda: house.provider.last.aborted)


async def test_a_provider_that_reads_no_more_is_given_up(house: House) -> None:
    house.provider.pause_s = 3.0
    status, _, headers = await house.ask("POST", "/v1/files", data=bytes(15 << 20), headers={"x-way": "slow"})
    assert (status, headers["headgate-error"]) == (504, "timeout.write")


async def test_an_upload_that_is_refused_early_is_not_read_to_its_end(house: House) -> None:
    house.provider.early = 413
    with_length = {"content-length": str(15 << 20)}
    read = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(240):
            read += len(PIECE)
            yield PIECE
            await asyncio.sleep(0.001)

    status, body, _ = await house.ask("POST", "/v1/files", data=pieces(), headers=with_length)
    assert status == 413 and json.loads(body)["error"]["code"] == "odd"


async def test_a_slow_reader_holds_the_provider_back(house: House) -> None:
    house.provider.download = 64 << 20
    headers = {"authorization": f"Bearer {CALLER_KEY}"}
    async with house.http.get(f"{house.base}/v1/files/f/content", headers=headers) as answer:
        await answer.content.readexactly(1000)
        before = -1
        while before != house.provider.sent:
            before = house.provider.sent
            await asyncio.sleep(0.3)
        assert before < 32 << 20
        size = 1000
        async for piece in answer.content.iter_any():
            size += len(piece)
        assert size == 64 << 20


# -- sockets


def socket_url(house: House) -> str:
    return house.base.replace("http", "ws", 1) + "/v1/realtime?model=gpt-realtime&key=x"


async def test_openai_talks_in_realtime(either: House, tls: ssl.SSLContext) -> None:
    async with openai_sdk(either, tls) as client, client.realtime.connect(model="gpt-realtime") as talk:
        first = await talk.recv()
        assert first.type == "session.created"
        await talk.send({"type": "response.create"})
        assert json.loads(await talk.recv_bytes())["type"] == "response.create"
    seen = either.provider.last
    assert seen.target == "/v1/realtime?model=gpt-realtime"
    assert seen.headers["authorization"] == f"Bearer {KEY}" and CALLER_KEY not in str(seen.headers)
    line = await either.line()
    assert (line["model"], line["route"], line["outcome"], line["stream"]) == ("gpt-realtime", "rest", "ok", False)
    assert line["sent_bytes"] > 30 and line["received_bytes"] > 20


async def test_gemini_talks_live(either: House, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK puts two slashes before the path, to Google's own server, too."""
    async with gemini_client(either.base, CALLER_KEY, tls) as client:
        api: Any = client._api_client
        with_tls = api._websocket_base_url  # it insists on that
        monkeypatch.setattr(api, "_websocket_ssl_ctx", {})
        monkeypatch.setattr(api, "_websocket_base_url", lambda *given: with_tls(*given).replace("wss:", "ws:", 1))
        config: Any = {"response_modalities": ["TEXT"]}
        turn: Any = {"role": "user", "parts": [{"text": "Hi"}]}
        async with client.live.connect(model="gemini-live", config=config) as talk:
            await talk.send_client_content(turns=turn, turn_complete=True)
            heard = [message async for message in talk.receive()]
    assert [each.text for each in heard] == ["Hello."]
    seen = either.provider.last
    assert seen.target.startswith("/ws/google.ai.generativelanguage.v1.GenerativeService.BidiGenerateContent")
    assert seen.headers["x-goog-api-key"] == KEY and CALLER_KEY not in str(seen.headers) + seen.target
    assert b"models/gemini-live" in seen.body
    line = await either.line()
    assert (line["format"], line["route"], line["outcome"]) == ("gemini.passthrough", "google", "ok")


async def test_a_browser_shows_its_key_as_a_subprotocol(house: House) -> None:
    shown = ["realtime", f"openai-insecure-api-key.{CALLER_KEY}", "openai-beta.realtime-v1"]
    async with house.http.ws_connect(socket_url(house), protocols=shown) as socket:
        assert socket.protocol == "realtime"
        await socket.receive_str()
        for message in ("a", "ü" * 100_000):
            await socket.send_str(message)
            assert await socket.receive_str() == message
        await socket.send_bytes(b"ab\x00")
        assert await socket.receive_bytes() == b"\x00ba"
    seen = house.provider.last
    assert seen.headers["sec-websocket-protocol"] == "realtime,openai-beta.realtime-v1"
    assert CALLER_KEY not in str(seen.headers)
    await until(lambda: house.provider.sockets[-1].closed)
    assert house.provider.sockets[-1].close_code == 1000


@pytest.mark.parametrize(("said", "code", "reason"), [("close", 4008, "enough"), ("break", 1011, "cut")])
async def test_the_goodbye_of_the_provider_passes(house: House, said: str, code: int, reason: str) -> None:
    house.provider.socket_close = (4008, b"enough")
    headers = {"authorization": f"Bearer {CALLER_KEY}"}
    async with house.http.ws_connect(socket_url(house), headers=headers, autoclose=False) as socket:
        await socket.receive_str()
        await socket.send_str(said)
        end = await socket.receive()
        assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, code) and reason in (end.extra or "")


async def test_the_goodbye_of_the_client_passes(house: House) -> None:
    headers = {"authorization": f"Bearer {CALLER_KEY}"}
    async with house.http.ws_connect(socket_url(house), headers=headers) as socket:
        await socket.receive_str()
        await socket.close(code=4001, message=b"done")
    await until(lambda: house.provider.sockets[-1].closed)
    assert house.provider.sockets[-1].close_code == 4001


async def test_a_client_that_leaves_without_a_word_ends_it(house: House) -> None:
    headers = {"authorization": f"Bearer {CALLER_KEY}"}
    async with aiohttp.ClientSession() as http:
        socket = await http.ws_connect(socket_url(house), headers=headers)
        await socket.receive_str()
        assert house.gateway.in_flight == 1
        transport = socket.get_extra_info("socket")
        transport.shutdown(2)
        await until(lambda: house.gateway.in_flight == 0, 2)
        await until(lambda: house.provider.sockets[-1].closed, 2)
    assert (await house.line())["outcome"] == "cancelled"


async def test_no_socket_logs_a_key(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """aiohttp warns of subprotocols that it does not know, and one of them may be a key."""
    caplog.set_level("DEBUG")
    shown = [f"openai-insecure-api-key.{CALLER_KEY}"]
    headers = {"authorization": f"Bearer {CALLER_KEY}"}
    for path in ("/v1/realtime?model=x", "/v1/responses"):
        async with house.http.ws_connect(house.base + path, headers=headers, protocols=shown) as socket:
            assert socket.protocol is None
    assert CALLER_KEY not in "".join(
        record.getMessage() for record in caplog.records if record.name != "aiohttp.client"
    )


async def test_a_socket_that_is_refused_is_an_http_error(house: House) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await house.http.ws_connect(socket_url(house), headers={"authorization": "Bearer sk-nobody"})
    assert refused.value.status == 401 and house.provider.seen == []
    house.provider.handshake = 429
    headers = {"authorization": f"Bearer {CALLER_KEY}"}
    status, body, _ = await house.ask(
        "GET",
        "/v1/realtime?model=x",
        headers={
            **headers,
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        },
    )
    assert status == 429 and b"no session for" in body and KEY.encode() not in body


async def test_sockets_end_when_the_gateway_does(house: House) -> None:
    headers = {"authorization": f"Bearer {CALLER_KEY}"}
    async with house.http.ws_connect(socket_url(house), headers=headers, autoclose=False) as socket:
        await socket.receive_str()
        house.gateway.draining = True
        end = await socket.receive()
        assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 1001)
    await until(lambda: house.provider.sockets[-1].closed)
