"""One line of JSON per call: who asked what of whom, how it ended, how long it took, what it cost in tokens.

Lines go to the logger ``headgate.access`` or to a file, a fifth of a second's worth at a time. Secrets have no place in a
line, and what looks like one in a message is masked all the same. Bodies are written only if the rules ask for them, to files
of their own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Final, Literal

import msgspec
from msgspec import Struct

from ..gateway.call import Call
from ..gateway.chain import Next
from ..gateway.errors import GatewayError
from ..gateway.ir.event import Chunk, Usage
from ..gateway.relay.hearing import Hearing
from ..gateway.relay.reply import Reply
from ..gateway.secret_shapes import mask_secrets
from ..gateway.telemetry.ending import error_of, status_of
from ..gateway.telemetry.line import Line
from ..gateway.units import Duration, FilePath, Size, milliseconds

if TYPE_CHECKING:
    from ..gateway.transcripts.bodies import Bodies
    from ..gateway.transcripts.transcript import Transcript

FLUSH_S: Final = 0.2
"""How long a line may wait: a write for each would cost more than all the rest of the middleware."""
MAX_LINES: Final = 100
"""Lines that wait at most, however short the time."""
_BODIES_IN: Final = "headgate-bodies"
_KEEP_S: Final = 7 * 86400.0
_MAX_SIZE: Final = 500_000_000
_MAX_BODY: Final = 64_000
_log: Final = logging.getLogger("headgate.log")
_NO_USAGE: Final = Usage()
_ENCODER: Final = msgspec.json.Encoder()


class LogOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``to``: ``logger`` (the logger headgate.access, level INFO), ``stdout``, ``stderr``, or the path of a file. ``bodies``
    writes down what was asked and answered, too: ``redacted`` as the innermost ``redact`` left it, and where a call meets
    none, with stars for whatever a ``redact`` would find; ``full`` as it is, but for secrets. They go to files in
    ``bodies_in`` (headgate-bodies), together no larger than ``max_size`` (500 MB), none older than ``keep`` (7 days); of
    either body ``max_body`` (64 KB) at most. The four are for bodies alone."""

    to: str = "logger"
    bodies: Literal["none", "redacted", "full"] = "none"
    bodies_in: FilePath | None = None
    keep: Duration | None = None
    max_size: Size | None = None
    max_body: Size | None = None

    def __post_init__(self) -> None:
        for name in ("bodies_in", "keep", "max_size", "max_body"):
            if getattr(self, name) is not None and self.bodies == "none":
                raise ValueError(f"{name} is of bodies, and none are written: say bodies: redacted, or remove {name}")
        for name in ("keep", "max_size", "max_body"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} must be above zero")
        if (self.max_body or _MAX_BODY) * 2 > (self.max_size or _MAX_SIZE):
            raise ValueError("max_size must have room for more than one pair of bodies of max_body")


