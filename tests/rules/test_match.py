"""Conditions of routes on the facts of requests."""

import re
import sys
import types

import msgspec
import pytest
import yaml
from headgate.gateway.rules.condition import covers, spell
from headgate.gateway.rules.document import parse
from headgate.gateway.rules.match import compile_match
from headgate.gateway.rules.problems import Problems
from headgate.gateway.rules.read_match import read_match


def conditions(text: str):
    problems = Problems()
    found = read_match(parse(text, "f", problems), "match", problems)
    assert found is not None, problems.sorted()
    return found


IMAGE = b'{"messages":[{"content":[{"type": "image_url","image_url":{}}]}]}'
QUOTED = rb'{"messages":[{"content":"{\"type\": \"image_url\"}"}]}'
METADATA = {"user_id": "u-7", "tier": 3, "beta": True, "tags": ["a", "b", 5], "ratio": 0.5, "none": None}

# the match, the request, whether it matches
CASES = [
    ("{}", {}, True),
    ("{model: gpt-*}", {"model": "gpt-5"}, True),
    ("{model: gpt-*}", {"model": "GPT-5"}, False),
    ("{model: [a, b*, '*c']}", {"model": "bb"}, True),
    ("{model: [a, b*, '*c']}", {"model": "xc"}, True),
    ("{model: [a, b*, '*c']}", {"model": "d"}, False),
    ("{model: {not: gpt-*}}", {"model": "o3"}, True),
    ("{model: {not: [gpt-*, o3]}}", {"model": "o3"}, False),
    ("{model: {prefix: gpt, suffix: mini}}", {"model": "gpt-mini"}, True),
    ("{model: {prefix: gpt, suffix: mini}}", {"model": "gpt-nano"}, False),
    ("{model: {prefix: 'a*'}}", {"model": "a*b"}, True),
    ("{model: {prefix: 'a*'}}", {"model": "axb"}, False),
    ("{model: {has: son}}", {"model": "sonnet"}, True),
    ("{model: ''}", {"model": ""}, True),
    ("{format: anthropic.*}", {"format": "anthropic.messages"}, True),
    ("{format: [openai.chat]}", {"format": "anthropic.messages"}, False),
    ("{path: /v1/*}", {"path": "/v1/messages"}, True),
    ("{query.debug: '1'}", {"query": {"debug": "1"}}, True),
    ("{query.debug: '1'}", {}, False),
    ("{query.debug: {exists: false}}", {}, True),
    ("{query.debug: {exists: true}}", {"query": {"debug": ""}}, True),
    ("{query.Debug: '1'}", {"query": {"debug": "1"}}, False),
    ("{header.User-Agent: codex*}", {"headers": {"user-agent": "Codex/1.2"}}, True),
    ("{header.user-agent: [{prefix: Claude}, {prefix: CODEX}]}", {"headers": {"user-agent": "codex/1.2"}}, True),
    ("{header.user-agent: [{prefix: Claude}, {prefix: CODEX}]}", {}, False),
    ("{header.x-team: {not: core}}", {}, True),
    ("{header.x-team: {not: CORE}}", {"headers": {"x-team": "core"}}, False),
    ("{header.x-team: {has: Or}}", {"headers": {"x-team": "core"}}, True),
    ("{metadata.user_id: u-*}", {"metadata": METADATA}, True),
    ("{metadata.user_id: U-*}", {"metadata": METADATA}, False),
    ("{metadata.tier: 3}", {"metadata": METADATA}, True),
    ("{metadata.tier: '3'}", {"metadata": METADATA}, False),
    ("{metadata.tier: {gt: 2, lt: 4}}", {"metadata": METADATA}, True),
    ("{metadata.tier: {gt: 3}}", {"metadata": METADATA}, False),
    ("{metadata.user_id: {gt: 3}}", {"metadata": METADATA}, False),
    ("{metadata.beta: true}", {"metadata": METADATA}, True),
    ("{metadata.beta: 1}", {"metadata": METADATA}, False),
    ("{metadata.beta: {gt: 0}}", {"metadata": METADATA}, False),
    ("{metadata.ratio: {lt: 0.6}}", {"metadata": METADATA}, True),
    ("{metadata.tags: {has: a}}", {"metadata": METADATA}, True),
    ("{metadata.tags: {has: 5}}", {"metadata": METADATA}, True),
    ("{metadata.tags: {has: c}}", {"metadata": METADATA}, False),
    ("{metadata.tags: a}", {"metadata": METADATA}, False),
    ("{metadata.none: {exists: true}}", {"metadata": METADATA}, False),
    ("{metadata.a: {exists: false}}", {"metadata": [1]}, True),
    ("{metadata.a: b}", {}, False),
    ("{request.tokens: {gt: 10}}", {"body": b"x" * 44}, True),
    ("{request.tokens: {gt: 10}}", {"body": b"x" * 43}, False),
    ("{request.tokens: {lt: 10}}", {"body": b"x" * 39}, True),
    ("{request.tokens: 10}", {"body": b"x" * 41}, True),
    ("{request.tokens: {not: {gt: 10}}}", {"body": b"x"}, True),
    ("{request.stream: true}", {"stream": True}, True),
    ("{request.stream: false}", {"stream": True}, False),
    ("{request.stream: {not: true}}", {"stream": False}, True),
    ("{request.tools: true}", {"tools": [{"name": "a"}]}, True),
    ("{request.tools: true}", {"tools": []}, False),
    ("{request.tools: false}", {}, True),
    ("{request.has_image: true}", {"body": IMAGE}, True),
    ("{request.has_image: true}", {"body": QUOTED}, False),
    ("{request.has_image: false}", {"body": b"{}"}, True),
    ("{model: a, request.stream: true, header.x: y}", {"model": "a", "stream": True, "headers": {"x": "y"}}, True),
    ("{model: a, request.stream: true, header.x: y}", {"model": "a", "stream": True}, False),
]


