"""Gemini's resumable uploads: who began one may go on without a key, as Google's SDK does.

The address of such an upload is a secret of its own, which the gateway hands out instead of the provider. It remembers, in
this process, whose it is.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, urlsplit

_URL: Final = "x-goog-upload-url"
_STATUS: Final = "x-goog-upload-status"
_MOST: Final = 10_000
_LIFE_S: Final = 24 * 3600.0


class Uploads:
    """Those that are under way: at most 10,000, each for a day."""

    def __init__(self) -> None:
        self._begun: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def key_for(self, query: Mapping[str, str], now: float) -> str | None:
        """Return the key of who began the upload that a query names, None for one that nobody did. ``now`` in seconds."""
        found = self._begun.get(_digest(query.get("upload_id", "")))
        return found[1] if found is not None and now < found[0] else None

    def vouch(self, path: str, query: Mapping[str, str], headers: dict[str, str], now: float) -> None:
        """Put the key of who began an upload into ``headers`` of a request that goes on with it, and does nothing else."""
        goes_on = path.startswith("/upload/") and "start" not in headers.get("x-goog-upload-command", "start")
        if goes_on and (key := self.key_for(query, now)) is not None:
            headers["x-goog-api-key"] = key

    def note(self, query: Mapping[str, str], answer: Mapping[str, str], key: str | None, now: float) -> None:
        """Look at an answer to the caller with ``key``: whether it begins an upload, or ends one."""
        if key is not None and (url := answer.get(_URL)) is not None:
            for id in parse_qs(urlsplit(url).query).get("upload_id", ())[:1]:
                self._begun[_digest(id)] = now + _LIFE_S, key
                while len(self._begun) > _MOST:
                    self._begun.popitem(last=False)
        if answer.get(_STATUS) in ("final", "cancelled"):
            self._begun.pop(_digest(query.get("upload_id", "")), None)


def _digest(id: str) -> bytes:
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()
