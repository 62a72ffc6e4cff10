"""Which calls belong to one session, and with which account a session goes out.

A session is what the client calls it, in a header of its own; else, for clients that say nothing, the texts up to the first
of the user: they are the same on every turn, and the provider's cache knows the conversation by them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from ..call import Call
from ..wire.members import BAD_JSON

SESSION_HEADERS: Final = (
    "x-claude-code-session-id",  # Claude Code
    "session-id",  # Codex
    "session_id",  # Codex up to 2025
    "thread-id",
    "x-session-id",
    "x-session-affinity",
)
"""Where clients name their session."""
_MOST_BYTES: Final = 512
"""Of a session's name: what is longer is told apart by its digest."""
_OPENING: Final = 16
"""Messages within which the first of the user is looked for."""
_NOTHING: Final = Raw(b"")

Session = tuple[str, Hashable]
"""Whose it is, and its name."""


class Sessions:
    """The accounts of sessions, by id, at most ``most``. Those that nobody has heard of for ``ttl_s`` are forgotten."""

    __slots__ = ("ttl_s", "most", "known")

    def __init__(self, ttl_s: float, most: int) -> None:
        self.ttl_s = ttl_s
        self.most = most
        self.known: OrderedDict[Session, tuple[str, float]] = OrderedDict()

    def of(self, session: Session, now: float) -> str | None:
        """Return the account of a session, if it has one."""
        found = self.known.get(session)
        if found is None:
            return None
        if not now < found[1] <= now + self.ttl_s:  # its time is over, or the clock went back
            del self.known[session]
            return None
        return found[0]

    def bind(self, session: Session, id: str, now: float) -> None:
        """Let a session go out with an account from here on."""
        known = self.known
        known[session] = (id, now + self.ttl_s)
        known.move_to_end(session)
        if len(known) > self.most:
            known.popitem(last=False)


def session_of(call: Call) -> Session | None:
    """Return the session of a call; None where nothing tells. Prompt caches are by model, and so are sessions."""
    headers = call.facts.headers
    for name in SESSION_HEADERS:
        if value := headers.get(name):
            return call.principal.tenant, (call.model, _short(value))
    opening = _opening(call)
    return None if opening is None else (call.principal.tenant, (call.model, opening))


def session_by(read: Callable[[Call], Any]) -> Callable[[Call], Session | None]:
    """Return what tells the session by a fact, whatever the model; calls that lack the fact have none."""

    def session(call: Call) -> Session | None:
        value = read(call)
        if value is None or value == "":
            return None
        return call.principal.tenant, _short(value) if isinstance(value, str) else str(value)

    return session


def _short(value: str) -> str | bytes:
    return value if len(value) <= _MOST_BYTES else _digest((value.encode("utf-8", "surrogatepass"),))


# -- how a conversation begins


class _Opening(Struct):
    """The members of a request in which conversations stand, in the formats that there are."""

    prompt_cache_key: Any = None
    system: Raw = _NOTHING
    instructions: Raw = _NOTHING
    systemInstruction: Raw = _NOTHING
    messages: Raw = _NOTHING
    input: Raw = _NOTHING
    contents: Raw = _NOTHING
    prompt: Raw = _NOTHING


class _Message(Struct):
    role: Any = ""
    content: Raw = _NOTHING
    parts: Raw = _NOTHING


class _Block(Struct):
    text: Any = ""


_REQUEST: Final = msgspec.json.Decoder(_Opening)
_ITEMS: Final = msgspec.json.Decoder(list[Raw])
_MESSAGE: Final = msgspec.json.Decoder(_Message)
_BLOCKS: Final = msgspec.json.Decoder(list[_Block])


def _opening(call: Call) -> bytes | None:
    """Return a digest of how the conversation begins, as the caller sent it; None for what is no conversation."""
    body = call.body
    if body is None and call.wire is not None:
        body = call.wire.body  # a middleware changed the request, perhaps not on every turn
    if not body or call.passed is not None:
        return None
    try:
        request = _REQUEST.decode(body)
        if isinstance(request.prompt_cache_key, str) and request.prompt_cache_key:
            return _digest((b"key", request.prompt_cache_key.encode("utf-8", "surrogatepass")))
        said = [_words(raw) for raw in (request.system, request.instructions, request.systemInstruction)]
        said += _first_messages(request.messages or request.input or request.contents or request.prompt)
    except BAD_JSON:
        return None
    return _digest(said) if any(said) else None


def _first_messages(raw: Raw) -> list[bytes]:
    data = bytes(raw)
    if data[:1] != b"[":
        return [data]
    said: list[bytes] = []
    for item in _ITEMS.decode(data)[:_OPENING]:
        if bytes(item)[:1] != b"{":
            return [bytes(item)]  # texts to embed, say
        message = _MESSAGE.decode(item)
        said.append(_words(message.content or message.parts))
        if message.role in ("user", ""):
            break
    return said


def _words(raw: Raw) -> bytes:
    """Return the texts of a content. Only them: marks for the cache are moved on from turn to turn."""
    data = bytes(raw)
    if data[:1] == b"{":
        data = bytes(_MESSAGE.decode(data).parts)
    if data[:1] != b"[":
        return data
    try:
        blocks = _BLOCKS.decode(data)
    except msgspec.ValidationError:  # a list of something else
        return data
    return msgspec.json.encode([block.text for block in blocks])


def _digest(pieces: Iterable[bytes]) -> bytes:
    found = blake2b(digest_size=12)
    for piece in pieces:
        found.update(len(piece).to_bytes(8, "big"))
        found.update(piece)
    return found.digest()
