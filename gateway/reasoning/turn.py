"""One assistant turn without its words: the order of its parts, and those parts that a caller's format loses.

A turn is found again by the id of one of its calls, or by what was said: the words since the turn before, its own, and its
calls with their arguments. Clients bring turns back rearranged (texts joined, calls after the texts); the steps tell where
everything stood, so that the provider reads its own turn again, byte for byte.

Sources: Anthropic "Extended thinking" (thinking blocks of a tool turn come back unmodified, in their places), Google
"Thought signatures" (a signature comes back in the part in which it came), OpenAI "Reasoning items".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from ..ir.message import Message, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from ..wire.members import BAD_JSON, encode_json

SIGNING: Final = frozenset({"anthropic.messages", "gemini", "openai.responses"})
"""Formats in which a provider signs."""
GEMINI: Final = "gemini"
OPENAI: Final = "openai.responses"
_SIGNATURE: Final = "thoughtSignature"


class Step(Struct, frozen=True, omit_defaults=True):
    """One of: a ``part`` the caller's format loses; ``length`` characters of text; a ``call`` by its id, empty if it had none.

    ``signature`` is what Gemini put beside the text or the call.
    """

    part: Reasoning | Opaque | None = None
    length: int = 0
    call: str | None = None
    signature: str | None = None


class Turn(Struct, frozen=True):
    """A turn of ``model``, asked for by that name at ``upstream``."""

    upstream: str
    model: str
    steps: tuple[Step, ...]


_DECODER: Final = msgspec.json.Decoder(Turn)
_TEXT: Final = msgspec.json.Decoder(str)
_ANY: Final = msgspec.json.Decoder()
_CANONICAL: Final = msgspec.json.Encoder(order="deterministic")


def write(turn: Turn) -> bytes:
    """Return the bytes of a turn, for a store."""
    return encode_json(turn)


def read(value: bytes) -> Turn:
    """Return what ``write`` wrote."""
    return _DECODER.decode(value)


# Keeping


def steps_of(parts: Sequence[Part]) -> tuple[Step, ...]:
    """Return the steps of an answer; none if nothing in it is signed."""
    steps: list[Step] = []
    signed = False
    unsigned: list[Reasoning] = []
    for part in parts:
        if isinstance(part, Reasoning):
            if part.signature or part.redacted is not None:
                whole = [*unsigned, part] if part.origin.partition(":")[0] == OPENAI else [part]
                steps.append(Step(part if len(whole) == 1 else _openai_item(whole)))
                unsigned, signed = [], True
            else:
                unsigned.append(part)
            continue
        unsigned = []
        if isinstance(part, Text):
            step = Step(length=len(part.text), signature=_signature(part))
        elif isinstance(part, ToolCall) and not part.server:
            step = Step(call="" if part.extra.get("id") is not None else part.id, signature=_signature(part))
        elif isinstance(part, Opaque) and part.format == GEMINI and part.kind == _SIGNATURE:
            step, signed = Step(part), True
        else:
            continue
        signed = signed or step.signature is not None
        steps.append(step)
    return tuple(steps) if signed else ()


def _openai_item(texts: Sequence[Reasoning]) -> Opaque:
    """One reasoning item of several texts: OpenAI encrypts the last for all, and none of them is of use alone."""
    item: dict[str, object] = {"type": "reasoning", "summary": []}
    for name, kind in (("summary", "summary_text"), ("content", "reasoning_text")):
        told = [{"type": kind, "text": part.text} for part in texts if part.origin == f"{OPENAI}:{name}"]
        if told:
            item[name] = told
    item["encrypted_content"] = texts[-1].signature
    return Opaque(OPENAI, "reasoning", encode_json(item))


def _signature(part: Text | ToolCall) -> str | None:
    raw = part.extra.get(_SIGNATURE)
    try:
        return None if raw is None else _TEXT.decode(raw)
    except BAD_JSON:
        return None


# Finding


def since_last_turn(messages: Sequence[Message], end: int) -> Sequence[Message]:
    """Return the messages before ``end`` up to the turn before."""
    start = end
    while start and messages[start - 1].role != "assistant":
        start -= 1
    return messages[start:end]


def by_calls(parts: Iterable[Part]) -> list[str]:
    """Return the names by which a turn of ``parts`` is found: one for each call whose provider gave it an id."""
    return [
        f"call {part.id}"
        for part in parts
        if isinstance(part, ToolCall) and not part.server and part.id and part.extra.get("id") is None
    ]


def by_words(asked: Iterable[Message], parts: Iterable[Part]) -> str | None:
    """Return the name of a turn of ``parts`` that follows ``asked``, of all that was said; None if it says nothing at all."""
    digest = hashlib.blake2b(digest_size=20)
    for message in asked:
        if message.role in ("user", "tool"):  # what stands in a system message may change from turn to turn
            for part in message.parts:
                _hear(digest, part)
    words: list[str] = []
    calls: list[ToolCall] = []
    for part in parts:
        if isinstance(part, Text):
            words.append(part.text)
        elif isinstance(part, ToolCall) and not part.server:
            calls.append(part)
    text = "".join(words).strip()
    if not text and not calls:
        return None
    digest.update(b"\0said\0")
    digest.update(text.encode("utf-8", "surrogatepass"))
    for call in calls:
        digest.update(b"\0call\0%b\0%b" % (call.name.encode("utf-8", "surrogatepass"), _canonical(call.arguments)))
    return f"said {digest.hexdigest()}"


def _hear(digest: hashlib.blake2b, part: Part) -> None:
    if isinstance(part, Text):
        digest.update(b"\0")
        digest.update(part.text.encode("utf-8", "surrogatepass"))
    elif isinstance(part, ToolResult):
        for piece in part.content:
            _hear(digest, piece)


def _canonical(arguments: str) -> bytes:
    """Arguments the way every client that read and wrote them spells them."""
    try:
        return _CANONICAL.encode(_ANY.decode(arguments or "{}"))
    except BAD_JSON:
        return arguments.encode("utf-8", "surrogatepass")


# Putting back


def put_back(message: Message, steps: Sequence[Step]) -> Message | None:
    """Return the turn as its provider wrote it, in the words of ``message``; None if it is another turn by now."""
    parts = [part for part in message.parts if not isinstance(part, Reasoning)]
    found = _in_order(parts, steps)
    if found is None:
        found = _before_calls(parts, steps)
    return None if found is None else replace(message, parts=tuple(found), brief=False)


def _in_order(parts: Sequence[Part], steps: Sequence[Step]) -> list[Part] | None:
    """The steps, filled with the message's words and calls; None if they are not the same words and calls."""
    texts = [part for part in parts if isinstance(part, Text)]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    called = [step.call for step in steps if step.call is not None]
    if len(texts) + len(calls) != len(parts) or len(calls) != len(called):
        return None
    if any(id and id != call.id for id, call in zip(called, calls, strict=True)):
        return None
    words = _words(texts, [step.length for step in steps if step.length])
    if words is None:
        return None
    found: list[Part] = []
    for step in steps:
        if step.part is not None:
            found.append(step.part)
        elif step.call is not None:
            found.append(_signed_call(calls.pop(0), step))
        elif step.length:
            found.append(_signed_text(words.pop(0), step))
    return found