def request_of(facts, **given):
    for name in ("metadata", "tools"):
        if name in given:
            given[name] = msgspec.Raw(msgspec.json.encode(given[name]))
    return facts(**given)


@pytest.mark.parametrize(("text", "given", "expected"), CASES, ids=[f"{case[0]} {case[1]}" for case in CASES])
def test_matching(text, given, expected, facts):
    assert compile_match(conditions(text))(request_of(facts, **given)) is expected


@pytest.mark.parametrize("text", [case[0] for case in CASES])
def test_conditions_can_be_spelled_again(text):
    again = {fact: spell(condition) for fact, condition in conditions(text).items()}
    assert conditions(yaml.safe_dump(again)) == conditions(text)


def test_metadata_that_is_no_json_is_nothing(facts):
    wire = facts(metadata=msgspec.Raw(b"{nonsense"))
    assert wire.metadata == {}


class _Re2(types.ModuleType):
    """Stands in for google-re2, which need not be installed here; its own behaviour is tested where it is."""

    error = re.error

    class Options:
        max_mem = 0
        log_errors = True

    @staticmethod
    def compile(pattern, options):
        assert options.max_mem > 0 and options.log_errors is False
        return re.compile(pattern)


def test_a_regex_is_found_anywhere_and_case_matters(facts, monkeypatch):
    monkeypatch.setitem(sys.modules, "re2", _Re2("re2"))
    matches = compile_match(conditions("{model: {regex: 'pt-[0-9]'}}"))
    assert [matches(facts(model)) for model in ("gpt-5", "gpT-5", "gp-5")] == [True, False, False]
    matches = compile_match(conditions("{header.x: {regex: 'A'}}"))
    assert [matches(facts(headers={"x": value})) for value in ("bAb", "bab")] == [True, False]


def test_a_regex_of_re2(facts):
    pytest.importorskip("re2")
    matches = compile_match(conditions("{model: {regex: '^(a+)+$'}}"))
    assert matches(facts("aaa")) and not matches(facts("a" * 5000 + "b"))


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("gpt-*", "gpt-5", True),
        ("[a, b]", "a", True),
        ("[a, b*]", "[b, bb*, a]", True),
        ("[a, b]", "[a, c]", False),
        ("{prefix: a}", "ab*", True),
        ("{not: a}", "{not: a}", True),
        ("{not: a}", "b", False),
        ("'*'", "{prefix: a, suffix: b}", True),
        ("{prefix: a, suffix: b}", "ab", True),
        ("{prefix: a, suffix: b}", "a", False),
        ("a", "[a]", True),
        ("[a]", "a", True),
    ],
)
def test_covering_of_texts(wide, narrow, expected):
    assert covers(conditions(f"{{model: {wide}}}")["model"], conditions(f"{{model: {narrow}}}")["model"]) is expected


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("{gt: 5}", "{gt: 5}", True),
        ("{gt: 5}", "{gt: 6}", True),
        ("{gt: 6}", "{gt: 5}", False),
        ("{gt: 5}", "6", True),
        ("{gt: 5}", "5", False),
        ("{lt: 5}", "{gt: 1, lt: 4}", True),
        ("{exists: true}", "{gt: 5}", True),
        ("{exists: true}", "{not: 5}", False),
        ("{exists: true}", "{exists: false}", False),
        ("1", "true", False),
        ("{has: 1}", "{has: true}", False),
    ],
)
def test_covering_of_numbers(wide, narrow, expected):
    assert (
        covers(
            conditions(f"{{metadata.n: {wide}}}")["metadata.n"], conditions(f"{{metadata.n: {narrow}}}")["metadata.n"]
        )
        is expected
    )
