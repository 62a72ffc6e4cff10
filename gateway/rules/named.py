"""Classes that a rule file names: found through the registry, and told apart from what is no adapter or middleware at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

from msgspec import Struct

from ..registry import UnknownName
from .problems import Problems, Spot, nearest

T = TypeVar("T")

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of upstreams, targets and chains."""

PYTHON_NAME: Final = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_]\w*(?:\.\w+)*")

BUILD_FAULTS: Final = (ValueError, TypeError, LookupError, OSError, ImportError)
"""What a constructor may raise over its options: an impossible value, a missing secret or file, a missing extra."""

_IMPORT_FAULTS: Final = (UnknownName, SyntaxError, *BUILD_FAULTS)


def find_class(
    lookup: Callable[[str], type[T]], name: str, code: str, spot: Spot, where: str, problems: Problems
) -> type[T] | None:
    """Return the class that ``lookup`` knows as ``name``; None, and a note with ``code``, if it knows none."""
    if ":" in name and not PYTHON_NAME.fullmatch(name):
        problems.add(code, spot, f'{where}: "{name}" is no name of a class', 'such as "package.module:Class"')
        return None
    try:
        kind = lookup(name)
    except _IMPORT_FAULTS as fault:
        known = fault.known if isinstance(fault, UnknownName) else ()
        problems.add(code, spot, f"{where}: {_why(name, fault)}", nearest(name, known))
        return None
    found: object = kind  # a name may well lead to something that is no class
    options = getattr(found, "Options", None)
    if not (isinstance(found, type) and isinstance(options, type) and issubclass(options, Struct)):
        problems.add("E032", spot, f"{where}: {name} is not a class with an Options Struct")
        return None
    return kind


def describe(fault: Exception) -> str:
    """Return what an exception says, or its name when it says nothing."""
    return str(fault) or type(fault).__name__


def _why(name: str, fault: Exception) -> str:
    return str(fault) if isinstance(fault, UnknownName) else f"{name} cannot be imported: {describe(fault)}"
