"""YAML written from plain data by rules of its own, which knows at which line and column each key and value stands."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

Path = tuple[str | int, ...]
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")


class Place(NamedTuple):
    line: int
    column: int


class Written(NamedTuple):
    """``keys``: where each key stands, by path; ``values``: where each value begins."""

    text: str
    keys: dict[Path, Place]
    values: dict[Path, Place]


def emit(data: Any, *, flow_below: int = 99) -> Written:
    """Return ``data`` as YAML: block style, and flow style below so many levels."""
    writer = _Writer(flow_below)
    writer.block(data, (), 0)
    return Written("".join(writer.out), writer.keys, writer.values)


class _Writer:
    def __init__(self, flow_below: int) -> None:
        self.out: list[str] = []
        self.keys: dict[Path, Place] = {}
        self.values: dict[Path, Place] = {}
        self._flow_below = flow_below
        self._line = 1
        self._column = 1

    def block(self, value: Any, path: Path, indent: int) -> None:
        if not isinstance(value, dict | list) or not value or len(path) >= self._flow_below:
            self.flow(value, path)
            self._write("\n")
            return
        self.values[path] = Place(self._line, self._column)
        for at, (key, each) in enumerate(value.items() if isinstance(value, dict) else enumerate(value)):
            if at:
                self._write(" " * indent)
            self.keys[*path, key] = Place(self._line, self._column)
            self._write(f"{_scalar(key)}:" if isinstance(value, dict) else "-")
            nested = isinstance(each, dict | list) and each and len(path) + 1 < self._flow_below
            if nested and isinstance(value, dict):
                self._write("\n" + " " * (indent + 2))
            else:
                self._write(" ")
            self.block(each, (*path, key), indent + 2)

    def flow(self, value: Any, path: Path) -> None:
        self.values[path] = Place(self._line, self._column)
        if isinstance(value, dict):
            self._write("{")
            for at, (key, each) in enumerate(value.items()):
                self._write(", " if at else "")
                self.keys[*path, key] = Place(self._line, self._column)
                self._write(f"{_scalar(key)}: ")
                self.flow(each, (*path, key))
            self._write("}")
        elif isinstance(value, list):
            self._write("[")
            for at, each in enumerate(value):
                self._write(", " if at else "")
                self.flow(each, (*path, at))
            self._write("]")
        else:
            self._write(_scalar(value))

    def _write(self, text: str) -> None:
        self.out.append(text)
        _, newline, tail = text.rpartition("\n")
        self._line += text.count("\n")
        self._column = len(tail) + 1 if newline else self._column + len(text)


def _scalar(value: Any) -> str:
    if (
        isinstance(value, str)
        and value
        and set(value) <= _PLAIN
        and value not in ("on", "off", "yes", "no", "true", "null")
    ):
        return value
    return json.dumps(value)
