"""Large files through a gateway in a process of its own: its memory stays what it was, both ways."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from ..fakes.files_api import PIECE, FilesProvider
from ..fakes.provider import KEY

MB = 1 << 20
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc"),
]


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.parametrize("transport", ["lean", "aiohttp"])
async def test_memory_stays_flat(tmp_path: Path, transport: str) -> None:
    async with FilesProvider(pause_s=0.0005) as provider:
        rules = f"""
            version: 1
            upstreams:
              it:
                adapter: openai
                base_url: "{provider.base}/v1"
                key: env:THEIRS
                passthrough: true
                transport: {transport}
            routes: [{{name: files, match: {{path: "/v1/files*"}}, to: it}}]
        """
        path = tmp_path / "routes.yaml"
        path.write_text(textwrap.dedent(rules))
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headgate", "serve", str(path), "--listen", "127.0.0.1:0"),
            env={**os.environ, "THEIRS": KEY},
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            base = await listening(running)
            async with aiohttp.ClientSession() as http:
                await move(http, base, provider, 2 * MB)
                before = peak_bytes(running.pid)
                await move(http, base, provider, 192 * MB)
                grown = peak_bytes(running.pid) - before
        finally:
            running.terminate()
            await running.communicate()
    assert grown < 8 * MB, f"{grown / MB:.1f} MB more"


async def listening(running: asyncio.subprocess.Process) -> str:
    """Return where a gateway listens, once it does."""
    assert running.stderr is not None
    async with asyncio.timeout(20):
        while line := (await running.stderr.readline()).decode():
            if "http://127.0.0.1:" in line:
                return "http://127.0.0.1:" + line.partition("http://127.0.0.1:")[2].split()[0].rstrip("/,.;:")
    raise AssertionError("it does not listen")


async def move(http: aiohttp.ClientSession, base: str, provider: FilesProvider, size: int) -> None:
    """Send so many bytes to a provider that is slower, and have as many back as a client that is slower."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // len(PIECE)):
            yield PIECE

    async with http.post(f"{base}/v1/files", data=pieces(), headers={"content-length": str(size)}) as answer:
        assert answer.status == 200
    assert provider.last.size == size
    provider.download, read = size, 0
    async with http.get(f"{base}/v1/files/f/content") as answer:
        async for piece in answer.content.iter_any():
            read += len(piece)
            await asyncio.sleep(0.0005)
    assert read == size
