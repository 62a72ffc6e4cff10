"""A provider on loopback that speaks, and refuses, as the real APIs do: the other end of every test over sockets.

    async with FakeProvider() as provider:
        provider.answer(script("Hello", Use("look", '{"at": 1}')), script(status=529))
        ...  # requests to provider.base, POST /v1/chat/completions, /v1/messages, /api/chat and so on
        assert provider.last.json["model"] == "gpt-fake"

Answers are taken from the queue in order; an empty queue says ``Hello!``. A request that the API would refuse gets its
400 and takes no answer from the queue; ``refusals`` lists the reasons.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from . import anthropic_api, anthropic_checks, completions_api, gemini_api, ollama_api, openai_api, responses_api
from .script import Script, script

Dialect = Literal["openai", "anthropic", "responses", "completions", "gemini", "ollama", "generate"]
KEY = "sk-the-providers-own-key"
_HELLO = script("Hello!")


@dataclass
class Received:
    """A request, and what became of its answer. ``outcome`` is ``aborted`` when the other side left first."""

    api: Dialect
    headers: CIMultiDict[str]
    query: dict[str, str]
    raw: bytes
    json: Any
    number: int
    request_id: str
    refusal: str | None = None
    sent: list[bytes] = field(default_factory=list)
    outcome: Literal["running", "done", "refused", "aborted", "broken off"] = "running"
    began: float = field(default_factory=time.monotonic)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once everything was written that is written before a stall, a pause or the end."""

    @property
    def presented(self) -> str:
        """The key that it came with."""
        return self.headers.get("x-api-key") or self.headers.get("Authorization", "").removeprefix("Bearer ")

    @property
    def body(self) -> bytes:
        """The bytes of the response body as far as they were sent."""
        return b"".join(self.sent)


