"""Globs: ``*`` stands for any text, also none, and ``?`` for one character; nothing else is special.

Matching takes at most (length of the text) x (length of the pattern) steps: there is no pattern that hangs the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

Token: TypeAlias = str | int
ANY_TEXT: Final = 0
ANY_CHARACTER: Final = 1
Test: TypeAlias = Callable[[str], bool]


class Glob(Struct, frozen=True):
    """A parsed pattern: single characters, ANY_CHARACTER and ANY_TEXT (never twice in a row)."""

    tokens: tuple[Token, ...]

    @classmethod
    def parse(cls, text: str) -> Glob:
        """Read a pattern; every text is one."""
        tokens: list[Token] = []
        for character in text:
            token: Token = {"*": ANY_TEXT, "?": ANY_CHARACTER}.get(character, character)
            if token != ANY_TEXT or not tokens or tokens[-1] != ANY_TEXT:
                tokens.append(token)
        return cls(tuple(tokens))

    def __str__(self) -> str:
        return "".join(token if isinstance(token, str) else "*?"[token] for token in self.tokens)

    @property
    def literal(self) -> str | None:
        """The one text that matches, or None where there may be others."""
        return "".join(map(str, self.tokens)) if all(isinstance(token, str) for token in self.tokens) else None

    @property
    def has_literal_wildcard(self) -> bool:
        """Whether a ``*`` or ``?`` stands for itself here, which ``parse`` cannot express."""
        return "*" in self.tokens or "?" in self.tokens

    @property
    def is_universal(self) -> bool:
        """Whether every text matches."""
        return self.tokens == (ANY_TEXT,)

    def lower(self) -> Glob:
        """Return the pattern in lower case."""
        return Glob(tuple(token.lower() if isinstance(token, str) else token for token in self.tokens))

    def covers(self, other: Glob) -> bool:
        """Whether every text that ``other`` matches is matched by this one too. Sound; a rare True is missed.

        This pattern is run over the other's tokens, where only ANY_TEXT may swallow an ANY_TEXT.
        """
        reached = {0}  # how much of ``other`` the tokens so far can have used up
        ends = len(other.tokens)
        for token in self.tokens:
            if token == ANY_TEXT:
                reached = set(range(min(reached, default=ends + 1), ends + 1))
            elif token == ANY_CHARACTER:
                reached = {at + 1 for at in reached if at < ends and other.tokens[at] != ANY_TEXT}
            else:
                reached = {at + 1 for at in reached if at < ends and other.tokens[at] == token}
        return ends in reached

    @property
    def prefix(self) -> str | None:
        """The text that all matches begin with, if that is all there is to say of them; None otherwise."""
        if not self.tokens or self.tokens[-1] != ANY_TEXT:
            return None
        return Glob(self.tokens[:-1]).literal

    def compile(self) -> Test:
        """Return the fastest test for this pattern."""
        literal, prefix = self.literal, self.prefix
        if literal is not None:
            return lambda text: text == literal
        if prefix is not None:
            return lambda text: text.startswith(prefix)
        if ANY_TEXT not in self.tokens:
            whole = _expression(self.tokens)
            return lambda text: whole.fullmatch(text) is not None
        inner = Glob(self.tokens[1:]) if self.tokens[0] == ANY_TEXT else self
        if (suffix := inner.literal) is not None:
            return lambda text: text.endswith(suffix)
        if inner is not self and (part := inner.prefix) is not None:
            return lambda text: part in text
        return _pieced(self._pieces())

    def _pieces(self) -> list[tuple[Token, ...]]:
        pieces: list[list[Token]] = [[]]
        for token in self.tokens:
            if token == ANY_TEXT:
                pieces.append([])
            else:
                pieces[-1].append(token)
        return [tuple(piece) for piece in pieces]


def any_of(globs: Sequence[Glob]) -> Test:
    """Return the test whether one of ``globs`` matches."""
    literals = frozenset(literal for glob in globs if (literal := glob.literal) is not None)
    prefixes = tuple(prefix for glob in globs if (prefix := glob.prefix) is not None)
    others = tuple(glob.compile() for glob in globs if glob.literal is None and glob.prefix is None)
    if len(globs) == 1:
        return globs[0].compile()
    if others:
        return lambda text: text in literals or text.startswith(prefixes) or any(test(text) for test in others)
    if not literals:
        return lambda text: text.startswith(prefixes)
    if not prefixes:
        return literals.__contains__
    return lambda text: text in literals or text.startswith(prefixes)


def _expression(piece: tuple[Token, ...]) -> re.Pattern[str]:
    # no repetition in it, hence no backtracking
    return re.compile("".join("." if token == ANY_CHARACTER else re.escape(str(token)) for token in piece), re.DOTALL)


def _pieced(pieces: list[tuple[Token, ...]]) -> Test:
    """The pieces between stars in order, each as early as it is found: for globs the earliest place is never worse."""
    first, *middle, last = (_expression(piece) for piece in pieces)
    last_length = len(pieces[-1])

    def test(text: str) -> bool:
        found = first.match(text)
        if found is None:
            return False
        at, ends = found.end(), len(text) - last_length
        for piece in middle:
            found = piece.search(text, at, ends) if at <= ends else None
            if found is None:
                return False
            at = found.end()
        return at <= ends and last.fullmatch(text, ends) is not None

    return test
