"""IR parts into parts of contents, with what could not be carried.

Towards the part's own format a part comes out as it went in. From another one: files need a type, a result needs the name of
its call, and a thought is sent only to the provider that thought it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from ...errors import DecodeError
from ...ir.message import CacheMark, Extra, Media, Opaque, Reasoning, Text, ToolCall, ToolResult
from ...wire.members import BAD_JSON, NULL, json_object, put_extra
from ..answer_losses import NO_PLACE
from ..ledger import says_something
from ..part_writer import PartWriter
from .blobs import SPELLINGS, as_spelled
from .members import FORMAT, ID, SIGNATURE
from .parts import AS_IS, NAMELESS

Block = dict[str, Any] | Raw
SKIP_SIGNATURE: Final = "skip_thought_signature_validator"
"""What Google's documentation has written in the place of a signature on calls that another model made."""

_NAME: Final = re.compile(r"[^a-zA-Z0-9_.:-]")
_MAGIC: Final[tuple[tuple[str, str], ...]] = (
    ("/9j/", "image/jpeg"),
    ("iVBORw0KGgo", "image/png"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("JVBERi", "application/pdf"),
)
"""How the base64 of a file begins, for those who do not say what it is."""
_SOUNDS: Final[tuple[tuple[str, str], ...]] = (
    ("UklGR", "audio/wav"),
    ("SUQz", "audio/mp3"),
    ("T2dnU", "audio/ogg"),
    ("ZkxhQ", "audio/flac"),
)
"""The same of audio: RIFF holds sounds as well as pictures."""
_SUFFIXES: Final = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "pdf": "application/pdf",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "mp4": "video/mp4",
}
"""How an address ends, for those who do not say what stands there."""


