"""Proof that one rule takes everything that a later one would. No verdict where it cannot be proved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .condition import Condition, Text, covers

_ALWAYS: Final = ("format", "model", "path")
"""Facts of text that every request has: there, a glob * demands nothing."""


def all_covered(wide: Mapping[str, Condition], narrow: Mapping[str, Condition]) -> bool:
    """Whether it is certain that every request that ``narrow`` matches is matched by ``wide``."""
    for fact, condition in wide.items():
        if fact in _ALWAYS and isinstance(condition, Text) and condition.glob.is_universal:
            continue
        if fact not in narrow or not covers(condition, narrow[fact]):
            return False
    return True
