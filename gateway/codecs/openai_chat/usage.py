"""Token counts: those of both Completions APIs, told of this one."""

from __future__ import annotations

from typing import Any

from ...ir.event import Usage
from ...ir.loss import Loss
from .. import openai_usage
from .members import FORMAT

read_usage = openai_usage.read_usage


def write_usage(usage: Usage, losses: list[Loss]) -> dict[str, Any]:
    """Return the usage object for ``usage``: its own members if they are of this format."""
    return openai_usage.write_usage(usage, losses, FORMAT)
