"""A provider inside the process: for demos without a key, and for tests of rules and of applications.

Deterministic: the same request gets the same answer. It answers with the last user message; what else it does is asked
for by directives, lines that begin with ``/sim`` in that message, or in ``script`` of the upstream:

    /sim text WORDS              say WORDS instead
    /sim think WORDS             think WORDS first (with a signature)
    /sim tool NAME {JSON}        call a tool, once for each such line
    /sim delay 200ms             wait before each chunk
    /sim start 2s                wait before the first chunk
    /sim truncate N              stop after N words because of the length
    /sim cut N                   break the connection after N chunks
    /sim error STATUS [WORDS]    refuse with an HTTP status
    /sim fail N KIND             fail in the middle of the stream, after N chunks, with an error of KIND

Embeddings and reranking it serves, too: vectors made of a hash, ranks by the words that are shared; of the directives, in the
text or in ``script``, ``start`` and ``error`` hold there.
"""

from __future__ import annotations

import asyncio
import hashlib
import shlex
from collections.abc import AsyncIterator, Iterator
from functools import partial
from time import monotonic
from typing import Annotated, Any, ClassVar, Final, get_args

import msgspec
from msgspec import Meta, Struct

from ..gateway.call import Attempt, Call
from ..gateway.chain import AdapterContext
from ..gateway.codecs.anthropic_messages.threads import refuse_thread
from ..gateway.codecs.base import UpstreamFacts
from ..gateway.codecs.operations import simulated
from ..gateway.codecs.operations.base import Finished, Service
from ..gateway.errors import CallerError, Cut, ErrorKind, GatewayError, upstream_error
from ..gateway.ir.event import (
    ChoiceStop,
    Chunk,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    StopReason,
    Terminator,
    Usage,
    UsageReport,
)
from ..gateway.ir.message import Message, Reasoning, Request, Text, ToolCall, ToolResult
from ..gateway.relay.reply import Reply
from ..gateway.relay.source import Listed
from ..gateway.units import Duration, seconds

_DIRECTIVE: Final = "/sim "
_SERVICES: Final = {service.operation: service for service in simulated.SERVICES}
_LONG_BYTES: Final = 64 * 1024
"""A body above this is answered in a thread: vectors by the thousand take a while."""
_KINDS: Final = frozenset(get_args(ErrorKind))
_ERROR_KINDS: Final[dict[int, ErrorKind]] = {
    400: "invalid_request",
    401: "auth",
    403: "permission",
    404: "not_found",
    413: "too_large",
    429: "rate_limit",
    500: "upstream_error",
    502: "upstream_error",
    503: "unavailable",
    529: "overloaded",
}


class SimulatorOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``script``: directives, without ``/sim``, that stand before those of the message. ``delay``: before each chunk.
    ``words``: how many words a chunk carries."""

    script: tuple[str, ...] = ()
    delay: Duration = Duration(0)
    words: Annotated[int, Meta(ge=1)] = 1


def _operated(service: Service, body: bytes, model: str) -> Finished:
    errand = service.errand(body, model)
    return errand.finish([simulated.answer(service.operation, request.body) for request in errand.requests])


class _Play:
    """What one answer will be."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.delay_s: float = options.delay
        self.start_s = 0.0
        self.text: str | None = None
        self.thoughts: list[str] = []
        self.tools: list[tuple[str, str]] = []
        self.truncate_at: int | None = None
        self.cut_at: int | None = None
        self.refusal: GatewayError | None = None
        self.fail_at: int | None = None
        self.failure: GatewayError | None = None

    def direct(self, line: str) -> None:
        """Take one directive. Raises CallerError for one that nobody can follow."""
        verb, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        try:
            if verb == "text":
                self.text = rest
            elif verb == "think":
                self.thoughts.append(rest)
            elif verb == "tool":
                name, _, arguments = rest.partition(" ")
                if not name:
                    raise ValueError("no name of a tool")
                self.tools.append((name, arguments.strip() or "{}"))
            elif verb == "delay":
                self.delay_s = Duration.parse(rest)
            elif verb == "start":
                self.start_s = Duration.parse(rest)
            elif verb == "truncate":
                self.truncate_at = _count(rest)
            elif verb == "cut":
                self.cut_at = _count(rest)
            elif verb == "error":
                number, _, words = rest.partition(" ")
                status = _count(number)
                if not 400 <= status <= 599:
                    raise ValueError("an error has a status from 400 to 599")
                kind = _ERROR_KINDS.get(status, "upstream_error")
                words = words or f"the simulator was asked for HTTP {status}"
                self.refusal = upstream_error(kind, words, status=status)
            elif verb == "fail":
                count, error_kind = shlex.split(rest)
                if error_kind not in _KINDS:
                    raise ValueError(f"unknown error kind {error_kind!r}")
                self.fail_at = _count(count)
                self.failure = upstream_error(error_kind, "the simulator was asked to fail here")  # type: ignore[arg-type]  # tested
            else:
                raise ValueError("unknown directive")
        except ValueError as fault:
            raise CallerError(f"the simulator cannot follow {_DIRECTIVE + line!r}: {fault}") from fault


