"""Where in a text something stands that must not leave: addresses, numbers with a checksum; and credentials.

Each detector takes a text and returns the places it found, in linear time: no pattern here has a repetition within a
repetition that could match the same characters in two ways, and all but the character runs are bounded. A place may follow
an escape of JSON (``\\nsk-...``), since texts hold JSON often.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import AddressValueError, IPv6Address
from typing import Final, Literal, get_args

from ..secret_shapes import AFTER_ESCAPE, Place, credentials

Kind = Literal["email", "phone", "card", "iban", "ip", "secret"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_DOMAIN: Final = re.compile(r"@(?:[\w\-]{1,63}\.){1,8}[^\W\d_]{2,24}")
_LOCAL_MARKS: Final = frozenset("._%+-'")
_MAX_LOCAL: Final = 64
_NO_DIGITS_BEFORE: Final = rf"(?:{AFTER_ESCAPE}|(?<![\w.\-/])(?<![0-9] ))"
_PHONE: Final = re.compile(
    rf"(?:(?:{AFTER_ESCAPE}|(?<![\w+.]))\+[1-9](?:[ ()./\-]{{0,3}}[0-9]){{6,14}}"
    rf"|{_NO_DIGITS_BEFORE}00[1-9](?:[ ()./\-]{{0,3}}[0-9]){{6,14}}"
    rf"|{_NO_DIGITS_BEFORE}(?:\([2-9][0-9]{{2}}\) ?|[2-9][0-9]{{2}}[ .\-])[0-9]{{3}}[ .\-][0-9]{{4}}"
    rf"|{_NO_DIGITS_BEFORE}(?:\(0[1-9][0-9]{{0,3}}\)[ /.\-]{{0,3}}|0[1-9][0-9]{{0,3}}[ /.\-]{{1,3}})"
    r"[0-9](?:[ ./\-]?[0-9]){5,9})(?![0-9])"
)
_DATE: Final = re.compile(r"[0-9]{1,2}[./\-][0-9]{1,2}[./\-][0-9]{2,4}")
_CARD: Final = re.compile(rf"(?:{AFTER_ESCAPE}|(?<![0-9]))[2-6][0-9](?:[ \-]?[0-9]){{11,17}}")
_IBAN: Final = re.compile(rf"(?:{AFTER_ESCAPE}|(?<![A-Za-z0-9]))[A-Za-z]{{2}}[0-9]{{2}}(?:[ \-]?[A-Za-z0-9]){{11,30}}")
_IPV4: Final = re.compile(
    rf"(?:{AFTER_ESCAPE}|(?<![0-9.]))(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){{3}}"
    r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(?![0-9]|\.[0-9])"
)
_IPV6: Final = re.compile(
    rf"(?:{AFTER_ESCAPE}|(?<![\w:.]))[0-9A-Fa-f]{{0,4}}(?::[0-9A-Fa-f]{{0,4}}){{2,8}}(?:(?:\.[0-9]{{1,3}}){{3}})?(?![\w:])"
)
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_PHONE_REGION: Final = re.compile(r"[0-9+(][0-9+() ./\-]{6,}")
_CARD_REGION: Final = re.compile(r"[0-9][0-9 \-]{12,}")
_IBAN_REGION: Final = re.compile(r"[A-Za-z]{2}[0-9]{2}[A-Za-z0-9 \-]{11,}")
_IPV4_REGION: Final = re.compile(r"[0-9][0-9.]{6,}")
_IPV6_REGION: Final = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]*")
"""What looks cheaply for where it is worth to look closely: the exact expressions cost a hundred times as much."""

_COUNTRIES: Final = {
    15: "NO",
    16: "BE",
    18: "DK FO FI GL NL SD FK",
    19: "MK SI",
    20: "AT BA EE KZ LT LU XK MN",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM TL SO",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_IBAN_LENGTHS: Final = {country: length for length, names in _COUNTRIES.items() for country in names.split()}
"""Length by country, from the IBAN registry."""


def emails(text: str) -> Iterator[Place]:
    """Yield addresses: from each @ outwards, so that a long text without one costs one search."""
    at = text.find("@")
    while at >= 0:
        found = _DOMAIN.match(text, at)
        start = at
        while start and at - start < _MAX_LOCAL and (text[start - 1].isalnum() or text[start - 1] in _LOCAL_MARKS):
            start -= 1
        if start and text[start - 1] == "\\":  # the letter belongs to an escape: \nann@example.com
            skip = 5 if re.match(r"u[0-9a-fA-F]{4}", text[start:at]) else 1 if text[start] in "nrtbf" else 0
            start = min(at, start + skip)
        while start < at and text[start] in ".'-%":
            start += 1
        if found is not None and start < at:
            yield start, found.end()
            at = text.find("@", found.end())
        else:
            at = text.find("@", at + 1)


def phones(text: str) -> Iterator[Place]:
    """Yield international numbers, and national ones that are written with separators."""
    for region in _PHONE_REGION.finditer(text):
        if sum(map(region[0].count, "0123456789")) < 7:
            continue
        for found in _PHONE.finditer(text, region.start(), min(region.end() + 1, len(text))):
            if not _DATE.match(found[0]):
                yield found.span()


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it."""
    total = sum(int(digit) for digit in digits[-1::-2])
    return (total + sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])) % 10 == 0


