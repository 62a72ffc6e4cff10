"""What a rule file says of tokens: whose they are, for whom, and where their claims stand."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from ..units import Duration, FilePath

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Those with a public key: with ``none`` anybody could sign, with HS whoever can read the public key."""
Globs = tuple[str, ...]
_LOWEST_REFRESH_S: Final = 10.0


class ClaimNames(Struct, frozen=True, forbid_unknown_fields=True):
    """Claims that say who calls: their names, ``a.b`` for one within another."""

    key: str = "sub"
    """Who it is. It must be there."""
    team: str | None = None
    """Their team."""
    tenant: str | None = None
    """Whose data they see; who has none is a tenant of its own."""
    tags: str | None = None
    """A list of tags, or a text of words such as a scope."""


class JwtRules(Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens that an identity provider signs."""

    issuer: Annotated[str, Meta(min_length=1)]
    """Who signs them: the claim ``iss``, letter by letter."""
    audience: str | tuple[str, ...]
    """For whom they are: the claim ``aud`` names one of these."""
    jwks_url: str | None = None
    """Where the keys stand that sign them. Without it and ``jwks`` the issuer is asked (OIDC discovery)."""
    jwks: FilePath | None = None
    """The same in a file."""
    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1)] = ("RS256", "PS256", "ES256", "EdDSA")
    """By which they may be signed."""
    leeway: Duration = Duration(30)
    """How far the issuer's clock and this one may differ."""
    refresh: Duration = Duration(600)
    """How often the keys are looked up again; a token that names one that is not known has them looked up at once."""
    claims: ClaimNames = ClaimNames()
    """Where it stands who calls."""
    require: dict[str, str | bool | int | tuple[str, ...]] = {}
    """Claims that must have this value, or one of these."""
    routes: Globs = ("*",)
    """Globs of the routes that these callers may use."""
    models: Globs = ("*",)
    """Globs of the models that they may ask for."""
    name: Annotated[str, Meta(min_length=1)] = "jwt"
    """What stands before the colon where logs and limits name them: ``jwt:alice``."""

    def __post_init__(self) -> None:
        if not self.audiences or "" in self.audiences:
            raise ValueError("audience must name for whom the tokens are")
        if self.jwks is not None and self.jwks_url is not None:
            raise ValueError("jwks and jwks_url are two places for the same keys: give one")
        if self.jwks_url is not None and not may_be_asked(self.jwks_url):
            raise ValueError("jwks_url must begin with https:// (http:// is for this machine alone)")
        if self.jwks is None and self.jwks_url is None and not may_be_asked(self.issuer):
            raise ValueError("issuer must begin with https:// to be asked for its keys: else give jwks_url or jwks")
        if self.refresh < _LOWEST_REFRESH_S:
            raise ValueError("refresh must be 10s or more")

    @property
    def source(self) -> tuple[object, ...]:
        """All that decides which signing keys are known."""
        return self.issuer, self.jwks_url, self.jwks, self.refresh

    @property
    def audiences(self) -> tuple[str, ...]:
        """Those for whom a token may be."""
        return (self.audience,) if isinstance(self.audience, str) else self.audience


def may_be_asked(url: str) -> bool:
    """Whether keys that are fetched from ``url`` can be believed: nobody stands in between."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_here(host or "")))
    except ValueError:
        return False


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
