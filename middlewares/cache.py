"""Give an answer once more, instead of asking for it again: for calls that are equal in all that changes the answer.

What is kept are complete answers that a model ended by itself, for the tenant that asked. Calls that are equal and under
way at the same time share one upstream call. It knows nothing of what is similar, only of what is the same.
"""

from __future__ import annotations

import logging
from functools import partial
from time import monotonic
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta, Struct

from ..gateway.caching.flight import Flight
from ..gateway.caching.kept import Kept, is_frugal, pack, unpack
from ..gateway.caching.key import Keys
from ..gateway.caching.landing import Landing, Name, Shared, replayed
from ..gateway.caching.wish import Wish, read_wish
from ..gateway.call import Call, Step
from ..gateway.chain import Next
from ..gateway.errors import CallerError, GatewayError
from ..gateway.facts import Principal
from ..gateway.ir.event import Chunk
from ..gateway.relay.reply import Reply
from ..gateway.stores.base import Key, Store, get_one
from ..gateway.stores.memory import MemoryStore
from ..gateway.units import Duration, Size, seconds

_log = logging.getLogger("headgate.cache")
_SPACE: Final = "cache"
_STREAMS: Final = "cache stream"
_FRUGAL: Final = "cache frugal"
"""Spaces of names of calls under way, beside that of keys, in which whole answers are awaited; nothing is kept in them."""
_key: Final = partial(tuple.__new__, Key)
"""What ``Key`` does, of a tuple; it takes longer to be called."""
_EVERYTHING: Final = Wish()


class CacheOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``ttl``: how long an answer is given again. ``max_entries``, ``max_size``: what is kept in memory together, unless
    ``store`` names one of ``stores``; streams under way remember ``max_size`` at most, too. ``max_answer``: a larger one
    is not kept, nor told to who comes late. ``any_temperature``: keep answers of calls that ask for a temperature above 0,
    too. ``across_formats``: compare what is asked instead of how it is written, so that callers of different formats share
    answers; each call is decoded then. ``single_flight``: equal calls under way share one upstream call. ``per``: who
    shares answers: everybody of a ``tenant``, of a ``team`` in it, or the holder of a ``key`` alone. ``vary``: request
    headers that change the answer, beside those known to. ``ignore``: top-level members of the request that do not.
    ``version``: another one forgets all that was kept."""

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
    keeps_content = True
    asks_who_calls = True

    def __init__(self, options: CacheOptions) -> None:
        self.options = options
        self.store_name = options.store
        self.store: Store = MemoryStore(options.max_entries, options.max_size, options.ttl)
        self._keys = Keys(
            options.vary, options.ignore, options.across_formats, options.any_temperature, options.version
        )
        self._wide = options.per == "tenant"
        self._ttl_s = float(options.ttl)
        self._max_answer = int(options.max_answer)
        self._room = int(options.max_size)
        self._flights: dict[Name, Shared] = {}

    def carry_over(self, old: Any, /) -> None:
        """Go on with what is kept. Calls under way end where they began: their pool may be about to close."""
        if isinstance(old, Cache) and isinstance(self.store, MemoryStore) and self.store_name is None:
            self.store.carry_over(old.store)

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Return the answer to an equal call if there is one, else the answer of the rest of the chain."""
        headers, wish = call.facts.headers, _EVERYTHING
        if "headgate-cache" in headers or "cache-control" in headers:
            wish = read_wish(headers)
        digest = None if wish.bypass else self._keys.of(call)
        decision = call.decision
        if digest is None:
            decision.cache = "bypass"
            return await call_next(call)
        principal, flights = call.principal, self._flights
        whose = principal.tenant if self._wide else self._whose(principal)
        key = _key((_SPACE, whose, digest))
        stream = call.peek.stream
        name = Key(_FRUGAL if is_frugal(call) else _STREAMS, whose, digest) if stream else key
        is_late = False
        if not wish.refresh:
            store = self.store
            while True:
                flight = flights.get(name)
                if flight is not None:
                    if (reply := await self._join(flight, call)) is not None:
                        return reply
                    is_late = True
                elif type(store) is MemoryStore:
                    value = store.look(key)
                    if value is not None and (reply := self._replay(call, key, value, wish)) is not None:
                        return reply
                    break
                else:
                    if (reply := await self._find(call, key, wish)) is not None:
                        return reply
                    if name not in flights:  # it may have begun while the store was read
                        break
        if wish.only:
            raise CallerError(
                "no answer to this call is kept, and it may not be asked for (only-if-cached)", status=504
            )
        decision.cache = "miss"
        if is_late:
            return await self._launch(call, call_next, name)
        if stream:
            return await self._fly(call, call_next, name)
        landing = Landing(self, name, call)
        if self.options.single_flight:
            flights[name] = landing
        try:
            reply = await call_next(call)
            settled = reply.settled
            chunks = reply.gathered() if settled is None else [settled]
        except BaseException as fault:
            landing.fail(fault)
            raise
        if chunks is None:
            landing.good = reply.status == 200
            call.scope.items.add(landing)  # or others would wait for an answer that somebody further out has dropped
            return reply.through(landing)
        if flights.get(name) is landing:
            del flights[name]
        if reply.status == 200:
            self._keep(key, chunks, call)
        if landing.waiting is not None:
            landing.complete(chunks)
        return reply if settled is not None else replayed(chunks, call.scope, reply.status, reply.headers)

    def _whose(self, principal: Principal) -> str:
        whose = f"{principal.tenant}\n{principal.team or ''}"
        return f"{whose}\n{principal.key}" if self.options.per == "key" else whose

    # -- what is kept

    async def _find(self, call: Call, key: Key, wish: Wish) -> Reply | None:
        began = monotonic()
        try:
            value = await get_one(self.store, key)
        except GatewayError as error:
            _log.warning("the cache cannot be read: %s", error.message)
            return None
        return None if value is None else self._replay(call, key, value, wish, began)

    def _replay(self, call: Call, key: Key, value: bytes, wish: Wish, began: float | None = None) -> Reply | None:
        """Return a kept answer, if it is one for this call."""
        kept = unpack(value)
        if kept is None:  # cut off, or filtered: nothing to be given again
            self.store.delete(key)
            return None
        age = max(0, int(call.began_unix) - kept.born)
        chunk = _told(kept, call)
        if chunk is None or (wish.max_age is not None and age > wish.max_age):
            return None
        _note(call, "hit", monotonic() if began is None else began)
        return Reply.whole(chunk, call.scope, 200, {"age": str(age)})

    # -- calls under way

    async def _join(self, flight: Shared, call: Call) -> Reply | None:
        began = monotonic()
        reply = await flight.join(call)
        if reply is not None:
            _note(call, "joined", began)
        return reply

    async def _fly(self, call: Call, call_next: Next, name: Name) -> Reply:
        """Ask for a stream that others may follow."""
        flight = Flight(self, name, call, self._max_answer)
        if self.options.single_flight:
            self._flights[name] = flight
        try:
            reply = await call_next(flight.call)
            chunks = reply.gathered()
        except BaseException as fault:
            flight.fail(fault)
            raise
        if chunks is not None:
            flight.complete(chunks, reply.status == 200)
            return replayed(chunks, call.scope, reply.status, reply.headers)
        flight.begin(reply)
        return Reply(flight.board(call.scope), call.scope, reply.status, reply.headers)

    async def _launch(self, call: Call, call_next: Next, name: Name) -> Reply:
        """Ask anew for all who waited for a caller that left, whoever of them leaves now."""
        flight = Flight(self, name, call, self._max_answer)
        self._flights[name] = flight
        flight.launch(call_next)
        reply = await flight.join(call)
        assert reply is not None, "a launched call is nobody's to leave"
        return reply

    # -- what calls under way tell

    def left(self, call: Shared, /) -> None:
        """Let nobody join ``call`` any more."""
        if self._flights.get(call.name) is call:
            del self._flights[call.name]

    def landed(self, call: Shared, chunks: list[Chunk], /) -> None:
        """Keep an answer."""
        self._keep(Key(_SPACE, *call.name[1:]), chunks, call.call)

    def _keep(self, key: Key, chunks: list[Chunk], call: Call) -> None:
        try:
            value = pack(chunks, call)
            if value is not None and len(value) <= self._max_answer:
                self.store.put(key, value, self._ttl_s)
        except Exception:  # somebody waits for this answer, kept or not
            _log.exception("an answer could not be kept")

    def reserve(self, size: int, /) -> bool:
        """Return whether so many bytes more may be remembered of streams under way; what is kept is not among them."""
        if size > self._room:
            return False
        self._room -= size
        return True


def _told(kept: Kept, call: Call) -> Chunk | None:
    """Return the answer as this call may hear it; None if it does not tell what the call asks for.

    A stream that nobody asked for usage cannot stand in for an answer that tells it, nor tell it where nobody asked.
    """
    chunk = kept.chunk
    if chunk.is_whole:
        return chunk
    if is_frugal(call):
        return chunk if kept.frugal else Chunk(chunk.events)
    if kept.frugal or not call.peek.stream:
        return None if chunk.usage is None else chunk
    return chunk


def _note(call: Call, what: str, began: float) -> None:
    decision = call.decision
    decision.cache = "hit"
    decision.steps.append(Step("cache", what, seconds(began - call.began), seconds(monotonic() - call.began)))
