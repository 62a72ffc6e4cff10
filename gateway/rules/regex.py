"""Regular expressions of rule files: RE2's, which take linear time whatever the pattern and the text.

``re`` of the standard library would let one header hold the loop for minutes, so there is no falling back to it.
"""

from __future__ import annotations

import importlib
from typing import Final

from ..globs import Test

MAX_PATTERN: Final = 1000
MAX_MEMORY: Final = 4 * 1024 * 1024
"""Bytes that one compiled pattern may take: repetition counts multiply, ``(((a{100}){100}){100})`` is 20 characters."""


class NoRe2(Exception):
    """The extra ``re2`` is not installed."""


def compile_regex(pattern: str) -> Test:
    """Return a test that finds ``pattern`` anywhere in a text. Raises NoRe2, or ValueError for a malformed pattern."""
    try:
        re2 = importlib.import_module("re2")
    except ImportError as fault:
        raise NoRe2 from fault
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"longer than {MAX_PATTERN} characters")
    options = re2.Options()
    options.max_mem = MAX_MEMORY
    options.log_errors = False
    try:
        search = re2.compile(pattern, options).search
    except re2.error as fault:
        reason = fault.args[0] if fault.args else fault
        raise ValueError(reason.decode() if isinstance(reason, bytes) else str(reason)) from fault
    return lambda text: search(text) is not None
