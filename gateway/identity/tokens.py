"""Tokens that an identity provider signs (JWT): checked once, then known by their hash until they expire. Needs joserfc.

The signature comes first: nothing that a token claims counts, or is told about, before that. Source: RFC 7519, RFC 8725.
"""

from __future__ import annotations

import binascii
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry
from msgspec import Struct

from ..errors import AuthError, PermissionDenied
from ..facts import Grant, Principal
from .keys import Caller
from .options import JwtRules
from .signers import Signers

MAX_KNOWN: Final = 10_000
"""So many tokens are remembered; the one that was met first makes room."""
MAX_CLAIM: Final = 256
"""Characters of a claim that becomes a name."""
_MAX_TAGS: Final = 100
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]").search
"""Finds what would begin a line of its own in a log, and whatever else is no letter: people choose some claims themselves."""
_FAR: Final = 1e12
_EXPIRED: Final = "this token has expired"
Claims = Mapping[str, object]


class _Head(Struct):
    alg: str
    kid: str | None = None


_HEAD: Final = msgspec.json.Decoder(_Head)
_CLAIMS: Final = msgspec.json.Decoder(dict[str, object])


class _Registry(JWSRegistry):
    """The rules' algorithms alone, those of the older names too, and heads that carry certificates."""

    max_header_length = 8192

    def get_alg(self, name: str) -> JWSAlgModel:
        """Return an algorithm that is allowed. joserfc would warn of EdDSA, which is how most of them call Ed25519."""
        if self.allowed is None or name not in self.allowed or name not in self.algorithms:
            raise JoseError("this algorithm is not allowed")
        return self.algorithms[name]


class Tokens:
    """The tokens of one issuer. ``clock`` tells Unix seconds."""

    def __init__(self, rules: JwtRules, clock: Callable[[], float] = time.time, signers: Signers | None = None) -> None:
        self.rules = rules
        self.signers = signers or Signers(rules)
        self._clock = clock
        self._registry = _Registry(algorithms=rules.algorithms, strict_check_header=False)
        self._grant = Grant.of(rules.routes, rules.models)
        self._known: dict[bytes, Caller] = {}
        self._version = 0

    def __len__(self) -> int:
        return len(self._known)

    def after(self, old: Tokens) -> Tokens:
        """Return what to go on with after a reload: ``old`` where the rules are the same; else this, with the keys that ``old``
        knows, if they come from the same place."""
        if old.rules == self.rules:
            return old
        if old.rules.source == self.rules.source:
            self.signers = old.signers
        return self

    def find(self, digest: bytes) -> Caller | None:
        """Return whose token this is, if it was checked already. Costs one look into a dictionary."""
        if self._version != self.signers.version:  # a key may have been taken back
            self._known.clear()
            self._version = self.signers.version
        return self._known.get(digest)

    async def check(self, token: str, digest: bytes) -> Caller:
        """Return whose token this is. Raises AuthError, PermissionDenied; HouseError while nobody can say."""
        head = _head(token)
        if head.alg not in self.rules.algorithms:
            raise AuthError(f"tokens signed with {head.alg[:20]!r} are not accepted here")
        key = await self.signers.find(head.kid, head.alg)
        claims = self._signed(token, head, key)
        if claims is None and (newer := await self.signers.another(key, head.kid, head.alg)) is not None:
            claims = self._signed(token, head, newer)
        if claims is None:
            raise AuthError("this token is not signed by its issuer, or was changed since")
        caller = self._caller(claims, digest)
        self.find(digest)  # the keys may be others by now
        while len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[digest] = caller
        return caller

    def _signed(self, token: str, head: _Head, key: Key) -> Claims | None:
        """Return what the token claims; None where ``key`` did not sign that."""
        try:
            payload = jws.deserialize_compact(token, key, [head.alg], self._registry).payload
            return _CLAIMS.decode(payload or b"")
        except (JoseError, ValueError, TypeError, RecursionError):
            return None

    def _caller(self, claims: Claims, digest: bytes) -> Caller:
        rules, now = self.rules, self._clock()
        if claims.get("iss") != rules.issuer:
            raise AuthError("this token is from another issuer")
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if not any(each in named for each in rules.audiences):
            raise AuthError("this token is for another audience")
        expires = _time(claims, "exp")
        if expires is None:
            raise AuthError("this token never expires (exp): such are not accepted here")
        if expires + rules.leeway <= now:
            raise AuthError(_EXPIRED)
        for name in ("nbf", "iat"):
            if (_time(claims, name) or 0.0) > now + rules.leeway:
                raise AuthError(f"this token is not valid yet ({name})")
        for name, wanted in rules.require.items():
            if not _meets(_claim(claims, name), wanted):
                raise PermissionDenied(
                    f"the claim {name!r} of this token does not have the value that is asked for here"
                )
        names = rules.claims
        key = _name(claims, names.key)
        if key is None:
            raise AuthError(f"this token does not say whose it is: it needs the claim {names.key!r}")
        own = f"{rules.name}:{key}"
        team = None if names.team is None else _name(claims, names.team)
        tenant = None if names.tenant is None else _name(claims, names.tenant)
        tags = () if names.tags is None else _tags(claims, names.tags)
        principal = Principal(own, team, tenant or own, tags, self._grant)
        return Caller(digest, principal, expires + rules.leeway, "", _EXPIRED)


def _head(token: str) -> _Head:
    first = token.partition(".")[0]
    try:
        return _HEAD.decode(urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise AuthError("this token cannot be read") from None


def _time(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AuthError(f"the claim {name!r} of this token is no time")
    return float(max(-_FAR, min(value, _FAR)))


def _claim(claims: Claims, name: str) -> object:
    """Return a claim, or one within another: a name with dots may be either."""
    found: object = claims.get(name)
    if found is not None or "." not in name:
        return found
    found = claims
    for step in name.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _name(claims: Claims, name: str) -> str | None:
    value = _claim(claims, name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not _is_name(text := str(value)):
        raise AuthError(f"the claim {name!r} of this token is no text of at most {MAX_CLAIM} printable characters")
    return text


def _is_name(text: str) -> bool:
    return len(text) <= MAX_CLAIM and _CONTROLS(text) is None


def _tags(claims: Claims, name: str) -> tuple[str, ...]:
    value = _claim(claims, name)
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(word for word in words if isinstance(word, str) and _is_name(word))[:_MAX_TAGS]


def _meets(value: object, wanted: str | bool | int | tuple[str, ...]) -> bool:
    options = wanted if isinstance(wanted, tuple) else (wanted,)
    values = value if isinstance(value, list) else [value]
    return any(type(each) is type(option) and each == option for each in values for option in options)
