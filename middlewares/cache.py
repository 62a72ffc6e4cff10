"""Give an answer once more, instead of asking for it again: for calls that are equal in all that changes the answer.

What is kept are complete answers that a model ended by itself, for the tenant that asked. Calls that are equal and under
way at the same time share one upstream call. It knows nothing of what is similar, only of what is the same.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta, Struct

from ..gateway.caching.flight import Flight
from ..gateway.caching.kept import pack, unpack
from ..gateway.caching.key import Keys
from ..gateway.call import Call
from ..gateway.chain import Next
from ..gateway.errors import GatewayError
from ..gateway.relay.reply import Reply
from ..gateway.relay.source import Listed
from ..gateway.stores.base import Key, Store
from ..gateway.stores.memory import MemoryStore
from ..gateway.units import Duration, Size

_log = logging.getLogger("headgate.cache")
_SPACE: Final = "cache"
_FRUGAL: Final = frozenset({"openai.chat", "openai.completions"})
"""Formats whose streams tell usage only if they are asked to."""


class CacheOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``ttl``: how long an answer is given again. ``max_entries``, ``max_size``: what is kept in memory together, unless
    ``store`` names one of ``stores``. ``max_answer``: a larger one is not kept, nor told to who comes late.
    ``any_temperature``: keep answers of calls that ask for a temperature above 0, too. ``across_formats``: compare what is
    asked instead of how it is written, so that callers of different formats share answers; each call is decoded then.
    ``single_flight``: equal calls under way share one upstream call. ``per``: who shares answers: everybody of a
    ``tenant``, of a ``team`` in it, or the holder of a ``key`` alone. ``vary``: request headers that change the answer,
    beside those known to. ``ignore``: top-level members of the request that do not. ``version``: another one forgets all
    that was kept."""

    ttl: Duration = Duration(3600)
    max_entries: Annotated[int, Meta(ge=1)] = 10_000
    max_size: Size = Size(64 * 1024 * 1024)
    max_answer: Size = Size(1024 * 1024)
    store: str | None = None
    any_temperature: bool = False
    across_formats: bool = False
    single_flight: bool = True
    per: Literal["tenant", "team", "key"] = "tenant"
    vary: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    ignore: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    version: str = ""

    def __post_init__(self) -> None:
        for name in ("ttl", "max_size", "max_answer"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above zero")


class Cache:
    """Answers from ``store`` what it can. ``store_name`` is that of the store it is to be given, if it is not its own."""

    Options: ClassVar[type[Struct]] = CacheOptions

    def __init__(self, options: CacheOptions) -> None:
        self.options = options
        self.store_name = options.store
        self.store: Store = MemoryStore(options.max_entries, options.max_size, options.ttl)
        self._keys = Keys(
            options.vary, options.ignore, options.across_formats, options.any_temperature, options.version
        )
        self._per = options.per
        self._ttl_s = float(options.ttl)
        self._flights: dict[object, Flight] = {}

    def carry_over(self, old: Any, /) -> None:
        """Go on with what is kept. Calls under way end where they began: their pool may be about to close."""
        if isinstance(old, Cache) and isinstance(self.store, MemoryStore) and self.store_name is None:
            self.store.carry_over(old.store)

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Return the answer to an equal call if there is one, else the answer of the rest of the chain."""
        wish = _wish(call)
        digest = None if wish == "bypass" else self._keys.of(call)
        if digest is None:
            call.decision.cache = "bypass"
            return await call_next(call)
        names = self._names(call, digest)
        if wish == "use":
            while True:
                flight = self._flights.get(names[0])
                if flight is not None:
                    if (reply := await flight.join(call)) is not None:
                        call.decision.cache = "hit"
                        return reply
                    continue
                if (reply := await self._find(call, names)) is not None:
                    return reply
                if names[0] not in self._flights:  # it may have begun while the store was read
                    break
        return await self._ask(call, call_next, names[0])

    def _names(self, call: Call, digest: str) -> tuple[Key, Key]:
        """Return under which names an answer may be, its own first.

        A stream in which nobody asked for usage cannot stand in for an answer that tells it.
        """
        principal = call.principal
        whose = principal.tenant
        if self._per != "tenant":
            whose = f"{whose}\n{principal.team or ''}"
            if self._per == "key":
                whose += f"\n{principal.key}"
        whole, stream = Key(_SPACE, whose, digest), Key(_SPACE, whose, digest + "+stream")
        if not call.stream:
            return whole, stream
        if call.codec.format in _FRUGAL and not call.peek.stream_usage:
            return Key(_SPACE, whose, digest + "+frugal"), whole
        return stream, whole

    async def _find(self, call: Call, names: tuple[Key, Key]) -> Reply | None:
        try:
            values = await self.store.get(names)
        except GatewayError as error:
            _log.warning("the cache cannot be read: %s", error.message)
            return None
        for name, value in zip(names, values, strict=True):
            if value is None:
                continue
            chunk = unpack(value)
            if chunk is None:  # cut off, or filtered: nothing to be given again
                self.store.delete(name)
            elif call.stream or chunk.is_whole or chunk.usage is not None:
                call.decision.cache = "hit"
                return Reply.whole(chunk, call.scope)
        return None

    async def _ask(self, call: Call, call_next: Next, name: Key) -> Reply:
        """Send the call on, and let others share its answer."""
        call.decision.cache = "miss"
        flight = Flight(call, name, self.options.max_answer, self)
        if self.options.single_flight:
            self._flights[name] = flight
        try:
            reply = await call_next(call if flight.scope is None else call.replace(scope=flight.scope))
            chunks = reply.gathered()
            if chunks is None and flight.scope is None:
                chunks = await reply.collect()  # nobody can be told before it is all there
        except BaseException as fault:
            flight.fail(fault)
            raise
        if chunks is None:
            return flight.begin(reply)
        flight.complete(chunks)
        if len(chunks) == 1 and chunks[0].is_whole:
            return Reply.whole(chunks[0], call.scope, reply.status, reply.headers)
        return Reply(Listed(chunks), call.scope, reply.status, reply.headers)

    # -- what flights tell

    def left(self, flight: Flight) -> None:
        """Let nobody join ``flight`` any more."""
        if self._flights.get(flight.name) is flight:
            del self._flights[flight.name]

    def landed(self, flight: Flight) -> None:
        """Keep an answer."""
        value = pack(flight.chunks, flight.call)
        if value is not None and isinstance(flight.name, Key):
            self.store.put(flight.name, value, self._ttl_s)


def _wish(call: Call) -> Literal["use", "refresh", "bypass"]:
    """Return what the caller wants: a fresh answer (``refresh``), or one that is not kept either (``bypass``)."""
    headers = call.headers
    ours, usual = headers.get("headgate-cache"), headers.get("cache-control")
    if ours is None and usual is None:
        return "use"
    said = f"{ours or ''},{usual or ''}".lower()
    if "bypass" in said or "no-store" in said:
        return "bypass"
    return "refresh" if "refresh" in said or "no-cache" in said else "use"
