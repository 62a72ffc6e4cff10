"""An identity provider on this machine: its configuration, its keys, tokens that it signs; and every way to be broken."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any, Final

from aiohttp import web
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

AUDIENCE: Final = "headgate"
_TYPES: Final = {"ES": (ECKey, "P-256"), "RS": (RSAKey, 2048), "PS": (RSAKey, 2048), "Ed": (OKPKey, "Ed25519")}
_RSA: Final[list[Key]] = []


def make_key(kid: str | None, algorithm: str = "ES256") -> Key:
    """A key pair. RSA ones take a while to be made, so that there is one."""
    kind, size = _TYPES[algorithm[:2]]
    if kind is RSAKey:
        if not _RSA:
            _RSA.append(RSAKey.generate_key(2048))
        made = RSAKey.import_key(_RSA[0].as_dict(private=True))
    else:
        made = kind.generate_key(size)  # type: ignore[arg-type]
    parts = made.as_dict(private=True)
    return kind.import_key(parts if kid is None else {**parts, "kid": kid})  # type: ignore[arg-type]


def sign(key: Key, claims: dict[str, Any], algorithm: str = "ES256", **head: Any) -> str:
    """A token. The head names the key if that has a name."""
    header = {"alg": algorithm, **({} if key.kid is None else {"kid": key.kid}), **head}
    text = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    return f"{text}.{encoded(JWSRegistry.algorithms[algorithm].sign(text.encode(), key))}"


def encoded(data: bytes) -> str:
    """Base64 as tokens have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Listens on an ephemeral port. ``keys`` are announced; ``answer`` replaces what is said of them, ``stalls`` holds it back.

    ``asked`` are the paths that were asked for.
    """

    def __init__(self) -> None:
        self.keys: list[Key] = [make_key("one")]
        self.answer: web.Response | None = None
        self.stalls: asyncio.Event | None = None
        self.told: dict[str, Any] = {}
        self.asked: list[str] = []
        self._runner: web.BaseRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Issuer:
        self._runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.stalls is not None:
            self.stalls.set()
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def jwks_url(self) -> str:
        """Where the keys stand."""
        return self.url + "/keys"

    def key_set(self) -> dict[str, Any]:
        """The keys as they are announced."""
        return {"keys": [key.as_dict(private=False) for key in self.keys]}

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path == "/.well-known/openid-configuration":
            return web.json_response({"issuer": self.url, "jwks_uri": self.jwks_url, **self.told})
        if self.stalls is not None:
            await self.stalls.wait()
        if self.answer is not None:
            return web.Response(status=self.answer.status, body=self.answer.body, headers=self.answer.headers)
        return web.json_response(self.key_set())

    def claims(self, **more: Any) -> dict[str, Any]:
        """The claims of a good token; None takes one away."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600, **more}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: Key | None = None, algorithm: str = "ES256", **more: Any) -> str:
        """A token, good but for ``more``."""
        return sign(key or self.keys[0], self.claims(**more), algorithm)
