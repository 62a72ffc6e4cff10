"""How another format's wish for reasoning is said here: ``thinking`` with a budget, or ``output_config.effort``.

Thinking takes its tokens out of ``max_tokens``, goes neither with a tool that must be called nor with sampling, and cannot
begin while calls are being answered. Source:
the API's guide "Extended thinking", November 2026.
"""

from __future__ import annotations

from typing import Any, Final

from ...ir.message import Request
from ..base import UpstreamFacts
from .render import Renderer

_EFFORTS: Final = frozenset({"low", "medium", "high", "xhigh", "max"})
_MIN_BUDGET: Final = 1024
"""Source: ``thinking.budget_tokens`` "of at least 1,024"."""
_FORCED: Final = frozenset({"any", "tool"})
_RESULT: Final = "tool_result"
_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})
_LEAST_TOP_P: Final = 0.95


def foreign_reasoning(
    request: Request, facts: UpstreamFacts, renderer: Renderer, body: dict[str, object], config: dict[str, object]
) -> None:
    """Write the reasoning of ``request`` into ``body``, where its other settings stand already, and ``config``."""
    options = request.reasoning
    assert options is not None
    effort, mode = options.effort, options.mode
    if effort == "none" or mode == "disabled":
        body["thinking"] = {"type": "disabled"}
        if effort not in (None, "none"):
            renderer.lose("lost", "reasoning.effort", effort or "", "thinking is switched off")
        effort = None
    elif effort == "minimal":
        renderer.lose("emulated", "reasoning.effort", "minimal", "the least effort here is low")
        effort = "low"
    if effort is not None and (effort not in _EFFORTS or facts.options.get("effort") is False):
        renderer.lose("lost", "reasoning.effort", effort, "this model knows no such effort")
    elif effort is not None:
        config["effort"] = effort
    if "thinking" not in body:
        _think(request, facts.options.get("thinking") == "adaptive", renderer, body)
    if options.summary is not None:
        if body.get("thinking") == {"type": "adaptive"}:
            body["thinking"] = {"type": "adaptive", "display": "summarized"}
        else:
            renderer.lose("lost", "reasoning.summary", "summary", "thinking is shown as the model's default says")
    renderer.add_extra(options.extra, "reasoning", {})


def _think(request: Request, adaptive: bool, renderer: Renderer, body: dict[str, object]) -> None:
    """Switch thinking on, if ``request`` wants it and the rest of the body lets it be."""
    options = request.reasoning
    assert options is not None
    adaptive = adaptive or (options.mode == "adaptive" and options.budget_tokens is None)
    if not adaptive and options.budget_tokens is None:
        if options.mode is not None:
            renderer.lose("lost", "reasoning.mode", options.mode, "needs a budget here, and none was given")
        return
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice["type"] in _FORCED:
        what = "budget_tokens" if options.budget_tokens is not None else "mode"
        renderer.lose("lost", f"reasoning.{what}", what, "no thinking where a tool must be called")
        return
    if adaptive:
        body["thinking"] = {"type": "adaptive"}
        if options.budget_tokens is not None:
            renderer.lose("lost", "reasoning.budget_tokens", "budget_tokens", "adaptive thinking has no budget")
    elif options.budget_tokens is not None:
        if _began_unthought(body["messages"]):
            why = "the calls that are being answered came without thinking of this provider's"
            renderer.lose("lost", "reasoning.budget_tokens", "budget_tokens", why)
            return
        budget = _budget(request, options.budget_tokens, renderer, body)
        if budget is None:
            return
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    _leave_sampling(renderer, body)


def _began_unthought(messages: Any) -> bool:
    """Whether the last turn answers calls of a message that does not begin with thinking, as one must that goes on so."""
    if len(messages) < 2 or messages[-2]["role"] != "assistant" or not _has(messages[-1], _RESULT):
        return False
    first = messages[-2]["content"][:1]
    return not first or not isinstance(first[0], dict) or first[0].get("type") not in _THOUGHTS


def _has(message: dict[str, Any], kind: str) -> bool:
    """Whether one of the blocks is of ``kind``."""
    content = message["content"]
    return isinstance(content, list) and any(isinstance(each, dict) and each.get("type") == kind for each in content)


def _budget(request: Request, asked: int, renderer: Renderer, body: dict[str, object]) -> int | None:
    """Return how many tokens thinking may take: fewer than the whole answer. None if that has no room for it."""
    budget = max(asked, _MIN_BUDGET)
    most = body["max_tokens"]
    assert isinstance(most, int)
    if request.max_output_tokens is None:
        # Nobody said how long the answer may be: what the profile grants is for the words.
        body["max_tokens"] = most + budget
        renderer.lose("minted", "max_tokens", "max_tokens", f"{budget} more, for thinking")
    elif budget >= most:
        budget = most - 1
        if budget < _MIN_BUDGET:
            renderer.lose("lost", "reasoning.budget_tokens", "budget_tokens", "max_tokens leaves no room for thinking")
            return None
    if budget != asked:
        why = f"the least is {_MIN_BUDGET}" if budget > asked else "less than max_tokens"
        renderer.lose("emulated", "reasoning.budget_tokens", "budget_tokens", why)
    return budget


def _leave_sampling(renderer: Renderer, body: dict[str, object]) -> None:
    """Take out the sampling that goes with no thinking."""
    for name in ("temperature", "top_k", "top_p"):
        value = body.get(name)
        if value is None or (name == "temperature" and value == 1):
            continue
        if name != "top_p" or not isinstance(value, int | float) or value < _LEAST_TOP_P:
            renderer.lose("lost", name, name, "not beside thinking")
            del body[name]
