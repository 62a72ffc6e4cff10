"""Law 3, no silent loss: every field of a request arrives, or the ledger names it.

Requests are drawn from the SDKs' own types, so that a field that they gain is seen to be missing here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from headgate import Gateway
from headgate.gateway.codecs.base import RequestFacts, UpstreamFacts
from headgate.gateway.errors import CallerError, Unsupported
from headgate.gateway.ir.loss import Loss
from hypothesis import assume, given
from hypothesis import strategies as st

from ..fakes.provider import FakeProvider
from .common import ANTHROPIC, CODECS, CONTEXT, FORMATS, OPENAI, RESPONSES, ROADS, SPOKEN, law, streamed
from .fields import CALLED, REQUESTS
from .sdk_requests import Leaf, Place, known_members, leaves, requests

CROSSED: Final = ((OPENAI, ANTHROPIC), (ANTHROPIC, OPENAI))
TRANSLATED: Final = tuple((here, there) for here, there in ROADS if here != there)
_TOKEN: Final = re.compile(r"[^.\[\]]+")

UNSAID: Final = {"type", "role"}
"""Members that say what the others mean: they arrive, or not, with those."""

ANY: Final = object()
MEANT: Final[dict[str, tuple[tuple[str, object, str], ...]]] = {
    OPENAI: (
        (r".*", "auto", "what every format does unless told otherwise"),
        (r".*", False, "the same"),
        (r"parallel_tool_calls", True, "the same"),
        (r"response_format\.json_schema\.strict", True, "the same: a schema is always kept to"),
        (r"stream_options\.include_usage", True, "the other format's streams always tell usage"),
        (r".*prompt_cache_breakpoint\.mode", "explicit", "the mark itself says so"),
        (r"prompt_cache_options\.mode", "explicit", "the marks themselves say so"),
        (r"reasoning_effort", "none", "thinking is disabled: tested below"),
        (r"modalities\.\d+", "text", "what every answer is"),
        (r"verbosity", "medium", "the default"),
        (r"tool_choice|function_call", "none", "no tools, or said in an object: tested below"),
        (r"tool_choice", "required", "said in an object: tested below"),
    ),
    ANTHROPIC: (
        (r".*", "auto", "what every format does unless told otherwise"),
        (r".*", False, "the same"),
        (r"tool_choice\.disable_parallel_tool_use", True, "parallel_tool_calls is false: tested below"),
    ),
    RESPONSES: (
        (r".*", "auto", "what every format does unless told otherwise"),
        (r".*", False, "the same"),
        (r"parallel_tool_calls", True, "the same"),
        (r"text\.format\.strict", True, "the same: a schema is always kept to"),
        (r".*prompt_cache_breakpoint\.mode", "explicit", "the mark itself says so"),
        (r"prompt_cache_options\.mode", "explicit", "the marks themselves say so"),
        (r"include\.\d+", "reasoning.encrypted_content", "signatures come by themselves elsewhere"),
        (r"text\.verbosity", "medium", "the default"),
        (r"reasoning\.effort", "none", "thinking is disabled: tested below"),
        (r"tool_choice", "none", "no tools, or said in an object: tested below"),
        (r"tool_choice", "required", "said in an object: tested below"),
        (r"input\.\d+\.(id|status)", ANY, "an item's own, for its provider alone"),
        (r"input\.\d+\.phase", ANY, "of messages that are not the assistant's; of those: tested below"),
    ),
}
"""Values that arrive in other words, or that say what holds anyway: path, value, why."""

ELSEWHERE: Final[dict[tuple[str, str], tuple[tuple[str, object, str], ...]]] = {
    (OPENAI, RESPONSES): ((r"logprobs", True, "asked for by include: tested below"),),
    (ANTHROPIC, RESPONSES): ((r"thinking\.display", "summarized", "reasoning.summary is auto: thinking, shown"),),
    (RESPONSES, OPENAI): ((r"include\.\d+", "message.output_text.logprobs", "asked for by logprobs: tested below"),),
}
"""The same, of two formats alone."""


def path_of(text: str) -> Place:
    """Read a ledger's path."""
    return tuple(int(token) if token.isdigit() else token for token in _TOKEN.findall(text))


def names(loss: Loss, path: Place) -> bool:
    """Whether a ledger's entry speaks of the member at ``path``, or of what holds it."""
    named = path_of(loss.path)
    return bool(named) and named == path[: len(named)]


