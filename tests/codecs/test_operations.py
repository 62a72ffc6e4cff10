"""Operations as requests that middlewares see and change, and what their services make of answers that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headgate.gateway import registry
from headgate.gateway.codecs.base import RequestFacts, UpstreamFacts
from headgate.gateway.codecs.operations import openai_embeddings
from headgate.gateway.codecs.operations.base import Service
from headgate.gateway.codecs.operations.cohere import CohereEmbeddings, CohereRerank
from headgate.gateway.codecs.operations.embeddings import Embeddings
from headgate.gateway.codecs.operations.gemini import WIRE as GEMINI
from headgate.gateway.codecs.operations.moderations import Moderations
from headgate.gateway.codecs.operations.ollama import WIRE as OLLAMA
from headgate.gateway.codecs.operations.rerank import Rerank, SameRerank
from headgate.gateway.codecs.operations.voyage import VoyageRerank
from headgate.gateway.doors import OPERATIONS, format_at, path_of
from headgate.gateway.errors import Malformed
from headgate.gateway.ir.message import Message, Text
from msgspec.structs import replace

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
# format, a request, the texts that a middleware sees in it
REQUESTS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("openai.embeddings", {"model": "m", "input": "one", "user": "u"}, ["one"]),
    ("openai.embeddings", {"model": "m", "input": ["one"], "dimensions": 3}, ["one"]),
    ("openai.embeddings", {"model": "m", "input": ["one", "two"], "x": {"a": [1.0]}}, ["one", "two"]),
    ("openai.embeddings", {"model": "m", "input": [1, 2]}, []),
    ("openai.embeddings", {"model": "m", "input": [[1], [2, 3]], "encoding_format": "base64"}, []),
    ("rerank", {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1}, ["q", "a", "b"]),
    ("rerank", {"model": "m", "query": "q", "documents": [{"text": "a", "id": 7}, {"title": "b"}]}, ["q", "a"]),
    ("openai.moderations", {"model": "m", "input": "one"}, ["one"]),
    ("openai.moderations", {"model": "m", "input": ["one"]}, ["one"]),
    ("openai.moderations", {"model": "m", "input": ["one", "two"]}, ["one", "two"]),
    ("openai.moderations", {"model": "m", "input": [{"type": "text", "text": "one", "x": 1}]}, ["one"]),
    ("openai.moderations", {"model": "m", "input": [{"type": "text", "text": "one"}, IMAGE, {"type": "new"}]}, ["one"]),
]


@pytest.mark.parametrize(("format", "body", "texts"), REQUESTS)
def test_a_request_is_read_and_written_as_it_was(format: str, body: dict[str, Any], texts: list[str]) -> None:
    codec = registry.codec(format)
    request = codec.decode_request(json.dumps(body).encode(), RequestFacts())
    assert (request.format, request.model) == (format, "m")
    parts = [part for message in request.messages for part in message.parts]
    assert [part.text for part in parts if isinstance(part, Text)] == texts
    assert json.loads(codec.encode_request(request, UpstreamFacts()).body) == body


@pytest.mark.parametrize(("format", "body", "texts"), REQUESTS)
def test_a_changed_text_is_all_that_changes(format: str, body: dict[str, Any], texts: list[str]) -> None:
    codec = registry.codec(format)
    request = codec.decode_request(json.dumps(body).encode(), RequestFacts())

    def masked(message: Message) -> Message:
        parts = (replace(part, text=f"<{part.text}>") if isinstance(part, Text) else part for part in message.parts)
        return replace(message, parts=tuple(parts))

    changed = replace(request, messages=tuple(map(masked, request.messages)))
    wanted = json.dumps(body)
    for text in texts:
        wanted = wanted.replace(f'"{text}"', f'"<{text}>"')
    assert json.loads(codec.encode_request(changed, UpstreamFacts()).body) == json.loads(wanted)


def test_doors() -> None:
    for format in OPERATIONS:
        codec = registry.codec(format)
        assert codec.format == format_at(path_of(format)) == format
        assert path_of(format).endswith(codec.request_path("m", False))
        assert (codec.whole.format, codec.whole.framing) == (format, "json")


EMBED = b'{"model": "m", "input": ["a", "b"]}'
RERANK = b'{"model": "m", "query": "q", "documents": ["a", "b"]}'
OPENAI = Embeddings(openai_embeddings.WIRE, openai_embeddings.read)
ANSWERS: list[tuple[Service, bytes, bytes]] = [
    (OPENAI, EMBED, b"{}"),
    (OPENAI, EMBED, b'{"data": [1]}'),
    (OPENAI, EMBED, b'{"data": [{"embedding": [1]}]}'),
    (OPENAI, EMBED, b'{"data": [{"embedding": [1]}, {"index": 1}]}'),
    (OPENAI, EMBED, b'{"data": [{"embedding": "AAA"}, {"embedding": "AAAA"}]}'),
    (Embeddings(GEMINI, openai_embeddings.read), EMBED, b'{"embeddings": [{"values": [1]}]}'),
    (Embeddings(GEMINI, openai_embeddings.read), EMBED, b"{}"),
    (Embeddings(OLLAMA, openai_embeddings.read), EMBED, b'{"embedding": [1]}'),
    (Embeddings(CohereEmbeddings("clustering"), openai_embeddings.read), EMBED, b'{"embeddings": [[1], [2]]}'),
    (Rerank(CohereRerank()), RERANK, b'{"results": [{"index": 2, "relevance_score": 1}]}'),
    (Rerank(CohereRerank()), RERANK, b'{"results": [{"index": 0}]}'),
    (SameRerank(), RERANK, b'{"results": [{"index": -1, "relevance_score": 1}]}'),
    (SameRerank(), RERANK, b'{"ranking": []}'),
    (SameRerank(), RERANK, b'{"data": [{"index": 2, "relevance_score": 1}]}'),
    (Rerank(VoyageRerank()), RERANK, b'{"results": []}'),
    (Moderations(), b'{"input": "a"}', b'{"id": "x"}'),
]


@pytest.mark.parametrize(("service", "body", "answer"), ANSWERS)
def test_answers_that_are_none(service: Service, body: bytes, answer: bytes) -> None:
    with pytest.raises(Malformed):
        service.errand(body, "m").finish([answer])


def test_vectors_are_in_the_order_of_their_indexes() -> None:
    answer = {"data": [{"index": 1, "embedding": "AACAPw=="}, {"index": 0, "embedding": "AAAAAA==", "x": 1}], "y": 2}
    finished = OPENAI.errand(EMBED, "m").finish([json.dumps(answer).encode()])
    assert json.loads(finished.body) == {
        "object": "list",
        "model": "m",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.0], "x": 1},
            {"object": "embedding", "index": 1, "embedding": [1.0]},
        ],
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
        "y": 2,
    }
    assert [(loss.kind, loss.path) for loss in finished.losses] == [("minted", "usage")]


@pytest.mark.parametrize(
    ("more", "sent", "lost"),
    [
        ({}, {"truncation": False}, []),
        ({"top_n": 1, "return_documents": True}, {"top_k": 1, "truncation": False}, ["return_documents"]),
        ({"top_n": 9}, {"top_k": 2, "truncation": False}, []),
        ({"top_k": 1, "truncation": True}, {"top_k": 1, "truncation": True}, []),
        ({"max_tokens_per_doc": 9, "odd": 1}, {"truncation": False}, ["odd", "max_tokens_per_doc"]),
    ],
)
def test_voyage_has_words_of_its_own(more: dict[str, Any], sent: dict[str, Any], lost: list[str]) -> None:
    asked = {"model": "m", "query": "q", "documents": ["a", {"text": "b"}]}
    errand = Rerank(VoyageRerank()).errand(json.dumps({**asked, **more}).encode(), "rerank-2.5")
    (request,) = errand.requests
    assert request.path == "/rerank"
    assert json.loads(request.body) == {"model": "rerank-2.5", "query": "q", "documents": ["a", "b"], **sent}
    assert [loss.path for loss in errand.losses] == lost
    answer = b'{"object": "list", "data": [{"index": 1, "relevance_score": 0.5}], "model": "m", "usage": {"total_tokens": 7}}'
    told = json.loads(errand.finish([answer]).body)
    assert told["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [(each["index"], each["relevance_score"]) for each in told["results"]] == [(1, 0.5)]
