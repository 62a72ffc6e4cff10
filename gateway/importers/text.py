"""Data into YAML as a person would write it: on one line where it fits, quoted where it must be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ..rules.scalars import resolve

_PLAIN: Final = re.compile(r"[A-Za-z0-9_./](?:[A-Za-z0-9_./+@=()*-]|:(?=[A-Za-z0-9_])| (?=[A-Za-z0-9_(]))*")
_WIDTH: Final = 112
_ESCAPED: Final = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")


class Written(str):
    """A piece of YAML that stands as it is."""

    __slots__ = ()


def scalar(value: object) -> str:
    """Return a scalar's spelling."""
    if isinstance(value, Written):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value == int(value) else f"{value:.6f}".rstrip("0")
    text = str(value)
    if _PLAIN.fullmatch(text) and resolve(text) == text:
        return text
    return _ESCAPED.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(text, ensure_ascii=False))


def flow(value: object) -> str:
    """Return a value on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{scalar(key)}: {flow(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    return scalar(value)


def wrapped(values: Iterable[object], width: int) -> str:
    """Return a list in brackets, over several lines where it is longer than ``width``."""
    lines = [""]
    for spelled in map(flow, values):
        if lines[-1] and len(lines[-1]) + len(spelled) + 2 > width:
            lines.append("")
        lines[-1] += f"{spelled}, "
    return f"[{f'{chr(10)}      '.join(line.rstrip() for line in lines).rstrip(',')}]"


def block(value: object, indent: int = 0) -> Iterator[str]:
    """Yield the lines of a mapping or list, its own parts on one line each where they fit."""
    space = " " * indent
    if isinstance(value, Mapping):
        for key, inner in value.items():
            line = f"{space}{scalar(key)}: {flow(inner)}"
            if len(line) <= _WIDTH or not isinstance(inner, Mapping | list | tuple) or not inner:
                yield line
            else:
                yield f"{space}{scalar(key)}:"
                yield from block(inner, indent + 2)
    elif isinstance(value, list | tuple):
        for inner in value:
            line = f"{space}- {flow(inner)}"
            if len(line) <= _WIDTH or not isinstance(inner, Mapping | list | tuple) or not inner:
                yield line
            else:
                first, *rest = block(inner, indent + 2)
                yield f"{space}- {first.lstrip()}"
                yield from rest
    else:
        yield f"{space}{scalar(value)}"
