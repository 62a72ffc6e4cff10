"""The option ``text``: what it accepts, and when there is something to read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from headgate.gateway import rules
from headgate.gateway.ir.message import Request
from headgate.gateway.text.profile import TextProfile, ToolsIn
from headgate.gateway.text.think import TAGS

from .reading import make, parts, told, whole

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"think": []}, "at least one tag"),
    ({"think": ["<>"]}, "expected the name of a tag"),
    ({"think": ["a b"]}, "expected the name of a tag"),
    ({"think": "sometimes"}, "a list of tags"),
    ({"tools": "harmony", "think": "auto"}, "remove one of the two"),
    ({"tools": "xml"}, "tools"),
    ({"stop": -1}, "stop"),
    ({"stops": True}, "stops"),
]


@pytest.mark.parametrize(("options", "why"), REFUSED)
def test_mistakes_are_named(options: dict[str, Any], why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.convert(options, TextProfile)


@pytest.mark.parametrize(
    ("stop", "sent", "watched"),
    [
        (False, ("a", "b", "c"), False),
        (True, (), True),
        (0, (), True),
        (2, ("a", "b"), True),
        (3, ("a", "b", "c"), False),
    ],
)
def test_the_provider_gets_as_many_stop_strings_as_it_takes(stop: Any, sent: tuple[str, ...], watched: bool) -> None:
    request = Request("openai.chat", "m", stop=("a", "b", "c"))
    assert TextProfile(stop=stop).request(request).stop == sent
    assert (make({"stop": stop}, request) is not None) is watched


def test_all_stop_strings_are_watched_for_when_one_is_too_many() -> None:
    stage = make({"stop": 1}, Request("openai.chat", "m", stop=("a", "b")))
    assert stage is not None
    assert parts(told(stage, whole("x y a b"))) == ["x y "]


@pytest.mark.parametrize("options", [{}, {"stop": True}, {"tools": "hermes"}, {"stop": 4, "tools": "qwen"}])
def test_where_there_is_nothing_to_read_there_is_no_stage(options: dict[str, Any]) -> None:
    assert make(options, Request("openai.chat", "m"), tools=False) is None


def test_the_request_is_not_decoded_for_thinking() -> None:
    def never() -> Request:
        raise AssertionError("decoded")

    for profile in (TextProfile(think="auto"), TextProfile(tools="qwen"), TextProfile(tools="harmony")):
        profile.stage(never, True, lambda loss: None)


def test_harmony_tells_its_channels_without_tools() -> None:
    stage = make({"tools": "harmony"}, tools=False)
    assert stage is not None
    assert parts(told(stage, whole("<|channel|>analysis<|message|>a<|end|>"))) == [("think", "a")]


PAGE = (Path(__file__).parents[2] / "docs" / "text-parsers.md").read_text(encoding="utf-8")


def test_every_spelling_stands_in_the_page() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("| `tools` |"))
    assert re.findall(r"`(\w+)`", row)[1:] == list(get_args(ToolsIn))
    assert all(f"`{tag}`" in PAGE for tag in TAGS)


def test_a_mistake_in_the_rules_is_found_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(
        "version: 1\nupstreams:\n  a: {adapter: openai, text: {tools: hermess}}\nroutes: [{name: all, to: a}]\n"
    )
    (problem,) = rules.check(path)
    assert f"{path}:3:" in str(problem) and " E011 " in str(problem)
    assert 'did you mean "hermes"?' in str(problem)
