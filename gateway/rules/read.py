"""Nodes into msgspec Structs, by the Structs' own types: every mistake of a section is noted at its place.

msgspec alone would stop at the first mistake and knows no lines. So Structs, mappings and lists are walked here, and only
what is below them is handed to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from ..units import FilePath, Secret, decode_unit
from .assumed import Assumed, assume
from .document import Entry, Items, Node, Scalar, Table, kind_of, plain
from .problems import Problems, Spot, nearest

S = TypeVar("S", bound=Struct)

_AT: Final = re.compile(r" - at `(?:key in )?\$(?P<path>.*)`$")
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]+)`")
_WORDS: Final = {
    "array": "a list",
    "object": "a mapping",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
}


class _InlineSecret(ValueError):
    """A text where a reference to a secret belongs. Never carries the text."""


class Reader:
    """Reads sections; what is wrong goes to ``problems``.

    ``directories``: what paths are relative to, by the source of the spot where they stand. ``assumed`` are the secrets
    that count as there even if they are not.
    """

    def __init__(self, problems: Problems, directories: Mapping[str, Path], assumed: Assumed = "none") -> None:
        self.problems = problems
        self.assumed = assumed
        self._directories = directories
        self.references: list[tuple[Secret, Spot, str]] = []
        """Every reference to a secret that was read, and where it stands."""
        self.files: list[Path] = []
        """Files beside the rules: of secrets and certificates."""

    def table(self, node: Node | None, where: str) -> Mapping[str, Entry]:
        """Return the entries of a mapping; none, and a note, if it is something else."""
        if node is None:
            return {}
        if isinstance(node, Table):
            return node.entries
        self.problems.add("E011", node.spot, f"{where}: expected a mapping, got {kind_of(node)}")
        return {}

    def items(self, node: Node | None, where: str) -> tuple[Node, ...]:
        """Return the items of a list; none, and a note, if it is something else."""
        if node is None:
            return ()
        if isinstance(node, Items):
            return node.items
        self.problems.add("E011", node.spot, f"{where}: expected a list, got {kind_of(node)}")
        return ()

    def struct(
        self, node: Node, kind: type[S], where: str, *, keep: Collection[str] = (), beside: Collection[str] | None = ()
    ) -> S | None:
        """Return the Struct that ``node`` spells, or None when something in it is wrong (and noted).

        Fields in ``keep`` are left at their default for the caller to read. ``beside`` are keys that belong to somebody
        else; None: nobody knows which, so no key is called unknown.
        """
        if not isinstance(node, Table):
            self.problems.add("E011", node.spot, f"{where}: expected a mapping, got {kind_of(node)}")
            return None
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        strange = False
        if beside is not None:
            strange = self._unknown(node, kind, where, [*fields, *beside])
        else:
            self._misspelt(node, [key for key, field in fields.items() if field.required], where)
        values: dict[str, Any] = {}
        whole = True
        for key, field in fields.items():
            entry = node.entries.get(key)
            if entry is None:
                if field.required:
                    self.problems.add(
                        "E010", node.spot, f'{where or "the file"} needs the key "{key}"', f'add "{key}: …"'
                    )
                    whole = False
            elif key not in keep:
                value = self._value(entry.value, field.type, f"{where}.{key}" if where else key)
                whole = whole and value is not _WRONG
                values[field.name] = value
            elif field.required:
                values[field.name] = plain(entry.value)
        if not whole:
            return None
        try:
            return kind(**values)
        except (ValueError, TypeError) as fault:
            message = str(fault)
            # What is said to be missing may be there, under the name that nobody knows.
            if not strange or _key_of(message) in node.entries:
                self._at_field(node, message, where)
            return None

    def secret(
        self, secret: Secret, spot: Spot, where: str, unless_set: str = "to leave the upstream off while it is unset"
    ) -> tuple[str | None, str | None]:
        """Return the secret's value, and why it is off: an optional one that is unset. A missing one is noted.

        ``unless_set`` says in the hint what an optional one would mean.
        """
        if secret.reference.startswith("file:"):
            self.files.append(Path(secret.reference.removeprefix("file:")).expanduser().absolute())
        try:
            value = assume(secret, self.assumed).read()
        except (LookupError, OSError, UnicodeDecodeError) as fault:
            self.problems.add("E021", spot, f"{where}: {_missing(secret, fault)}", _how_to_give(secret, unless_set))
            return None, None
        return value, f"{secret.reference.removeprefix('env:').rstrip('?')} is not set" if value is None else None

    def path(self, text: str, spot: Spot) -> str:
        """Return a path that was written at ``spot``, relative to the file in which it stands."""
        return str(self._directories[spot.source] / Path(text).expanduser())

    def keys(self, node: Table, kind: type[Struct], where: str) -> None:
        """Note the keys of ``node`` that are no fields of ``kind``."""
        self._unknown(node, kind, where, [field.encode_name for field in msgspec.structs.fields(kind)])

    def _unknown(self, node: Table, kind: type[Struct], where: str, known: list[str]) -> bool:
        """Note the keys that are not ``known``; return whether there are any."""
        strange = False
        later: frozenset[str] = getattr(kind, "later", frozenset())
        for key, entry in node.entries.items():
            if key in known or key.startswith("x-"):
                continue
            strange = True
            place = f" in {where}" if where else ""
            if key in later:
                self.problems.add("E013", entry.spot, f'"{key}"{place} is not available in this version', "remove it")
            else:
                self.problems.add("E012", entry.spot, f'unknown key "{key}"{place}', nearest(key, known))
        return strange

    def _misspelt(self, node: Table, required: list[str], where: str) -> None:
        """Note keys that look like a missing one, where nobody knows which others there may be."""
        for key in required:
            if key not in node.entries and (found := get_close_matches(key, node.entries, n=1)):
                spot = node.entries[found[0]].spot
                self.problems.add("E012", spot, f'unknown key "{found[0]}" in {where}', nearest(found[0], [key]))

    def _value(self, node: Node, kind: Any, where: str) -> Any:
        origin = get_origin(kind)
        if kind is object or kind is Any:
            return plain(node)
        if origin is UnionType or origin is Union:
            options = [option for option in get_args(kind) if option is not NoneType]
            if isinstance(node, Scalar) and node.value is None and len(options) < len(get_args(kind)):
                return None
            if len(options) == 1:
                return self._value(node, options[0], where)
        elif origin is Literal and not (isinstance(node, Scalar) and node.value in get_args(kind)):
            said = f'"{node.text}"' if isinstance(node, Scalar) and isinstance(node.value, str) else kind_of(node)
            known = [str(option) for option in get_args(kind)]
            hint = nearest(node.text if isinstance(node, Scalar) else "", known)
            self.problems.add("E011", node.spot, f"{where}: expected one of {', '.join(known)}, got {said}", hint)
            return _WRONG
        elif origin is Annotated and isinstance(node, Table | Items):
            # walked for all its mistakes, then handed to msgspec for the limits that Meta sets
            return _WRONG if self._value(node, get_args(kind)[0], where) is _WRONG else self._leaf(node, kind, where)
        elif isinstance(kind, type) and issubclass(kind, Struct) and kind.__struct_config__.tag is None:
            made = self.struct(node, kind, where)
            return _WRONG if made is None else made
        elif origin in (dict, Mapping) and isinstance(node, Table):
            return self._mapping(node, get_args(kind)[1], where)
        elif (
            origin in (list, tuple, frozenset, set) and isinstance(node, Items) and _is_uniform(origin, get_args(kind))
        ):
            values = [self._value(item, get_args(kind)[0], f"{where}[{at}]") for at, item in enumerate(node.items)]
            return _WRONG if any(value is _WRONG for value in values) else origin(values)
        return self._leaf(node, kind, where)

    def _mapping(self, node: Table, kind: Any, where: str) -> Any:
        values = {key: self._value(entry.value, kind, f"{where}.{key}") for key, entry in node.entries.items()}
        return _WRONG if any(value is _WRONG for value in values.values()) else values

    def _leaf(self, node: Node, kind: Any, where: str) -> Any:
        try:
            value = msgspec.convert(plain(node), kind, dec_hook=partial(self._unit, node.spot))
        except msgspec.ValidationError as fault:
            self._note(node, fault, where)
            return _WRONG
        if isinstance(value, Secret):
            self.references.append((value, node.spot, where))
        return value

    def _unit(self, spot: Spot, kind: type, value: Any) -> Any:
        if kind is FilePath:
            return FilePath(self.path(FilePath.parse(value), spot))
        if kind is not Secret:
            return decode_unit(kind, value)
        try:
            secret = Secret.parse(value)
        except ValueError as fault:
            raise _InlineSecret(str(fault)) from None
        if secret.reference.startswith("file:"):
            secret = Secret(f"file:{self.path(secret.reference.removeprefix('file:'), spot)}")
        return assume(secret, self.assumed)

    def _note(self, node: Node, fault: msgspec.ValidationError, where: str) -> None:
        message = str(fault)
        found = _AT.search(message)
        unknown = _UNKNOWN.match(message)
        if found is not None:
            message = message[: found.start()]
            node, where = _locate(node, found["path"], where)
        if unknown is not None and isinstance(node, Table) and unknown[1] in node.entries:
            self.problems.add("E012", node.entries[unknown[1]].spot, f'unknown key "{unknown[1]}" in {where}')
            return
        code = "E020" if isinstance(fault.__cause__, _InlineSecret) else "E011"
        self.problems.add(code, node.spot, f"{where}: {_plain_words(message)}")

    def _at_field(self, node: Table, message: str, where: str) -> None:
        """Note what a Struct said of itself, at the key that its message begins with, else at the mapping."""
        entry = node.entries.get(_key_of(message))
        spot = node.spot if entry is None else entry.value.spot
        code = "E050" if message.startswith("listen:") else "E011"
        self.problems.add(code, spot, f"{where}: {message}" if where else message)


def _key_of(message: str) -> str:
    """Return the key that a message about a mapping begins with, if it begins with one."""
    return re.split(r"[^\w-]", message, maxsplit=1)[0]


class _Wrong:
    """What stands for a value that was not in order."""


_WRONG: Final = _Wrong()


def _is_uniform(origin: Callable[..., object], arguments: tuple[Any, ...]) -> bool:
    return bool(arguments) and (origin is not tuple or (len(arguments) == 2 and arguments[1] is Ellipsis))


def _locate(node: Node, path: str, where: str) -> tuple[Node, str]:
    for step in _STEP.finditer(path):
        key, index = step.groups()
        if isinstance(node, Table) and key in node.entries:
            node, where = node.entries[key].value, f"{where}.{key}"
        elif isinstance(node, Items) and index is not None and int(index) < len(node.items):
            node, where = node.items[int(index)], f"{where}[{index}]"
        else:
            break
    return node, where


def _plain_words(message: str) -> str:
    def word(found: re.Match[str]) -> str:
        return " or ".join(_WORDS.get(part, part) for part in found[1].split(" | "))

    return re.sub(r"`([^`]+)`", word, message[:1].lower() + message[1:])


def _missing(secret: Secret, fault: Exception) -> str:
    if isinstance(fault, OSError):
        return f"{secret.reference} cannot be read: {fault.strerror or fault}"
    if isinstance(fault, UnicodeDecodeError):
        return f"{secret.reference} is not UTF-8 text"
    return str(fault)


def _how_to_give(secret: Secret, unless_set: str) -> str:
    if secret.reference.startswith("file:"):
        return "write the secret into that file, or refer to another"
    return f'set it, or write "{secret.reference}?" {unless_set}'
