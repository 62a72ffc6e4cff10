"""What a Struct's source says of each field: the text that stands below it, which Python itself forgets."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache

from msgspec import Struct


@cache
def field_docs(kind: type[Struct]) -> dict[str, str]:
    """Return the docstring of each field that has one, inherited ones too; nothing where the source is not at hand."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if issubclass(each, Struct) and each is not Struct:
            found |= _own(each)
    return found


def _own(kind: type) -> dict[str, str]:
    try:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    if not isinstance(body, ast.ClassDef):
        return {}
    return {
        field.target.id: " ".join(words.value.value.split())
        for field, words in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(words, ast.Expr)
        and isinstance(words.value, ast.Constant)
        and isinstance(words.value.value, str)
    }
