"""Ids of requests, traces and spans: random, in hex, and no secrets.

They are made by the block, since each call needs three or four of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Final

_BLOCK: Final = 256


def _block(digits: int) -> list[str]:
    text = random.randbytes(_BLOCK * digits // 2).hex()  # noqa: S311  # no secret
    return [text[at : at + digits] for at in range(0, len(text), digits)]


def _endless(digits: int) -> Iterator[str]:
    # In C, and so for several threads at once, as a generator is not.
    return chain.from_iterable(iter(partial(_block, digits), None))


_requests = _endless(24)
_spans = _endless(16)


def request_id() -> str:
    """Return the id of a request."""
    return f"req_{next(_requests)}"


def span_id() -> str:
    """Return 16 hex digits: a span's id, or one half of a trace's."""
    return next(_spans)


def _renew() -> None:
    global _requests, _spans
    _requests, _spans = _endless(24), _endless(16)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)  # or parent and child would go on with the same
