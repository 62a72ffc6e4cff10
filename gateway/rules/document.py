"""YAML text into nodes that know where they stand; stricter than YAML where YAML surprises.

The parser's events are read here instead of PyYAML's own objects, since those forget positions, keep the last of two equal
keys, and read ``no`` as false. Knows nothing of rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import yaml
from msgspec import Struct

from .problems import Problems, Spot, looks_like_key
from .scalars import Ambiguous, resolve

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 40
MAX_NODES: Final = 50_000
"""Nodes with every alias counted in full: a few hundred bytes of nested aliases would fill the memory otherwise."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a PyYAML built without libyaml has only the slow one


class Scalar(Struct, frozen=True, eq=False):
    """One value; ``text`` is how it is spelled.

    ``indent`` is how many characters the text stands right of ``spot``, where it stands on its line as it is; ``block`` that
    it begins on the next line, after a ``|``.
    """

    spot: Spot
    value: str | int | float | bool | None
    text: str
    indent: int | None = None
    block: bool = False

    def at(self, line: int, column: int) -> Spot:
        """Return where a place of the text stands in the file, as nearly as that is known. Both count from 1."""
        source, first, start = self.spot
        if self.block:
            return Spot(source, first + line, 1)
        return self.spot if self.indent is None else Spot(source, first, start + self.indent + column - 1)


class Items(Struct, frozen=True, eq=False):
    """A list."""

    spot: Spot
    items: tuple[Node, ...]


class Entry(Struct, frozen=True, eq=False):
    """A key of a table with its value; ``spot`` is the key's."""

    spot: Spot
    value: Node


class Table(Struct, frozen=True, eq=False):
    """A mapping, merge keys already merged in."""

    spot: Spot
    entries: dict[str, Entry]

    def get(self, key: str) -> Node | None:
        """Return the value of ``key``, or None."""
        entry = self.entries.get(key)
        return None if entry is None else entry.value


Node: TypeAlias = Scalar | Items | Table


