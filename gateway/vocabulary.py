"""Tokenizers, by the model: which vocabulary counts a model's tokens, and how many a text has in it.

The library is splintr. Its wheel holds the vocabularies, so that nothing is ever downloaded; one is loaded when it is first
needed, which takes some 0.2 to 0.5 s and lets other threads run, as counting does.
"""

from __future__ import annotations

import importlib
import re
from functools import cache, lru_cache
from typing import Any, Final, Protocol

from msgspec import Struct

_MODELS: Final = tuple(
    (re.compile(rf"(?:^|[/:.@])(?:{pattern})"), name)
    for pattern, name in (
        # OpenAI: the table of models in tiktoken; gpt-oss has the ranks of o200k and marks of its own.
        (r"gpt-oss|gpt-4o|gpt-4\.\d|gpt-[5-9]|chatgpt|o[1-9](?![a-z0-9])", "o200k_base"),
        (r"gpt-4|gpt-3\.5|gpt-35|davinci|babbage|text-", "cl100k_base"),
        # Google's own SDK counts Gemini's tokens with Gemma's vocabulary.
        (r"gemini|gemma", "gemma3"),
        (r"(?:code)?llama-?2|codellama", "llama2"),
        (r"(?:meta-)?llama", "llama3"),
        (r"deepseek", "deepseek_v3"),
        (r"qwen|qwq|qvq", "qwen3"),
        (r"glm|chatglm", "glm4"),
        (r"kimi|moonshot", "kimi_k2"),
        (r"mistral|mixtral|ministral|magistral|codestral|devstral|pixtral", "mistral_v3"),
        (r"phi-?4", "phi4"),
    )
)
OTHERWISE: Final = "o200k_base"
"""For models whose vocabulary nobody has published, such as Claude, and for names that say nothing."""
_PLAIN: Final = frozenset({"gemma3"})
_loaded: set[str] = set()
"""What is here already: a vocabulary is the same for everybody, and kept for good."""


class NoTokenizer(Exception):
    """The extra ``tokens`` is not installed."""


class _Tokenizer(Protocol):
    def encode_ordinary(self, text: str, /) -> list[int]: ...


class Vocabulary(Struct, frozen=True, eq=False):
    """How a family of models cuts texts. ``per_message`` and ``per_request`` are tokens of marks around what is said.

    Source of the marks: OpenAI's cookbook, "How to count tokens with tiktoken": three around each message and one for its
    role, three before the answer. Google's counts have none.
    """

    name: str
    tokenizer: _Tokenizer
    per_message: int = 4
    per_request: int = 3

    def count(self, text: str) -> int:
        """Return the tokens of ``text``. What spells a mark of the vocabulary, such as ``<|endoftext|>``, is words too."""
        try:
            return len(self.tokenizer.encode_ordinary(text))
        except UnicodeEncodeError:  # half of a surrogate pair
            return len(self.tokenizer.encode_ordinary(text.encode("utf-8", "replace").decode()))


def is_installed() -> bool:
    """Whether there is a tokenizer."""
    try:
        _library()
    except NoTokenizer:
        return False
    return True


@lru_cache(maxsize=1024)
def vocabulary_name(model: str) -> str:
    """Return the vocabulary for ``model``, its own or the nearest; a vendor's name before it does not matter."""
    folded = model.lower()
    return next((name for pattern, name in _MODELS if pattern.search(folded)), OTHERWISE)


def is_loaded(model: str) -> bool:
    """Whether the vocabulary for ``model`` is there, so that counting needs no loading."""
    return vocabulary_name(model) in _loaded


def vocabulary(model: str) -> Vocabulary:
    """Return the vocabulary for ``model``, loaded. Raises NoTokenizer."""
    _library()
    return _load(vocabulary_name(model))


def _library() -> Any:
    try:
        return importlib.import_module("splintr")
    except ImportError as fault:
        raise NoTokenizer from fault


@cache
def _load(name: str) -> Vocabulary:
    tokenizer: _Tokenizer = _library().Tokenizer.from_pretrained(name)
    tokenizer.encode_ordinary("It compiles its pattern 1 time.")
    _loaded.add(name)
    return Vocabulary(name, tokenizer, 0, 0) if name in _PLAIN else Vocabulary(name, tokenizer)
