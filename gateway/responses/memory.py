"""What one connection remembers: the last response of each of its lanes, gone with the connection.

It is what ``previous_response_id`` finds although nothing may be stored, and the only thing that a warm-up leaves behind.
Source: the WebSocket mode of OpenAI's Responses API, November 2026: the latest response of each lane is held in the memory
of the connection, a failed turn drops the response that it went on from, and any lane may go on from any other's.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from ..wire.members import BAD_JSON
from .kept import Kept, read


class _Named(Struct):
    id: str = ""


_NAMED: Final = msgspec.json.Decoder(_Named)


class _Last(Struct, frozen=True):
    id: str
    tenant: str
    value: bytes


class Memory:
    """The memory of one connection, at most ``max_bytes``: the lanes that spoke longest ago are forgotten first."""

    __slots__ = ("_last", "_max", "_size")

    def __init__(self, max_bytes: int) -> None:
        self._last: dict[str, _Last] = {}
        self._max = max_bytes
        self._size = 0

    def find(self, tenant: str, id: str) -> Kept | None:
        """Return the response ``id`` of ``tenant`` with what led to it, if it is some lane's last."""
        found = next((last for last in self._last.values() if last.id == id and last.tenant == tenant), None)
        return None if found is None else read(found.value)

    def keep(self, lane: str, tenant: str, response: bytes, items: tuple[Raw, ...]) -> None:
        """Remember an answer in place of the lane's last one. One without an id cannot be asked for."""
        self._drop(lane)
        try:
            id = _NAMED.decode(response).id
        except BAD_JSON:
            return
        value = msgspec.json.encode(Kept(Raw(response), items))
        if not id or len(value) > self._max:
            return
        self._last[lane] = _Last(id, tenant, value)
        self._size += len(value)
        while self._size > self._max:
            self._drop(next(iter(self._last)))

    def forget(self, id: str) -> None:
        """Drop the response ``id``."""
        for lane in [lane for lane, last in self._last.items() if last.id == id]:
            self._drop(lane)

    def _drop(self, lane: str) -> None:
        last = self._last.pop(lane, None)
        if last is not None:
            self._size -= len(last.value)


class Lane(Struct, frozen=True):
    """One turn's view of the memory. ``warms``: nothing is generated, the input alone is to be remembered."""

    memory: Memory
    name: str
    warms: bool = False

    def keep(self, tenant: str, response: bytes, items: tuple[Raw, ...]) -> None:
        """Remember the turn's answer."""
        self.memory.keep(self.name, tenant, response, items)