class FakeProvider:
    """Listens on an ephemeral port. ``extra`` are unknown top-level members that it lets pass, ``reasoning_field`` whether
    OpenAI messages may carry ``reasoning_content``, ``models`` the models it knows (None: all). With ``echo`` an empty
    queue answers with the last message. ``expected_refusals`` is
    what a fixture compares ``refusals`` with at the end."""

    def __init__(self) -> None:
        self.key = KEY
        self.accounts: dict[str, Script | None] = {}
        """Other keys that are taken, by chat and messages, each with what it always answers; None: as with any."""
        self.extra: frozenset[str] = frozenset()
        self.reasoning_field = False
        self.echo = False
        self.models: frozenset[str] | None = None
        self.requests: list[Received] = []
        self.expected_refusals: list[str] = []
        self.issued = anthropic_checks.Issued()
        self.base = ""
        self._queue: deque[Script] = deque()
        self._runner: web.AppRunner | None = None

    # -- for tests

    def answer(self, *scripts: Script) -> None:
        """Queue answers."""
        self._queue.extend(scripts)

    @property
    def last(self) -> Received:
        """The latest request."""
        return self.requests[-1]

    @property
    def refusals(self) -> list[str]:
        """Why requests were refused."""
        return [received.refusal for received in self.requests if received.refusal is not None]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self.open_connections)

    @property
    def open_connections(self) -> list[object]:
        """The open connections, each an object of its own."""
        assert self._runner is not None and self._runner.server is not None
        return list(self._runner.server.connections)

    @property
    def unanswered(self) -> int:
        """Answers still in the queue."""
        return len(self._queue)

    async def received(self, count: int, within_s: float = 5.0) -> Received:
        """Return request number ``count`` (from 1) once it is there."""
        async with asyncio.timeout(within_s):
            while len(self.requests) < count:
                await asyncio.sleep(0.005)
        return self.requests[count - 1]

    def hang_up(self) -> None:
        """Close every connection, as a server does with those that were idle for too long."""
        assert self._runner is not None and self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.close()

    # -- life

    async def __aenter__(self) -> FakeProvider:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/v1/responses", self._responses)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1beta/models/{model}:{method}", self._gemini)
        app.router.add_post("/api/{api:chat|generate}", self._ollama)
        # The handler is cancelled when the other side leaves: that is how an abort shows.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.base = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # -- the APIs

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        received = await self._receive(request, "openai")
        headers = {
            "x-request-id": received.request_id,
            "openai-processing-ms": "12",
            "x-ratelimit-remaining-requests": "99",
        }
        try:
            presented = request.headers.get("Authorization", "")
            if not presented:
                raise openai_api.Refusal("You didn't provide an API key.", status=401)
            if presented != f"Bearer {self.key}" and received.presented not in self.accounts:
                raise openai_api.Refusal("Incorrect API key provided.", None, "invalid_api_key", 401)
            openai_api.validate(received.json, extra=self.extra, reasoning_field=self.reasoning_field)
            if self.models is not None and received.json["model"] not in self.models:
                message = f"The model `{received.json['model']}` does not exist or you do not have access to it."
                raise openai_api.Refusal(message, None, "model_not_found", 404)
        except openai_api.Refusal as refusal:
            body = openai_api.error_body(refusal.message, refusal.kind, refusal.param, refusal.code)
            return self._refuse(received, refusal.message, refusal.status, body, headers)
        play = self._next(received)
        model = play.model or received.json["model"]
        if play.status != 200:
            return await self._play(request, received, play, headers, [openai_api.scripted_error(play)], b"")
        if received.json.get("stream"):
            asked = bool((received.json.get("stream_options") or {}).get("include_usage"))
            frames = openai_api.frames(play, received.number, model, include_usage=asked)
            return await self._play(request, received, play, headers, frames, openai_api.error_frame(play))
        body = openai_api.whole(play, received.number, model)
        return await self._play(request, received, play, headers, [body], b"")

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        received = await self._receive(request, "anthropic")
        headers = {
            "request-id": received.request_id,
            "anthropic-organization-id": "org-fake",
            "anthropic-ratelimit-requests-remaining": "99",
        }
        try:
            # With both headers there, the API uses x-api-key.
            bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
            presented = request.headers.get("x-api-key", bearer)
            if not presented:
                raise anthropic_checks.Refusal("x-api-key header is required", 401, "authentication_error")
            if presented != self.key and received.presented not in self.accounts:
                raise anthropic_checks.Refusal("invalid x-api-key", 401, "authentication_error")
            lower = {name.lower(): value for name, value in request.headers.items()}
            anthropic_checks.validate(received.json, lower, self.issued, extra=self.extra)
            if self.models is not None and received.json["model"] not in self.models:
                raise anthropic_checks.Refusal(f"model: {received.json['model']}", 404, "not_found_error")
        except anthropic_checks.Refusal as refusal:
            body = anthropic_api.error_body(refusal.message, refusal.kind, received.request_id)
            return self._refuse(received, refusal.message, refusal.status, body, headers)
        play = self._next(received)
        model = play.model or received.json["model"]
        if play.status != 200:
            error = anthropic_api.scripted_error(play, received.request_id)
            return await self._play(request, received, play, headers, [error], b"")
        if received.json.get("stream"):
            frames = anthropic_api.frames(play, received.number, model, self.issued)
            failure = anthropic_api.error_frame(play, received.request_id)
            return await self._play(request, received, play, headers, frames, failure)
        body = anthropic_api.whole(play, received.number, model, self.issued)
        return await self._play(request, received, play, headers, [body], b"")

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        received = await self._receive(request, "responses")
        headers = {"x-request-id": received.request_id, "openai-processing-ms": "12"}
        try:
            self._check_bearer(request)
            responses_api.validate(received.json)
        except openai_api.Refusal as refusal:
            body = openai_api.error_body(refusal.message, refusal.kind, refusal.param, refusal.code)
            return self._refuse(received, refusal.message, refusal.status, body, headers)
        play = self._next(received)
        model = play.model or received.json["model"]
        if play.status != 200:
            return await self._play(request, received, play, headers, [openai_api.scripted_error(play)], b"")
        if received.json.get("stream"):
            frames = responses_api.frames(play, received.number, model)
            return await self._play(request, received, play, headers, frames, responses_api.error_frame(play))
        body = responses_api.whole(play, received.number, model)
        return await self._play(request, received, play, headers, [body], b"")

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        received = await self._receive(request, "completions")
        headers = {"x-request-id": received.request_id}
        try:
            self._check_bearer(request)
            completions_api.validate(received.json)
        except openai_api.Refusal as refusal:
            body = openai_api.error_body(refusal.message, refusal.kind, refusal.param, refusal.code)
            return self._refuse(received, refusal.message, refusal.status, body, headers)
        play = self._next(received)
        model = play.model or received.json["model"]
        if play.status != 200:
            return await self._play(request, received, play, headers, [openai_api.scripted_error(play)], b"")
        if received.json.get("stream"):
            asked = bool((received.json.get("stream_options") or {}).get("include_usage"))
            frames = completions_api.frames(play, received.number, model, include_usage=asked)
            return await self._play(request, received, play, headers, frames, openai_api.error_frame(play))
        body = completions_api.whole(play, received.number, model)
        return await self._play(request, received, play, headers, [body], b"")

    async def _gemini(self, request: web.Request) -> web.StreamResponse:
        received = await self._receive(request, "gemini")
        headers = {"server-timing": "gfet4t7; dur=120"}
        streamed = request.match_info["method"] == "streamGenerateContent"
        try:
            if request.headers.get("x-goog-api-key") != self.key or "key" in request.query:
                raise gemini_api.Refusal("API key not valid. Please pass a valid API key.")
            if streamed != (request.query.get("alt") == "sse"):
                raise gemini_api.Refusal("this provider streams server-sent events alone")
            gemini_api.validate(received.json)
        except gemini_api.Refusal as refusal:
            body = gemini_api.error_body(refusal.message, refusal.status)
            return self._refuse(received, refusal.message, refusal.status, body, headers)
        play = self._next(received)
        model = play.model or request.match_info["model"]
        if play.status != 200:
            return await self._play(request, received, play, headers, [gemini_api.scripted_error(play)], b"")
        if streamed:
            frames = gemini_api.frames(play, received.number, model)
            failure = gemini_api.error_frame(play)
            return await self._play(request, received, play, headers, frames, failure, streams="text/event-stream")
        body = gemini_api.whole(play, received.number, model)
        return await self._play(request, received, play, headers, [body], b"")

    async def _ollama(self, request: web.Request) -> web.StreamResponse:
        api: Dialect = "ollama" if request.match_info["api"] == "chat" else "generate"
        received = await self._receive(request, api)
        try:
            if request.headers.get("Authorization") != f"Bearer {self.key}":
                raise ollama_api.Refusal("unauthorized", 401)
            ollama_api.validate(received.json, api)
        except ollama_api.Refusal as refusal:
            return self._refuse(received, refusal.message, refusal.status, ollama_api.error_body(refusal.message), {})
        play = self._next(received)
        model = play.model or received.json["model"]
        if play.status != 200:
            return await self._play(request, received, play, {}, [ollama_api.scripted_error(play)], b"")
        if received.json.get("stream", True):
            frames = ollama_api.frames(play, api, model)
            failure = ollama_api.error_frame(play)
            return await self._play(request, received, play, {}, frames, failure, streams="application/x-ndjson")
        return await self._play(request, received, play, {}, [ollama_api.whole(play, api, model)], b"")

    def _check_bearer(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            raise openai_api.Refusal("Incorrect API key provided.", None, "invalid_api_key", 401)

    async def _receive(self, request: web.Request, api: Dialect) -> Received:
        raw = await request.read()
        try:
            parsed = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            parsed = None
        number = len(self.requests) + 1
        request_id = f"req_{api}_{number:04d}"
        headers = CIMultiDict(request.headers)
        received = Received(api, headers, dict(request.query), raw, parsed, number, request_id)
        self.requests.append(received)
        return received

    def _next(self, received: Received) -> Script:
        if (standing := self.accounts.get(received.presented)) is not None:
            return standing
        if self._queue:
            return self._queue.popleft()
        if self.echo:
            content = received.json["messages"][-1]["content"]
            return script(content if isinstance(content, str) else content[0]["text"])
        return _HELLO

    @staticmethod
    def _refuse(received: Received, why: str, status: int, body: bytes, headers: dict[str, str]) -> web.StreamResponse:
        received.refusal = why
        received.outcome = "refused"
        received.sent.append(body)
        received.over.set()
        return web.Response(body=body, status=status, headers={**headers, "Content-Type": "application/json"})

    # -- the answer on the wire

    async def _play(
        self,
        request: web.Request,
        received: Received,
        play: Script,
        headers: dict[str, str],
        frames: list[bytes],
        error_frame: bytes,
        streams: str | None = None,
    ) -> web.StreamResponse:
        try:
            return await self._perform(request, received, play, headers, frames, error_frame, streams)
        except (asyncio.CancelledError, ConnectionResetError):
            if received.outcome == "running":
                received.outcome = "aborted"
            raise
        finally:
            received.answering.set()
            received.over.set()

    async def _perform(
        self,
        request: web.Request,
        received: Received,
        play: Script,
        headers: dict[str, str],
        frames: list[bytes],
        error_frame: bytes,
        streams: str | None = None,
    ) -> web.StreamResponse:
        if play.stall_before:
            received.answering.set()
            await asyncio.Event().wait()
        if play.wait_s:
            await asyncio.sleep(play.wait_s)
        streamed = play.status == 200 and (streams is not None or bool(received.json.get("stream")))
        if play.wire is not None:
            frames = [play.wire]
        elif not streamed and (play.cut_after is not None or play.stall_after is not None):
            half = len(frames[0]) // 2
            frames = [frames[0][:half], frames[0][half:]]
        response = web.StreamResponse(status=play.status, headers={**headers, **play.headers})
        default = (streams or "text/event-stream; charset=utf-8") if streamed else "application/json"
        response.headers["Content-Type"] = default if play.content_type is None else play.content_type
        if not streamed:
            response.content_length = sum(map(len, frames))
        await response.prepare(request)
        limit = play.cut_after if streamed or play.cut_after is None else 1
        stall = play.stall_after if streamed or play.stall_after is None else 1
        for index, data in enumerate(_writes(frames, play.piece)):
            if index == limit:
                return await self._cut(request, response, received, play, data)
            if index == stall:
                received.answering.set()
                await asyncio.Event().wait()
            if index == play.error_after:
                received.sent.append(error_frame)
                await response.write(error_frame)
                break
            received.sent.append(data)
            await response.write(data)
            if play.heed is not None:
                await play.heed(data)
            await asyncio.sleep(play.pause_s)
        if limit is not None and limit == len(received.sent):
            return await self._cut(request, response, received, play, b"")
        if play.stall_after_last:
            received.answering.set()
            await asyncio.Event().wait()
        await response.write_eof()
        received.outcome = "done"
        return response

    @staticmethod
    async def _cut(
        request: web.Request, response: web.StreamResponse, received: Received, play: Script, following: bytes
    ) -> web.StreamResponse:
        received.outcome = "broken off"
        if play.half:
            received.sent.append(following[: len(following) // 2])
            await response.write(following[: len(following) // 2])
        if play.cut == "eof":
            await response.write_eof()
            return response
        transport = request.transport
        if transport is not None:
            with contextlib.suppress(OSError):
                await asyncio.sleep(0.01)
                transport.abort() if play.cut == "reset" else transport.close()
        return response


def _writes(frames: list[bytes], piece: int | None) -> list[bytes]:
    """Cut frames into the writes of a socket: one each, all at once (0), or ``piece`` bytes each."""
    if piece is None:
        return frames
    whole = b"".join(frames)
    if piece == 0:
        return [whole]
    return [whole[start : start + piece] for start in range(0, len(whole), piece)]
