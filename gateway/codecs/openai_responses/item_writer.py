"""Messages of a request as input items, for a provider that speaks Responses.

Items of this format go out the way they came. Of another format's conversation, a leading system text becomes
``instructions``, a message one item, and each call and result an item of its own. Nothing moves, so that the next turn's
request begins with this one's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Raw

from ...errors import DecodeError
from ...ir.loss import Loss, LossKind
from ...ir.message import (
    CacheMark,
    Extra,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    plain_text,
)
from .content import ANNOTATIONS, BREAKPOINT, TYPE, own_members, write_mark, write_media
from .item_reader import ALONE, BRIEF, CUSTOM, ITEM, ITSELF, SUMMARY_LESS, TYPED
from .members import FORMAT, foreign
from .request_reader import INSTRUCTIONS
from .words import CONTENT, origin_of

_TTLS: Final[Mapping[str, str]] = {"5m": "30m", "1h": "12h"}
"""Anthropic's lifetimes and the shortest of OpenAI's that is not shorter."""


class ItemWriter:
    """Writes the messages of one request; ``own`` says that it came in this very format. ``losses`` grows."""

    def __init__(self, own: bool, options: Mapping[str, object], losses: list[Loss]) -> None:
        self.own = own
        self.options = options
        self.losses = losses
        self.instructions: str | None = None
        self.items: list[Any] = []
        self.reasons = False
        """Whether reasoning is among the items."""
        self._custom: set[str] = set()
        self._minted: list[tuple[str, str]] = []
        self._called: dict[str, str] = {}
        """What the calls so far called, by their ids."""

    def write(self, messages: Sequence[Message]) -> None:
        """Fill ``instructions`` and ``items``. Raises DecodeError for a result that answers no call."""
        for position, message in enumerate(messages):
            text = plain_text(message) if not self.own or message.extra.keys() <= {INSTRUCTIONS} else None
            if self.own and INSTRUCTIONS in message.extra:
                text = "".join(part.text for part in message.parts if isinstance(part, Text))
                self.instructions = text
            elif text is not None and not self.own:
                leads = position == 0 and message.role == "system" and len(messages) > 1
                if leads and self.options.get("instructions") is not False:
                    self.instructions = text
                elif message.role != "tool":
                    self.items.append({"role": self._role(message, f"messages[{position}]"), "content": text})
            else:
                self._message(message, f"messages[{position}]")

    def _message(self, message: Message, path: str) -> None:
        if message.name is not None:
            self._lose("lost", f"{path}.name", "name", "messages have no name here")
        if not self.own:
            self.losses += foreign({name: raw for name, raw in message.extra.items() if name != "role"}, path)
        if message.role == "assistant" and ALONE not in message.extra:
            _Turn(self, path).write(message)
            return
        content: list[Any] = []
        for position, part in enumerate(message.parts):
            place = f"{path}.content[{position}]"
            if isinstance(part, ToolResult):
                self._speak(message, content, path)
                content = []
                self._result(part, place)
            elif isinstance(part, Opaque) and self.own and message.extra.keys() == ITSELF.keys():
                self.items.append(Raw(part.data))
            elif (block := self.block(part, message.role, place)) is not None:
                content.append(block)
        self._speak(message, content, path)

    def _speak(self, message: Message, content: list[Any], path: str) -> None:
        """The item of a message that is no turn."""
        if message.role == "tool":
            if content:
                self._lose("lost", path, "content", "no tool result")
            return
        if not content and not (self.own and "content" in message.extra):
            return
        role = self._role(message, path)
        # Ollama spells the words as a string and has the images beside them: a string is for words alone.
        brief = message.brief and _is_text(content)
        value: dict[str, Any] = {"role": role, "content": _brief(content) if brief else content}
        if self.own:
            if "content" in message.extra:
                value["content"] = message.extra["content"]
            _add_members(value, message.extra)
        self.items.append(value)

    def _role(self, message: Message, path: str) -> str:
        other = self.options.get("developer_role")
        if message.role == "developer" and isinstance(other, str) and other != message.role:
            self._lose("emulated", f"{path}.role", "developer", f"this upstream says {other}")
            return other
        return message.role

    # Content

    def block(self, part: Part, role: str, path: str) -> Any:
        """Return the content part for ``part`` in a message of ``role``; None, with a loss noted, where there is none."""
        value: dict[str, Any] | None = None
        if isinstance(part, Text):
            usual = "output_text" if role == "assistant" else "input_text"
            value = {"type": usual, "text": part.text}
            if self.own and TYPE in part.extra:
                value["type"] = part.extra[TYPE]
            self._annotations(part, value, path)
        elif isinstance(part, Refusal):
            value = {"type": "refusal", "refusal": part.text}
        elif isinstance(part, Opaque):
            if part.format == FORMAT:
                return Raw(part.data)
            self._lose("lost", path, part.kind, f"a block of {part.format}")
            return None
        elif isinstance(part, Media):
            value = self._media(part, role, path)
        else:
            self._lose("lost", path, type(part).__name__, f"not from a {role}")
        if value is None:
            return None
        assert isinstance(part, (Text, Refusal, Media))
        if not isinstance(part, Refusal):
            self._cache(value, part.cache, path)
        if self.own:
            for name, raw in own_members(part.extra).items():
                value.setdefault(name, raw)
        else:
            self.losses += foreign(part.extra, path)
        return value

    def _annotations(self, part: Text, value: dict[str, Any], path: str) -> None:
        raws = [Raw(citation.raw) for citation in part.citations if citation.format == FORMAT]
        if raws or (self.own and ANNOTATIONS in part.extra) or (not self.own and value["type"] == "output_text"):
            value["annotations"] = raws
        if len(raws) < len(part.citations):
            self._lose("lost", f"{path}.citations", "citations", "made by another provider")

    def _media(self, part: Media, role: str, path: str) -> dict[str, Any] | None:
        if role == "assistant" and not self.own:
            self._lose("lost", path, part.kind, "the model's own turns hold no files")
            return None
        if part.text is not None and part.data is None:
            self._lose("emulated", path, "text document", "put in as text")
            title = f"{part.name}\n" if part.name else ""
            return {"type": "input_text", "text": f"{title}{part.text}"}
        if part.file_id is not None and not self.own:
            self._lose("lost", path, "file_id", "a file of another provider")
            return None
        value = write_media(part, self.own)
        if value is None:
            self._lose("lost", path, part.kind, f"no content part for {part.media_type or part.kind} given like this")
        elif part.kind == "image" and part.data is not None and part.media_type is None:
            self._lose("minted", path, "media_type", "a data: URL demands one, nobody said: image/png")
        elif part.kind == "document" and part.data is not None and part.name is None and not self.own:
            value["filename"] = "document.pdf" if part.media_type == "application/pdf" else "document"
            self._lose("minted", path, "filename", "a file demands a name")
        if not self.own and value is not None:
            self._media_details(part, path)
        return value

    def _media_details(self, part: Media, path: str) -> None:
        if part.name is not None and part.kind != "document":
            self._lose("lost", f"{path}.name", "name", "only files have a name here")
        if part.uri is not None and part.media_type is not None:
            self._lose("emulated", f"{path}.media_type", "media_type", "who fetches the address is told there")

    def _cache(self, value: dict[str, Any], cache: CacheMark | None, path: str) -> None:
        if cache is None:
            return
        if self.own:
            value[BREAKPOINT] = write_mark(cache)
        elif self.options.get(BREAKPOINT) and value["type"].startswith("input_"):
            mark = {"mode": "explicit"}
            if cache.ttl is not None:
                mark["ttl"] = _TTLS.get(cache.ttl, cache.ttl)
                if mark["ttl"] != cache.ttl:
                    self._lose("emulated", f"{path}.cache", cache.ttl, f"the next longer lifetime is {mark['ttl']}")
            value[BREAKPOINT] = mark
        else:
            self._lose("lost", f"{path}.cache", "cache mark", "this upstream caches prefixes by itself")

    # Calls and results

    def call(self, part: ToolCall, path: str) -> None:
        """Write a call of the caller's tool."""
        if part.server:
            self._lose("lost", path, part.server, f"a call of the provider's own tool {part.name}")
            return
        id, arguments = part.id, part.arguments
        if not id:
            id = f"call_{len(self.items)}"
            self._minted.append((id, part.name))
            self._lose("minted", f"{path}.id", "id", "a call demands one, it has none")
        elif "id" in part.extra:
            self._lose("minted", f"{path}.id", "id", "the caller's format gives such calls none")
        self._called[id] = part.name
        if part.kind == "custom":
            self._custom.add(id)
            value = {"type": "custom_tool_call", "call_id": id, "name": part.name, "input": arguments}
        else:
            if not self.own and not arguments:
                arguments = "{}"
                self._lose("minted", f"{path}.arguments", "arguments", "a call without arguments has {} here")
            value = {"type": "function_call", "call_id": id, "name": part.name, "arguments": arguments}
        if self.own:
            _add_members(value, part.extra)
        else:
            self.losses += foreign(part.extra, path)
            self._cache({"type": ""}, part.cache, path)
        self.items.append(value)

    def _result(self, part: ToolResult, path: str) -> None:
        if part.server:
            self._lose("lost", path, part.server, "a result of the provider's own tool")
            return
        id = part.id
        if not id and not self.own:
            id = self._id_for(part)
        custom = CUSTOM in part.extra if self.own else id in self._custom
        value: dict[str, Any] = {"type": "custom_tool_call_output" if custom else "function_call_output"}
        if id:
            value["call_id"] = id
        if part.name is not None and self.own:
            value["name"] = part.name
        elif part.name is not None and part.name != self._called.get(id):
            kind: LossKind = "emulated" if "id" in part.extra else "lost"
            self._lose(kind, f"{path}.name", "name", "a result is told by its call's id alone")
        content = [
            block
            for i, piece in enumerate(part.content)
            if (block := self.block(piece, "tool", f"{path}.content[{i}]")) is not None
        ]
        brief = part.brief if self.own else len(content) < 2 and _is_text(content)
        value["output"] = _brief(content) if brief else content
        if part.is_error:
            self._lose("lost", f"{path}.is_error", "is_error", "an output does not say that it is one of failure")
        if self.own:
            if f"{ITEM}.output" in part.extra:
                value["output"] = part.extra[f"{ITEM}.output"]
            _add_members(value, part.extra)
        else:
            self.losses += foreign(part.extra, path)
            self._cache({"type": ""}, part.cache, path)
        self.items.append(value)

    def _id_for(self, part: ToolResult) -> str:
        """The id minted for the call that a result without one answers: by name, else the oldest."""
        if not self._minted:
            raise DecodeError("messages", "a tool result answers no call: it has no id")
        found = next((entry for entry in self._minted if entry[1] == part.name), self._minted[0])
        self._minted.remove(found)
        return found[0]

    def _lose(self, kind: LossKind, path: str, what: str, why: str) -> None:
        self.losses.append(Loss(kind, path, what, why))


