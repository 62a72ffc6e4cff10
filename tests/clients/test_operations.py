"""Embeddings, reranking and moderation over sockets: the official SDK and plain requests, through a gateway, to providers."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from headgate.gateway.server.gateway import Gateway
from headgate.gateway.server.handlers import make_server

from ..fakes.gateway import CALLER_KEY
from ..fakes.operations_api import OperationsProvider, packed, vector

RULES = """
    version: 1
    server: {{anonymous: allow}}
    upstreams:
      openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, max_inputs: {most}}}
      retried: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, chain: again}}
      badkey: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_WRONG_KEY}}
      gone: {{adapter: openai, base_url: "http://127.0.0.1:9/v1", key: env:TEST_PROVIDER_KEY}}
      google: {{adapter: gemini, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
      local: {{adapter: ollama, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
      cohere: {{adapter: cohere, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
      claude: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
      other: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
      own: {{adapter: simulator}}
    chains:
      again: [{{retry: {{tries: 2, backoff: 10ms}}}}]
      base: [{{auth: {{keys: [{{name: test, key: env:TEST_CALLER_KEY}}]}}}}, {{log: {{to: "{log}"}}}}]
    targets:
      passing: {{select: [{{use: claude}}], on_failure: [{{kinds: [overloaded], use: cohere/embed-v4.0}}]}}
      either: {{select: [{{split: [{{use: claude, weight: 9}}, {{use: local, weight: 1}}]}}]}}
      down: {{select: [{{use: gone}}], on_failure: [{{kinds: [connect], use: local/nomic}}]}}
      none: {{select: [{{match: {{model: x}}, use: claude}}, {{use: other}}]}}
    routes:
      - {{name: renamed, match: {{model: small, format: openai.embeddings}}, chain: base, to: openai/text-embedding-3-small}}
      - {{name: strict, match: {{model: "strict-*"}}, chain: base, to: google, loss: refuse}}
      - {{name: gemini, match: {{model: "gemini-*"}}, chain: base, to: google}}
      - {{name: nomic, match: {{model: "nomic*"}}, chain: base, to: local}}
      - {{name: cohere, match: {{model: ["embed-*", "rerank-*"]}}, chain: base, to: cohere}}
      - {{name: claude, match: {{model: "claude-*"}}, chain: base, to: claude}}
      - {{name: again, match: {{model: again}}, chain: base, to: retried}}
      - {{name: badkey, match: {{model: badkey}}, chain: base, to: badkey}}
      - {{name: passing, match: {{model: passing}}, chain: base, to: passing}}
      - {{name: either, match: {{model: either}}, chain: base, to: either}}
      - {{name: down, match: {{model: down}}, chain: base, to: down}}
      - {{name: none, match: {{model: none}}, chain: base, to: none}}
      - {{name: own, match: {{model: "sim*"}}, chain: base, to: own}}
      - {{name: rest, chain: base, to: openai}}
"""


@dataclass
class House:
    """The gateway, the providers behind it, and its log."""

    base: str
    provider: OperationsProvider
    log: Path
    gateway: Gateway
    http: aiohttp.ClientSession

    async def post(self, path: str, body: Any, key: str = CALLER_KEY) -> tuple[int, Any, Any]:
        """Return status, JSON and headers of an answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        async with self.http.post(self.base + path, data=io.BytesIO(data), headers=headers) as answer:
            return answer.status, json.loads(await answer.read()), answer.headers

    async def line(self) -> Any:
        """Return the last line of the log."""
        for member in self.gateway.plan.lifecycle:
            if hasattr(member, "_flush"):
                member._flush()
        return json.loads(self.log.read_bytes().splitlines()[-1])


@asynccontextmanager
async def listening(server: web.Server, **options: Any) -> AsyncIterator[str]:
    runner = web.ServerRunner(server, shutdown_timeout=0.1, **options)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened(directory: Path, most: int = 5) -> AsyncIterator[House]:
    provider, path, log = OperationsProvider(), directory / "routes.yaml", directory / "log"
    server = web.Server(provider.serve, handler_cancellation=True)  # type: ignore[arg-type]
    async with listening(server) as provider.base:
        path.write_text(textwrap.dedent(RULES).format(base=provider.base, log=log, most=most))
        async with (
            Gateway.load(path) as gateway,
            listening(make_server(gateway)) as base,
            aiohttp.ClientSession() as http,
        ):
            yield House(base, provider, log, gateway, http)
            assert gateway.in_flight == 0


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path) as house:
        yield house


@pytest.fixture
async def client(house: House, tls: ssl.SSLContext) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's SDK, which asks for base64 unless told otherwise."""
    http = openai.DefaultAsyncHttpxClient(verify=tls)
    async with openai.AsyncOpenAI(
        api_key=CALLER_KEY, base_url=house.base + "/v1", max_retries=0, http_client=http
    ) as sdk:
        yield sdk


TEXTS = ["a", "bb", "c c"]
MODELS = ["text-embedding-3-small", "gemini-embedding-001", "nomic-embed-text", "embed-v4.0"]


# -- embeddings with the SDK


@pytest.mark.parametrize("encoding", [openai.omit, "float", "base64"])
@pytest.mark.parametrize("model", MODELS)
async def test_every_provider_gives_the_sdk_its_vectors(
    client: openai.AsyncOpenAI, house: House, model: str, encoding: Any
) -> None:
    for given, texts in (("one", ["one"]), (TEXTS, TEXTS)):
        answer = await client.embeddings.create(model=model, input=given, encoding_format=encoding)
        found = [each.embedding for each in answer.data]
        wanted = [vector(text) for text in texts]
        assert found == ([packed(each) for each in wanted] if encoding == "base64" else wanted)
        assert [each.index for each in answer.data] == list(range(len(texts)))
        assert (answer.object, answer.model) == ("list", model)
        tokens = 0 if model.startswith("gemini") else sum(map(len, texts))
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)
        line = await house.line()
        assert line.get("input_tokens") == (tokens or None)
        assert (line["format"], line["model"], line["outcome"], line["key"]) == (
            "openai.embeddings",
            model,
            "ok",
            "test",
        )


@pytest.mark.parametrize("model", MODELS)
async def test_dimensions(client: openai.AsyncOpenAI, model: str) -> None:
    answer = await client.embeddings.create(model=model, input="abc", dimensions=2)
    assert answer.data[0].embedding == vector("abc", 2)


async def test_a_server_that_knows_no_base64(client: openai.AsyncOpenAI, house: House) -> None:
    house.provider.floats_only = True
    status, body, _ = await house.post("/v1/embeddings", {"model": "m", "input": "abc", "encoding_format": "base64"})
    assert (status, body["data"][0]["embedding"]) == (200, packed(vector("abc")))
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 4, "cost": 0.5}
    assert (await client.embeddings.create(model="m", input="abc")).data[0].embedding == vector("abc")


async def test_tokens(client: openai.AsyncOpenAI, house: House) -> None:
    answer = await client.embeddings.create(model="text-embedding-3-small", input=[[1, 2, 3], [70]])
    assert [each.embedding for each in answer.data] == [vector([1, 2, 3]), vector([70])]
    answer = await client.embeddings.create(model="text-embedding-3-small", input=[5, 6])
    assert [each.embedding for each in answer.data] == [vector([5, 6])]
    for model in MODELS[1:]:
        with pytest.raises(openai.BadRequestError, match="send the texts themselves") as caught:
            await client.embeddings.create(model=model, input=[[1, 2], [3]])
        assert (caught.value.code, caught.value.param) == ("unsupported", "input")


async def test_the_simulator_answers_without_a_provider(client: openai.AsyncOpenAI, house: House) -> None:
    first = await client.embeddings.create(model="sim", input=["a", "b c"])
    again = await client.embeddings.create(model="sim", input="b c", encoding_format="float")
    assert first.data[1].embedding == pytest.approx(again.data[0].embedding)
    assert len(first.data[0].embedding) == 16 and sum(x * x for x in again.data[0].embedding) == pytest.approx(1, 1e-3)
    assert (first.model, first.usage.prompt_tokens) == ("sim", 3)
    assert len((await client.embeddings.create(model="sim", input=[[1, 2]], dimensions=3)).data[0].embedding) == 3
    assert (await house.line())["attempts"][0]["status"] == 200
    with pytest.raises(openai.BadRequestError, match="4096"):
        await client.embeddings.create(model="sim", input="a", dimensions=1_000_000_000)
    with pytest.raises(openai.RateLimitError, match="slow"):
        await client.embeddings.create(model="sim", input="/sim error 429 slow down")
    documents = ["no word", "Big red dog", {"text": "a dog"}]
    body = {"model": "sim", "query": "red dog", "documents": documents, "top_n": 2, "return_documents": True}
    status, answer, _ = await house.post("/v1/rerank", body)
    assert (status, [each["index"] for each in answer["results"]]) == (200, [1, 2])
    assert [each["document"] for each in answer["results"]] == [{"text": "Big red dog"}, {"text": "a dog"}]
    status, _, _ = await house.post("/v1/moderations", {"model": "sim", "input": "a"})
    assert (status, house.provider.paths) == (501, [])


# -- bytes and losses


async def test_the_same_format_passes_byte_for_byte(house: House) -> None:
    sent = b'{ "x_vendor": {"a": 1.0},\n"input" : ["\\u00e9", "b"], "model": "m" }'
    status, body, headers = await house.post("/v1/embeddings?trace=1", sent)
    assert (status, house.provider.raw[-1]) == (200, sent)
    assert body["data"][1]["embedding"] == vector("b")
    assert headers["headgate-upstream"] == "openai"
    assert "headgate-loss" not in headers
    assert headers["headgate-upstream-request-id"] == "up-1"
    await house.post("/v1/embeddings", sent.replace(b'"m"', b'"small"'))
    assert house.provider.raw[-1] == sent.replace(b'"m"', b'"text-embedding-3-small"')


async def test_half_a_letter_is_no_reason_to_fail(house: House) -> None:
    status, body, _ = await house.post("/v1/embeddings", b'{"model":"nomic","input":["x\\ud83d"]}')
    assert (status, body["data"][0]["embedding"]) == (200, vector("x\ufffd"))


LOST = {"user": "u-1", "x_vendor": 1, "input_type": "query"}


@pytest.mark.parametrize(
    ("model", "lost", "sent"),
    [
        ("gemini-embedding-001", {"user", "x_vendor"}, {"taskType": "RETRIEVAL_QUERY"}),
        ("nomic-embed-text", {"user", "x_vendor", "input_type"}, {"truncate": False}),
        ("embed-v4.0", {"user", "x_vendor"}, {"input_type": "search_query", "truncate": "NONE"}),
    ],
)
async def test_what_a_provider_has_no_word_for_is_told(house: House, model: str, lost: set[str], sent: Any) -> None:
    status, _, headers = await house.post("/v1/embeddings", {"model": model, "input": "a", **LOST})
    assert status == 200
    assert all(name in headers["headgate-loss"] for name in lost)
    line = await house.line()
    assert {each["path"] for each in line["loss"] if each["kind"] == "lost"} == lost
    body = house.provider.bodies[-1]
    body = body["requests"][0] if "requests" in body else body
    assert {name: body[name] for name in sent} == sent
    assert line["attempts"][0]["format"] in ("gemini.embeddings", "ollama.embed", "cohere.embed")


async def test_what_is_made_up_is_told_in_the_record(house: House) -> None:
    await house.post("/v1/embeddings", {"model": "embed-v4.0", "input": "a", "encoding_format": "base64"})
    line = await house.line()
    assert {(each["kind"], each["path"]) for each in line["loss"]} == {
        ("minted", "input_type"),
        ("emulated", "encoding_format"),
    }
    assert house.provider.bodies[-1]["input_type"] == "search_document"
    await house.post("/v1/embeddings", {"model": "gemini-embedding-001", "input": "a"})
    assert [(each["kind"], each["path"]) for each in (await house.line())["answer_loss"]] == [("minted", "usage")]


async def test_a_route_may_refuse_losses(house: House) -> None:
    status, body, _ = await house.post("/v1/embeddings", {"model": "strict-gemini", "input": "a", "user": "u"})
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, "unsupported", "user")
    assert house.provider.paths == []


# -- many inputs


@pytest.mark.parametrize(
    ("model", "count", "requests"),
    [("m", 5, 1), ("m", 23, 5), ("gemini-embedding-001", 250, 3), ("embed-v4.0", 200, 3), ("nomic-embed-text", 600, 2)],
)
async def test_more_than_a_provider_takes_is_split_and_put_together(
    client: openai.AsyncOpenAI, house: House, model: str, count: int, requests: int
) -> None:
    texts = [f"text {at}" * (at % 3 + 1) for at in range(count)]
    house.provider.slow_s = 0.01
    answer = await client.embeddings.create(model=model, input=texts)
    assert [each.embedding for each in answer.data] == [vector(text) for text in texts]
    assert [each.index for each in answer.data] == list(range(count))
    assert len(house.provider.paths) == requests
    assert house.provider.most_under_way == min(requests, 4)
    line = await house.line()
    assert len(line["attempts"]) == 1
    assert line["attempts"][0].get("calls", 1) == requests
    if not model.startswith("gemini"):
        assert answer.usage.total_tokens == line["input_tokens"] == sum(map(len, texts))


async def test_what_is_split_keeps_what_stood_beside(house: House) -> None:
    body = {"model": "small", "input": list("abcdefg"), "dimensions": 2, "x_vendor": {"a": 1}, "user": "u"}
    status, answer, _ = await house.post("/v1/embeddings", body)
    assert (status, len(answer["data"]), answer["model"]) == (200, 7, "text-embedding-3-small")
    for part in house.provider.bodies:
        assert {**part, "input": None} == {**body, "input": None, "model": "text-embedding-3-small"}
    assert sorted("".join(part["input"]) for part in house.provider.bodies) == ["abcde", "fg"]


async def test_too_many_tokens_for_one_request_are_split(tmp_path: Path) -> None:
    async with opened(tmp_path, most=2048) as house:
        text = "x" * 100_000  # 50,000 tokens by the measure that fits every script
        status, answer, _ = await house.post("/v1/embeddings", {"model": "m", "input": [text] * 7})
        assert (status, len(answer["data"])) == (200, 7)
        assert sorted(len(body["input"]) for body in house.provider.bodies) == [2, 5]


@pytest.mark.parametrize("model", ["m", "gemini-embedding-001", "embed-v4.0"])
async def test_one_failure_is_that_of_all_and_ends_the_others(house: House, model: str) -> None:
    size = {"m": 5, "gemini-embedding-001": 100, "embed-v4.0": 96}[model]
    house.provider.failing, house.provider.slow_s = {3: 500}, 5.0
    status, body, headers = await house.post("/v1/embeddings", {"model": model, "input": ["a"] * size * 8})
    assert (status, body["error"]["message"]) == (500, "The server had an error")
    assert headers["headgate-error"] == "upstream_error"
    assert len(house.provider.paths) == 4  # as many as are under way together
    line = await house.line()
    assert (line["outcome"], line["status"], line["attempts"][0]["error"]) == ("upstream_error", 500, "upstream_error")
    for _ in range(100):
        if house.provider.cut_off == 3:
            break
        await asyncio.sleep(0.01)
    assert (house.provider.cut_off, house.provider.under_way) == (3, 0)


async def test_a_failure_is_tried_again_where_the_chain_says_so(house: House) -> None:
    house.provider.failing = {1: 503}
    status, body, headers = await house.post("/v1/embeddings", {"model": "again", "input": "abc"})
    assert (status, body["data"][0]["embedding"]) == (200, vector("abc"))
    assert headers["headgate-attempts"] == "2"


async def test_a_target_goes_on_elsewhere(house: House) -> None:
    status, body, headers = await house.post("/v1/embeddings", {"model": "down", "input": "abc", "user": "u"})
    assert (status, body["data"][0]["embedding"], headers["headgate-upstream"]) == (200, vector("abc"), "local")
    assert house.provider.bodies[-1]["model"] == "nomic"


# -- who cannot


@pytest.mark.parametrize(
    ("path", "body", "can"),
    [
        ("/v1/embeddings", {"input": "a"}, "openai, retried, badkey, gone, google, local, cohere, own"),
        ("/v1/rerank", {"query": "q", "documents": ["a"]}, "openai, retried, badkey, gone, cohere, own"),
        ("/v1/moderations", {"input": "a"}, "openai, retried, badkey, gone"),
    ],
)
async def test_an_upstream_that_cannot_says_who_can(house: House, path: str, body: Any, can: str) -> None:
    status, answer, headers = await house.post(path, {"model": "claude-sonnet-4-5", **body})
    assert (status, answer["error"]["code"], headers["headgate-error"]) == (501, "unsupported", "unsupported")
    assert answer["error"]["message"].endswith(f"these upstreams do: {can}")
    assert (await house.line())["status"] == 501
    status, _, _ = await house.post(path, {"model": "claude-sonnet-4-5", **body}, key="nobody")
    assert status == 401
    assert house.provider.paths == []


async def test_a_target_passes_by_who_cannot(house: House) -> None:
    for model, upstream in (("passing", "cohere"), ("either", "local")):
        for _ in range(3):
            status, _, headers = await house.post("/v1/embeddings", {"model": model, "input": "a"})
            assert (status, headers["headgate-upstream"]) == (200, upstream)
    status, answer, _ = await house.post("/v1/embeddings", {"model": "none", "input": "a"})
    assert (status, answer["error"]["code"]) == (501, "unsupported")


# -- bad requests, and errors


BAD = [
    ("/v1/embeddings", b"[1]", "", "object"),
    ("/v1/embeddings", b'{"model": "m"', "", "JSON"),
    ("/v1/embeddings", {"input": "a"}, "model", "missing"),
    ("/v1/embeddings", {"model": 1, "input": "a"}, "model", "expected `str"),
    ("/v1/embeddings", {"model": "m"}, "input", "missing"),
    ("/v1/embeddings", {"model": "m", "input": []}, "input", "at least one"),
    ("/v1/embeddings", {"model": "m", "input": {}}, "input", "expected a string"),
    ("/v1/embeddings", {"model": "m", "input": ["a", 1]}, "input[1]", "all are strings"),
    ("/v1/embeddings", {"model": "m", "input": [1, "a"]}, "input[1]", "token ids"),
    ("/v1/embeddings", {"model": "m", "input": [[1], []]}, "input[1]", "at least one token"),
    ("/v1/embeddings", {"model": "m", "input": [None]}, "input[0]", "all are strings"),
    ("/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "int8"}, "encoding_format", '"base64"'),
    ("/v1/embeddings", {"model": "m", "input": "a", "dimensions": 0}, "dimensions", "at least 1"),
    ("/v1/embeddings", {"model": "m", "input": "a", "dimensions": "2"}, "dimensions", "integer"),
    ("/v1/rerank", {"model": "m", "query": "q"}, "documents", "missing"),
    ("/v1/rerank", {"model": "m", "query": "q", "documents": []}, "documents", "at least one"),
    ("/v1/rerank", {"model": "m", "query": "q", "documents": ["a", 1]}, "documents[1]", "string or an object"),
    ("/v1/rerank", {"model": "m", "documents": ["a"]}, "query", "missing"),
    ("/v1/rerank", b'{"model": "rerank-x", "query": "q", "documents": [{"a": "\xff"}]}', "documents[0]", "UTF-8"),
    ("/v1/rerank", b'{"model": "rerank-x", "query": "q", "documents": [{"text": "\xff"}]}', "documents[0]", "UTF-8"),
    ("/v1/rerank", {"model": "m", "query": "q", "documents": ["a"], "top_n": 0}, "top_n", "at least 1"),
    ("/v1/moderations", {}, "input", "missing"),
    ("/v1/moderations", {"input": []}, "input", "at least one"),
    ("/v1/moderations", {"input": 5}, "input", "expected a string"),
    ("/v1/moderations", {"input": ["a", {"type": "text"}]}, "input[0]", "object"),
    ("/v1/moderations", {"input": [{"type": "image_url", "image_url": "x"}]}, "input[0].image_url", "object"),
]


@pytest.mark.parametrize(("path", "body", "param", "why"), BAD)
async def test_bad_requests(house: House, path: str, body: Any, param: str, why: str) -> None:
    status, answer, _ = await house.post(path, body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert (answer["error"]["param"] or "", answer["error"]["code"]) == (param, "invalid_request")
    assert why in answer["error"]["message"]
    assert house.provider.paths == []


async def test_there_is_an_end_to_splitting(house: House) -> None:
    status, answer, _ = await house.post("/v1/embeddings", {"model": "m", "input": ["a"] * (5 * 64 + 1)})
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (413, "too_large", "input")
    assert house.provider.paths == []


async def test_a_providers_error_comes_in_the_callers_format(client: openai.AsyncOpenAI, house: House) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        await client.embeddings.create(model="badkey", input="a")
    assert "sk-a-key-nobody-knows"[-12:] not in str(caught.value)
    with pytest.raises(openai.BadRequestError, match="invalid input_type"):
        await client.embeddings.create(model="embed-v4.0", input="a", extra_body={"input_type": "odd"})
    house.provider.short = True
    with pytest.raises(openai.InternalServerError, match="answered 2 inputs with 1 vectors") as failed:
        await client.embeddings.create(model="m", input=["a", "b"])
    assert (failed.value.status_code, failed.value.code) == (502, "malformed")


@pytest.mark.parametrize(
    ("model", "target"),
    [
        ("m", "/v1/embeddings?api-version=2026-01-01&x=a+b"),
        ("gemini-embedding-001", "/v1beta/models/gemini-embedding-001:batchEmbedContents"),
    ],
)
async def test_a_query_goes_to_who_speaks_the_format(house: House, model: str, target: str) -> None:
    query = f"api-version=2026-01-01&api_key={CALLER_KEY}&key={CALLER_KEY}&x=a%20b"
    status, _, _ = await house.post(f"/v1/embeddings?{query}", {"model": model, "input": ["a"] * 6})
    assert (status, {*house.provider.targets}) == (200, {target})


# -- rerank


DOCUMENTS = ["short", "the longest document of all", "rather long"]


@pytest.mark.parametrize("model", ["jina-reranker-v2", "rerank-v3.5"])
async def test_rerank(house: House, model: str) -> None:
    for path in ("/v1/rerank", "/rerank"):
        body = {"model": model, "query": "which?", "documents": DOCUMENTS, "top_n": 2}
        status, answer, headers = await house.post(path, body)
        assert (status, answer["model"]) == (200, model)
        assert [each["index"] for each in answer["results"]] == [1, 2]
        assert answer["results"][0]["relevance_score"] == len(DOCUMENTS[1]) / 1000
        assert "headgate-loss" not in headers
    if model.startswith("jina"):
        assert (await house.line())["input_tokens"] == 15
    else:
        assert answer["meta"] == {"billed_units": {"search_units": 1}}


async def test_rerank_of_who_calls_the_results_otherwise(house: House) -> None:
    """As Fireworks does."""
    house.provider.ranked_as = "data"
    status, answer, _ = await house.post("/v1/rerank", {"model": "jina", "query": "which?", "documents": DOCUMENTS})
    assert (status, [each["index"] for each in answer["results"]]) == (200, [1, 2, 0])
    assert (answer["usage"], "data" in answer) == ({"total_tokens": 15, "prompt_tokens": 15}, False)
    house.provider.ranked_as = "ranking"
    status, answer, _ = await house.post("/v1/rerank", {"model": "jina", "query": "which?", "documents": DOCUMENTS})
    assert (status, answer["error"]["code"]) == (502, "malformed")


async def test_rerank_of_documents_that_come_back_and_are_no_texts(house: House) -> None:
    documents = ["short", {"text": "a text in an object"}, {"title": "a title", "body": "and a body that is long"}]
    body = {
        "model": "rerank-v3.5",
        "query": "q",
        "documents": documents,
        "return_documents": True,
        "rank_fields": ["a"],
    }
    status, answer, headers = await house.post("/v1/rerank", body)
    assert status == 200
    assert [each["document"] for each in answer["results"]] == [documents[2], documents[1], {"text": "short"}]
    assert "rank_fields" in headers["headgate-loss"]
    assert house.provider.bodies[-1]["documents"][1] == "a text in an object"
    assert {(each["kind"], each["path"]) for each in (await house.line())["loss"]} == {
        ("lost", "rank_fields"),
        ("emulated", "return_documents"),
        ("emulated", "documents[2]"),
    }


async def test_rerank_of_more_than_a_provider_takes(house: House) -> None:
    documents = ["x" * (at * 7 % 500 + 1) for at in range(2500)]
    body = {"model": "rerank-v3.5", "query": "q", "documents": documents, "top_n": 10}
    status, answer, _ = await house.post("/v1/rerank", body)
    best = sorted(range(2500), key=lambda at: -len(documents[at]))[:10]
    assert (status, [each["index"] for each in answer["results"]]) == (200, best)
    assert answer["meta"] == {"billed_units": {"search_units": 3}}
    assert len(house.provider.paths) == 3


# -- moderation


PARTS: list[Any] = [
    {"type": "text", "text": "I will kill"},
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
]


@pytest.mark.parametrize(
    ("given", "count", "flagged"), [("hello", 1, False), (["kill", "b"], 2, True), (PARTS, 1, True)]
)
@pytest.mark.parametrize("model", [openai.omit, "omni-moderation-2024-09-26"])
async def test_moderation(
    client: openai.AsyncOpenAI, house: House, model: Any, given: Any, count: int, flagged: bool
) -> None:
    answer = await client.moderations.create(input=given, model=model)
    assert [each.flagged for each in answer.results] == [flagged] * count
    assert ("model" in house.provider.bodies[-1]) is (model is not openai.omit)
    line = await house.line()
    wanted = "omni-moderation-latest" if model is openai.omit else model
    assert (line["format"], line["model"], line["outcome"]) == ("openai.moderations", wanted, "ok")


async def test_without_a_socket(house: House) -> None:
    reply = await house.gateway.handle(
        "openai.embeddings", b'{"model":"m","input":"abc"}', {"authorization": f"Bearer {CALLER_KEY}"}
    )
    (chunk,) = await reply.collect()
    assert chunk.raw is not None
    assert json.loads(chunk.raw)["data"][0]["embedding"] == vector("abc")
    assert chunk.usage is not None
    assert chunk.usage.input_tokens == 3
