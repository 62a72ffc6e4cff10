"""A user's own words and patterns: found by one expression for all words, and by RE2 for what a user wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from ..secret_shapes import Place
from .prefilter import compiled, load_re2

MAX_PATTERN: Final = 1000
MAX_MEMORY: Final = 4 * 1024 * 1024
"""Bytes that one compiled pattern may take."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9 _.,:;@#+*=-]+")

_Trie = dict[str, Any]


def trie_pattern(words: Iterable[str]) -> str:
    """Return an expression for any of ``words`` that looks at each character of a text a bounded number of times."""
    trie: _Trie = {}
    for word in words:
        node = trie
        for each in word:
            node = node.setdefault(each, {})
        node[""] = {}
    return _written(trie)


def _written(trie: _Trie) -> str:
    # By hand on a stack would be longer and no clearer: the depth is that of the longest word, which is bounded.
    ways = [re.escape(each) + _written(rest) for each, rest in trie.items() if each]
    if not ways:
        return ""
    joined = ways[0] if len(ways) == 1 and "" not in trie else f"(?:{'|'.join(ways)})"
    return f"{joined}?" if "" in trie else joined


class Words:
    """Finds words, whole and in any case. ``plain`` is an expression for them in a body; None where escapes may hide them."""

    __slots__ = ("_search", "plain")

    def __init__(self, words: Iterable[str]) -> None:
        lowered = sorted({word.lower() for word in words})
        pattern = trie_pattern(lowered)
        self._search = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)
        self.plain = pattern if all(_PLAIN.fullmatch(word) for word in lowered) else None

    def __call__(self, text: str) -> Iterator[Place]:
        """Yield where they stand."""
        return (found.span() for found in self._search.finditer(text))


def user_pattern(pattern: str) -> Callable[[str], Iterator[Place]]:
    """Return a detector for a regular expression of RE2, which takes linear time whatever it is.

    Raises ValueError for a malformed one, or when the extra ``re2`` is not installed: the standard library's ``re`` would
    let one text hold the loop for minutes.
    """
    if (re2 := load_re2()) is None:
        raise ValueError("patterns need the extra re2: pip install 'headgate[re2]'")
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern is longer than {MAX_PATTERN} characters")
    try:
        find = compiled(re2, pattern, MAX_MEMORY).finditer
    except re2.error as fault:
        reason = fault.args[0] if fault.args else fault
        raise ValueError(reason.decode() if isinstance(reason, bytes) else str(reason)) from fault

    def places(text: str) -> Iterator[Place]:
        for found in find(text):
            start, end = found.span()
            if start < end:
                yield start, end

    return places
