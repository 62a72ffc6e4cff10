"""``explain`` shows the request that is really sent, and what is stood in for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from headgate.gateway import rules
from headgate.gateway.rules.explain import explain
from headgate.gateway.rules.given import pose
from headgate.gateway.rules.schema import GivenRules

RULES = """
version: 1
server: {anonymous: allow}
media: {fetch: {hosts: [images.example]}}
upstreams:
  all:
    adapter: openai
    base_url: http://127.0.0.1:9/v1
    emulate: {structured_output: tool, n: fan_out, stream: gather}
  local: {adapter: ollama, base_url: "http://127.0.0.1:9"}
routes:
  - {name: all, match: {model: all}, to: all}
  - {name: rest, to: local}
"""
FORMAT = {"type": "json_schema", "json_schema": {"name": "number", "schema": {"type": "object"}}}


def told(tmp_path: Path, **body: Any) -> tuple[Any, dict[str, str], Any]:
    """What would be sent, the kinds of losses by path, and the refusal."""
    path = tmp_path / "routes.yaml"
    path.write_text(RULES)
    plan = rules.load(path)
    asked = {"messages": [{"role": "user", "content": "Hi"}], **body}
    found = explain(plan, pose(GivenRules(model=body["model"], body=asked), plan)).outgoing
    sent = None if found.preview is None else msgspec.json.decode(found.preview.body)
    return sent, {loss.path: loss.kind for loss in found.losses}, found.refusal


def test_everything_at_once(tmp_path: Path) -> None:
    sent, losses, _ = told(tmp_path, model="all", n=3, response_format=FORMAT)
    assert sent["stream"] is True and sent["tool_choice"]["function"]["name"] == "number"
    assert "n" not in sent and "response_format" not in sent
    assert losses == {"n": "emulated", "response_format": "emulated", "stream": "emulated"}


def test_what_is_not_asked_for_is_not_emulated(tmp_path: Path) -> None:
    sent, losses, _ = told(tmp_path, model="all", stream=True)
    assert (sent["stream"], losses) == (True, {})


def test_too_many(tmp_path: Path) -> None:
    _, _, refusal = told(tmp_path, model="all", n=9)
    assert "at most 8 choices" in refusal.message


@pytest.mark.parametrize(("host", "kind"), [("images.example", "emulated"), ("elsewhere.example", "lost")])
def test_an_image_that_would_be_fetched(tmp_path: Path, host: str, kind: str) -> None:
    image = {"type": "image_url", "image_url": {"url": f"https://{host}/a.png"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}]
    sent, losses, _ = told(tmp_path, model="m", messages=messages)
    assert losses["messages[0].content[1]"] == kind
    assert ("images" in sent["messages"][0]) == (kind == "emulated")