def is_meant(format: str, body: dict[str, Any], leaf: Leaf, there: str = "") -> bool:
    """Whether the table says that a value needs no place of its own."""
    path = ".".join(map(str, leaf.path))
    declares = leaf.path[0] in ("tools", "functions") or leaf.path[2:3] == ("tools",)
    if declares and "allowed_tools" in json.dumps(body.get("tool_choice")):
        return True  # only those of the choice are declared, which is in the ledger under tool_choice
    return any(
        re.fullmatch(pattern, path) and (value is ANY or (value == leaf.value and type(value) is type(leaf.value)))
        for pattern, value, _ in (*MEANT[format], *ELSEWHERE.get((format, there), ()))
    )


def arrives(leaf: Leaf, body: bytes, told: Sequence[Leaf]) -> bool:
    """Whether a value stands in the translated body, on its own or within a text."""
    value = leaf.value
    if isinstance(value, bool):
        return any(other.value is value and other.path[-1] == leaf.path[-1] for other in told)
    if isinstance(value, int | float):
        return json.dumps(value).encode() in body
    assert isinstance(value, str)
    if value.startswith("data:"):
        value = value.partition(",")[2]
    if value.encode() in body:
        return True  # the text of arguments is an object on the other side
    spelled = json.dumps(value)[1:-1]
    return spelled.encode() in body or json.dumps(spelled)[1:-1].encode() in body


def unnamed(format: str, body: dict[str, Any], out: bytes, losses: Sequence[Loss], there: str = "") -> Iterator[Leaf]:
    """Yield what is neither in the translated body nor in the ledger."""
    told = list(leaves(json.loads(out)))
    for leaf in leaves(body):
        if leaf.path[-1] in UNSAID or leaf.value is None or is_meant(format, body, leaf, there):
            continue
        if arrives(leaf, out, told):
            continue
        if not any(names(loss, leaf.path) for loss in losses):
            yield leaf


@pytest.mark.parametrize(("here", "there"), TRANSLATED)
@law
@given(st.data())
def test_what_does_not_arrive_is_named(here: str, there: str, data: st.DataObject) -> None:
    body = data.draw(requests(here))
    request = CODECS[here].decode_request(json.dumps(body).encode(), RequestFacts())
    try:
        encoded = CODECS[there].encode_request(request, UpstreamFacts())
    except CallerError:
        assume(False)
    missing = list(unnamed(here, body, encoded.body, encoded.losses, there))
    assert missing == [], [loss.path for loss in encoded.losses]


@pytest.mark.parametrize("format", FORMATS)
def test_the_page_lists_every_setting(format: str) -> None:
    """What the SDK can say at the top of a request stands in docs/formats.md."""
    listed = {word for row in REQUESTS[format] for word in re.findall(r"\w+", row.field)}
    assert known_members(format) - listed <= {"model", "function_call"}


def noted(here: str, there: str, body: dict[str, Any]) -> list[tuple[str, str]]:
    """Return kind and path of the losses of a request with these members."""
    said: dict[str, Any] = {"max_tokens": 90, "messages": [{"role": "user", "content": "hi"}]}
    least = {"model": "m"} | ({"input": "hi"} if here == RESPONSES else said)
    request = CODECS[here].decode_request(json.dumps(least | body).encode(), RequestFacts())
    return [(loss.kind, loss.path) for loss in CODECS[there].encode_request(request, UpstreamFacts()).losses]


