"""Where in a text something stands that must not leave: addresses, numbers with a checksum, secrets of known shapes.

Each detector takes a text and returns the places it found, in linear time: no pattern here has a repetition within a
repetition that could match the same characters in two ways, and all but the character runs are bounded. A place may follow
an escape of JSON (``\\nsk-...``), since texts hold JSON often.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import AddressValueError, IPv6Address
from typing import Final, Literal, TypeAlias, get_args

Kind = Literal["email", "phone", "card", "iban", "ip", "secret"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Place: TypeAlias = tuple[int, int]

_AFTER_ESCAPE: Final = r"(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4})"
_DOMAIN: Final = re.compile(r"@(?:[\w\-]{1,63}\.){1,8}[^\W\d_]{2,24}")
_LOCAL_MARKS: Final = frozenset("._%+-'")
_MAX_LOCAL: Final = 64
_NO_DIGITS_BEFORE: Final = rf"(?:{_AFTER_ESCAPE}|(?<![\w.\-/])(?<![0-9] ))"
_PHONE: Final = re.compile(
    rf"(?:(?:{_AFTER_ESCAPE}|(?<![\w+.]))\+[1-9](?:[ ()./\-]{{0,3}}[0-9]){{6,14}}"
    rf"|{_NO_DIGITS_BEFORE}00[1-9](?:[ ()./\-]{{0,3}}[0-9]){{6,14}}"
    rf"|{_NO_DIGITS_BEFORE}(?:\([2-9][0-9]{{2}}\) ?|[2-9][0-9]{{2}}[ .\-])[0-9]{{3}}[ .\-][0-9]{{4}}"
    rf"|{_NO_DIGITS_BEFORE}(?:\(0[1-9][0-9]{{0,3}}\)[ /.\-]{{0,3}}|0[1-9][0-9]{{0,3}}[ /.\-]{{1,3}})"
    r"[0-9](?:[ ./\-]?[0-9]){5,9})(?![0-9])"
)
_DATE: Final = re.compile(r"[0-9]{1,2}[./\-][0-9]{1,2}[./\-][0-9]{2,4}")
_CARD: Final = re.compile(rf"(?:{_AFTER_ESCAPE}|(?<![0-9]))[2-6][0-9](?:[ \-]?[0-9]){{11,17}}")
_IBAN: Final = re.compile(rf"(?:{_AFTER_ESCAPE}|(?<![A-Za-z0-9]))[A-Z]{{2}}[0-9]{{2}}(?: ?[A-Z0-9]){{11,30}}")
_IPV4: Final = re.compile(
    rf"(?:{_AFTER_ESCAPE}|(?<![0-9.]))(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){{3}}"
    r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(?![0-9]|\.[0-9])"
)
_IPV6: Final = re.compile(
    rf"(?:{_AFTER_ESCAPE}|(?<![\w:.]))[0-9A-Fa-f]{{0,4}}(?::[0-9A-Fa-f]{{0,4}}){{2,8}}(?:(?:\.[0-9]{{1,3}}){{3}})?(?![\w:])"
)
_SECRET: Final = re.compile(
    rf"(?:{_AFTER_ESCAPE}|(?<![A-Za-z0-9_\-]))(?:"
    r"sk-[A-Za-z0-9_\-]{16,}"  # OpenAI, Anthropic, DeepSeek, OpenRouter
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{16,}"  # Stripe
    r"|A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # AWS
    r"|AIza[A-Za-z0-9_\-]{35}|ya29\.[A-Za-z0-9_\-]{20,}|GOCSPX-[A-Za-z0-9_\-]{20,}"  # Google
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_\-]{20,}"
    r"|xox[abeoprs]-[A-Za-z0-9\-]{11,}|xapp-[A-Za-z0-9\-]{11,}"  # Slack
    r"|xai-[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{30,}"  # xAI, Groq, Hugging Face
    r"|eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}\.[A-Za-z0-9_\-]*"  # a JWT
    r")"
)
_BEARER: Final = re.compile(r"(?:[Bb]earer|BEARER)[ \t]{1,4}([A-Za-z0-9._~+/\-]{16,}=*)")
_AWS_SECRET: Final = re.compile(
    r"""(?i:secret_?(?:access_?)?key)[ \t"'\\:=>]{1,8}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"""
)
_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----")
_PEM_END: Final = re.compile(r"-----END [A-Z0-9 ]{1,40}-----")
_PEM_BODY: Final = re.compile(r"[A-Za-z0-9+/=\s\\]*")
SECRET_MARKS: Final = (
    *("sk-", "k_live_", "k_test_", "whsec_", "AKIA", "ASIA", "ABIA", "ACCA", "AIza", "ya29.", "GOCSPX-"),
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "xapp-", "xai-", "gsk_", "hf_"),
    *("eyJ", "-----BEGIN", "earer", "BEARER", "ecret", "SECRET"),
)
"""A text without any of these holds no secret."""

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
    for found in _PHONE.finditer(text):
        if not _DATE.match(found[0]):
            yield found.span()


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it."""
    total = sum(int(digit) for digit in digits[-1::-2])
    return (total + sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])) % 10 == 0


def cards(text: str) -> Iterator[Place]:
    """Yield card numbers of 13 to 19 digits, grouped or not, with a right check digit."""
    at = 0
    while (found := _CARD.search(text, at)) is not None:
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
    at = 0
    while (found := _IBAN.search(text, at)) is not None:
        at = found.start() + 2
        length = _IBAN_LENGTHS.get(found[0][:2], 0)
        places = [place for place in range(*found.span()) if text[place] != " "][:length]
        if not length or len(places) < length:
            continue
        plain = "".join(text[place] for place in places)
        if int("".join(str(int(each, 36)) for each in plain[4:] + plain[:4])) % 97 == 1:
            at = places[-1] + 1
            yield found.start(), at


def addresses(text: str) -> Iterator[Place]:
    """Yield IP addresses of both versions. Of the sixth, those of three groups and more: ``[1::2]`` is a slice, too."""
    if text.count(".") >= 3:
        for found in _IPV4.finditer(text):
            yield found.span()
    if text.count(":") >= 2:
        for found in _IPV6.finditer(text):
            if len([group for group in found[0].split(":") if group]) < 3:
                continue
            try:
                IPv6Address(found[0])
            except AddressValueError:
                continue
            yield found.span()


def secrets(text: str) -> Iterator[Place]:
    """Yield keys of vendors, tokens, and what follows ``Bearer``."""
    if not any(mark in text for mark in SECRET_MARKS):
        return
    for found in _SECRET.finditer(text):
        yield found.span()
    for found in _BEARER.finditer(text):
        if len(found[1]) >= 20 or any(each.isdigit() for each in found[1]):  # "bearer authentication" is no secret
            yield found.span(1)
    for found in _AWS_SECRET.finditer(text):
        yield found.span(1)
    at, ends = 0, True
    while (begin := _PEM.search(text, at)) is not None:
        begun = begin.end()
        end = _PEM_END.search(text, begun) if ends else None
        ends = end is not None  # else nor is there one further on: a search for each beginning would be quadratic
        end = end or _PEM_BODY.match(text, begun)
        at = begun if end is None else end.end()
        yield begin.start(), at


DETECTORS: Final[dict[Kind, Callable[[str], Iterator[Place]]]] = {
    "secret": secrets,
    "email": emails,
    "iban": ibans,
    "card": cards,
    "ip": addresses,
    "phone": phones,
}
"""In the order of who names a place that two of them claim."""

# -- is there anything to look for at all? On the bytes of a body, before anybody decodes it.

_IN_SECRETS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./+=~\\")
_FLAT: Final = bytes(
    48 if 48 <= byte < 58 else 65 if 65 <= byte < 91 else byte for byte in range(256)
)  # digits become 0, capitals A
_BETWEEN: Final = b" -.()/\\+"
_RUNS: Final = bytes(120 if chr(byte) in _IN_SECRETS else 32 for byte in range(256))
_RUN: Final = b"x" * 16
_RUN_END: Final = re.compile(rb"x*")
_BEFORE: Final = 48
"""Bytes between the beginning of ``Bearer`` or the name of a key and its value, at most."""
_MARK_BYTES: Final = re.compile("|".join(map(re.escape, SECRET_MARKS)).encode())
_IPV4_BYTES: Final = re.compile(rb"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_IPV6_BYTES: Final = re.compile(rb":(?::|[0-9A-Fa-f]{1,4}:)[0-9A-Fa-f]")


def suspicious(body: bytes, kinds: frozenset[str]) -> bool:
    """Whether a JSON body may hold anything of ``kinds``; False is certain, unless it holds characters as ``\\u0040``."""
    if "email" in kinds and b"@" in body:
        return True
    if "secret" in kinds and _suspicious_run(body):
        return True
    if "ip" in kinds and (_IPV4_BYTES.search(body) or _IPV6_BYTES.search(body)):
        return True
    if kinds.isdisjoint(("phone", "card", "iban")):
        return False
    flat = body.translate(_FLAT, _BETWEEN)
    return b"0000000" in flat or ("iban" in kinds and b"AA00" in flat)


def _suspicious_run(body: bytes) -> bool:
    """Whether there may be a secret: all but PEM blocks are 16 or more letters, digits and the like without a gap."""
    if b"-----BEGIN" in body:
        return True
    runs = body.translate(_RUNS)
    at = runs.find(_RUN)
    while at >= 0:
        found = _RUN_END.match(runs, at)
        assert found is not None  # it matches nothing, at least
        if _MARK_BYTES.search(body, max(0, at - _BEFORE), found.end()):
            return True
        at = runs.find(_RUN, found.end())
    return False
