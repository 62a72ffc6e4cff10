"""One line of JSON per call: who asked what of whom, how it ended, how long it took, what it cost in tokens.

Lines go to the logger ``headgate.access`` or to a file. It keeps no bodies; secrets have no place in a line, and what
looks like one in a message is masked all the same.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, ClassVar, Final, TextIO

import msgspec
from msgspec import Struct

from ..gateway.call import Call
from ..gateway.chain import Next
from ..gateway.errors import GatewayError
from ..gateway.ir.event import Chunk, PartDelta, Usage, UsageReport
from ..gateway.relay.reply import Reply

_encode: Final = msgspec.json.Encoder().encode
_SECRET: Final = re.compile(
    r"(?:\b(?:sk|pk|rk|xai|gsk|key)-[A-Za-z0-9_\-]{8,}|\bAKIA[0-9A-Z]{16}|\bghp_[A-Za-z0-9]{20,}|\bAIza[0-9A-Za-z_\-]{30,}"
    r"|\beyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]*|(?<=Bearer )\S{8,})"
)


def mask_secrets(text: str) -> str:
    """Return ``text`` with everything that looks like a credential replaced by ``***``."""
    return _SECRET.sub("***", text)


class LogOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``to``: ``logger`` (the logger headgate.access, level INFO), ``stdout``, ``stderr``, or the path of a file."""

    to: str = "logger"


class Log:
    """Writes a line when the answer is over, whatever became of it."""

    Options: ClassVar[type[Struct]] = LogOptions
    needs_usage = True

    def __init__(self, options: LogOptions) -> None:
        self.options = options
        self._logger = logging.getLogger("headgate.access")
        self._file: TextIO | None = None

    async def start(self) -> None:
        """Open the file, if there is one."""
        to = self.options.to
        if to == "stdout":
            self._file = sys.stdout
        elif to == "stderr":
            self._file = sys.stderr
        elif to != "logger":
            # Line-buffered appends of one write each: several processes may share the file.
            self._file = open(to, "a", buffering=1, encoding="utf-8")  # noqa: ASYNC230, SIM115  # once, before the first call; closed in stop()

    async def stop(self) -> None:
        """Close it."""
        if self._file is not None and self._file not in (sys.stdout, sys.stderr):
            self._file.close()
        self._file = None

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Pass the call on and watch its answer."""
        try:
            reply = await call_next(call)
        except GatewayError as error:
            self.write(call, error, None, None, 0)
            raise
        except BaseException:
            self.write(call, None, None, None, 0, outcome="cancelled")
            raise
        return reply.through(_Watch(self, call, reply.status))

    def write(
        self,
        call: Call,
        error: GatewayError | None,
        usage: Usage | None,
        first_token_s: float | None,
        status: int,
        outcome: str | None = None,
    ) -> None:
        """Write the line of ``call``."""
        decision = call.decision
        line: dict[str, Any] = {
            "time": round(call.began_unix, 3),
            "request_id": call.request_id,
            "method": "POST",
            "path": call.facts.path,
            "format": call.format,
            "stream": call.stream,
            "key": call.principal.key,
            "route": decision.route,
            "upstream": decision.upstream,
            "model": call.peek.model,
            "status": error.status if error is not None else status,
            "outcome": outcome or ("ok" if error is None else error.kind),
            "duration_ms": round((call.scope.loop.time() - call.began) * 1000, 1),
        }
        if call.model != call.peek.model:
            line["upstream_model"] = call.model
        if call.principal.tenant:
            line["tenant"] = call.principal.tenant
        if first_token_s is not None:
            line["first_token_ms"] = round(first_token_s * 1000, 1)
        if usage is not None:
            for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
                if (count := getattr(usage, name)) is not None:
                    line[name] = count
            if usage.reasoning_output_tokens is not None:
                line["reasoning_output_tokens"] = usage.reasoning_output_tokens
            if usage.estimated:
                line["usage_estimated"] = True
        if len(decision.attempts) > 1:
            line["attempts"] = decision.attempts
        elif decision.attempts and decision.attempts[0].request_id:
            line["upstream_request_id"] = decision.attempts[0].request_id
        if call.ledger.request:
            line["loss"] = call.ledger.request
        if call.ledger.answer:
            line["answer_loss"] = call.ledger.answer
        if error is not None:
            line["error"] = mask_secrets(error.message)[:500]
        text = _encode(line).decode()
        if self._file is not None:
            self._file.write(text + "\n")
        else:
            self._logger.info("%s", text)


class _Watch:
    """Notes the first token and the last usage."""

    __slots__ = ("_log", "_call", "_status", "_usage", "_first_token_s")

    def __init__(self, log: Log, call: Call, status: int) -> None:
        self._log = log
        self._call = call
        self._status = status
        self._usage: Usage | None = None
        self._first_token_s: float | None = None

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Look at a chunk."""
        for event in chunk.events:
            kind = type(event)
            if kind is PartDelta:
                if self._first_token_s is None:
                    call = self._call
                    self._first_token_s = call.scope.loop.time() - call.began
            elif kind is UsageReport:
                self._usage = event.usage  # type: ignore[union-attr]  # tested by exact type
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self._log.write(self._call, error, self._usage, self._first_token_s, self._status)


__all__ = ["Log", "LogOptions", "mask_secrets"]
