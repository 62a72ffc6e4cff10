"""Where callers of each format knock: the paths at which calls are served, on every front.

A path may hold ``{model}``, as Gemini's do. The first of a format is the one that its own documentation names; the others
are for clients whose base URL is spelled without the version.
"""

from __future__ import annotations

import re
from typing import Final

DOORS: Final[dict[str, tuple[str, ...]]] = {
    "openai.chat": ("/v1/chat/completions", "/chat/completions"),
    "anthropic.messages": ("/v1/messages", "/messages"),
}

EXACT: Final = {path: format for format, paths in DOORS.items() for path in paths if "{" not in path}
"""Paths without a model in them, and whose they are."""


def _pattern(path: str) -> str:
    return re.escape(path).replace(re.escape("{model}"), "[^:]+")


_TEMPLATES: Final = tuple(
    (format, re.compile(_pattern(path))) for format, paths in DOORS.items() for path in paths if "{" in path
)


def format_at(path: str) -> str | None:
    """Return the format that is served at ``path``, None if there is none."""
    found = EXACT.get(path)
    if found is None:
        for format, pattern in _TEMPLATES:
            if pattern.fullmatch(path):
                return format
    return found


def format_below(path: str) -> str | None:
    """The same, whatever the gateway is mounted under: the longest end of ``path`` that is a door counts."""
    start = 0
    while start >= 0:
        if (found := format_at(path[start:])) is not None:
            return found
        start = path.find("/", start + 1)
    return None


def path_of(format: str, model: str = "") -> str:
    """Return where a caller of ``format`` sends a request for ``model``; "" for a format that has no door."""
    paths = DOORS.get(format)
    return paths[0].replace("{model}", model) if paths else ""
