"""The loss ledger: what a translation could not carry, made up, or stood in for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

LossKind = Literal["lost", "minted", "emulated"]


class Loss(Struct, frozen=True, gc=False):
    """One entry. ``path`` is in the caller's format, for instance ``messages[0].content[1]``."""

    kind: LossKind
    path: str
    what: str
    why: str


class Ledger(Struct, eq=False):
    """The losses of one call: of its request, and of its answer. At most ``cap`` of each, then a count.

    A caller that sends a thousand unsupported parts must not cost a thousand header entries. ``served`` are members of the
    request, by their paths, that the gateway itself does what is asked by: nothing is lost when no provider is told.
    """

    cap: int = 100
    request: list[Loss] = []
    answer: list[Loss] = []
    dropped: int = 0
    served: frozenset[str] = frozenset()

    def add_request(self, losses: Iterable[Loss]) -> None:
        """Note losses of the request's translation; a retry that notes the same loss again adds nothing."""
        if self.served:
            losses = [loss for loss in losses if loss.path not in self.served]
        self._add(self.request, losses)

    def add_answer(self, losses: Iterable[Loss]) -> None:
        """Note losses of the answer's translation."""
        self._add(self.answer, losses)

    def _add(self, entries: list[Loss], losses: Iterable[Loss]) -> None:
        for loss in losses:
            if loss in entries:
                continue
            if len(entries) >= self.cap:
                self.dropped += 1
            else:
                entries.append(loss)

    @property
    def lost(self) -> list[Loss]:
        """What of the request did not reach the provider: what ``loss: refuse`` and the header count."""
        return [loss for loss in self.request if loss.kind == "lost"]
