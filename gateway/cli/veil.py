"""Keeps secrets out of what commands print: by where they stand, by what they are, and by what they look like."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote_plus

from ..chain import AdapterContext
from ..rules.plan import Plan
from ..rules.problems import mask_keys

MASK: Final = "***"
_AT_LEAST: Final = 4
"""Shorter values are masked where they stand; elsewhere they would be found within words."""
_NAMES: Final = re.compile(r"auth|cookie|key|token|secret|passw|credential|signature|(?:^|[-_])sig(?:$|[-_])", re.I)
_HARMLESS: Final = frozenset({"idempotency-key"})


def is_secret_name(name: str) -> bool:
    """Whether a header or query parameter of this name may carry a secret."""
    return name.lower() not in _HARMLESS and _NAMES.search(name) is not None


class Veil:
    """Masks the given secrets, and what looks like a key, wherever they come up."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {part for secret in secrets for part in (secret, secret.rpartition(" ")[2])}
        spelled = {form for secret in known if len(secret) >= _AT_LEAST for form in _spellings(secret)}
        longest = sorted(spelled, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest))) if longest else None

    def text(self, text: str) -> str:
        """Return ``text`` without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return mask_keys(text, MASK)

    def data(self, value: Any) -> Any:
        """Return a value for JSON without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.data(inner) for key, inner in value.items()}
        return [self.data(inner) for inner in value] if isinstance(value, list | tuple) else value


def _spellings(secret: str) -> Iterable[str]:
    """Return a secret as it stands, and as JSON and URLs spell it."""
    in_url = quote_plus(secret, errors="replace")
    return secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], in_url


def secrets_of(plan: Plan, headers: Mapping[str, str], query: Mapping[str, str]) -> list[str]:
    """Return the secrets of a plan's upstreams, and what may be secrets of a request's headers and query."""
    found = [value for given in (headers, query) for name, value in given.items() if is_secret_name(name)]
    for upstream in plan.upstreams.values():
        context = getattr(upstream.adapter, "context", None)
        if isinstance(context, AdapterContext):
            found += [context.headers[name] for name in upstream.secret_headers if name in context.headers]
            found += [] if context.credential is None else [context.credential]
        if upstream.accounts is not None:
            found += [member.account.credential for member in upstream.accounts.members]
    return found
