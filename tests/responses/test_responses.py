"""What a request says of state, what is kept of an answer, and how it is shown again: values and bytes, no sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.codecs.openai_responses import CODEC
from headgate.gateway.errors import CallerError, Cut, DecodeError, GatewayError
from headgate.gateway.ir.event import ChoiceStop, Chunk, PartDelta, PartStart, PartStop, ResponseStart, ResponseStop
from headgate.gateway.ir.message import Text
from headgate.gateway.responses import errors, pages
from headgate.gateway.responses.kept import Kept, Policy, conversation, keep, key_of, read
from headgate.gateway.responses.recorder import Recorder
from headgate.gateway.responses.request import (
    carries_foreign_reasoning,
    items_of,
    read_asked,
    with_encrypted_reasoning,
    write_out,
)
from headgate.gateway.stores.base import get_one
from headgate.gateway.stores.memory import MemoryStore
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw


def body(**members: Any) -> bytes:
    return json.dumps({"model": "m", **members}).encode()


ITEMS: list[tuple[bytes, list[bytes]]] = [
    (b'{"model":"m"}', []),
    (b'{"model":"m","input":null}', []),
    (b'{"model":"m","input":"Hi \\u00fc"}', [b'{"role":"user","content":"Hi \\u00fc"}']),
    (b'{"model":"m","input":[]}', []),
    (b'{"model":"m","input":[{"role" : "user"}, 5 ]}', [b'{"role" : "user"}', b"5"]),
]


@pytest.mark.parametrize(("text", "wanted"), ITEMS)
def test_the_input_as_items(text: bytes, wanted: list[bytes]) -> None:
    assert [bytes(item) for item in items_of(read_asked(text))] == wanted


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"input": 5}, 400, "input"),
    ({"input": {"a": 1}}, 400, "input"),
    ({"previous_response_id": 5}, 400, "previous_response_id"),
    ({"store": "no"}, 400, "store"),
    ({"background": 1}, 400, "background"),
    ({"background": True}, 501, "background"),
    ({"conversation": "conv_1"}, 501, "conversation"),
    ({"conversation": {"id": "conv_1"}}, 501, "conversation"),
    ({"conversation": "conv_1", "previous_response_id": "resp_1"}, 400, "conversation"),
]


@pytest.mark.parametrize(("members", "status", "param"), REFUSED)
def test_what_is_refused(members: dict[str, Any], status: int, param: str) -> None:
    with pytest.raises(CallerError) as refused:
        items_of(read_asked(body(**members)))
    assert (refused.value.status, refused.value.param) == (status, param)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_request(text: bytes) -> None:
    with pytest.raises(DecodeError):
        items_of(read_asked(text))


def test_store_is_true_unless_it_is_false() -> None:
    assert [read_asked(body(**more)).stores for more in ({}, {"store": None}, {"store": True}, {"store": False})] == [
        True,
        True,
        True,
        False,
    ]


def test_written_out_in_full() -> None:
    text = b'{"model":"m", "previous_response_id":"r", "x-new": {"a" : 1.0}, "input":"c","stream":true}'
    items = (Raw(b'{"a": 1}'), Raw(b'{"b":2}'))
    assert write_out(text, items) == b'{"model":"m","x-new":{"a" : 1.0},"input":[{"a": 1},{"b":2}],"stream":true}'
    assert json.loads(write_out(b'{"model":"m"}', ())) == {"model": "m", "input": []}


def test_what_another_format_signed_is_seen() -> None:
    assert carries_foreign_reasoning(b'{"encrypted_content":"signed:anthropic.messages:abc"}')
    assert carries_foreign_reasoning(b'{"encrypted_content":"redacted:anthropic.messages:abc"}')
    assert not carries_foreign_reasoning(b'{"text":"\\"encrypted_content\\":\\"signed: me\\""}')


# -- kept


async def test_kept_and_read() -> None:
    store = MemoryStore(10, 1 << 20, 60)
    policy = Policy("gateway", store, 60)
    response = b'{ "id":"resp_1", "output":[ {"type":"message","n":1.0} ] }'
    keep(policy, "red", response, (Raw(b'{"role": "user"}'),))
    value = await get_one(store, key_of("red", "resp_1"))
    assert value is not None
    kept = read(value)
    assert bytes(kept.response) == response
    assert [bytes(item) for item in conversation(kept)] == [b'{"role": "user"}', b'{"type":"message","n":1.0}']
    assert await get_one(store, key_of("blue", "resp_1")) is None


@pytest.mark.parametrize("response", [b"", b"[]", b'{"output":[]}', b'{"id":5}', b'{"id":""}'])
def test_what_has_no_id_is_not_kept(response: bytes) -> None:
    store = MemoryStore(10, 1 << 20, 60)
    keep(Policy("gateway", store, 60), "red", response, ())
    assert len(store) == 0


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_json, max_size=4), st.lists(_json, max_size=4), st.lists(_json, max_size=4))
async def test_a_turn_begins_with_the_one_before(first: list[Any], output: list[Any], second: list[Any]) -> None:
    store = MemoryStore(10, 1 << 20, 60)
    given_items = items_of(read_asked(body(input=first)))
    keep(Policy("gateway", store, 60), "t", json.dumps({"id": "r", "output": output}).encode(), given_items)
    value = await get_one(store, key_of("t", "r"))
    assert value is not None
    asked = body(input=second, previous_response_id="r")
    whole = write_out(asked, conversation(read(value)) + items_of(read_asked(asked)))
    assert json.loads(whole) == {"model": "m", "input": first + output + second}
    before = write_out(body(input=first), given_items)
    assert whole.startswith(before.rstrip(b"]}"))


# -- the recorder

EVENTS = (
    ResponseStart("resp_1", "m", 5, format="x"),
    PartStart(0, Text("")),
    PartDelta(0, 'It says "type":"response.completed", honestly: response.incomplete'),
    PartStop(0),
    ChoiceStop("stop"),
    ResponseStop(),
)


def recorded(chunks: list[Chunk], error: GatewayError | None = None) -> tuple[list[bytes], bytes]:
    heard: list[bytes] = []
    plain = CODEC.stream_encoder(AnswerContext("req", 5, "m"))
    recorder = Recorder(CODEC.stream_encoder(AnswerContext("req", 5, "m")), heard.append)
    out = b"".join(recorder.encode(chunk) for chunk in chunks) + recorder.close(error)
    assert out == b"".join(plain.encode(chunk) for chunk in chunks) + plain.close(error)
    assert recorder.losses == plain.losses
    assert recorder.ping == plain.ping
    return heard, out


@pytest.mark.parametrize("size", [1, 2, 6])
def test_the_last_event_is_heard_once(size: int) -> None:
    chunks = [Chunk(EVENTS[start : start + size]) for start in range(0, len(EVENTS), size)]
    (response,), out = recorded(chunks)
    assert json.loads(response)["status"] == "completed"
    assert response in out


def test_an_end_that_only_close_tells_is_heard() -> None:
    (response,), _ = recorded([Chunk(EVENTS[:-1])])
    assert json.loads(response)["id"] == "resp_1"


def test_what_goes_out_as_it_came_is_heard_too() -> None:
    wire = recorded([Chunk(EVENTS)])[1]
    decoder = CODEC.stream_decoder()
    chunk = decoder.feed(wire)
    assert chunk is not None
    (response,), out = recorded([chunk])
    assert out == wire
    assert json.loads(response)["output"][0]["content"][0]["text"] == EVENTS[2].text  # type: ignore[union-attr]


def test_what_failed_is_not_heard() -> None:
    assert recorded([Chunk(EVENTS[:4])], Cut("the connection ended"))[0] == []


# -- pages


def kept(*items: dict[str, Any]) -> Kept:
    return Kept(Raw(b'{"id":"resp_1","output":[]}'), tuple(Raw(json.dumps(item).encode()) for item in items))


SHOWN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"role": "user", "content": "Hi"},
        {"type": "message", "status": "completed", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    ),
    (
        {"role": "assistant", "content": "Ho", "type": "message", "id": "msg_1", "status": "incomplete"},
        {
            "id": "msg_1",
            "type": "message",
            "status": "incomplete",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Ho", "annotations": []}],
        },
    ),
    (
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "function_call_output", "status": "completed", "call_id": "c", "output": "x"},
    ),
    ({"type": "reasoning", "id": None, "summary": []}, {"type": "reasoning", "summary": []}),
    ({"type": "odd_new_item", "a": {"b": 1}}, {"type": "odd_new_item", "a": {"b": 1}}),
]


@pytest.mark.parametrize(("item", "wanted"), SHOWN)
def test_an_item_as_the_api_shows_it(item: dict[str, Any], wanted: dict[str, Any]) -> None:
    (shown,) = json.loads(pages.input_items("resp_1", kept(item), {}))["data"]
    assert shown == {"id": shown["id"], **wanted}
    assert shown["id"]


def test_pages_one_after_the_other() -> None:
    many = kept(*({"role": "user", "content": str(number)} for number in range(45)))
    for order, wanted in (("asc", list(range(45))), ("desc", list(range(44, -1, -1)))):
        seen: list[int] = []
        query = {"limit": "20", "order": order}
        sizes = []
        while True:
            page = json.loads(pages.input_items("resp_1", many, query))
            seen += [int(item["content"][0]["text"]) for item in page["data"]]
            sizes.append(len(page["data"]))
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            if not page["has_more"]:
                break
            query["after"] = page["last_id"]
        assert (seen, sizes) == (wanted, [20, 20, 5])
    assert len(json.loads(pages.input_items("resp_1", many, {}))["data"]) == 20
    empty = json.loads(pages.input_items("resp_1", kept(), {}))
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    "query",
    [*({"limit": text} for text in ("0", "101", "-1", "x", "9" * 5000, "²")), {"order": "up"}, {"after": "none"}],
)
def test_a_page_that_nobody_can_mean(query: dict[str, str]) -> None:
    with pytest.raises(CallerError) as refused:
        pages.input_items("resp_1", kept({"role": "user", "content": "a"}), query)
    assert (refused.value.status, refused.value.param) == (400, next(iter(query)))


def test_a_long_id_is_not_repeated_whole() -> None:
    for error in (errors.not_found("x" * 5000), errors.previous_not_found("x" * 5000)):
        assert len(CODEC.encode_error(error, "req")[2]) < 400


ENCRYPTED = "reasoning.encrypted_content"


@pytest.mark.parametrize(
    ("members", "include"),
    [
        ({"store": False, "reasoning": {"effort": "low"}}, [ENCRYPTED]),
        ({"store": False, "reasoning": {"summary": "auto"}, "include": ["x"]}, ["x", ENCRYPTED]),
        ({"store": False, "reasoning": {"effort": "low"}, "include": [ENCRYPTED]}, [ENCRYPTED]),
        ({"store": False, "reasoning": {"effort": "none"}}, None),
        ({"store": False, "reasoning": None, "include": None}, None),
        ({"store": False}, None),
        ({"reasoning": {"effort": "low"}}, None),
        ({"store": False, "reasoning": {"effort": 5}}, None),
        ({"store": False, "reasoning": {"effort": "low"}, "include": "x"}, "x"),
    ],
)
def test_reasoning_is_asked_for_where_nobody_stores_it(members: dict[str, Any], include: Any) -> None:
    body = json.dumps({"model": "m", "input": "hi"} | members).encode()
    told = with_encrypted_reasoning(body, read_asked(body))
    assert json.loads(told).get("include") == include
    assert (told is body) is (include == members.get("include"))
