"""Who calls: keys of the rule file, virtual keys of a database, or tokens of an identity provider, to a principal.

A key is accepted wherever a client of any format puts one, on every front. It is compared by its hash, in constant time,
and goes no further: a provider sees it only where an upstream says ``credential: pass-through``. What a key may be used for
is asked here; how much of it, is for ``limit`` to say.
"""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeAlias

from msgspec import Meta, Struct

from ..gateway.call import OTHER_KEYS, Call
from ..gateway.chain import Next
from ..gateway.errors import AuthError
from ..gateway.facts import Grant, Principal
from ..gateway.identity.expiry import at
from ..gateway.identity.keys import PREFIX, Caller, digest_of
from ..gateway.identity.options import Globs, JwtRules
from ..gateway.relay.reply import Reply
from ..gateway.units import FilePath, Secret

if TYPE_CHECKING:
    from ..gateway.identity.book import KeyBook
    from ..gateway.identity.tokens import Tokens

_HASH: Final = "sha256:"
_USUAL: Final = 256
_MAX_SHOWN: Final = 1024
_Shown: TypeAlias = tuple[str | None, Principal]


class Key(Struct, frozen=True, forbid_unknown_fields=True):
    """One caller. Either ``key``, a reference to the secret, or ``hash``, ``sha256:`` and the hex digest of it. ``routes`` and
    ``models`` are globs of what it may be used for, models as the caller names them; ``expires`` is a date."""

    name: Annotated[str, Meta(min_length=1)]
    key: Secret | None = None
    hash: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")] | None = None
    team: str | None = None
    tenant: str = ""
    tags: tuple[str, ...] = ()
    routes: Globs = ("*",)
    models: Globs = ("*",)
    expires: str | None = None

    def __post_init__(self) -> None:
        if self.expires is not None:
            at(self.expires)


class AuthOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may call: the ``keys`` of this file (one whose optional environment variable is unset lets nobody in), the virtual
    keys in ``database``, which ``headgate keys`` makes, and who shows a token as ``jwt`` says. At least one of the three."""

    keys: Annotated[tuple[Key, ...], Meta(min_length=1)] = ()
    database: FilePath | None = None
    jwt: JwtRules | None = None

    needs_one_of: ClassVar[tuple[str, ...]] = ("keys", "database", "jwt")

    def __post_init__(self) -> None:
        if not self.keys and self.database is None and self.jwt is None:
            raise ValueError("say who may call: keys, database or jwt")


class Auth:
    """Refuses callers without a known key; tells the rest of the chain who it is."""

    Options: ClassVar[type[Struct]] = AuthOptions
    authenticates = True

    def __init__(self, options: AuthOptions, clock: Callable[[], float] = time.time) -> None:
        """Take the options; ``clock`` tells Unix seconds."""
        self.key_database = options.database
        self._clock = clock
        self._static: dict[bytes, Caller] = {}
        self._shown: dict[str, _Shown] = {}
        for key in options.keys:
            digest = _digest(key)
            if digest is None:
                continue
            if digest in self._static:
                other = self._static[digest].principal.key
                raise ValueError(f"the keys {other!r} and {key.name!r} are the same secret")
            grant = Grant.of(key.routes, key.models)
            principal = Principal(key.name, key.team, key.tenant or key.name, key.tags, grant)
            expires = math.inf if key.expires is None else at(key.expires)
            self._static[digest] = Caller(digest, principal, expires)
        self._book = None if options.database is None else _book(options.database)
        self._tokens = None if options.jwt is None else _tokens(options.jwt, clock)

    def carry_over(self, old: Any, /) -> None:
        """Go on with the keys and tokens that ``old`` knows, where the rules name the same database and issuer."""
        if self._book is not None and old._book is not None and self._book.path == old._book.path:
            self._book = old._book
        if self._tokens is not None and old._tokens is not None:
            self._tokens = self._tokens.after(old._tokens)

    async def start(self) -> None:
        """Look up virtual keys and the issuer's keys, and go on doing so beside the calls."""
        if self._book is not None:
            await self._book.start()
        if self._tokens is not None:
            try:
                await self._tokens.signers.start()
            except BaseException:  # whoever starts this gave up
                if self._book is not None:
                    await self._book.stop()
                raise

    async def stop(self) -> None:
        """Look up no more."""
        if self._book is not None:
            await self._book.stop()
        if self._tokens is not None:
            await self._tokens.signers.stop()

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Pass the call on under its principal. Raises AuthError, PermissionDenied; HouseError while nobody can say."""
        facts = call.facts
        given = facts.headers.get("authorization") if OTHER_KEYS.isdisjoint(facts.headers) and not facts.query else None
        shown = None if given is None else self._shown.get(given)
        if shown is None:
            presented = call.presented_key()
            caller = self._find(presented) or await self._check(presented)
            shown = presented, caller.principal if caller.unbounded else self._admit(caller, call)
            if given is not None and caller.unbounded and caller.digest in self._static and len(given) <= _USUAL:
                self._remember(given, shown)
        call = call.copy()
        call.credential, principal = shown
        call.principal = call.decision.caller = principal
        return await call_next(call)

    def _remember(self, given: str, shown: _Shown) -> None:
        """Know the next time at once what this Authorization header shows, if nothing else does: a key of the rule file that is
        good at any time and for everything.

        A dictionary looks for texts by a hash with a secret of this process: how long that takes tells nothing of the key.
        """
        if len(self._shown) < _MAX_SHOWN:
            self._shown[given] = shown

    async def identify(self, call: Call, /) -> Principal:
        """Return who calls, without serving anything. Raises what a call would; what the key may be used for is asked only of
        one that has a route."""
        presented = call.presented_key()
        return self._admit(self._find(presented) or await self._check(presented), call)

    def _find(self, presented: str | None) -> Caller | None:
        """Return who shows this key, if that is known already."""
        if presented is None:
            raise AuthError(
                "no API key: send one as 'Authorization: Bearer …', 'x-api-key', 'api-key' or 'x-goog-api-key'"
            )
        digest = digest_of(presented)
        found = self._static.get(digest)
        if found is None and self._tokens is not None:
            found = self._tokens.find(digest)
        if found is None and self._book is not None and presented.startswith(PREFIX):
            found = self._book.find(digest)
        # A dictionary compares digests, whose bytes no caller can steer towards a known one; what it finds is compared
        # once more in constant time, so that a hash collision inside the dictionary tells nothing either.
        return found if found is not None and hmac.compare_digest(digest, found.digest) else None

    async def _check(self, presented: str | None) -> Caller:
        """Return who shows this token, which was not seen before."""
        if presented is None or self._tokens is None or not (presented.startswith("ey") and presented.count(".") == 2):
            raise AuthError("this API key is not known here")
        return await self._tokens.check(presented, digest_of(presented))

    def _admit(self, caller: Caller, call: Call) -> Principal:
        if caller.refusal:
            raise AuthError(caller.refusal)
        if caller.expires <= self._clock():
            raise AuthError(caller.expired)
        principal = caller.principal
        if principal.grant is not None and call.decision.route:
            principal.grant.check(call.decision.route, call.peek.model)
        return principal


def _digest(key: Key) -> bytes | None:
    if (key.key is None) == (key.hash is None):
        raise ValueError(f"key {key.name!r} needs either key (a secret by reference) or hash")
    if key.hash is not None:
        return bytes.fromhex(key.hash.removeprefix(_HASH))
    assert key.key is not None
    secret = key.key.read()
    return None if secret is None else digest_of(secret)


def _book(path: str) -> KeyBook:
    from ..gateway.identity.book import KeyBook  # SQLite is loaded where a rule names a database

    return KeyBook(Path(path))


def _tokens(rules: JwtRules, clock: Callable[[], float]) -> Tokens:
    try:
        from ..gateway.identity.tokens import Tokens  # needs joserfc, which is an extra
    except ImportError as fault:
        raise ValueError(f'jwt needs the extra oidc ({fault}): pip install "headgate[oidc]"') from fault
    return Tokens(rules, clock)
