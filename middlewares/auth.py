"""Who calls: static keys, each with a name, to a principal. It does not know roles, budgets or other people's tokens.

The key is accepted wherever a client of any format puts one, on every front. It is compared by its hash, in constant
time, and goes no further: a provider sees it only where an upstream says ``credential: pass-through``.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from ..gateway.call import Call
from ..gateway.chain import Next
from ..gateway.errors import AuthError
from ..gateway.facts import Principal
from ..gateway.relay.reply import Reply
from ..gateway.units import Secret

_HASH: Final = "sha256:"


class Key(Struct, frozen=True, forbid_unknown_fields=True):
    """One caller. Either ``key``, a reference to the secret, or ``hash``, ``sha256:`` and the hex digest of it."""

    name: Annotated[str, Meta(min_length=1)]
    key: Secret | None = None
    hash: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")] | None = None
    team: str | None = None
    tenant: str = ""
    tags: tuple[str, ...] = ()


class AuthOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``keys``: who may call. A key whose optional environment variable is unset lets nobody in."""

    keys: Annotated[tuple[Key, ...], Meta(min_length=1)]


class Auth:
    """Refuses callers without a known key; tells the rest of the chain who it is."""

    Options: ClassVar[type[Struct]] = AuthOptions
    authenticates = True

    def __init__(self, options: AuthOptions) -> None:
        self._principals: dict[bytes, tuple[bytes, Principal]] = {}
        for key in options.keys:
            digest = _digest(key)
            if digest is None:
                continue
            if digest in self._principals:
                raise ValueError(f"the keys {self._principals[digest][1].key!r} and {key.name!r} are the same secret")
            principal = Principal(key.name, key.team, key.tenant or key.name, key.tags)
            self._principals[digest] = (digest, principal)

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Pass the call on under its principal. Raises AuthError."""
        principal, credential = self._lookup(call)
        return await call_next(call.replace(principal=principal, credential=credential))

    async def identify(self, call: Call, /) -> Principal:
        """Return who calls, without serving anything. Raises AuthError."""
        return self._lookup(call)[0]

    def _lookup(self, call: Call) -> tuple[Principal, str]:
        presented = call.presented_key()
        if presented is None:
            raise AuthError(
                "no API key: send one as 'Authorization: Bearer …', 'x-api-key', 'api-key' or 'x-goog-api-key'"
            )
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        # A dictionary compares digests, whose bytes no caller can steer towards a known one; what it finds is compared
        # once more in constant time, so that a hash collision inside the dictionary tells nothing either.
        found = self._principals.get(digest)
        if found is None or not hmac.compare_digest(digest, found[0]):
            raise AuthError("this API key is not known here")
        return found[1], presented


def _digest(key: Key) -> bytes | None:
    if (key.key is None) == (key.hash is None):
        raise ValueError(f"key {key.name!r} needs either key (a secret by reference) or hash")
    if key.hash is not None:
        return bytes.fromhex(key.hash.removeprefix(_HASH))
    assert key.key is not None
    secret = key.key.read()
    return None if secret is None else hashlib.sha256(secret.encode()).digest()
