"""How many tokens a request takes: its words, its tools, and the marks around them.

What is no text has no tokens of its own: an image is taken for a fixed number, other media and blocks that we have no word
for by their size. Such a tally says that it is not ``whole``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil
from typing import Final

from msgspec import Struct

from .ir.message import Media, Message, Opaque, Part, Reasoning, Refusal, Request, Text, Tool, ToolCall, ToolResult
from .vocabulary import NoTokenizer, vocabulary

IMAGE: Final = 765
"""OpenAI's price of an image of 1024 x 1024 in high detail: 85 and four tiles of 170. Others differ by half or double."""
MAX_CHARACTERS: Final = 4_000_000
"""What is counted of a request at most, the rest goes by its size: a million tokens or so, with the slowest vocabulary some
seconds of a thread."""
_PER_TOKEN: Final = 4
"""Bytes of a token, where there is nothing better to go by."""
_ELSEWHERE: Final = frozenset({"previous_response_id", "conversation", "cachedContent", "prompt"})
"""Members that stand for words which the provider keeps, and which nobody can count here."""


class Tally(Struct, frozen=True):
    """The tokens of a request. ``vocabulary`` is what counted them, "" if they are an estimate by size; ``whole`` is whether
    all of it could be counted."""

    tokens: int
    vocabulary: str = ""
    whole: bool = False


def tally(request: Request, model: str) -> Tally:
    """Return the tokens of ``request`` as ``model`` reads it. Raises NoTokenizer."""
    words = vocabulary(model)
    counter = _Counter(words.count)
    marks = len(request.messages) * words.per_message + words.per_request
    return Tally(counter.request(request) + marks, words.name, counter.whole)


def estimate(request: Request) -> Tally:
    """Return the tokens of ``request`` by the size of its texts."""
    return Tally(_Counter(by_size).request(request))


def tally_or_estimate(request: Request, model: str) -> Tally:
    """Return the tokens, counted if there is a tokenizer."""
    try:
        return tally(request, model)
    except NoTokenizer:
        return estimate(request)


def by_size(text: str) -> int:
    """Return how many tokens a text of this size may have."""
    return ceil(len(text.encode("utf-8", "surrogatepass")) / _PER_TOKEN)


class _Counter:
    """Walks a request. ``whole`` becomes False where something had to be guessed."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._left = MAX_CHARACTERS
        self.whole = True

    def request(self, request: Request) -> int:
        total = sum(map(self._message, request.messages)) + sum(map(self._tool, request.tools))
        wanted = request.response_format
        if wanted is not None and wanted.schema is not None:
            total += self._words(wanted.schema.decode("utf-8", "replace"))
        if any(bytes(raw) != b"null" for name, raw in request.extra.items() if name in _ELSEWHERE):
            self.whole = False
        return total

    def _message(self, message: Message) -> int:
        total = self._parts(message.parts)
        return total if message.name is None else total + 1 + self._words(message.name)

    def _parts(self, parts: Iterable[Part]) -> int:
        total = 0
        for part in parts:
            if isinstance(part, Text | Refusal | Reasoning):
                total += self._words(part.text)
            elif isinstance(part, ToolCall):
                total += self._words(part.name) + self._words(part.arguments)
            elif isinstance(part, ToolResult):
                total += self._parts(part.content)
            else:
                total += self._media(part)
        return total

    def _media(self, part: Media | Opaque) -> int:
        if isinstance(part, Media):
            if part.text is not None:
                return self._words(part.text)
            self.whole = False
            return IMAGE if part.kind == "image" or part.data is None else ceil(len(part.data) / _PER_TOKEN)
        self.whole = False
        return ceil(len(part.data) / _PER_TOKEN)

    def _tool(self, tool: Tool) -> int:
        if tool.raw is not None:  # the provider's own: what it says to the model is not in the request
            self.whole = False
            return self._words(tool.raw.decode("utf-8", "replace"))
        return (
            self._words(tool.name)
            + self._words(tool.description or "")
            + self._words(tool.schema.decode("utf-8", "replace"))
        )

    def _words(self, text: str) -> int:
        if len(text) > self._left:
            self.whole = False
            return by_size(text)
        self._left -= len(text)
        return self._count(text)
