"""The short way out of the IR for another format's common request: plain texts, and the settings that everybody has.

It refuses (None) all else; ``request_writer`` is right about everything, and what both can write they write alike.
"""

from __future__ import annotations

from typing import Any

from ...ir.message import Request, plain_text
from ..base import UpstreamFacts
from .members import foreign

_ROLES = frozenset({"system", "user", "assistant"})


def write_plain(request: Request, facts: UpstreamFacts) -> dict[str, Any] | None:
    """Return the body of a request that loses nothing here, if it is a common one of another format."""
    said = Request(
        request.format,
        request.model,
        request.messages,
        max_output_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        stream=request.stream,
        stream_usage=request.stream_usage,
        extra=request.extra,
    )
    # One comparison tells that there is nothing but what is written here.
    if said != request or (request.extra and any(foreign(request.extra, ""))):
        return None
    messages: list[dict[str, str]] = []
    for message in request.messages:
        text = plain_text(message)
        if text is None or message.role not in _ROLES:
            return None
        messages.append({"role": message.role, "content": text})
    value: dict[str, Any] = {"model": request.model, "messages": messages}
    if request.max_output_tokens is not None:
        value[str(facts.options.get("max_tokens_field") or "max_completion_tokens")] = request.max_output_tokens
    if request.temperature is not None:
        value["temperature"] = request.temperature
    if request.top_p is not None:
        value["top_p"] = request.top_p
    if request.stream:
        value["stream"] = True
        asked = True if facts.stream_usage else request.stream_usage
        if asked is not None:
            value["stream_options"] = {"include_usage": asked}
    return value
