"""What a caller wants of the cache for one call: RFC 9111's words for a request, and ours for those who cannot set them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

_OURS: Final[Mapping[str, str]] = {"bypass": "no-store", "refresh": "no-cache", "only": "only-if-cached"}


class Wish(NamedTuple):
    """``refresh``: a fresh answer; ``bypass``: one that is not kept either; ``only``: a kept one or none; ``max_age``: one
    that is at most so many seconds old."""

    bypass: bool = False
    refresh: bool = False
    only: bool = False
    max_age: int | None = None


def read_wish(headers: Mapping[str, str]) -> Wish:
    """Read ``cache-control`` and ``headgate-cache``, names in lower case. What is not known or wrong says nothing."""
    usual = headers.get("cache-control", "").lower().split(",")
    ours = headers.get("headgate-cache", "").lower().split(",")
    words = {word.strip() for word in usual} | {_OURS.get(word.strip(), word.strip()) for word in ours}
    max_age: int | None = None
    for word in words:
        name, _, value = word.partition("=")
        value = value.strip(' "')
        if name.strip() == "max-age" and value.isascii() and value.isdigit():
            seconds = int(value[:10])
            max_age = seconds if max_age is None else min(seconds, max_age)
    return Wish("no-store" in words, "no-cache" in words or max_age == 0, "only-if-cached" in words, max_age)
