"""The seam between two rounds: what the next says once more of the end of the last is left out.

Models that are asked to go on repeat the last words, the last sentence, or the word that broke off; others go on exactly. Both
look alike where a text repeats itself, so only an overlap that is hardly chance counts: LEAST characters which do not
stand earlier in the text, too, nor repeat themselves, or the whole of a broken word that is now told to its end.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ..errors import GatewayError
from ..ir.event import (
    Alien,
    Chunk,
    Event,
    Keepalive,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    UsageReport,
)
from ..ir.message import Reasoning, Text

LEAST: Final = 12
"""Characters of an overlap that is no chance."""
LEAST_OF_A_WORD: Final = 4
"""Letters of a broken word that is no chance when it is said again."""
_DISTINCT: Final = 4
"""Characters that differ in an overlap: a ruled line and an indentation go on as they began."""
_BEFORE: Final = 4000
"""Characters of the text so far in which an overlap is looked for, to see whether the text repeats itself."""
_MAX_HELD: Final = 1000
_ASIDE: Final = (Keepalive, UsageReport, ResponseStart, ResponsePatch, Alien)
_OF_A_PART: Final = (PartDelta, PartPatch, PartStop)


def overlap(said: str, head: str, most: int) -> int:
    """Return how many characters at the start of ``head`` repeat the end of ``said``, ``most`` at most."""
    for size in range(min(len(said), len(head), most), LEAST_OF_A_WORD - 1, -1):
        words = head[:size]
        if said.endswith(words) and (_is_telling(said, words) or _is_word(said, head, size)):
            return size
    return 0


def _is_telling(said: str, words: str) -> bool:
    size = len(words)
    if size < LEAST or len(set(words)) < _DISTINCT or said.find(words) != len(said) - size:
        return False
    return not any(words.startswith(words[period:]) for period in range(1, size // 2 + 1))


def _is_word(said: str, head: str, size: int) -> bool:
    """Whether ``head`` begins with the word that ``said`` broke off in, and tells more of it."""
    begins = size == len(said) or not said[-size - 1].isalnum()
    return begins and head[: size + 1].isalpha() and len(head) > size


class Seam:
    """A stage for a later round: leaves out the overlap with ``said``, and reasoning, of which there was enough.

    The first text is held back as long as it may still be a repetition, and never more than ``most`` characters of it.
    """

    __slots__ = ("_said", "_tail", "_most", "_looking", "_at", "_head", "_held", "_hushed")

    def __init__(self, said: str, most: int) -> None:
        self._said = said[-max(_BEFORE, most) :]
        self._tail = said[-most:] if most else ""
        self._most = most
        self._looking = True
        self._at = -1
        self._head = ""
        self._held: list[PartDelta] = []
        self._hushed: set[int] = set()

    def feed(self, chunk: Chunk, /) -> Chunk | None:
        """Return what is new in ``chunk``."""
        out: list[Event] = []
        for event in chunk.events:
            self._take(event, out)
        return Chunk(tuple(out), None, chunk.wire) if out else None

    def close(self, error: GatewayError | None, /) -> Chunk | None:
        """Return what was held of a round that broke off."""
        out: list[Event] = []
        self._settle(out)
        return Chunk(tuple(out)) if out else None

    def _take(self, event: Event, out: list[Event]) -> None:
        if isinstance(event, PartStart) and type(event.part) is Reasoning:
            self._hushed.add(event.index)
            return
        if isinstance(event, _OF_A_PART) and event.index in self._hushed:
            return
        if not self._looking or isinstance(event, _ASIDE):
            out.append(event)
        elif isinstance(event, PartStart) and type(event.part) is Text and self._at < 0:
            self._at = event.index
            words = event.part.text
            out.append(replace(event, part=replace(event.part, text="")) if words else event)
            if words:
                self._hear(PartDelta(event.index, words, event.choice), out)
        elif isinstance(event, PartDelta) and event.index == self._at:
            self._hear(event, out)
        else:
            self._settle(out)
            out.append(event)

    def _hear(self, delta: PartDelta, out: list[Event]) -> None:
        self._held.append(delta)
        self._head += delta.text
        # As long as it stands somewhere in the tail, more of it may reach the tail's end.
        if self._head not in self._tail or len(self._held) >= _MAX_HELD:
            self._settle(out)

    def _settle(self, out: list[Event]) -> None:
        """Decide, and let go what was held."""
        self._looking = False
        held, self._held = self._held, []
        left = overlap(self._said, self._head, self._most)
        for delta in held:
            size = len(delta.text)
            if not left:
                out.append(delta)
            elif size > left:
                out.append(PartDelta(delta.index, delta.text[left:], delta.choice))
            left = max(0, left - size)
