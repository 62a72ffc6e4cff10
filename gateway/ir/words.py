"""A request of words alone: some lines of text, said by two or three roles, and the settings that everybody has.

Most requests that are translated are no more than this, and all formats say it in nearly the same way. So it is read from
one format and written in another without becoming a Request on the way; where both ways are open they come to the same.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from .message import Request, plain_text


class Line(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What one role says. It is spelled so in every format that has messages."""

    role: Literal["system", "user", "assistant"]
    content: str


class Words(Struct, frozen=True):
    """See Request for the members; ``lines`` begin with the system's, wherever the format has them."""

    model: str
    lines: list[Line]
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool = False
    stream_usage: bool | None = None


_ROLES = frozenset({"system", "user", "assistant"})


def words_of(request: Request) -> Words | None:
    """Return ``request`` if it is no more than words. What stands in its ``extra`` is for the caller to judge."""
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
    if said != request:  # one comparison tells that there is nothing else
        return None
    lines: list[Line] = []
    for message in request.messages:
        text = plain_text(message)
        if text is None or message.role not in _ROLES:
            return None
        lines.append(Line(message.role, text))  # type: ignore[arg-type]  # one of the three, as was asked
    return Words(
        request.model,
        lines,
        request.max_output_tokens,
        request.temperature,
        request.top_p,
        request.stream,
        request.stream_usage,
    )
