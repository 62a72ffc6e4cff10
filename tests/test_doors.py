"""The paths at which calls are served, and whose they are."""

from __future__ import annotations

import pytest
from headgate.gateway import registry
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.doors import DOORS, EXACT, format_at, format_below, path_of

SERVED = [
    ("/v1/chat/completions", "openai.chat"),
    ("/chat/completions", "openai.chat"),
    ("/v1/responses", "openai.responses"),
    ("/responses", "openai.responses"),
    ("/v1/completions", "openai.completions"),
    ("/completions", "openai.completions"),
    ("/v1/messages", "anthropic.messages"),
    ("/messages", "anthropic.messages"),
    ("/api/chat", "ollama.chat"),
    ("/api/generate", "ollama.generate"),
    ("/v1/embeddings", "openai.embeddings"),
    ("/embeddings", "openai.embeddings"),
    ("/v1/moderations", "openai.moderations"),
    ("/v1/rerank", "rerank"),
    ("/rerank", "rerank"),
]
GEMINI = [
    ("/v1beta/models/{}", "gemini-3-pro", "gemini-3-pro"),
    ("/v1beta/models/{}", "llama3:8b", "llama3:8b"),
    ("/v1beta/models/{}", "vendor/model/v1/x", "vendor/model/v1/x"),
    ("/v1/models/{}", "m", "m"),
    ("/v1alpha/models/{}", "m", "m"),
    ("/models/{}", "m", "m"),
    ("/v1beta/tunedModels/{}", "mine-1", "tunedModels/mine-1"),
    ("/tunedModels/{}", "mine-1", "tunedModels/mine-1"),
    ("/v1beta1/publishers/google/models/{}", "m", "m"),
    ("/publishers/google/models/{}", "m", "m"),
    ("/v1/projects/p-1/locations/europe-west1/publishers/google/models/{}", "m", "m"),
]
NOWHERE = [
    "/",
    "/v1",
    "/v1/chat/completions/",
    "/v2/rerank",
    "/v1/embed",
    "/api/tags",
    "/v1beta/models/m",
    "/v1beta/models/m:embedContent",
    "/v1beta/models/:generateContent",
    "/v2/models/m:generateContent",
    "/v1/projects/p/q/locations/l/publishers/google/models/m:generateContent",
    "v1/messages",
]


@pytest.mark.parametrize(("path", "format"), SERVED)
def test_exact_paths(path: str, format: str) -> None:
    assert EXACT[path] == format_at(path) == format_below(path) == format
    assert format_below(f"/some/prefix{path}") == format


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("prefix", ["", "/llm", "/v1", "/models/of/mine"])
@pytest.mark.parametrize(("template", "model", "named"), GEMINI)
def test_paths_with_a_model(template: str, model: str, named: str, prefix: str, stream: bool) -> None:
    path = template.format(model) + (":streamGenerateContent" if stream else ":generateContent")
    assert format_at(path) == format_below(prefix + path) == "gemini"
    if prefix == "/models/of/mine" and not path.startswith("/v1"):
        return  # without a version nothing tells the prefix from a collection of models
    peek = registry.codec("gemini").peek(b"{}", RequestFacts(prefix + path))
    assert (peek.model, peek.stream) == (named, stream)


@pytest.mark.parametrize("path", NOWHERE)
def test_nothing_is_served_there(path: str) -> None:
    assert format_at(path) is None


def test_where_a_caller_sends_a_request() -> None:
    for format in DOORS:
        for stream in (False, True):
            path = path_of(format, "a/b:c", stream=stream)
            assert format_at(path) == format
            assert registry.codec(format).format == format
    assert path_of("gemini", "m") == "/v1beta/models/m:generateContent"
    assert path_of("gemini", "m", stream=True) == "/v1beta/models/m:streamGenerateContent"
    assert path_of("gemini") == path_of("unheard.of", "m") == ""
