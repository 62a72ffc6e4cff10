"""Calls as JSON objects: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>`` and Mistral's ``[TOOL_CALLS]``.

Arguments go out while they come, as they are spelled, once the name is known. From then on the call stands: one that
breaks off in its arguments stays a call with what there was of them, as a provider's own would.

Sources: the chat templates of Hermes 2 Pro and Qwen 2.5/3 (one object in tags, calls one after the other); Mistral's
tokenizers: v3 to v7 a JSON array after the token, from v11 the token, the name and bare arguments for each call, in between
``[CALL_ID]`` with an id and ``[ARGS]``. Llama writes ``parameters`` for ``arguments``.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from ..ir.loss import Loss
from .markers import Markers
from .reader import MAX_NAME, NotThis, Reader, Steps
from .voice import Voice

MISTRAL: Final = "[TOOL_CALLS]"
_ARGUMENTS: Final = ("arguments", "parameters")
_NAME: Final = re.compile(r"[\w.\-]+")
_ARGS: Final = Markers("[ARGS]")


class _Head(NamedTuple):
    """What stands before the arguments, or a whole call; ``arguments`` are None if they come next. ``listed``: in an array."""

    id: str
    name: str
    arguments: str | None
    listed: bool = False


def mistral(it: Reader, voice: Voice) -> Steps[None]:
    """Read a text with Mistral's calls."""
    token = Markers(MISTRAL)
    while (yield from it.words(token, voice.text)):
        if (yield from json_calls(it, voice)):
            continue
        head = yield from it.attempt(_bare(it))
        if head is None:
            voice.text(MISTRAL)
        else:
            yield from _say(it, voice, head)


def json_calls(it: Reader, voice: Voice) -> Steps[bool]:
    """Read an object that is a call, or an array of them. Return False, with nothing read, if that is not what comes."""
    head = yield from it.attempt(_first(it))
    if head is None:
        return False
    listed = head.listed
    while head is not None:
        yield from _say(it, voice, head)
        if head.arguments is None:
            _ = yield from it.attempt(_rest(it, voice))
        head = (yield from it.attempt(_next(it))) if listed else None
    if listed:
        _ = yield from it.attempt(closing(it, "]"))
    return True


def closing(it: Reader, mark: str) -> Steps[bool]:
    """Read white space and ``mark``. Raises NotThis."""
    yield from it.space()
    yield from it.expect(mark)
    return True


def _say(it: Reader, voice: Voice, head: _Head) -> Steps[None]:
    voice.call(head.id, head.name)
    if head.arguments is None:
        yield from it.json(voice.arguments)
    else:
        voice.arguments(head.arguments)
    voice.call_end()


def _first(it: Reader) -> Steps[_Head]:
    listed = (yield from it.space()) == "["
    if listed:
        it.at += 1
    head = yield from _object(it)
    return head._replace(listed=listed)


def _next(it: Reader) -> Steps[_Head]:
    yield from closing(it, ",")
    return (yield from _object(it))


def _object(it: Reader) -> Steps[_Head]:
    """Read a call's object up to its arguments; to its end, if the name comes after them."""
    id = name = arguments = ""
    yield from closing(it, "{")
    while True:
        member = _text((yield from it.string()))
        yield from closing(it, ":")
        first = yield from it.space()
        if member in _ARGUMENTS and name and first == "{":
            return _Head(id, name, None)
        value = yield from it.value()
        if member in _ARGUMENTS:
            # Some models write the object as a string, or null for none.
            arguments = _text(value) if first == '"' else value
            if arguments == "null":
                arguments = ""
            elif not arguments.startswith("{"):
                raise NotThis
        elif member == "name":
            name = _text(value)
        elif member == "id" and first == '"':
            id = _text(value)
        if (yield from it.space()) != ",":
            break
        it.at += 1
    yield from it.expect("}")
    if not name:
        raise NotThis
    return _Head(id, name, arguments)


def _rest(it: Reader, voice: Voice) -> Steps[bool]:
    """Read what follows the arguments in a call's object."""
    members = []
    while (yield from it.space()) == ",":
        it.at += 1
        members.append(_text((yield from it.string())))
        yield from closing(it, ":")
        yield from it.value()
    yield from it.expect("}")
    for member in members:
        path = f"choices[{voice.choice}].parts[{voice.index}].{member}"
        voice.lose(Loss("lost", path, member, "the call had begun before it came"))
    return True


def _bare(it: Reader) -> Steps[_Head]:
    """Read a name that stands before its arguments."""
    id = ""
    yield from it.space()
    name = yield from it.name(_NAME)
    if (yield from it.space()) == "[":
        if (yield from it.either("[ARGS]", "[CALL_ID]")) == "[CALL_ID]":
            id, _ = yield from it.until(_ARGS, limit=MAX_NAME)
        yield from it.space()
    if (yield from it.first()) != "{":
        raise NotThis
    return _Head(id.strip(), name, None)


def _text(json: str) -> str:
    """Read a JSON string. Raises NotThis if it is not a good one."""
    try:
        return msgspec.json.decode(json, type=str)
    except (msgspec.DecodeError, UnicodeError):
        raise NotThis from None
