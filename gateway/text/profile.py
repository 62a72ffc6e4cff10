"""The option ``text`` of an upstream: what its models write into their text, and the stage that reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from ..errors import CallerError
from ..ir.loss import Loss
from ..ir.message import Request
from .harmony import harmony
from .json_calls import MISTRAL, mistral
from .pythonic import pythonic
from .reader import Reader, Steps
from .stage import Grammar, TextStage
from .think import TAGS, think
from .token_calls import DEEPSEEK_BEGIN, KIMI_BEGIN, kimi_k2
from .voice import Voice
from .xml_calls import DSML_BEGIN, Types, TypesOf, deepseek, tags

ToolsIn = Literal["hermes", "qwen", "kimi_k2", "deepseek", "mistral", "pythonic", "harmony"]

_WORD: Final = re.compile(r"[\w:.\-]+")
_NOTHING: Final[Types] = frozenset()
_END_THINKING: Final[Mapping[str, tuple[str, ...]]] = {
    "kimi_k2": KIMI_BEGIN,
    "deepseek": (*DEEPSEEK_BEGIN, *DSML_BEGIN),
    "mistral": (MISTRAL,),
}
"""Tokens that no model writes about, so that they end thinking which was not closed. ``<tool_call>`` is not one of them: a
model may well think about it, and what it thinks of must not run."""


class TextProfile(Struct, frozen=True, forbid_unknown_fields=True):
    """What an upstream's models write into their text instead of into fields."""

    stop: bool | Annotated[int, Meta(ge=0)] = False
    """The gateway watches for stop strings: ``true`` if the provider takes none, else the number that it takes. The rest is
    not sent to it; when one is met, the answer ends and the provider is stopped."""
    think: str | tuple[str, ...] | None = None
    """Thinking in tags at the beginning of the text: ``auto`` for the usual tags, ``implicit`` where the prompt opens
    ``<think>`` and only its end is written, or names: ``think`` for ``<think>`` and ``</think>``, ``"[THINK]"`` for brackets
    of another shape, ``/think`` for one that is opened by the prompt."""
    tools: ToolsIn | None = None
    """How tool calls are spelled. ``hermes`` and ``qwen`` are JSON or tags in ``<tool_call>``; ``harmony`` are the channels of
    gpt-oss, which tell thinking as well. Read only where the request has tools."""

    def __post_init__(self) -> None:
        if isinstance(self.think, str) and self.think not in ("auto", "implicit"):
            raise ValueError(f'think: expected "auto", "implicit" or a list of tags, got "{self.think}"')
        if isinstance(self.think, tuple):
            if not self.think:
                raise ValueError("think: name at least one tag, or write auto")
            for tag in self.think:
                if len(tag.strip("/<>[]{}()|")) < 1 or re.search(r"\s", tag):
                    raise ValueError(f'think: expected the name of a tag such as "think", got {tag!r}')
        if self.tools == "harmony" and self.think is not None:
            raise ValueError("think: harmony tells thinking in a channel of its own: remove one of the two")

    @property
    def stops(self) -> int | None:
        """How many stop strings the provider takes; None: all."""
        return None if self.stop is False else 0 if self.stop is True else self.stop

    def request(self, request: Request) -> Request:
        """Return the request without the stop strings that the provider does not take; the same if it takes all."""
        stops = self.stops
        if stops is None or len(request.stop) <= stops:
            return request
        return msgspec.structs.replace(request, stop=request.stop[:stops])

    def stage(self, asked: Callable[[], Request], has_tools: bool, note: Callable[[Loss], None]) -> TextStage | None:
        """Return a stage for one answer, None if there is nothing to read in it.

        ``asked`` returns the request as the caller sent it, and is asked for only where it matters; ``note`` takes losses.
        """
        stop: tuple[str, ...] = ()
        choices = 1
        if self.stops is not None and self.request(request := asked()) is not request:
            stop, choices = tuple(filter(None, request.stop)), request.n or 1
        grammar = self._grammar(asked, has_tools)
        if grammar is None and not stop:
            return None
        return TextStage(grammar, stop, choices, note)

    def _grammar(self, asked: Callable[[], Request], has_tools: bool) -> Grammar | None:
        if self.tools == "harmony":
            return _harmony
        tools = self.tools if has_tools else None
        calls = None if tools is None else _calls(tools, asked)
        if self.think is None:
            return calls
        pairs, opened = self._tags()
        return partial(_thinking, pairs, opened, _END_THINKING.get(tools or "", ()), calls)

    def _tags(self) -> tuple[Mapping[str, str], bool]:
        """Return the opening and closing tags, and whether the prompt opens them."""
        if self.think == "auto":
            return TAGS, False
        if not isinstance(self.think, tuple):
            return {"<think>": "</think>"}, True
        pairs = {}
        for tag in self.think:
            name = tag.replace("/", "", 1)
            name = f"<{name}>" if _WORD.fullmatch(name) else name
            pairs[name] = f"{name[0]}/{name[1:]}"
        return pairs, any("/" in tag for tag in self.think)


def _calls(tools: ToolsIn, asked: Callable[[], Request]) -> Grammar:
    simple: Mapping[str, Callable[[Reader, Voice], Steps[None]]] = {
        "kimi_k2": kimi_k2,
        "mistral": mistral,
        "pythonic": pythonic,
    }
    read = simple.get(tools)
    if read is None:
        read = partial(deepseek if tools == "deepseek" else tags, types=_types_of(asked))
    found = read
    return lambda it, voice, first: found(it, voice)


def _harmony(it: Reader, voice: Voice, first: bool) -> Steps[None]:
    return harmony(it, voice)


def _thinking(
    pairs: Mapping[str, str],
    opened: bool,
    ends: tuple[str, ...],
    calls: Grammar | None,
    it: Reader,
    voice: Voice,
    first: bool,
) -> Steps[None]:
    if first:
        yield from think(it, voice, pairs, opened=opened, ends=ends)
    yield from it.rest(voice.text) if calls is None else calls(it, voice, first)


def _types_of(asked: Callable[[], Request]) -> TypesOf:
    """Return what looks types up in the request's tools, which are read on first use."""
    known: dict[str, Mapping[str, object]] = {}

    def types_of(tool: str, argument: str) -> Types:
        if not known:
            known[""] = {}
            try:
                tools = asked().tools
            except CallerError:  # the provider read it, we cannot
                tools = ()
            known.update((each.name, _properties(each.schema)) for each in tools)
        return _types(known.get(tool, {}).get(argument))

    return types_of


def _properties(schema: bytes) -> Mapping[str, object]:
    try:
        value = msgspec.json.decode(schema) if schema else None
    except (msgspec.DecodeError, RecursionError):
        return {}
    properties = value.get("properties") if isinstance(value, dict) else None
    return properties if isinstance(properties, dict) else {}


def _types(schema: object) -> Types:
    """Return the types that a schema names, in itself or in its alternatives; none if it leaves one of them open."""
    if not isinstance(schema, dict):
        return _NOTHING
    named = schema.get("type")
    if isinstance(named, str):
        return frozenset({named})
    if isinstance(named, list):
        return frozenset(each for each in named if isinstance(each, str))
    for word in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(word), list) and options:
            found = [_types(option) for option in options]
            return frozenset().union(*found) if all(found) else _NOTHING
    return _NOTHING
