"""Token counts: those of both Completions APIs, told of this one."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from ...ir.event import Usage
from ...ir.loss import Loss
from .. import openai_usage
from .members import FORMAT


def read_usage(raw: Raw) -> Usage | None:
    """Return what a usage object says, None when it is none that we can read."""
    return openai_usage.read_usage(raw, FORMAT)


def write_usage(usage: Usage, losses: list[Loss]) -> dict[str, Any]:
    """Return the usage object for ``usage``: its own members if they are of this format."""
    return openai_usage.write_usage(usage, losses, FORMAT)
