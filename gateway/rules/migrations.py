"""Rule files of an earlier version into the present one: a step for each version, each a few edits of the text.

A step finds keys and values in the file and says what stands in their place. Everything else, comments and layout too, stays
as it is. ``STEPS`` are all there are; version 0 is a file that does not say its version, or says it as a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import yaml
from msgspec import Struct

from .document import Table, parse
from .problems import Problem, Problems, Spot
from .schema import VERSION

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class CannotMigrate(ValueError):
    """A file that is not in order as YAML, or of a version that this build does not know; ``problems`` say where."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Found(Struct, frozen=True):
    """A key with its value. ``keys`` lead to it, list items by their number; the rest are offsets in the text.

    ``value`` is how a scalar is spelled, without its quotes; None for a list or a mapping.
    """

    keys: tuple[str | int, ...]
    value: str | None
    key_at: tuple[int, int]
    value_at: tuple[int, int]


class Edits:
    """The edits of one step. The text must be YAML whose root is a mapping."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._root = yaml.compose(text, Loader=_LOADER)
        self._pieces: dict[tuple[int, int], str] = {}

    def find(self, *path: str) -> Iterator[Found]:
        """Yield the keys that ``path`` leads to; ``*`` stands for every key of a mapping and every item of a list."""
        yield from self._find(self._root, path, ())

    def rename(self, found: Found, name: str) -> None:
        """Write another name for a key, a word of letters, digits, ``_`` and ``-``."""
        assert _WORD.fullmatch(name), name
        self._pieces[found.key_at] = name

    def respell(self, found: Found, yaml_text: str) -> None:
        """Write ``yaml_text``, one line of YAML, in place of a value."""
        start, end = found.value_at
        nothing = start == end and self._text[start - 1 : start] == ":"
        self._pieces[start, end] = f" {yaml_text}" if nothing else yaml_text

    def begin_with(self, line: str) -> None:
        """Write ``line`` before the first key, and before the comments that belong to that; those of the file stay above."""
        at = 0 if self._root is None else self._root.start_mark.index
        if self._text[at : at + 1] == "{":
            self._pieces[at + 1, at + 1] = f"{line}, "
            return
        start = self._text.rfind("\n", 0, at) + 1
        above = self._text[:start].splitlines(keepends=True)
        own = 0
        while own < len(above) and above[-1 - own].lstrip().startswith("#"):
            own += 1
        if 0 < own < len(above):
            begin = start - sum(map(len, above[len(above) - own :]))
            self._pieces[begin, begin] = f"{line}\n\n"
        else:
            self._pieces[start, start] = f"{self._text[start:at]}{line}\n"

    def text(self) -> str:
        """Return the text with every edit made."""
        text = self._text
        for (start, end), piece in sorted(self._pieces.items(), reverse=True):
            text = f"{text[:start]}{piece}{text[end:]}"
        return text

    def _find(self, node: yaml.Node | None, path: Sequence[str], keys: tuple[str | int, ...]) -> Iterator[Found]:
        first, rest = path[0], path[1:]
        if isinstance(node, yaml.SequenceNode) and first == "*" and rest:
            for at, item in enumerate(node.value):
                yield from self._find(item, rest, (*keys, at))
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            if first not in ("*", key.value):
                continue
            if rest:
                yield from self._find(value, rest, (*keys, key.value))
            else:
                spelled = value.value if isinstance(value, yaml.ScalarNode) else None
                yield Found((*keys, key.value), spelled, _span(key), _span(value))


Rewrite: TypeAlias = Callable[[Edits], None]


class Step(Struct, frozen=True):
    """From version ``since`` to the next; ``what`` says to people what it changes."""

    since: int
    what: str
    rewrite: Rewrite


class Migrated(Struct, frozen=True):
    """A file's text in the present version, and the steps that led there: none, if it was there."""

    text: str
    steps: tuple[Step, ...]


def _say_version(edits: Edits) -> None:
    said = list(edits.find("version"))
    for found in said:
        edits.respell(found, "1")
    if not said:
        edits.begin_with("version: 1")


STEPS: Final[tuple[Step, ...]] = (Step(0, "the file says its version", _say_version),)
"""Every step, in order and without a gap."""


def migrate(text: str, source: str, steps: Sequence[Step] = STEPS) -> Migrated:
    """Return ``text`` in the version that ``steps`` lead to. Raises CannotMigrate; ``source`` is what its problems name."""
    known = steps[-1].since + 1 if steps else VERSION
    version = _version(text, source, known)
    taken = tuple(step for step in steps if step.since >= version)
    for step in taken:
        edits = Edits(text)
        step.rewrite(edits)
        text = edits.text()
        left = _version(text, source, known)
        assert left == step.since + 1, f"the step from version {step.since} leads to {left}"
    return Migrated(text, taken)


def _version(text: str, source: str, known: int) -> int:
    """Return the version of a file, 0 where it does not say one as it must."""
    problems = Problems()
    root = parse(text, source, problems)
    if not problems.failed and not isinstance(root, Table):
        problems.add("E011", Spot(source, 1, 1), "a rule file is a mapping, and this is none")
    if problems.failed:
        raise CannotMigrate(problems.sorted())
    assert isinstance(root, Table)
    entry = root.entries.get("version")
    value = None if entry is None else getattr(entry.value, "value", "")
    if value is None or (isinstance(value, str | float) and re.fullmatch(r"v?0*1(?:\.0+)?", str(value))):
        return 0
    if entry is not None and (type(value) is not int or not 0 <= value <= known):
        newer = type(value) is int and value > known
        hint = "this build is too old for it: update Headgate" if newer else "write the number of a version"
        said = f"version {getattr(entry.value, 'text', '')} is not known here, {known} is the latest"
        problems.add("E014", entry.value.spot, said, hint)
        raise CannotMigrate(problems.sorted())
    assert isinstance(value, int)
    return value


def _span(node: yaml.Node) -> tuple[int, int]:
    """Return where a node stands in the text, an anchor before it not included."""
    return node.start_mark.index, node.end_mark.index
