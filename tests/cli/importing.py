"""What the tests of ``headgate import`` share: their sources, the command, and a gateway that serves what came out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web
from headgate.gateway.cli.main import main
from headgate.gateway.server.gateway import Gateway
from headgate.gateway.server.handlers import make_app

CORPUS = Path(__file__).parent.parent / "corpus/imports"
MESSAGES = [{"role": "user", "content": "Hello"}]


def imported(gateway: str, source: Path, directory: Path, capsys) -> tuple[Path, list[dict[str, Any]]]:
    """Import ``source`` into a file of ``directory``; return that and the report."""
    target = directory / "routes.yaml"
    assert main(["import", gateway, str(source), "-o", str(target), "--json"]) == 0
    return target, json.loads(capsys.readouterr().out)["entries"]


@asynccontextmanager
async def serving_file(path: Path) -> AsyncIterator[str]:
    """Serve a rule file on an ephemeral port; yield its address."""
    runner = web.AppRunner(
        make_app(Gateway.load(path)), handler_cancellation=True, access_log=None, shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def ask(
    session: ClientSession, base: str, path: str, body: dict[str, Any], key: str | None
) -> tuple[int, Any, Any]:
    """Return status, headers and body of a call."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with session.post(f"{base}{path}", json=body, headers=headers) as response:
        return response.status, response.headers, await response.json()
