"""What an unquoted YAML text means: null, true, false, a number, a text; and which ones readers of YAML disagree about."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Ambiguous(NamedTuple):
    """Why a text must not stand unquoted, and what to write instead."""

    why: str
    hint: str


_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,29})")
_FLOAT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)?\.[0-9]+")

_SURPRISES: Final = (
    (
        re.compile(r"(?i:yes|no|on|off)"),
        Ambiguous(
            "some YAML readers take it for true or false",
            'write true or false; the word itself, a key too, goes in quotes: "on"',
        ),
    ),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"),
        Ambiguous("some YAML readers take it for a number of base 60", 'quote it, or write a duration such as "90s"'),
    ),
    (
        re.compile(r"[-+]?0(?:[0-9_]+|o[0-7_]+|x[0-9a-fA-F_]+|b[01_]+)"),
        Ambiguous("YAML readers disagree about its base", "write the number in decimal, or quote it"),
    ),
    (
        re.compile(r"[-+]?[0-9]+_[0-9_]*"),
        Ambiguous("some YAML readers take it for a number", "leave out the underscores, or quote it"),
    ),
    (
        re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+|[-+]?[0-9]+\."),
        Ambiguous("YAML readers disagree whether it is a number", "write the number out, or quote it"),
    ),
    (
        re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9].*)?"),
        Ambiguous("some YAML readers take it for a date", "quote it"),
    ),
    (re.compile(r"[-+]?[0-9]{30,}"), Ambiguous("no reader keeps all its digits", "quote it")),
    (
        re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
        Ambiguous("no setting is infinite or not a number", "quote it"),
    ),
)


def resolve(text: str) -> str | int | float | bool | Ambiguous | None:
    """Return the value of an unquoted text, where YAML 1.1 and 1.2 agree on it."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    for pattern, ambiguity in _SURPRISES:
        if pattern.fullmatch(text):
            return ambiguity
    return text
