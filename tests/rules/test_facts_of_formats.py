"""What rules see of a request is the same whichever format it comes in, where the format can say it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headgate.gateway import registry, rules
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.doors import DOORS
from headgate.gateway.rules.given import pose, pose_bytes
from headgate.gateway.rules.schema import GivenRules

WITHOUT_TOOLS = {"openai.completions", "ollama.generate"}
WITHOUT_IMAGES = {"openai.completions"}
WITH_METADATA = {"openai.chat", "openai.responses", "anthropic.messages", "gemini"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("format", DOORS)
def test_what_a_test_gives_is_what_rules_see(format: str, stream: bool) -> None:
    plain = pose(GivenRules(format=format, model="a/model:1", stream=stream)).wire
    assert (plain.format, plain.model, plain.stream) == (format, "a/model:1", stream)
    assert (plain.tools, plain.has_image, dict(plain.metadata)) == (False, False, {})
    assert 5 < plain.tokens < 60
    rich = GivenRules(format=format, model="m", stream=stream, tools=True, has_image=True, metadata={"user_id": "u"})
    wire = pose(rich).wire
    assert (wire.model, wire.stream) == ("m", stream)
    assert wire.tools is (format not in WITHOUT_TOOLS)
    assert wire.has_image is (format not in WITHOUT_IMAGES)
    if format in WITH_METADATA:
        assert wire.metadata == {"user_id": "u"}


PNG = "iVBORw0KGgo="
IMAGES: list[tuple[str, dict[str, Any], bool]] = [
    ("gemini", {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}]}, True),
    ("gemini", {"contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": PNG}}]}]}, True),
    ("gemini", {"contents": [{"parts": [{"fileData": {"mimeType": "image/webp", "fileUri": "x"}}]}]}, True),
    ("gemini", {"contents": [{"parts": [{"inlineData": {"mimeType": "application/pdf", "data": PNG}}]}]}, False),
    ("gemini", {"contents": [{"parts": [{"text": '{"mimeType": "image/png"}'}]}]}, False),
    ("gemini", {"contents": [], "generationConfig": {"responseMimeType": "application/json"}}, False),
    ("ollama.chat", {"messages": [{"role": "user", "content": "x", "images": [PNG]}]}, True),
    ("ollama.chat", {"messages": [{"role": "user", "content": '{"images": ["x"]}', "images": []}]}, False),
    ("ollama.generate", {"prompt": "x", "images": [PNG]}, True),
    ("ollama.generate", {"prompt": '"images": ["x"]', "images": None}, False),
    ("openai.responses", {"input": [{"content": [{"type": "input_image", "image_url": "x"}]}]}, True),
    ("openai.responses", {"input": [{"output": {"type": "computer_screenshot", "image_url": "x"}}]}, True),
    ("openai.responses", {"input": '{"type": "input_image"}', "tools": [{"type": "image_generation"}]}, False),
    ("openai.completions", {"prompt": '{"type":"image"}'}, False),
]


@pytest.mark.parametrize(("format", "body", "has_image"), IMAGES)
def test_images(format: str, body: dict[str, Any], has_image: bool) -> None:
    sent = json.dumps({"model": "m", **body}).encode()
    assert pose_bytes(registry.codec(format), sent, RequestFacts()).wire.has_image is has_image


def test_tests_in_a_file_speak_every_format() -> None:
    tests = "".join(
        f"  - {{name: {format}, given: {{format: {format}, model: m, stream: true}}, expect: {{route: {format}}}}}\n"
        for format in DOORS
    )
    routes = "".join(
        f"  - {{name: {format}, match: {{format: {format}, model: m, request.stream: true}}, to: sim}}\n"
        for format in DOORS
    )
    plan = rules.loads(
        "version: 1\nserver: {anonymous: allow}\nupstreams: {sim: {adapter: simulator}}\n"
        f"routes:\n{routes}tests:\n{tests}"
    )
    assert [route.name for route in plan.routes] == list(DOORS)
