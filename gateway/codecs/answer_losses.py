"""What an answer loses when it is written for a caller, for formats that tell the same loss once however often it happens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..ir.loss import Loss, LossKind
from ..ir.message import NO_EXTRA, Extra
from .ledger import MAX_LOSSES, says_something

NO_PLACE: Final = "has no place in this format"


class AnswerLosses:
    """The losses of one answer: each sort once, no more than MAX_LOSSES. ``format`` is where its ``extra`` comes from."""

    __slots__ = ("_own", "_seen", "format", "losses")

    def __init__(self, format: str, own: str) -> None:
        self.format = format
        self.losses: list[Loss] = []
        self._own = own
        self._seen: set[tuple[str, str]] = set()

    def lose(self, kind: LossKind, path: str, what: str, why: str) -> None:
        """Note a loss; a stream loses the same thing many times and says so once."""
        if len(self.losses) < MAX_LOSSES and (kind, what) not in self._seen:
            self._seen.add((kind, what))
            self.losses.append(Loss(kind, path, what, why))

    def lose_all(self, losses: Iterable[Loss]) -> None:
        """Note losses that were found elsewhere."""
        for loss in losses:
            self.lose(loss.kind, loss.path, loss.what, loss.why)

    def own_extra(self, extra: Extra, path: str) -> Extra:
        """Return ``extra`` if it is of the format that is written; else each member that says something is lost."""
        if self.format == self._own:
            return extra
        self.drop_extra(extra, path)
        return NO_EXTRA

    def drop_extra(self, extra: Extra, path: str) -> None:
        """Note members that this format has no place for."""
        for name, raw in extra.items():
            if says_something(name, raw):
                self.lose("lost", f"{path}.{name}" if path else name, name, NO_PLACE)
