"""The model list in the shape of each vendor's own clients.

Sources: the "list models" and "get model" pages of OpenAI, Anthropic and Gemini; Ollama's docs/api.md (tags, show).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ..errors import CallerError

_OWNER: Final = "headgate"
OLLAMA_VERSION: Final = "0.40.0"
"""The version of Ollama whose API this is: its clients ask, and refuse an old one."""
_METHODS: Final = ("generateContent", "streamGenerateContent", "countTokens")
_CAPABILITIES: Final = ("completion", "tools", "vision")
"""What a request may have in it. Whether the model can do with it is for its provider to say."""


class _Page(NamedTuple):
    """A piece of the list; ``more`` is whether it goes on in the direction that was asked for."""

    names: Sequence[str]
    more: bool


def list_body(format: str, names: Sequence[str], loaded_at: float, query: Mapping[str, str]) -> bytes:
    """Return the list of ``names`` for a client of ``format``; ``loaded_at`` (Unix seconds) stands in for their age.

    It is all of them, unless ``query`` asks for pages as the format's API has them. Raises CallerError for pages that
    there are not.
    """
    page = _page(format, names, query)
    entries = [_entry(format, name, loaded_at) for name in page.names]
    body: dict[str, Any]
    if format == "anthropic.messages":
        ends = (
            {"first_id": page.names[0], "last_id": page.names[-1]} if entries else {"first_id": None, "last_id": None}
        )
        body = {"data": entries, "has_more": page.more, **ends}
    elif format in ("gemini", "ollama.chat"):
        body = {"models": entries}
        if page.more:
            body["nextPageToken"] = page.names[-1]
    else:
        body = {"object": "list", "data": entries}
    return msgspec.json.encode(body)


def _page(format: str, names: Sequence[str], query: Mapping[str, str]) -> _Page:
    """Cut the page that ``query`` asks for out of the list. The name it ends with is where the next one goes on."""
    if format == "gemini":
        size = _size(query, "pageSize" if "pageSize" in query else "page_size")
        start = _place(names, query, "pageToken" if "pageToken" in query else "page_token")
        stop = len(names) if not size else start + size  # 0 is how proto3 says nothing
        return _Page(names[start:stop], stop < len(names))
    if format != "anthropic.messages":
        return _Page(names, False)
    size = _size(query, "limit") or len(names)
    if "before_id" in query and "after_id" not in query:
        stop = _place(names, query, "before_id") - 1
        start = max(0, stop - size)
        return _Page(names[start:stop], start > 0)
    start = _place(names, query, "after_id")
    return _Page(names[start : start + size], start + size < len(names))


def _size(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "0")
    if not (text.isascii() and text.isdigit()):
        raise CallerError(f"{name}: expected a number of models", param=name)
    return int(text[:9])


def _place(names: Sequence[str], query: Mapping[str, str], name: str) -> int:
    """Return the place behind the model that ``query`` names, 0 if it names none."""
    wanted = query.get(name)
    if not wanted:
        return 0
    if wanted not in names:
        raise CallerError(f"{name}: no model {wanted[:100]!r} is listed here", param=name)
    return names.index(wanted) + 1


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