class Log:
    """Writes a line when the answer is over, whatever became of it."""

    Options: ClassVar[type[Struct]] = LogOptions
    needs_usage = True

    def __init__(self, options: LogOptions) -> None:
        self.options = options
        self.keeps_content = options.bodies == "full"
        self._logger = logging.getLogger("headgate.access")
        self._file: BinaryIO | None = None
        self._lines = bytearray()
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._bodies = None if options.bodies == "none" else _bodies(options)

    async def start(self) -> None:
        """Open the file, if there is one, and the directory of bodies."""
        if self._bodies is not None:
            self._bodies.files.start()
        to = self.options.to
        if to == "stdout":
            self._file = sys.stdout.buffer
        elif to == "stderr":
            self._file = sys.stderr.buffer
        elif to != "logger":
            # Appended to in single writes of whole lines: several processes may share the file.
            self._file = open(to, "ab", buffering=0)  # noqa: ASYNC230, SIM115  # once, before the first call

    async def stop(self) -> None:
        """Write what is left, and close the file."""
        self._flush()
        if self._file is not None and self.options.to not in ("stdout", "stderr"):
            self._file.close()
        self._file = None
        if self._bodies is not None:
            await asyncio.to_thread(self._bodies.files.stop)

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Pass the call on and watch its answer."""
        if self._bodies is not None and call.passed is None:
            return await self._remember(call, call_next, self._bodies)
        try:
            reply = await call_next(call)
        except BaseException as fault:
            self.note(call, error_of(fault, call), None, None, 0)
            raise
        if call.passed is not None:
            return reply.through(_Counting(self, call, reply.status))
        reply.hearing(call, _Watch(self, call, reply.status))
        return reply

    async def _remember(self, call: Call, call_next: Next, bodies: Bodies) -> Reply:
        """Pass the call on, watch its answer, and have both written down."""
        transcript, take = bodies.begin(call)
        try:
            reply = await call_next(call)
        except BaseException as fault:
            error = error_of(fault, call)
            self.note(call, error, None, None, 0)
            bodies.write(call, transcript, error)
            raise
        reply.through(take).hearing(call, _Remembering(self, call, reply.status, bodies, transcript))
        return reply

    def note(
        self,
        call: Call,
        error: GatewayError | None,
        usage: Usage | None,
        first_token_s: float | None,
        status: int,
        sent_bytes: int | None = None,
    ) -> None:
        """Add the line of ``call``, which is over: with ``error``, or with ``status``."""
        decision, ledger, peek, wire = call.decision, call.ledger, call.peek, call.wire
        spent = usage or _NO_USAGE
        who = decision.caller or call.principal  # of an auth that stands further in, too
        method, outcome, received, message = "POST", "ok", None, None
        if call.passed is not None:
            method, received, sent_bytes = call.passed.method, call.passed.received, sent_bytes or 0
        if error is not None:
            status, outcome, message = status_of(call, error), error.kind, mask_secrets(error.message)[:500]
        line = Line(
            call.began_unix,
            call.request_id,
            method,
            call.facts.path,
            call.codec.format,
            peek.model,
            decision.route,
            decision.upstream,
            who.key,
            peek.stream,
            status,
            outcome,
            milliseconds(monotonic() - call.began),
            None if first_token_s is None else milliseconds(first_token_s),
            spent.input_tokens,
            spent.output_tokens,
            spent.cache_read_input_tokens,
            spent.cache_creation_input_tokens,
            spent.reasoning_output_tokens,
            spent.estimated,
            None if call.model == peek.model else call.model,
            decision.chain,
            who.tenant,
            call.remote,
            decision.attempts,
            0 if wire is None else wire.by_size,
            None if wire is None else wire.exact_tokens,
            who.team,
            who.tags,
            ledger.request,
            ledger.answer,
            call.counts,
            received,
            sent_bytes,
            message,
            decision.rounds,
            decision.cache,
            decision.notes,
            decision.cost_usd,
            decision.cost_estimated,
            "" if call.trace is None else call.trace.trace_id,
        )
        # At once, not when they are written: what a line is made of is in the processor's caches still.
        size = len(self._lines)
        try:
            _ENCODER.encode_into(line, self._lines, -1)
        except UnicodeEncodeError:  # a provider's header that is no UTF-8
            del self._lines[size:]
            self._lines += json.dumps(msgspec.to_builtins(line)).encode()
        self._lines += b"\n"
        self._count += 1
        if self._count >= MAX_LINES:
            self._flush()
        elif self._timer is None:
            self._timer = call.scope.loop.call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, bytearray()
        count, self._count = self._count, 0
        if not count:
            return
        if self._file is None:
            for line in lines.decode().split("\n")[:-1]:
                self._logger.info("%s", line)
            return
        try:
            self._file.write(lines)
            self._file.flush()
        except OSError as fault:  # a full disk must not fail the calls that are told of
            _log.error("%d access log lines are lost: cannot write to %s: %s", count, self.options.to, fault)


def _bodies(options: LogOptions) -> Bodies:
    # Here, since most write none down, and it is much to import.
    from ..gateway.transcripts.bodies import Bodies

    return Bodies(
        options.bodies == "full",
        Path(options.bodies_in or _BODIES_IN),
        options.max_size or _MAX_SIZE,
        options.keep or _KEEP_S,
        options.max_body or _MAX_BODY,
    )


class _Watch(Struct):
    """Writes the line when the answer is over. A Listener."""

    log: Log
    call: Call
    status: int

    def over(self, heard: Hearing, error: GatewayError | None, /) -> None:
        """The answer is over."""
        call = self.call
        if error is not None and (tries := call.decision.attempts) and tries[-1].ended_s is None:
            # The caller left while a further round was asked for: how that ends is known in the loop's next turn.
            note, first_s = self.log.note, heard.first_s
            call.scope.loop.call_soon(note, call, error, heard.usage, first_s, self.status)
        else:
            self.log.note(call, error, heard.usage, heard.first_s, self.status)


class _Remembering(_Watch):
    """Has the bodies written besides."""

    bodies: Bodies
    transcript: Transcript

    def over(self, heard: Hearing, error: GatewayError | None, /) -> None:
        """The answer is over."""
        super().over(heard, error)
        self.bodies.write(self.call, self.transcript, error)


class _Counting:
    """Counts the bytes of what is passed on, and notes the first. A Stage."""

    __slots__ = ("_log", "_call", "_status", "_first_s", "_bytes")

    def __init__(self, log: Log, call: Call, status: int) -> None:
        self._log = log
        self._call = call
        self._status = status
        self._first_s: float | None = None
        self._bytes = 0

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Count."""
        if self._first_s is None:
            self._first_s = monotonic() - self._call.began
        self._bytes += len(chunk.raw or b"")
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self._log.note(self._call, error, None, self._first_s, self._status, self._bytes)


__all__ = ["Line", "Log", "LogOptions", "mask_secrets"]