def cards(text: str) -> Iterator[Place]:
    """Yield card numbers of 13 to 19 digits, grouped or not, with a right check digit."""
    for region in _CARD_REGION.finditer(text):
        yield from _cards_in(text, *region.span())


def _cards_in(text: str, at: int, region_end: int) -> Iterator[Place]:
    while (found := _CARD.search(text, at, region_end)) is not None:
        at = found.start() + 1
        places = [place for place in range(*found.span()) if text[place].isdigit()]
        for count in range(len(places), 12, -1):
            end = places[count - 1] + 1
            if text[end : end + 1].isdigit() or not luhn("".join(text[place] for place in places[:count])):
                continue
            yield found.start(), end
            at = end
            break


def ibans(text: str) -> Iterator[Place]:
    """Yield account numbers of the length their country has, with a remainder of 1 by 97."""
    for region in _IBAN_REGION.finditer(text):
        yield from _ibans_in(text, *region.span())


def _ibans_in(text: str, at: int, region_end: int) -> Iterator[Place]:
    while (found := _IBAN.search(text, at, region_end)) is not None:
        at = found.start() + 2
        length = _IBAN_LENGTHS.get(found[0][:2].upper(), 0)
        places = [place for place in range(*found.span()) if text[place].isalnum()][:length]
        if not length or len(places) < length:
            continue
        plain = "".join(text[place] for place in places)
        if int("".join(str(int(each, 36)) for each in plain[4:] + plain[:4])) % 97 == 1:
            at = places[-1] + 1
            yield found.start(), at


def addresses(text: str) -> Iterator[Place]:
    """Yield IP addresses of both versions. Of the sixth, those of three groups and more: ``[1::2]`` is a slice, too."""
    for region in _IPV4_REGION.finditer(text):
        for found in _IPV4.finditer(text, region.start(), region.end()):
            yield found.span()
    for region in _IPV6_REGION.finditer(text):
        start = region.start()
        while start > region.start() - 4 and start and text[start - 1] in _HEX:
            start -= 1
        for found in _IPV6.finditer(text, start, min(region.end() + 1, len(text))):
            if len([group for group in found[0].split(":") if group]) < 3:
                continue
            try:
                IPv6Address(found[0])
            except AddressValueError:
                continue
            yield found.span()


DETECTORS: Final[dict[Kind, Callable[[str], Iterator[Place]]]] = {
    "secret": credentials,
    "email": emails,
    "iban": ibans,
    "card": cards,
    "ip": addresses,
    "phone": phones,
}
"""In the order of who names a place that two of them claim."""
