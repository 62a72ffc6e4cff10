"""set_member: one value replaced, every other byte as it was."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from headgate.gateway.wire.patch import set_member
from hypothesis import example, given, settings
from hypothesis import strategies as st

NEW = b'"new"'


@pytest.mark.parametrize(
    ("body", "patched"),
    [
        (b'{"model":"a"}', b'{"model":"new"}'),
        (b'{ "model" : "a" , "x":1}', b'{ "model" : "new" , "x":1}'),
        (b'\r\n{\t"model"\n:\r"a"\t}\n ', b'\r\n{\t"model"\n:\r"new"\t}\n '),
        (b'{"x":{"model":"a"},"model":"b"}', b'{"x":{"model":"a"},"model":"new"}'),
        (b'{"x":[{"model":"a"}],"model":{"model":1}}', b'{"x":[{"model":"a"}],"model":"new"}'),
        (b'{"model":[1,{"a":"}"}] ,"x":"model"}', b'{"model":"new" ,"x":"model"}'),
        (b'{"x":"\\"model\\":","model":1.50}', b'{"x":"\\"model\\":","model":"new"}'),
        (b'{"x":"model","model":null}', b'{"x":"model","model":"new"}'),
        (b'{"model":"model"}', b'{"model":"new"}'),
        (b'{"model":"a","x":2,"model":"b"}', b'{"model":"new","x":2,"model":"new"}'),
        (b'{"model":"a","x":2,"model":"a"}', b'{"model":"new","x":2,"model":"new"}'),
        (b'{"x":{"model":"a"},"model":"a"}', b'{"x":{"model":"a"},"model":"new"}'),
        (b'{"\\u006dodel":"a"}', b'{"\\u006dodel":"new"}'),
        (b'{"x":{"model":"a"},"\\u006dodel":"a"}', b'{"x":{"model":"a"},"\\u006dodel":"new"}'),
        (b'{"model":"\\\\","x":"\\\\\\""}', b'{"model":"new","x":"\\\\\\""}'),
        (b"{}", b'{"model":"new"}'),
        (b" { } ", b' { "model":"new"} '),
        (b'{"x":1}', b'{"x":1,"model":"new"}'),
        (b'{"x":{}}', b'{"x":{},"model":"new"}'),
        (b'{"x":"{" \n}\n', b'{"x":"{" \n,"model":"new"}\n'),
        (b'{"x":{"model":"a"}}', b'{"x":{"model":"a"},"model":"new"}'),
        (b'{"x":"}"}', b'{"x":"}","model":"new"}'),
        ('{"ü":"日本","model":"é"}'.encode(), '{"ü":"日本","model":"new"}'.encode()),
        (b'{"Model":"a"}', b'{"Model":"a","model":"new"}'),
    ],
)
def test_set_member(body: bytes, patched: bytes) -> None:
    assert set_member(body, "model", NEW) == patched


@pytest.mark.parametrize("spelled", ['"日"', '"\\u65e5"', '"a/b"', '"a\\/b"', '"a\\"b"', '"\\t"', '"\\u0009"', '""'])
@pytest.mark.parametrize("decoy", [False, True])
def test_a_name_in_any_spelling(spelled: str, decoy: bool) -> None:
    key = json.loads(spelled)
    inner = '"x":{' + json.dumps(key, ensure_ascii=False) + ': "old"},' if decoy else ""
    body = "{" + inner + spelled + ': "old" }'
    assert set_member(body.encode(), key, NEW).decode() == "{" + inner + spelled + ': "new" }'


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b'{"model":', b'{"model":1}}', b'{"a":1,}', b'"model"', b"{model:1}"]
)
def test_no_object_no_patch(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        set_member(body, "model", NEW)


# -- against a reference


_SPACE = st.text(" \t\r\n", max_size=2)
_KEYS = st.sampled_from(["model", "stream", "a", "", 'q"', "b\\", "日", "/", "\x7f", "m\u00f6del"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('model":{}[],\\\u00e9日 \n', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def _string(draw: st.DrawFn, text: str) -> str:
    """``text`` as a JSON string, each letter in one of its spellings."""
    out = []
    for letter in text:
        plain = json.dumps(letter, ensure_ascii=False)[1:-1]
        out.append(draw(st.sampled_from([plain, f"\\u{ord(letter):04x}", f"\\u{ord(letter):04X}"])))
    return '"' + "".join(out) + '"'


@st.composite
def _spelled(draw: st.DrawFn, value: Any) -> str:
    """``value`` as JSON with any spacing and spelling."""
    before, after = draw(_SPACE), draw(_SPACE)
    if isinstance(value, str):
        text = draw(_string(value))
    elif isinstance(value, list):
        text = "[" + ",".join(draw(_spelled(item)) for item in value) + (draw(_SPACE) if not value else "") + "]"
    elif isinstance(value, dict):
        members = [
            f"{draw(_SPACE)}{draw(_string(key))}{draw(_SPACE)}:{draw(_spelled(it))}" for key, it in value.items()
        ]
        text = "{" + ",".join(members) + (draw(_SPACE) if not value else "") + "}"
    else:
        text = json.dumps(value)
    return before + text + after


@st.composite
def _body(draw: st.DrawFn) -> tuple[list[tuple[str, str, str, str]], str, str, str]:
    """An object as members (spaces and key, value, spaces after, key meant), and what stands around them."""
    members = []
    for key in draw(st.lists(_KEYS, max_size=5)):
        name = draw(_SPACE) + draw(_string(key)) + draw(_SPACE) + ":" + draw(_SPACE)
        members.append((name, draw(_spelled(draw(_VALUES))).strip(" \t\r\n"), draw(_SPACE), key))
    return members, draw(_SPACE), draw(_SPACE), draw(_SPACE)


@settings(max_examples=200, deadline=None)
@given(_body(), _KEYS, st.sampled_from([b'"new"', b"{ }", b"1.0", b'{"model":"x"}']))
@example(([], "", " ", ""), "model", b"1")
def test_against_a_reference(
    parts: tuple[list[tuple[str, str, str, str]], str, str, str], key: str, value: bytes
) -> None:
    members, before, inside, after = parts
    body = before + "{" + (",".join(name + old + space for name, old, space, _ in members) or inside) + "}" + after
    new = value.decode()
    if any(meant == key for *_, meant in members):
        told = ",".join(name + (new if meant == key else old) + space for name, old, space, meant in members)
    else:
        told = ",".join(name + old + space for name, old, space, _ in members) or inside
        told += ("," if members else "") + json.dumps(key, ensure_ascii=False) + ":" + new
    patched = set_member(body.encode(), key, value).decode()
    assert json.loads(patched) == json.loads(body) | {key: json.loads(value)}
    assert patched == before + "{" + told + "}" + after
