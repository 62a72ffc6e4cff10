"""Which transport serves an upstream: the lean one where it can, aiohttp's client for the rest."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Literal

from .base import Transport
from .options import TransportOptions

TransportName = Literal["auto", "lean", "aiohttp"]


class CannotServe(ValueError):
    """The transport asked for by name cannot serve these options, or here. ``hint`` says what to do."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.hint = hint


def open_transport(options: TransportOptions | None = None, name: TransportName = "auto") -> Transport:
    """Return a transport; nothing is connected yet. ``auto`` is the lean one where it can serve.

    Raises CannotServe, or a ValueError that begins with the name of an option that cannot be.
    """
    options = TransportOptions() if options is None else options
    if name != "aiohttp":
        why = _why_not_lean(options)
        if why is None:
            from .lean import LeanTransport  # needs httptools, which is an extra

            return LeanTransport(options)
        if name == "lean":
            raise why
    from .session import SessionTransport

    return SessionTransport(options)


def _why_not_lean(options: TransportOptions) -> CannotServe | None:
    for field in ("proxy", "unix_socket"):
        if getattr(options, field) is not None:
            return CannotServe(f"transport: lean cannot serve pool.{field}", "write transport: auto, or leave it out")
    if sys.platform == "win32":  # its loop reads while others parse: connections cannot share a buffer there
        return CannotServe("transport: lean is not for Windows", "write transport: auto, or leave it out")
    if find_spec("httptools") is None:
        return CannotServe(
            "transport: lean needs the extra lean", 'pip install "headgate[lean]", or write transport: auto'
        )
    return None
