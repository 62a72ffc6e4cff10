"""The members that Chat Completions has no word for: written where they are its own, lost where they are another's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Raw

from ...ir.loss import Loss
from ...ir.message import Extra
from ...wire.members import put_extra
from ..ledger import says_something

FORMAT: Final = "openai.chat"


def write_extra(value: dict[str, Any], extra: Extra, own: bool, path: str, losses: list[Loss]) -> None:
    """Write the members of ``extra`` into the object ``value``, dotted names into its nested objects.

    They are this format's only if ``own``; another's are losses, those that say nothing apart. A member that is null here
    never hides one that is set: the readers use such a null as a mark for how something was spelled.
    """
    if not extra:
        return
    if not own:
        losses += foreign(extra, path)
        return
    put_extra(value, extra)


def foreign(extra: Extra | Mapping[str, object], path: str) -> Iterator[Loss]:
    """The losses of ``extra`` that belongs to another format."""
    for name, raw in extra.items():
        if isinstance(raw, Raw) and not says_something(name, raw):
            continue
        yield Loss("lost", f"{path}.{name}" if path else name, name, "unknown to Chat Completions")
