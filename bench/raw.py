"""The yardstick: a bare aiohttp server and client that forward bytes, and do nothing else a gateway does.

python bench/raw.py PORT PROVIDER-URL [CA-FILE]
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

PATHS = ("/v1/chat/completions", "/v1/messages")
SESSION = web.AppKey("session", aiohttp.ClientSession)
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer provider-key"}


def make_app(provider: str, ca_file: str | None) -> web.Application:
    """Return an application that posts what it gets to ``provider`` and streams back what comes. An https provider is
    believed if its certificate is of an authority in ``ca_file``."""

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        async with request.app[SESSION].post(provider + request.path, data=body, headers=HEADERS) as answer:
            content_type = answer.headers.get("Content-Type", "application/json")
            if not content_type.startswith("text/event-stream"):
                whole = await answer.read()
                return web.Response(body=whole, status=answer.status, headers={"Content-Type": content_type})
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": content_type})
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response

    async def open_session(app: web.Application) -> AsyncIterator[None]:
        app[SESSION] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=60,
                ssl=ssl.create_default_context(cafile=ca_file) if ca_file else True,
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
        )
        yield
        await app[SESSION].close()

    app = web.Application(client_max_size=1 << 30)
    app.cleanup_ctx.append(open_session)
    for path in PATHS:
        app.router.add_post(path, forward)
    return app


async def main(port: int, provider: str, ca_file: str | None = None) -> None:
    """Serve until killed."""
    runner = web.AppRunner(make_app(provider, ca_file), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
