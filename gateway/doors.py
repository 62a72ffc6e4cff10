"""Where callers of each format knock: the paths at which calls are served, on every front.

A path may hold ``{model}``, as Gemini's do, and a model's name may hold slashes and colons. The first of a format is the
one that its own documentation names; the others are for clients whose base URL is spelled without the version.
"""

from __future__ import annotations

import re
from typing import Final

_GEMINI_METHODS: Final = ("generateContent", "streamGenerateContent")
_GEMINI_COLLECTIONS: Final = (
    "/v1beta/models/",
    "/v1beta/tunedModels/",
    "/v1/models/",
    "/v1/tunedModels/",
    "/v1alpha/models/",
    "/models/",
    "/tunedModels/",
    # Vertex AI, in express mode and with a project. For another base URL than Google's its SDK leaves out the version.
    "/v1beta1/publishers/google/models/",
    "/v1/publishers/google/models/",
    "/publishers/google/models/",
    "/v1beta1/projects/{project}/locations/{location}/publishers/google/models/",
    "/v1/projects/{project}/locations/{location}/publishers/google/models/",
)

DOORS: Final[dict[str, tuple[str, ...]]] = {
    "openai.chat": ("/v1/chat/completions", "/chat/completions"),
    "openai.responses": ("/v1/responses", "/responses"),
    "openai.completions": ("/v1/completions", "/completions"),
    "anthropic.messages": ("/v1/messages", "/messages"),
    "gemini": tuple(
        f"{collection}{{model}}:{method}" for collection in _GEMINI_COLLECTIONS for method in _GEMINI_METHODS
    ),
    "ollama.chat": ("/api/chat",),
    "ollama.generate": ("/api/generate",),
}
OPERATIONS: Final[dict[str, tuple[str, ...]]] = {
    "openai.embeddings": ("/v1/embeddings", "/embeddings"),
    "openai.moderations": ("/v1/moderations", "/moderations"),
    "rerank": ("/v1/rerank", "/rerank"),
}
"""Where callers ask for what is no conversation."""
PASSED: Final = ("openai.passthrough", "anthropic.passthrough", "gemini.passthrough")
"""Formats of calls that nobody translates. ``passing.paths`` knows where they are asked for."""
APART: Final = frozenset({*OPERATIONS, *PASSED})
"""Formats of what is no conversation: an upstream may serve them or not."""
COUNTING: Final[dict[str, tuple[str, ...]]] = {
    "anthropic.messages": tuple(f"{path}/count_tokens" for path in DOORS["anthropic.messages"]),
    "openai.responses": tuple(f"{path}/input_tokens" for path in DOORS["openai.responses"]),
    "gemini": tuple(f"{collection}{{model}}:countTokens" for collection in _GEMINI_COLLECTIONS),
}
"""Where callers ask how many tokens a request has."""
_STREAMS: Final = {"gemini": DOORS["gemini"][1]}
"""Where streams have a path of their own."""

EXACT: Final = {path: format for format, paths in (DOORS | OPERATIONS).items() for path in paths if "{" not in path}
"""Paths without a model in them, and whose they are."""


def _pattern(path: str) -> str:
    """Return the expression for a path; of what is in braces only a model holds slashes."""
    fixed = re.split(r"(\{\w+\})", path)
    return "".join({"{model}": "[^?#]+"}.get(each, "[^/]+") if each[:1] == "{" else re.escape(each) for each in fixed)


_TEMPLATES: Final = tuple(
    (format, re.compile("|".join(map(_pattern, paths))))
    for format, paths in DOORS.items()
    if any("{" in path for path in paths)
)
_COUNTING: Final = {format: re.compile("|".join(map(_pattern, paths))) for format, paths in COUNTING.items()}


def format_at(path: str) -> str | None:
    """Return the format that is served at ``path``, None if there is none."""
    found = EXACT.get(path)
    if found is None:
        for format, pattern in _TEMPLATES:
            if pattern.fullmatch(path):
                return format
    return found


def counted_at(path: str) -> str | None:
    """Return the format whose tokens are counted at ``path``, None if there is none."""
    return next((format for format, pattern in _COUNTING.items() if pattern.fullmatch(path)), None)


def format_below(path: str) -> str | None:
    """The same, whatever the gateway is mounted under: the longest end of ``path`` that is a door counts."""
    start = 0
    while start >= 0:
        if (found := format_at(path[start:])) is not None:
            return found
        start = path.find("/", start + 1)
    return None


def path_of(format: str, model: str = "", *, stream: bool = False) -> str:
    """Return where a caller of ``format`` sends a request for ``model``.

    "" for a format that has no door, or whose door has a model in it when there is none.
    """
    paths = DOORS.get(format) or OPERATIONS.get(format)
    if not paths:
        return ""
    path = _STREAMS.get(format, paths[0]) if stream else paths[0]
    return path.replace("{model}", model) if model or "{model}" not in path else ""
