"""What is looked for, and what stands in its place. A Redactor is made once; a Session is one conversation's numbering.

A session is told the texts of a conversation in order. It numbers what it finds by first appearance, and the same value
always gets the same number: the next turn's request begins with the bytes of this one's, so that prompt caches keep hitting.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from ..errors import CallerError
from ..secret_shapes import Place
from .detectors import DETECTORS, KINDS, Kind
from .folding import Folded, needs_folding
from .prefilter import POSSIBLE, Test, plain_bytes, quick_test, words_test
from .words import Words, user_pattern

Mode = Literal["replace", "mask", "hash", "refuse"]
_SAID: Final = {
    "email": "an e-mail address",
    "phone": "a phone number",
    "card": "a card number",
    "iban": "an IBAN",
    "ip": "an IP address",
    "secret": "a secret",
    "word": "a word that must not leave",
}
_LAST_FOUR: Final = frozenset({"phone", "card", "iban"})
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,30}")
_MASKED: Final = "***"


class Found(NamedTuple):
    """A place in a text, and what stands there: one of KINDS, ``word``, or the name of a pattern."""

    start: int
    end: int
    kind: str


class Redactor:
    """Finds and replaces. ``patterns`` are RE2 expressions by the name that a placeholder shall have.

    ``allow`` are values that stay, in any case; ``@example.com`` keeps all addresses there. ``key`` is what mode ``hash`` is
    keyed with, of any length: without one, an own for each Redactor. Raises ValueError for a bad pattern or name.
    """

    def __init__(
        self,
        kinds: Sequence[Kind] = KINDS,
        *,
        words: Sequence[str] = (),
        patterns: Mapping[str, str] | None = None,
        allow: Sequence[str] = (),
        mode: Mode = "replace",
        key: bytes | None = None,
    ) -> None:
        self.mode = mode
        self.key = key or secrets.token_bytes(32)
        self.kinds = frozenset(kinds)
        self.allowed = frozenset(each.lower() for each in allow)
        self._domains = tuple(each for each in self.allowed if each.startswith("@"))
        self._words = Words(words) if words else None
        self.longest_word = max(map(len, words), default=0)
        self._possible: list[tuple[Test, str, Callable[[str], Iterator[Place]]]] = [
            (POSSIBLE[kind], kind, find) for kind, find in DETECTORS.items() if kind in self.kinds
        ]
        self._own: list[tuple[str, Callable[[str], Iterator[Place]]]] = []
        if self._words is not None:
            test: Test = bool if self._words.plain is None else words_test(self._words.plain)
            self._possible.append((test, "word", self._words))
        for name, pattern in (patterns or {}).items():
            if _NAME.fullmatch(name) is None or name in _SAID:
                raise ValueError(f"the pattern name {name!r} must be small letters, digits and _, and none of ours")
            try:
                self._own.append((name, user_pattern(pattern)))
            except ValueError as fault:
                raise ValueError(f"pattern {name}: {fault}") from fault
        self._always = bool(patterns) or (self._words is not None and self._words.plain is None)
        self._quick = quick_test(self.kinds, None if self._words is None else self._words.plain)
        order = [*(kind for _, kind, _ in self._possible), *(name for name, _ in self._own)]
        self._rank = {kind: number for number, kind in enumerate(order)}
        names = "|".join(name.upper() for name in order)
        self.literal: Final = re.compile(rf"<((?:{names})_[1-9][0-9]{{0,8}})>" if names else r"(?!)")

    def suspicious(self, body: bytes) -> bool:
        """Whether a JSON body may hold anything; False is certain. Costs some microseconds, and a few more per 10 KB."""
        if self._always or self._quick(body):
            return True
        plain = plain_bytes(body)
        return plain is not body and bool(self._quick(plain))

    def find(self, text: str) -> list[Found]:
        """Return what stands in ``text``, in order, none overlapping: of two that do, the first kind names both."""
        found = self._places(text)
        if needs_folding(text):
            folded = Folded(text)
            found += [Found(*folded.place(start, end), kind) for start, end, kind in self._places(folded.text)]
        if self.allowed:
            found = [each for each in found if not self._is_allowed(text[each.start : each.end].lower())]
        if len(found) < 2:
            return found
        rank = self._rank
        found.sort(key=lambda each: each.start)
        merged = [found[0]]
        for each in found[1:]:
            last = merged[-1]
            if each.start >= last.end:
                merged.append(each)
            else:
                kind = min(last.kind, each.kind, key=rank.__getitem__)
                merged[-1] = Found(last.start, max(last.end, each.end), kind)
        return merged

    def _places(self, text: str) -> list[Found]:
        data = text.encode("utf-8", "replace")
        found = [
            Found(start, end, kind)
            for possible, kind, find in self._possible
            if possible(data)
            for start, end in find(text)
        ]
        if self._own:
            found += [Found(start, end, kind) for kind, find in self._own for start, end in find(text)]
        return found

    def _is_allowed(self, value: str) -> bool:
        return value in self.allowed or (bool(self._domains) and value.endswith(self._domains))

    def session(self, *, restore: bool = True, tenant: str = "") -> Session:
        """Return the numbering of one conversation. ``restore`` says that its placeholders will be turned back."""
        return Session(self, restore and self.mode == "replace", tenant)


class Session:
    """What was found in one conversation so far. ``values`` are the values by placeholder, without its brackets."""

    __slots__ = ("redactor", "values", "counts", "_names", "_numbers", "_taken", "_restores", "_tenant", "_mode")

    def __init__(self, redactor: Redactor, restores: bool, tenant: str = "", mode: Mode | None = None) -> None:
        self._mode = mode or redactor.mode
        self.redactor = redactor
        self.values: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._taken: set[str] = set()
        self._restores = restores
        self._tenant = tenant

    def text(self, text: str, where: str = "the text") -> str:
        """Return ``text`` without what must not leave; the same object if there is nothing.

        Raises CallerError in mode ``refuse``, which tells kind and place, never the value.
        """
        found = self.find(text)
        return self.replaced(text, found, where) if found else text

    def find(self, text: str) -> list[Found]:
        """Return the places in ``text`` that must be replaced.

        What looks like a placeholder and was written by the caller is not ours to restore. If its number is free, nobody gets
        that number; if it is taken, by an earlier turn, it is a value like any other and gets a placeholder of its own.
        """
        found = self.redactor.find(text)
        if not self._restores or "<" not in text:
            return found
        taken = {place for each in found for place in range(each.start, each.end)}
        literals = [
            Found(*each.span(), each[1].rpartition("_")[0].lower())
            for each in self.redactor.literal.finditer(text)
            if taken.isdisjoint(range(*each.span()))
        ]
        return sorted((*found, *literals)) if literals else found

    def replaced(self, text: str, found: Sequence[Found], where: str = "the text") -> str:
        """Return ``text`` with something else in the ``found`` places."""
        pieces: list[str] = []
        at = 0
        for start, end, kind in found:
            pieces += (text[at:start], self.name(text[start:end], kind, where))
            at = end
        joined = "".join((*pieces, text[at:]))
        return text if joined == text else joined

    def name(self, value: str, kind: str, where: str = "the text") -> str:
        """Return what stands in the place of ``value``."""
        if self._restores and value.startswith("<") and (literal := self.redactor.literal.fullmatch(value)) is not None:
            if literal[1] not in self.values:
                self._taken.add(literal[1])
                return value
        else:
            self.counts[kind] = self.counts.get(kind, 0) + 1
        mode = self._mode
        if mode == "replace":
            return self._placeholder(value, kind)
        if mode == "hash":
            said = f"{self._tenant}\0{value}".encode("utf-8", "surrogatepass")
            digest = hmac.digest(self.redactor.key, said, "sha256").hex()
            return f"<{kind.upper()}:{digest[:16]}>"
        if mode == "mask":
            return _MASKED + value[-4:] if kind in _LAST_FOUR else _MASKED
        what = _SAID.get(kind) or f"what the pattern {kind} forbids"
        raise CallerError(f"{where} holds {what}, and this route takes none: remove it, and send the request again")

    def _placeholder(self, value: str, kind: str) -> str:
        known = self._names.get(value)
        if known is not None:
            return f"<{known}>"
        number = self._numbers.get(kind, 0) + 1
        while (name := f"{kind.upper()}_{number}") in self._taken:
            number += 1
        self._numbers[kind] = number
        self._names[value] = name
        self.values[name] = value
        return f"<{name}>"

    def restore(self, text: str) -> str:
        """Return ``text`` with every placeholder of this session turned back; others stay."""
        if "<" not in text:
            return text
        return self.redactor.literal.sub(lambda found: self.values.get(found[1], found[0]), text)

    def summary(self) -> str:
        """Count and kind of what was found, for a log; "" for nothing."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