IMAGE_URL: Final = {"type": "image_url", "image_url": {"url": "https://a.example/p.png", "detail": "low"}}
MARK: Final = {"cache_control": {"type": "ephemeral"}}
PLACES: Final[list[tuple[str, dict[str, Any], list[tuple[str, str]]]]] = [
    (OPENAI, {"web_search_options": {}}, [("lost", "web_search_options")]),
    (OPENAI, {"stream_options": {}, "metadata": {}, "store": False, "prompt_cache_key": "", "x": None, "y": []}, []),
    (OPENAI, {"reasoning": {"effort": "low"}}, [("lost", "reasoning")]),
    (OPENAI, {"reasoning_effort": "minimal"}, [("emulated", "reasoning_effort")]),
    (OPENAI, {"service_tier": "default"}, [("emulated", "service_tier")]),
    (
        OPENAI,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "r", "schema": {}}}},
        [("emulated", "response_format.json_schema.name")],
    ),
    (OPENAI, {"functions": [{"name": "f"}]}, [("minted", "functions[0].parameters")]),
    (
        OPENAI,
        {"messages": [{"role": "tool", "tool_call_id": "c", "name": "look", "content": "x"}]},
        [("lost", "messages[0].name")],
    ),
    (
        OPENAI,
        {
            "messages": [
                {"role": "assistant", "content": "x", "reasoning": "hm", "tool_calls": [{**CALLED, "id": "a b"}]},
                {"role": "user", "content": [{**IMAGE_URL, "x": 1}, {"type": "text", "text": "x", "y": 1}]},
            ]
        },
        [
            ("lost", "messages[0].reasoning"),
            ("minted", "messages[0].tool_calls[0].id"),
            ("lost", "messages[1].content[0].image_url.detail"),
            ("lost", "messages[1].content[0].x"),
            ("lost", "messages[1].content[1].y"),
        ],
    ),
    (
        ANTHROPIC,
        {"system": "s", "messages": [{"role": "user", "content": [{"type": "text", "text": "x", **MARK}]}]},
        [("lost", "messages[0].content[0].cache_control")],
    ),
    (
        ANTHROPIC,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", **MARK}]}]},
        [("lost", "messages[0].content[0].cache_control")],
    ),
    (
        ANTHROPIC,
        {"system": [{"type": "text", "text": "s"}, {"type": "text", "text": "t", **MARK}]},
        [("lost", "system[1].cache_control")],
    ),
    (
        ANTHROPIC,
        {
            "system": "s",
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "s", **MARK}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x", "y": 1}]},
                        {"type": "tool_result", "tool_use_id": "t", "content": "x", "is_error": True},
                    ],
                },
            ],
        },
        [
            ("lost", "messages[0].content[0].cache_control"),
            ("lost", "messages[1].content[0].content[0].y"),
            ("lost", "messages[1].content[1].is_error"),
        ],
    ),
    (ANTHROPIC, {"thinking": {"type": "disabled"}, **MARK}, [("lost", "thinking.type"), ("lost", "cache_control")]),
    (
        ANTHROPIC,
        {"thinking": {"type": "adaptive", "display": "x"}},
        [("emulated", "thinking.type"), ("lost", "thinking.display")],
    ),
    (ANTHROPIC, {"output_format": {"type": "json_schema", "schema": {}}}, [("minted", "output_format.name")]),
    (ANTHROPIC, {"stop_sequences": list("abcde"), "stop": "x"}, [("lost", "stop_sequences[4]"), ("lost", "stop")]),
]
"""Requests, and what the ledger says of them in the caller's own words."""


@pytest.mark.parametrize(("here", "body", "losses"), PLACES)
def test_the_ledger_speaks_as_the_caller_does(here: str, body: dict[str, Any], losses: list[tuple[str, str]]) -> None:
    assert noted(here, ANTHROPIC if here == OPENAI else OPENAI, body) == losses


