"""The short way out of the IR for another format's common request: plain texts, and the settings that everybody has.

It refuses (None) all else; ``compose`` is right about everything, and what both can write they write alike.
"""

from __future__ import annotations

from ...ir.message import Request, plain_text
from ..ledger import says_something


def write_plain(request: Request) -> dict[str, object] | None:
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
    if said != request or request.max_output_tokens is None:
        return None
    for name, raw in request.extra.items():
        if says_something(name, raw):
            return None
    body: dict[str, object] = {"model": request.model}
    turns: list[dict[str, object]] = []
    last = ""
    for message in request.messages:
        text, role = plain_text(message), message.role
        if not text or text.isspace():
            return None
        if role == "system" and not last:
            body["system"] = text
        elif (role == "user" or role == "assistant") and role != last:
            turns.append({"role": role, "content": ({"type": "text", "text": text},)})
        else:
            return None
        last = role
    if not turns:
        return None
    body["messages"] = turns
    body["max_tokens"] = request.max_output_tokens
    if request.stream:
        body["stream"] = True
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    return body
