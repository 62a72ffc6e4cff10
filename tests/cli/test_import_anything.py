"""Imports of what nobody foresaw: no traceback, nothing passed over in silence, no secret shown, a file that loads."""

from __future__ import annotations

import copy
import json
import re

import pytest
import yaml
from headgate.gateway import rules
from headgate.gateway.cli.main import main
from headgate.gateway.importers import GATEWAYS, Unreadable, convert
from hypothesis import given, settings
from hypothesis import strategies as st

from .importing import CORPUS

FILES = {"litellm": "litellm.yaml", "portkey": "portkey.json", "claude-code-router": "claude-code-router.json"}
TEXTS = {gateway: (CORPUS / name).read_text() for gateway, name in FILES.items()}


def data_of(gateway):
    text = re.sub(r"^//.*\n", "", TEXTS[gateway])
    return yaml.safe_load(re.sub(r",(\s*[}\]])", r"\1", text))


SAMPLES = {gateway: data_of(gateway) for gateway in FILES}
RICH = {
    "model_list": [
        {
            "model_name": name,
            "litellm_params": {
                "model": model,
                "order": at % 2,
                "rpm": at,
                "tpm": 5,
                "max_retries": at,
                "num_retries": 1,
                "timeout": 9,
                "extra_headers": {"x-a": "b", "x-key": "os.environ/K"},
                "organization": "o",
                "custom_llm_provider": None,
            },
            "model_info": {"id": f"id-{at}", "mode": "chat", "max_tokens": 1},
        }
        for at, (name, model) in enumerate(
            [
                ("a", "openai/x"),
                ("a", "groq/y"),
                ("b", "claude-1"),
                ("c*", "openai/c*"),
                ("*", "openai/*"),
                ("mistral/*", "mistral/*"),
            ]
        )
    ],
    "router_settings": {
        "retry_policy": {"RateLimitErrorRetries": 2, "TimeoutErrorRetries": 1},
        "fallbacks": [{"a": ["b", "id-3"]}, {"*": ["a"]}],
        "default_fallbacks": ["b"],
        "model_group_alias": {"d": "a", "e": {"model": "b", "hidden": True}},
        "timeout": 5,
        "stream_timeout": 2,
    },
    "litellm_settings": {
        "context_window_fallbacks": [{"a": ["b"]}],
        "content_policy_fallbacks": [{"b": ["a"]}],
        "request_timeout": 7,
        "drop_params": False,
    },
    "general_settings": {"master_key": "k", "max_request_size_mb": 3},
    "environment_variables": {"K": "v"},
}
SECRETS = ("sk-abcdefghijklmnopqrstuvwxyz012345", "ghp_abcdefghijklmnopqrstuvwxyz0123", "plain words that are a secret")
WORDS = (
    *(
        "",
        "*",
        "gpt-*",
        "a,b",
        "@openai/x",
        "openai/",
        "/",
        "os.environ/X",
        "$X",
        "${X}",
        "on",
        "1:30",
        "{a: b}",
        "- x",
        "# no",
    ),
    *(
        "http://",
        "https://u:p@h/v1",
        "http://h:99999/",
        "\u2028",
        "\x85",
        "\ud800",
        "\U0001f600",
        "a\nb",
        "é",
        "%",
        "&a",
        "!x",
    ),
    *(
        "fallback",
        "loadbalance",
        "conditional",
        "bedrock",
        "anthropic",
        "azure/x",
        "null",
        "true",
        "x" * 300,
        "env:A",
        "file:x",
    ),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), st.sampled_from(WORDS), st.text(max_size=12)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value, way=()):
    """Every place in a structure."""
    yield way
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*way, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from places(inner, (*way, at))


def mutated(draw, sample):
    """A copy with a few places replaced, removed, doubled or moved."""
    data = copy.deepcopy(sample)
    for _ in range(draw(st.integers(1, 4))):
        ways = [way for way in places(data) if way]
        if not ways:
            break
        *way, last = draw(st.sampled_from(ways))
        parent = data
        for step in way:
            parent = parent[step]
        match draw(st.sampled_from(["replace", "remove", "double", "take"])):
            case "replace":
                parent[last] = draw(values)
            case "remove":
                del parent[last]
            case "double" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[last]))
            case _:
                other = data
                for step in draw(st.sampled_from(ways)):
                    try:
                        other = other[step]
                    except (LookupError, TypeError):
                        break
                parent[last] = copy.deepcopy(other)
    return data


