"""The model list in the shape of each vendor's own clients.

Sources: the "list models" and "get model" pages of OpenAI, Anthropic and Gemini; Ollama's docs/api.md (tags, show).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

_OWNER: Final = "headgate"
OLLAMA_VERSION: Final = "0.40.0"
"""The version of Ollama whose API this is: its clients ask, and refuse an old one."""
_METHODS: Final = ("generateContent", "streamGenerateContent")
_CAPABILITIES: Final = ("completion", "tools", "vision")
"""What a request may have in it. Whether the model can do with it is for its provider to say."""


def list_body(format: str, names: Sequence[str], loaded_at: float) -> bytes:
    """Return the list of ``names`` for a client of ``format``; ``loaded_at`` (Unix seconds) stands in for their age."""
    entries = [_entry(format, name, loaded_at) for name in names]
    body: dict[str, Any]
    if format == "anthropic.messages":
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        body = {"data": entries, "has_more": False, **ends}
    elif format in ("gemini", "ollama.chat"):
        body = {"models": entries}
    else:
        body = {"object": "list", "data": entries}
    return msgspec.json.encode(body)


def model_body(format: str, name: str, loaded_at: float) -> bytes:
    """Return one model of that list, as the client would be told of it alone."""
    if format == "ollama.chat":
        told = {"modelfile": "", "parameters": "", "template": "", "details": _details(), "model_info": {}}
        return msgspec.json.encode({**told, "capabilities": _CAPABILITIES, "modified_at": _stamp(loaded_at)})
    return msgspec.json.encode(_entry(format, name, loaded_at))


def bare_name(format: str, wanted: str) -> str:
    """Return the name by which rules know a model that a client asks about as ``wanted``."""
    return wanted.removeprefix("models/") if format == "gemini" else wanted


def _entry(format: str, name: str, loaded_at: float) -> dict[str, Any]:
    if format == "anthropic.messages":
        return {"type": "model", "id": name, "display_name": name, "created_at": _stamp(loaded_at)}
    if format == "gemini":
        resource = name if name.startswith("tunedModels/") else f"models/{name}"
        return {"name": resource, "displayName": name, "supportedGenerationMethods": _METHODS}
    if format == "ollama.chat":
        told = {"name": name, "model": name, "modified_at": _stamp(loaded_at)}
        # Clients of theirs are compiled to find these: nothing lies here, so it has neither size nor digest.
        return {**told, "size": 0, "digest": "", "details": _details()}
    return {"id": name, "object": "model", "created": int(loaded_at), "owned_by": _OWNER}


def _details() -> dict[str, Any]:
    texts = ("parent_model", "format", "family", "parameter_size", "quantization_level")
    return {**dict.fromkeys(texts, ""), "families": None}


def _stamp(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))
