"""The tables in docs/errors.md, written from the codecs: ``python -m tests.errors_page``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from headgate.gateway import registry
from headgate.gateway.codecs import limits, openai_errors
from headgate.gateway.codecs.anthropic_messages import errors as anthropic_errors
from headgate.gateway.codecs.gemini import errors as gemini_errors
from headgate.gateway.codecs.openai_responses import errors as responses_errors
from headgate.gateway.errors import KINDS, RETRYABLE, ErrorKind, upstream_error

PAGE: Final = Path(__file__).parents[1] / "docs" / "errors.md"
STATUSES: Final = (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 498, 500, 502, 503, 504, 529)
OURS: Final[Mapping[ErrorKind, str]] = {
    **dict.fromkeys(("connect", "timeout.connect", "cut", "malformed"), "the way to the provider, or its server"),
    **dict.fromkeys(
        ("timeout.write", "timeout.first_token", "timeout.idle", "timeout.total"), "provider, or your limit"
    ),
    "timeout.pool": "your limit",
    **dict.fromkeys(("rate_limit", "quota", "account_disabled"), "account at the provider"),
    **dict.fromkeys(("overloaded", "unavailable", "upstream_error"), "provider"),
    **dict.fromkeys(("auth", "permission"), "caller's key, or the upstream's"),
    **dict.fromkeys(
        ("not_found", "context_length", "content_filter", "invalid_request", "unsupported", "too_large", "cancelled"),
        "caller",
    ),
    "internal": "gateway",
}
"""Who has to change something."""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def told(format: str, kind: ErrorKind) -> tuple[int, Any]:
    """Status and body of an error of ours for a caller of ``format``."""
    status, _, body = registry.codec(format).encode_error(upstream_error(kind, "why"), "id")
    return status, json.loads(body)


def kinds() -> str:
    """Kind, whose, asked again, and what callers of each format see."""
    rows = []
    for kind in KINDS:
        status, chat = told("openai.chat", kind)
        for same in ("openai.responses", "openai.completions"):
            assert told(same, kind) == (status, chat)
        claude_status, claude = told("anthropic.messages", kind)
        gemini_status, gemini = told("gemini", kind)
        ollama = {told(name, kind)[0] for name in ("ollama.chat", "ollama.generate")}
        assert chat["error"]["code"] == claude["error"]["code"] == gemini["error"]["details"][0]["reason"] == kind
        assert {gemini_status} == ollama == {status} and gemini["error"]["code"] == status
        seen = f"{claude_status} `{claude['error']['type']}`"
        rows.append(
            [
                f"[`{kind}`](troubleshooting.md#{kind.replace('.', '')})",
                OURS[kind],
                "yes" if kind in RETRYABLE else "",
                str(status),
                f"`{chat['error']['type']}`",
                f"`{responses_errors.failure(upstream_error(kind, 'why'))['code']}`",
                seen,
                f"`{gemini['error']['status']}`",
            ]
        )
    head = (
        "kind",
        "whose",
        "again",
        "status",
        "OpenAI `type`",
        "Responses, in a stream",
        "Anthropic",
        "Gemini `status`",
    )
    return table(head, rows)


def statuses() -> str:
    """What a provider's status means where its body says nothing."""
    formats = ("openai.chat", "anthropic.messages", "gemini", "ollama.chat")
    for same, other in (("openai.chat", "openai.responses"), ("openai.chat", "openai.completions")):
        assert [_kind(same, status) for status in STATUSES] == [_kind(other, status) for status in STATUSES]
    rows = [[str(status), *(f"`{_kind(name, status)}`" for name in formats)] for status in STATUSES]
    return table(("status", "`openai.*`", "`anthropic.messages`", "`gemini`", "`ollama.*`"), rows)


def _kind(format: str, status: int) -> ErrorKind:
    return registry.codec(format).decode_error(status, {}, b"").kind


def words() -> str:
    """What a provider's words mean."""
    own = {word: kind for word, kind in responses_errors._WORDS.items() if word not in openai_errors.WORDS}
    sources: dict[str, Mapping[str, ErrorKind]] = {
        "OpenAI `code` or `type`": openai_errors.WORDS,
        "and of Responses": own,
        "Anthropic `type`, `error_code`": {**anthropic_errors._KINDS, **anthropic_errors._DETAILS},
        "Gemini `status`, `reason`": {**gemini_errors._KINDS, **gemini_errors._REASONS},
    }
    named = [kind for kind in KINDS if any(kind in source.values() for source in sources.values())]
    rows = [
        [
            f"`{kind}`",
            *(", ".join(f"`{word}`" for word in source if source[word] == kind) for source in sources.values()),
        ]
        for kind in named
    ]
    return table(("kind", *sources), rows)


def headers() -> str:
    """Which rate-limit header is which."""
    return table(
        ("OpenAI", "Anthropic"), [[f"`{ours}`", f"`{theirs}`"] for ours, theirs in limits._TO_ANTHROPIC.items()]
    )


TABLES: Final = {"kinds": kinds, "statuses": statuses, "words": words, "headers": headers}


def written(text: str) -> str:
    """``text`` with each table between its marks as it is now."""
    for name, table in TABLES.items():
        mark = re.compile(rf"(<!-- {name}: written by tests/errors_page.py -->\n).*?(<!-- end -->)", re.DOTALL)
        assert len(mark.findall(text)) == 1, name
        text = mark.sub(lambda found, table=table: f"{found[1]}\n{table()}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