def spell(data, form):
    """A structure as text; lone halves of characters have no bytes, and would never arrive."""
    text = json.dumps(data) if form == "json" else yaml.safe_dump(data, allow_unicode=True)
    return text.encode("utf-8", "replace").decode()


def check(gateway, text):
    """Import; what comes out loads, what is refused is refused with a line."""
    fault = None
    try:
        made = convert(gateway, text, "source", {})
    except Unreadable as raised:
        fault, made = raised, None
    if fault is not None:
        assert fault.problems and all(problem.line >= 1 for problem in fault.problems)
    else:
        rules.loads(made.text)
    return made


@pytest.mark.parametrize("gateway", GATEWAYS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_mutants_of_the_samples_come_out_in_order(gateway, data):
    samples = [SAMPLES[gateway], RICH if gateway == "litellm" else SAMPLES[gateway], *SAMPLES.values()]
    sample = data.draw(st.sampled_from(samples))
    mutant = mutated(data.draw, sample)
    check(gateway, spell(mutant, data.draw(st.sampled_from(["json", "yaml"]))))


@pytest.mark.parametrize("gateway", GATEWAYS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_texts_are_read_or_refused_with_a_line(gateway, data):
    text = TEXTS[gateway]
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 20))
    piece = data.draw(st.text(max_size=5) | st.sampled_from(WORDS))
    check(gateway, (text[:at] + piece + text[at + cut :]).encode("utf-8", "replace").decode())


@pytest.mark.parametrize("gateway", GATEWAYS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_key_that_nobody_knows_is_always_in_the_report(gateway, data):
    config = copy.deepcopy(SAMPLES[gateway])
    way = data.draw(st.sampled_from([way for way in places(config) if isinstance(lookup(config, way), dict)]))
    lookup(config, way)["nobody_knows_me"] = data.draw(st.sampled_from([1, "text", {"a": 1}, [1], [], True]))
    made = check(gateway, spell(config, "json"))
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in (*way, "nobody_knows_me"))[1:]
    left = [entry.path for entry in made.entries if entry.outcome != "secret"]
    assert any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in left), (path, left)


def lookup(value, way):
    for step in way:
        value = value[step]
    return value


@pytest.mark.parametrize("gateway", GATEWAYS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_secret_is_shown(gateway, data):
    config = copy.deepcopy(SAMPLES[gateway])
    ways = [way for way in places(config) if way and not isinstance(lookup(config, way), dict | list)]
    way = data.draw(st.sampled_from(ways))
    named = re.search(r"key|token|secret", str(way[-1]), re.IGNORECASE)
    secret = data.draw(st.sampled_from(SECRETS if named else SECRETS[:2]))
    lookup(config, way[:-1])[way[-1]] = data.draw(st.sampled_from(["{}", "{}", "x {} y", "https://h/{}"])).format(
        secret
    )
    made = check(gateway, spell(config, "json"))
    assert secret not in made.text and secret not in "".join(map(str, made.entries))


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_deep_and_wide_sources(gateway, tmp_path, capsys):
    source = tmp_path / "source"
    for text in (
        "[" * 500,
        '{"a": ' * 500,
        '{"targets": [' * 30 + "]}" * 30,
        "a: &a [x]\n" + "b: [*a]\n",
        "x" * 2_000_000,
    ):
        source.write_text(text)
        assert main(["import", gateway, str(source)]) in (0, 1)
    capsys.readouterr()


def test_comments_tabs_and_characters_of_json():
    text = '{\n\t// note "x"\n\t"PORT": 1234, /* more\n */ "LOG": false, "x": "\\ud83d\\ude00 \\ud800 // no",\n}'
    made = convert("claude-code-router", text, "c.json", {})
    assert "127.0.0.1:1234" in made.text and made.entries[0].was.startswith("\U0001f600") and made.entries[0].line == 4
