"""What a key looks like, what is kept of it, and who turns out to call with it."""

from __future__ import annotations

import hashlib
import math
import secrets
import string
from functools import lru_cache
from typing import Final

from msgspec import Struct

from ..facts import Principal

PREFIX: Final = "hg-"
"""Every virtual key begins so: whoever finds one, in a log or a repository, can tell what it is."""
_ALPHABET: Final = string.ascii_letters + string.digits
_LENGTH: Final = 43
"""Of 62 letters and digits: 256 bits. Nobody guesses that, so that a plain hash keeps it safe."""
_SHOWN: Final = len(PREFIX) + 4


class Caller(Struct):
    """Who a key or token belongs to; treat it as immutable. ``digest`` is that of the key; ``expires`` in Unix seconds.

    ``refusal`` says why the key is no longer good, whatever the time; ``expired`` what to say after it. ``unbounded``: it is
    good at any time and for everything, so that nothing has to be asked.
    """

    digest: bytes
    principal: Principal
    expires: float = math.inf
    refusal: str = ""
    expired: str = "this API key has expired"
    unbounded: bool = False

    def __post_init__(self) -> None:
        self.unbounded = self.expires == math.inf and not self.refusal and self.principal.grant is None


def new_key() -> str:
    """Return a key that nobody has seen."""
    return PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def digest_of(key: str) -> bytes:
    """Return what is kept of a key: its SHA-256."""
    return _remembered(key) if len(key) <= _USUAL else _digest(key)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


_USUAL: Final = 256
_remembered: Final = lru_cache(1024)(_digest)
"""The same callers come again and again. They are looked up by a hash with a secret of this process, so that the time which
that takes tells nothing of other keys."""


def prefix_of(key: str) -> str:
    """Return as much of a key as may be shown, to tell it from others."""
    return key[:_SHOWN]
