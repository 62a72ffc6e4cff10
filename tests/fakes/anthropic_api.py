"""What Anthropic's Messages API answers: whole, streamed, and its errors. Sans-IO; order and shapes as published."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from .anthropic_checks import Issued
from .script import Redacted, Say, Script, Think, Use, pieces_of

_encode = msgspec.json.encode


def error_body(message: str, kind: str, request_id: str) -> bytes:
    """The error object of the API."""
    return _encode({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})


def scripted_error(script: Script, request_id: str) -> bytes:
    """The body for an HTTP error that a test asked for."""
    kinds = {
        401: ("authentication_error", "invalid x-api-key"),
        403: ("permission_error", "Your API key does not have permission to use the resource."),
        404: ("not_found_error", "model: unheard-of"),
        408: ("timeout_error", "Request timed out."),
        413: ("request_too_large", "Request exceeds the maximum size."),
        429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
        500: ("api_error", "Internal server error"),
        529: ("overloaded_error", "Overloaded"),
    }
    kind, message = kinds.get(script.status, ("api_error", "Something went wrong."))
    return error_body(script.error_message or message, script.error_kind or kind, request_id)


_STOP: Final = {
    "end": "end_turn",
    "length": "max_tokens",
    "tool": "tool_use",
    "sequence": "stop_sequence",
    "filter": "refusal",
}


def _usage(script: Script, output: int) -> dict[str, Any]:
    tokens = script.tokens
    return {
        "input_tokens": tokens.fresh,
        "cache_creation_input_tokens": tokens.written,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": tokens.written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }


def tool_id(number: int, index: int) -> str:
    """The id of the call ``index`` of answer ``number``."""
    return f"toolu_01{number:06d}{index:016d}"


def _blocks(script: Script, number: int, issued: Issued) -> list[dict[str, Any]]:
    """The complete blocks of the answer; what is signed is remembered."""
    blocks: list[dict[str, Any]] = []
    calls = 0
    for part in script.parts:
        if isinstance(part, Say):
            blocks.append({"type": "text", "text": part.text})
        elif isinstance(part, Think):
            signature = part.signature or issued.sign(part.text, number)
            issued.signatures[signature] = part.text
            blocks.append({"type": "thinking", "thinking": part.text, "signature": signature})
        elif isinstance(part, Redacted):
            issued.redacted.add(part.data)
            blocks.append({"type": "redacted_thinking", "data": part.data})
        else:
            identity = part.id or tool_id(number, calls)
            blocks.append(
                {"type": "tool_use", "id": identity, "name": part.name, "input": Raw(part.arguments.encode())}
            )
            calls += 1
    return blocks


def _message(number: int, model: str) -> dict[str, Any]:
    return {"model": model, "id": f"msg_01{number:022d}", "type": "message", "role": "assistant"}


def whole(script: Script, number: int, model: str, issued: Issued) -> bytes:
    """The body of a whole answer."""
    return _encode(
        {
            **_message(number, model),
            "content": _blocks(script, number, issued),
            "stop_reason": _STOP[script.ended],
            "stop_sequence": "END" if script.ended == "sequence" else None,
            "stop_details": None,
            "usage": _usage(script, script.tokens.output),
        }
    )


def _frame(name: str, padding: int = 0, **members: Any) -> bytes:
    # The API pads its JSON with blanks, by a varying amount.
    return b"event: %b\ndata: %b%b\n\n" % (name.encode(), _encode({"type": name, **members}), b" " * padding)


def frames(script: Script, number: int, model: str, issued: Issued) -> list[bytes]:
    """The SSE frames of a streamed answer, in the API's order."""
    start = {**_message(number, model), "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    out = [_frame("message_start", 3, message={**start, "usage": _usage(script, 1)})]
    blocks = _blocks(script, number, issued)
    for index, (block, part) in enumerate(zip(blocks, script.parts, strict=True)):
        opening, deltas = _block_frames(block, part)
        out.append(_frame("content_block_start", index % 4, index=index, content_block=opening))
        if index == 0:
            out.append(_frame("ping"))
        out += [
            _frame("content_block_delta", (index + turn) % 5, index=index, delta=delta)
            for turn, delta in enumerate(deltas)
        ]
        out.append(_frame("content_block_stop", 2, index=index))
    delta = {"stop_reason": _STOP[script.ended], "stop_sequence": None, "stop_details": None}
    if script.ended == "sequence":
        delta["stop_sequence"] = "END"
    usage = _usage(script, script.tokens.output)
    usage = {name: usage[name] for name in usage if name.endswith("_tokens")}
    out.append(_frame("message_delta", 1, delta=delta, usage=usage))
    out.append(_frame("message_stop", 4))
    return out


def _block_frames(block: dict[str, Any], part: object) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How a block begins in a stream, and the deltas that complete it."""
    if isinstance(part, Say):
        return {"type": "text", "text": ""}, [
            {"type": "text_delta", "text": t} for t in pieces_of(part.text, part.pieces)
        ]
    if isinstance(part, Think):
        deltas = [{"type": "thinking_delta", "thinking": text} for text in pieces_of(part.text, part.pieces)]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {"type": "thinking", "thinking": "", "signature": ""}, deltas
    if isinstance(part, Use):
        fragments = ["", *pieces_of(part.arguments, part.pieces)]
        opening = {"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}}
        return opening, [{"type": "input_json_delta", "partial_json": text} for text in fragments]
    return block, []


def error_frame(script: Script, request_id: str) -> bytes:
    """The frame by which a stream tells of an error."""
    kind = script.error_kind or "overloaded_error"
    return _frame("error", error={"details": None, "type": kind, "message": "Overloaded"}, request_id=request_id)
