"""``defaults: {tokens: exact}``: the same count in live calls, in-file tests, explain and replay, and only when a rule asks."""

import asyncio
import json
import textwrap
import threading

import pytest
from headgate.gateway import counted, registry, rules
from headgate.gateway.cli.main import main
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.errors import DecodeError
from headgate.gateway.rules.decide import decide
from headgate.gateway.rules.given import pose_bytes
from headgate.gateway.server.gateway import Gateway
from headgate.gateway.tokens import tally

RULES = """
    version: 1
    defaults: {{tokens: {tokens}}}
    upstreams: {{sim: {{adapter: simulator}}}}
    targets:
      big: {{select: [{{match: {{request.tokens: {{gt: 1500}}}}, use: sim/huge}}, {{use: sim/large}}]}}
    routes:
      - {{name: named, match: {{model: plain}}, to: sim}}
      - {{name: long, match: {{request.tokens: {{gt: 1000}}}}, chain: [{{log: {{to: {log}}}}}], to: big}}
      - {{name: when, when: request.tokens > 500, to: sim}}
      - {{name: rest, chain: [{{log: {{to: {log}}}}}], to: sim}}
"""
DENSE = "a b c d e f g h " * 300
"""4800 bytes, 2400 tokens: twice what its size says."""
THIN = "internationalization " * 200
"""4200 bytes, some 400 tokens."""


def chat(words: str, model: str = "gpt-4o") -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": words}]}).encode()


def written(tmp_path, tokens="exact", name="routes.yaml", more=""):
    path = tmp_path / name
    path.write_text(textwrap.dedent(RULES).format(tokens=tokens, log=tmp_path / "log") + textwrap.dedent(more))
    return path


def decided(plan, body: bytes):
    codec = registry.codec("openai.chat")
    posed = pose_bytes(codec, body, RequestFacts("/v1/chat/completions"), plan=plan)
    verdict = decide(plan, posed.wire)
    return verdict.route.name, verdict.model("gpt-4o")


@pytest.mark.parametrize(
    ("tokens", "words", "route", "model"),
    [
        ("exact", DENSE, "long", "huge"),
        ("estimate", DENSE, "long", "large"),
        ("exact", THIN, "rest", "gpt-4o"),
        ("estimate", THIN, "long", "large"),
        ("exact", DENSE[:1200], "when", "gpt-4o"),
        ("estimate", DENSE[:1200], "rest", "gpt-4o"),
    ],
)
def test_routes_cases_and_expressions_see_the_count(tokens, words, route, model, tmp_path):
    assert decided(rules.load(written(tmp_path, tokens)), chat(words)) == (route, model)


async def served(path, body: bytes):
    """Return what a live call was decided to be: route, and the model that was asked for."""
    async with Gateway.load(path) as gateway:
        reply = await gateway.handle("openai.chat", body, path="/v1/chat/completions")
        chunks = await reply.collect()
    said = json.loads((path.parent / "log").read_bytes().splitlines()[-1])
    assert chunks
    return said


