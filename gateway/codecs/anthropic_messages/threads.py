"""Message threads: a conversation that Anthropic's server holds under an answer's id, so that the next turn is sent alone.

No other format has them, and without its first turns a conversation means something else: a request that asks for one is
refused on its way to another format, with the code on which clients send everything. Source: ``thread`` of the SDK's beta
``MessageCreateParams`` and its ``ThreadUnsupportedRequestErrorDetails`` (2.11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Raw

from ...errors import Unsupported
from .members import FORMAT, is_null

_MEMBER: Final = "thread"
_CODE: Final = "thread_unsupported_request"


def refuse_thread(format: str, members: Mapping[str, Raw]) -> None:
    """Raise Unsupported if a request of ``format`` asks for a thread among the ``members`` that the IR has no word for."""
    if format != FORMAT or (thread := members.get(_MEMBER)) is None or is_null(thread):
        return
    raise Unsupported(
        "thread: no conversation is held for this model: send all of its messages, without thread",
        param=_MEMBER,
        code=_CODE,
        details={"error_code": _CODE},
    )
