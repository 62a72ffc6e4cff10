"""Configurations of other gateways into rule files: what they say as routes.yaml, and a report of what it cannot say.

- ``source``: a foreign file with positions, where every key is accounted for; ``report``: what was not carried
- ``vendors``: providers by the names that other gateways give them
- ``draft``: a rule file in the making; ``emit``: its text
- ``litellm``, ``portkey``, ``claude_code_router``: one reader for each gateway
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from . import claude_code_router, litellm, portkey
from .draft import Draft
from .emit import emit
from .report import Entry, Report
from .source import Unreadable, read

__all__ = ["convert", "Imported", "Entry", "Unreadable", "GATEWAYS"]

Convert: TypeAlias = Callable[[Draft, Mapping[str, str]], None]

GATEWAYS: Final[Mapping[str, tuple[str, Convert]]] = {
    "litellm": ("LiteLLM", litellm.convert),
    "portkey": ("Portkey", portkey.convert),
    "claude-code-router": ("claude-code-router", claude_code_router.convert),
}
"""By the word of the command line: what people call it, and its reader."""


class Imported:
    """A rule file's text and what was not carried into it."""

    def __init__(self, text: str, entries: tuple[Entry, ...]) -> None:
        self.text = text
        self.entries = entries


def convert(gateway: str, text: str, source: str, environment: Mapping[str, str]) -> Imported:
    """Return the rule file for a configuration of ``gateway``. Raises Unreadable for what is no configuration at all.

    ``environment`` is looked into for addresses alone, where the configuration names a variable: never for a key.
    """
    title, reader = GATEWAYS[gateway]
    report = Report()
    root = read(text, source, report)
    draft = Draft(title, root, report)
    reader(draft, environment)
    root.leave_rest(f"no setting of {title} that this import knows")
    entries = report.sorted()
    return Imported(emit(draft, entries), entries)
