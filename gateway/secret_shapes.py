"""What a credential looks like: keys of vendors, tokens, PEM blocks, passwords in URLs; and texts without any.

The one list of shapes that the gateway has: ``redact`` finds by it what must not reach a provider, ``log`` masks by it what
must not stand in a line. Linear time: no pattern has a repetition within a repetition, and what is found by a search from a
beginning to an end gives up that search once it found none.

>>> mask_secrets("sk-ant-api03-abcdefgh12345678, or AKIAIOSFODNN7EXAMPLE: refused")
'***, or ***: refused'
>>> mask_secrets("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl of postgres://ann:hunter2@db.example/x")
'*** of postgres://ann:***@db.example/x'
>>> mask_secrets("Authorization: Bearer 0123abc, x-api-key: 0123456789abcdef0123, cookie: session=0123456789abcdef")
'Authorization: Bearer ***, x-api-key: ***, cookie: ***'
>>> mask_secrets("mail ann@corp.example about a task-oriented desk")
'mail ann@corp.example about a task-oriented desk'
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

Place: TypeAlias = tuple[int, int]

AFTER_ESCAPE: Final = r"(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4})"
"""Texts hold JSON often: what follows an escape of it begins there (``\\nsk-...``)."""
_SHAPES: Final = (
    r"sk-[A-Za-z0-9_\-]{16,}",  # OpenAI, Anthropic, DeepSeek, OpenRouter
    r"hg-[A-Za-z0-9]{40,}",  # our own virtual keys
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}",  # Stripe
    r"whsec_[A-Za-z0-9+/=]{16,}",
    r"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
    r"AIza[A-Za-z0-9_\-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_\-]{20,}",
    r"GOCSPX-[A-Za-z0-9_\-]{20,}",
    r"gh[pousr]_[A-Za-z0-9]{20,}",
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"gl(?:pat|dt|rt|ptt|cbt|soat)-[A-Za-z0-9_\-.]{20,}",
    r"xox[abeoprs]-[A-Za-z0-9\-]{11,}",  # Slack
    r"xapp-[A-Za-z0-9\-]{11,}",
    r"xai-[A-Za-z0-9]{20,}",
    r"gsk_[A-Za-z0-9]{20,}",  # Groq
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"r8_[A-Za-z0-9]{30,}",  # Replicate
    r"pplx-[A-Za-z0-9]{20,}",
    r"nvapi-[A-Za-z0-9_\-]{20,}",
    r"tvly-[A-Za-z0-9_\-]{16,}",
    r"npm_[A-Za-z0-9]{30,}",
    r"pypi-[A-Za-z0-9_\-]{30,}",
    r"SG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}",  # SendGrid
    r"do[opr]_v1_[a-f0-9]{40,}",  # DigitalOcean
    r"dapi[a-f0-9]{32}",  # Databricks
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # Shopify
    r"hv[sb]\.[A-Za-z0-9_\-]{20,}",  # Vault
    r"eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}\.[A-Za-z0-9_\-]*",  # a JWT
)
_SHAPE: Final = re.compile(rf"(?:{AFTER_ESCAPE}|(?<![A-Za-z0-9_\-]))(?:{'|'.join(_SHAPES)})")
_SCHEME: Final = re.compile(
    r"(?i:bearer)[ \t]{1,4}([A-Za-z0-9._~+/\-]{16,}=*)|(?i:basic)[ \t]{1,4}([A-Za-z0-9+/]{12,}=*)"
)
_NAMED: Final = re.compile(
    r"(?i:secret_?(?:access_?)?key|api[_-]?key|account_?key|shared_?access_?(?:key|signature))"
    r"""[ \t"'\\:=>]{1,8}([A-Za-z0-9/+_\-.~]{20,}=*)"""
)
_IN_URL: Final = re.compile(r""":\\{0,4}/\\{0,4}/[^\s/:@"'<>\\]{0,64}:([^\s/@"'<>\\]{1,200})@""")
_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----")
_PEM_END: Final = re.compile(r"-----END [A-Z0-9 ]{1,40}-----")
_PEM_BODY: Final = re.compile(r"[A-Za-z0-9+/=\s\\]*")

MARKS: Final = (
    *("sk-", "hg-", "k_live_", "k_test_", "whsec_", "AKIA", "ASIA", "ABIA", "ACCA", "AIza", "ya29.", "GOCSPX-"),
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glsoat-"),
    *("xox", "xapp-", "xai-", "gsk_", "hf_", "r8_", "pplx-", "nvapi-", "tvly-", "npm_", "pypi-", "SG.", "_v1_", "dapi"),
    *("shpat_", "shpca_", "shppa_", "shpss_", "hvs.", "hvb.", "eyJ"),
)
"""A text without any of these holds nothing of a vendor's shape."""
NAMES: Final = ("bearer", "basic", "key", "signature")
"""Nor without any of these, in any case, what is known as a secret by what stands before it; but for PEM and URLs."""


def credentials(text: str) -> Iterator[Place]:
    """Yield where credentials stand. Of ``Bearer`` and the like it is the value alone."""
    for found in _SHAPE.finditer(text):
        yield found.span()
    for found in _SCHEME.finditer(text):
        group = 1 if found[1] else 2
        if len(found[group]) >= 20 or _has_digit(found[group]):  # "bearer authentication" is no secret
            yield found.span(group)
    for found in _NAMED.finditer(text):
        if _has_digit(found[1]):  # nor is the name of a variable
            yield found.span(1)
    if "://" in text or "\\/" in text:  # slashes as some write them in JSON
        for found in _IN_URL.finditer(text):
            yield found.span(1)
    yield from _pem_blocks(text)


def _has_digit(text: str) -> bool:
    return any("0" <= each <= "9" for each in text)


def _pem_blocks(text: str) -> Iterator[Place]:
    at, ends = 0, True
    while (begin := _PEM.search(text, at)) is not None:
        begun = begin.end()
        end = _PEM_END.search(text, begun) if ends else None
        ends = end is not None  # else nor is there one further on: a search for each beginning would be quadratic
        end = end or _PEM_BODY.match(text, begun)
        at = begun if end is None else end.end()
        yield begin.start(), at


_LOOSE: Final = re.compile(
    r"\b(?:sk|pk|rk|xai|gsk|key)-[A-Za-z0-9_\-]{8,}|(?i:(?<=bearer )|(?<=basic ))[^\s,;\"']{6,}"
    r"""|(?i:(?<=cookie: )|(?<=x-api-key: )|(?<=api-key: )|(?<=x-goog-api-key: )|(?<=[?&]key=))[^\s&,"']{6,}"""
)
"""What a log would rather not say, though it may be no secret: nothing depends on it there."""


def mask_secrets(text: str) -> str:
    """Return ``text`` with everything that looks like a credential replaced by ``***``: for logs and messages.

    It masks more than ``redact`` takes for a secret; addresses of people and numbers are not its business.
    """
    places = sorted([*credentials(text), *(found.span() for found in _LOOSE.finditer(text))])
    if not places:
        return text
    pieces: list[str] = []
    at = 0
    for start, end in places:
        if start >= at:
            pieces += (text[at:start], "***")
        at = max(at, end)
    return "".join((*pieces, text[at:]))
