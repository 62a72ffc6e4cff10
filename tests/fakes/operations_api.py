"""Embeddings, reranking and moderation as their providers speak them: what they refuse, and what they answer.

After OpenAI's API description, Gemini's ``models.batchEmbedContents``, Ollama's ``/api/embed``, Cohere's v2 reference and
Jina's ``/v1/rerank`` (November 2026). A vector says which input it belongs to: its first number is the text's length, its
second the sum of its letters; tokens likewise.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from .provider import KEY

TAIL = (0.5, -0.25, 1.5)


def vector(given: str | Sequence[int], dimensions: int | None = None) -> list[float]:
    """The vector of an input: numbers that a float32 holds exactly."""
    weights = [ord(letter) for letter in given] if isinstance(given, str) else list(given)
    return [float(len(weights)), float(sum(weights)), *TAIL][:dimensions]


def packed(numbers: Sequence[float]) -> str:
    """The numbers as little-endian float32 in base64."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


class Refusal(Exception):
    """A request that the API answers with an error."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass
class OperationsProvider:
    """All of these providers at one address. ``failing`` are the numbers of the requests, from 1, that fail, with a status.

    ``slow_s`` is how long an answer takes; ``most_inputs`` what OpenAI's endpoint takes. ``floats_only``: as servers do that do
    not know ``encoding_format``. ``ranked_as`` is what the likes of Jina call the results.
    """

    base: str = ""
    paths: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    failing: dict[int, int] = field(default_factory=dict)
    slow_s: float = 0.0
    most_inputs: int = 2048
    floats_only: bool = False
    under_way: int = 0
    most_under_way: int = 0
    cut_off: int = 0
    short: bool = False
    ranked_as: str = "results"
    targets: list[str] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.Response:
        """Answer one request."""
        self.paths.append(request.path)
        self.targets.append(request.raw_path)
        self.raw.append(await request.read())
        body = json.loads(self.raw[-1])
        self.bodies.append(body)
        number = len(self.paths)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if number in self.failing:
                return self._error(request.path, "The server had an error", self.failing[number])
            if self.slow_s:
                await asyncio.sleep(self.slow_s)
            shown = request.headers.get("authorization") or request.headers.get("x-goog-api-key") or ""
            if KEY not in shown:
                raise Refusal(f"Incorrect API key provided: {shown[-30:]}", 401)
            answer = self._answer(request.path, body)
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        except Refusal as refusal:
            return self._error(request.path, refusal.message, refusal.status)
        finally:
            self.under_way -= 1
        return web.json_response(answer, headers={"x-request-id": f"up-{number}"})

    def _answer(self, path: str, body: Any) -> Any:
        if path == "/v1/embeddings":
            return self._openai(body)
        if path.endswith(":batchEmbedContents"):
            return self._gemini(path, body)
        if path == "/api/embed":
            return self._ollama(body)
        if path == "/v2/embed":
            return self._cohere(body)
        if path == "/v2/rerank":
            return self._cohere_rerank(body)
        if path == "/v1/rerank":
            return self._jina_rerank(body)
        if path == "/v1/moderations":
            return self._moderations(body)
        raise Refusal(f"no such endpoint: {path}", 404)

    def _error(self, path: str, message: str, status: int) -> web.Response:
        if path.startswith("/v2/"):
            return web.json_response({"id": "c-1", "message": message}, status=status)
        if path.startswith("/api/"):
            return web.json_response({"error": message}, status=status)
        if path.startswith("/v1beta/"):
            told: dict[str, object] = {"code": status, "message": message, "status": "INVALID_ARGUMENT"}
        else:
            kind = "server_error" if status >= 500 else "invalid_request_error"
            told = {"message": message, "type": kind, "param": None, "code": None}
        return web.json_response({"error": told}, status=status)

    def _openai(self, body: Any) -> Any:
        known = {"model", "input", "encoding_format", "dimensions", "user", "x_vendor", "input_type"}
        if unknown := body.keys() - known:
            raise Refusal(f"Unrecognized request arguments supplied: {sorted(unknown)}")
        given = body["input"]
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            given = [given]
        if not 1 <= len(given) <= self.most_inputs or "" in given:
            raise Refusal("'$.input' is invalid")
        vectors: list[Any] = [vector(each, body.get("dimensions")) for each in given]
        if body.get("encoding_format") == "base64" and not self.floats_only:
            vectors = [packed(each) for each in vectors]
        if self.short:
            vectors.pop()
        tokens = sum(map(len, given))
        more = {"total_tokens": tokens + 1, "cost": 0.5} if self.floats_only else {"total_tokens": tokens}
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": at, "embedding": each} for at, each in enumerate(vectors)],
            "model": body["model"],
            "usage": {"prompt_tokens": tokens, **more},
        }

    def _gemini(self, path: str, body: Any) -> Any:
        model = path.removeprefix("/v1beta/").removesuffix(":batchEmbedContents")
        if body.keys() != {"requests"} or not 1 <= len(body["requests"]) <= 100:
            raise Refusal("* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch\n")
        embeddings = []
        for each in body["requests"]:
            if each["model"] != model or each.keys() - {
                "model",
                "content",
                "taskType",
                "title",
                "outputDimensionality",
            }:
                raise Refusal("Invalid JSON payload received.")
            (part,) = each["content"]["parts"]
            embeddings.append({"values": vector(part["text"], each.get("outputDimensionality"))})
        return {"embeddings": embeddings}

    def _ollama(self, body: Any) -> Any:
        assert not body.keys() - {"model", "input", "truncate", "options", "keep_alive", "dimensions"}, body
        given = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not all(isinstance(each, str) for each in given):
            raise Refusal("invalid input type")
        return {
            "model": body["model"],
            "embeddings": [vector(each, body.get("dimensions")) for each in given],
            "total_duration": 14143917,
            "load_duration": 1019500,
            "prompt_eval_count": sum(map(len, given)),
        }

    def _cohere(self, body: Any) -> Any:
        if body.keys() - {
            "model",
            "input_type",
            "texts",
            "embedding_types",
            "output_dimension",
            "truncate",
            "max_tokens",
        }:
            raise Refusal("invalid request: unknown field")
        if body["input_type"] not in ("search_document", "search_query", "classification", "clustering"):
            raise Refusal("invalid input_type")
        if not 1 <= len(body["texts"]) <= 96:
            raise Refusal("invalid request: total number of texts must be at most 96")
        assert body["embedding_types"] == ["float"]
        return {
            "id": "da6e531f",
            "embeddings": {"float": [vector(each, body.get("output_dimension")) for each in body["texts"]]},
            "texts": body["texts"],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": sum(map(len, body["texts"]))}},
            "response_type": "embeddings_by_type",
        }

    def _cohere_rerank(self, body: Any) -> Any:
        if body.keys() - {"model", "query", "documents", "top_n", "max_tokens_per_doc"}:
            raise Refusal("invalid request: unknown field")
        if not all(isinstance(each, str) for each in body["documents"]):
            raise Refusal("documents must be strings")
        return {
            "id": "07734bd2",
            "results": self._ranked(body["documents"], body.get("top_n")),
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        }

    def _jina_rerank(self, body: Any) -> Any:
        return {
            "model": body["model"],
            "usage": {"total_tokens": 15, "prompt_tokens": 15},
            self.ranked_as: self._ranked(body["documents"], body.get("top_n")),
        }

    @staticmethod
    def _ranked(documents: Sequence[Any], top_n: int | None) -> list[Any]:
        """The longer, the better."""
        scores = [
            (len(each if isinstance(each, str) else json.dumps(each)) / 1000, at) for at, each in enumerate(documents)
        ]
        scores.sort(key=lambda each: -each[0])
        return [{"index": at, "relevance_score": score} for score, at in scores][:top_n]

    @staticmethod
    def _moderations(body: Any) -> Any:
        given = body["input"]
        count = len(given) if isinstance(given, list) and isinstance(given[0], str) else 1
        flagged = "kill" in json.dumps(given)
        result = {
            "flagged": flagged,
            "categories": {"violence": flagged},
            "category_scores": {"violence": 0.9 if flagged else 0.1},
            "category_applied_input_types": {"violence": ["text"]},
        }
        return {"id": "modr-1", "model": body.get("model", "omni-moderation-latest"), "results": [result] * count}
