"""What a whole answer and a streamed one have in common when they are written: blocks, envelope, stop, usage, losses.

Minted where nobody gave them, since clients demand them: ``id`` (from the request id), a tool call's ``id``, zero usage,
``stop_reason``. A thinking block of another provider has the empty ``signature`` with which this API's own blocks start;
no signature is ever made up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec
from msgspec import Raw

from ...errors import Malformed
from ...ir.event import ResponseStart, StopReason, Usage
from ...ir.message import Extra, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from ..answer_losses import AnswerLosses
from ..base import AnswerContext
from ..usage_losses import usage_losses
from .members import FORMAT, json_object
from .usage import stop_word, write_usage

"""Why an unknown member of another format's answer is lost."""
Growth = Literal["text", "thinking", "input", "custom", ""]
"""What the deltas of a block are made of; ``custom`` is free text that becomes a JSON string, empty: nothing grows."""


class Opening(NamedTuple):
    """A block as ``content_block_start`` shows it, the words that its part already has, and how it grows."""

    block: dict[str, object] | Raw
    text: str
    growth: Growth


class AnswerRenderer(AnswerLosses):
    """Writes one answer."""

    __slots__ = ("_context",)

    def __init__(self, format: str, context: AnswerContext) -> None:
        super().__init__(format, FORMAT)
        self._context = context

    def envelope(self, start: ResponseStart) -> dict[str, object]:
        """The first members of a Message object."""
        id = start.id
        if not id:
            id = f"msg_{self._context.request_id}"
            self.lose("minted", "id", "id", "the provider gave none")
        if start.service_tier is not None:
            self.lose("lost", "service_tier", "service_tier", "is told in the usage here, in other words")
        return {"id": id, "type": "message", "role": "assistant", "model": start.model or self._context.model}

    def usage(self, usage: Usage | None) -> dict[str, object]:
        """The ``usage`` object."""
        if usage is None or (usage.input_tokens is None and usage.uncached_input_tokens is None):
            self.lose("minted", "usage", "usage", "the provider told none (yet): zero")
        elif usage.output_tokens is None:
            self.lose("minted", "usage.output_tokens", "output_tokens", "the provider told none (yet): zero")
        elif usage.estimated:
            self.lose("minted", "usage", "usage estimate", "counted by the gateway")
        if usage is not None and usage.format != FORMAT:
            self.lose_all(usage_losses(usage))
        return write_usage(usage)

    def stop(
        self, parts: Iterable[Part], reason: StopReason | None, raw_reason: str, stop_sequence: str | None
    ) -> dict[str, object]:
        """``stop_reason`` and ``stop_sequence``."""
        calls = any(isinstance(part, ToolCall) and not part.server for part in parts)
        if reason is None:
            self.lose("minted", "stop_reason", "stop_reason", "the provider told none")
            reason = "tool_calls" if calls else "stop"
        elif reason == "stop" and calls and self.format != FORMAT:
            # Clients of this format run tools on this word alone; some providers say "stop" all the same.
            self.lose("emulated", "stop_reason", "tool_use", "the provider said stop after a tool call")
            reason, raw_reason = "tool_calls", ""
        elif reason in ("content_filter", "other") and self.format != FORMAT:
            self.lose("emulated", "stop_reason", raw_reason or reason, "the nearest word of this format stands")
        return {"stop_reason": stop_word(reason, raw_reason), "stop_sequence": stop_sequence}

    def opening(self, part: Part, number: int) -> Opening | None:
        """How block ``number`` begins; None, with a loss noted, where it has no place."""
        path = f"content[{number}]"
        if isinstance(part, Text):
            return self._text(part, path)
        if isinstance(part, ToolCall):
            return self._tool_call(part, path, number)
        if isinstance(part, Reasoning):
            return self._reasoning(part, path)
        if isinstance(part, Refusal):
            self.lose("emulated", path, "refusal", "stands as text")
            return Opening({"type": "text", "text": ""}, part.text, "text")
        if isinstance(part, Opaque) and part.format == FORMAT:
            return Opening(Raw(part.data), "", "")
        what = "tool result" if isinstance(part, ToolResult) else part.kind
        self.lose("lost", path, what, "an answer of this format cannot hold it")
        return None

    def block(self, part: Part, number: int) -> dict[str, object] | Raw | None:
        """The whole block ``number``. Raises Malformed for arguments that are no JSON object."""
        opening = self.opening(part, number)
        if opening is None:
            return None
        block, text, growth = opening
        if isinstance(block, Raw):
            return block
        if growth in ("text", "thinking"):
            block[growth] = text
        elif growth == "custom":
            block["input"] = {"input": text}
        elif growth == "input" and text:
            arguments = text.encode()
            if not json_object(arguments):
                raise Malformed(f"the arguments of tool call content[{number}] are not a JSON object")
            block["input"] = Raw(arguments.strip())
        return block

    def _text(self, part: Text, path: str) -> Opening:
        block: dict[str, object] = {"type": "text", "text": ""}
        raws = [Raw(citation.raw) for citation in part.citations if citation.format == FORMAT]
        if raws:
            block["citations"] = raws
        if len(raws) < len(part.citations):
            self.lose("lost", f"{path}.citations", "citations", "of another format")
        return Opening(self._with(block, part.extra, path), part.text, "text")

    def _reasoning(self, part: Reasoning, path: str) -> Opening | None:
        own = part.origin == FORMAT
        if part.redacted is not None and own:
            return Opening(self._with({"type": "redacted_thinking", "data": part.redacted}, part.extra, path), "", "")
        if not own and (part.redacted is not None or part.signature):
            self.lose("lost", path, "reasoning signature", "belongs to another provider")
        signature = part.signature or "" if own else ""
        block: dict[str, object] = {"type": "thinking", "thinking": "", "signature": signature}
        if not own and part.redacted is not None and not part.text:
            return None
        return Opening(self._with(block, part.extra, path), part.text, "thinking")

    def _tool_call(self, part: ToolCall, path: str, number: int) -> Opening | None:
        if part.server and not part.server.endswith("tool_use"):
            self.lose("lost", path, part.server, "a tool that another provider runs")
            return None
        id = part.id
        if not id or "id" in part.extra:
            id = f"toolu_{self._context.request_id}_{number}"
            self.lose("minted", f"{path}.id", "tool call id", "the provider gave none")
        block: dict[str, object] = {"type": part.server or "tool_use", "id": id, "name": part.name, "input": {}}
        growth: Growth = "input"
        if part.kind == "custom":
            self.lose("emulated", path, "custom tool call", "its free text stands as the member input")
            growth = "custom"
        return Opening(self._with(block, part.extra, path), part.arguments, growth)

    def _with(self, block: dict[str, object], extra: Extra, path: str) -> dict[str, object]:
        for name, raw in self.own_extra(extra, path).items():
            block.setdefault(name, raw)
        return block


def json_text(text: str) -> bytes:
    """``text`` as the inside of a JSON string: what a fragment of free text is within a larger one."""
    return msgspec.json.encode(text)[1:-1]