RESPONSES_CALL: Final = [
    {"role": "user", "content": "hi"},
    {
        "type": "message",
        "role": "assistant",
        "phase": "commentary",
        "id": "m",
        "status": "completed",
        "content": [{"type": "output_text", "text": "x", "annotations": [{"type": "file_path"}], "y": 1}],
    },
    {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}", "namespace": "n", "id": "fc"},
    {
        "type": "function_call_output",
        "call_id": "c",
        "output": [{"type": "input_text", "text": "x", "y": 1}, {"type": "input_image", "image_url": "https://a.b/"}],
    },
]
RESPONSES_THOUGHT: Final = [
    {"role": "user", "content": "hi"},
    {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "E"},
    {"type": "web_search_call", "id": "w", "status": "completed"},
    {
        "role": "user",
        "content": [{"type": "input_text", "text": "go", "prompt_cache_breakpoint": {"mode": "explicit"}}],
    },
]
HOISTED: Final = [
    {"type": "additional_tools", "role": "developer", "tools": [{"type": "shell"}, {"type": "function", "name": "f"}]},
    {"role": "user", "content": "hi"},
]
RESPONSES_PLACES: Final[list[tuple[str, str, dict[str, Any], list[tuple[str, str]]]]] = [
    (RESPONSES, OPENAI, {"include": ["message.output_text.logprobs", "reasoning.encrypted_content"]}, []),
    (RESPONSES, OPENAI, {"top_logprobs": 0, "background": False, "store": False, "reasoning": {}, "text": {}}, []),
    (RESPONSES, OPENAI, {"service_tier": "flex"}, []),
    (RESPONSES, OPENAI, {"prompt_cache_key": "k"}, [("lost", "prompt_cache_key")]),
    (
        RESPONSES,
        OPENAI,
        {"input": RESPONSES_CALL},
        [
            ("lost", "input[2].namespace"),
            ("lost", "input[1].content[0].annotations"),
            ("lost", "input[1].content[0].y"),
            ("lost", "input[1].phase"),
            ("lost", "input[3].output[0].y"),
            ("emulated", "input[3].output[1]"),
        ],
    ),
    (
        RESPONSES,
        OPENAI,
        {"instructions": "s", "input": RESPONSES_THOUGHT},
        [
            ("lost", "input[1]"),
            ("lost", "input[2]"),
            ("lost", "input[3].content[0].prompt_cache_breakpoint"),
        ],
    ),
    (RESPONSES, ANTHROPIC, {"top_logprobs": 3}, [("lost", "top_logprobs"), ("lost", "top_logprobs")]),
    (RESPONSES, ANTHROPIC, {"reasoning": {"effort": "none"}, "tool_choice": "none"}, []),
    (
        RESPONSES,
        ANTHROPIC,
        {"include": ["message.output_text.logprobs", "file_search_call.results"]},
        [("lost", "include"), ("lost", "include")],
    ),
    (
        RESPONSES,
        ANTHROPIC,
        {"reasoning": {"effort": "minimal", "summary": "auto"}, "text": {"verbosity": "low"}},
        [("emulated", "reasoning.effort"), ("lost", "reasoning.summary"), ("lost", "text.verbosity")],
    ),
    (
        RESPONSES,
        ANTHROPIC,
        {"input": HOISTED, "tools": [{"type": "file_search", "vector_store_ids": ["v"]}]},
        [("lost", "tools[0]"), ("lost", "input[0].tools[0]"), ("minted", "input[0].tools[1].parameters")],
    ),
    (
        RESPONSES,
        ANTHROPIC,
        {"previous_response_id": "r", "prompt": {"id": "p"}, "max_tool_calls": 3, "truncation": "auto"},
        [("lost", "previous_response_id"), ("lost", "prompt"), ("lost", "max_tool_calls"), ("lost", "truncation")],
    ),
    (
        OPENAI,
        RESPONSES,
        {"store": True, "prompt_cache_key": "k", "logprobs": True, "verbosity": "low", "reasoning_effort": "low"},
        [],
    ),
    (OPENAI, RESPONSES, {"seed": 1, "stop": "x", "n": 2}, [("lost", "stop"), ("lost", "seed"), ("lost", "n")]),
    (OPENAI, RESPONSES, {"web_search_options": {}}, [("lost", "web_search_options")]),
    (
        ANTHROPIC,
        RESPONSES,
        {"thinking": {"type": "enabled", "budget_tokens": 3000}, "top_k": 3, "stop_sequences": ["a"]},
        [("lost", "top_k"), ("lost", "stop_sequences"), ("emulated", "thinking.budget_tokens")],
    ),
    (
        ANTHROPIC,
        RESPONSES,
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": "S"},
                        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t", "content": "no", "is_error": True}],
                },
            ]
        },
        [("lost", "messages[0].content[0]"), ("lost", "messages[1].content[0].is_error")],
    ),
    (ANTHROPIC, RESPONSES, {"max_tokens": 1}, [("emulated", "max_tokens")]),
    (OPENAI, RESPONSES, {"max_tokens": 1}, [("emulated", "max_tokens")]),
    (OPENAI, RESPONSES, {"max_tokens": None, "max_completion_tokens": 1}, [("emulated", "max_completion_tokens")]),
]


def test_a_grammar_is_nested_in_one_format_and_flat_in_the_other() -> None:
    grammar = {"syntax": "lark", "definition": "x"}
    tools = [
        {"type": "custom", "custom": {"name": "a", "format": {"type": "grammar", "grammar": grammar}}},
        {"type": "custom", "custom": {"name": "b", "format": {"type": "text"}}},
    ]
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": tools}
    request = CODECS[OPENAI].decode_request(json.dumps(body).encode(), RequestFacts())
    encoded = CODECS[RESPONSES].encode_request(request, UpstreamFacts())
    assert encoded.losses == ()
    assert json.loads(encoded.body)["tools"] == [
        {"type": "custom", "name": "a", "format": {"type": "grammar", **grammar}},
        {"type": "custom", "name": "b", "format": {"type": "text"}},
    ]


@pytest.mark.parametrize(("here", "there", "body", "losses"), RESPONSES_PLACES)
def test_the_ledger_speaks_as_a_caller_of_responses_does(
    here: str, there: str, body: dict[str, Any], losses: list[tuple[str, str]]
) -> None:
    found = noted(here, there, body)
    assert [loss for loss in found if loss != ("minted", "max_tokens")] == losses


