"""Clients that ask for a long stream and stop reading: what the server holds for them meanwhile is its memory's growth."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

from .cases import ENDLESS, HEADERS, PATHS
from .servers import Server

KERNEL_BYTES = 64 * 1024
"""What the kernel may take in for a client: the less, the sooner the server feels that nobody reads."""


def rss_mb(server: Server, model: str, seconds: float) -> tuple[float, float, float]:
    """Return the server's memory just before, and the most it was in each half of ``seconds`` with such clients, in MB.

    Raises SystemExit if one of the streams does not begin.
    """
    body = str(ENDLESS.order(model, "openai", server.port, seconds)["body"]).encode()
    head = {"Host": f"127.0.0.1:{server.port}", "Content-Length": str(len(body)), **HEADERS}
    lines = [f"POST {PATHS['openai']} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    request = "\r\n".join(lines).encode() + body
    before = server.rss_mb()
    peaks = [before, before]
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(ENDLESS.connections)]
        for client in clients:
            client.settimeout(10)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
            client.connect(("127.0.0.1", server.port))
            client.sendall(request)
        for client in clients:
            if not client.recv(4096).startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"{server.process.args!r} did not begin a stream")
        for half in (0, 1):
            until = time.monotonic() + seconds / 2
            while time.monotonic() < until:
                time.sleep(0.02)
                peaks[half] = max(peaks[half], server.rss_mb())
    return before, peaks[0], peaks[1]