def _words(texts: Sequence[Text], lengths: Sequence[int]) -> list[Text] | None:
    """The texts in pieces of ``lengths`` characters; a mark of the caller's cache stays behind the last."""
    if [len(text.text) for text in texts] == list(lengths):
        return list(texts)
    whole = "".join(text.text for text in texts)
    if len(whole) != sum(lengths) or any(text.extra or text.citations for text in texts):
        return None
    pieces: list[Text] = []
    for length in lengths:
        pieces.append(Text(whole[:length]))
        whole = whole[length:]
    if pieces and texts[-1].cache is not None:
        pieces[-1] = replace(pieces[-1], cache=texts[-1].cache)
    return pieces


def _before_calls(parts: Sequence[Part], steps: Sequence[Step]) -> list[Part] | None:
    """The message with each lost part before the call that followed it; None if it has none of the calls.

    For turns that a client split, trimmed or added to: what is signed is the thinking, not what comes after it.
    """
    before: dict[str, tuple[list[Part], Step]] = {}
    waiting: list[Part] = []
    for step in steps:
        if step.part is not None:
            waiting.append(step.part)
        elif step.call:
            before[step.call] = (waiting, step)
            waiting = []
    known = [part for part in parts if isinstance(part, ToolCall) and part.id in before]
    if not known:
        return None
    found: list[Part] = []
    if steps[0].part is not None and known[0].id == next(iter(before)):
        lead, step = before[known[0].id]
        found += lead
        before[known[0].id] = ([], step)
    for part in parts:
        if isinstance(part, ToolCall) and part.id in before:
            lead, step = before.pop(part.id)
            found += [*lead, _signed_call(part, step)]
        else:
            found.append(part)
    return found


def _signed_call(call: ToolCall, step: Step) -> ToolCall:
    if step.signature is None:
        return call
    # As Google's own translation spells it for clients of another format, which is where its codec looks.
    told = Raw(encode_json({"google": {"thought_signature": step.signature}}))
    return replace(call, extra={**call.extra, "extra_content": told})


def _signed_text(text: Text, step: Step) -> Part:
    if step.signature is None:
        return text
    return Opaque(GEMINI, "text", encode_json({"text": text.text, _SIGNATURE: step.signature}), text.cache)
