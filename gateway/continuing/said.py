"""What an answer has said so far, over all its rounds, and whether more can be asked for.

Text can go on, and what was thought before it does no harm. Anything else ends it: a tool call is never resumed inside its
arguments, nothing may follow a call before its result is there, and of several choices only one could go on.
"""

from __future__ import annotations

from itertools import chain
from typing import Final

from ..errors import GatewayError
from ..ir.event import Chunk, Event, PartDelta, PartStart
from ..ir.message import Reasoning, Text

MAX_CHARACTERS: Final = 1_000_000
"""What is kept of an answer. A longer one stays as it ends."""
MAX_PENDING: Final = 512
"""Chunks that are kept unread: most answers end well, and nobody ever reads them here."""
_LARGE: Final = 16 * 1024
"""Bytes of a chunk that is read at once: an image in one frame is not to be held."""


class Said:
    """A stage that remembers the text of the rounds that pass it, and changes nothing.

    ``read`` makes the rest true of all that passed. ``fits``: nothing but text and reasoning came, of one choice. ``begin``
    starts the next round; ``added`` and ``unseen`` (characters that are no text: reasoning) are of the round that runs.
    """

    __slots__ = ("fits", "unseen", "_pending", "_words", "_size", "_first", "_at")

    def __init__(self) -> None:
        self.fits = True
        self.unseen = 0
        self._pending: list[tuple[Event, ...]] = []
        self._words: list[str] = []
        self._size = 0
        self._first = 0
        self._at = -1

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._words)

    @property
    def added(self) -> str:
        """The text of this round."""
        return "".join(self._words[self._first :])

    def begin(self) -> None:
        """The next round begins."""
        self._first = len(self._words)
        self._at = -1
        self.unseen = 0

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Remember."""
        pending = self._pending
        pending.append(chunk.events)
        raw = chunk.raw
        if len(pending) >= MAX_PENDING or (raw is not None and len(raw) > _LARGE):
            self.read()
        return chunk

    def read(self) -> None:
        """Read what passed."""
        pending, self._pending = self._pending, []
        for event in chain.from_iterable(pending):
            if type(event) is PartDelta:
                text = event.text
                if event.index == self._at:
                    self._words.append(text)
                    self._size += len(text)
                else:
                    self.unseen += len(text)
            elif type(event) is PartStart:
                self._start(event)
        if self._size > MAX_CHARACTERS:
            self._give_up()

    def close(self, error: GatewayError | None, /) -> None:
        """Nothing: a round is over, the answer may not be."""

    def _start(self, event: PartStart) -> None:
        part = event.part
        if event.choice or not self.fits:
            self._give_up()
        elif type(part) is Text:
            self._at = event.index
            self._words.append(part.text)
            self._size += len(part.text)
        elif type(part) is Reasoning:
            self.unseen += len(part.text)
        else:
            self._give_up()

    def _give_up(self) -> None:
        self.fits = False
        self._words.clear()
        self._size = 0
        self._at = -1
