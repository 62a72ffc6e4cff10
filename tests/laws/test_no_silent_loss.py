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
from .common import ANTHROPIC, CODECS, CONTEXT, FORMATS, OPENAI, law, streamed
from .fields import CALLED, REQUESTS
from .sdk_requests import Leaf, Place, known_members, leaves, requests

CROSSED: Final = ((OPENAI, ANTHROPIC), (ANTHROPIC, OPENAI))
_TOKEN: Final = re.compile(r"[^.\[\]]+")

UNSAID: Final = {"type", "role"}
"""Members that say what the others mean: they arrive, or not, with those."""

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
}
"""Values that arrive in other words, or that say what holds anyway: path, value, why."""


def path_of(text: str) -> Place:
    """Read a ledger's path."""
    return tuple(int(token) if token.isdigit() else token for token in _TOKEN.findall(text))


def names(loss: Loss, path: Place) -> bool:
    """Whether a ledger's entry speaks of the member at ``path``, or of what holds it."""
    named = path_of(loss.path)
    return bool(named) and named == path[: len(named)]


def is_meant(format: str, body: dict[str, Any], leaf: Leaf) -> bool:
    """Whether the table says that a value needs no place of its own."""
    path = ".".join(map(str, leaf.path))
    if leaf.path[0] in ("tools", "functions") and "allowed_tools" in json.dumps(body.get("tool_choice")):
        return True  # only those of the choice are declared, which is in the ledger under tool_choice
    return any(
        re.fullmatch(pattern, path) and value == leaf.value and type(value) is type(leaf.value)
        for pattern, value, _ in MEANT[format]
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


def unnamed(format: str, body: dict[str, Any], out: bytes, losses: Sequence[Loss]) -> Iterator[Leaf]:
    """Yield what is neither in the translated body nor in the ledger."""
    told = list(leaves(json.loads(out)))
    for leaf in leaves(body):
        if leaf.path[-1] in UNSAID or leaf.value is None or is_meant(format, body, leaf):
            continue
        if arrives(leaf, out, told):
            continue
        if not any(names(loss, leaf.path) for loss in losses):
            yield leaf


@pytest.mark.parametrize(("here", "there"), CROSSED)
@law
@given(st.data())
def test_what_does_not_arrive_is_named(here: str, there: str, data: st.DataObject) -> None:
    body = data.draw(requests(here))
    request = CODECS[here].decode_request(json.dumps(body).encode(), RequestFacts())
    try:
        encoded = CODECS[there].encode_request(request, UpstreamFacts())
    except CallerError:
        assume(False)
    missing = list(unnamed(here, body, encoded.body, encoded.losses))
    assert missing == [], [loss.path for loss in encoded.losses]


@pytest.mark.parametrize("format", FORMATS)
def test_the_page_lists_every_setting(format: str) -> None:
    """What the SDK can say at the top of a request stands in docs/formats.md."""
    listed = {word for row in REQUESTS[format] for word in re.findall(r"\w+", row.field)}
    assert known_members(format) - listed <= {"model", "function_call"}


def noted(here: str, there: str, body: dict[str, Any]) -> list[tuple[str, str]]:
    """Return kind and path of the losses of a request with these members."""
    least = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
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


@pytest.mark.parametrize("format", FORMATS)
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
