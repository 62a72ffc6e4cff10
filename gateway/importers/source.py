"""A foreign configuration, YAML or JSON: its values with their lines, and an account of which were used.

Whoever reads a value says what became of it: ``carry`` it, ``change`` it or ``leave`` it. ``leave_rest`` reports what nobody
spoke of, so that no key of the source is passed over in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

from ..rules.document import Items, Node, Scalar, Table, kind_of, parse, plain
from ..rules.problems import Problem, Problems
from .report import Entry, Outcome, Report, masked, shown

_TOLERATED: Final = frozenset({"E005", "E020"})
"""What is wrong in a rule file only: texts that YAML readers disagree about, and secrets."""

_TRUE: Final = frozenset({"true", "yes", "on"})
_FALSE: Final = frozenset({"false", "no", "off"})
_STRING_OR_COMMENT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|\t', re.S)
_PAIR: Final = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


_Steps: TypeAlias = tuple[str | int, ...]
"""The keys and indexes on the way to a value."""


class Unreadable(ValueError):
    """A source that is no YAML or JSON, or not of the shape that the gateway's configuration has."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Cursor:
    """A value of the source, and the way to it."""

    def __init__(self, node: Node, steps: _Steps, report: Report, spoken_of: set[_Steps]) -> None:
        self._node = node
        self._steps = steps
        self._report = report
        self._spoken_of = spoken_of

    @property
    def path(self) -> str:
        """Where it stands, as a report says it."""
        text = "".join(f"[{step}]" if isinstance(step, int) else f".{masked(step)}" for step in self._steps)
        return text.removeprefix(".")

    # -- reading

    @property
    def value(self) -> object:
        """The value as dicts, lists and scalars."""
        return plain(self._node)

    @property
    def line(self) -> int:
        """The line where it begins."""
        return self._node.spot.line

    @property
    def is_table(self) -> bool:
        """Whether it is a mapping."""
        return isinstance(self._node, Table)

    @property
    def is_items(self) -> bool:
        """Whether it is a list."""
        return isinstance(self._node, Items)

    def entries(self) -> Iterator[tuple[str, Cursor]]:
        """Yield the keys and values of a mapping; nothing for anything else."""
        if isinstance(self._node, Table):
            for key, entry in self._node.entries.items():
                yield key, self._at(entry.value, key)

    def items(self) -> Iterator[Cursor]:
        """Yield the items of a list; nothing for anything else."""
        if isinstance(self._node, Items):
            for at, item in enumerate(self._node.items):
                yield self._at(item, at)

    def get(self, *names: str) -> Cursor | None:
        """Return the value of the first of ``names`` that is there and is not null."""
        for key, cursor in self.entries():
            if key in names and cursor.value is not None:
                return cursor
        return None

    def table(self, *names: str) -> Cursor | None:
        """Return a mapping; None where it is missing, or something else, which is reported."""
        found = self.get(*names)
        if found is not None and not found.is_table:
            found._wrong("a mapping")
            return None
        return found

    def list(self, *names: str) -> Cursor | None:
        """Return a list; None where it is missing, or something else, which is reported."""
        found = self.get(*names)
        if found is not None and not found.is_items:
            found._wrong("a list")
            return None
        return found

    def text(self, *names: str) -> str | None:
        """Carry a text that is not empty; None where it is missing, or something else, which is reported."""
        found = self.get(*names)
        return None if found is None else found.as_text()

    def number(self, *names: str) -> float | None:
        """Carry a number; None where it is missing, or something else, which is reported."""
        found = self.get(*names)
        return None if found is None else found.as_number()

    def flag(self, *names: str) -> bool | None:
        """Carry a truth value; None where it is missing, or something else, which is reported."""
        found = self.get(*names)
        if found is None:
            return None
        text = str(found.value).lower()
        if text not in _TRUE | _FALSE:
            found._wrong("true or false")
            return None
        found.carry()
        return text in _TRUE

    def as_text(self) -> str | None:
        """Carry this value as a text."""
        text = self._node.text.strip() if isinstance(self._node, Scalar) and self._node.value is not None else ""
        if not text:
            self._wrong("a text")
            return None
        self.carry()
        return text

    def as_number(self) -> float | None:
        """Carry this value as a finite number."""
        if isinstance(self._node, Scalar) and not isinstance(self._node.value, bool):
            try:
                number = float(self._node.text)
            except ValueError:
                number = float("nan")
            if abs(number) < 1e15:
                self.carry()
                return number
        self._wrong("a number")
        return None

    # -- what became of it

    def carry(self) -> None:
        """Say that the value, with all it contains, is in the rule file."""
        self._spoken_of.add(self._steps)

    def leave(self, why: str, instead: str = "") -> None:
        """Report that nothing of the value is in the rule file."""
        self._say("left out", why, instead)

    def change(self, why: str, instead: str = "") -> None:
        """Report that the value is in the rule file, but means something else there."""
        self._say("changed", why, instead)

    def hide(self, why: str, instead: str = "") -> None:
        """Report that a reference stands for the value, which is a secret."""
        self._say("secret", why, instead)

    @property
    def spoken_of(self) -> bool:
        """Whether somebody said what became of the value, or of a part of it, or of what it is part of."""
        return any(
            said[: len(self._steps)] == self._steps or self._steps[: len(said)] == said for said in self._spoken_of
        )

    def leave_rest(self, why: str) -> None:
        """Report everything below that nobody has spoken of, each as high up as nothing in it was. Empty texts say nothing."""
        steps = self._steps
        if steps in self._spoken_of or self.value in (None, ""):
            return
        if steps and not any(said[: len(steps)] == steps for said in self._spoken_of):
            self.leave(why)
            return
        for _, cursor in self.entries():
            cursor.leave_rest(why)
        for cursor in self.items():
            cursor.leave_rest(why)

    def _say(self, outcome: Outcome, why: str, instead: str) -> None:
        self.carry()
        was = "not shown" if outcome == "secret" else shown(self.path, self.value)
        self._report.add(Entry(outcome, self.path or "the file", self.line, was, why, instead))

    def _wrong(self, expected: str) -> None:
        self.leave(f"expected {expected}, found {kind_of(self._node)}")

    def _at(self, node: Node, step: str | int) -> Cursor:
        return Cursor(node, (*self._steps, step), self._report, self._spoken_of)


def read(text: str, source: str, report: Report) -> Cursor:
    """Return the root of a configuration, which is a mapping. Raises Unreadable."""
    problems = Problems()
    node = parse(_as_yaml(text) if text.lstrip("\ufeff \t\r\n").startswith(("{", "/")) else text, source, problems)
    faults = tuple(each for each in problems.sorted() if each.severity == "error" and each.code not in _TOLERATED)
    if faults:
        raise Unreadable(faults)
    if not isinstance(node, Table):
        found = "nothing" if node is None else kind_of(node)
        line = 1 if node is None else node.spot.line
        raise Unreadable((Problem("E011", "error", source, line, 1, f"expected a mapping, found {found}"),))
    return Cursor(node, (), report, set())


def _as_yaml(text: str) -> str:
    """Return JSON, with comments perhaps, as YAML that stands on the same lines."""

    def piece(found: re.Match[str]) -> str:
        token = found.group()
        if token.startswith('"'):
            paired = _PAIR.sub(lambda pair: _joined(pair[1], pair[2]), token)
            return _HALF.sub("\\\\uFFFD", paired)
        return re.sub(r"[^\n]", " ", token)

    return _STRING_OR_COMMENT.sub(piece, text.lstrip("\ufeff"))


def _joined(high: str, low: str) -> str:
    return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00))
