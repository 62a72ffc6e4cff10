"""The words of a CEL expression, read before the CEL library reads it: which facts it asks for, and with which keys.

CEL calls a key that is not in a map an error. For a header that is one of many this would make every comparison with it an
error, so ``header["x"]``, and the same of ``query`` and ``metadata``, become variables of their own, null when the request
has no such key. A variable is written where the words stood, padded with blanks: places in messages stay right.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from msgspec import Struct

Group = Literal["header", "query", "metadata"]

GROUPS: Final[dict[str, Group]] = {"header": "header", "query": "query", "metadata": "metadata"}
MACROS: Final = ("all", "exists", "exists_one", "filter", "map")
MAX_LENGTH: Final = 2000

_TOKEN: Final = re.compile(
    r"""
    (?P<blank> \s+ | //[^\n]* )
    | (?P<string>
        (?: [rR][bB]? | [bB][rR] ) (?: \"{3}.*?\"{3} | '{3}.*?'{3} | "[^"\n]*" | '[^'\n]*' )
        | [bB]? (?: \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3} | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' ) )
    | (?P<name> [A-Za-z_]\w* )
    | (?P<quoted> `[^`\n]+` )
    | (?P<number> \d[\w.]* )
    | (?P<mark> . )
    """,
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_PLAIN: Final = re.compile(r"""(?!\"{3}|'{3})(["'])[^\\]*\1""")
"""A text that means what it spells."""


def variable_name(group: Group, number: int) -> str:
    """Return what the variable in place of a key is called; ``number`` counts from 1, those of metadata by themselves."""
    return f"_{'m' if group == 'metadata' else 't'}{number}"


class WhenFault(ValueError):
    """What is wrong with an expression: the code of the problem, what to do, and where. ``offset`` counts characters."""

    def __init__(self, code: str, message: str, hint: str = "", offset: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
        self.offset = offset


class Token(NamedTuple):
    """A word of the expression; ``kind`` is ``name``, ``string``, ``quoted``, ``number`` or ``mark``."""

    kind: str
    text: str
    start: int
    end: int


class Wording(Struct, frozen=True):
    """An expression as the library is to read it.

    ``keys`` are the variables in place of single keys: group and key by the variable's name. ``names`` are the other words
    that stand alone or first, also with what follows their dot. ``patterns`` are the regular expressions as spelled.
    """

    text: str
    keys: dict[str, tuple[Group, str]]
    names: frozenset[str]
    patterns: tuple[Token, ...]


def read_text(text: str) -> Wording:
    """Return how ``text`` asks for what. Raises WhenFault; what is wrong beyond words is left to the library to find."""
    if len(text) > MAX_LENGTH:
        raise WhenFault("E047", f"longer than {MAX_LENGTH} characters", "split it over several routes or cases")
    bad = next((at for at, each in enumerate(text) if "\ud800" <= each <= "\udfff"), None)
    if bad is not None:
        raise WhenFault("E047", "half a character", "write the character whole", bad)
    tokens = [
        Token(found.lastgroup or "", found[0], *found.span())
        for found in _TOKEN.finditer(text)
        if found.lastgroup != "blank"
    ]
    return _Rewriter(text, tokens).wording()


class _Rewriter:
    def __init__(self, text: str, tokens: list[Token]) -> None:
        self._text = list(text)
        self._tokens = tokens
        self._variables: dict[tuple[Group, str], str] = {}
        self._counts = [0, 0]
        self._names: set[str] = set()
        self._patterns: list[Token] = []

    def wording(self) -> Wording:
        for at, token in enumerate(self._tokens):
            if token.kind == "name" and self._word(at - 1) != ".":
                self._root(at, token)
            if token.text == "matches" and self._word(at + 1) == "(":
                self._patterns.append(self._pattern(at + 1))
        keys = {variable: key for key, variable in self._variables.items()}
        return Wording("".join(self._text), keys, frozenset(self._names), tuple(self._patterns))

    def _word(self, at: int) -> str:
        return self._tokens[at].text if 0 <= at < len(self._tokens) else ""

    def _kind(self, at: int) -> str:
        return self._tokens[at].kind if 0 <= at < len(self._tokens) else ""

    def _root(self, at: int, token: Token) -> None:
        """Take note of a word that nothing stands before."""
        if token.text.startswith("_"):
            raise WhenFault("E047", f'unknown name "{token.text}"', "no name begins with an underscore", token.start)
        group = GROUPS.get(token.text)
        if group is not None and self._asks_one(at, token, group):
            return
        self._names.add(token.text)
        if self._word(at + 1) == "." and self._kind(at + 2) == "name":
            self._names.add(f"{token.text}.{self._word(at + 2)}")

    def _asks_one(self, at: int, token: Token, group: Group) -> bool:
        """Replace a group and its key by a variable, and return whether that could be done."""
        if self._word(at - 1) == "(" and self._word(at - 2) in MACROS and self._word(at + 1) == ",":
            said = f'"{group}" cannot be the variable of {self._word(at - 2)}: it is a fact'
            raise WhenFault("E047", said, "call the variable something else", token.start)
        if group == "header" and self._word(at - 1) == "in" and self._kind(at - 2) == "string":
            self._lower(self._tokens[at - 2])
        key, last = self._key(at)
        if key is None:
            return False
        if self._word(at - 1) == "(" and self._word(at - 2) == "has" and self._word(last + 1) == ")":
            if group == "header":
                self._lower(self._tokens[last])
            return False
        self._stand_in(token.start, self._tokens[last].end, group, key)
        return True

    def _key(self, at: int) -> tuple[str | None, int]:
        """Return the key that is asked of the group at ``at``, and where its last token is; None if it is computed."""
        if self._word(at + 1) == "." and self._word(at + 3) != "(":
            if self._kind(at + 2) == "name":
                return self._word(at + 2), at + 2
            if self._kind(at + 2) == "quoted":
                return self._word(at + 2)[1:-1], at + 2
        if self._word(at + 1) == "[" and self._kind(at + 2) == "string" and self._word(at + 3) == "]":
            spelled = self._word(at + 2)
            if _PLAIN.fullmatch(spelled):
                return spelled[1:-1], at + 3
            said = "a key is written without a prefix or backslashes"
            raise WhenFault("E047", said, 'such as header["user-agent"]', self._tokens[at + 2].start)
        return None, at

    def _lower(self, token: Token) -> None:
        if token.text.isascii() and "\\" not in token.text:
            self._text[token.start : token.end] = token.text.lower()

    def _stand_in(self, start: int, end: int, group: Group, key: str) -> None:
        asked = (group, key.lower() if group == "header" else key)
        if asked not in self._variables:
            self._counts[group == "metadata"] += 1
            self._variables[asked] = variable_name(group, self._counts[group == "metadata"])
        variable = self._variables[asked]
        rest = self._text[start + len(variable) : end]
        self._text[start:end] = [*variable, *(each if each == "\n" else " " for each in rest)]

    def _pattern(self, opening: int) -> Token:
        """Return the last argument of the call whose bracket opens at ``opening``: a text that is written out."""
        depth = 0
        for at in range(opening, len(self._tokens)):
            depth += (self._word(at) in ("(", "[", "{")) - (self._word(at) in (")", "]", "}"))
            if depth == 0:
                pattern = self._tokens[at - 1]
                if pattern.kind == "string" and self._word(at - 2) in ("(", ","):
                    return pattern
                break
        start = self._tokens[opening].start
        raise WhenFault("E047", "the pattern of matches() must be a text", 'such as model.matches("^gpt-[45]")', start)
