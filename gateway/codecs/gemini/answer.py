"""What a whole answer and a streamed one have in common when they are written: parts, candidates, envelope, usage, losses.

Little is demanded in this format: neither ids nor dates nor usage are made up. A candidate that is complete says so, which is
STOP where nobody gave a reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgspec import Raw

from ...errors import Malformed
from ...ir.event import ChoiceStop, ResponseStart, StopReason, Usage
from ...ir.message import NO_EXTRA, Extra, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from ...wire.members import json_object, put_extra
from ..answer_losses import NO_PLACE, AnswerLosses
from ..base import AnswerContext
from ..usage_losses import usage_losses
from .logprobs import write_logprobs
from .members import FORMAT, ID, SIGNATURE
from .reader import write_time
from .render import Renderer
from .usage import EXACT, finish_word, write_usage

Block = dict[str, Any] | Raw
FEEDBACK: Final = "promptFeedback"
"""In the extra of a ChoiceStop of this format: the prompt was blocked, and there is no candidate."""


class AnswerRenderer(AnswerLosses):
    """Writes one answer."""

    __slots__ = ("_context",)

    def __init__(self, format: str, context: AnswerContext) -> None:
        super().__init__(format, FORMAT)
        self._context = context

    def envelope(self, start: ResponseStart) -> dict[str, Any]:
        """The members that stand in every frame."""
        told: dict[str, Any] = {}
        if model := start.model or self._context.model:
            told["modelVersion"] = model
        if start.id:
            told["responseId"] = start.id
        if start.created is not None and "createTime" not in start.extra and (time := write_time(start.created)):
            told["createTime"] = time
        if start.service_tier is not None:
            self.lose("lost", "service_tier", "service_tier", NO_PLACE)
        return told

    def usage(self, usage: Usage) -> dict[str, object]:
        """The ``usageMetadata`` object."""
        if usage.estimated:
            self.lose("minted", "usageMetadata", "usage estimate", "counted by the gateway")
        if usage.cache_creation_input_tokens and usage.format != FORMAT:
            self.lose("lost", "usageMetadata", "tokens written to a cache", "are counted in the prompt's alone here")
        if usage.format != FORMAT:
            self.lose_all(usage_losses(usage, "usageMetadata"))
        return write_usage(usage)

    def candidate(
        self,
        number: int,
        parts: Iterable[Block],
        stop: ChoiceStop | None = None,
        logprobs: Iterable[Raw] = (),
        extra: Extra = NO_EXTRA,
    ) -> dict[str, Any]:
        """A candidate; it has a ``finishReason`` when ``stop`` is given."""
        told: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}}
        path = f"candidates[{number}]"
        if stop is not None:
            told["finishReason"] = self._finish(stop, path)
        told["index"] = number
        if shaped := write_logprobs(logprobs):
            told["logprobsResult"] = shaped
        if stop is not None:
            put_extra(told, self.own_extra(stop.extra, path))
        put_extra(told, self.own_extra(extra, path))
        return told

    def unsaid_stop(self, number: int) -> ChoiceStop:
        """The stop of a candidate whose provider gave no reason."""
        self.lose("minted", f"candidates[{number}].finishReason", "finishReason", "the provider gave no reason")
        return ChoiceStop("stop", "", number)

    def _finish(self, stop: ChoiceStop, path: str) -> str:
        reason: StopReason = stop.reason
        word = finish_word(reason, stop.raw_reason, self.format)
        if self.format != FORMAT and reason not in EXACT:
            self.lose("emulated", f"{path}.finishReason", stop.raw_reason or reason, f"said as {word}")
        if stop.stop_sequence is not None:
            self.lose("lost", f"{path}.finishReason", "stop sequence", "this format does not tell which one it was")
        return word

    def part(self, part: Part, path: str) -> Block | None:
        """A whole part; None, with a loss noted, where it has no place. Raises Malformed for arguments that are no object."""
        if isinstance(part, Text):
            if part.citations:
                self.citation(path)
            return self._with({"text": part.text}, part.extra, path)
        if isinstance(part, Reasoning):
            return self._reasoning(part, path)
        if isinstance(part, ToolCall):
            return self._tool_call(part, path)
        if isinstance(part, Refusal):
            self.lose("emulated", path, "refusal", "stands as text")
            return self._with({"text": part.text}, part.extra, path)
        if isinstance(part, Media):
            return self._media(part, path)
        if isinstance(part, Opaque) and part.format == FORMAT:
            return Raw(part.data)
        what = "tool result" if isinstance(part, ToolResult) else part.kind
        self.lose("lost", path, what, "an answer of this format cannot hold it")
        return None

    def citation(self, path: str) -> None:
        """Note a citation: sources are told beside the content here, and for the provider's own searches."""
        self.lose("lost", path, "citations", "of another format")

    def _reasoning(self, part: Reasoning, path: str) -> Block | None:
        own = part.origin == FORMAT
        if not own and (part.redacted is not None or part.signature):
            self.lose("lost", path, "reasoning signature", "belongs to another provider")
        if not own and not part.text:
            return None
        value: dict[str, Any] = {"text": part.text, "thought": True}
        if own and part.signature is not None:
            value[SIGNATURE] = part.signature
        return self._with(value, part.extra, path)

    def _tool_call(self, part: ToolCall, path: str) -> Block | None:
        if part.server:
            self.lose("lost", path, part.server, "a tool that another provider runs")
            return None
        call: dict[str, Any] = {}
        if part.id and ID not in part.extra:
            call["id"] = part.id
        call["name"] = part.name
        if part.kind == "custom":
            self.lose("emulated", path, "custom tool call", "its free text stands as the member input")
            call["args"] = {"input": part.arguments}
        elif part.arguments.strip():
            if not json_object(part.arguments):
                raise Malformed(f"the arguments of the tool call {path} are not a JSON object")
            call["args"] = Raw(part.arguments.strip().encode())
        else:
            call["args"] = {}
        extra = {name: raw for name, raw in part.extra.items() if name != ID}
        return self._with({"functionCall": call}, extra, path)

    def _media(self, part: Media, path: str) -> Block | None:
        renderer = Renderer(self.format == FORMAT)
        value = renderer.block(part, path)
        for loss in renderer.losses:
            self.lose(loss.kind, loss.path, loss.what, loss.why)
        return value

    def _with(self, value: dict[str, Any], extra: Extra, path: str) -> dict[str, Any]:
        put_extra(value, self.own_extra(extra, path))
        return value
