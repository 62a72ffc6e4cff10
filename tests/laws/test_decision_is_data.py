"""Laws 11 and 12: the decision record, the headers and the log line tell one story, and a principal has a tenant."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec
import pytest
from headgate import Gateway
from headgate.gateway.call import ANONYMOUS, Call
from headgate.gateway.chain import Next
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.event import Chunk
from headgate.gateway.relay.reply import Reply
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from .common import ANTHROPIC, FORMATS, OPENAI, law
from .sockets import PATHS, ask, call
from .test_no_secret_leaves import served


class Nothing(Struct, frozen=True):
    """No options."""


class Witness:
    """Remembers every call at its end."""

    Options: ClassVar[type[Struct]] = Nothing
    seen: ClassVar[list[Call]] = []

    def __init__(self, options: Nothing) -> None:
        pass

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        try:
            reply = await call_next(call)
        except GatewayError:
            self.seen.append(call)
            raise
        return reply.through(_Note(call))


class _Note:
    def __init__(self, call: Call) -> None:
        self.call = call

    def feed(self, chunk: Chunk, /) -> Chunk:
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        Witness.seen.append(self.call)


RULES: Final = f"""
version: 1
upstreams:
  demo: {{adapter: simulator}}
  flaky: {{adapter: simulator, script: ["error 503"], chain: [{{retry: {{tries: 2, backoff: 1ms}}}}]}}
chains:
  seen: [log, {{use: "{__name__}:Witness"}}]
routes:
  - {{name: flaky, match: {{model: flaky}}, chain: seen, to: flaky}}
  - {{name: renamed, match: {{model: "old-*"}}, chain: seen, to: demo/new}}
  - {{name: "any,all", chain: seen, to: demo}}
"""
MESSAGES: Final = (
    "hello",
    "/sim error 429",
    "/sim fail 2 overloaded",
    "/sim cut 1",
    "/sim tool look {}",
    "/sim truncate 1",
)
CALLS = st.tuples(
    st.sampled_from(FORMATS),
    st.booleans(),
    st.sampled_from(["flaky", "old-1", "m"]),
    st.sampled_from(MESSAGES),
    st.sampled_from([{}, {"x-request-id": "mine-1"}]),
)


@law
@given(st.lists(CALLS, min_size=1, max_size=6))
def test_record_headers_and_log_line_agree(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, bool, str, str, dict[str, str]]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "decision.yaml"
    path.write_text(RULES)
    Witness.seen.clear()
    lines: list[dict[str, Any]] = []
    handler = _Lines(lines)
    logger = logging.getLogger("headgate.access")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        answers = asyncio.run(_make(path, calls))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert len(answers) == len(Witness.seen) == len(lines)
    for (caller, stream, model, _, headers), answer, seen, line in zip(
        calls, answers, Witness.seen, lines, strict=True
    ):
        decision = seen.decision
        assert decision.request_id == answer.headers["x-request-id"] == line["request_id"]
        assert decision.request_id == headers.get("x-request-id", decision.request_id)
        assert decision.route == line["route"]
        assert answer.headers["headgate-route"] == decision.route.replace(",", "_")
        assert decision.upstream == answer.headers["headgate-upstream"] == line["upstream"]
        assert len(decision.attempts) == int(answer.headers["headgate-attempts"]) == len(line["attempts"])
        assert json.loads(msgspec.json.encode(decision.attempts)) == line["attempts"]
        assert list(decision.chain) == line["chain"]
        assert (line["format"], line["stream"], line["model"]) == (caller, stream, model)
        assert line.get("upstream_model", model) == decision.model == seen.model
        assert line["path"] == PATHS[caller]
        assert line["status"] == answer.status
        assert (line["outcome"] == "ok") is (b'"error"' not in answer.body)
        assert [loss["path"] for loss in line.get("loss", [])] == [loss.path for loss in seen.ledger.request]


class _Lines(logging.Handler):
    def __init__(self, lines: list[dict[str, Any]]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(record.getMessage()))


async def _make(path: Path, calls: list[tuple[str, bool, str, str, dict[str, str]]]) -> list[Any]:
    async with served(path) as gateway:
        answers = []
        for caller, stream, model, message, headers in calls:
            body = ask(caller, caller, stream=stream, model=model, messages=[{"role": "user", "content": message}])
            answers.append(await call(gateway, caller, body, headers))
        return answers


def test_a_decision_is_data(tmp_path: Path) -> None:
    """It can be written down, and has no member that only code understands."""
    path = tmp_path / "routes.yaml"
    path.write_text(RULES)

    async def decide() -> Call:
        Witness.seen.clear()
        async with Gateway.load(path) as gateway:
            await (await gateway.handle(OPENAI, ask(OPENAI, OPENAI, stream=True, model="old-1"))).collect()
        return Witness.seen[0]

    decision = asyncio.run(decide()).decision
    assert msgspec.json.decode(msgspec.json.encode(decision), type=type(decision)) == decision
    assert decision.chain == ("log", f"{__name__}:Witness")
    assert (decision.target, decision.model) == ("demo/new", "new")


# -- law 11


TENANTS: Final = f"""
version: 1
upstreams: {{demo: {{adapter: simulator}}}}
chains:
  base:
    - auth:
        keys:
          - {{name: alice, key: env:TEST_CALLER_KEY, tenant: acme, team: red}}
          - {{name: bob, key: env:TEST_PROVIDER_KEY}}
    - use: "{__name__}:Witness"
routes: [{{name: all, chain: base, to: demo}}]
"""


@pytest.mark.parametrize(("format", "stream"), list(itertools.product(FORMATS, [False, True])))
async def test_a_principal_has_a_tenant(tmp_path: Path, format: str, stream: bool) -> None:
    """The one that its key says, else one of its own: nobody shares a tenant by saying nothing."""
    path = tmp_path / "routes.yaml"
    path.write_text(TENANTS)
    Witness.seen.clear()
    async with served(path) as gateway:
        for key in ("sk-the-callers-key-at-the-gateway", "sk-the-providers-own-key"):
            answer = await call(gateway, format, ask(format, format, stream=stream), {"authorization": f"Bearer {key}"})
            assert answer.status == 200
    alice, bob = [call.principal for call in Witness.seen]
    assert (alice.key, alice.tenant, alice.team) == ("alice", "acme", "red")
    assert (bob.key, bob.tenant) == ("bob", "bob")
    assert ANONYMOUS.tenant == ""


def test_both_formats_are_served() -> None:
    assert set(FORMATS) == {OPENAI, ANTHROPIC} == set(PATHS)
