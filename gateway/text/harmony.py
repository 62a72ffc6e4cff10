"""Harmony, the channels of gpt-oss: ``analysis`` is reasoning, ``final`` the answer, a recipient makes a call.

A completion goes on where the prompt ended, after ``<|start|>assistant``. What comes without a channel is the answer, and
so is a text without any token; a message that was not closed ends where the next begins; a header that never comes to its
``<|message|>`` gives its words back.

After ``<|return|>`` and ``<|call|>``, and where somebody else has the word, the completion is over: servers stop there, and
what a model writes on regardless are results and questions that it makes up.

Source: OpenAI's description of the format; tokens in the middle of a header, a recipient before or after the channel, and
content types as bare words (``code``, ``json``) are all seen from the model.
"""

from __future__ import annotations

import re
from typing import Final

from ..ir.loss import Loss
from .markers import Markers
from .reader import NotThis, Reader, Steps
from .voice import Voice

_START: Final = "<|start|>"
_CHANNEL: Final = "<|channel|>"
_MESSAGE: Final = "<|message|>"
_LAST: Final = ("<|return|>", "<|call|>")
_ENDS: Final = ("<|end|>", *_LAST)
_MAX_HEADER: Final = 1024
"""Characters of a header. The longest that make sense have two names in them."""

_OPENINGS: Final = Markers(_START, _CHANNEL, _MESSAGE, *_ENDS)
_HEADER_END: Final = Markers(_MESSAGE, _START, *_ENDS)
_CONTENT_END: Final = Markers(_START, _CHANNEL, *_ENDS)
_RECIPIENT: Final = re.compile(r"to=([^\s<]+)")
_NAMED: Final = re.compile(r"<\|channel\|>\s*(\w+)")
_PEOPLE: Final = frozenset({"user", "assistant", "system", "developer", "all"})
_OTHERS: Final = re.compile(r"\s*(?:user|system|developer|tool|functions\.\S*)(?:\s|<|$)")
"""How a header begins whose message is not the model's to write."""


def harmony(it: Reader, voice: Voice) -> Steps[None]:
    """Read a completion."""
    voice.trims = False
    header = yield from it.attempt(_recipient(it))
    over = header is not None and (yield from _message(it, voice, header))
    while not over:
        between = _Between(voice)
        marker = yield from it.words(_OPENINGS, between.say)
        between.end(last=not marker)
        if not marker:
            return
        header = None
        if marker == _MESSAGE:
            header = ""
        elif marker == _START:
            header = yield from it.attempt(_header(it))
            over = header is not None and _OTHERS.match(header) is not None
        elif marker == _CHANNEL:
            it.back(marker)
            header = yield from it.attempt(_header(it))
            if header is None:
                it.at += len(marker)
                header = yield from it.attempt(_bare_channel(it))
        if header is not None and not over:
            over = yield from _message(it, voice, header)
    yield from _made_up(it, voice)


class _Between:
    """Takes what stands between messages: white space and the role of the next one are dropped, all else is said."""

    __slots__ = ("_said", "_voice", "_words")

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._words = ""
        self._said = False

    def say(self, words: str) -> None:
        """Take words."""
        self._words += words
        if self._said or len(self._words) > _MAX_HEADER or not "assistant".startswith(self._words.strip()):
            self._said = True
            self._voice.text(self._words)
            self._words = ""

    def end(self, last: bool) -> None:
        """Hear that a marker came, or the end. A text without a marker is the answer, whatever it is."""
        if self._words.strip() not in ("", "assistant") or (last and self._voice.index < 0):
            self._voice.text(self._words)
        self._voice.shut()


def _recipient(it: Reader) -> Steps[str]:
    """Read the header of a completion that begins with its recipient: the prompt has the token and the role."""
    yield from it.space()
    yield from it.expect("to=")
    return "to=" + (yield from _header(it))


def _header(it: Reader) -> Steps[str]:
    """Return a header. Raises NotThis if it does not come to its ``<|message|>``."""
    text, marker = yield from it.until(_HEADER_END, limit=_MAX_HEADER)
    if marker != _MESSAGE:
        raise NotThis
    return text


def _bare_channel(it: Reader) -> Steps[str]:
    """Read the name of a channel whose ``<|message|>`` is missing."""
    yield from it.space()
    return _CHANNEL + (yield from it.either("analysis", "commentary", "final"))


def _message(it: Reader, voice: Voice, header: str) -> Steps[bool]:
    """Say the content of a message, up to its end. Return whether that was the end of all."""
    recipient, channel = _RECIPIENT.search(header), _NAMED.search(header)
    if recipient is not None and recipient[1] not in _PEOPLE:
        voice.call("", recipient[1].removeprefix("functions."))
        found = yield from it.words(_CONTENT_END, voice.arguments)
        voice.call_end()
    else:
        analysis = channel is not None and channel[1] == "analysis"
        found = yield from it.words(_CONTENT_END, voice.think if analysis else voice.text)
        voice.shut()
    if found not in _ENDS:
        it.back(found)
    return found in _LAST


def _made_up(it: Reader, voice: Voice) -> Steps[None]:
    """Read what comes after the end, and say only that there was something."""
    noted = False

    def note(words: str) -> None:
        nonlocal noted
        if not noted and words and not words.isspace():
            noted = True
            path = f"choices[{voice.choice}].text"
            voice.lose(Loss("lost", path, "text", "the model wrote on after the end of its answer"))

    yield from it.rest(note)
