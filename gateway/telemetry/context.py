"""W3C Trace Context as callers send it: read strictly, and ignored as a whole where it is not what the standard says.

Source: W3C Trace Context, traceparent and tracestate, https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
from typing import Final

_HEX: Final = "0123456789abcdef"
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_MAX_STATE: Final = 512
_MAX_MEMBERS: Final = 32
_MEMBER: Final = re.compile(
    r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


def read_traceparent(value: str) -> tuple[str, str, int] | None:
    """Return the trace id, the span id and the flags of a traceparent; None if it is not one.

    A later version than ours may say more after the flags: what we know of it holds.
    """
    length = len(value)
    if length < 55 or value[2] != "-" or value[35] != "-" or value[52] != "-":
        return None
    version, trace_id, span_id, flags = value[:2], value[3:35], value[36:52], value[53:55]
    # What is left of a text when its hex digits are stripped: nothing, if it was nothing else.
    if (version + trace_id + span_id + flags).strip(_HEX) or version == "ff":
        return None
    if length > 55 and (version == "00" or value[55] != "-"):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return trace_id, span_id, int(flags, 16)


def read_tracestate(value: str) -> str:
    """Return a tracestate as it may be passed on; "" if it is not one."""
    if not value or len(value) > _MAX_STATE:
        return ""
    members = [member.strip(" \t") for member in value.split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > _MAX_MEMBERS or len(keys) < len(members):
        return ""
    return ",".join(members) if all(map(_MEMBER.fullmatch, members)) else ""
