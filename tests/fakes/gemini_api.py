"""Gemini's generateContent as its provider speaks it: what it refuses, and the bytes that it answers.

Sans-IO. After the API's published reference and the types of google-genai 3.4 (November 2026).
"""

from __future__ import annotations

from typing import Any

import msgspec

from .script import Say, Script, Think, Use, pieces_of

_encode = msgspec.json.encode
_TOP_LEVEL = frozenset(
    {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings", "cachedContent"}
    | {"labels", "model", "serviceTier"}
)
_DECLARED = frozenset(
    {"name", "description", "parameters", "parametersJsonSchema", "parameters_json_schema", "behavior"}
)
"""Members may be spelled in either case."""
_FINISH = {"end": "STOP", "length": "MAX_TOKENS", "tool": "STOP", "sequence": "STOP", "filter": "SAFETY"}
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
}


class Refusal(Exception):
    """A request that the API answers with an error."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def error_body(message: str, status: int) -> bytes:
    """The error object of the API, indented as it sends it."""
    error = {"code": status, "message": message, "status": _STATUSES.get(status, "UNAVAILABLE")}
    return msgspec.json.format(_encode({"error": error}), indent=2)


def scripted_error(script: Script) -> bytes:
    """The body for an HTTP error that a test asked for."""
    return error_body(script.error_message or "The model is overloaded. Please try again later.", script.status)


def error_frame(script: Script) -> bytes:
    """The frame by which a stream tells of an error."""
    error = {"code": 503, "message": "The service is currently unavailable.", "status": "UNAVAILABLE"}
    return b"data: %b\r\n\r\n" % _encode({"error": error})


def validate(body: Any) -> None:
    """Raise Refusal for what the API would."""
    if not isinstance(body, dict):
        raise Refusal("Invalid JSON payload received.")
    for name in body:
        if name not in _TOP_LEVEL:
            raise Refusal(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')
    if not body.get("contents"):
        raise Refusal("* GenerateContentRequest.contents: contents is not specified")
    for content in body["contents"]:
        if content.get("role") not in ("user", "model"):
            raise Refusal("Please use a valid role: user, model.")
        if not content.get("parts"):
            raise Refusal("* GenerateContentRequest.contents.parts: contents.parts must not be empty.")
    for tool in body.get("tools", ()):
        for declared in tool.get("functionDeclarations", ()):
            if set(declared) - _DECLARED:
                raise Refusal(f"Invalid JSON payload received. Unknown name in a function: {sorted(declared)}")


def _usage(script: Script) -> dict[str, Any]:
    tokens = script.tokens
    prompt = tokens.fresh + tokens.cached + tokens.written
    return {
        "promptTokenCount": prompt,
        "candidatesTokenCount": tokens.output,
        "totalTokenCount": prompt + tokens.output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    }


def _part(part: Any, text: str) -> dict[str, Any]:
    return {"text": text, "thought": True} if isinstance(part, Think) else {"text": text}


def _answer(script: Script, number: int, model: str, parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": _usage(script),
        "modelVersion": model,
        "responseId": f"resp-{number:04d}",
    }


def _call(use: Use) -> dict[str, Any]:
    return {"functionCall": {"name": use.name, "args": msgspec.json.decode(use.arguments)}}


def whole(script: Script, number: int, model: str) -> bytes:
    """The body of a whole answer."""
    parts = [
        _call(part) if isinstance(part, Use) else _part(part, part.text)
        for part in script.parts
        if isinstance(part, (Say, Think, Use))
    ]
    return msgspec.json.format(_encode(_answer(script, number, model, parts, _FINISH[script.ended])), indent=2)


def frames(script: Script, number: int, model: str) -> list[bytes]:
    """The frames of a stream: pieces of text, calls whole, usage in each, the reason in the last."""
    parts: list[dict[str, Any]] = []
    for part in script.parts:
        if isinstance(part, Use):
            parts.append(_call(part))
        elif isinstance(part, (Say, Think)):
            parts += [_part(part, piece) for piece in pieces_of(part.text, part.pieces)]
    ends = [None] * (len(parts) - 1) + [_FINISH[script.ended]]
    return [
        b"data: %b\r\n\r\n" % _encode(_answer(script, number, model, [part], end))
        for part, end in zip(parts or [{"text": ""}], ends, strict=False)
    ]
