"""The types that options have in the rule file beyond JSON's own: durations, sizes, rates, budgets, paths, secrets.

Each is a plain float, int or value once loaded, so that code which uses options knows nothing of YAML. Texts are strict:
a bare number where a unit is needed is an error, since nobody can see whether it means seconds or milliseconds.
"""

from __future__ import annotations

import os
import re
from fractions import Fraction
from typing import Any, Final

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|KiB|MiB|GiB)")
_RATE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(k|M)?/(s|min|h|day)")
_BUDGET: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) *USD/(h|day|week|month)")
_PERCENT: Final = re.compile(r"(100(?:\.0+)?|[0-9]{1,2}(?:\.[0-9]+)?)%")
_TIMES: Final = {None: 1, "k": 1000, "M": 1000_000}
_PERIODS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0}
_BYTES: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}


def seconds(value: float) -> float:
    """Return ``value`` to the microsecond; what round() does, at a quarter of its price."""
    return int(value * 1e6 + 0.5) / 1e6


def milliseconds(value: float) -> float:
    """Return ``value`` seconds in milliseconds, to the tenth."""
    return int(value * 1e4 + 0.5) / 10


class Duration(float):
    """Seconds; spelled ``500ms``, ``30s``, ``5m``, ``1h30m``, ``7d``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Duration:
        """Read a duration. Raises ValueError that says how to spell one."""
        if isinstance(text, str) and text:
            found = list(_DURATION.finditer(text))
            if found and "".join(piece.group() for piece in found) == text:
                return cls(sum(float(piece[1]) * _SECONDS[piece[2]] for piece in found))
        raise ValueError(f'expected a duration such as "30s", "5m" or "1h30m", got {text!r}')


class Size(int):
    """Bytes; spelled ``64KB``, ``10MiB``, ``1GB`` (K, M, G are powers of 1000, Ki, Mi, Gi of 1024)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Size:
        """Read a size. Raises ValueError that says how to spell one."""
        if isinstance(text, str) and (found := _SIZE.fullmatch(text)) is not None:
            return cls(float(found[1]) * _BYTES[found[2]])
        raise ValueError(f'expected a size such as "64KB", "10MiB" or "1GB", got {text!r}')


class Rate:
    """So many in so long; spelled ``5/s``, ``60/min``, ``1000/h``, ``2M/day`` (k is a thousand, M a million).

    ``count`` is a whole number from 1, ``period`` how the time is spelled in which it may be used up, ``period_s`` its seconds.
    """

    __slots__ = ("count", "period", "period_s")

    def __init__(self, count: int, period: str) -> None:
        self.count = count
        self.period = period
        self.period_s = _PERIODS[period]

    @classmethod
    def parse(cls, text: object) -> Rate:
        """Read a rate. Raises ValueError that says how to spell one."""
        if isinstance(text, str) and (found := _RATE.fullmatch(text)) is not None:
            count = Fraction(found[1]) * _TIMES[found[2]]
            if count >= 1 and count.denominator == 1:
                return cls(int(count), found[3])
        raise ValueError(f'expected a rate such as "5/s", "60/min", "100k/h" or "2M/day", got {text!r}')

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rate) and (other.count, other.period) == (self.count, self.period)

    def __hash__(self) -> int:
        return hash((self.count, self.period))

    def __repr__(self) -> str:
        return f"Rate({self.count}, {self.period!r})"


class Budget:
    """So much money in so long; spelled ``20 USD/day``, ``0.50 USD/h``, ``100 USD/week``, ``1000 USD/month``.

    ``pico`` is the amount in picodollars (10^-12 USD), ``period`` how the time is spelled in which it may be spent.
    """

    __slots__ = ("pico", "period", "_text")

    def __init__(self, pico: int, period: str, text: str) -> None:
        self.pico = pico
        self.period = period
        self._text = text

    @classmethod
    def parse(cls, text: object) -> Budget:
        """Read a budget. Raises ValueError that says how to spell one."""
        if isinstance(text, str) and (found := _BUDGET.fullmatch(text)) is not None:
            pico = Fraction(found[1]) * 10**12
            if pico >= 1 and pico.denominator == 1:
                return cls(int(pico), found[2], f"{found[1]} USD/{found[2]}")
        raise ValueError(f'expected a budget such as "20 USD/day", "0.50 USD/h" or "1000 USD/month", got {text!r}')

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and (other.pico, other.period) == (self.pico, self.period)

    def __hash__(self) -> int:
        return hash((self.pico, self.period))

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Budget({self._text!r})"


class FilePath(str):
    """The path of a file; in a rule file it is relative to that file, and ``~`` is the home directory."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> FilePath:
        """Read a path. Raises ValueError."""
        if isinstance(text, str) and text and "\0" not in text:
            return cls(text)
        raise ValueError(f'expected the path of a file such as "keys.db", got {text!r}')


class Percent(float):
    """A share of a whole, from above 0 to 1; spelled ``5%``, ``0.5%``, ``100%``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Percent:
        """Read a share. Raises ValueError that says how to spell one."""
        if isinstance(text, str) and (found := _PERCENT.fullmatch(text)) is not None:
            share = float(found[1]) / 100
            if share > 0:
                return cls(share)
        raise ValueError(f'expected a share above 0% and up to 100%, such as "5%", got {text!r}')

    def __str__(self) -> str:
        return f"{self * 100:g}%"


class MissingSecret(LookupError):
    """A required environment variable or file of a secret is not there."""


class Secret:
    """A reference to a secret: ``env:NAME``, ``env:NAME?`` (may be unset) or ``file:path``. Never shows its value."""

    __slots__ = ("reference",)

    def __init__(self, reference: str) -> None:
        self.reference = reference

    @classmethod
    def parse(cls, text: object) -> Secret:
        """Read a reference. Raises ValueError; the message never repeats a text that may be the secret itself."""
        if isinstance(text, str):
            kind, colon, name = text.partition(":")
            if colon and name.strip("?") and kind in ("env", "file"):
                return cls(text)
        raise ValueError(
            'expected a secret by reference: "env:NAME", "env:NAME?" or "file:path", never the secret itself'
        )

    @property
    def optional(self) -> bool:
        """Whether it may be missing, and what needs it is then off."""
        return self.reference.startswith("env:") and self.reference.endswith("?")

    def read(self) -> str | None:
        """Return the secret, or None if it is optional and unset. Raises MissingSecret, OSError for a file."""
        kind, _, name = self.reference.partition(":")
        if kind == "file":
            with open(os.path.expanduser(name), encoding="utf-8") as file:
                value = file.read().strip()
            if not value:
                raise MissingSecret(f"{name} is empty")
            return value
        found = os.environ.get(name.rstrip("?"), "").strip()
        if found:
            return found
        if self.optional:
            return None
        raise MissingSecret(f"the environment variable {name} is not set")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reference == self.reference

    def __hash__(self) -> int:
        return hash(self.reference)

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"


def decode_unit(kind: type, value: Any) -> Any:
    """The ``dec_hook`` for msgspec.convert. Raises ValueError as the types above do, NotImplementedError for others."""
    if kind is Duration or kind is Size or kind is Secret or kind is Rate or kind is FilePath or kind is Budget:
        return kind.parse(value)
    if kind is Percent:
        return Percent.parse(value)
    raise NotImplementedError(f"no such option type: {kind}")
