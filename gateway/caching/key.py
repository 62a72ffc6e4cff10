"""The key of a call: all that changes its answer, as one hash. Two calls with the same key may have the same answer.

It is made of the body's members as they were written, without how the answer is to be delivered (``stream``,
``stream_options``), and of what stands around it: route, target, model, the headers and query parameters that providers
read. A request that a middleware changed is hashed as the value that it is.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from ..call import Call
from ..doors import OPERATIONS
from ..errors import GatewayError
from ..facts import ANONYMOUS

_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_ENCODER: Final = msgspec.json.Encoder()
_HEADERS: Final = (
    "anthropic-version",
    "anthropic-beta",
    "openai-beta",
    "openai-organization",
    "openai-project",
)
_SHOWN: Final = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Where strangers show a key that an upstream may be called with: their answers are their own."""
_DELIVERY: Final = frozenset({"key", "alt"})
_SETTINGS: Final = {
    "gemini": ("generationConfig", "generation_config"),
    "ollama.chat": ("options",),
    "ollama.generate": ("options",),
}
"""Where formats keep the temperature, if not in the body itself."""


class Keys:
    """Makes keys. ``vary`` are further headers, lower case; ``ignore`` top-level members that do not count."""

    __slots__ = ("_headers", "_ignore", "_across", "_any_temperature", "_mark")

    def __init__(
        self,
        vary: tuple[str, ...] = (),
        ignore: tuple[str, ...] = (),
        across_formats: bool = False,
        any_temperature: bool = False,
        mark: str = "",
    ) -> None:
        self._headers = (*_HEADERS, *(name.lower() for name in vary))
        self._ignore = ("stream", "stream_options", *ignore)
        self._across = across_formats
        self._any_temperature = any_temperature
        self._mark = mark

    def of(self, call: Call) -> str | None:
        """Return the hash, in hex; None for a call whose answer is not to be kept, or that cannot be read."""
        if call.counts or call.passed is not None:
            return None
        try:
            body = call.body
            if body is None or (self._across and call.codec.format not in OPERATIONS):
                said = self._request(call)
            else:
                said = self._body(call, body)
            if said is None:
                return None
            decision, headers = call.decision, call.headers
            get = headers.get
            around: list[str | None] = [decision.route, decision.target, decision.upstream, call.model, self._mark]
            around += [get(name) for name in self._headers]
            if call.facts.query:
                around += (f"{name}={value}" for name, value in call.facts.query.items() if name not in _DELIVERY)
            if call.principal is ANONYMOUS:
                around += (get(name) for name in _SHOWN)
                around.append(call.facts.query.get("key", ""))
            return blake2b(_ENCODER.encode(around) + said, digest_size=20).hexdigest()
        except (msgspec.MsgspecError, UnicodeEncodeError, GatewayError):
            return None  # whoever answers it will say what is wrong

    def _body(self, call: Call, body: bytes) -> bytes | None:
        members = _MEMBERS.decode(body)
        format = call.codec.format
        if not self._any_temperature and not _is_cold(format, members):
            return None
        members.pop("model", None)  # the one that is sent stands beside it
        for name in self._ignore:
            members.pop(name, None)
        return b"%b\n%b" % (format.encode(), _ENCODER.encode(members))

    def _request(self, call: Call) -> bytes | None:
        request = call.request
        if request.temperature and not self._any_temperature:
            return None
        fewer: dict[str, Any] = {name: None for name in ("user", "metadata") if name in self._ignore}
        if any(name in self._ignore for name in request.extra):
            fewer["extra"] = {name: raw for name, raw in request.extra.items() if name not in self._ignore}
        plain = replace(request, model="", format="", stream=False, stream_usage=None, **fewer)
        said = _ENCODER.encode(plain)
        # What has no word in the request is its format's own: nobody else's request is like it.
        own = not self._across or b'"extra":' in said
        return b"=%b\n%b" % (call.codec.format.encode() if own else b"", said)


def _is_cold(format: str, members: dict[str, Raw]) -> bool:
    within = _SETTINGS.get(format)
    if within is None:
        return _is_zero(members.get("temperature"))
    return all(_is_zero(_MEMBERS.decode(members[name]).get("temperature")) for name in within if name in members)


def _is_zero(raw: Raw | None) -> bool:
    """Whether a temperature is 0, or not said."""
    return raw is None or not msgspec.json.decode(raw)
