"""Errors of Chat Completions and of the many that speak it nearly: response bodies, frames in a stream, and ours."""

from __future__ import annotations

from typing import Final

from ...errors import GatewayError
from .. import openai_errors
from ..openai_errors import WORDS, ErrorReader
from .members import FORMAT

_READER: Final = ErrorReader(FORMAT, WORDS)
decode_error: Final = _READER.decode_error
error_in: Final = _READER.error_in


def encode_error(error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Write an error response: status, headers, body. The provider's own body goes out as it came."""
    return openai_errors.encode_error(error, request_id, openai_errors.own_body(error, FORMAT))


def error_frame(error: GatewayError, request_id: str) -> bytes:
    """Write the frame that ends a stream with an error."""
    return openai_errors.error_frame(error, request_id, FORMAT)
