"""What is known of an account as it stands in a store: found there after a restart, by other workers and the command line.

Several processes write the same record, each over what it has just read. What they write is such that it may be merged in any
order and any number of times: the longer cooldown stands, the later word decides between cooldown and none, and each process
counts for itself. No credential is in it: ``mark`` only tells one key from another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from ..stores.base import Key

SPACE: Final = "accounts"
MAX_EVENTS: Final = 20
MAX_SCOPES: Final = 256
"""Models of which cooldowns are known, for each account."""
_MAX_WRITERS: Final = 32
_KEPT_S: Final = 7 * 86400.0
"""How long it is known that a cooldown was over."""


class Cooldown(Struct, frozen=True, omit_defaults=True):
    """An account that is left alone, or was. Times are Unix seconds: ``at`` is when that was said last, ``until`` is None
    until somebody resets it, and 0 if the account is back. ``length_s`` is how long it was to last."""

    at: float
    until: float | None
    kind: str = ""
    why: str = ""
    length_s: float | None = None


class Event(Struct, frozen=True, omit_defaults=True):
    """Something that happened to an account: ``cooling``, ``parked``, ``back``, ``reset``, ``failed``. ``for_s``: how long it
    is left alone."""

    at: float
    what: str
    model: str = ""
    kind: str = ""
    why: str = ""
    for_s: float | None = None


class Counts(Struct, frozen=True):
    """What one process counted since it started; ``at`` is when it wrote that."""

    at: float
    calls: int
    errors: int
    in_flight: int


class Record(Struct, frozen=True, omit_defaults=True):
    """``cooldowns`` are by model, "" being all of them; ``counts`` by process."""

    mark: str
    cooldowns: Mapping[str, Cooldown] = {}
    events: tuple[Event, ...] = ()
    counts: Mapping[str, Counts] = {}

    def encode(self) -> bytes:
        """Return it as it is kept."""
        return _ENCODER.encode(self)


class Reset(Struct, frozen=True):
    """Somebody's word that all cooldowns of an account up to ``at`` are over."""

    at: float

    def encode(self) -> bytes:
        """Return it as it is kept."""
        return _ENCODER.encode(self)


_ENCODER: Final = msgspec.json.Encoder()
_RECORD: Final = msgspec.json.Decoder(Record)
_RESET: Final = msgspec.json.Decoder(Reset)


def record_key(pool: str, id: str) -> Key:
    """Where the record of an account stands."""
    return Key(SPACE, "", f"{pool}/{id}")


def reset_key(pool: str, id: str) -> Key:
    """Where its last reset stands: apart, so that no process that writes the record can write over it."""
    return Key(SPACE, "", f"{pool}/{id}/reset")


def mark_of(credential: str) -> str:
    """Return what tells one key from another, and leads back to none."""
    return blake2b(credential.encode(), digest_size=4, person=b"headgate").hexdigest()


def read_record(data: bytes | None) -> Record | None:
    """Return what is kept; None where nothing is, or something else."""
    try:
        return None if data is None else _RECORD.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None


def read_reset(data: bytes | None) -> float:
    """Return when the last reset was, 0 if there was none."""
    try:
        at = 0.0 if data is None else _RESET.decode(data).at
    except (msgspec.DecodeError, RecursionError):
        return 0.0
    return at if math.isfinite(at) else 0.0


def later(one: Cooldown | None, other: Cooldown) -> Cooldown:
    """Return what holds of two words about the same scope."""
    if one is None:
        return other
    if one.until == 0 or other.until == 0:
        return max(one, other, key=lambda each: (each.at, each.until == 0))
    endless = one.until is None or (other.until is not None and one.until >= other.until)
    longer = one if endless else other
    return longer if longer.at >= max(one.at, other.at) else msgspec.structs.replace(longer, at=max(one.at, other.at))


def merge(one: Record, other: Record | None) -> Record:
    """Return what holds of two records; of ``one`` alone if the other is about another key."""
    if other is None or other.mark != one.mark:
        return one
    cooldowns = dict(other.cooldowns)
    for scope, cooldown in one.cooldowns.items():
        cooldowns[scope] = later(cooldowns.get(scope), cooldown)
    counts = {**other.counts, **one.counts}
    if len(counts) > _MAX_WRITERS:
        newest = sorted(counts, key=lambda writer: counts[writer].at)[-_MAX_WRITERS:]
        counts = {writer: counts[writer] for writer in newest}
    return Record(one.mark, pruned(cooldowns), latest((*one.events, *other.events)), counts)


def latest(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return the last of ``events``, each once, in order."""
    return tuple(sorted(set(events), key=lambda event: event.at)[-MAX_EVENTS:])


def pruned(cooldowns: Mapping[str, Cooldown]) -> Mapping[str, Cooldown]:
    """Return ``cooldowns`` without those that were over long before the latest of them, and at most MAX_SCOPES."""
    if not cooldowns:
        return cooldowns
    newest = max(each.at for each in cooldowns.values())
    kept = {scope: each for scope, each in cooldowns.items() if each.until != 0 or each.at > newest - _KEPT_S}
    if len(kept) > MAX_SCOPES:
        last = sorted(kept, key=lambda scope: (kept[scope].until != 0, kept[scope].at))[-MAX_SCOPES:]
        kept = {scope: kept[scope] for scope in last}
    return kept


def standing(record: Record, reset_at: float, unix: float) -> dict[str, Cooldown]:
    """Return the cooldowns of a record that hold at ``unix``, after a reset at ``reset_at``."""
    return {
        scope: each
        for scope, each in record.cooldowns.items()
        if each.until != 0 and each.at > reset_at and (each.until is None or each.until > unix)
    }
