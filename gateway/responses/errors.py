"""What the Responses API says about ids it does not know, word for word: clients look for these codes and messages.

Sources: OpenAI's answers as quoted in public issue trackers, 2025 and 2026. What is not there is a 404 over HTTP, wherever
its id stands; in WebSocket mode a ``previous_response_id`` that is not there is a 400, as that mode's guide shows it.
"""

from __future__ import annotations

from typing import Final

from ..errors import CallerError, NotFound, Unsupported
from ..wire.members import encode_json

FORMAT: Final = "openai.responses"
_SHOWN: Final = 100
"""Characters of an id that an error repeats."""


def previous_not_found(id: str, status: int = 404) -> CallerError:
    """A request goes on from a response that is not there: never was, was deleted, is another's, or its time is up."""
    message = f"Previous response with id '{id[:_SHOWN]}' not found."
    param, code = "previous_response_id", "previous_response_not_found"
    return CallerError(
        message, kind="not_found", status=status, param=param, code=code, format=FORMAT, raw=_body(message, param, code)
    )


def not_found(id: str) -> NotFound:
    """A response that is asked for is not there."""
    message = f"Response with id '{id[:_SHOWN]}' not found."
    return NotFound(message, format=FORMAT, raw=_body(message))


def item_not_found(id: str) -> NotFound:
    """An item of the input refers to one that is not there."""
    message = (
        f"Item with id '{id[:_SHOWN]}' not found. Items are not persisted when `store` is set to false. "
        "Try again with `store` set to true, or remove this item from your input."
    )
    return NotFound(message, param="input", format=FORMAT, raw=_body(message, "input"))


def not_in_background() -> CallerError:
    """A response that cannot be cancelled: when its id is known, it is over."""
    message = "Cannot cancel a synchronous response."
    return CallerError(message, format=FORMAT, raw=_body(message))


def not_served(param: str, why: str) -> Unsupported:
    """A member of the request that needs more state than is kept here."""
    return Unsupported(f"{param}: {why}", status=501, param=param)


def _body(message: str, param: str | None = None, code: str | None = None) -> bytes:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return encode_json({"error": error})
