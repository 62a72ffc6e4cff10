"""Several files as one document: ``include:`` followed, sections put together.

Order is meaning: a file's own routes and tests come first, then those of the files that it includes, in the order of its
list, the files of a glob sorted by name. So nothing that a file includes gets ahead of what it says itself. Upstreams,
chains and targets are one name space over all files; sections of settings stand in one file only. Anchors end with their file.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, get_origin

import msgspec
from msgspec import Struct

from .document import Entry, Items, Node, Scalar, Table, kind_of, parse
from .problems import Problems, Spot
from .read import Reader
from .schema import RuleFile

MAX_DEPTH: Final = 8
MAX_FILES: Final = 256

_HINT: Final = "such as [team.yaml, parts/*.yaml]"


class Part(Struct, frozen=True, eq=False):
    """One file. ``source`` is what messages call it, ``directory`` what its paths are relative to."""

    source: str
    directory: Path
    root: Table


class Parts(NamedTuple):
    """The files in order, the including one before those that it includes.

    ``sources`` are they, and the directories that a glob searched: where a change may change the plan. ``whole`` says that
    every file could be read: if not, names that they define would seem to be missing.
    """

    parts: tuple[Part, ...]
    sources: tuple[Path, ...]
    whole: bool


def read_parts(text: str, source: str, directory: Path, path: Path | None, problems: Problems) -> Parts:
    """Return the file of ``text``, which stands at ``path`` if anywhere, and all that it includes."""
    follower = _Follower(problems)
    follower.file(text, Part(source, directory, Table(Spot(source, 1, 1), {})), path)
    return Parts(tuple(follower.parts), tuple(dict.fromkeys(follower.sources)), follower.whole)


def merge(parts: Sequence[Part], reader: Reader) -> Table:
    """Return the parts as one table; a name or a section that stands in two files is noted."""
    if len(parts) == 1:
        return parts[0].root
    entries: dict[str, Entry] = {}
    for field in msgspec.structs.fields(RuleFile):
        key = field.encode_name
        found = [part.root.entries[key] for part in parts if key in part.root.entries]
        if key == "version":
            found = [entry for entry in found if entry.spot.source == parts[0].source]
        if not found or key == "include":
            continue
        node = found[0].value
        origin = get_origin(field.type)
        if origin is dict and len(found) > 1:
            node = Table(node.spot, _by_name(key, found, reader))
        elif origin is list and len(found) > 1:
            node = Items(node.spot, tuple(item for entry in found for item in reader.items(entry.value, key)))
        elif len(found) > 1:
            _only_once(key, found, reader.problems)
        entries[key] = Entry(found[0].spot, node)
    return Table(parts[0].root.spot, entries)


def numbered(nodes: Iterable[Node], section: str) -> Iterator[tuple[str, Node]]:
    """Yield the items of a list section with what messages call each: they are counted anew in every file."""
    seen: Counter[str] = Counter()
    for node in nodes:
        source = node.spot.source
        yield f"{section}[{seen[source]}]", node
        seen[source] += 1


def _by_name(section: str, found: Iterable[Entry], reader: Reader) -> dict[str, Entry]:
    merged: dict[str, Entry] = {}
    for entry in found:
        for name, each in reader.table(entry.value, section).items():
            if name in merged:
                said = f'{section} has "{name}" {merged[name].spot.seen_from(each.spot)} already'
                reader.problems.add("E016", each.spot, said, "rename one of the two")
            else:
                merged[name] = each
    return merged


def _only_once(section: str, found: Sequence[Entry], problems: Problems) -> None:
    for entry in found[1:]:
        said = f'"{section}" stands {found[0].spot.seen_from(entry.spot)} already'
        problems.add("E016", entry.spot, said, "it may stand in one file only: put the two together")


class _Named(NamedTuple):
    """A file that an ``include`` leads to; ``outright`` or by a glob."""

    spot: Spot
    text: str
    outright: bool


class _Follower:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._taken: dict[str, Spot] = {}
        self._open: list[tuple[str, str]] = []
        self.parts: list[Part] = []
        self.sources: list[Path] = []
        self.whole = True

    def file(self, text: str, part: Part, path: Path | None) -> None:
        """Add the file that says ``text``, and all that it includes. ``part`` is the file as if it were empty."""
        if path is not None:
            self.sources.append(path)
        before = len(self._problems)
        root = parse(text, part.source, self._problems)
        if root is None and len(self._problems) > before:
            self.whole = False
            return
        if root is not None and not isinstance(root, Table):
            self._problems.add("E011", root.spot, "a rule file is a mapping", 'begin with "version: 1"')
            self.whole = False
            return
        if root is not None:
            part = Part(part.source, part.directory, root)
        self.parts.append(part)
        identity = "" if path is None else os.path.realpath(path)
        self._open.append((identity, part.source))
        self._taken.setdefault(identity, part.root.spot)
        for named in self._includes(part):
            self._include(named, part)
        self._open.pop()

    def _includes(self, part: Part) -> list[_Named]:
        """Return the files that a part names, globs written out. A glob passes over what is named outright, or taken."""
        node = part.root.get("include")
        if node is None:
            return []
        texts: list[tuple[Spot, str]] = []
        for item in node.items if isinstance(node, Items) else (node,):
            if isinstance(item, Scalar) and isinstance(item.value, str) and item.value and "\0" not in item.value:
                texts.append((item.spot, os.path.expanduser(item.value)))
            else:
                self._problems.add("E011", item.spot, f"include: expected a path, got {kind_of(item)}", _HINT)
        passed = {os.path.realpath(part.directory / text) for _, text in texts if not glob.has_magic(text)}
        found: list[_Named] = []
        for spot, text in texts:
            if not glob.has_magic(text):
                found.append(_Named(spot, text, True))
                continue
            for match in self._matches(spot, text, part.directory):
                identity = os.path.realpath(part.directory / match)
                if identity not in passed and identity not in self._taken:
                    passed.add(identity)
                    found.append(_Named(spot, match, False))
        return found

    def _matches(self, spot: Spot, text: str, directory: Path) -> list[str]:
        if "**" in text:
            self._problems.add("E011", spot, "include: ** is not read", "write a glob for each level: parts/*/*.yaml")
            return []
        self.sources += _searched(text, directory)
        matches = sorted(match for match in glob.glob(text, root_dir=directory) if (directory / match).is_file())
        if not matches:
            self._problems.add(
                "W105", spot, f"include: no file matches {text}", "paths start at the file that names them"
            )
        return matches

    def _include(self, named: _Named, including: Part) -> None:
        path = including.directory / named.text
        source = os.path.normpath(os.path.join(os.path.dirname(including.source), named.text))
        identity = os.path.realpath(path)
        circle = [name for at, name in self._open if at == identity]
        if circle:
            names = [name for _, name in self._open]
            said = " → ".join([*names[names.index(circle[0]) :], circle[0]])
            self._problems.add(
                "E009", named.spot, f"include: {named.text} includes itself: {said}", "take one of them out"
            )
        elif identity in self._taken:
            said = f"include: {named.text} is included {self._taken[identity].seen_from(named.spot)} already"
            self._problems.add("E009", named.spot, said, "name it once")
        elif len(self._open) > MAX_DEPTH or len(self.parts) >= MAX_FILES:
            limit = f"{MAX_DEPTH} levels" if len(self._open) > MAX_DEPTH else f"{MAX_FILES} files"
            self._problems.add("E006", named.spot, f"include: more than {limit} of included files")
            self.whole = False
        else:
            self._taken[identity] = named.spot
            self._read(named, path, source)

    def _read(self, named: _Named, path: Path, source: str) -> None:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as fault:
            missing = isinstance(fault, FileNotFoundError)
            why = f"there is no file {path}" if missing else f"{path} cannot be read: {fault.strerror or fault}"
            hint = f"for all in it: {named.text.rstrip('/')}/*.yaml" if isinstance(fault, IsADirectoryError) else ""
            self._problems.add("E008", named.spot, f"include: {why}", hint or "paths start at the file that names them")
        except UnicodeDecodeError as fault:
            said = f"not UTF-8: byte {fault.start} cannot be read"
            self._problems.add("E001", Spot(source, 1, 1), said, "save it as UTF-8")
        else:
            self.file(text, Part(source, path.parent, Table(Spot(source, 1, 1), {})), path)
            return
        self.sources.append(path)
        self.whole = False


def _searched(pattern: str, directory: Path) -> list[Path]:
    """Return the directories where a new file may match ``pattern``."""
    head = os.path.dirname(pattern)
    if not glob.has_magic(head):
        return [directory / head]
    return [directory / match for match in sorted(glob.glob(head, root_dir=directory))] + _searched(head, directory)
