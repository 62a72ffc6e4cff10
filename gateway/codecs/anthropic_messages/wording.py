"""The short way for requests of words alone; see codecs.base.Wording.

``request`` and ``compose`` are right about everything, and what both can read or write they do alike.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from ...ir.words import Line, Words
from ..base import Encoded, UpstreamFacts
from .members import BAD_JSON
from .response import encode_plain
from .typed_answer import read_plain
from .version import HOTTEST, version_for

PATH: Final = "/v1/messages"


class _Turn(Line, frozen=True, forbid_unknown_fields=True, gc=False):
    role: Literal["user", "assistant"]


_UNSAID: Any = None
"""A default that cannot be said: null is none of these types, and for the long way."""


class _Read(Struct, forbid_unknown_fields=True, gc=False):
    model: str
    messages: list[_Turn]
    max_tokens: int = _UNSAID
    system: str = _UNSAID
    stream: bool = False
    temperature: float = _UNSAID
    top_p: float = _UNSAID


class _Text(Struct, gc=False):
    type: str
    text: str


class _Said(Struct, gc=False):
    role: str
    content: tuple[_Text]


class _Written(Struct, omit_defaults=True, gc=False):
    model: str
    system: str | None = None
    messages: list[_Said] | None = None
    max_tokens: int | None = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None


_READ: Final = msgspec.json.Decoder(_Read)
_encode: Final = msgspec.json.Encoder().encode


class MessagesWording:
    """Stateless; implements ``codecs.base.Wording``."""

    def read(self, body: bytes) -> Words | None:
        """Read a request."""
        try:
            it = _READ.decode(body)
        except BAD_JSON:
            return None
        lines: list[Line] = it.messages  # type: ignore[assignment]  # nobody else has the list
        if it.system is not None:
            lines.insert(0, Line("system", it.system))
        return Words(it.model, lines, it.max_tokens, it.temperature, it.top_p, it.stream, it.stream or None)

    def write(self, words: Words, facts: UpstreamFacts) -> Encoded | None:
        """Write a request that was another format's: turns that take turns, after one system text at most."""
        temperature, top_p = words.temperature, words.top_p
        if words.max_output_tokens is None or (temperature is not None and temperature > HOTTEST):
            return None
        system: str | None = None
        turns: list[_Said] = []
        last = ""
        for line in words.lines:
            text, role = line.content, line.role
            if not text or text.isspace():
                return None
            if role == "system":
                if last:
                    return None
                system = text
            elif role == last:
                return None
            else:
                turns.append(_Said(role, (_Text("text", text),)))
            last = role
        if not turns:
            return None
        body = _Written(words.model, system, turns, words.max_output_tokens, words.stream, temperature, top_p)
        sampling = temperature is not None or top_p is not None
        return Encoded(_encode(body), PATH, {"anthropic-version": version_for(facts, sampling)})

    read_answer = staticmethod(read_plain)
    write_answer = staticmethod(encode_plain)


WORDING: Final = MessagesWording()
