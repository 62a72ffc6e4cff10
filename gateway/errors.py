"""The error tree and the list of error kinds: the only words for failure, below everything else.

Whose fault it is is the first fork::

    GatewayError
    ├── CallerError            the request: 4xx, the caller must change something
    │   ├── DecodeError        a field of it, by path
    │   ├── AuthError  PermissionDenied  NotFound  TooLarge
    │   └── Unsupported
    │       └── LossRefused    not in that upstream's format
    ├── UpstreamError          the provider, or the way to it
    │   ├── ConnectFailed  UpstreamTimeout  RateLimited  QuotaExceeded
    │   ├── Overloaded
    │   │   └── Avoided        nothing was sent: it failed too often lately
    │   ├── UpstreamAuth  ContextLength  ContentFiltered  UpstreamRefused
    │   └── Cut  Malformed
    ├── Cancelled              the caller left
    └── HouseError             ours

A kind says what happened in words that rules, logs and metrics share; each codec renders it in its own format's shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

ErrorKind = Literal[
    "connect",
    "timeout.connect",
    "timeout.pool",
    "timeout.write",
    "timeout.first_token",
    "timeout.idle",
    "timeout.total",
    "rate_limit",
    "quota",
    "overloaded",
    "unavailable",
    "upstream_error",
    "auth",
    "account_disabled",
    "permission",
    "not_found",
    "context_length",
    "content_filter",
    "invalid_request",
    "unsupported",
    "too_large",
    "cut",
    "malformed",
    "cancelled",
    "internal",
]
KINDS: Final[tuple[ErrorKind, ...]] = get_args(ErrorKind)

STATUS: Final[Mapping[ErrorKind, int]] = {
    "connect": 502,
    "timeout.connect": 504,
    "timeout.pool": 504,
    "timeout.write": 504,
    "timeout.first_token": 504,
    "timeout.idle": 504,
    "timeout.total": 504,
    "rate_limit": 429,
    "quota": 429,
    "overloaded": 503,
    "unavailable": 503,
    "upstream_error": 502,
    "auth": 401,
    "account_disabled": 403,
    "permission": 403,
    "not_found": 404,
    "context_length": 400,
    "content_filter": 400,
    "invalid_request": 400,
    "unsupported": 400,
    "too_large": 413,
    "cut": 502,
    "malformed": 502,
    "cancelled": 499,
    "internal": 500,
}
"""The HTTP status of a kind where nobody gave a better one. 499 (client closed request) is only ever logged."""

RETRYABLE: Final[frozenset[ErrorKind]] = frozenset(
    {"connect", "timeout.connect", "timeout.pool", "rate_limit", "overloaded", "unavailable", "upstream_error", "cut"}
)
"""Kinds where the same request may well succeed a moment later.

The time-outs after the request was sent are not among them: a provider that thinks for five minutes would think, and
be paid, again."""


class GatewayError(Exception):
    """A failure on its way to the caller.

    ``raw`` is the provider's own error body, valid for a caller of the same ``format`` and already free of secrets;
    ``code`` is the provider's word for the error, ``request_id`` the provider's id. ``status`` is the HTTP status that
    the caller sees, ``retry_after_s`` seconds from now. ``headers`` are in the words of the caller's format; ``limits`` are
    those in which the provider told its limits, in its own.
    """

    kind: ErrorKind = "internal"

    def __init__(
        self,
        message: str,
        *,
        kind: ErrorKind | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        code: str | None = None,
        param: str | None = None,
        details: object = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        format: str = "",
        raw: bytes | None = None,
    ) -> None:
        super().__init__(message)
        if kind is not None:
            self.kind = kind
        self.message = message
        self.status = STATUS[self.kind] if status is None else status
        self.retry_after_s = retry_after_s
        self.code = code
        self.param = param
        self.details = details
        self.request_id = request_id
        self.headers: Mapping[str, str] = headers or {}
        self.limits: Mapping[str, str] = self.headers
        self.format = format
        self.raw = raw

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed a moment later."""
        return self.kind in RETRYABLE

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind}, {self.status}, {self.message!r})"


class CallerError(GatewayError):
    """The caller's request cannot be served as it is."""

    kind: ErrorKind = "invalid_request"


