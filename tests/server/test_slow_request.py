"""A caller that does not come to its point: the request has a deadline too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .house import CHAT, MESSAGES, head_of, serving, wire

RULES = """
    server: {receive: 200ms}
    upstreams: {sim: {adapter: simulator}}
    routes: [{name: all, to: sim}]
"""


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_half_a_body(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, RULES) as house, wire(house) as client:
        client.send(head_of(house, 1000, path=path) + b'{"model": "m", ')
        status, headers = await client.head()
        answer = json.loads(await client.read(int(headers["content-length"])))
        assert status == 408
        assert "server.receive" in answer["error"]["message"]
        assert headers["x-request-id"]
        await house.idle()
