"""What the rules see of a request: its wire facts, known before anything of it is decoded, and who calls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from .codecs.base import Peek, RequestFacts

_IMAGE: Final = re.compile(rb'"type"\s*:\s*"(?:image|image_url|input_image|computer_screenshot)"')
"""A block of an image, where blocks say their type. Within a text its quotes would be escaped, so that prompts cannot
pretend."""
_LISTED: Final = re.compile(rb'"images"\s*:\s*\[\s*"')
_IMAGES: Final = {
    "gemini": re.compile(rb'"(?:mimeType|mime_type)"\s*:\s*"image/'),
    "ollama.chat": _LISTED,
    "ollama.generate": _LISTED,
}
"""The same for formats whose images are told otherwise."""

_NO_METADATA: Final[Mapping[str, object]] = {}


class Principal(Struct, frozen=True, omit_defaults=True):
    """Who calls. ``key`` is the configured name of a key, never the key. ``tenant`` scopes everything that is stored."""

    key: str
    team: str | None = None
    tenant: str = ""
    tags: tuple[str, ...] = ()


ANONYMOUS: Final = Principal(key="anonymous")


class WireFacts:
    """One request as it came: cheap to make, and what takes reading is read when a rule asks for it.

    Header names are lower case. ``tokens`` is the body's bytes / 4, with every request alike: a rule does not change its
    mind with a tokenizer, unless the file asks for one, and then there is one (see ``counted``). ``principal`` is set when
    a target is about to choose: routes match before auth has run.
    """

    __slots__ = (
        "format",
        "model",
        "path",
        "query",
        "headers",
        "stream",
        "tokens",
        "principal",
        "_peek",
        "_body",
        "_metadata",
        "_has_image",
    )

    def __init__(self, format: str, peek: Peek, facts: RequestFacts, body: bytes) -> None:
        self.format = format
        self.model = peek.model
        self.path = facts.path
        self.query = facts.query
        self.headers = facts.headers
        self.stream = peek.stream
        self.tokens = len(body) // 4
        self.principal = ANONYMOUS
        self._peek = peek
        self._body = body
        self._metadata: Mapping[str, object] | None = None
        self._has_image: bool | None = None

    @property
    def slow(self) -> bool:
        """Whether asking for ``tokens`` may take long enough to be done off the event loop."""
        return False

    @property
    def by_size(self) -> int:
        """The body's bytes / 4, whatever ``tokens`` is."""
        return len(self._body) // 4

    @property
    def exact_tokens(self) -> int | None:
        """The tokens that a rule asked for and had counted; None here, where nothing is counted."""
        return None

    @property
    def tools(self) -> bool:
        """Whether the request offers tools."""
        if self._peek.tools is None:
            return False
        raw = bytes(self._peek.tools).strip()
        return raw != b"null" and not (raw[:1] == b"[" and raw[1:].lstrip() == b"]")

    @property
    def has_image(self) -> bool:
        """Whether an image block stands in the body."""
        if self._has_image is None:
            self._has_image = _IMAGES.get(self.format, _IMAGE).search(self._body) is not None
        return self._has_image

    @property
    def metadata(self) -> Mapping[str, object]:
        """The caller's metadata; empty where there is none, or it is no object."""
        if self._metadata is None:
            self._metadata = _decode_metadata(self._peek)
        return self._metadata


def _decode_metadata(peek: Peek) -> Mapping[str, object]:
    if peek.metadata is None:
        return _NO_METADATA
    try:
        found = msgspec.json.decode(peek.metadata)
    except msgspec.DecodeError:
        return _NO_METADATA
    return found if isinstance(found, dict) else _NO_METADATA
