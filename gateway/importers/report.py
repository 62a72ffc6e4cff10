"""What an import did not carry, or not as it was: where it stood, what it was, why, and what to do. No secret is shown."""

from __future__ import annotations

import re
from typing import Final, Literal

from msgspec import Struct

from ..rules.problems import looks_like_key

Outcome = Literal["left out", "changed", "secret"]
"""``left out``: nothing of it is in the rule file; ``changed``: it is, but means something else; ``secret``: a reference
stands in its place, and the secret is to be put where that points."""

_SENSITIVE: Final = re.compile(r"key|token|secret|passw|credential|auth|cookie|license|dsn|bearer|signature|salt", re.I)
_URL_WITH_USER: Final = re.compile(r"://[^/\s]*@")
_LONGEST: Final = 60


class Entry(Struct, frozen=True):
    """One finding. ``path`` is where it stands in the source, ``line`` counts from 1."""

    outcome: Outcome
    path: str
    line: int
    was: str
    why: str
    instead: str = ""

    def __str__(self) -> str:
        was = f" ({self.was})" if self.was else ""
        instead = f"; {self.instead}" if self.instead else ""
        return f"line {self.line}: {self.path}{was}: {self.outcome}: {self.why}{instead}"


class Report:
    """The findings of one import."""

    def __init__(self) -> None:
        self._found: dict[Entry, None] = {}

    def add(self, entry: Entry) -> None:
        """Note a finding; the same one twice counts once."""
        self._found.setdefault(entry)

    def sorted(self) -> tuple[Entry, ...]:
        """Return the findings in the order of the source."""
        return tuple(sorted(self._found, key=lambda entry: (entry.line, entry.path, entry.outcome)))


def is_sensitive(path: str, value: object) -> bool:
    """Whether the value at ``path`` may be a secret: by the names on the way to it, or by what it looks like."""
    text = str(value)
    return bool(_SENSITIVE.search(path)) or looks_like_key(text) or bool(_URL_WITH_USER.search(text))


def shown(path: str, value: object) -> str:
    """Return a value as a report shows it; of collections and of what may be a secret only what kind of thing it is."""
    if isinstance(value, dict):
        return f"a mapping of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool | int | float):
        return "nothing" if value is None else str(value).lower()
    if is_sensitive(path, value):
        return "not shown"
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def masked(text: str) -> str:
    """Return a name of the source as it may be shown."""
    visible = "".join(each if each.isprintable() else "?" for each in text)
    return "[not shown]" if looks_like_key(visible) else visible
