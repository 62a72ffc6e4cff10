"""The way out of the process: records become spans by the batch, once their calls are answered, and a thread exports them.

Spans are written on the event loop, those of some calls together: in a thread the same took twice the time, and the two
fought for the interpreter. Long ones, and those for an application's
own processors, are left to the thread. Nothing here makes a call wait: what cannot be exported in time is dropped, counted,
and said in the log once for as long as the collector is away. The SDK is imported when an outlet opens, which only a rule
makes happen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from typing import Final, Protocol, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct

from .build import Builder
from .noting import Over
from .record import Record
from .span import Span
from .usual import Usual
from .worker import Worker

_log: Final = logging.getLogger("headgate.trace")
BATCH: Final = 2048
"""Calls that are exported at once at most: a request of about 2.5 MB."""
EVERY_S: Final = 1.0
"""How long a call waits for others. A thread that woke for each would cost the event loop a switch each time."""
BATCH_BYTES: Final = 4 * 1024 * 1024
FRESH: Final = 32
"""Calls whose spans are written together, in a fifth of a millisecond: one by one, each finds the processor's caches full of
something else, and a callback for them makes the loop turn once more."""
LONG: Final = 24 * 1024
"""A record of more bytes is left to the thread."""
SLICE: Final = 16
"""Calls whose spans are built without a pause: a quarter of a millisecond's worth."""
PAUSE_S: Final = 0.0002
MAX_BYTES: Final = 64 * 1024 * 1024
"""What may wait, requests and answers included that are yet to be read."""
FLUSH_S: Final = 5.0
"""How long the last batches may take when the gateway ends; a tenth of it where the collector is known to be away."""


class Destination(Struct, frozen=True):
    """Where spans go, and as what. None and empty: as the environment's OTEL_* variables say, else as the SDK does."""

    endpoint: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float | None = None
    compression: str | None = None
    service: str | None = None
    resource: tuple[tuple[str, str], ...] = ()
    queue: int = 10_000

    def __repr__(self) -> str:
        return f"Destination({self.endpoint!r})"  # headers hold a credential


class Exporter(Protocol):
    """Takes spans out of the process. Used from one thread."""

    where: str
    """What the log calls it; without credentials."""
    takes_bytes: bool
    """Whether spans may be written already, as OTLP has them."""

    def export(self, spans: Iterable[Span | bytes]) -> str:
        """Send them; return "", or why that failed."""
        ...

    def close(self) -> None:
        """End, and break off what is still tried."""
        ...


