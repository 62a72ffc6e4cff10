"""Secrets that count as there although they are not: for whoever looks at rules, or tests them, where no secret is."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal, TypeAlias

from ..units import Secret

Assumed: TypeAlias = Literal["none", "required", "all"]
"""Which missing secrets count as there: none, those without which a file cannot be served, or the optional ones too."""


class _StandIn(Secret):
    """A secret that is missing, read as if it were there. It opens no door."""

    __slots__ = ()

    def read(self) -> str:
        """Return a text that is different for each reference, and has the form of ``user:password`` as well."""
        return f"stand-in:{blake2b(self.reference.encode(), digest_size=16).hexdigest()}"


def assume(secret: Secret, assumed: Assumed) -> Secret:
    """Return ``secret``, or what stands in for it if it is missing and counts as there."""
    if assumed == "none" or (assumed == "required" and secret.optional):
        return secret
    try:
        value = secret.read()
    except (LookupError, OSError, UnicodeDecodeError):
        value = None
    return _StandIn(secret.reference) if value is None else secret
