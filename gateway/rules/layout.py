"""The canonical layout of a rule file: indentation and spaces only. Whatever can be read stays as it was written.

Line breaks, comments, quotes, anchors and the order of keys are the author's. Levels are indented by two columns, list items
too; one space after a colon and a comma, none inside brackets, two before a comment; no more than one empty line. Values or
comments that stand in one column over neighbouring lines go on doing so. Works on the scanner's tokens, since every YAML
writer at hand loses comments inside brackets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Final, Literal

import yaml
from msgspec import Struct

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STEP: Final = 2
_OPENING: Final = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken)
_CLOSING: Final = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)


class CannotLayOut(ValueError):
    """The text uses a form of YAML that this layout does not know, and stays as it is."""


def lay_out(text: str) -> str:
    """Return ``text``, which must be YAML, in canonical layout. Raises CannotLayOut rather than change what it says."""
    text = text.replace("\r\n", "\n")
    laid = _Layout(text if text.endswith("\n") else f"{text}\n").text()
    try:
        same = _events(laid) == _events(text) and _comments(laid) == _comments(text)
    except yaml.YAMLError:
        same = False
    if not same:
        raise CannotLayOut("its layout cannot be changed without changing what it says")
    return laid


class _Level(Struct, eq=False):
    """A block collection: the column where it stood, and where it will. ``loose``: a list in the column of its key."""

    kind: Literal["mapping", "list", "loose"]
    old: int
    new: int


class _Line(Struct, eq=False):
    """A line to be.

    ``level`` is the mapping whose key begins it, ``value_at`` where the key's value is in ``text``; ``value_column`` and
    ``comment_column`` are where value and comment stood. ``inside``: it is a piece of a scalar of several lines.
    """

    indent: int = 0
    text: str = ""
    comment: str = ""
    comment_column: int = 0
    level: _Level | None = None
    value_at: int | None = None
    value_column: int | None = None
    inside: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.text or self.comment or self.inside)

    def __str__(self) -> str:
        gap = "  " if self.text and self.comment else ""
        return f"{' ' * self.indent}{self.text}{gap}{self.comment}" if self.text or self.comment else ""


class _Layout:
    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: list[_Line] = []
        self._levels: list[_Level] = []
        self._brackets: list[int] = []  # of each open one, the indentation of the line where it stands
        self._line: _Line | None = None
        self._last: yaml.Token | None = None
        self._at_key = False
        self._end = 0

    def text(self) -> str:
        for token in yaml.scan(self._text, Loader=_LOADER):
            self._token(token)
        lines = list(_without_gaps(self._lines))
        for run in _runs(lines, lambda line: (line.level and id(line.level), line.value_column)):
            width = max(line.value_at or 0 for line in run) + 1
            for line in run:
                assert line.value_at is not None
                line.text = line.text[: line.value_at].ljust(width) + line.text[line.value_at + 1 :]
        for run in _runs(lines, lambda line: (line.text and line.comment and "#", line.comment_column)):
            width = max(line.indent + len(line.text) for line in run)
            for line in run:
                line.text = line.text.ljust(width - line.indent)
        return "".join(f"{line}\n" for line in lines)

    def _token(self, token: yaml.Token) -> None:
        if isinstance(token, yaml.KeyToken):
            if token.start_mark.index != token.end_mark.index:
                raise CannotLayOut(f"line {token.start_mark.line + 1}: a key begins with a question mark")
            if self._levels and self._levels[-1].kind == "loose" and not self._brackets:
                self._levels.pop()
        if token.start_mark.index > self._end:
            self._between(token)
        if isinstance(token, yaml.BlockEndToken):
            while self._levels.pop().kind == "loose":
                pass
        elif isinstance(token, yaml.BlockMappingStartToken):
            self._levels.append(_Level("mapping", token.start_mark.column, self._column()))
        elif isinstance(token, yaml.BlockSequenceStartToken):
            self._levels.append(_Level("list", token.start_mark.column, self._column()))
        elif isinstance(token, yaml.KeyToken):
            self._at_key = True
        elif token.end_mark.index > token.start_mark.index:
            self._visible(token)

    def _column(self) -> int:
        """Return where a block collection that begins here will stand."""
        if self._line is not None:
            return self._line.indent + len(self._line.text) + 1  # behind a dash
        return self._levels[-1].new + _STEP if self._levels else 0

    def _between(self, token: yaml.Token) -> None:
        """Take what stands before a token: spaces, line breaks, comments."""
        start = self._end
        pieces = self._text[start : token.start_mark.index].split("\n")
        self._end = token.start_mark.index
        if self._line is not None:
            tail = pieces.pop(0)
            if comment := tail.strip():
                self._line.comment = comment
                at = start + len(tail) - len(tail.lstrip())
                self._line.comment_column = at - self._text.rfind("\n", 0, at)
            if not pieces:
                return
            self._line = None
        if not pieces[-1].strip():
            pieces.pop()  # what indents the token
        for piece in pieces:
            comment = piece.strip()
            self._lines.append(
                _Line(self._beside(len(piece) - len(piece.lstrip()), token) if comment else 0, "", comment)
            )

    def _beside(self, column: int, following: yaml.Token) -> int:
        """Return where a comment on a line of its own will stand: with what follows, or what it stood in line with."""
        if self._brackets:
            return self._brackets[-1] + _STEP
        at = following.start_mark.column
        if column >= at and (not self._levels or at > self._levels[-1].old):
            return self._levels[-1].new + _STEP if self._levels else 0
        in_list = self._text.startswith("-", following.start_mark.index)
        if in_list and self._levels and self._levels[-1].kind == "mapping" and column >= at == self._levels[-1].old:
            return self._levels[-1].new + _STEP
        fits = (level for level in reversed(self._levels) if level.old <= column and (in_list or level.kind != "loose"))
        return next((level.new for level in fits), 0)

    def _visible(self, token: yaml.Token) -> None:
        if isinstance(token, yaml.BlockEntryToken) and self._levels[-1].kind == "mapping":
            self._levels.append(_Level("loose", token.start_mark.column, self._levels[-1].new + _STEP))
        line = self._line
        if line is None:
            level = self._levels[-1] if self._at_key and not self._brackets else None
            line = self._line = _Line(self._indent(token), level=level)
            self._lines.append(line)
            self._last = None
        if line.value_at is not None and line.value_column is None:
            line.value_column = token.start_mark.column
        first, *rest = self._text[token.start_mark.index : token.end_mark.index].split("\n")
        line.text += _space(self._last, token) + (first.rstrip() if rest else first)
        if isinstance(token, yaml.ValueToken) and line.level is not None and line.value_at is None:
            line.value_at = len(line.text)
        elif isinstance(token, _OPENING):
            self._brackets.append(line.indent)
        elif isinstance(token, _CLOSING):
            self._brackets.pop()
        self._last, self._end, self._at_key = token, token.end_mark.index, False
        if rest:
            self._further(token, rest, line.indent)

    def _indent(self, token: yaml.Token) -> int:
        """Return the indentation of a line that begins with ``token``."""
        if self._brackets:
            return self._brackets[-1] + (0 if isinstance(token, _CLOSING) else _STEP)
        if not self._levels:
            return 0
        return self._levels[-1].new + (0 if self._at_key or isinstance(token, yaml.BlockEntryToken) else _STEP)

    def _further(self, token: yaml.Token, rest: list[str], indent: int) -> None:
        """Take the further lines of a scalar. Those of a block move with the level it stands in."""
        is_block = isinstance(token, yaml.ScalarToken) and token.style in ("|", ">")
        level = self._levels[-1] if self._levels else _Level("mapping", 0, 0)
        over = rest.pop() if is_block else None
        for piece in rest:
            if is_block:
                moved = " " * (level.new - level.old) + piece if piece else ""
                moved = moved[max(level.old - level.new, 0) :]
                self._lines.append(_Line(0, moved, inside=True))
            else:
                self._lines.append(_Line(indent + _STEP, piece.lstrip(), inside=True))
        self._line = self._lines[-1] if over is None else None
        if over is not None:
            self._end -= len(over)


def _space(last: yaml.Token | None, token: yaml.Token) -> str:
    """Return what stands between two tokens on one line."""
    if last is None or isinstance(last, _OPENING):
        return ""
    if isinstance(token, yaml.ValueToken):
        return " " if isinstance(last, yaml.AliasToken) else ""  # a colon may be part of an alias's name
    if isinstance(token, (*_CLOSING, yaml.FlowEntryToken)):
        return " " if isinstance(last, yaml.ValueToken) else ""
    return " "


def _without_gaps(lines: Iterable[_Line]) -> Iterator[_Line]:
    """Leave out empty lines at the beginning, at the end, and after another one."""
    waiting: _Line | None = None
    begun = False
    for line in lines:
        if line.is_empty:
            waiting = line if begun else None
            continue
        if waiting is not None:
            yield waiting
        yield line
        waiting, begun = None, True


def _runs(lines: Iterable[_Line], key: Callable[[_Line], tuple[object, int | None]]) -> Iterator[list[_Line]]:
    """Yield neighbouring lines, two or more, that are alike in a key whose parts are there."""
    for (what, column), run in groupby(lines, key):
        if what and column is not None and len(found := list(run)) > 1:
            yield found


def _events(text: str) -> list[tuple[object, ...]]:
    """Return all that a reader of YAML learns from ``text``, but for where it stands."""
    names = ("anchor", "tag", "implicit", "value", "style", "flow_style", "explicit", "version", "tags")
    return [
        (type(event), *(getattr(event, name, None) for name in names)) for event in yaml.parse(text, Loader=_LOADER)
    ]


def _comments(text: str) -> list[str]:
    """Return the comments of ``text`` in order; those in the head of a block scalar are part of it."""
    found: list[str] = []
    end = 0
    for token in yaml.scan(text, Loader=_LOADER):
        found += [piece.strip() for piece in text[end : token.start_mark.index].split("\n") if piece.strip()]
        end = max(end, token.end_mark.index)
    return found
