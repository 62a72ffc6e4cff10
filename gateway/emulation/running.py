"""Usage while a stream runs: before what each chunk says stands what the answer has cost so far.

What the provider told is told again; what it did not tell yet is estimated by the size of the words, a token for each four
bytes, and marked as an estimate. The provider's own figures at the end are left as they are.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ..errors import GatewayError
from ..ir.event import ChoiceStop, Chunk, PartDelta, PartStart, Usage, UsageReport
from ..ir.message import Reasoning, Text, ToolCall

FORMATS: Final = frozenset({"openai.chat", "openai.completions"})
"""Callers' formats whose chunks have a place for it. Gemini's streams carry usage anyway; the others tell it once."""
_SAYING: Final = (PartStart, PartDelta, ChoiceStop)


class RunningUsage:
    """Follows one answer. ``input_tokens`` is how many the request has, for as long as the provider does not say."""

    __slots__ = ("_input", "_told", "_bytes")

    def __init__(self, input_tokens: int | None) -> None:
        self._input = input_tokens
        self._told: Usage | None = None
        self._bytes = 0

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Return the chunk with usage so far before what it says."""
        told, says, fresh = None, False, False
        for event in chunk.events:
            if isinstance(event, UsageReport):
                told = event.usage
            elif isinstance(event, PartDelta):
                self._bytes += len(event.text.encode())
            elif isinstance(event, PartStart) and isinstance(part := event.part, (Text, Reasoning, ToolCall)):
                self._bytes += len((part.arguments if isinstance(part, ToolCall) else part.text).encode())
            says = says or isinstance(event, _SAYING)
            # A report after the words counts them; one before them, as at the start of an answer, does not yet.
            fresh = isinstance(event, UsageReport) or (fresh and not isinstance(event, _SAYING))
        if told is not None:
            self._told = told
        if not says:
            return chunk if chunk.raw is None else Chunk(chunk.events, None, chunk.wire)
        usage = told if told is not None and fresh else self._estimate()
        return Chunk((UsageReport(usage, running=True), *chunk.events), None, chunk.wire)

    def _estimate(self) -> Usage:
        told = self._told or Usage()
        written = -(-self._bytes // 4)
        if told.output_tokens is not None and told.output_tokens >= written and told.input_tokens is not None:
            return told
        read = self._input if told.input_tokens is None else told.input_tokens
        written = max(written, told.output_tokens or 0)
        return replace(told, input_tokens=read, output_tokens=written, estimated=True, raw={})

    def close(self, error: GatewayError | None, /) -> None:
        """Nothing was held back."""
