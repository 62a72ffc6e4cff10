"""The model and the method, which stand in the path: ``/v1beta/models/gemini-3-pro:streamGenerateContent``.

Source: google/ai/generativelanguage, ``post: "/v1beta/{model=models/*}:generateContent"``, and the same for
``tunedModels/*`` and ``dynamic/*``. A model of ``models/`` is known by the rest of its name, any other by all of it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote

from ...errors import DecodeError

_METHODS: Final = {"generateContent": False, "streamGenerateContent": True}
_MODEL: Final = (
    r"(?P<model>(?:projects/.+?/)?(?:publishers/[^/]+/)?(?:models|tunedModels|dynamic|endpoints)/[^?#]+)"
    r":(?P<method>\w+)/?\Z"
)
_PATHS: Final = (
    re.compile(rf"(?:.*?/)?(?:v1|v1beta|v1alpha|v1beta1)/{_MODEL}", re.DOTALL),
    re.compile(rf"(?:.*?/)?{_MODEL}", re.DOTALL),
)
"""With a version, and as clients spell it whose base URL holds none."""
_COLLECTION: Final = re.compile(r"(?:models|tunedModels|dynamic)/")
_PLAIN: Final = re.compile(r"(?:projects/.+/)?(?:publishers/[^/]+/)?models/", re.DOTALL)
"""What goes without saying; with project and publisher it is Vertex AI's name for the same."""


class Target(NamedTuple):
    """What a path names. ``stream`` is whether its method answers with a stream."""

    model: str
    stream: bool


def read_path(path: str) -> Target | None:
    """Return what ``path`` (decoded, without its query) names; None if it is of another kind. Raises DecodeError."""
    found = _PATHS[0].match(path) or _PATHS[1].match(path)
    if found is None:
        return None
    stream = _METHODS.get(found["method"])
    if stream is None:
        raise DecodeError("", f"this format has no method {found['method'][:40]}", kind="not_found")
    model = found["model"]
    plain = _PLAIN.match(model)
    return Target(model[plain.end() :] if plain else model, stream)


def write_path(model: str, stream: bool) -> str:
    """Return the path, with its query, for a call. Raises DecodeError for a model that would lead elsewhere."""
    name = model if _COLLECTION.match(model) else f"models/{model}"
    steps = name.split("/")
    if not model or any(step in ("", ".", "..") for step in steps):
        raise DecodeError("model", f"no name of a model: {model[:80]!r}")
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"/v1beta/{quote(name, safe='/-._~@')}:{method}"
