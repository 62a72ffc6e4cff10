"""What is kept of an answer: the response as the caller was sent it, and the whole input that led to it.

Each entry stands for itself: a conversation goes on as long as its last answer is there, whatever became of the ones before.
The price is that turn n keeps the n - 1 before it once more; they are the first to go when the store is full. The items of an
answer are kept once more by their own ids, for clients that refer to them one by one.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from ..stores.base import Key, Store
from ..wire.members import BAD_JSON, NULL
from .errors import item_not_found

SPACE: Final = "responses"
ITEMS: Final = "response items"
_REFERENCE: Final = "item_reference"


class Policy(Struct, frozen=True):
    """Who keeps the state of a route's responses, where, and for how many seconds.

    ``upstream``: nothing is kept, and what a request says of state goes to the provider. ``none``: nothing is kept.
    """

    state: Literal["gateway", "upstream", "none"]
    store: Store
    ttl_s: float


class Kept(Struct, frozen=True):
    """``response`` is the response object, ``input`` the items before it, all of them as they came."""

    response: Raw
    input: tuple[Raw, ...]


class _Outline(Struct):
    id: str = ""
    output: tuple[Raw, ...] = ()


class _Item(Struct):
    id: str | None = None
    type: str | None = None
    role: Raw = NULL


_ITEM: Final = msgspec.json.Decoder(_Item)
_DECODER: Final = msgspec.json.Decoder(Kept)
_OUTLINE: Final = msgspec.json.Decoder(_Outline)


def key_of(tenant: str, id: str) -> Key:
    """Where a response is kept."""
    return Key(SPACE, tenant, id)


def keep(policy: Policy, tenant: str, response: bytes, items: tuple[Raw, ...]) -> None:
    """Keep an answer of ``tenant``. One without an id cannot be asked for, and is not kept."""
    try:
        told = _OUTLINE.decode(response)
    except BAD_JSON:
        return
    if not told.id:
        return
    for raw in told.output:
        if id := _item(raw).id:
            policy.store.put(Key(ITEMS, tenant, id), bytes(raw), policy.ttl_s)
    value = msgspec.json.encode(Kept(Raw(response), items))
    policy.store.put(key_of(tenant, told.id), value, policy.ttl_s)


def forget(store: Store, tenant: str, id: str, kept: Kept) -> None:
    """Keep a response and its items no longer."""
    for raw in _OUTLINE.decode(kept.response).output:
        if item := _item(raw).id:
            store.delete(Key(ITEMS, tenant, item))
    store.delete(key_of(tenant, id))


def read(value: bytes) -> Kept:
    """Return what ``keep`` wrote."""
    return _DECODER.decode(value)


def conversation(kept: Kept) -> tuple[Raw, ...]:
    """Return the items up to and including the answer: what the next turn's input begins with."""
    return kept.input + _OUTLINE.decode(kept.response).output


def refers(raw: Raw) -> bool:
    """Whether an item of an input only refers to one of an earlier answer. It need not say so: an id alone does."""
    return _referred(raw) is not None


def _referred(raw: Raw) -> str | None:
    data = bytes(raw)
    if b'"item_reference"' not in data and (b'"type"' in data or b'"role"' in data):
        return None  # what most items are is told without reading them
    item = _item(raw)
    refers = item.type == _REFERENCE or (item.type is None and item.role == NULL)
    return item.id or None if refers else None


async def dereferenced(store: Store, tenant: str, items: tuple[Raw, ...]) -> tuple[Raw, ...]:
    """Return ``items`` with each ``item_reference`` replaced by the item of that id.

    Raises the API's own error for one that is not there, HouseError when the store cannot be read.
    """
    wanted: dict[int, Key] = {}
    for position, raw in enumerate(items):
        if id := _referred(raw):
            wanted[position] = Key(ITEMS, tenant, id)
    if not wanted:
        return items
    whole = list(items)
    found = await store.get(list(wanted.values()))
    for (position, key), value in zip(wanted.items(), found, strict=True):
        if value is None:
            raise item_not_found(key.name)
        whole[position] = Raw(value)
    return tuple(whole)


def _item(raw: Raw) -> _Item:
    try:
        return _ITEM.decode(raw)
    except BAD_JSON:  # no object, or an id that is no text: what it is worth the codec says
        return _Item()
