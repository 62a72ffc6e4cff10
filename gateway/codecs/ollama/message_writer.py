"""Messages of a request, written for a provider that speaks Ollama's API: as messages, or as one prompt.

A message's content is one string here; its images stand beside it, and its calls, and its thinking. A tool's result is a
message of its own and goes before what the user says in the same turn. Nothing moves otherwise, so that the next turn's
request begins with this one's bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgspec import Raw

from ...errors import DecodeError
from ...ir.loss import Loss, LossKind
from ...ir.message import Extra, Media, Message, Opaque, Reasoning, Refusal, Request, Text, ToolCall, ToolResult
from ...wire.members import NULL, json_object, put_extra
from ..ledger import refused, says_something
from .words import FAMILY, GENERATE, media_type

_MARKS: Final = ("id", "type", "spelled", "function.spelled", "function.index", "name")


class _Pieces:
    """What a message is made of here, while it is gathered."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thinking: list[str] = []
        self.images: list[str] = []
        self.calls: list[dict[str, Any]] = []

    def __bool__(self) -> bool:
        return bool(self.texts or self.thinking or self.images or self.calls)


class MessageWriter:
    """Writes the messages of one request; ``own`` says that it came in this very format. ``losses`` grows."""

    def __init__(self, format: str, own: bool, losses: list[Loss]) -> None:
        self.format = format
        self.own = own
        self.losses = losses
        self._names: dict[str, str] = {}

    def write(self, request: Request) -> list[dict[str, Any]]:
        """Return the messages. Raises CallerError for arguments that are no object, and for a turn of which nothing is left."""
        done: list[dict[str, Any]] = []
        for position, message in enumerate(request.messages):
            noted = len(self.losses)
            written = self._message(message, f"messages[{position}]")
            if not written and message.parts and message.role != "assistant":
                refuse(request, self.losses[noted:])
            done += written
        if not done and request.format not in FAMILY:
            # Without messages this API loads a model, and answers nothing.
            raise refused(request, Loss("lost", "messages", "", "there is nothing to answer"))
        return done

    def _message(self, message: Message, path: str) -> list[dict[str, Any]]:
        done: list[dict[str, Any]] = []
        pieces = _Pieces()
        for position, part in enumerate(message.parts):
            place = f"{path}.content[{position}]"
            if isinstance(part, ToolResult):
                if part.server:
                    self._lose("lost", place, part.server, "a result of the provider's own tool")
                else:
                    done.append(self._result(part, message, place))
            else:
                self.part(part, pieces, place)
        if message.name is not None:
            self._lose("lost", f"{path}.name", "name", "messages have no name here")
        results = len(done)
        if message.role == "tool" and results:
            return done
        if pieces or not message.parts:
            value = self._value(message, pieces, path)
            self._extra(value, message.extra, path)
            done.append(value)
        return done

    def _value(self, message: Message, pieces: _Pieces, path: str) -> dict[str, Any]:
        role: str = message.role
        if role == "developer" and not self.own:
            self._lose("emulated", f"{path}.role", "developer", "stands as a system message")
            role = "system"
        value: dict[str, Any] = {"role": role}
        if pieces.texts or not self.own:
            value["content"] = join(pieces.texts, path, self.losses)
        if pieces.thinking:
            value["thinking"] = "\n".join(pieces.thinking)
        if pieces.images:
            value["images"] = pieces.images
        if pieces.calls:
            value["tool_calls"] = pieces.calls
        return value

    def part(self, part: Text | Refusal | Reasoning | Media | ToolCall | Opaque, pieces: _Pieces, path: str) -> None:
        """Add any part but a result."""
        if isinstance(part, Text):
            pieces.texts.append(part.text)
            for citation in part.citations:
                self._lose("lost", f"{path}.citations", citation.kind, "a request's texts carry no citations")
        elif isinstance(part, Refusal):
            self._lose("emulated", path, "refusal", "stands as text")
            pieces.texts.append(part.text)
        elif isinstance(part, Reasoning):
            self._reasoning(part, pieces, path)
        elif isinstance(part, Media):
            self._media(part, pieces, path)
        elif isinstance(part, ToolCall) and part.server:
            self._lose("lost", path, part.server, f"a call of the provider's own tool {part.name}")
            return
        elif isinstance(part, ToolCall):
            pieces.calls.append(self._call(part, len(pieces.calls), path))
            return
        else:
            self._lose("lost", path, part.kind, f"a block of {part.format}")
            return
        if not isinstance(part, (Reasoning, Refusal)) and part.cache is not None:
            self._lose("lost", f"{path}.cache", "cache mark", "prefixes are cached by themselves")
        self._foreign(part.extra, path)

    def _reasoning(self, part: Reasoning, pieces: _Pieces, path: str) -> None:
        if part.redacted is not None:
            self._lose("lost", path, "redacted", "encrypted reasoning has no field")
            return
        if part.signature:
            self._lose("lost", f"{path}.signature", "signature", "thinking has no room for a signature")
        if part.text:
            pieces.thinking.append(part.text)

    def _media(self, part: Media, pieces: _Pieces, path: str) -> None:
        if part.kind == "image" and part.data is not None:
            pieces.images.append(part.data)
            if part.media_type not in (None, media_type(part.data)):
                self._lose("lost", f"{path}.media_type", "media_type", "an image says by its first bytes what it is")
            if pieces.texts and not self.own:
                self._lose("emulated", path, "order", "images go before the words of their message")
            if part.detail not in (None, "auto"):
                self._lose("lost", f"{path}.detail", "detail", "images have one size here")
            if part.name is not None:
                self._lose("lost", f"{path}.name", "name", "images have no name here")
        elif part.text is not None and part.data is None:
            self._lose("emulated", path, "text document", "put in as text")
            pieces.texts.append(f"{part.name}\n{part.text}" if part.name else part.text)
        elif part.kind == "image" and part.uri is not None:
            self._lose("lost", path, "image", "images go as data, not by address: media.fetch allows to fetch it")
        elif part.kind == "image":
            self._lose("lost", path, "image", "images go as data, not by id")
        else:
            self._lose("lost", path, part.kind, "a message holds text and images")

    # Tools

    def _call(self, part: ToolCall, ordinal: int, path: str) -> dict[str, Any]:
        if part.id:
            self._names[part.id] = part.name
        if part.cache is not None:
            self._lose("lost", f"{path}.cache", "cache mark", "prefixes are cached by themselves")
        function: dict[str, Any] = {"name": part.name}
        if not self.own:
            self._foreign(part.extra, path)
            function["arguments"] = self._arguments(part, path)
            call: dict[str, Any] = {"function": function}
            return {"id": part.id, **call} if part.id and "id" not in part.extra else call
        extra = part.extra
        if "function.spelled" in extra:
            function["arguments"] = part.arguments
        elif part.arguments:
            function["arguments"] = Raw(part.arguments.encode())
        if extra.get("function.index") == NULL:
            function["index"] = ordinal
        call = {"function": function}
        if extra.get("type") == NULL:
            call = {"type": "function", **call}
        if part.id and "id" not in extra:
            call = {"id": part.id, **call}
        put_extra(call, {name: raw for name, raw in extra.items() if name not in _MARKS or raw != NULL})
        return call

    def _arguments(self, part: ToolCall, path: str) -> Any:
        if part.kind == "custom":
            self._lose("emulated", path, "custom", "free text goes as an object's member input")
            return {"input": part.arguments}
        if not part.arguments.strip():
            return {}
        if not json_object(part.arguments):
            raise DecodeError(f"{path}.arguments", "expected a JSON object: arguments are one here")
        return Raw(part.arguments.encode())

    def _result(self, part: ToolResult, message: Message, path: str) -> dict[str, Any]:
        pieces = _Pieces()
        for position, piece in enumerate(part.content):
            self.part(piece, pieces, f"{path}.content[{position}]")
        value: dict[str, Any] = {"role": "tool"}
        if pieces.texts or not self.own:
            value["content"] = join(pieces.texts, path, self.losses)
        if pieces.images:
            value["images"] = pieces.images
        older = self.own and message.extra.get("name") == NULL
        if name := part.name or (None if self.own else self._names.get(part.id)):
            value["name" if older else "tool_name"] = name
        if part.id and "id" not in part.extra:
            value["tool_call_id"] = part.id
        if part.is_error:
            self._lose("lost", f"{path}.is_error", "is_error", "a tool message does not say that it is one of failure")
        if part.cache is not None:
            self._lose("lost", f"{path}.cache", "cache mark", "prefixes are cached by themselves")
        if message.role == "tool":
            self._extra(value, message.extra, path)
        self._extra(value, part.extra, path)
        return value

    # Losses

    def _extra(self, value: dict[str, Any], extra: Extra, path: str) -> None:
        if self.own:
            put_extra(value, {name: raw for name, raw in extra.items() if name not in _MARKS or raw != NULL})
        else:
            self._foreign(extra, path)

    def _foreign(self, extra: Extra, path: str) -> None:
        if self.own:
            return
        for name, raw in extra.items():
            if name != "role" and says_something(name, raw):
                self._lose("lost", f"{path}.{name}", name, f"unknown to {self.format}")

    def _lose(self, kind: LossKind, path: str, what: str, why: str) -> None:
        self.losses.append(Loss(kind, path, what, why))


