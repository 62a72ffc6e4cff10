"""The event loops that tests run on: asyncio's, and uvloop as well for what stands close to a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec

import pytest


def factories(item: pytest.Item, twice: Collection[str]) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return what makes the loops of ``item``: both kinds for the modules named in ``twice``."""
    if item.path.stem not in twice or find_spec("uvloop") is None:
        return {"asyncio": asyncio.new_event_loop}
    from uvloop import new_event_loop

    return {"asyncio": asyncio.new_event_loop, "uvloop": new_event_loop}
