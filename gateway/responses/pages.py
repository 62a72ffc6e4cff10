"""What is kept, as the API shows it: the input items page by page, a deletion, the events of an answer once more.

Sources: ``ResponseItemList``, ``InputItemListParams`` and ``ResponseRetrieveParams`` of OpenAI's SDK 3.52.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Raw

from ..codecs.base import AnswerContext, Codec
from ..errors import CallerError
from ..ir.event import Chunk
from ..wire.members import BAD_JSON, OBJECT, encode_json, is_string, string_of
from ..wire.sse import parse_frame
from .kept import Kept

MAX_LIMIT: Final = 100
_DEFAULT_LIMIT: Final = 20
_HEADS: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
_STATUS: Final = frozenset({"message", "function_call", "function_call_output"})


def deleted(id: str) -> bytes:
    """Return what the API says when a response is gone."""
    return encode_json({"id": id, "object": "response", "deleted": True})


def input_items(id: str, kept: Kept, query: Mapping[str, str]) -> bytes:
    """Return a page of the input items of the response ``id``, the newest first unless ``order`` is ``asc``.

    An item that came without an id is given one, the same each time. Raises CallerError for a query that says nothing.
    """
    limit, order, after = _limit(query), query.get("order") or "desc", query.get("after")
    if order not in ("asc", "desc"):
        raise CallerError(f"order: expected asc or desc, got {order[:20]!r}", param="order")
    items = [_shown(raw, id, position) for position, raw in enumerate(kept.input)]
    ids = [identity for identity, _ in items]
    if order == "desc":
        items.reverse()
        ids.reverse()
    start = 0
    if after:
        if after not in ids:
            raise CallerError(f"after: no item {after[:100]!r} here", param="after")
        start = ids.index(after) + 1
    page = items[start : start + limit]
    return encode_json(
        {
            "object": "list",
            "data": [item for _, item in page],
            "first_id": page[0][0] if page else None,
            "last_id": page[-1][0] if page else None,
            "has_more": start + limit < len(items),
        }
    )


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit") or str(_DEFAULT_LIMIT)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_LIMIT):
        raise CallerError(f"limit: expected a number from 1 to {MAX_LIMIT}, got {text[:20]!r}", param="limit")
    return int(text)


def _shown(raw: Raw, response_id: str, position: int) -> tuple[str, dict[str, Any]]:
    """Return an item's id and the item, spelled out as the API returns it: typed, with an id, its content in parts."""
    item: dict[str, Any] = dict(OBJECT.decode(raw))
    kind = _text(item.get("type")) or "message"
    id = _text(item.get("id"))
    if not id:
        digest = hashlib.sha256(f"{response_id}/{position}".encode()).hexdigest()
        id = f"{_HEADS.get(kind, 'item')}_{digest[:48]}"
    shown: dict[str, Any] = {"id": id, "type": kind}
    if kind in _STATUS:
        shown["status"] = item.get("status", "completed")
    shown |= {name: member for name, member in item.items() if name not in shown}
    content = item.get("content")
    if kind == "message" and isinstance(content, Raw) and is_string(content):
        spoken = _text(item.get("role")) == "assistant"
        part: dict[str, Any] = {"type": "output_text" if spoken else "input_text", "text": content}
        shown["content"] = [{**part, "annotations": []} if spoken else part]
    return id, shown


def _text(raw: object) -> str:
    return string_of(raw, "input") if isinstance(raw, Raw) and is_string(raw) else ""


def starting_after(query: Mapping[str, str]) -> int:
    """Return the number of the last event that the caller has. Raises CallerError."""
    text = query.get("starting_after") or "-1"
    if not (text == "-1" or (text.isascii() and text.isdigit() and len(text) < 10)):
        raise CallerError(f"starting_after: expected the number of an event, got {text[:20]!r}", param="starting_after")
    return int(text)


def replay(kept: Kept, codec: Codec, after: int) -> bytes:
    """Return the events that tell the answer, those numbered above ``after``.

    They say the same as those that were sent, in as few steps as it takes: nobody knows the pieces any more.
    """
    encoder = codec.stream_encoder(AnswerContext())
    data = encoder.encode(Chunk(codec.decode_response(bytes(kept.response)))) + encoder.close(None)
    frames = data.split(b"\n\n")[:-1]
    return b"".join(frame + b"\n\n" for frame in frames if _number(frame) > after)


def _number(frame: bytes) -> int:
    try:
        return int(bytes(OBJECT.decode(parse_frame(frame)[1] or b"")["sequence_number"]))
    except (*BAD_JSON, KeyError, ValueError):
        return 0
