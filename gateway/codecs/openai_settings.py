"""Settings that Chat Completions and Responses mean the same by: the tier, how hard to think, the schema of an answer.

What differs is where they stand in a body, which is each codec's own business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Raw

from ..ir.loss import Loss
from ..ir.message import ReasoningOptions, Request, ResponseFormat

_EFFORTS: Final = ((4096, "low"), (16384, "medium"))
"""Thinking budgets up to so many tokens, and the effort that stands in for them; what is above is ``high``."""

_KNOW_NONE: Final = re.compile(r"(?:openai/)?gpt-5\.\d+(?:-mini|-nano)?(?:-\d{4}-\d\d-\d\d)?")
"""Models that can be told not to think: those from GPT-5.1 on, but none for code, for chat alone, or ``pro``."""

_TIERS: Final[Mapping[str, str]] = {
    "auto": "auto",
    "standard_only": "default",
    "standard": "default",
    "flex": "flex",
    "priority": "priority",
}
"""Anthropic's and Google's service tiers in OpenAI's words."""


def shares_tiers(format: str) -> bool:
    """Whether the service tiers of ``format`` are OpenAI's own words."""
    return format.startswith("openai.")


def shares_fingerprint(format: str) -> bool:
    """Whether answers of ``format`` tell the ``system_fingerprint`` that Chat Completions and the legacy Completions do."""
    return format in ("openai.chat", "openai.completions")


def tier_of(request: Request, losses: list[Loss]) -> str | None:
    """Return the service tier that ``request`` asks for, in OpenAI's words; None if it asks for none that they have."""
    tier = request.service_tier
    if tier is None or shares_tiers(request.format):
        return tier
    said = _TIERS.get(tier)
    if said is None:
        losses.append(Loss("lost", "service_tier", tier, f"a tier of {request.format}"))
    elif said != tier:
        losses.append(Loss("emulated", "service_tier", tier, f"said as {said}"))
    return said


def effort_of(model: str, wanted: ReasoningOptions, losses: list[Loss]) -> str | None:
    """Return the effort for what a request of another format says of thinking; None if nothing is to be said.

    That there be no thinking is said to models that are known to know the effort ``none``: others refuse the request
    (OpenAI's reasoning guide and pages of models, November 2026).
    """
    effort, budget = wanted.effort, wanted.budget_tokens
    if effort is None and budget is not None and wanted.mode != "disabled":
        effort = next((word for most, word in _EFFORTS if budget <= most), "high")
        why = f"no budgets here: effort {effort} stands in"
        losses.append(Loss("emulated", "reasoning.budget_tokens", f"{budget} tokens", why))
    elif budget is not None:
        losses.append(Loss("lost", "reasoning.budget_tokens", "budget_tokens", "no budgets here, the effort says it"))
    if effort is None and wanted.mode == "disabled" and _KNOW_NONE.fullmatch(model):
        return "none"
    if effort is None and wanted.mode == "disabled":
        losses.append(Loss("lost", "reasoning.mode", "disabled", "most models here refuse to be told not to think"))
    elif effort is None and wanted.mode is not None:
        losses.append(Loss("emulated", "reasoning.mode", wanted.mode, "models here decide by themselves"))
    return effort


def schema_of(wanted: ResponseFormat, own: bool, losses: list[Loss]) -> dict[str, Any]:
    """Return the members that describe the schema of an answer; a name is minted for a request of another format."""
    name = wanted.name
    if name is None and not own:
        name = "response"
        losses.append(Loss("minted", "response_format.name", "name", "a schema demands one"))
    members = {
        "name": name,
        "description": wanted.description,
        "schema": None if wanted.schema is None else Raw(wanted.schema),
        "strict": wanted.strict,
    }
    return {key: member for key, member in members.items() if member is not None}
