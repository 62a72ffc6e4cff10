"""Calls as tags with a tag for each argument: Qwen3-Coder, and DeepSeek from V3.2 (DSML).

Arguments become a JSON object while they come. The tags do not tell a number from a text of digits, so the tool's schema
decides: what may be a string and nothing else goes out at once; anything else is held until its tag closes, and stands as
it is spelled if it is JSON of a type that the schema allows. Without a schema it is a string, as it would be in vLLM.

Sources: the chat templates of Qwen3-Coder-30B-A3B-Instruct and DeepSeek-V3.2 (whose attribute ``string`` tells the type).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from .json_calls import closing, json_calls
from .markers import Markers
from .pythonic import literal
from .reader import MAX_NAME, NotThis, Reader, Steps
from .token_calls import DEEPSEEK_BEGIN, deepseek_call
from .voice import Voice

Types = frozenset[str]
"""JSON Schema's names of types; empty where nothing is known."""
TypesOf = Callable[[str, str], Types]
"""What the schema of a tool, by name, allows an argument, by name, to be."""

DSML_BEGIN: Final = ("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>", "<｜DSML｜invoke")
_STRING: Final[Types] = frozenset({"string"})
_ANY: Final[Types] = frozenset({"object", "array", "number", "integer", "boolean", "null"})
_ATTRIBUTE: Final = re.compile(r'\b(name|string)="([^"]*)"')
_WORDS: Final = {"true": "true", "false": "false", "null": "null", "none": "null"}
_CLOSE: Final = Markers(">", "\n", "<")


class _Dialect(NamedTuple):
    """The tags of a model; the opening ones without what follows the name of the tag."""

    call: str
    call_end: str
    parameter: str
    parameter_end: str
    ends: Markers


def _dialect(call: str, call_end: str, parameter: str, parameter_end: str) -> _Dialect:
    """Return a dialect. A value also ends where the next tag begins a line: models forget to close."""
    ends = Markers(parameter_end, "\n" + parameter_end, "\n" + parameter, "\n" + call_end)
    return _Dialect(call, call_end, parameter, parameter_end, ends)


_QWEN: Final = _dialect("<function=", "</function>", "<parameter=", "</parameter>")
_DSML: Final = _dialect("<｜DSML｜invoke", "</｜DSML｜invoke>", "<｜DSML｜parameter", "</｜DSML｜parameter>")
_TAGS: Final = Markers("<tool_call>", "<function=")
_DEEPSEEK: Final = Markers(
    *DEEPSEEK_BEGIN, "<｜tool▁calls▁end｜>", *DSML_BEGIN, "</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"
)


def tags(it: Reader, voice: Voice, types: TypesOf) -> Steps[None]:
    """Read a text with calls in ``<tool_call>``, JSON or tags: what stands inside tells which. The tag may be forgotten."""
    while marker := (yield from it.words(_TAGS, voice.text)):
        if marker != "<tool_call>":
            it.back(marker)
            if not (yield from _call(it, voice, _QWEN, types)):
                it.at += len(marker)
                voice.text(marker)
            continue
        found = False
        while (yield from json_calls(it, voice)) or (yield from _call(it, voice, _QWEN, types)):
            found = True
        if not found:
            voice.text(marker)
            continue
        _ = yield from it.attempt(closing(it, "</tool_call>"))


def deepseek(it: Reader, voice: Voice, types: TypesOf) -> Steps[None]:
    """Read a text with calls of any DeepSeek from V3 on."""
    while marker := (yield from it.words(_DEEPSEEK, voice.text)):
        if marker == "<｜tool▁call▁begin｜>":
            yield from deepseek_call(it, voice, marker)
        elif marker == _DSML.call:
            it.back(marker)
            if not (yield from _call(it, voice, _DSML, types)):
                it.at += len(marker)
                voice.text(marker)


def _call(it: Reader, voice: Voice, dialect: _Dialect, types: TypesOf) -> Steps[bool]:
    """Read a call. Return False, with nothing read, if there is none."""
    head = yield from it.attempt(_tag(it, dialect.call))
    if head is None:
        return False
    name, _ = head
    voice.call("", name)
    before = "{"
    while (parameter := (yield from it.attempt(_tag(it, dialect.parameter)))) is not None:
        key, string = parameter
        voice.arguments(f"{before}{_encode(key)}: ")
        before = ", "
        known = types(name, key) if string is None else _STRING if string else _ANY
        yield from _value(it, voice, dialect, known)
    voice.arguments("{}" if before == "{" else "}")
    voice.call_end()
    _ = yield from it.attempt(closing(it, dialect.call_end))
    return True


def _tag(it: Reader, opening: str) -> Steps[tuple[str, bool | None]]:
    """Return the name in an opening tag, and what its attribute ``string`` says."""
    yield from closing(it, opening)
    text, close = yield from it.until(_CLOSE, limit=MAX_NAME)
    attributes = dict(_ATTRIBUTE.findall(text))
    name = attributes.get("name", "") if opening.startswith("<｜") else text.strip().strip("\"'")
    if close != ">" or not name:
        raise NotThis
    return name, attributes["string"] == "true" if "string" in attributes else None


def _value(it: Reader, voice: Voice, dialect: _Dialect, types: Types) -> Steps[None]:
    """Read a value and the tag that ends it. The line ends next to the tags are the template's."""
    if (yield from it.first()) == "\n":
        it.at += 1
    if types and types != _STRING:
        held = yield from it.attempt(it.until(dialect.ends, to_end=True))
        if held is not None:
            voice.arguments(_spelled(held[0], types))
            _unread(it, dialect, held[1])
            return
        it.look_again()
    voice.arguments('"')
    end = yield from it.words(dialect.ends, lambda words: voice.arguments(_encode(words)[1:-1]))
    voice.arguments('"')
    _unread(it, dialect, end)


def _unread(it: Reader, dialect: _Dialect, end: str) -> None:
    if not end.endswith(dialect.parameter_end):
        it.back(end)


def _spelled(text: str, types: Types) -> str:
    """Return ``text`` as JSON of one of ``types``, as it is spelled where it can be; else as a string."""
    bare = text.strip()
    allowed = types - _STRING if "string" in types else types | {"null"}
    if "number" in allowed:
        allowed |= {"integer"}
    for json in (_WORDS.get(bare.lower(), bare), literal(bare)):
        if json is not None and _type(json) in allowed:
            return json
    return _encode(text)


def _type(json: str) -> str:
    """Return JSON Schema's name for what ``json`` is, "" if it is nothing."""
    try:
        value = msgspec.json.decode(json)
    except (msgspec.DecodeError, RecursionError):
        return ""
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return kinds.get(type(value), "null")


def _encode(text: str) -> str:
    return msgspec.json.encode(text).decode()
