"""A span as a value, before it is written for anybody."""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct

Value: TypeAlias = str | bool | int | float | tuple[str, ...]
Attributes: TypeAlias = list[tuple[str, Value]]

INTERNAL: Final = 1
SERVER: Final = 2
CLIENT: Final = 3
"""Kinds of spans, as OTLP numbers them."""


class Fixed:
    """Attributes that many spans have in common: written once. ``encoded`` is for who wrote them."""

    __slots__ = ("pairs", "encoded")

    def __init__(self, pairs: Attributes) -> None:
        self.pairs = tuple(pairs)
        self.encoded: bytes | None = None


class Event(Struct, frozen=True, gc=False):
    """Something that happened at a moment."""

    name: str
    at_ns: int
    attributes: Attributes


class Span(Struct, gc=False):
    """Ids are hex digits, times nanoseconds since 1970. ``failed``: its status is an error. ``own`` are the attributes that
    it has besides ``fixed``. ``flags`` and ``state`` are those of its trace."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    remote: bool
    started_ns: int
    ended_ns: int
    fixed: Fixed
    own: Attributes
    events: list[Event]
    failed: bool
    flags: int
    state: str
