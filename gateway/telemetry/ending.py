"""How a call ended, for those who tell of it: as which error, and with which status."""

from __future__ import annotations

import asyncio
from time import monotonic

from ..call import Call
from ..errors import GatewayError, UpstreamTimeout
from ..relay.scope import ending_of


def error_of(fault: BaseException, call: Call) -> GatewayError:
    """Return what is said of ``fault``. What cancels a call after its deadline is that deadline."""
    overdue = call.deadline is not None and monotonic() >= call.deadline
    if overdue and isinstance(fault, asyncio.CancelledError):
        return UpstreamTimeout("the call took longer than its total time-out", kind="timeout.total")
    return ending_of(fault)


def status_of(call: Call, error: GatewayError) -> int:
    """Return the HTTP status that the caller saw, in the words of its format; 200 where it had been said before. One who left
    saw none."""
    if error.kind == "cancelled":
        return error.status
    return 200 if call.scope.committed else call.codec.encode_error(error, call.request_id)[0]
