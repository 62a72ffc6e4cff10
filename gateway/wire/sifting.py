"""Which of some headers count: asked by all their names at once, since a client, and a provider, sends the same ones again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_MOST: Final = 1000
_USUAL: Final = 2000
"""Letters of all names together, beyond which nothing is remembered of them: strangers choose the names."""


class Sifted(dict[tuple[str, ...], tuple[str, ...]]):
    """``sifted[names]`` are those of ``names`` that ``counts`` is true of."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Callable[[str], bool]) -> None:
        self._counts = counts

    def __missing__(self, names: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(filter(self._counts, names))
        if len("".join(names)) <= _USUAL:
            if len(self) >= _MOST:
                self.clear()
            self[names] = found
        return found
