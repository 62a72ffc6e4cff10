"""Messages of a request, written for a provider that speaks Chat Completions.

One IR message becomes one here, save that a tool's result is a message of its own and goes before what the user says in
the same turn. Nothing moves otherwise, so that the next turn's request begins with this one's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Raw

from ...errors import DecodeError
from ...ir.loss import Loss, LossKind
from ...ir.message import (
    CacheMark,
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
from .answer_writer import is_legacy, tool_call, tool_extra
from .content import BREAKPOINT, write_mark, write_media
from .members import FORMAT, foreign, write_extra
from .reasoning import field_of

_TTLS: Final[Mapping[str, str]] = {"5m": "30m", "1h": "12h"}
"""Anthropic's lifetimes and the shortest of OpenAI's that is not shorter."""

_PLAIN_ROLES: Final = frozenset({"system", "user", "assistant"})


class MessageWriter:
    """Writes the messages of one request; ``own`` says that it came in this very format. ``losses`` grows."""

    def __init__(self, own: bool, options: Mapping[str, object], losses: list[Loss]) -> None:
        self.own = own
        self.losses = losses
        self.options = options
        self.done: list[dict[str, Any]] = []
        self._kept_media: list[dict[str, Any]] = []
        self._minted: list[tuple[str, str]] = []
        self._called: dict[str, str] = {}
        """What the calls so far called, by their ids."""

    def write(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return the messages. Raises DecodeError for arguments that nobody can parse, when they come from elsewhere."""
        done, kept = self.done, self._kept_media
        arrays = self.own and not self.options.get("string_content")
        for position, message in enumerate(messages):
            role = message.role
            if (
                role in _PLAIN_ROLES
                and not kept
                and (text := plain_text(message)) is not None
                and not (role == "assistant" and done and "tool_calls" in done[-1])
            ):
                # Most messages are one text: what the long way makes of it, at a tenth of the price.
                array = arrays and not message.brief
                done.append({"role": role, "content": [{"type": "text", "text": text}] if array else text})
            else:
                self._message(message, f"messages[{position}]")
                kept = self._kept_media
        self._flush_media()
        return self.done

    def _message(self, message: Message, path: str) -> None:
        rest: list[tuple[int, Part]] = []
        results = 0
        for position, part in enumerate(message.parts):
            if isinstance(part, ToolResult):
                self._result(part, message, f"{path}.content[{position}]")
                results += 1
            else:
                rest.append((position, part))
        if message.role == "tool":
            for position, part in rest:
                self._lose("lost", f"{path}.content[{position}]", type(part).__name__, "no tool result")
            return
        if results and not rest:
            return
        if message.role == "assistant":
            self._flush_media()
            self._assistant(message, rest, path)
        else:
            self._speaker(message, rest, path)

    def _speaker(self, message: Message, parts: list[tuple[int, Part]], path: str) -> None:
        """A message of the system, the developer or the user."""
        role: str = message.role
        if role == "developer" and isinstance(other := self.options.get("developer_role"), str) and other != role:
            self._lose("emulated", f"{path}.role", "developer", f"this upstream says {other}")
            role = other
        value: dict[str, Any] = {"role": role}
        content = self._content(message, parts, path)
        if role == "user" and self._kept_media:
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            content = [*self._kept_media, *(content or ())]
            self._kept_media = []
        else:
            self._flush_media()
        if content is not None:
            value["content"] = content
        elif not self.own:
            if message.parts:
                return
            value["content"] = ""
        if message.name is not None:
            value["name"] = message.name
        self._extra(value, message, path)
        self.done.append(value)

    def _assistant(self, message: Message, parts: list[tuple[int, Part]], path: str) -> None:
        value: dict[str, Any] = {"role": "assistant"}
        calls: list[dict[str, Any]] = []
        spoken: list[tuple[int, Part]] = []
        for position, part in parts:
            place = f"{path}.content[{position}]"
            if isinstance(part, ToolCall):
                self._call(part, value, calls, place)
            elif isinstance(part, Reasoning):
                self._reasoning(part, value, place)
            elif isinstance(part, Refusal) and (not self.own or "refusal" in part.extra):
                value["refusal"] = value.get("refusal", "") + part.text
            elif isinstance(part, Media) and part.kind == "audio" and part.file_id is not None and self.own:
                value["audio"] = {"id": part.file_id}
            else:
                spoken.append((position, part))
        content = self._content(message, spoken, path)
        if calls:
            value["tool_calls"] = calls
        if content is None and not self.own:
            if len(value) == 1:
                return
            value["content"] = None
        elif content is not None:
            value["content"] = content
        if message.name is not None:
            value["name"] = message.name
        self._extra(value, message, path)
        if not self.own and self.done and "tool_calls" in self.done[-1]:
            _join(self.done[-1], value)
        else:
            self.done.append(_role_and_content_first(value))

    def _extra(self, value: dict[str, Any], message: Message, path: str) -> None:
        extra = message.extra
        if not self.own and "role" in extra:
            extra = {name: raw for name, raw in extra.items() if name != "role"}
        write_extra(value, extra, self.own, path, self.losses)

    # Content

    def _content(self, message: Message, parts: list[tuple[int, Part]], path: str) -> Any:
        """The ``content``: a string if it was one or is one plain text, else an array; None for none."""
        blocks: list[dict[str, Any] | Raw] = []
        for position, part in parts:
            block = self._block(part, message.role, f"{path}.content[{position}]")
            if block is not None:
                blocks.append(block)
        if not blocks:
            return None
        plain = [
            b["text"] for b in blocks if isinstance(b, dict) and b.keys() == {"type", "text"} and b["type"] == "text"
        ]
        if len(plain) == len(blocks):
            if message.brief or (len(plain) == 1 and not self.own):
                return "".join(plain)
            if self.options.get("string_content"):
                if len(plain) > 1:
                    self._lose(
                        "emulated", f"{path}.content", "text", "this upstream takes one string: joined by newlines"
                    )
                return "\n".join(plain)
        return blocks

    def _block(self, part: Part, role: str, path: str) -> dict[str, Any] | Raw | None:
        value: dict[str, Any] | None = None
        if isinstance(part, Text):
            value = {"type": "text", "text": part.text}
            for citation in part.citations:
                self._lose("lost", f"{path}.citations", citation.kind, "a request's texts carry no citations")
        elif isinstance(part, Refusal):
            value = {"type": "refusal", "refusal": part.text}
        elif isinstance(part, Opaque):
            if part.format == FORMAT:
                return Raw(part.data)
            self._lose("lost", path, part.kind, f"a block of {part.format}")
            return None
        elif isinstance(part, Media):
            value = self._media(part, role, path)
        elif not isinstance(part, (ToolCall, Reasoning)):
            self._lose("lost", path, type(part).__name__, f"no content of a {role} message")
        else:
            self._lose("lost", path, type(part).__name__, f"not from a {role}")
        if value is None:
            return None
        assert isinstance(part, (Text, Refusal, Media))
        if not isinstance(part, Refusal):
            self._cache(value, part.cache, path)
        write_extra(value, part.extra, self.own, path, self.losses)
        return value

    def _media(self, part: Media, role: str, path: str) -> dict[str, Any] | None:
        if role != "user" and not self.own:
            self._lose("lost", path, part.kind, f"a {role} message has room for text alone")
            return None
        if part.text is not None and part.data is None:
            self._lose("emulated", path, "text document", "put in as text")
            title = f"{part.name}\n" if part.name else ""
            return {"type": "text", "text": f"{title}{part.text}"}
        value = write_media(part)
        if part.file_id is not None and not self.own:
            self._lose("lost", path, "file_id", "a file of another provider")
            return None
        if value is None:
            self._lose("lost", path, part.kind, f"no content part for {part.media_type or part.kind} given like this")
        elif part.kind == "image" and part.data is not None and part.media_type is None:
            self._lose("minted", path, "media_type", "a data: URL demands one, nobody said: image/png")
        elif part.kind == "document" and part.uri is not None and not self.own:
            self._lose("lost", path, "document", "files go by data or id, not by URL")
            return None
        elif part.kind == "document" and part.data is not None and part.name is None and not self.own:
            value["file"]["filename"] = "document.pdf" if part.media_type == "application/pdf" else "document"
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
            name, mark = write_mark(cache)
            value[name] = mark
        elif self.options.get("cache_control"):
            value["cache_control"] = {"type": "ephemeral", **({} if cache.ttl is None else {"ttl": cache.ttl})}
        elif self.options.get("prompt_cache_breakpoint") and BREAKPOINT not in cache.extra:
            mark = {"mode": "explicit"}
            if cache.ttl is not None:
                mark["ttl"] = _TTLS.get(cache.ttl, cache.ttl)
                if mark["ttl"] != cache.ttl:
                    self._lose("emulated", f"{path}.cache", cache.ttl, f"the next longer lifetime is {mark['ttl']}")
            value["prompt_cache_breakpoint"] = mark
        else:
            self._lose("lost", f"{path}.cache", "cache mark", "this upstream caches prefixes by itself")

    # Reasoning and tools

    def _reasoning(self, part: Reasoning, value: dict[str, Any], path: str) -> None:
        field = (field_of(part) if self.own else "") or self.options.get("reasoning_field")
        if part.redacted is not None and not self.own:
            self._lose("lost", path, "redacted", "encrypted reasoning has no field")
        elif part.signature is not None:
            self._lose("lost", f"{path}.signature", "signature", "reasoning has no room for a signature")
        if part.redacted is None and isinstance(field, str) and field:
            if field != "reasoning_details":
                value[field] = value.get(field, "") + part.text
        elif part.redacted is None:
            self._lose("lost", path, "reasoning", "this upstream takes none back")
        write_extra(value, part.extra, self.own, path, self.losses)

    def _call(self, part: ToolCall, value: dict[str, Any], calls: list[dict[str, Any]], path: str) -> None:
        if part.server:
            self._lose("lost", path, part.server, f"a call of the provider's own tool {part.name}")
            return
        if is_legacy(part) and self.own:
            value["function_call"] = {"name": part.name, "arguments": part.arguments}
            return
        id, arguments = part.id, part.arguments
        if not id:
            id = f"call_{len(self.done)}_{len(calls)}"
            self._minted.append((id, part.name))
            self._lose("minted", f"{path}.id", "id", "a call demands one, it has none")
        elif not self.own and "id" in part.extra:
            self._lose("minted", f"{path}.id", "id", "the caller's format gives such calls none")
        if not self.own and not arguments and part.kind == "function":
            arguments = "{}"
            self._lose("minted", f"{path}.arguments", "arguments", "a call without arguments has {} here")
        call = tool_call(part, arguments)
        call["id"] = id
        self._called[id] = part.name
        if self.own:
            tool_extra(call, part.extra)
        else:
            self.losses += foreign(part.extra, path)
        self._cache(call, part.cache, path)
        if not self.own:
            call.pop("prompt_cache_breakpoint", None)
        calls.append(call)

    def _result(self, part: ToolResult, message: Message, path: str) -> None:
        if part.server:
            self._lose("lost", path, part.server, "a result of the provider's own tool")
            return
        id = part.id or self._id_for(part)
        if part.id and not self.own and "id" in part.extra:
            self._lose("minted", f"{path}.id", "id", "the caller's format gives such calls none")
        value: dict[str, Any] = {"role": "tool", "tool_call_id": id}
        if self.own and part.id and is_legacy(ToolCall(part.id, "")):
            value = {"role": "function"}
        if part.name is not None and (self.own or "tool_call_id" not in value):
            value["name"] = part.name
        elif part.name is not None and part.name != self._called.get(id):
            kind: LossKind = "emulated" if "id" in part.extra else "lost"
            self._lose(kind, f"{path}.name", "name", "a result is told by its call's id alone")
        content = self._result_content(part, path)
        if content is not None:
            value["content"] = content
        if part.is_error:
            self._lose("lost", f"{path}.is_error", "is_error", "a tool message does not say that it is one of failure")
        if not self.own:
            self._cache(value, part.cache, path)
            value.pop("prompt_cache_breakpoint", None)
        if value["role"] == "tool":
            write_extra(value, part.extra, self.own, path, self.losses)
        if message.role == "tool":
            write_extra(value, message.extra, self.own, path, self.losses)
        self.done.append(value)

    def _id_for(self, part: ToolResult) -> str:
        """The id minted for the call that a result without one answers: by name, else the oldest."""
        if not self._minted:
            raise DecodeError("messages", "a tool result answers no call: it has no id")
        found = next((entry for entry in self._minted if entry[1] == part.name), self._minted[0])
        self._minted.remove(found)
        return found[0]

    def _result_content(self, part: ToolResult, path: str) -> Any:
        """Text stays; what is none goes into the user message that follows, since tool messages have room for text alone."""
        if self.own:
            texts = [p.text for p in part.content if isinstance(p, Text)]
            if part.brief and len(texts) == len(part.content):
                return "".join(texts)
            blocks = [self._block(p, "tool", f"{path}.content[{i}]") for i, p in enumerate(part.content)]
            return [block for block in blocks if block is not None] or None
        texts = []
        for position, piece in enumerate(part.content):
            place = f"{path}.content[{position}]"
            if isinstance(piece, Media):
                block = self._block(piece, "user", place)
                if block is not None and isinstance(block, dict) and block["type"] == "text":
                    texts.append(block["text"])
                elif isinstance(block, dict):
                    self._lose(
                        "emulated", place, piece.kind, "tool messages take text: put into a user message after them"
                    )
                    self._kept_media.append(block)
                continue
            block = self._block(piece, "tool", place)
            if isinstance(block, dict) and "text" in block:
                texts.append(block["text"])
        if len(texts) > 1 and not self.options.get("string_content"):
            return [{"type": "text", "text": text} for text in texts]
        return "\n".join(texts)

    def _flush_media(self) -> None:
        if self._kept_media:
            self.done.append({"role": "user", "content": self._kept_media})
            self._kept_media = []

    def _lose(self, kind: Any, path: str, what: str, why: str) -> None:
        self.losses.append(Loss(kind, path, what, why))


def _join(calling: dict[str, Any], value: dict[str, Any]) -> None:
    """Add an assistant's message to the one before it, whose calls demand that their results come next."""
    content = value.pop("content")
    if content:
        before = calling["content"]
        blocks = [*_as_blocks(before), *_as_blocks(content)]
        calling["content"] = blocks if before or not isinstance(content, str) else content
    calling["tool_calls"] += value.pop("tool_calls", [])
    for name, more in value.items():
        said = calling.get(name)
        calling[name] = said + more if isinstance(said, str) and isinstance(more, str) and name != "role" else more


def _as_blocks(content: str | list[Any] | None) -> list[Any]:
    return [{"type": "text", "text": content}] if content and isinstance(content, str) else list(content or ())


def _role_and_content_first(value: dict[str, Any]) -> dict[str, Any]:
    """The same members in the order that people write them in."""
    first: dict[str, Any] = {name: value[name] for name in ("role", "content") if name in value}
    return {**first, **value}
