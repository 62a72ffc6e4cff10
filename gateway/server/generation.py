"""A plan and the calls that run on it; and the record of how its successors came in."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from ..rules import RulesError
from ..rules.plan import Plan


class LastReload(Struct, frozen=True, omit_defaults=True):
    """The last one: whether the rules were replaced, and when, in Unix seconds. ``codes`` are those of the rules' errors."""

    ok: bool
    at: float
    codes: tuple[str, ...] = ()


class Reloads(Struct, frozen=True, omit_defaults=True):
    """How reloads went since the start."""

    succeeded: int = 0
    failed: int = 0
    last: LastReload | None = None

    def after(self, at: float, fault: Exception | None) -> Reloads:
        """Return the record with one more, which failed with ``fault`` or succeeded."""
        if fault is None:
            return replace(self, succeeded=self.succeeded + 1, last=LastReload(True, at))
        problems = fault.problems if isinstance(fault, RulesError) else ()
        codes = tuple(sorted({problem.code for problem in problems if problem.severity == "error"}))
        return replace(self, failed=self.failed + 1, last=LastReload(False, at, codes))


class Generation:
    """A plan and the calls that run on it. A plan that was replaced is retired when its last call is over."""

    __slots__ = ("plan", "active", "replaced", "_retire")

    def __init__(self, plan: Plan, retire: Callable[[Generation], None]) -> None:
        self.plan = plan
        self.active = 0
        self.replaced = False
        self._retire = retire

    def leave(self) -> None:
        """One call less."""
        self.active -= 1
        if self.replaced and self.active == 0:
            self._retire(self)

    def replace(self) -> None:
        """Note that no new calls come."""
        self.replaced = True
        if self.active == 0:
            self._retire(self)