@pytest.mark.parametrize("words", [DENSE, THIN, "short"])
async def test_live_calls_explain_and_replay_agree(words, tmp_path, capsys):
    path, body = written(tmp_path), chat(words)
    line = await served(path, body)
    plan = rules.load(path)
    route, model = decided(plan, body)
    assert (line["route"], line["attempts"][-1]["model"]) == (route, model)
    codec = registry.codec("openai.chat")
    assert line["exact_tokens"] == tally(codec.decode_request(body, RequestFacts()), "gpt-4o").tokens
    assert line["tokens"] == len(body) // 4

    request = tmp_path / "request.json"
    request.write_bytes(body)
    main(["explain", str(path), str(request), "--path", "/v1/chat/completions", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["route"]["name"] == route
    assert (told["request"]["tokens"], told["request"]["vocabulary"]) == (line["exact_tokens"], "o200k_base")

    assert main(["replay", str(tmp_path / "log"), "--against", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] == 1
    main(["replay", str(tmp_path / "log"), "--against", str(written(tmp_path, "estimate", "other.yaml")), "--json"])
    changed = json.loads(capsys.readouterr().out)["changed"]
    assert changed == (words != "short")


async def test_a_log_in_which_nothing_was_counted_cannot_tell(tmp_path, capsys):
    await served(written(tmp_path, "estimate"), chat(DENSE))
    assert main(["replay", str(tmp_path / "log"), "--against", str(written(tmp_path)), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["cannot_be_told"] == {"request.tokens, counted exactly": 1}


def test_recorded_requests_are_seen_by_each_file_as_it_counts(tmp_path, capsys):
    exact, estimate = written(tmp_path), written(tmp_path, "estimate", "other.yaml")
    recorded = tmp_path / "recorded"
    said = {"method": "POST", "path": "/v1/chat/completions", "body": json.loads(chat(THIN))}
    recorded.write_text(json.dumps(said) + "\n")
    main(["replay", str(recorded), str(exact), "--against", str(estimate), "--json"])
    (group,) = json.loads(capsys.readouterr().out)["changes"]
    assert {"what": "route", "before": "rest", "after": "long"} in group["changes"]


def test_in_file_tests_count_too(tmp_path):
    more = """
        tests:
          - name: dense
            given: {model: gpt-4o, body: {model: gpt-4o, messages: [{role: user, content: "%s"}]}}
            expect: {route: long, model: huge}
          - name: thin
            given: {model: gpt-4o, body: {model: gpt-4o, messages: [{role: user, content: "%s"}]}}
            expect: {route: rest}
          - {name: said, given: {model: gpt-4o, tokens: 1200}, expect: {route: long, model: large}}
    """
    path = written(tmp_path, more=more % (DENSE, THIN))
    assert [problem for problem in rules.check(path) if problem.severity == "error"] == []
    other = written(tmp_path, "estimate", "other.yaml", more % (DENSE, THIN))
    assert [problem.code for problem in rules.check(other) if problem.severity == "error"] == ["E060", "E060"]


async def test_only_a_rule_that_asks_has_anything_counted(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(counted, "tally", lambda request, model: asked.append(model) or tally(request, model))
    async with Gateway.load(written(tmp_path)) as gateway:
        await (await gateway.handle("openai.chat", chat(DENSE, "plain"))).collect()
        assert asked == []
        await (await gateway.handle("openai.chat", chat(DENSE))).collect()
        assert asked == ["gpt-4o"]  # once, though two rules ask


async def test_a_long_request_is_counted_off_the_loop(tmp_path, monkeypatch):
    threads = []
    monkeypatch.setattr(
        counted, "tally", lambda request, model: threads.append(threading.current_thread()) or tally(request, model)
    )
    async with Gateway.load(written(tmp_path)) as gateway:
        await (await gateway.handle("openai.chat", chat("short"))).collect()
        threads.clear()
        await (await gateway.handle("openai.chat", chat("short"))).collect()
        await (await gateway.handle("openai.chat", chat(DENSE))).collect()
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


async def test_a_target_counts_off_the_loop_as_well(tmp_path, monkeypatch):
    threads = []
    monkeypatch.setattr(
        counted, "tally", lambda request, model: threads.append(threading.current_thread()) or tally(request, model)
    )
    path = tmp_path / "routes.yaml"
    path.write_text(
        textwrap.dedent(
            """
            version: 1
            defaults: {tokens: exact}
            upstreams: {sim: {adapter: simulator, script: [error 503]}, sim2: {adapter: simulator}}
            targets:
              inner: {select: [{match: {request.tokens: {gt: 1500}}, use: sim2/huge}, {use: sim2/large}]}
              outer: {select: [{use: sim}], on_failure: [{kinds: [unavailable], use: inner}]}
            routes: [{name: all, to: outer}]
            """
        )
    )
    async with Gateway.load(path) as gateway:
        reply = await gateway.handle("openai.chat", chat(DENSE))
        chunks = await reply.collect()
    assert chunks and [thread is threading.main_thread() for thread in threads] == [False]


async def test_a_request_that_cannot_be_read_is_refused_by_whoever_decodes_it(tmp_path):
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "nobody", "content": DENSE}]}).encode()
    async with Gateway.load(written(tmp_path)) as gateway:
        with pytest.raises(DecodeError, match="nobody"):
            await gateway.handle("openai.chat", body)
        await asyncio.sleep(0)
