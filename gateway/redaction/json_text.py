"""Redaction inside the strings of a JSON text. Every byte that is not part of such a string stays."""

from __future__ import annotations

import json
import re
from typing import Final

from .detectors import cards
from .redactor import Session

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![\w.+\-])-?[0-9]{13,19}(?:\.0+)?(?![\w.])', re.DOTALL)
"""A string, or a number that may be that of a card: tables have them with a fraction of zero, and sums with a sign."""


def escaped(text: str) -> str:
    """Return ``text`` as it stands between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def redact_json(text: str, session: Session, where: str) -> str:
    """Return JSON ``text`` without what must not leave; the same object if there is nothing.

    What is no JSON is treated as text. A number that is a card's becomes a string.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return session.text(text, where)
    changed = False

    def mended(found: re.Match[str]) -> str:
        nonlocal changed
        token = found[0]
        if token[0] != '"':
            if "card" not in session.redactor.kinds or not any(cards(token)) or session.redactor.find(token) == []:
                return token
            changed = True
            return f'"{session.name(token, "card", where)}"'
        inner: str = json.loads(token, strict=False) if "\\" in token else token[1:-1]
        new = session.text(inner, where)
        if new is inner:
            return token
        changed = True
        return f'"{escaped(new)}"'

    mended_text = _TOKEN.sub(mended, text)
    return mended_text if changed else text


def redact_json_bytes(data: bytes, session: Session, where: str) -> bytes:
    """The same for bytes. Those that are no UTF-8 stay as they are: no provider reads them as text either."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    new = redact_json(text, session, where)
    return data if new is text else new.encode()
