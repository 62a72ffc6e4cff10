"""OpenAI's legacy Completions as its provider speaks it: what it refuses, and the bytes that it answers.

Sans-IO. After the API's published reference and its SDK types (November 2026). Errors are those of ``openai_api``.
"""

from __future__ import annotations

from typing import Any

import msgspec
from openai.types import completion_create_params

from .openai_api import Refusal
from .script import Say, Script, pieces_of

_encode = msgspec.json.encode
_TOP_LEVEL = frozenset(completion_create_params.CompletionCreateParamsBase.__annotations__) | {"stream"}
_FINISH = {"end": "stop", "length": "length", "tool": "stop", "sequence": "stop", "filter": "content_filter"}


def validate(body: Any) -> None:
    """Raise Refusal for what the API would."""
    if not isinstance(body, dict):
        raise Refusal("We could not parse the JSON body of your request.")
    for name in body:
        if name not in _TOP_LEVEL:
            raise Refusal(f"Unrecognized request argument supplied: {name}")
    if not isinstance(body.get("prompt"), (str, list)):
        raise Refusal("you must provide a prompt")


def _usage(script: Script) -> dict[str, Any]:
    tokens = script.tokens
    prompt = tokens.fresh + tokens.cached + tokens.written
    return {"prompt_tokens": prompt, "completion_tokens": tokens.output, "total_tokens": prompt + tokens.output}


def _envelope(number: int, model: str) -> dict[str, Any]:
    return {"id": f"cmpl-{number:024d}", "object": "text_completion", "created": 1763600000 + number, "model": model}


def _choice(text: str, finish: str | None) -> dict[str, Any]:
    return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}


def whole(script: Script, number: int, model: str) -> bytes:
    """The body of a whole answer."""
    text = "".join(part.text for part in script.parts if isinstance(part, Say))
    choice = _choice(text, _FINISH[script.ended])
    return _encode({**_envelope(number, model), "choices": [choice], "usage": _usage(script)})


def frames(script: Script, number: int, model: str, *, include_usage: bool) -> list[bytes]:
    """The SSE frames of a streamed answer."""
    envelope, usage = _envelope(number, model), {"usage": None} if include_usage else {}
    pieces = [piece for part in script.parts if isinstance(part, Say) for piece in pieces_of(part.text, part.pieces)]
    choices = [_choice(piece, None) for piece in pieces] + [_choice("", _FINISH[script.ended])]
    out = [b"data: %b\n\n" % _encode({**envelope, "choices": [choice], **usage}) for choice in choices]
    if include_usage:
        out.append(b"data: %b\n\n" % _encode({**envelope, "choices": [], "usage": _usage(script)}))
    return [*out, b"data: [DONE]\n\n"]
