"""A provider's files, audio, images, batches and realtime socket, as far as a gateway that passes them on can tell.

It keeps no file: of a large body it counts and sums the bytes, a piece at a time, as slowly as ``pause_s`` says.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from .provider import KEY

PIECE = bytes(range(256)) * 256
AUDIO = b"RIFF" + bytes(range(256)) * 40


@dataclass
class Seen:
    """A request. ``pieces`` are the sizes of what came of its body at a time."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    size: int = 0
    digest: str = ""
    aborted: bool = False
    ended: bool = False


@dataclass
class FilesProvider:
    """OpenAI, Anthropic and Gemini at one address. ``failing`` are numbers of requests, from 1, and the status they get.

    ``early`` refuses uploads before they are read; ``cut_after`` breaks an answer off after so many bytes. ``results_at`` is
    where a batch that has ended says its results are.
    """

    base: str = ""
    seen: list[Seen] = field(default_factory=list)
    failing: dict[int, int] = field(default_factory=dict)
    early: int = 0
    pause_s: float = 0.0
    cut_after: int | None = None
    redirect: str = ""
    results_at: str = ""
    download: int = 3 * len(PIECE)
    socket_close: tuple[int, bytes] = (1000, b"bye")
    handshake: int = 0
    sent: int = 0
    sockets: list[Any] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    @property
    def last(self) -> Seen:
        """The latest request."""
        return self.seen[-1]

    async def __aenter__(self) -> FilesProvider:
        app = web.Application(client_max_size=1 << 40)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def connections(self) -> int:
        """How many are open."""
        assert self._runner is not None and self._runner.server is not None
        return len(self._runner.server.connections)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request.method, request.raw_path, {name.lower(): value for name, value in request.headers.items()})
        self.seen.append(seen)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._socket(request)
        if not self._is_welcome(seen):
            return _error(401, f"Incorrect API key provided: {seen.headers.get('authorization')}")
        if self.early:
            return _error(self.early, "too much")
        await self._read(request, seen)
        if status := self.failing.get(len(self.seen)):
            return _error(status, "not now")
        if self.redirect:
            return web.Response(status=302, headers={"location": self.redirect})
        return await self._answer(request, seen)

    @staticmethod
    def _is_welcome(seen: Seen) -> bool:
        shown = (seen.headers.get("authorization", "").removeprefix("Bearer "), seen.headers.get("x-api-key"))
        return KEY in (*shown, seen.headers.get("x-goog-api-key"))

    async def _read(self, request: web.Request, seen: Seen) -> None:
        digest = hashlib.sha256()
        try:
            while piece := await request.content.readany():
                digest.update(piece)
                seen.size += len(piece)
                if seen.size <= 1 << 20:
                    seen.body += piece
                await asyncio.sleep(self.pause_s)
        except (ConnectionError, web.RequestPayloadError, asyncio.CancelledError):
            seen.aborted = True
            raise
        seen.digest, seen.ended = digest.hexdigest(), True

    async def _answer(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        path = request.path
        if path.endswith("/content") or "alt=media" in request.query_string:
            return await self._download(request)
        headers = {"x-request-id": "req_theirs", "set-cookie": "id=1", "server": "theirs", "openai-version": "2020"}
        if path.endswith("/audio/speech"):
            return web.Response(body=AUDIO, headers={**headers, "content-type": "audio/wav"})
        if path.startswith("/upload/v1") and "upload_id" not in request.query:
            headers["x-goog-upload-url"] = f"{self.base}{path}?upload_id=42&upload_protocol=resumable"
            return web.json_response({}, headers=headers)
        if path.startswith("/upload/v1"):
            headers["x-goog-upload-status"] = "final"
            file = {"name": "files/f1", "sizeBytes": str(seen.size), "mimeType": "text/plain", "state": "ACTIVE"}
            return web.json_response({"file": file}, headers=headers)
        if request.method == "DELETE":
            return web.json_response(
                {"id": path.rpartition("/")[2], "deleted": True, "object": "file"}, headers=headers
            )
        if path.endswith("/results"):
            result = {"custom_id": "a", "result": {"type": "expired"}}
            return web.Response(body=json.dumps(result).encode(), headers={"content-type": "application/x-jsonl"})
        if path.endswith("/realtime/calls"):
            headers |= {"location": "/v1/realtime/calls/rtc_1", "content-type": "application/sdp"}
            return web.Response(status=201, body=b"v=0 answer", headers=headers)
        if "stream" in request.query:
            return web.Response(body=b"data: {}\n\n", headers={**headers, "content-type": "text/event-stream"})
        told = self._object(path)
        if self.results_at and "messages/batches" in path:
            told |= {"processing_status": "ended", "ended_at": "2026-11-21T01:00:00Z", "results_url": self.results_at}
        return web.json_response(told, headers=headers)

    @staticmethod
    def _object(path: str) -> dict[str, Any]:
        if "/audio/" in path:
            return {"text": "Hello there."}
        if "/images/" in path:
            return {"created": 1, "data": [{"b64_json": "aGVsbG8="}]}
        if path.endswith((":embedContent", ":batchEmbedContents")):
            return {"embeddings": [{"values": [0.5, 0.25]}]}
        if "messages/batches" in path:
            counts = {"processing": 1, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
            return {
                "id": "msgbatch_1",
                "type": "message_batch",
                "processing_status": "in_progress",
                "request_counts": counts,
                "created_at": "2026-11-21T00:00:00Z",
                "expires_at": "2026-11-22T00:00:00Z",
                "ended_at": None,
                "archived_at": None,
                "cancel_initiated_at": None,
                "results_url": None,
            }
        one = {"id": "file-1", "object": "file", "bytes": 3, "created_at": 1, "filename": "a.txt"}
        one |= {"purpose": "batch", "status": "processed"}
        if path.endswith("/files"):
            return {**one, "object": "list", "data": [one], "has_more": False}
        return one

    async def _download(self, request: web.Request) -> web.StreamResponse:
        wanted = request.headers.get("range", "")
        if wanted == "bytes=2-5":
            headers = {"content-range": f"bytes 2-5/{self.download}", "accept-ranges": "bytes"}
            return web.Response(status=206, body=PIECE[2:6], headers=headers)
        response = web.StreamResponse(headers={"content-type": "application/octet-stream"})
        response.headers["content-disposition"] = 'attachment; filename="a.bin"'
        response.content_length = self.download
        await response.prepare(request)
        self.sent = 0
        while self.sent < self.download:
            piece = PIECE[: self.download - self.sent]
            if self.cut_after is not None and self.sent >= self.cut_after:
                assert request.transport is not None
                request.transport.abort()
                break
            await response.write(piece)
            self.sent += len(piece)
        return response

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.handshake:
            return _error(self.handshake, f"no session for {request.headers.get('authorization')}")
        if not self._is_welcome(self.last):
            return _error(401, "who are you")
        socket = web.WebSocketResponse(protocols=("realtime",), max_msg_size=1 << 26)
        await socket.prepare(request)
        self.sockets.append(socket)
        if "/ws/google" in request.path:
            return await self._live(socket)
        await socket.send_str(
            json.dumps({"type": "session.created", "event_id": "e1", "session": {"type": "realtime"}})
        )
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data[::-1])
            elif message.data == "close":
                code, reason = self.socket_close
                await socket.close(code=code, message=reason)
            elif message.data == "break":
                assert request.transport is not None
                request.transport.abort()
            else:
                await socket.send_str(message.data)
        return socket

    async def _live(self, socket: web.WebSocketResponse) -> web.StreamResponse:
        """Gemini's, whose messages are binary."""
        async for message in socket:
            told = json.loads(message.data)
            self.last.body += message.data.encode()
            if "setup" in told:
                answer: dict[str, Any] = {"setupComplete": {}}
            else:
                turn = {"role": "model", "parts": [{"text": "Hello."}]}
                answer = {"serverContent": {"modelTurn": turn, "turnComplete": True}}
            await socket.send_bytes(json.dumps(answer).encode())
        return socket


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "odd"}
    return web.json_response({"error": error}, status=status, headers={"retry-after": "0"})
