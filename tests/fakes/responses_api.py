"""OpenAI's Responses as its provider speaks it: what it refuses, and the bytes that it answers.

Sans-IO. After the API's published reference and its SDK types (November 2026). Errors are those of ``openai_api``.
"""

from __future__ import annotations

from typing import Any

import msgspec
from openai.types.responses import response_create_params

from .openai_api import Refusal
from .script import Say, Script, Use, pieces_of

_encode = msgspec.json.encode
_TOP_LEVEL = frozenset(response_create_params.ResponseCreateParamsBase.__annotations__) | {"stream"}


def validate(body: Any) -> None:
    """Raise Refusal for what the API would."""
    if not isinstance(body, dict):
        raise Refusal("We could not parse the JSON body of your request.")
    for name in body:
        if name not in _TOP_LEVEL:
            raise Refusal(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name in ("model", "input"):
        if not body.get(name):
            raise Refusal(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    for index, tool in enumerate(body.get("tools") or ()):
        if tool.get("type") == "function" and not isinstance(tool.get("name"), str):
            raise Refusal(f"Missing required parameter: 'tools[{index}].name'.", f"tools[{index}].name")


def _usage(script: Script) -> dict[str, Any]:
    tokens = script.tokens
    read = tokens.fresh + tokens.cached + tokens.written
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": read + tokens.output,
    }


def _response(script: Script, number: int, model: str, output: list[Any], status: str) -> dict[str, Any]:
    return {
        "id": f"resp_{number:024d}",
        "object": "response",
        "created_at": 1763600000 + number,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "max_output_tokens": None,
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None if status == "in_progress" else _usage(script),
        "user": None,
        "metadata": {},
    }


def _item(number: int, index: int, part: Say | Use, *, done: bool) -> dict[str, Any]:
    status = "completed" if done else "in_progress"
    if isinstance(part, Use):
        return {
            "id": f"fc_{number:04d}{index:04d}",
            "type": "function_call",
            "status": status,
            "arguments": part.arguments if done else "",
            "call_id": part.id or f"call_{number:04d}{index:020d}",
            "name": part.name,
        }
    content = [_text(part.text)] if done else []
    return {
        "id": f"msg_{number:04d}{index:04d}",
        "type": "message",
        "status": status,
        "content": content,
        "role": "assistant",
    }


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _parts(script: Script) -> list[Say | Use]:
    return [part for part in script.parts if isinstance(part, (Say, Use))]


def _status(script: Script) -> str:
    return "incomplete" if script.ended == "length" else "completed"


def whole(script: Script, number: int, model: str) -> bytes:
    """The body of a whole answer."""
    output = [_item(number, index, part, done=True) for index, part in enumerate(_parts(script))]
    return msgspec.json.format(_encode(_response(script, number, model, output, _status(script))), indent=2)


def frames(script: Script, number: int, model: str) -> list[bytes]:
    """The SSE frames of a streamed answer."""
    told: list[dict[str, Any]] = []

    def say(type: str, **more: Any) -> None:
        told.append({"type": type, "sequence_number": len(told), **more})

    began = _response(script, number, model, [], "in_progress")
    say("response.created", response=began)
    say("response.in_progress", response=began)
    output = []
    for index, part in enumerate(_parts(script)):
        item = _item(number, index, part, done=True)
        output.append(item)
        where = {"item_id": item["id"], "output_index": index}
        say("response.output_item.added", output_index=index, item=_item(number, index, part, done=False))
        if isinstance(part, Use):
            for piece in pieces_of(part.arguments, part.pieces):
                say("response.function_call_arguments.delta", **where, delta=piece)
            say("response.function_call_arguments.done", **where, name=part.name, arguments=part.arguments)
        else:
            say("response.content_part.added", **where, content_index=0, part=_text(""))
            for piece in pieces_of(part.text, part.pieces):
                say("response.output_text.delta", **where, content_index=0, delta=piece, logprobs=[])
            say("response.output_text.done", **where, content_index=0, text=part.text, logprobs=[])
            say("response.content_part.done", **where, content_index=0, part=_text(part.text))
        say("response.output_item.done", output_index=index, item=item)
    status = _status(script)
    say(f"response.{status}", response=_response(script, number, model, output, status))
    return [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), _encode(each)) for each in told]


def error_frame(script: Script) -> bytes:
    """The frame by which a stream tells of an error."""
    told = {"type": "error", "code": "server_error", "message": "The server had an error.", "param": None}
    return b"event: error\ndata: %b\n\n" % _encode({**told, "sequence_number": 99})
