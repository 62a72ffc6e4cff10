"""Ollama's chat and generate as its server speaks them: what it refuses, and the bytes that it answers.

Sans-IO. After docs/api.md and docs/openapi.yaml of Ollama, and the types of ollama-python 0.6.3 (November 2026).
"""

from __future__ import annotations

from typing import Any

import msgspec
from ollama._types import ChatRequest, GenerateRequest

from .script import Say, Script, Think, Use, pieces_of

_encode = msgspec.json.encode
_FINISH = {"end": "stop", "length": "length", "tool": "stop", "sequence": "stop", "filter": "stop"}
_MEMBERS = {
    "ollama": frozenset(ChatRequest.model_fields) | {"truncate", "shift"},
    "generate": frozenset(GenerateRequest.model_fields) | {"truncate", "shift"},
}


class Refusal(Exception):
    """A request that the server answers with an error."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def error_body(message: str) -> bytes:
    """An error is words alone."""
    return _encode({"error": message})


def scripted_error(script: Script) -> bytes:
    """The body for an HTTP error that a test asked for."""
    return error_body(script.error_message or "server busy, please try again.  maximum pending requests exceeded")


def error_frame(script: Script) -> bytes:
    """The line by which a stream tells of an error."""
    return error_body("an error was encountered while running the model: unexpected EOF") + b"\n"


def validate(body: Any, api: str) -> None:
    """Raise Refusal for what the server would, and for members that it would silently ignore."""
    if not isinstance(body, dict) or not body.get("model"):
        raise Refusal("model is required")
    if unknown := body.keys() - _MEMBERS[api]:
        raise Refusal(f"unknown members: {sorted(unknown)}")
    for message in body.get("messages") or ():
        if message.get("role") not in ("system", "user", "assistant", "tool") or not isinstance(
            message.get("content", ""), str
        ):
            raise Refusal(f"json: cannot unmarshal message {message}")
        for call in message.get("tool_calls") or ():
            if not isinstance(call["function"]["arguments"], dict):
                raise Refusal(
                    "json: cannot unmarshal string into Go struct field of type api.ToolCallFunctionArguments"
                )
    if api == "generate" and not isinstance(body.get("prompt", ""), str):
        raise Refusal("json: cannot unmarshal prompt")


def _line(api: str, model: str, said: dict[str, Any], **more: Any) -> dict[str, Any]:
    envelope = {"model": model, "created_at": "2026-11-20T12:00:00.000000000Z"}
    if api == "ollama":
        return {**envelope, "message": {"role": "assistant", "content": "", **said}, "done": False, **more}
    renamed = {"content": "response"}
    return {**envelope, "response": "", **{renamed.get(k, k): v for k, v in said.items()}, "done": False, **more}


def _end(script: Script) -> dict[str, Any]:
    tokens = script.tokens
    return {
        "done": True,
        "done_reason": _FINISH[script.ended],
        "total_duration": 4883583458,
        "load_duration": 1334875,
        "prompt_eval_count": tokens.fresh + tokens.cached + tokens.written,
        "prompt_eval_duration": 342546000,
        "eval_count": tokens.output,
        "eval_duration": 4535599000,
    }


def _call(number: int, use: Use) -> dict[str, Any]:
    arguments = msgspec.json.decode(use.arguments)
    return {"id": f"call_{number}", "function": {"index": number, "name": use.name, "arguments": arguments}}


def whole(script: Script, api: str, model: str) -> bytes:
    """The body of a whole answer."""
    said: dict[str, Any] = {"content": "".join(part.text for part in script.parts if isinstance(part, Say))}
    if thoughts := "".join(part.text for part in script.parts if isinstance(part, Think)):
        said["thinking"] = thoughts
    if calls := [_call(i, part) for i, part in enumerate(part for part in script.parts if isinstance(part, Use))]:
        said["tool_calls"] = calls
    return _encode({**_line(api, model, said), **_end(script)})


def frames(script: Script, api: str, model: str) -> list[bytes]:
    """The lines of a stream; the last one, which is done, tells reason and usage."""
    out: list[dict[str, Any]] = []
    calls = 0
    for part in script.parts:
        if isinstance(part, Use):
            out.append(_line(api, model, {"tool_calls": [_call(calls, part)]}))
            calls += 1
        elif isinstance(part, (Say, Think)):
            name = "thinking" if isinstance(part, Think) else "content"
            out += [_line(api, model, {name: piece}) for piece in pieces_of(part.text, part.pieces)]
    out.append(_line(api, model, {}, **_end(script)))
    return [_encode(line) + b"\n" for line in out]
