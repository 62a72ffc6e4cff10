"""The public keys of an issuer: fetched or read beside the calls, kept while they cannot be had, never asked for too often.

A token may name a key that is not known, or is not the one that signed it: the issuer may have a new one. So the keys are
looked up once more, at most once in a while, however many such tokens come; who comes meanwhile waits for the same look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key
from msgspec import Struct

from ..errors import AuthError, HouseError
from ..transport.fetch import NotAllowed, NotFetched, fetch
from .options import JwtRules, is_here, may_be_asked
from .watched import Watched

_log = logging.getLogger("headgate.auth")
AGAIN_S: Final = 10.0
"""How long not to ask again after a look, for tokens that name a key that is not known."""
DEADLINE_S: Final = 5.0
"""For one file; with discovery there are two."""
MAX_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 100
_DISCOVERY: Final = "/.well-known/openid-configuration"
_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
_LEAST_RSA_DIGITS: Final = 342
"""Of a modulus, in base64: 2048 bits."""


class _Configuration(Struct):
    issuer: str
    jwks_uri: str


class _Set(Struct):
    keys: list[dict[str, Any]]


class _Bounds:
    """What is fetched: small, soon, from hosts that speak TLS. ``here``: or from this machine, as the rules say."""

    max_size: int = MAX_BYTES
    private: str = "allow"  # an issuer of one's own may well stand in one's own network
    timeout: float

    def __init__(self, here: bool, timeout: float) -> None:
        self._here = here
        self.timeout = timeout

    def allows(self, scheme: str, host: str, port: int | None) -> bool:
        """Whether a host may be asked."""
        return scheme == "https" or (self._here and scheme == "http" and is_here(host))


class Signers(Watched):
    """The keys of one issuer. ``version`` moves on whenever they are others. ``clock`` is monotonic."""

    def __init__(
        self, rules: JwtRules, clock: Callable[[], float] = time.monotonic, deadline_s: float = DEADLINE_S
    ) -> None:
        super().__init__("token keys", rules.refresh)
        self._rules = rules
        self._clock = clock
        here = (rules.jwks_url or rules.issuer).startswith("http:")
        self._bounds = _Bounds(here, deadline_s)
        self._keys: list[Key] = []
        self._raw: object = None
        self._next = clock()
        self._looking: asyncio.Task[None] | None = None
        self._fault: str | None = ""
        self.version = 0

    async def find(self, kid: str | None, algorithm: str) -> Key:
        """Return the key that a token names. Raises AuthError for one that is not the issuer's; HouseError while there are
        none at all."""
        key = self._known(kid, algorithm)
        if key is None:
            await self._look_again()
            key = self._known(kid, algorithm)
        if key is not None:
            return key
        if not self._keys:
            said = "the keys that sign tokens cannot be had at the moment: try again later"
            raise HouseError(said, kind="unavailable", retry_after_s=max(1.0, self._next - self._clock()))
        if kid is None:
            raise AuthError("this token does not say which key signed it (kid)")
        raise AuthError("this token is signed by a key that is not its issuer's")

    async def another(self, key: Key, kid: str | None, algorithm: str) -> Key | None:
        """Return the key that a token names, where the issuer has another by that name than ``key``, which did not sign it."""
        await self._look_again()
        found = self._known(kid, algorithm)
        return None if found is key else found

    async def _look_again(self) -> None:
        if self._looking is not None or self._clock() >= self._next:
            await self.look()

    def _known(self, kid: str | None, algorithm: str) -> Key | None:
        found = [key for key in self._keys if (kid is None or key.kid == kid) and _fits(key, algorithm)]
        return found[0] if found and (kid is not None or len(found) == 1) else None

    async def look(self) -> None:
        """Look the keys up; who comes meanwhile waits for the same. When they cannot be had, those before stay."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="headgate token keys: a look")
        await asyncio.shield(self._looking)

    async def left(self) -> None:
        """End a look that is under way."""
        if (looking := self._looking) is not None:
            looking.cancel()
            await asyncio.wait([looking])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._look_every_s if self._keys else AGAIN_S)
            await self.look()

    async def _look(self) -> None:
        try:
            await self._take(await self._document())
        except (NotFetched, OSError, ValueError, RecursionError) as fault:
            why = "it leads to a host without TLS" if isinstance(fault, NotAllowed) else str(fault)
            if self._fault != why:
                self._fault = why
                kept = f"; {len(self._keys)} known before stay" if self._keys else ""
                _log.error("the keys of the token issuer %s cannot be had: %s%s", self._rules.issuer, why, kept)
        finally:
            self._next = self._clock() + AGAIN_S
            self._looking = None

    async def _document(self) -> bytes:
        if (path := self._rules.jwks) is not None:
            return await asyncio.to_thread(_file, path)
        url = self._rules.jwks_url
        if url is None:
            told = await fetch(self._rules.issuer.rstrip("/") + _DISCOVERY, self._bounds)
            found = msgspec.json.decode(told.data, type=_Configuration)
            if found.issuer != self._rules.issuer:
                raise ValueError(
                    f"its configuration is that of another issuer, {found.issuer[:200]!r} letter by letter"
                )
            if not may_be_asked(url := found.jwks_uri):
                raise ValueError("its configuration names a jwks_uri without https")
        return (await fetch(url, self._bounds)).data

    async def _take(self, document: bytes) -> None:
        raw = msgspec.json.decode(document, type=_Set).keys
        keys = list(islice((key for each in raw if (key := _public_key(each)) is not None), MAX_KEYS))
        if not keys:
            raise ValueError("there is no public key among them that could sign a token")
        if raw != self._raw:
            self._raw, self._keys = raw, keys
            self.version += 1
        if self._fault is not None:
            log = _log.info if self._fault == "" else _log.warning
            log("the token issuer %s has %d keys", self._rules.issuer, len(self._keys))
            self._fault = None


def _file(path: str) -> bytes:
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file is larger than {MAX_BYTES} bytes")
    return data


def _public_key(told: dict[str, Any]) -> Key | None:
    """Return a key of a set; None for one that cannot be used: a set may hold keys for other things, and of types to come."""
    if told.get("kty") not in ("RSA", "EC", "OKP") or told.get("use", "sig") != "sig":
        return None
    operations = told.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if told["kty"] == "RSA" and len(str(told.get("n"))) < _LEAST_RSA_DIGITS:
        return None
    try:
        return JWKRegistry.import_key({name: told[name] for name in ("kty", "kid", "alg", *_PARTS) if name in told})
    except (JoseError, ValueError, TypeError, KeyError):
        return None


_PARTS: Final = ("n", "e", "crv", "x", "y")
"""What a public key is made of: of a private one that somebody published by mistake nothing else is read."""


def _fits(key: Key, algorithm: str) -> bool:
    if key.key_type != _TYPES[algorithm[:2]] or key.alg not in (None, algorithm):
        return False
    return algorithm not in _CURVES or key.get("crv") == _CURVES[algorithm]