class Renderer(PartWriter[Block]):
    """Writes the parts of one request.

    ``names`` are those of the calls so far, by id. ``skip`` writes the documented stand-in for a signature on a call that
    has none, where ``called`` does not say that another stands before it in its turn: the first is the one that is signed.
    """

    __slots__ = ("_skip", "called", "names")

    def __init__(self, own: bool, *, skip: bool = False) -> None:
        super().__init__(own)
        self.names: dict[str, str] = {}
        self.called = False
        self._skip = skip

    def add_extra(self, extra: Extra | Mapping[str, Raw], path: str, value: dict[str, Any]) -> dict[str, Any]:
        """Put the members of ``extra`` that are this format's into ``value``, or note each as lost."""
        if self.own:
            put_extra(value, extra)
        else:
            for name, raw in extra.items():
                if says_something(name, raw):
                    self.lose("lost", f"{path}.{name}" if path else name, name, NO_PLACE)
        return value

    def cache(self, mark: CacheMark | None, path: str) -> None:
        """Note a cache mark: caches are implicit here, or made by a call of their own."""
        if mark is not None:
            self.lose("lost", f"{path}.cache".lstrip("."), "cache mark", "caches are kept without marks here")

    def _opaque(self, part: Opaque, path: str) -> Block | None:
        if part.format == FORMAT:
            return Raw(part.data)
        self.lose("lost", path, part.kind, f"a block of {part.format} with no word here")
        self.cache(part.cache, path)
        return None

    def _text(self, part: Text, path: str) -> Block | None:
        if not self.own and not part.text:
            self.cache(part.cache, path)
            return None
        if part.citations:
            self.lose("lost", f"{path}.citations", "citations", "a request's texts carry no citations")
        self.cache(part.cache, path)
        return self.add_extra(part.extra, path, {"text": part.text})

    def _reasoning(self, part: Reasoning, path: str) -> Block | None:
        if part.origin != FORMAT:
            self.lose("lost", path, "reasoning", "thoughts are sent to the provider alone that thought them")
            return None
        value: dict[str, Any] = {"text": part.text, "thought": True}
        if part.signature is not None:
            value[SIGNATURE] = part.signature
        return self.add_extra(part.extra, path, value)

    def _tool_call(self, part: ToolCall, path: str) -> Block | None:
        if part.server:
            self.lose("lost", path, part.server, "a tool that another provider runs")
            return None
        self.names[part.id] = part.name
        call: dict[str, Any] = {"name": part.name}
        self._id(part, call, path)
        if part.kind == "custom":
            self.lose("emulated", path, "custom tool call", "its free text stands as the member input")
            call["args"] = {"input": part.arguments}
        elif part.arguments:
            if not json_object(part.arguments):
                raise DecodeError(f"{path}.arguments", "expected the JSON text of an object")
            call["args"] = Raw(part.arguments.strip().encode())
        value: dict[str, Any] = {"functionCall": call}
        extra = part.extra
        if not self.own:
            extra, signature = _signature_of(extra)
            if signature is not None:
                value[SIGNATURE] = signature
            elif self._skip and not self.called:
                self.lose("minted", f"{path}.{SIGNATURE}", SIGNATURE, "the documented stand-in: another model called")
                value[SIGNATURE] = SKIP_SIGNATURE
            self.called = True
        self.cache(part.cache, path)
        return self.add_extra(_without(extra, ID), path, value)

    def _tool_result(self, part: ToolResult, path: str) -> Block | None:
        if part.server:
            self.lose("lost", path, part.server, "a result of a tool that another provider ran")
            return None
        answer: dict[str, Any] = {}
        name = part.name
        if name is None and NAMELESS not in part.extra:
            name = self.names.get(part.id)
        if name is None and not self.own:
            name = _NAME.sub("_", part.id)[:128] or "tool"
            self.lose("minted", f"{path}.name", "name", "no call of this id stands before the result: made of the id")
        elif not self.own and part.name is not None and name != (known := self.names.get(part.id, name)):
            self.lose("lost", f"{path}.name", "name", "a result has the name of its call")
            name = known
        if name is not None:
            answer["name"] = name
        self._id(part, answer, path)
        texts: list[str] = []
        files: list[Block] = []
        for j, item in enumerate(part.content):
            at = f"{path}.content[{j}]"
            if isinstance(item, Text):
                self.cache(item.cache, at)
                texts.append(item.text)
                self.add_extra({} if self.own else item.extra, at, {})
            elif (file := self.block(item, at)) is not None:
                files.append(file)
        if len(texts) > 1:
            self.lose("emulated", f"{path}.content", "text", "a result is one text: joined by line ends")
        if texts and self.own and AS_IS in part.extra and json_object(texts[0]):
            answer["response"] = Raw(texts[0].encode())
        elif texts or not self.own:
            answer["response"] = {"error" if part.is_error else "output": "\n".join(texts)}
        if files:
            answer["parts"] = files
        value: dict[str, Any] = {"functionResponse": answer}
        self.cache(part.cache, path)
        return self.add_extra(_without(part.extra, ID, AS_IS, NAMELESS), path, value)

    def _id(self, part: ToolCall | ToolResult, value: dict[str, Any], path: str) -> None:
        """Write the id: ids are optional here, but calls and results that have some are told by them."""
        if self.own and (given := part.extra.get(ID)) is not None:
            if given != NULL:
                value["id"] = given
        elif not self.own and part.extra.get(ID) == NULL:
            pass  # made up for formats that need one
        elif part.id:
            value["id"] = part.id

    def _media(self, part: Media, path: str) -> Block | None:
        value: dict[str, Any] | None
        if self.own:
            value = self._own_media(part)
        else:
            value = self._foreign_media(part, path)
            if value is None:
                return None
            if part.detail not in (None, "auto"):
                self.lose("lost", f"{path}.detail", "detail", "images have no such setting here")
        self.cache(part.cache, path)
        return self.add_extra(_without(part.extra, *SPELLINGS), path, value)

    def _own_media(self, part: Media) -> dict[str, Any]:
        blob: dict[str, Any] = {}
        if part.media_type is not None:
            blob["mimeType"] = part.media_type
        if part.name is not None:
            blob["displayName"] = part.name
        if part.data is not None:
            return {"inlineData": {**blob, "data": as_spelled(part.data, part.extra)}}
        if part.text is not None:
            data = base64.b64encode(part.text.encode()).decode()
            return {"inlineData": {"mimeType": "text/plain", **blob, "data": data}}
        return {"fileData": {**blob, "fileUri": part.file_id or part.uri or ""}}

    def _foreign_media(self, part: Media, path: str) -> dict[str, Any] | None:
        data, uri, media_type = part.data, part.uri, part.media_type
        if uri is not None and uri.startswith("data:"):
            head, comma, rest = uri.removeprefix("data:").partition(",")
            if not comma or not head.endswith(";base64"):
                self.lose("lost", path, part.kind, "an address of data that is not base64")
                return None
            data, uri, media_type = rest, None, head.split(";")[0] or media_type
        if part.name is not None:
            self.lose("lost", f"{path}.name", "name", "files have no name here")
        if part.text is not None and data is not None:
            self.lose("lost", f"{path}.transcript", "transcript", "a file has no words beside it here")
        elif part.text is not None:
            data, media_type = base64.b64encode(part.text.encode()).decode(), media_type or "text/plain"
        if data is not None:
            if media_type is None:
                known = _SOUNDS if part.kind == "audio" else _MAGIC
                media_type = next((word for start, word in known if data.startswith(start)), None)
                if media_type is None:
                    self.lose("lost", path, part.kind, "of a type that nobody told")
                    return None
                self.lose("minted", path, "mimeType", f"{media_type}, by the first bytes")
            return {"inlineData": {"mimeType": media_type, "data": data}}
        if uri is not None:
            if media_type is None:
                media_type = _SUFFIXES.get(uri.partition("?")[0].rpartition(".")[2].lower())
                if media_type is not None:
                    self.lose("minted", path, "mimeType", f"{media_type}, by the end of the address")
            told = {} if media_type is None else {"mimeType": media_type}
            return {"fileData": {**told, "fileUri": uri}}
        self.lose("lost", path, "file_id" if part.file_id is not None else part.kind, "a file of another provider")
        return None


def _without(extra: Extra, *names: str) -> Extra:
    return {name: raw for name, raw in extra.items() if name not in names} if extra else extra


def _signature_of(extra: Extra) -> tuple[Extra, str | None]:
    """Take out a signature that a client of another format sent back as Google's own translation spells it.

    Source: "Thought signatures", OpenAI compatibility: ``extra_content.google.thought_signature`` of a tool call.
    """
    raw = extra.get("extra_content")
    if raw is None:
        return extra, None
    try:
        content = msgspec.json.decode(raw, type=dict[str, dict[str, Raw]])
        signature = msgspec.json.decode(content["google"]["thought_signature"], type=str)
    except (*BAD_JSON, KeyError):
        return extra, None
    only = len(content) == len(content["google"]) == 1
    return (_without(extra, "extra_content") if only else extra), signature