def write_prompt(request: Request, own: bool, losses: list[Loss]) -> dict[str, Any]:
    """Return ``system``, ``prompt`` and ``images`` of ``/api/generate``.

    It has room for instructions and for one thing said by the user. Raises Unsupported for a conversation: its turns
    would need the model's own template, which the server has and we do not.
    """
    writer = MessageWriter(GENERATE, own, losses)
    system, asked = _Pieces(), _Pieces()
    count = 0
    for position, message in enumerate(request.messages):
        path, noted = f"messages[{position}]", len(losses)
        pieces = system if message.role in ("system", "developer") and not count else asked
        if pieces is asked:
            count += 1
            if count > 1 or message.role != "user" or any(isinstance(part, ToolResult) for part in message.parts):
                why = f"{GENERATE} takes one prompt, and this request is a conversation"
                raise refused(request, Loss("lost", path, message.role, why))
        for number, part in enumerate(message.parts):
            place = f"{path}.content[{number}]"
            if isinstance(part, Reasoning):
                losses.append(Loss("lost", place, "reasoning", "a prompt has no room for thinking"))
            elif isinstance(part, ToolCall):
                losses.append(Loss("lost", place, "tool call", "a prompt calls no tools"))
            elif not isinstance(part, ToolResult):
                writer.part(part, pieces, place)
        if message.name is not None:
            losses.append(Loss("lost", f"{path}.name", "name", "a prompt has none"))
        for name, raw in message.extra.items():
            if name != "role" and says_something(name, raw):
                losses.append(Loss("lost", f"{path}.{name}", name, f"unknown to {GENERATE}"))
        if message.parts and not pieces:
            refuse(request, losses[noted:])
    if request.format not in FAMILY and not asked:
        # Without a prompt this API loads a model, and answers nothing. Of nothing but instructions, the last is the prompt.
        if not system.texts:
            raise refused(request, Loss("lost", "messages", "", "there is nothing to answer"))
        asked.texts.append(system.texts.pop())
        last = f"messages[{len(request.messages) - 1}]"
        losses.append(Loss("emulated", last, "system message", "stands as the prompt"))
    value: dict[str, Any] = {}
    if system.texts:
        value["system"] = join(system.texts, "messages[0]", losses)
    if asked.texts:
        value["prompt"] = join(asked.texts, f"messages[{len(request.messages) - 1}]", losses)
    if asked.images or system.images:
        value["images"] = system.images + asked.images
    return value


def join(texts: Iterable[str], path: str, losses: list[Loss]) -> str:
    """Return several texts as one, which is a loss of their borders."""
    said = list(texts)
    if len(said) > 1:
        losses.append(Loss("emulated", f"{path}.content", "text", "one string here: joined by newlines"))
    return "\n".join(said)


def refuse(request: Request, losses: Iterable[Loss]) -> None:
    """Raise Unsupported for a turn of which nothing is left, because of the first of these losses that is one."""
    for loss in losses:
        if loss.kind == "lost":
            raise refused(request, loss)
