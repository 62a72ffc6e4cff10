"""What the answer reader works with: the typed view of a common frame, and the state of a choice while it grows."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from ...errors import upstream_error
from ...ir.message import NO_EXTRA, Extra
from ...wire.members import BAD_JSON, OBJECT
from .members import FORMAT

NOTHING: Final = Raw(b"")


class _Function(Struct, forbid_unknown_fields=True, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, forbid_unknown_fields=True, gc=False):
    function: _Function
    index: int | None = None
    id: str | None = None
    type: str | None = None


class _Delta(Struct, forbid_unknown_fields=True, gc=False):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: None = None
    audio: None = None


class _Choice(Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    index: int = 0
    delta: _Delta
    logprobs: None = None
    finish_reason: str | None = None
    content_filter_results: Raw = NOTHING
    native_finish_reason: None = None
    matched_stop: None = None
    stop_reason: None = None
    token_ids: None = None


class Envelope(Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    """What OpenAI, Azure, OpenRouter, SGLang and vLLM put around a chunk of words; members typed None are null in those.

    The order is theirs, since the decoder looks for the next member first. ``obfuscation`` is padding against listeners; it
    means nothing and is kept in ``raw`` alone.
    """

    id: str = ""
    object: str = ""
    created: int | None = None
    model: str = ""
    service_tier: str | None = None
    system_fingerprint: str | None = None
    provider: str | None = None


class _Frame(Envelope, forbid_unknown_fields=True, gc=False, kw_only=True):
    choices: list[_Choice]
    usage: None = None
    obfuscation: str | None = None


FRAME: Final = msgspec.json.Decoder(_Frame)


class _UsageFrame(Envelope, forbid_unknown_fields=True, gc=False, kw_only=True):
    """A frame that tells usage and nothing else; ``choices`` holds nothing."""

    choices: list[None]
    usage: Raw
    obfuscation: str | None = None


USAGE_FRAME: Final = msgspec.json.Decoder(_UsageFrame)


def is_complete(arguments: str) -> bool:
    """Whether ``arguments`` are a JSON object or array, so that nothing more can come."""
    if not arguments.rstrip().endswith(("}", "]")):
        return False
    try:
        msgspec.json.decode(arguments, type=Raw)
    except BAD_JSON:
        return False
    return True


class GrowingTool:
    """A tool call while it grows; ``index`` is -1 until id and name are known and its part has started."""

    __slots__ = ("arguments", "closed", "extra", "id", "index", "key", "kind", "name")

    def __init__(self, key: int | None) -> None:
        self.key = key
        self.index = -1
        self.id = ""
        self.name = ""
        self.kind: Literal["function", "custom"] = "function"
        self.arguments: list[str] = []
        self.extra: Extra = NO_EXTRA
        self.closed = False

    @property
    def complete(self) -> bool:
        """Whether the arguments so far are a JSON object or array, so that nothing more can come."""
        return is_complete("".join(self.arguments))


class GrowingAnswer:
    """One choice while it grows. ``kind`` names the open part that is no tool call, if any; ``index`` is its number.

    ``text`` is the number of the last text, open or not; -1 if there was none.
    """

    __slots__ = (
        "audio",
        "details",
        "field",
        "index",
        "kind",
        "number",
        "patch",
        "stop_extra",
        "stopped",
        "text",
        "tools",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.kind = ""
        self.field = ""
        self.index = -1
        self.text = -1
        self.tools: list[GrowingTool] = []
        self.details: list[Raw] = []
        self.audio: dict[str, Raw] = {}
        self.patch: dict[str, Raw] = {}
        self.stop_extra: dict[str, Raw] = {}
        self.stopped = False


def which(tools: list[GrowingTool], key: int | None, id: str, name: str | None) -> GrowingTool | None:
    """Find the call that a fragment belongs to; None if it begins a new one.

    OpenAI numbers calls by ``index`` and gives id and name once. Endpoints compatible with Gemini leave the index out or
    give 0 to every call; others repeat the id, or bring a new id with every fragment but the name only once.
    """
    if key is not None:
        found = next((tool for tool in reversed(tools) if tool.key == key), None)
        if found is not None and id and found.id and id != found.id and name:
            return None
        return found
    if id:
        found = next((tool for tool in reversed(tools) if tool.id == id), None)
        if found is not None:
            return found
        return tools[-1] if tools and (not name or not tools[-1].id) and not tools[-1].closed else None
    if name and (not tools or tools[-1].name):
        return None
    return tools[-1] if tools else None


def says(logprobs: Raw | None) -> bool:
    """Whether there are log probabilities in there: the first frame has empty lists."""
    if logprobs is None:
        return False
    try:
        members = OBJECT.decode(logprobs)
    except BAD_JSON:
        return False
    return any(bytes(raw) not in (b"null", b"[]") for raw in members.values())


class _GroqNote(Struct):
    usage: dict[str, object] | None = None
    error: str | None = None


def groq_usage(raw: Raw) -> Raw | None:
    """Return the usage that Groq puts into ``x_groq``. Raises the error it may put there when an answer broke off."""
    try:
        note = msgspec.json.decode(raw, type=_GroqNote)
        usage = OBJECT.decode(raw).get("usage")
    except BAD_JSON:
        return None
    if note.error:
        raise upstream_error("upstream_error", note.error[:500], code="x_groq", format=FORMAT)
    return usage if note.usage else None
