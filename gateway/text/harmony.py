"""Harmony, the channels of gpt-oss: ``analysis`` is reasoning, ``final`` the answer, a recipient makes a call.

A completion goes on where the prompt ended, after ``<|start|>assistant``. What comes without a channel is the answer, and
so is a text without any token; a message that was not closed ends where the next begins; a header that never comes to its
``<|message|>`` gives its words back.

Source: OpenAI's description of the format; tokens in the middle of a header, a recipient before or after the channel, and
content types as bare words (``code``, ``json``) are all seen from the model.
"""

from __future__ import annotations

import re
from typing import Final

from .markers import Markers
from .reader import NotThis, Reader, Steps
from .voice import Voice

_START: Final = "<|start|>"
_CHANNEL: Final = "<|channel|>"
_MESSAGE: Final = "<|message|>"
_ENDS: Final = ("<|end|>", "<|return|>", "<|call|>")
_MAX_HEADER: Final = 1024
"""Characters of a header. The longest that make sense have two names in them."""

_OPENINGS: Final = Markers(_START, _CHANNEL, _MESSAGE, *_ENDS)
_HEADER_END: Final = Markers(_MESSAGE, _START, *_ENDS)
_CONTENT_END: Final = Markers(_START, _CHANNEL, *_ENDS)
_RECIPIENT: Final = re.compile(r"to=([^\s<]+)")
_NAMED: Final = re.compile(r"<\|channel\|>\s*(\w+)")
_PEOPLE: Final = frozenset({"user", "assistant", "system", "developer", "all"})


def harmony(it: Reader, voice: Voice) -> Steps[None]:
    """Read a completion."""
    voice.trims = False
    header = yield from it.attempt(_recipient(it))
    if header is not None:
        yield from _message(it, voice, header)
    while True:
        between = _Between(voice)
        marker = yield from it.words(_OPENINGS, between.say)
        between.end(last=not marker)
        if not marker:
            return
        if marker == _MESSAGE:
            yield from _message(it, voice, "")
        elif marker == _START:
            header = yield from it.attempt(_header(it))
            if header is not None:
                yield from _message(it, voice, header)
        elif marker == _CHANNEL:
            it.back(marker)
            header = yield from it.attempt(_header(it))
            if header is None:
                it.at += len(marker)
                header = yield from it.attempt(_bare_channel(it))
            if header is not None:
                yield from _message(it, voice, header)


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


def _message(it: Reader, voice: Voice, header: str) -> Steps[None]:
    """Say the content of a message, up to its end."""
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
