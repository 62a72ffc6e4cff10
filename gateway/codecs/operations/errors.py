"""Errors for callers of operations: OpenAI's error object, in which a provider's own may pass as it came.

Source: OpenAI's ``ErrorObject`` (message, type, param, code) in its API description.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from ...errors import ErrorKind, GatewayError
from ...wire.members import encode_json, json_object

_SAME_SHAPE: Final = frozenset({"openai.chat"})
"""The format of providers' errors that are of this shape already."""
_TYPES: Final[Mapping[ErrorKind, str]] = {
    "rate_limit": "rate_limit_error",
    "quota": "insufficient_quota",
    "auth": "authentication_error",
    "account_disabled": "permission_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "context_length": "invalid_request_error",
    "content_filter": "invalid_request_error",
    "invalid_request": "invalid_request_error",
    "unsupported": "invalid_request_error",
    "too_large": "invalid_request_error",
    "upstream_error": "api_error",
}
"""``type`` for a kind; what is not here is ``server_error``."""


def encode_error(error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Write an error response: status, headers, body; ``code`` is the kind."""
    headers = {"content-type": "application/json"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if error.format in _SAME_SHAPE and error.raw and json_object(error.raw):
        return error.status, headers, error.raw
    told: dict[str, str | None] = {
        "message": error.message,
        "type": _TYPES.get(error.kind, "server_error"),
        "param": error.param,
        "code": error.kind,
    }
    if request_id:
        told["request_id"] = request_id
    return error.status, headers, encode_json({"error": told})
