"""The letters of a file: base64, in the standard alphabet or in the one for URLs, padded or not, as Google reads it.

Google's Python SDK writes the one for URLs. No other API reads that, so the IR holds the standard spelling, and the members
that stand beside the data remember the caller's.

Source: ProtoJSON, bytes: "either standard or URL-safe base64 encoding with/without paddings are accepted".
"""

from __future__ import annotations

from typing import Final

from ...ir.message import NO_EXTRA, Extra
from ...wire.members import NULL

_FOR_URLS: Final = "inlineData.data.url"
_UNPADDED: Final = "inlineData.data.unpadded"
"""With the value null in the extra of a file: how its letters were spelled."""
SPELLINGS: Final = (_FOR_URLS, _UNPADDED)


def standard(data: str) -> tuple[str, Extra]:
    """Return ``data`` in the standard spelling, and what remembers its own: nothing where it is the same."""
    if len(data) % 4 == 0 and "-" not in data and "_" not in data:
        return data, NO_EXTRA
    marks = {}
    if "-" in data or "_" in data:
        marks[_FOR_URLS] = NULL
        data = data.replace("-", "+").replace("_", "/")
    if len(data) % 4 > 1:  # one letter over is a fault that no padding mends
        marks[_UNPADDED] = NULL
        data += "=" * (-len(data) % 4)
    return data, marks


def as_spelled(data: str, extra: Extra) -> str:
    """Return standard ``data`` as the caller spelled it, by what ``extra`` remembers."""
    if _UNPADDED in extra:
        data = data.rstrip("=")
    if _FOR_URLS in extra:
        data = data.replace("+", "-").replace("/", "_")
    return data