class DecodeError(CallerError):
    """A field of the request is not what its format says; ``param`` is the path, for instance ``messages[2].role``."""

    def __init__(self, path: str, why: str, *, kind: ErrorKind = "invalid_request") -> None:
        super().__init__(f"{path}: {why}" if path else why, kind=kind, param=path or None)
        self.path = path
        self.why = why


class AuthError(CallerError):
    """No key, or one that nobody knows."""

    kind: ErrorKind = "auth"


class PermissionDenied(CallerError):
    """A known caller who may not do this."""

    kind: ErrorKind = "permission"


class NotFound(CallerError):
    """No such route, model or object."""

    kind: ErrorKind = "not_found"


class TooLarge(CallerError):
    """The request is above a configured limit."""

    kind: ErrorKind = "too_large"


class Unsupported(CallerError):
    """The request asks for what this route or its target cannot do."""

    kind: ErrorKind = "unsupported"


class LossRefused(Unsupported):
    """The request cannot be said whole in the upstream's format, and the route refuses what would be lost. Nothing was sent."""


class UpstreamError(GatewayError):
    """The provider failed, refused, or could not be reached. ``upstream_error`` is a 5xx without a better word."""

    kind: ErrorKind = "upstream_error"


class ConnectFailed(UpstreamError):
    """No connection: nothing was sent."""

    kind: ErrorKind = "connect"


class UpstreamTimeout(UpstreamError):
    """A deadline of the upstream passed; the kind says which."""

    kind: ErrorKind = "timeout.total"


class RateLimited(UpstreamError):
    """The provider asks for a slower pace."""

    kind: ErrorKind = "rate_limit"


class QuotaExceeded(UpstreamError):
    """The provider account has nothing left to spend."""

    kind: ErrorKind = "quota"


class Overloaded(UpstreamError):
    """The provider has no capacity just now, or is down (``unavailable``)."""

    kind: ErrorKind = "overloaded"


class Avoided(Overloaded):
    """The upstream is left alone for ``retry_after_s``: nothing was sent, and asking again before is in vain.

    Its kind is ``unavailable``, as that of an upstream that is down."""


class UpstreamAuth(UpstreamError):
    """The provider refuses our credential, or what it may do."""

    kind: ErrorKind = "auth"


class ContextLength(UpstreamError):
    """The conversation is longer than the model reads."""

    kind: ErrorKind = "context_length"


class ContentFiltered(UpstreamError):
    """The provider refuses the content."""

    kind: ErrorKind = "content_filter"


class UpstreamRefused(UpstreamError):
    """The provider finds fault with the request: the caller's to mend."""

    kind: ErrorKind = "invalid_request"


class Cut(UpstreamError):
    """The connection ended before the answer did."""

    kind: ErrorKind = "cut"


class Malformed(UpstreamError):
    """The provider's answer is not what its format says."""

    kind: ErrorKind = "malformed"


class Cancelled(GatewayError):
    """The caller left, or nobody wanted the answer any more."""

    kind: ErrorKind = "cancelled"


class HouseError(GatewayError):
    """A fault of the gateway itself."""

    kind: ErrorKind = "internal"


_UPSTREAM: Final[Mapping[str, type[UpstreamError]]] = {
    "connect": ConnectFailed,
    "timeout.connect": UpstreamTimeout,
    "timeout.pool": UpstreamTimeout,
    "timeout.write": UpstreamTimeout,
    "timeout.first_token": UpstreamTimeout,
    "timeout.idle": UpstreamTimeout,
    "timeout.total": UpstreamTimeout,
    "rate_limit": RateLimited,
    "quota": QuotaExceeded,
    "overloaded": Overloaded,
    "unavailable": Overloaded,
    "auth": UpstreamAuth,
    "account_disabled": UpstreamAuth,
    "permission": UpstreamAuth,
    "context_length": ContextLength,
    "content_filter": ContentFiltered,
    "invalid_request": UpstreamRefused,
    "not_found": UpstreamRefused,
    "unsupported": UpstreamRefused,
    "too_large": UpstreamRefused,
    "cut": Cut,
    "malformed": Malformed,
}


def upstream_error(kind: ErrorKind, message: str, **fields: object) -> UpstreamError:
    """Return the UpstreamError whose class belongs to ``kind``; ``fields`` as GatewayError takes them."""
    return _UPSTREAM.get(kind, UpstreamError)(message, kind=kind, **fields)  # type: ignore[arg-type]
