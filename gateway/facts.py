"""What the rules see of a request: its wire facts, known before anything of it is decoded, and who calls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from .codecs.base import Peek, RequestFacts
from .errors import PermissionDenied
from .globs import Glob, any_of

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


class Grant:
    """What a key may be used for: routes by name, and models as callers name them. Each is a tuple of globs."""

    __slots__ = ("models", "routes", "_serves_model", "_serves_route")

    def __init__(self, routes: Sequence[str] = ("*",), models: Sequence[str] = ("*",)) -> None:
        self.routes = tuple(routes)
        self.models = tuple(models)
        self._serves_route = any_of([Glob.parse(each) for each in self.routes])
        self._serves_model = any_of([Glob.parse(each) for each in self.models])

    @classmethod
    def of(cls, routes: Sequence[str], models: Sequence[str]) -> Grant | None:
        """Return the grant; None if it is for everything."""
        return None if "*" in routes and "*" in models else cls(routes, models)

    def allows(self, route: str, model: str) -> bool:
        """Whether ``model`` may be asked for at ``route``."""
        return self._serves_route(route) and self._serves_model(model)

    def check(self, route: str, model: str) -> None:
        """Raise PermissionDenied unless ``model`` may be asked for at ``route``. A call that names no model needs ``*``."""
        if not self._serves_route(route):
            raise PermissionDenied(f"this API key may not use the route {route!r}")
        if not self._serves_model(model):
            if not model:
                raise PermissionDenied("this API key is for certain models alone, and this call names none")
            raise PermissionDenied(f"this API key may not use the model {model[:200]!r}", param="model")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grant) and (other.routes, other.models) == (self.routes, self.models)

    def __hash__(self) -> int:
        return hash((self.routes, self.models))

    def __repr__(self) -> str:
        return f"Grant({self.routes!r}, {self.models!r})"


class Principal(Struct, frozen=True, omit_defaults=True):
    """Who calls. ``key`` is the configured name of a key, never the key. ``tenant`` scopes everything that is stored.
    ``grant`` is what the key may be used for; None: everything."""

    key: str
    team: str | None = None
    tenant: str = ""
    tags: tuple[str, ...] = ()
    grant: Grant | None = None


ANONYMOUS: Final = Principal(key="anonymous")


class WireFacts:
    """One request as it came: cheap to make, and what takes reading is read when a rule asks for it.

    Header names are lower case. ``tokens`` is the body's bytes / 4, with every request alike: a rule does not change its
    mind with a tokenizer, unless the file asks for one, and then there is one (see ``counted``); ``by_size`` is the same in any
    case. ``principal`` is set when a target is about to choose: routes match before auth has run.
    """

    __slots__ = (
        "format",
        "model",
        "path",
        "query",
        "headers",
        "stream",
        "tokens",
        "by_size",
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
        self.tokens = self.by_size = len(body) // 4
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
    def body(self) -> bytes:
        """The request's body as it came."""
        return self._body

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
