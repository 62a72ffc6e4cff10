"""What models write into their text, and what it is: one table, read whole, a character at a time, and cut anywhere."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from headgate.gateway.ir.event import ChoiceStop
from hypothesis import given, settings
from hypothesis import strategies as st

from ..relay.conftest import well_formed
from .reading import joined, make, parts, streamed, told, whole

THINK = {"think": "auto"}
IMPLICIT = {"think": "implicit"}
HERMES = {"tools": "hermes"}
KIMI = {"tools": "kimi_k2"}
DEEPSEEK = {"tools": "deepseek"}
MISTRAL = {"tools": "mistral"}
PYTHON = {"tools": "pythonic"}
HARMONY = {"tools": "harmony"}
A = '{"a": 1.0, "b": [1,2 ], "c": "}\\"</tool_call>{"}'
"""Arguments with everything in them that a reader might stumble over; they must come out as they are spelled."""

CASES: dict[str, tuple[dict[str, Any], str, list[Any]]] = {
    # thinking
    "think": (THINK, "<think>\nWell,\n\nso.\n</think>\n\nHello", [("think", "Well,\n\nso."), "Hello"]),
    "thinking": (THINK, " \n<thinking>x</thinking>y", [("think", "x"), "y"]),
    "brackets": (THINK, "[THINK]x[/THINK]y", [("think", "x"), "y"]),
    "kimi-vl": (THINK, "◁think▷x◁/think▷y", [("think", "x"), "y"]),
    "no thinking": (THINK, "Hello <think>x</think>", ["Hello <think>x</think>"]),
    "empty thinking": (THINK, "<think>\n\n</think>\n\nHi", ["Hi"]),
    "another tag closes nothing": (THINK, "<think>a</thinking>b</think>c", [("think", "a</thinking>b"), "c"]),
    "once": (THINK, "<think>a</think>b<think>c</think>", [("think", "a"), "b<think>c</think>"]),
    "never closed": (THINK, "<think>a b ", [("think", "a b")]),
    "half a tag": (THINK, "<thin", ["<thin"]),
    "blank": (THINK, "\n ", ["\n "]),
    "nothing": (THINK, "", [""]),
    "only thinking": (THINK, "<think>a</think>", [("think", "a")]),
    "implicit": (IMPLICIT, "a\n</think>\n\nb</think>", [("think", "a"), "b</think>"]),
    "implicit and opened": (IMPLICIT, "<think>\na</think>b", [("think", "a"), "b"]),
    "own tag": ({"think": ("reflect",)}, "<reflect>a</reflect>b", [("think", "a"), "b"]),
    "own tag, not the usual": ({"think": ("reflect",)}, "<think>a</think>b", ["<think>a</think>b"]),
    "own tag, closing alone": ({"think": ("/reflect",)}, "a</reflect>b", [("think", "a"), "b"]),
    # JSON in tags
    "hermes": (HERMES, f'<tool_call>\n{{"name": "f", "arguments": {A}}}\n</tool_call>', [("f", A)]),
    "hermes, text around": (
        HERMES,
        'One.\n<tool_call>{"name":"f","arguments":{}}</tool_call>\nTwo.',
        ["One.\n", ("f", "{}"), "\nTwo."],
    ),
    "hermes, parallel": (
        HERMES,
        '<tool_call>{"name":"f","arguments":{"a":1}}</tool_call>\n<tool_call>{"name":"g","arguments":{"b":2}}</tool_call>',
        [("f", '{"a":1}'), ("g", '{"b":2}')],
    ),
    "hermes, name last": (HERMES, f'<tool_call>{{"arguments": {A}, "name": "f"}}</tool_call>', [("f", A)]),
    "hermes, parameters": (HERMES, '<tool_call>{"name":"f","parameters":{"a":1}}</tool_call>', [("f", '{"a":1}')]),
    "hermes, arguments as a string": (
        HERMES,
        '<tool_call>{"name":"f","arguments":"{\\"a\\": 1}"}</tool_call>',
        [("f", '{"a": 1}')],
    ),
    "hermes, none": (HERMES, '<tool_call>{"name":"f","arguments":null}</tool_call>', [("f", "{}")]),
    "hermes, no arguments": (HERMES, '<tool_call>{"name":"f"}</tool_call>', [("f", "{}")]),
    "hermes, an id": (HERMES, '<tool_call>{"id":"x1","name":"f","arguments":{}}</tool_call>', [("f", "{}", "x1")]),
    "hermes, more members": (HERMES, '<tool_call>{"name":"f","arguments":{},"x":[1]}</tool_call>b', [("f", "{}"), "b"]),
    "hermes, not closed": (HERMES, '<tool_call>{"name":"f","arguments":{"a":1}}', [("f", '{"a":1}')]),
    "hermes, a brace is missing": (
        HERMES,
        '<tool_call>{"name":"f","arguments":{"a":1}</tool_call>b',
        [("f", '{"a":1}'), "b"],
    ),
    "hermes, a brace in the arguments is missing": (
        HERMES,
        '<tool_call>{"name":"f","arguments":{"a":{"b":1}</tool_call>b',
        [("f", '{"a":{"b":1}'), "b"],
    ),
    "hermes, a list": (
        HERMES,
        '<tool_call>[{"name":"f","arguments":{}}, {"name":"g","arguments":{"a":1}}]</tool_call>b',
        [("f", "{}"), ("g", '{"a":1}'), "b"],
    ),
    "hermes, two in a tag": (
        HERMES,
        '<tool_call>\n{"name":"f","arguments":{}}\n{"name":"g","arguments":{}}\n</tool_call>',
        [("f", "{}"), ("g", "{}")],
    ),
    "hermes, prose": (HERMES, "The <tool_call> tag {x}", ["The <tool_call> tag {x}"]),
    "hermes, no name": (HERMES, '<tool_call>{"a":1}</tool_call>', ['<tool_call>{"a":1}</tool_call>']),
    "hermes, an empty name": (HERMES, '<tool_call>{"name":""}</tool_call>', ['<tool_call>{"name":""}</tool_call>']),
    "hermes, arguments that are none": (
        HERMES,
        '<tool_call>{"name":"f","arguments":[1]}</tool_call>',
        ['<tool_call>{"name":"f","arguments":[1]}</tool_call>'],
    ),
    "hermes, a broken one and a good one": (
        HERMES,
        '<tool_call>{"name: <tool_call>{"name":"f","arguments":{}}</tool_call>',
        ['<tool_call>{"name: ', ("f", "{}")],
    ),
    "hermes, cut in the head": (HERMES, 'a<tool_call>{"name":"f","argu', ['a<tool_call>{"name":"f","argu']),
    "hermes, cut in the arguments": (HERMES, 'a<tool_call>{"name":"f","arguments":{"a', ["a", ("f", '{"a')]),
    "hermes, escaped name": (HERMES, '<tool_call>{"name":"\\u0066","arguments":{}}</tool_call>', [("f", "{}")]),
    "hermes, a tag in thinking": (
        {**HERMES, **THINK},
        '<think>use <tool_call>{"name":"g","arguments":{}}</tool_call>?</think><tool_call>{"name":"f"}</tool_call>',
        [("think", 'use <tool_call>{"name":"g","arguments":{}}</tool_call>?'), ("f", "{}")],
    ),
    # tags for each argument
    "qwen": (
        {"tools": "qwen"},
        '<tool_call>\n<function=weather>\n<parameter=city>\nNew\nYork "x"\n</parameter>\n<parameter=days>\n 7\n'
        "</parameter>\n</function>\n</tool_call>",
        [("weather", '{"city": "New\\nYork \\"x\\"", "days": 7}')],
    ),
    "qwen, types": (
        {"tools": "qwen"},
        "<tool_call><function=weather><parameter=city>7</parameter><parameter=far>1</parameter><parameter=ok>True"
        "</parameter><parameter=list>[1, 'a']</parameter><parameter=more>\n{\"b\":1.0}\n</parameter><parameter=any>5"
        "</parameter><parameter=maybe>5</parameter><parameter=either>None</parameter></function></tool_call>",
        [
            (
                "weather",
                '{"city": "7", "far": 1, "ok": true, "list": [1, "a"], "more": {"b":1.0}, "any": "5", "maybe": 5, '
                '"either": null}',
            )
        ],
    ),
    "qwen, not of its type": (
        {"tools": "qwen"},
        "<tool_call><function=weather><parameter=days>soon</parameter></function></tool_call>",
        [("weather", '{"days": "soon"}')],
    ),
    "qwen, no arguments": ({"tools": "qwen"}, "<tool_call>\n<function=f>\n</function>\n</tool_call>", [("f", "{}")]),
    "qwen, without the tag": (
        {"tools": "qwen"},
        "Ok <function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
        ["Ok ", ("f", '{"a": "1"}'), "\n</tool_call>"],
    ),
    "qwen, nothing is closed": (
        {"tools": "qwen"},
        "<tool_call>\n<function=weather>\n<parameter=city>\na\n<parameter=days>\n2\n</function>\n</tool_call>b",
        [("weather", '{"city": "a", "days": 2}'), "b"],
    ),
    "qwen, parallel": (
        {"tools": "qwen"},
        "<tool_call>\n<function=f>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>",
        [("f", "{}"), ("g", "{}")],
    ),
    "qwen, cut": ({"tools": "qwen"}, "<tool_call><function=f><parameter=a>x", [("f", '{"a": "x"}')]),
    "qwen, a number cut": (
        {"tools": "qwen"},
        "<tool_call><function=weather><parameter=days>12",
        [("weather", '{"days": 12}')],
    ),
    "qwen, prose": ({"tools": "qwen"}, "a <function=b c", ["a <function=b c"]),
    "qwen, JSON": ({"tools": "qwen"}, '<tool_call>{"name":"f","arguments":{}}</tool_call>', [("f", "{}")]),
    # Kimi
    "kimi": (
        KIMI,
        "Let me.<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
        f"{A}<|tool_call_end|><|tool_call_begin|>functions.a.b:1<|tool_call_argument_begin|>{{}}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
        ["Let me.", ("f", A, "functions.f:0"), ("a.b", "{}", "functions.a.b:1")],
    ),
    "kimi, bare": (
        KIMI,
        "<|tool_call_begin|> f:3 <|tool_call_argument_begin|> {} <|tool_call_end|>",
        [("f", " {} ", "f:3")],
    ),
    "kimi, not closed": (
        KIMI,
        "<|tool_call_begin|>f:0<|tool_call_argument_begin|>{}<|tool_call_begin|>g:1<|tool_call_argument_begin|>{",
        [("f", "{}", "f:0"), ("g", "{", "g:1")],
    ),
    "kimi, no head": (KIMI, "<|tool_call_begin|>f:0<|tool_call_end|>b", ["<|tool_call_begin|>f:0b"]),
    "kimi, thinking that a call ends": (
        {**KIMI, **IMPLICIT},
        "Hm. <|tool_calls_section_begin|><|tool_call_begin|>f:0<|tool_call_argument_begin|>{}<|tool_call_end|>",
        [("think", "Hm."), ("f", "{}", "f:0")],
    ),
    # DeepSeek
    "deepseek 3.1": (
        DEEPSEEK,
        "a<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>" + A + "<｜tool▁call▁end｜><｜tool▁call▁begin｜>g"
        "<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ["a", ("f", A), ("g", "{}")],
    ),
    "deepseek 3": (
        DEEPSEEK,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
        + A
        + "\n```<｜tool▁call▁end｜>\n"
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [("f", A), ("g", "{}")],
    ),
    "deepseek 3.1, a tool called function": (
        DEEPSEEK,
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
        [("function", "{}")],
    ),
    "deepseek 3.2": (
        DEEPSEEK,
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="true">NYC</｜DSML｜parameter>'
        '\n<｜DSML｜parameter name="b" string="false">[1, 2.0]</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="g">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        [("f", '{"a": "NYC", "b": [1, 2.0]}'), ("g", "{}")],
    ),
    "deepseek, no call": (DEEPSEEK, "<｜tool▁call▁begin｜>f", ["<｜tool▁call▁begin｜>f"]),
    # Mistral
    "mistral, a list": (
        MISTRAL,
        'a[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
        ["a", ("f", '{"a": 1}'), ("g", "{}")],
    ),
    "mistral, names": (MISTRAL, f"[TOOL_CALLS]f{A}[TOOL_CALLS]g{{}}", [("f", A), ("g", "{}")]),
    "mistral, an id": (
        MISTRAL,
        "[TOOL_CALLS]f[CALL_ID]abc[ARGS]{}[TOOL_CALLS]g[ARGS]{}",
        [("f", "{}", "abc"), ("g", "{}")],
    ),
    "mistral, prose": (MISTRAL, "[TOOL_CALLS] is a token", ["[TOOL_CALLS] is a token"]),
    # Python
    "pythonic": (
        PYTHON,
        '[f(a=1, b=\'it\\\'s\', c=[True, None, {"x": -2.50}], d=(1,)), g(), a.b(x="\\u00e9\\n")]',
        [
            ("f", '{"a": 1, "b": "it\'s", "c": [true, null, {"x": -2.50}], "d": [1]}'),
            ("g", "{}"),
            ("a.b", '{"x": "é\\n"}'),
        ],
    ),
    "pythonic, tokens": (PYTHON, "<|python_start|>[f(a=1)]<|python_end|>b", [("f", '{"a": 1}'), "b"]),
    "pythonic, tokens later": (PYTHON, "a <|python_start|>[f()]<|python_end|>", ["a ", ("f", "{}")]),
    "pythonic, prose": (PYTHON, "[1] says so", ["[1] says so"]),
    "pythonic, a comprehension": (PYTHON, "[f(x) for x in y]", ["[f(x) for x in y]"]),
    "pythonic, not closed": (PYTHON, "[f(a=1", ["[f(a=1"]),
    "pythonic, code": (PYTHON, "[f(a=open('x'))]", ["[f(a=open('x'))]"]),
    "pythonic, brackets in quotes": (PYTHON, "[f(a=']})')]", [("f", '{"a": "]})"}')]),
    "pythonic, octal numbers": (PYTHON, "[f(a=007)]", ["[f(a=007)]"]),
    # Harmony
    "harmony": (
        HARMONY,
        "<|channel|>analysis<|message|>Need tool.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
        f"<|constrain|>json<|message|>{A}<|call|>",
        [("think", "Need tool."), ("f", A)],
    ),
    "harmony, answer": (
        HARMONY,
        "<|channel|>analysis<|message|>a<|end|>\n<|start|>assistant<|channel|>final<|message|> Hi <b> <|return|>",
        [("think", "a"), " Hi <b> "],
    ),
    "harmony, preamble": (
        HARMONY,
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.f<|channel|>commentary"
        "<|message|>{}<|call|>",
        ["I look.", ("f", "{}")],
    ),
    "harmony, recipient first": (
        HARMONY,
        " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
        [("f", "{}")],
    ),
    "harmony, built-in tool": (
        HARMONY,
        "<|channel|>analysis to=python code<|message|>1+1<|call|>",
        [("python", "1+1")],
    ),
    "harmony, no markers": (HARMONY, "assistant, hello < |", ["assistant, hello < |"]),
    "harmony, role alone": (HARMONY, "ass", ["ass"]),
    "harmony, no channel": (HARMONY, "<|message|>Hi<|return|>", ["Hi"]),
    "harmony, no end": (
        HARMONY,
        "<|channel|>analysis<|message|>a<|channel|>final<|message|>b<|start|>assistant<|channel|>final<|message|>c",
        [("think", "a"), "b", "c"],
    ),
    "harmony, no start": (
        HARMONY,
        "<|channel|>analysis<|message|>a<|end|>assistant<|channel|>final<|message|>b",
        [("think", "a"), "b"],
    ),
    "harmony, no message": (HARMONY, "<|channel|>final Hi there<|end|>", [" Hi there"]),
    "harmony, unknown channel": (HARMONY, "<|channel|>thoughts<|message|>a<|return|>", ["a"]),
    "harmony, empty": (HARMONY, "<|channel|>final<|message|><|return|>", [""]),
    "harmony, cut in a header": (
        HARMONY,
        "<|channel|>final<|message|>a<|end|><|start|>assistant<|chan",
        ["a", "assistant<|chan"],
    ),
    "harmony, text between": (HARMONY, "<|channel|>final<|message|>a<|end|>b", ["a", "b"]),
    "harmony, a result that the model made up": (
        HARMONY,
        "<|channel|>commentary to=functions.f<|message|>{}<|call|><|start|>functions.f to=assistant<|channel|>commentary"
        '<|message|>{"t":20}<|end|><|start|>assistant<|channel|>final<|message|>It is 20.<|return|>',
        [("f", "{}")],
    ),
    "harmony, a call that was not ended before one": (
        HARMONY,
        "<|channel|>commentary to=functions.f<|message|>{}<|start|>functions.f to=assistant<|message|>20<|end|>",
        [("f", "{}")],
    ),
    "harmony, a question that the model made up": (
        HARMONY,
        "<|channel|>final<|message|>a<|end|><|start|>user<|message|>And b?<|end|><|start|>assistant<|message|>c<|return|>",
        ["a"],
    ),
    "harmony, more after the end": (HARMONY, "<|channel|>final<|message|>a<|return|>\n<|message|>b<|return|>", ["a"]),
    "harmony, tokens in content": (
        HARMONY,
        "<|channel|>final<|message|>a<|constrain|>b<|x|>",
        ["a<|constrain|>b<|x|>"],
    ),
}
cases = pytest.mark.parametrize("name", CASES)


def check(name: str, pieces: list[str] | None) -> list[Any]:
    profile, text, expected = CASES[name]
    stage = make(profile)
    assert stage is not None
    events = told(stage, whole(text) if pieces is None else streamed(pieces))
    well_formed(events)
    assert parts(events) == expected
    return joined(events)


@cases
def test_a_whole_answer(name: str) -> None:
    check(name, None)


@cases
def test_one_character_at_a_time_tells_the_same_events(name: str) -> None:
    assert check(name, list(CASES[name][1])) == check(name, None)


@cases
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_cut_tells_the_same_events(name: str, data: st.DataObject) -> None:
    text = CASES[name][1]
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    borders = [0, *places, len(text)]
    pieces = [text[start:end] for start, end in pairwise(borders)]
    assert check(name, pieces) == check(name, None)


@cases
def test_a_call_is_why_the_answer_ended(name: str) -> None:
    stage = make(CASES[name][0])
    assert stage is not None
    events = told(stage, whole(CASES[name][1]))
    stop = next(event for event in events if isinstance(event, ChoiceStop))
    called = any(isinstance(each, tuple) and each[0] != "think" for each in CASES[name][2])
    assert (stop.reason, stop.raw_reason) == (("tool_calls", "") if called else ("stop", "stop"))
