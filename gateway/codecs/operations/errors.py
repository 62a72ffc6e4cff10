"""Errors for callers of operations: OpenAI's error object, in which a provider's own may pass as it came."""

from __future__ import annotations

from typing import Final

from ...errors import GatewayError
from ...wire.members import json_object
from .. import openai_errors

_SAME_SHAPE: Final = frozenset({"openai.chat"})
"""The format of providers' errors that are of this shape already."""


def encode_error(error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Write an error response: status, headers, body; ``code`` is the kind."""
    same = error.format in _SAME_SHAPE and error.raw and json_object(error.raw)
    return openai_errors.encode_error(error, request_id, error.raw if same else None)
