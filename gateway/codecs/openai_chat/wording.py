"""The short way for requests of words alone; see codecs.base.Wording.

``request_reader`` and ``request_writer`` are right about everything, and what both can read or write they do alike.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from ...ir.words import Line, Words
from ...wire.members import BAD_JSON, encode_json
from ..base import Encoded, UpstreamFacts
from .response import encode_plain
from .typed_answer import read_plain

PATH: Final = "/chat/completions"


class _Asked(Struct, forbid_unknown_fields=True, gc=False):
    include_usage: bool


_UNSAID: Any = None
"""A default that cannot be said: null is none of these types, and for the long way."""


class _Read(Struct, forbid_unknown_fields=True, gc=False):
    model: str
    messages: list[Line]
    max_tokens: int = _UNSAID
    max_completion_tokens: int = _UNSAID
    temperature: float = _UNSAID
    top_p: float = _UNSAID
    stream: bool = False
    stream_options: _Asked = _UNSAID


class _Written(Struct, omit_defaults=True, gc=False):
    # Messages stand first after the model: see request_writer.
    model: str
    messages: list[Line]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool = False
    stream_options: _Asked | None = None


_READ: Final = msgspec.json.Decoder(_Read)
_INCLUDED: Final = _Asked(True)


class ChatWording:
    """Stateless; implements ``codecs.base.Wording``."""

    def read(self, body: bytes) -> Words | None:
        """Read a request."""
        try:
            it = _READ.decode(body)
        except BAD_JSON:
            return None
        limit, options = it.max_completion_tokens, it.stream_options
        if it.max_tokens is not None:
            if limit is not None:
                return None
            limit = it.max_tokens
        usage = None if options is None else options.include_usage
        return Words(it.model, it.messages, limit, it.temperature, it.top_p, it.stream, usage)

    def write(self, words: Words, facts: UpstreamFacts) -> Encoded | None:
        """Write a request that was another format's."""
        limit, other = words.max_output_tokens, None
        if limit is not None and (field := facts.options.get("max_tokens_field")):
            if field == "max_tokens":
                limit, other = None, limit
            elif field != "max_completion_tokens":
                return None
        asked: _Asked | None = None
        if words.stream:
            if facts.stream_usage:
                asked = _INCLUDED
            elif words.stream_usage is not None:
                asked = _Asked(words.stream_usage)
        body = _Written(words.model, words.lines, other, limit, words.temperature, words.top_p, words.stream, asked)
        return Encoded(encode_json(body), PATH)

    read_answer = staticmethod(read_plain)
    write_answer = staticmethod(encode_plain)


WORDING: Final = ChatWording()