def test_log_probabilities_are_asked_for_either_way() -> None:
    request = CODECS[OPENAI].decode_request(b'{"model":"m","messages":[],"logprobs":true}', RequestFacts())
    asked = json.loads(CODECS[RESPONSES].encode_request(request, UpstreamFacts()).body)
    assert asked["include"] == ["message.output_text.logprobs"]
    for more in ({"include": ["message.output_text.logprobs"]}, {"top_logprobs": 2}):
        body = json.dumps({"model": "m", "input": "hi"} | more).encode()
        request = CODECS[RESPONSES].decode_request(body, RequestFacts())
        assert json.loads(CODECS[OPENAI].encode_request(request, UpstreamFacts()).body)["logprobs"] is True


@pytest.mark.parametrize(
    ("word", "entries"),
    [
        ("end_turn", []),
        ("max_tokens", []),
        ("refusal", ["refusal"]),
        ("model_context_window_exceeded", ["model_context_window_exceeded"]),
        ("pause_turn", ["pause_turn"]),
    ],
)
def test_a_finish_reason_that_is_only_near_is_named(word: str, entries: list[str]) -> None:
    usage = {"input_tokens": 1, "output_tokens": 1}
    body = {"id": "m", "type": "message", "model": "m", "content": [{"type": "text", "text": "x"}]}
    events = CODECS[ANTHROPIC].decode_response(json.dumps(body | {"stop_reason": word, "usage": usage}).encode())
    whole = CODECS[OPENAI].encode_response(events, CONTEXT).losses
    for losses in (whole, streamed(OPENAI, events)[1]):
        assert [loss.what for loss in losses if loss.path == "choices[0].finish_reason"] == entries


# -- the same format

RAW: Final = ["1.50", "1e3", '"\\u00fc\\/"', '{"b" :1.0,  "a": [ ]}', "12345678901234567890", '"\u2028"', "[1.0, {}]"]


def _with_unknown(value: Any, data: st.DataObject, spelled: list[str]) -> Any:
    """Return ``value`` with members that nobody knows; their values are marks, to be replaced by ``spelled``."""
    if isinstance(value, list):
        return [_with_unknown(inner, data, spelled) for inner in value]
    if not isinstance(value, dict):
        return value
    # Every member of metadata is known: a text.
    more = {name: i if name == "metadata" else _with_unknown(i, data, spelled) for name, i in value.items()}
    if data.draw(st.integers(0, 2)) == 0:
        spelled.append(data.draw(st.sampled_from(RAW)))
        more[f"x_{len(spelled)}"] = f"<{len(spelled) - 1}>"
    return more


@pytest.mark.parametrize("format", SPOKEN)
@law
@given(st.data())
def test_unknown_members_survive_the_same_format(format: str, data: st.DataObject) -> None:
    spelled: list[str] = []
    body = json.dumps(_with_unknown(data.draw(requests(format)), data, spelled))
    for number, text in enumerate(spelled):
        body = body.replace(f'"<{number}>"', text)
    request = CODECS[format].decode_request(body.encode(), RequestFacts())
    encoded = CODECS[format].encode_request(request, UpstreamFacts())
    assert encoded.losses == ()
    assert _spelled(encoded.body) == _spelled(body.encode())
    for number, text in enumerate(spelled, 1):
        assert re.search(rf'"x_{number}": ?{re.escape(text)}', encoded.body.decode()), (number, text)


def _spelled(body: bytes) -> Any:
    """Read JSON, numbers as they are spelled."""
    return json.loads(body, parse_float=str, parse_int=str)


# -- loss: refuse


@pytest.mark.parametrize(("here", "there"), CROSSED)
async def test_what_would_be_lost_can_be_refused(here: str, there: str, provider: FakeProvider, tmp_path: Path) -> None:
    """Nothing is sent: the provider hears of the calls alone that lose nothing."""
    adapter = "openai" if there == OPENAI else "anthropic"
    path = tmp_path / "routes.yaml"
    base = provider.base + ("/v1" if there == OPENAI else "")
    path.write_text(
        f'version: 1\nupstreams: {{up: {{adapter: {adapter}, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}}}\n'
        "routes: [{name: strict, to: up, loss: refuse}]\n"
    )
    body: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    if here == OPENAI:
        del body["max_tokens"]  # minted, which is no loss
    lost: dict[str, Any] = {"seed": 1} if here == OPENAI else {"top_k": 1}
    async with Gateway.load(path) as gateway:
        reply = await gateway.handle(here, json.dumps(body).encode())
        await reply.collect()
        assert len(provider.requests) == 1
        for stream in (False, True):
            asked = json.dumps(body | lost | {"stream": stream}).encode()
            with pytest.raises(Unsupported, match=next(iter(lost))):
                await gateway.handle(here, asked)
    assert len(provider.requests) == 1
