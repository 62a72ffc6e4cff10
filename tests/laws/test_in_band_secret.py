"""Law 10 inside a stream: an error event that echoes the provider's key comes out without it."""

from __future__ import annotations

import pytest

from ..fakes.script import script
from .common import ANTHROPIC, PAIRS
from .sockets import ask, call
from .test_no_secret_leaves import CALLER, PROVIDER, canaries, leaked, rule_file, served  # noqa: F401


@pytest.mark.parametrize(("caller", "to"), PAIRS)
async def test_in_band(provider, rule_file, caller, to):  # noqa: F811
    error = b'{"type":"error","error":{"type":"authentication_error","message":"bad key %b"}}' % PROVIDER.encode()
    provider.answer(script(wire=(b"event: error\n" if to == ANTHROPIC else b"") + b"data: " + error + b"\n\n"))
    async with served(rule_file) as gateway:
        answer = await call(gateway, caller, ask(caller, to, stream=True), {"authorization": f"Bearer {CALLER}"})
    assert leaked(answer.body) == []
    assert leaked((rule_file.parent / "access.jsonl").read_text()) == []
