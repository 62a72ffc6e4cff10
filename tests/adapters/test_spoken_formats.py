"""Which formats an upstream speaks, and how each adapter asks for an answer: URL, credential, headers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headgate.gateway import registry, rules
from headgate.gateway.chain import Preview
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.doors import DOORS, path_of
from headgate.gateway.rules.explain import explain
from headgate.gateway.rules.given import pose, pose_bytes
from headgate.gateway.rules.schema import GivenRules

CALLER_KEY = "the-callers-own-key-000"


def sent(upstream: str, format: str, *, stream: bool = False, more: RequestFacts | None = None) -> Preview:
    """What a caller of ``format`` would have sent to ``upstream``, an entry of a rule file."""
    plan = rules.loads(
        "version: 1\nserver: {anonymous: allow}\nupstreams: {up: {" + upstream + "}}\nroutes: [{name: all, to: up}]\n"
    )
    posed = pose(GivenRules(format=format, model="m", stream=stream))
    if more is not None:
        facts = RequestFacts(path_of(format, "m", stream=stream), more.query, more.headers)
        posed = pose_bytes(registry.codec(format), posed.body, facts)
    preview = explain(plan, posed).outgoing.preview
    assert preview is not None
    return preview


def endings(upstream: str) -> dict[str, str]:
    """Where callers of each format are sent."""
    return {format: sent(upstream, format).url.partition("//")[2].partition("/")[2] for format in DOORS}


CHAT, RESPONSES, COMPLETIONS = "v1/chat/completions", "v1/responses", "v1/completions"


@pytest.mark.parametrize(
    ("more", "foreign", "own"),
    [
        ("", CHAT, {"openai.responses": RESPONSES}),
        ("base_url: 'https://eu.api.openai.com/v1'", CHAT, {"openai.responses": RESPONSES}),
        ("base_url: 'https://api.openai.com.example/v1'", CHAT, {}),
        ("base_url: 'http://127.0.0.1:8000/v1'", CHAT, {}),
        ("base_url: 'http://127.0.0.1:8000/v1', formats: [openai.responses]", RESPONSES, {}),
        ("formats: [openai.chat]", CHAT, {}),
        (
            "formats: [openai.responses, openai.chat, openai.completions]",
            RESPONSES,
            {"openai.chat": CHAT, "openai.completions": COMPLETIONS},
        ),
    ],
)
def test_formats_of_openai_and_its_likes(more: str, foreign: str, own: dict[str, str]) -> None:
    assert endings("adapter: openai" + (more and f", {more}")) == {format: own.get(format, foreign) for format in DOORS}


def test_formats_of_ollama() -> None:
    assert endings("adapter: ollama") == {
        format: "api/generate" if format == "ollama.generate" else "api/chat" for format in DOORS
    }
    assert sent("adapter: ollama", "gemini").url == "http://127.0.0.1:11434/api/chat"


@pytest.mark.parametrize("formats", ["[]", "[openai.chatt]", "openai.chat", "[gemini]"])
def test_formats_that_are_none(formats: str) -> None:
    with pytest.raises(rules.RulesError, match="formats"):
        endings(f"adapter: openai, formats: {formats}")


@pytest.mark.parametrize("format", DOORS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_where_gemini_is_asked(format: str, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "AIza-not-a-key")
    preview = sent("adapter: gemini, key: env:A_KEY", format, stream=stream)
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    assert preview.url == f"https://generativelanguage.googleapis.com/v1beta/models/m:{method}"
    assert preview.headers["x-goog-api-key"] == "AIza-not-a-key"
    assert preview.headers["accept"] == ("text/event-stream" if stream else "application/json")
    assert preview.secret_headers == {"x-goog-api-key"}
    assert json.loads(preview.body)["contents"]


@pytest.mark.parametrize(
    ("adapter", "secret", "header", "value"),
    [
        ("gemini", "ya29.token", "authorization", "Bearer ya29.token"),
        ("ollama", "secret", "authorization", "Bearer secret"),
        ("openai", "secret", "authorization", "Bearer secret"),
    ],
)
def test_how_a_credential_is_shown(
    adapter: str, secret: str, header: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", secret)
    preview = sent(f"adapter: {adapter}, key: env:A_KEY", "openai.chat")
    assert preview.headers[header] == value
    assert preview.secret_headers == {header}


def test_ollama_needs_no_key() -> None:
    preview = sent("adapter: ollama", "ollama.chat", stream=True)
    assert "authorization" not in preview.headers
    assert preview.headers["accept"] == "application/x-ndjson"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"key": CALLER_KEY, "alt": "json", "$ALT": "json", "callback": "f"}, ":generateContent"),
        (
            {"access_token": CALLER_KEY, "oauth_token": CALLER_KEY, "fields": "candidates"},
            ":generateContent?fields=candidates",
        ),
    ],
)
def test_what_of_a_query_passes_to_gemini(given: dict[str, Any], url: str) -> None:
    headers = {"x-goog-api-key": CALLER_KEY, "x-goog-user-project": "theirs", "x-goog-api-client": "genai/1"}
    preview = sent("adapter: gemini", "gemini", more=RequestFacts("", given, headers))
    assert preview.url.endswith(url)
    assert CALLER_KEY not in str((preview.url, preview.headers, preview.body))
    assert "x-goog-user-project" not in preview.headers
    assert preview.headers["x-goog-api-client"] == "genai/1"


@pytest.mark.parametrize("format", ["gemini", "openai.chat"])
def test_a_key_in_the_query_passes_through_where_the_format_has_it_there(format: str) -> None:
    upstream = "adapter: openai, base_url: 'http://127.0.0.1:9/v1', credential: pass-through"
    preview = sent(upstream, format, more=RequestFacts("", {"key": CALLER_KEY}, {}))
    assert preview.headers.get("authorization") == (f"Bearer {CALLER_KEY}" if format == "gemini" else None)
    assert CALLER_KEY not in preview.url
