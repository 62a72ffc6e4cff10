"""The key of a call: all that changes its answer, as one hash. Two calls with the same key may have the same answer.

It is made of the body's members as they were written, without how the answer is to be delivered (``stream``,
``stream_options``), and of what stands around it: route, target, model, the headers and query parameters that providers
read. A request that a middleware changed is hashed as the value that it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from ..call import Call
from ..doors import OPERATIONS
from ..errors import GatewayError
from ..facts import ANONYMOUS
from ..ir.message import Message, ToolResult
from ..wire.sifting import Sifted

_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_encode: Final = msgspec.json.Encoder().encode
_PREFIXES: Final = ("anthropic-", "openai-")
"""Of headers that adapters send on to providers."""
_SILENT: Final = frozenset({"anthropic-dangerous-direct-browser-access"})
"""Such headers that change nothing of an answer."""
_SHOWN: Final = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Where strangers show a key that an upstream may be called with: their answers are their own."""
_DELIVERY: Final = frozenset({"key", "alt"})
_SETTINGS: Final = {
    "gemini": ("generationConfig", "generation_config"),
    "ollama.chat": ("options",),
    "ollama.generate": ("options",),
}
"""Where formats keep the temperature, if not in the body itself."""
_UNHEARD: Final = frozenset({"stream", "stream_options"})
"""How the answer is to be delivered, where a request says so although it need not."""
_MARKS: Final = frozenset({"max_tokens", "input"})
"""Where null is a reader's note how something was spelled: the cap by its older name, the input as a text."""
_MAX_LEARNT: Final = 1000


class _Places(dict[tuple[str, ...], bytes]):
    """Where calls go, as bytes: format, route, target, upstream and model, with the mark of the rules."""

    __slots__ = ("_mark",)

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __missing__(self, where: tuple[str, ...]) -> bytes:
        if len(self) >= _MAX_LEARNT:
            self.clear()
        self[where] = place = _encode([*where, self._mark])
        return place


class Keys:
    """Makes keys. ``vary`` are further headers; ``ignore`` top-level members that do not count.

    Where calls go, which headers they have and which members is the same again and again, so what it comes to is remembered.
    """

    __slots__ = ("_vary", "_ignore", "_left_out", "_across", "_any_temperature", "_places", "_telling")

    def __init__(
        self,
        vary: tuple[str, ...] = (),
        ignore: tuple[str, ...] = (),
        across_formats: bool = False,
        any_temperature: bool = False,
        mark: str = "",
    ) -> None:
        self._vary = frozenset(name.lower() for name in vary)
        self._ignore = ignore
        # The model that is sent stands beside it.
        self._left_out = Sifted(frozenset(("model", "stream", "stream_options", *ignore)).__contains__)
        self._across = across_formats
        self._any_temperature = any_temperature
        self._places = _Places(mark)
        self._telling = Sifted(self._tells)

    def of(self, call: Call) -> str | None:
        """Return the hash, in hex; None for a call whose answer is not to be kept, or that cannot be read."""
        if call.counts or call.passed is not None:
            return None
        format, body = call.codec.format, call.body
        try:
            if body is None or (self._across and format not in OPERATIONS):
                said = self._request(call)
                format = ""
            else:
                members = _members(body)
                told = "temperature" in members or format in _SETTINGS
                if told and not self._any_temperature and not _is_cold(format, members):
                    return None
                for name in self._left_out[tuple(members)]:
                    del members[name]
                said = _encode(members)
            if said is None:
                return None
            decision, facts = call.decision, call.facts
            place = self._places[format, decision.route, decision.target, decision.upstream, call.model]
            telling = self._telling[tuple(facts.headers)]
            if telling or facts.query or call.principal is ANONYMOUS:
                place += self._around(call, telling)
            return blake2b(place + said).hexdigest()[:40]
        except (msgspec.MsgspecError, UnicodeEncodeError, GatewayError):
            return None  # whoever answers it will say what is wrong

    def _tells(self, name: str) -> bool:
        """Whether a header of this name changes an answer."""
        return name in self._vary or (name.startswith(_PREFIXES) and name not in _SILENT)

    def _around(self, call: Call, telling: tuple[str, ...]) -> bytes:
        headers, query = call.facts.headers, call.facts.query
        around: list[Any] = [[name, headers[name]] for name in sorted(telling)]
        around.append({name: value for name, value in query.items() if name not in _DELIVERY})
        if call.principal is ANONYMOUS:
            around += [headers.get(name) for name in _SHOWN]
            around.append(query.get("key"))
        return _encode(around)

    def _request(self, call: Call) -> bytes | None:
        request = call.request
        if request.temperature and not self._any_temperature:
            return None
        fewer: dict[str, Any] = {name: None for name in ("user", "metadata") if name in self._ignore}
        if request.extra:
            fewer["extra"] = {name: raw for name, raw in request.extra.items() if not self._is_beside(name, raw)}
        if self._across:
            fewer["messages"] = tuple(map(_spelled_out, request.messages))
        plain = replace(request, model="", format="", stream=False, stream_usage=None, **fewer)
        said = _encode(plain)
        # What has no word in the request is its format's own: nobody else's request is like it.
        own = not self._across or b'"extra":' in said
        return b"=%b\n%b" % (call.codec.format.encode() if own else b"", said)

    def _is_beside(self, name: str, raw: Raw) -> bool:
        """Whether a member that the request has no word for says nothing of what is asked."""
        return name in self._ignore or name in _UNHEARD or (self._across and name in _MARKS and bytes(raw) == b"null")


def _spelled_out(message: Message) -> Message:
    """Return ``message`` as if its content, and that of tool results in it, were a list."""
    parts = message.parts
    if any(type(part) is ToolResult and part.brief for part in parts):
        parts = tuple([replace(part, brief=False) if isinstance(part, ToolResult) else part for part in parts])
    return replace(message, parts=parts, brief=False) if message.brief or parts is not message.parts else message


def _is_cold(format: str, members: Mapping[str, Raw]) -> bool:
    within = _SETTINGS.get(format)
    if within is None:
        raw = members.get("temperature")
        return raw is None or _is_zero(raw)
    for name in within:
        raw = _members(members[name]).get("temperature") if name in members else None
        if raw is not None and not _is_zero(raw):
            return False
    return True


def _is_zero(raw: Raw) -> bool:
    return not msgspec.json.decode(raw)
