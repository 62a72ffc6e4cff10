"""What cannot be written is told to the caller at the place where it stands in the caller's own words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headgate.gateway import registry
from headgate.gateway.codecs.base import RequestFacts, UpstreamFacts
from headgate.gateway.errors import CallerError

ASK: Any = {"role": "user", "content": "Hi"}
BROKEN = '{"a":'
CHAT: Any = {
    "model": "m",
    "messages": [
        ASK,
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "b", "type": "function", "function": {"name": "f", "arguments": BROKEN}},
            ],
        },
    ],
}
ITEMS: Any = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [ASK, {"type": "function_call", "call_id": "a", "name": "f", "arguments": BROKEN}],
}
OBJECTS = ["anthropic.messages", "gemini", "ollama.chat"]
CALLS = "messages[1].tool_calls[1].function.arguments"
NO_SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "a"}}
CASES = [
    *(("openai.chat", CHAT, there, CALLS) for there in OBJECTS),
    *(("openai.responses", ITEMS, there, "input[1].arguments") for there in OBJECTS),
    *(
        (here, {"model": "m", **body}, there, path)
        for there in ("anthropic.messages", "gemini")
        for here, body, path in (
            (
                "openai.chat",
                {"messages": [ASK], "response_format": NO_SCHEMA},
                "response_format.json_schema.schema",
            ),
            (
                "openai.responses",
                {"input": "Hi", "text": {"format": {"type": "json_schema", "name": "a"}}},
                "text.format.schema",
            ),
            ("openai.responses", {"input": []}, "input"),
            ("openai.chat", {"messages": []}, "messages"),
        )
    ),
    ("gemini", {"contents": [{"role": "model", "parts": [{"text": ""}]}]}, "anthropic.messages", "contents"),
    ("ollama.generate", {"model": "m", "prompt": ""}, "anthropic.messages", "prompt"),
]


@pytest.mark.parametrize(("here", "body", "there", "path"), CASES)
def test_an_error_names_the_callers_place(here: str, body: dict[str, Any], there: str, path: str) -> None:
    facts = RequestFacts("/v1beta/models/m:generateContent" if here == "gemini" else "")
    request = registry.codec(here).decode_request(json.dumps(body).encode(), facts)
    with pytest.raises(CallerError) as caught:
        registry.codec(there).encode_request(request, UpstreamFacts())
    assert caught.value.param == path
    assert caught.value.message.startswith(f"{path}: ")


def test_what_stands_beside_reasoning_is_named_there() -> None:
    said = {
        "role": "assistant",
        "content": "t",
        "reasoning": "hm",
        "reasoning_details": [{"type": "reasoning.encrypted"}],
    }
    body = json.dumps({"model": "m", "messages": [ASK, said, ASK]}).encode()
    request = registry.codec("openai.chat").decode_request(body, RequestFacts())
    losses = registry.codec("ollama.chat").encode_request(request, UpstreamFacts()).losses
    assert [(loss.kind, loss.path) for loss in losses] == [("lost", "messages[1].reasoning_details")]