def plain(node: Node) -> object:
    """Return the node as dicts, lists and scalars."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return {key: plain(entry.value) for key, entry in node.entries.items()}


def kind_of(node: Node) -> str:
    """Return what a person would call the node."""
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Table):
        return "a mapping"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return "true" if node.value else "false"
    return "a text" if isinstance(node.value, str) else "a number"


def parse(text: str, source: str, problems: Problems) -> Node | None:
    """Return the root node of ``text``, or None when it is empty or so broken that nothing can be said of the rest."""
    if len(text) > MAX_BYTES:
        problems.add("E006", Spot(source, 1, 1), f"the file is larger than {MAX_BYTES} characters")
        return None
    try:
        return _Composer(text, source, problems).document()
    except _Refused:
        return None
    except yaml.MarkedYAMLError as fault:
        spot = _fault_spot(fault, source)
        problems.add("E002", spot, _fault_text(fault), _advice(text, spot, fault))
    except yaml.reader.ReaderError as fault:
        before = text[: fault.position]
        spot = Spot(source, before.count("\n") + 1, fault.position - before.rfind("\n"))
        problems.add("E002", spot, f"a character that YAML does not allow: {fault.reason}")
    return None


def _fault_spot(fault: yaml.MarkedYAMLError, source: str) -> Spot:
    marks = [fault.problem_mark, fault.context_mark]
    if (fault.context or "").startswith("while scanning"):
        marks.reverse()  # where the text in question begins, not where the scanner gave up on it
    mark = marks[0] or marks[1]
    return Spot(source, 1, 1) if mark is None else Spot(source, mark.line + 1, mark.column + 1)


def _fault_text(fault: yaml.MarkedYAMLError) -> str:
    if fault.context is None:
        return fault.problem or "not YAML"
    began = "" if fault.context_mark is None else f" that begins on line {fault.context_mark.line + 1}"
    return f"{fault.problem} {fault.context}{began}"


def _advice(text: str, spot: Spot, fault: yaml.MarkedYAMLError) -> str:
    lines = text.splitlines()
    if spot.line <= len(lines) and "\t" in lines[spot.line - 1][: spot.column]:
        return "indent with spaces, not with tabs"
    said = f"{fault.problem} {fault.context}"
    if "mapping values are not allowed" in said or "cannot start any token" in said or "scanning an alias" in said:
        return 'a text that contains ": " or begins with one of * & ! % @ ` must be quoted'
    return "look for a bracket, quote or indentation that is off, here or just above"


def _indent(event: yaml.ScalarEvent) -> int | None:
    """Return how far the text begins after the event; None if it is not written letter by letter on one line."""
    start, end = event.start_mark, event.end_mark
    if start is None or end is None or start.line != end.line or event.anchor is not None:
        return None
    quote = 1 if event.style in ("'", '"') else 0
    return quote if end.column - start.column == len(event.value) + 2 * quote else None


class _Refused(Exception):
    """Reading on makes no sense; the problem has been noted."""


class _Composer:
    def __init__(self, text: str, source: str, problems: Problems) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._source = source
        self._problems = problems
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0

    def document(self) -> Node | None:
        next(self._events)  # the stream's start
        if not isinstance(next(self._events), yaml.DocumentStartEvent):
            return None
        root, _ = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        after = next(self._events)
        if isinstance(after, yaml.DocumentStartEvent):
            self._problems.add(
                "E003", self._spot(after), "a second document", "a rule file is one document: remove the ---"
            )
        return root

    def _spot(self, event: yaml.Event) -> Spot:
        mark = event.start_mark
        return Spot(self._source, 1, 1) if mark is None else Spot(self._source, mark.line + 1, mark.column + 1)

    def _node(self, event: yaml.Event, depth: int) -> tuple[Node, int]:
        """Return the node that begins with ``event``, and how many nodes it holds with its aliases written out."""
        spot = self._spot(event)
        if isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(event.anchor or "")
            if known is None:
                self._problems.add(
                    "E007",
                    spot,
                    f'no anchor "&{event.anchor}" ends above this',
                    f'a glob that begins with * must be quoted: "*{event.anchor}"',
                )
                raise _Refused
            self._grow(known[1], spot)
            return known
        if depth > MAX_DEPTH:
            self._problems.add("E006", spot, f"nested deeper than {MAX_DEPTH} levels")
            raise _Refused
        self._grow(1, spot)
        before = self._count
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if event.tag not in (None, "!"):
            self._problems.add("E003", spot, f"the tag {event.tag}", "leave it out: types follow from the rules")
            self._problems.silence(spot)
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, spot)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._items(spot, depth)
        else:
            node = self._table(spot, depth)
        weight = self._count - before + 1
        if event.anchor is not None:
            self._anchors[event.anchor] = node, weight
        return node, weight

    def _grow(self, weight: int, spot: Spot) -> None:
        self._count += weight
        if self._count > MAX_NODES:
            self._problems.add("E006", spot, f"more than {MAX_NODES} nodes, aliases counted in full")
            raise _Refused

    def _scalar(self, event: yaml.ScalarEvent, spot: Spot) -> Scalar:
        text = event.value
        if looks_like_key(text):
            self._problems.add(
                "E020", spot, "this looks like a secret", 'write a reference: "env:NAME", "env:NAME?" or "file:path"'
            )
            self._problems.silence(spot)
        if not event.implicit[0]:
            return Scalar(spot, text, text, _indent(event), event.style == "|")
        value = resolve(text)
        if isinstance(value, Ambiguous):
            self._problems.add("E005", spot, f"{text} is ambiguous: {value.why}", value.hint)
            self._problems.silence(spot)
            value = text
        return Scalar(spot, value, text, _indent(event))

    def _items(self, spot: Spot, depth: int) -> Items:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1)[0])
        return Items(spot, tuple(items))

    def _table(self, spot: Spot, depth: int) -> Table:
        written: dict[str, Entry] = {}
        merged: list[Table] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key, _ = self._node(event, depth + 1)
            is_merge = isinstance(event, yaml.ScalarEvent) and event.implicit[0] and event.value == "<<"
            of_value = next(self._events)
            value, _ = self._node(of_value, depth + 1)
            if is_merge and not merged:
                merged = self._merged(value, self._spot(of_value))
                continue
            name = "<<" if is_merge else self._key(key)
            if name in written or is_merge:
                first = f"; first on line {written[name].spot.line}" if name in written else ""
                self._problems.add(
                    "E004", key.spot, f'the key "{name}" is written twice{first}', "remove one of the two"
                )
            else:
                written[name] = Entry(key.spot, value)
        entries = dict(written)
        for table in merged:
            for name, entry in table.entries.items():
                entries.setdefault(name, entry)
        return Table(spot, entries)

    def _key(self, key: Node) -> str:
        if not isinstance(key, Scalar):
            self._problems.add("E003", key.spot, f"{kind_of(key)} as a key", "keys are names")
            raise _Refused
        if not isinstance(key.value, str):
            self._problems.add("E003", key.spot, f"the key {key.text or 'null'} is not a text", "quote it")
        return key.text

    def _merged(self, value: Node, spot: Spot) -> list[Table]:
        tables = list(value.items) if isinstance(value, Items) else [value]
        found = [table for table in tables if isinstance(table, Table)]
        if len(found) < len(tables) or not tables:
            self._problems.add(
                "E007", spot, f"<< merges mappings, this is {kind_of(value)}", "write <<: *name or <<: [*a, *b]"
            )
        return found
