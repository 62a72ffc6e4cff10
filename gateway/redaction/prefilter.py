"""Is there anything to look for at all? On bytes, before anybody decodes them: most requests hold nothing.

With the extra ``re2`` it is one pass of an automaton, some 2 us and another for each KB; without, a few passes of what bytes
can do by themselves. False is certain, True is a reason to look.
"""

from __future__ import annotations

import importlib
import re
import string
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any, Final

from ..secret_shapes import MARKS, NAMES
from .folding import FOLDED, folded, needs_folding

Test = Callable[[bytes], object]
MAX_MEMORY: Final = 16 * 1024 * 1024
"""Bytes that the automaton may take."""


def load_re2() -> ModuleType | None:
    """Return the module of the extra, if it is installed."""
    try:
        return importlib.import_module("re2")
    except ImportError:
        return None


def compiled(re2: Any, pattern: str | bytes, max_memory: int = MAX_MEMORY) -> Any:
    """Compile by RE2. Raises ``re2.error``."""
    options = re2.Options()
    options.max_mem = max_memory
    options.log_errors = False
    return re2.compile(pattern, options)


_NUMBER: Final = r"[0-9](?:[ ()./\\+\-]{0,6}[0-9]){6}"
_QUICK: Final = {
    "email": "@",
    "phone": _NUMBER,
    "card": _NUMBER,
    "iban": r"[A-Za-z]{2}[0-9]{2}[ A-Za-z0-9\-]{11}",
    "ip": r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|:(?::|[0-9A-Fa-f]{1,4}:)[0-9A-Fa-f]",
    "secret": rf"(?:{'|'.join(map(re.escape, MARKS))})[A-Za-z0-9+/=_.\\\-]{{8}}|-----BEGIN"
    rf"|:\\{{0,8}}/\\{{0,8}}/[^/ \"@]*:[^ \"@]*@|(?i:{'|'.join(NAMES)})[ \t\"'\\:=>]{{1,16}}[A-Za-z0-9._~+/\\\-]{{12}}",
}
"""What anything of a kind has in it, in a JSON text; RE2's syntax."""
_IPV4: Final = re.compile(rb"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_IPV6: Final = re.compile(rb":(?::|[0-9A-Fa-f]{1,4}:)[0-9A-Fa-f]")
_IBAN: Final = re.compile(_QUICK["iban"].encode())
_FLAT: Final = bytes(
    48 if chr(byte) in string.digits else 65 if chr(byte) in string.ascii_letters else byte for byte in range(256)
)
"""Digits become 0, letters A."""
_BETWEEN: Final = b" -.()/\\+"
_LOWER: Final = bytes(byte + 32 if 65 <= byte < 91 else byte for byte in range(256))
_IN_SECRETS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./+=~\\")
_RUNS: Final = bytes(120 if chr(byte) in _IN_SECRETS else 32 for byte in range(256))
_TEXT_KEY: Final = re.compile(rb'"text"\s*:')
_IN_A_ROW: Final = (
    r'"text"\s*:(?:[^"]|"[^r]|"r[^o]|"ro[^l]|"rol[^e]|"role[^"])*"text"\s*:'  # without "role" between them
)
_RUN: Final = b"x" * 12
"""All credentials are at least as long, but for passwords in URLs and PEM blocks."""
_MARK_BYTES: Final = tuple(mark.encode() for mark in MARKS)
_NAME_BYTES: Final = tuple(name.encode() for name in NAMES)


def _email(data: bytes) -> bool:
    return b"@" in data


def _secret(data: bytes) -> bool:
    if b"-----BEGIN" in data or (b"@" in data and (b"://" in data or b"\\/" in data)):
        return True
    if _RUN not in data.translate(_RUNS):
        return False
    if any(mark in data for mark in _MARK_BYTES):
        return True
    lowered = data.translate(_LOWER)
    return any(name in lowered for name in _NAME_BYTES)


def _address(data: bytes) -> bool:
    return _IPV4.search(data) is not None or _IPV6.search(data) is not None


def _number(data: bytes) -> bool:
    return b"0000000" in data.translate(_FLAT, _BETWEEN)


def _iban(data: bytes) -> bool:
    return b"AA00" in data.translate(_FLAT, _BETWEEN) and _IBAN.search(data) is not None


def _test_of_secrets() -> Test:
    if (re2 := load_re2()) is None:
        return _secret
    return compiled(re2, _QUICK["secret"].encode()).search  # type: ignore[no-any-return]  # no types


POSSIBLE: Final[dict[str, Test]] = {
    "secret": _test_of_secrets(),
    "email": _email,
    "iban": _iban,
    "card": _number,
    "ip": _address,
    "phone": _number,
}
"""By kind, whether bytes may hold any of it; in their plain spelling. In the order of who names a place that two claim."""


def quick_test(kinds: Collection[str], words: str | None = None) -> Test:
    """Return a test of JSON bytes for ``kinds``, for an expression of ``words`` in any case, and for texts in a row."""
    patterns = list(dict.fromkeys(_QUICK[kind] for kind in POSSIBLE if kind in kinds))
    if (re2 := load_re2()) is not None:
        if words is not None:
            patterns.append(f"(?i:{words})")
        patterns.append(_IN_A_ROW)
        try:
            return compiled(re2, "|".join(patterns).encode()).search  # type: ignore[no-any-return]  # no types
        except re2.error:  # more words than the automaton may hold
            pass
    tests: list[Test] = [_texts_in_a_row]
    tests += list(dict.fromkeys(POSSIBLE[kind] for kind in POSSIBLE if kind in kinds))
    if words is not None:
        tests.append(re.compile(words.encode(), re.IGNORECASE).search)
    return lambda data: any(test(data) for test in tests)


def words_test(words: str) -> Test:
    """Return a test of a text's bytes for an expression of words in any case; without RE2 one that is always true."""
    if (re2 := load_re2()) is not None:
        try:
            return compiled(re2, f"(?i:{words})".encode()).search  # type: ignore[no-any-return]  # no types
        except re2.error:  # more than the automaton may hold
            pass
    return bool


def _folding_test() -> Test:
    if (re2 := load_re2()) is not None:
        return compiled(re2, FOLDED.encode()).search  # type: ignore[no-any-return]  # no types
    return lambda data: needs_folding(data.decode("utf-8", "replace"))


_has_folded: Final = _folding_test()


def _texts_in_a_row(body: bytes) -> bool:
    """Whether a message may be made of several texts, which are one to who reads them: no piece has to look like anything.

    Between texts of different messages there is a role; within a text its quotes would be escaped.
    """
    if body.count(b'"text"') < 2:
        return False
    return any(len(_TEXT_KEY.findall(each)) > 1 for each in body.split(b'"role"') if each.count(b'"text"') > 1)


def plain_bytes(data: bytes) -> bytes:
    """Return ``data`` in its plain spelling; the same object if that is how it is spelled."""
    if (b"%" in data or (b"\\" in data and b"\\u" in data) or not data.isascii()) and _has_folded(data):
        return folded(data.decode("utf-8", "replace")).encode("utf-8", "replace")
    return data