def _count(text: str) -> int:
    """Read a number. Raises ValueError for one below zero, too."""
    if (count := int(text)) < 0:
        raise ValueError(f"{count} is below zero")
    return count


class SimulatorAdapter:
    """The end of a chain, without a network."""

    Options: ClassVar[type[Struct]] = SimulatorOptions

    def __init__(self, options: SimulatorOptions, context: AdapterContext) -> None:
        self.options = options
        self.context = context
        self.operations = frozenset(_SERVICES)

    def preview(self, call: Call, /) -> None:
        """Nothing is sent: it answers in process. Raises CallerError for what it could not answer."""
        _read(call.request, self.options)

    async def __call__(self, call: Call, /) -> Reply:
        """Answer ``call``. Raises what its directives ask for."""
        attempt = call.attempt(self.context.name)
        request = call.request
        play, asked = _read(request, self.options)
        await _start(play, call, attempt)
        chunks = [Chunk((event,)) for event in _answer(request, call.model, play, asked, self.options.words)]
        error: GatewayError | None = None
        if play.cut_at is not None:
            chunks, error = chunks[: play.cut_at], Cut("the simulator was asked to cut the stream here")
        elif play.fail_at is not None:
            chunks, error = chunks[: play.fail_at], play.failure
        if play.delay_s:
            return Reply.pump(_paced(chunks, error, play.delay_s), call.scope)
        return Reply(Listed(chunks, error), call.scope)

    async def operate(self, call: Call, /) -> Reply:
        """Answer with vectors, or ranks. Raises what the directives ask for, and CallerError."""
        attempt = call.attempt(self.context.name)
        await _start(_read(call.request, self.options)[0], call, attempt)
        body = call.codec.encode_request(call.request, UpstreamFacts()).body if call.body is None else call.body
        make = partial(_operated, _SERVICES[call.format], body, call.model)
        finished = await asyncio.to_thread(make) if len(body) > _LONG_BYTES else make()
        events = () if finished.usage is None else (UsageReport(finished.usage),)
        return Reply.whole(Chunk(events, finished.body, call.codec.whole), call.scope)


async def _start(play: _Play, call: Call, attempt: Attempt) -> None:
    """Wait as long as the play says, and refuse if it says so."""
    try:
        if play.start_s:
            with call.scope.limit(call.deadline, "timeout.total", "the simulator did not start in time"):
                await asyncio.sleep(play.start_s)
        if play.refusal is not None:
            attempt.error, attempt.status = play.refusal.kind, play.refusal.status
            raise play.refusal
    finally:
        attempt.ended_s = seconds(monotonic() - call.began)
    attempt.status = 200


async def _paced(chunks: list[Chunk], error: GatewayError | None, delay_s: float) -> AsyncIterator[Chunk]:
    for chunk in chunks:
        await asyncio.sleep(delay_s)
        yield chunk
    if error is not None:
        raise error


def _read(request: Request, options: SimulatorOptions) -> tuple[_Play, str]:
    """Return what to play, and what the last user message says apart from directives. Raises CallerError."""
    refuse_thread(request.format, request.extra)
    play = _Play(options)
    for line in options.script:
        play.direct(line)
    lines = _last_user_text(request.messages).splitlines()
    for line in lines:
        if line.strip().startswith(_DIRECTIVE):
            play.direct(line.strip().removeprefix(_DIRECTIVE))
    asked = "\n".join(line for line in lines if not line.strip().startswith(_DIRECTIVE)).strip()
    return play, asked


def _last_user_text(messages: tuple[Message, ...]) -> str:
    for message in reversed(messages):
        if message.role in ("user", "tool"):
            texts = [part.text for part in message.parts if isinstance(part, Text)]
            if texts:
                return "\n".join(texts)
            if any(isinstance(part, ToolResult) for part in message.parts):
                return ""
    return ""