class _Turn:
    """Writes the assistant's turn: its messages, reasoning and calls, each an item."""

    def __init__(self, writer: ItemWriter, path: str) -> None:
        self._writer = writer
        self._path = path
        self._said: list[Any] = []
        self._extra: Extra = {}
        self._thought: dict[str, Any] | None = None

    def write(self, message: Message) -> None:
        writer = self._writer
        for position, part in enumerate(message.parts):
            path = f"{self._path}.content[{position}]"
            if isinstance(part, (Text, Refusal, Media)):
                self._thought = None
                if ITEM in part.extra:
                    self.flush()
                    self._extra = part.extra
                if (block := writer.block(part, "assistant", path)) is not None:
                    self._said.append(block)
                    if not writer.own:
                        # Strict readers take a lone text of the model's without the id of its message, no more.
                        self.flush()
                continue
            if isinstance(part, Reasoning):
                self.flush()
                self._reasoning(part, path)
                continue
            self.flush()
            self._thought = None
            if isinstance(part, ToolCall):
                writer.call(part, path)
            elif (block := writer.block(part, "assistant", path)) is not None:
                writer.items.append(block)
                writer.reasons |= isinstance(part, Opaque) and part.kind == "reasoning"
        self.flush()

    def flush(self) -> None:
        """Write the message that is open."""
        content, extra = self._said, self._extra
        self._said, self._extra = [], {}
        if not content:
            return
        own = self._writer.own
        brief = BRIEF in extra if own and extra else len(content) == 1 and _is_plain(content)
        value: dict[str, Any] = {"role": "assistant", "content": _brief(content) if brief else content}
        if own:
            if TYPED in extra:
                value["type"] = "message"
            _add_members(value, extra)
        self._writer.items.append(value)

    def _reasoning(self, part: Reasoning, path: str) -> None:
        writer = self._writer
        if origin_of(part) != FORMAT or (not writer.own and part.signature is None and part.redacted is None):
            writer.losses.append(Loss("lost", path, "reasoning", "accepted with this provider's own signature only"))
            return
        value = self._thought
        if value is None or ITEM in part.extra:
            value = self._thought = {"type": "reasoning"}
            if SUMMARY_LESS not in part.extra:
                value["summary"] = []
            writer.items.append(value)
            if writer.own:
                _add_members(value, part.extra)
        if part.redacted is None:
            in_words = part.origin == CONTENT
            entry = {"type": "reasoning_text" if in_words else "summary_text", "text": part.text}
            value.setdefault("content" if in_words else "summary", []).append({**entry, **own_members(part.extra)})
        if (signature := part.redacted or part.signature) is not None:
            value["encrypted_content"] = signature
            writer.reasons = True


def _add_members(value: dict[str, Any], extra: Extra) -> None:
    """Write what the reader kept of an item back into it."""
    for name, raw in extra.items():
        if name in ("kept.id", "kept.status", "kept.phase"):
            value[name.removeprefix("kept.")] = raw
        elif name == "kept.type":
            value["type"] = "message"
        elif name.startswith(f"{ITEM}."):
            value.setdefault(name.removeprefix(f"{ITEM}."), raw)
    if ITEM not in extra:
        for name, raw in own_members(extra).items():
            value.setdefault(name, raw)


def _is_text(content: list[Any]) -> bool:
    """Whether every block is a text and nothing besides."""
    return all(isinstance(block, dict) and block.keys() == {"type", "text"} for block in content)


def _is_plain(content: list[Any]) -> bool:
    """Whether every block is a text of the model's and nothing besides."""
    return all(
        isinstance(block, dict)
        and block["type"] == "output_text"
        and not block.keys() - {"type", "text", "annotations"}
        and not block.get("annotations")
        for block in content
    )


def _brief(content: list[Any]) -> str:
    """The texts of ``content`` as one string."""
    return "".join(block["text"] for block in content if isinstance(block, dict) and "text" in block)
