"""Stars for what a model itself says of addresses, numbers and secrets, in an answer in any number of pieces.

What may go on in the next piece waits for it: the last word, with the words before it that a number or a ``Bearer`` connects
it to. Of a whole answer nothing waits.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec.structs import replace

from ..errors import GatewayError
from ..ir.event import ChoiceStop, Chunk, Event, PartDelta, PartPatch, PartStart, PartStop, ResponseStop, Terminator
from ..ir.message import Citation, Reasoning, Refusal, Text, ToolCall
from .ends import ended_by, ends_part
from .json_text import redact_json_bytes
from .redactor import Redactor, Session

MAX_HELD: Final = 8192
"""Characters that wait at most. Of a longer secret, such as a PEM block, what follows is found to be one by itself or not."""
MAX_CONNECTED: Final = 100
"""What a number in groups takes, or a word and a token, with some room."""
_CONNECTS: Final = re.compile(r"[0-9]|^\W+\Z|^[A-Z]{1,4}\s*\Z|(?i:bearer|basic|key|signature)\W*\Z")
_OPEN_PEM: Final = re.compile(r"-----BEGIN[A-Z0-9 ]{0,40}(?:-{0,4}\Z|-----[A-Za-z0-9+/=\s\\:,-]*(?:END[A-Z0-9 -]*)?\Z)")
_PEM_END: Final = re.compile(r"-----END [A-Z0-9 ]{1,40}-----")
_NUMBER: Final = re.compile(r"(?<=[:\[,])\s*\Z")


class Masking:
    """A stage. It looks for what ``redactor`` looks for, and puts stars in its place whatever the redactor's own mode is."""

    __slots__ = ("_redactor", "_session", "_held", "_json", "_longest")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._session = Session(redactor, restores=False, mode="mask")
        self._held: dict[int, PartDelta] = {}
        self._json: set[int] = set()
        self._longest = redactor.longest_word

    def feed(self, chunk: Chunk, /) -> Chunk | None:
        """Take a chunk. A whole answer without anything to find goes on as it is."""
        raw = chunk.raw
        if chunk.is_whole and raw is not None and not self._redactor.suspicious(raw):
            return chunk
        events: list[Event] = []
        for event in chunk.events:
            self._take(event, events)
        if chunk.is_whole:
            events += self._rest(list(self._held.values()))
        if len(events) == len(chunk.events) and all(map(_same, events, chunk.events)):
            return chunk
        return Chunk(tuple(events), None, chunk.wire) if events else None

    def close(self, error: GatewayError | None, /) -> Chunk | None:
        """The answer is over, and what waited is complete."""
        rest = self._rest(list(self._held.values()))
        return Chunk(tuple(rest)) if rest else None

    def _rest(self, complete: list[PartDelta]) -> list[Event]:
        for each in complete:
            del self._held[each.index]
        return [PartDelta(each.index, self._masked(each.index, each.text), each.choice) for each in complete]

    def _take(self, event: Event, out: list[Event]) -> None:
        if isinstance(event, PartDelta):
            self._delta(event, out)
        elif isinstance(event, PartStart):
            part = event.part
            if isinstance(part, ToolCall) and part.kind == "function":
                self._json.add(event.index)
            if isinstance(part, (Text, Reasoning, Refusal)) and part.text:
                new = replace(part, text="")
                if isinstance(new, Text) and new.citations:
                    new = replace(new, citations=tuple(map(self._cited, new.citations)))
                out.append(replace(event, part=new))
                self._delta(PartDelta(event.index, part.text, event.choice), out)
            elif isinstance(part, ToolCall) and part.arguments:
                out.append(replace(event, part=replace(part, arguments="")))
                self._delta(PartDelta(event.index, part.arguments, event.choice), out)
            else:
                out.append(event)
        elif isinstance(event, (PartStop, PartPatch)):
            if ends_part(event) and (held := self._held.get(event.index)) is not None:
                out += self._rest([held])
            if isinstance(event, PartPatch) and event.citation is not None:
                event = replace(event, citation=self._cited(event.citation))
            out.append(event)
        else:
            if isinstance(event, (ChoiceStop, ResponseStop, Terminator)):
                out += self._rest(ended_by(event, self._held))
            out.append(event)

    def _cited(self, citation: Citation) -> Citation:
        return replace(
            citation,
            raw=redact_json_bytes(citation.raw, self._session, "the answer"),
            title=citation.title and self._session.text(citation.title),
            cited_text=citation.cited_text and self._session.text(citation.cited_text),
        )

    def _delta(self, event: PartDelta, out: list[Event]) -> None:
        held = self._held.pop(event.index, None)
        text = event.text if held is None else held.text + event.text
        at = self._open_at(text)
        ready, rest = text[:at], text[at:]
        if rest:
            self._held[event.index] = PartDelta(event.index, rest, event.choice)
        masked = self._masked(event.index, ready)
        if masked == event.text:
            out.append(event)
        elif masked:
            # Log probabilities tell the words themselves.
            out.append(PartDelta(event.index, masked, event.choice, event.logprobs if masked == ready else None))

    def _open_at(self, text: str) -> int:
        """Return where begins what may go on."""
        least = max(0, len(text) - MAX_HELD)
        begins = text.rfind("-----BEGIN", least)
        ends = None if begins < 0 else _PEM_END.search(text, begins)
        if begins >= 0 and ends is None and _OPEN_PEM.match(text, begins):
            return begins
        at = len(text)
        near = max(least, at - MAX_CONNECTED)
        while at > near:
            words = text[least:at].rstrip()
            start = least + max(map(words.rfind, " \n\t")) + 1 if words else least
            is_whole = at < len(text) or len(words) < at - least
            if is_whole and not _CONNECTS.search(text[start:at]):
                break
            at = start
        at = max(least, min(at, len(text) - self._longest))
        return ends.end() if ends is not None and begins < at < ends.end() else at

    def _masked(self, index: int, text: str) -> str:
        if index not in self._json:
            return self._session.text(text)
        found = self._session.find(text)
        pieces: list[str] = []
        at = 0
        for start, end, kind in found:
            stars = self._session.name(text[start:end], kind)
            is_number = text[start:end].isdigit() and _NUMBER.search(text, 0, start) is not None
            pieces += (text[at:start], f'"{stars}"' if is_number else stars)
            at = end
        return "".join((*pieces, text[at:]))


def _same(one: Event, other: Event) -> bool:
    return one is other