class Outlet:
    """Spans of one gateway on their way out; several middlewares, and those of the rules before and after, may share it.

    ``exported`` are the calls whose spans arrived, ``dropped`` those for which there was no room, ``failed`` those that the
    collector did not take.
    """

    def __init__(self, destination: Destination, exporter: Exporter | None = None) -> None:
        self.destination = destination
        self.exported = 0
        self.dropped = 0
        self.failed = 0
        self._exporter = exporter
        self._given = exporter is not None
        self._thread: Worker | None = None
        self._holders = 0
        self._fresh: list[tuple[Usual, Over]] = []
        self._records: list[_Item] = []
        self._count = 0
        self._bytes = 0
        self._waiting = 0
        """Calls that are with the thread; ``_count`` are those that are to follow."""
        self._waiting_bytes = 0
        self._room = 0
        self._room_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: set[Future[_Told]] = set()
        self._away = False
        """Whether the log was told that spans are being lost."""
        self._told = 0
        """Of how many lost calls it was told."""

    @property
    def lost(self) -> int:
        """Calls that no collector will see."""
        return self.dropped + self.failed

    async def open(self) -> None:
        """Begin, or take part."""
        self._holders += 1
        self._make_room()
        if self._thread is not None:
            return
        self._thread = Worker("headgate-trace")
        try:
            if self._exporter is None:
                from .sdk import open_exporter

                loop = asyncio.get_running_loop()
                self._exporter = await loop.run_in_executor(self._thread, open_exporter, self.destination)
        except BaseException:
            self._holders -= 1
            self._make_room()
            self._thread.shutdown(wait=False)
            self._thread = None
            raise

    async def close(self) -> None:
        """End, if nobody else takes part: export what waits, within FLUSH_S."""
        self._holders -= 1
        if self._holders > 0 or self._thread is None:
            return
        self._make_room()
        self.flush()
        thread, self._thread = self._thread, None
        if self._under_way:
            waiting = [asyncio.wrap_future(each) for each in self._under_way]
            await asyncio.wait(waiting, timeout=FLUSH_S / 10 if self._away else FLUSH_S)
        left, where = self._waiting + self._count, self._where
        exporter = self._exporter
        if not self._given:
            self._exporter = None
        if exporter is not None:
            exporter.close()
        thread.shutdown(wait=False, cancel_futures=True)
        if left:
            self.dropped += left
            self._waiting = self._waiting_bytes = self._count = self._bytes = 0
            _log.warning("the gateway ends, and spans of %d calls did not reach %s in time", left, where)

    def add(self, usual: Usual, over: Over) -> None:
        """Take a call that is over, or drop it where too much waits already."""
        size = over.size
        if self._count >= self._room or self._bytes + size > self._room_bytes:
            self._drop()
            return
        self._count += 1
        self._bytes += size
        exporter = self._exporter
        if size > LONG or over.noting.kept is not None or exporter is None or not exporter.takes_bytes:
            self._records.append((usual.builder, over.record()))
            if len(self._records) >= BATCH or self._bytes >= BATCH_BYTES:
                self.flush()
        else:
            self._fresh.append((usual, over))
            if len(self._fresh) >= FRESH:
                self._encode()
                if len(self._records) >= BATCH or self._bytes >= BATCH_BYTES:
                    self.flush()
        if self._timer is None and self._count:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self.flush)

    def _drop(self) -> None:
        if not self._away and self._thread is not None:
            self._go_away("more calls wait than it takes")
        self.dropped += 1

    def _make_room(self) -> None:
        """Say how much may come before some of what is with the thread is done."""
        self._room = self.destination.queue - self._waiting if self._holders else 0
        self._room_bytes = MAX_BYTES - self._waiting_bytes

    def _encode(self) -> None:
        """Write what came since the last time."""
        fresh, self._fresh = self._fresh, []
        for usual, over in fresh:
            try:
                self._records.append(usual.written(over))
            except Exception as fault:  # whatever is in an answer, the others of this turn are not to suffer
                self._records.append(fault)

    def flush(self) -> None:
        """Hand what waits to the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._thread is None or self._exporter is None:
            return
        if self._fresh:
            self._encode()
        if not self._records:
            return
        batch, self._records = self._records, []
        size, self._bytes = self._bytes, 0
        count, self._count = self._count, 0
        self._waiting += count
        self._waiting_bytes += size
        self._make_room()
        loop = asyncio.get_running_loop()
        work = self._thread.submit(_export, self._exporter, batch)
        self._under_way.add(work)

        def over(done: Future[_Told]) -> None:
            # In the thread, or here if it was cancelled: counts belong to the loop.
            try:
                loop.call_soon_threadsafe(self._done, done, count, size)
            except RuntimeError:
                pass  # the loop is gone, and with it whoever would look at counts

        work.add_done_callback(over)

    def _done(self, work: Future[_Told], count: int, size: int) -> None:
        self._under_way.discard(work)
        if work.cancelled() or (self._thread is None and self._waiting < count):
            return  # it was given up at the end
        self._waiting = max(0, self._waiting - count)
        self._waiting_bytes = max(0, self._waiting_bytes - size)
        self._make_room()
        fault = work.exception()
        broken: list[Exception] = []
        if fault is None:
            why, broken = work.result()
        else:
            why = type(fault).__name__
            _log.error("the spans of %d calls could not be exported", count, exc_info=fault)
        if broken:
            _log.error("the spans of %d calls could not be built", len(broken), exc_info=broken[0])
            count -= len(broken)
            self.failed += len(broken)
        if why:
            self.failed += count
            if not self._away:
                self._go_away(why)
            return
        self.exported += count
        if self._away and not self._waiting:
            self._away = False
            _log.warning("spans reach %s again; those of %d calls were lost", self._where, self.lost - self._told)
            self._told = self.lost

    @property
    def _where(self) -> str:
        return "" if self._exporter is None else self._exporter.where

    def _go_away(self, why: str) -> None:
        self._away = True
        _log.warning("spans do not reach %s: %s; calls go on, their spans are lost meanwhile", self._where, why)


_Item: TypeAlias = bytes | tuple[Builder, Record] | Exception
"""Spans of a call as they are written, or what they are made of, or why they could not be."""


_Told: TypeAlias = tuple[str, list[Exception]]
"""Why an export failed, or "", and why spans of calls could not be built."""


def _export(exporter: Exporter, batch: Sequence[_Item]) -> _Told:
    """Export a batch, and build the spans that are yet to be built. Runs in the outlet's thread."""
    broken: list[Exception] = []
    return exporter.export(_spans(batch, broken)), broken


def _spans(batch: Sequence[_Item], broken: list[Exception]) -> Iterator[Span | bytes]:
    """Yield the spans of a batch, with pauses: a thread that does not sleep takes the interpreter from the event loop for
    five milliseconds at a time. A call whose spans cannot be built is told to ``broken``."""
    built = 0
    for item in batch:
        if isinstance(item, bytes):
            yield item
            continue
        if isinstance(item, Exception):
            broken.append(item)
            continue
        builder, record = item
        try:
            spans = builder.spans(record)
        except Exception as fault:  # as above: the others of the batch are not to suffer
            broken.append(fault)
            continue
        yield from spans
        built += 1
        if built % SLICE == 0:
            time.sleep(PAUSE_S)


def checked_endpoint(endpoint: str) -> str:
    """Return where an exporter posts to. Raises ValueError for what is no such address, or holds a credential."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"endpoint must begin with http:// or https://, got {endpoint.partition('?')[0]!r}")
    if "@" in parts.netloc:
        raise ValueError("endpoint must hold no credentials: name them with headers")
    if parts.path in ("", "/"):
        return f"{parts.scheme}://{parts.netloc}/v1/traces"
    return endpoint


def is_installed() -> bool:
    """Whether the SDK and its exporter are there. Imports neither."""
    try:
        return all(
            find_spec(name) is not None for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
        )
    except ModuleNotFoundError:
        return False


def is_off() -> bool:
    """Whether the environment switches OpenTelemetry off as a whole."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


class Nowhere:
    """What exports nothing, and says that all is well. An Exporter."""

    where = "nowhere (OTEL_SDK_DISABLED is set)"
    takes_bytes = False

    def export(self, spans: Iterable[Span | bytes]) -> str:
        """Forget them."""
        return ""

    def close(self) -> None:
        """Nothing is open."""
