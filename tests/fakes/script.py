"""What a fake provider is told to answer: values only, no wire format and no socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Say:
    """Words. ``pieces`` is into how many deltas a stream cuts them."""

    text: str
    pieces: int = 3


@dataclass(frozen=True)
class Think:
    """Thinking. Anthropic signs it (the signature is minted and remembered unless given); OpenAI-likes only tell it."""

    text: str
    signature: str | None = None
    pieces: int = 2


@dataclass(frozen=True)
class Redacted:
    """Encrypted thinking, Anthropic only. ``data`` is remembered, and must come back as it is."""

    data: str


@dataclass(frozen=True)
class Use:
    """A tool call. ``arguments`` is JSON text and goes out exactly so, in ``pieces`` fragments when streamed."""

    name: str
    arguments: str = "{}"
    id: str | None = None
    pieces: int = 3


Part: TypeAlias = Say | Think | Redacted | Use
Stop: TypeAlias = Literal["end", "length", "tool", "sequence", "filter"]


@dataclass(frozen=True)
class Tokens:
    """Usage, free of any format's convention: ``fresh`` input was neither read from the cache nor written to it."""

    fresh: int = 10
    cached: int = 0
    written: int = 0
    output: int = 5
    reasoning: int = 0


@dataclass(frozen=True)
class Script:
    """One answer.

    Frames are SSE frames of a stream. ``cut_after``, ``stall_after`` and ``error_after`` count frames; a whole answer knows
    only ``stall_after`` (half of its body is sent), ``cut_after`` (cut in half) and ``stall_before``. ``cut`` says how:
    ``fin`` and ``reset`` close the socket in the middle of the HTTP body, ``eof`` ends the HTTP body as if all were well.
    ``half`` sends half of the next frame before the cut, ``stall_after_last`` sends all but never ends the body. ``piece``
    is the size of a TCP write (None: one frame each, 0: all at once), ``pause_s`` the wait between writes, ``wait_s`` that
    before the headers; ``heed`` is given what was written, and awaited before the next write. ``wire`` are the bytes of a
    body or stream that stand in for what would be rendered, ``content_type`` what they claim to be.
    """

    parts: tuple[Part, ...] = ()
    stop: Stop | None = None
    tokens: Tokens = field(default_factory=Tokens)
    model: str | None = None
    status: int = 200
    error_kind: str | None = None
    error_message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wire: bytes | None = None
    content_type: str | None = None
    cut_after: int | None = None
    cut: Literal["fin", "reset", "eof"] = "fin"
    half: bool = False
    stall_before: bool = False
    stall_after: int | None = None
    stall_after_last: bool = False
    error_after: int | None = None
    piece: int | None = None
    pause_s: float = 0.0
    wait_s: float = 0.0
    heed: Callable[[bytes], Awaitable[object]] | None = None

    @property
    def ended(self) -> Stop:
        """Why the answer stops, derived from the parts where nothing was said."""
        if self.stop is not None:
            return self.stop
        return "tool" if any(isinstance(part, Use) for part in self.parts) else "end"


def script(*parts: Part | str, **fields: object) -> Script:
    """Return a Script of ``parts``; a plain string is something to say."""
    return Script(tuple(Say(part) if isinstance(part, str) else part for part in parts), **fields)  # type: ignore[arg-type]


def pieces_of(text: str, count: int) -> list[str]:
    """Cut ``text`` into at most ``count`` pieces, none of them empty; an empty text has none."""
    size = max(1, -(-len(text) // max(1, count)))
    return [text[start : start + size] for start in range(0, len(text), size)]