def _tool_result(messages: tuple[Message, ...]) -> str | None:
    if not messages:
        return None
    results = [part for part in messages[-1].parts if isinstance(part, ToolResult)]
    if not results:
        return None
    return " ".join(part.text for result in results for part in result.content if isinstance(part, Text))


def _words_of(text: str, count: int) -> Iterator[str]:
    """Cut ``text`` into pieces of ``count`` words that join to it again."""
    words = text.split(" ")
    for start in range(0, len(words), count):
        piece = " ".join(words[start : start + count])
        yield piece if start + count >= len(words) else piece + " "


def _answer(request: Request, model: str, play: _Play, asked: str, words: int) -> Iterator[Event]:
    digest = hashlib.sha256(msgspec.json.encode(request.messages)).hexdigest()
    yield ResponseStart(id=f"sim-{digest[:24]}", model=model)
    index, spoken = 0, 0
    for thought in play.thoughts:
        yield PartStart(index, Reasoning(origin="simulator"))
        for piece in _words_of(thought, words):
            yield PartDelta(index, piece)
            spoken += 1
        yield PartPatch(index, signature=f"sim-{digest[24:40]}")
        yield PartStop(index)
        index += 1
    tools = play.tools or _forced_tool(request)
    reason: StopReason = "tool_calls" if tools else "stop"
    text = play.text if play.text is not None else (None if tools else _text(request, asked))
    if text is not None:
        yield PartStart(index, Text(""))
        pieces = list(_words_of(text, words))
        if play.truncate_at is not None and play.truncate_at < len(pieces):
            pieces, reason, tools = pieces[: play.truncate_at], "length", []
        for piece in pieces:
            yield PartDelta(index, piece)
            spoken += 1
        yield PartStop(index)
        index += 1
    for number, (name, arguments) in enumerate(tools):
        yield PartStart(index, ToolCall(f"call_{digest[:16]}{number}", name))
        half = len(arguments) // 2
        for piece in (arguments[:half], arguments[half:]):
            if piece:
                yield PartDelta(index, piece)
        yield PartStop(index)
        spoken += 1
        index += 1
    yield ChoiceStop(reason, reason)
    heard = sum(
        len(part.text.split()) for message in request.messages for part in message.parts if isinstance(part, Text)
    )
    yield UsageReport(Usage(input_tokens=heard, uncached_input_tokens=heard, output_tokens=spoken))
    yield ResponseStop()
    yield Terminator()


def _text(request: Request, asked: str) -> str:
    shape = request.response_format
    if shape is not None and shape.kind != "text":
        schema = msgspec.json.decode(shape.schema) if shape.schema else {"type": "object"}
        return msgspec.json.encode(_instance(schema)).decode()
    result = _tool_result(request.messages)
    if result is not None:
        return f"The tool said: {result}"
    return f"You said: {asked}" if asked else "Hello from the simulator."


def _forced_tool(request: Request) -> list[tuple[str, str]]:
    """Return the call that tool_choice demands, with the smallest arguments its schema allows."""
    choice = request.tool_choice
    if choice is None or not request.tools or choice.mode not in ("required", "tool"):
        return []
    for tool in request.tools:
        if not choice.names or tool.name in choice.names:
            schema = msgspec.json.decode(tool.schema) if tool.schema else {"type": "object"}
            return [(tool.name, msgspec.json.encode(_instance(schema)).decode())]
    return []


_SMALLEST: Final[dict[str, Any]] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "null": None}


def _instance(schema: Any, depth: int = 0) -> Any:
    """Return a small value that fits the common part of JSON Schema; None where the schema is none."""
    match schema:
        case dict() if depth > 20:
            return None
        case {"const": value} | {"enum": [value, *_]}:
            return value
        case {"anyOf": [choice, *_]} | {"oneOf": [choice, *_]} | {"allOf": [choice, *_]}:
            return _instance(choice, depth + 1)
        case {"type": [str(kind), *_]}:
            return _instance({**schema, "type": kind}, depth)
        case {"type": "array", **rest}:
            return [_instance(rest["items"], depth + 1)] if "items" in rest else []
        case {"type": str(kind)} if kind != "object":
            return _SMALLEST.get(kind)
        case {"properties": dict(members)}:
            return {name: _instance(member, depth + 1) for name, member in members.items()}
        case dict():
            return {}
    return None
