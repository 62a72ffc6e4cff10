"""Parts into content blocks, with what could not be carried.

Towards the part's own format a block comes out as it went in. From another format the API's stricter rules apply: no
blank texts, ids of letters, digits, ``_`` and ``-``, images and PDF only, thinking only with the signature it was given.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from ...errors import DecodeError
from ...ir.loss import LossKind
from ...ir.message import (
    CacheMark,
    Extra,
    Media,
    Opaque,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from ..ledger import says_something
from ..part_writer import PartWriter
from .blocks import KEPT_RESULT
from .members import FORMAT, json_object

Block = dict[str, object] | Raw

_ID: Final = re.compile(r"[a-zA-Z0-9_-]+\Z")
"""Source: the API's 400 "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"."""

_MAGIC: Final[tuple[tuple[str, str], ...]] = (
    ("/9j/", "image/jpeg"),
    ("iVBORw0KGgo", "image/png"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("JVBERi", "application/pdf"),
)
"""How the base64 of a file begins, for those who do not say what it is."""


class Renderer(PartWriter[Block]):
    """Writes the parts of one request."""

    __slots__ = ("_called",)

    def __init__(self, own: bool) -> None:
        super().__init__(own)
        self._called: dict[str, str] = {}
        """What the calls so far called, by their ids."""

    def add_extra(self, extra: Extra, path: str, block: dict[str, object]) -> dict[str, object]:
        """Put the members of ``extra`` that are this format's into ``block``, or note each as lost."""
        for name, raw in extra.items():
            if self.own:
                block.setdefault(name, raw)
            elif says_something(name, raw):
                self.lose("lost", f"{path}.{name}" if path else name, name, "has no place in this format")
        return block

    def cache(self, mark: CacheMark | None, path: str, block: dict[str, object]) -> None:
        """Write a cache mark; of another format only its ttl is known to mean the same."""
        if mark is None:
            return
        control: dict[str, object] = {"type": "ephemeral"}
        if mark.ttl is not None:
            control["ttl"] = mark.ttl
        if self.own and "type" in mark.extra:
            del control["type"]
        block["cache_control"] = self.add_extra(mark.extra, f"{path}.cache".lstrip("."), control)

    def _text(self, part: Text, path: str) -> Block | None:
        if not self.own and not part.text.strip():
            if part.text or part.cache is not None:
                self.lose("lost", path, "text", "a text of nothing but white space is refused")
            return None
        block: dict[str, object] = {"type": "text", "text": part.text}
        if part.citations:
            raws = [Raw(citation.raw) for citation in part.citations if citation.format == FORMAT]
            if len(raws) < len(part.citations):
                self.lose("lost", path, "citations", "made by another provider")
            if raws:
                block["citations"] = raws
        self.cache(part.cache, path, block)
        return self.add_extra(part.extra, path, block)

    def _reasoning(self, part: Reasoning, path: str) -> Block | None:
        if part.origin != FORMAT or (not self.own and not part.signature and part.redacted is None):
            self.lose("lost", path, "reasoning", "thinking is accepted with the signature of this provider only")
            return None
        if part.redacted is not None:
            return self.add_extra(part.extra, path, {"type": "redacted_thinking", "data": part.redacted})
        block: dict[str, object] = {"type": "thinking", "thinking": part.text}
        if part.signature is not None:
            block["signature"] = part.signature
        # A thinking block's members are signed as a whole: what came with it belongs to this format.
        return self.add_extra(part.extra, path, block)

    def _tool_call(self, part: ToolCall, path: str) -> Block | None:
        kind = "tool_use"
        if part.server:
            if not part.server.endswith("tool_use"):
                self.lose("lost", path, part.server, "a tool that another provider runs")
                return None
            kind = part.server
        block: dict[str, object] = {"type": kind, "id": self.id(part, path), "name": part.name}
        self._called[part.id] = part.name
        if part.kind == "custom":
            self.lose("emulated", path, "custom tool call", "its free text stands as the member input")
            block["input"] = {"input": part.arguments}
        elif not part.arguments:
            if not self.own:
                self.lose("minted", f"{path}.arguments", "input", "no arguments were given: an empty object")
            block["input"] = {}
        else:
            arguments = part.arguments.encode()
            if not json_object(arguments):
                raise DecodeError(f"{path}.arguments", "expected the JSON text of an object")
            block["input"] = Raw(arguments.strip())
        self.cache(part.cache, path, block)
        return self.add_extra(part.extra, path, block)

    def _tool_result(self, part: ToolResult, path: str) -> Block | None:
        block: dict[str, object] = {"type": "tool_result", "tool_use_id": self.id(part, path)}
        if part.server:
            self.lose("lost", path, part.server, "a result of a tool that another provider ran")
            return None
        if part.name is not None and part.name != self._called.get(part.id):
            # Calls that have no id are told by their name; they are given one.
            kind: LossKind = "emulated" if "id" in part.extra else "lost"
            self.lose(kind, f"{path}.name", "name", "a result is told by its call's id alone")
        content = [
            (item, inner)
            for j, item in enumerate(part.content)
            if (inner := self.block(item, f"{path}.content[{j}]")) is not None
        ]
        if self._plain(part):
            block["content"] = "".join(item.text for item in part.content if isinstance(item, Text))
        elif content:
            block["content"] = [inner for _, inner in content]
        if part.is_error:
            block["is_error"] = True
        self.cache(part.cache, path, block)
        return self.add_extra(part.extra, path, block)

    def _plain(self, part: ToolResult) -> bool:
        """Whether the content is written as one string: as it came, or the usual lone text of another format."""
        if len(part.content) != 1 or not isinstance(text := part.content[0], Text):
            return False
        if text.cache is not None or text.citations or (text.extra and self.own):
            return False
        return part.brief if self.own else bool(text.text.strip())

    def _media(self, part: Media, path: str) -> Block | None:
        if part.kind not in ("image", "document"):
            self.lose("lost", path, part.kind, "this format carries images and documents only")
            return None
        if self.own and (found := part.extra.get(KEPT_RESULT)) is not None:
            return found
        source = self._source(part, path)
        if source is None:
            return None
        block: dict[str, object] = {"type": part.kind, "source": source}
        if part.name is not None and part.kind == "document":
            block["title"] = part.name
        elif part.name is not None:
            self.lose("lost", f"{path}.name", "name", "only documents have a title here")
        if part.uri is not None and part.media_type is not None and not self.own:
            self.lose("emulated", f"{path}.media_type", "media_type", "who fetches the address is told there")
        if part.detail not in (None, "auto"):
            self.lose("lost", f"{path}.detail", "detail", "images have no detail setting here")
        self.cache(part.cache, path, block)
        return self.add_extra({k: v for k, v in part.extra.items() if k != "source" or not self.own}, path, block)

    def _source(self, part: Media, path: str) -> dict[str, object] | None:
        source: dict[str, object] | None
        if part.data is not None:
            source = self._data(part, path)
        elif part.text is not None:
            source = {"type": "text", "media_type": part.media_type or "text/plain", "data": part.text}
        elif part.file_id is not None:
            if not self.own:
                self.lose("lost", path, "file_id", "a file of another provider")
                return None
            source = {"type": "file", "file_id": part.file_id}
        elif part.uri is not None and not part.uri.startswith("data:"):
            source = {"type": "url", "url": part.uri}
        elif part.uri is not None and ";base64," in part.uri[:200]:
            media_type, data = part.uri.removeprefix("data:").split(";base64,", 1)
            source = self._data(Media(part.kind, media_type.split(";")[0] or None, data=data), path)
        else:
            self.lose("lost", path, part.kind, "neither data nor an address that this format knows")
            return None
        if self.own and source is not None and "source" in part.extra:
            source.update(_members(part.extra["source"]))
        return source

    def _data(self, part: Media, path: str) -> dict[str, object] | None:
        media_type, data = part.media_type, part.data or ""
        if self.own:
            return {"type": "base64", "media_type": media_type, "data": data}
        if media_type is None:
            media_type = next((word for start, word in _MAGIC if data.startswith(start)), None)
            if media_type is not None:
                self.lose("minted", path, "media_type", f"{media_type}, by the first bytes")
        if media_type is not None and part.kind == "document" and media_type.startswith("text/"):
            try:
                text = base64.b64decode(data, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                self.lose("lost", path, "document", "not the base64 of UTF-8 text")
                return None
            if media_type != "text/plain":
                self.lose("emulated", f"{path}.media_type", "media_type", "stands as plain text")
            return {"type": "text", "media_type": "text/plain", "data": text}
        wanted = "image/" if part.kind == "image" else "application/pdf"
        if media_type is None or not media_type.startswith(wanted):
            self.lose("lost", path, part.kind, f"of type {media_type or 'unknown'}, which is not read here")
            return None
        return {"type": "base64", "media_type": media_type, "data": data}

    def _opaque(self, part: Opaque, path: str) -> Block | None:
        if part.format == FORMAT:
            return Raw(part.data)
        self.lose("lost", path, part.kind, f"a block of {part.format} with no word here")
        return None

    def id(self, part: ToolCall | ToolResult, path: str) -> str:
        """Return a tool call's id, rewritten the same way wherever it stands if the API would refuse it."""
        id = part.id
        if self.own:
            return id
        if _ID.match(id):
            if "id" in part.extra:
                self.lose("minted", f"{path}.id", "id", "the caller's format gives such calls none")
            return id
        self.lose("minted", f"{path}.id", "id", "letters, digits, _ and - only")
        return "toolu_" + hashlib.sha256(id.encode(errors="surrogatepass")).hexdigest()[:24]


def _members(raw: Raw) -> Mapping[str, Raw]:
    return msgspec.json.decode(raw, type=dict[str, Raw])
