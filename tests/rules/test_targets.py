"""Targets over live calls: which upstream serves, what happens when it fails, and what the decision record says."""

import asyncio
from collections import Counter

import msgspec
import pytest
from headgate.gateway import registry, rules
from headgate.gateway.call import Principal
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.errors import GatewayError
from headgate.gateway.rules.decide import decide, preferring
from headgate.gateway.rules.target import Leaf, Share, Split, at_random
from headgate.gateway.server.gateway import Gateway

UPSTREAMS = """
upstreams:
  one: {adapter: simulator, models: [one-model]}
  two: {adapter: simulator}
  busy: {adapter: simulator, script: ["error 429"]}
  broken: {adapter: simulator, script: ["fail 0 overloaded"]}
  late: {adapter: simulator, script: ["text a b c d e f", "fail 2 overloaded"]}
  unset: {adapter: simulator, key: "env:HEADGATE_NOT_SET?"}
"""


@pytest.fixture
def ask(plan_of):
    """Return a function that serves one request by a rule file and returns reply text and decision."""

    async def served(plan, body, headers, principal):
        async with Gateway(plan) as gateway:
            codec = registry.codec("openai.chat")
            scope, plan = gateway.open_scope()
            call, route = gateway.prepare(
                plan, codec, body, RequestFacts("", {}, headers), scope, "req_1", scope.loop.time()
            )
            if principal is not None:
                call = call.replace(principal=principal)
            try:
                reply = await route.entry(call)
                await reply.collect()
                return call.decision, None
            except GatewayError as error:
                return call.decision, error
            finally:
                scope.close()

    def run(text, *, model="m", stream=False, words="hi", headers=None, principal=None):
        body = msgspec.json.encode({"model": model, "stream": stream, "messages": [{"role": "user", "content": words}]})
        return asyncio.run(served(plan_of(UPSTREAMS + text), body, headers or {}, principal))

    return run


def route(target: str) -> str:
    return f"targets:\n  smart:\n{target}\nroutes: [{{name: r, to: smart}}]\n"


def test_the_first_case_that_applies_is_taken(ask):
    text = route("    select:\n      - {match: {model: big}, use: two/huge}\n      - {use: one}")
    assert ask(text, model="big")[0].upstream == "two"
    assert ask(text, model="big")[0].model == "huge"
    decision, error = ask(text)
    assert (decision.upstream, decision.model, decision.chosen, error) == ("one", "m", ["smart.select[1] one"], None)


def test_cases_see_who_calls(ask):
    text = route(
        "    select:\n"
        "      - {match: {principal.tags: {has: batch}}, use: two}\n"
        "      - {match: {principal.team: red, principal.key: {not: intern}}, use: one/red}\n"
        "      - {match: {principal.tenant: acme}, use: one/acme}\n"
        "      - {use: one}"
    )
    who = lambda **facts: ask(text, principal=rules_principal(**facts))[0]  # noqa: E731
    assert who(tags=("x", "batch")).upstream == "two"
    assert who(team="red").model == "red"
    assert who(team="red", key="intern").model == "m"
    assert who(tenant="acme").model == "acme"
    assert ask(text)[0].model == "m"


def test_cases_ask_by_expression_too(ask):
    text = route(
        "    select:\n"
        "      - {when: 'principal.team == \"red\" && request.tokens < 1000', use: two}\n"
        '      - {match: {model: m}, when: \'header["x-a"] == "b"\', use: one/b}\n'
        "      - {use: one}"
    )
    assert ask(text, principal=rules_principal(team="red"))[0].upstream == "two"
    assert ask(text, headers={"x-a": "b"})[0].model == "b"
    assert ask(text, headers={"x-a": "c"})[0].model == "m"
    assert ask(text, headers={"x-a": "b"}, model="other")[0].model == "other"


def rules_principal(key="k", team=None, tenant="", tags=()):
    return Principal(key, team, tenant, tuple(tags))


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_goes_where_its_kind_says_and_every_try_is_in_the_record(ask, stream):
    text = route(
        "    select: [use: busy/a]\n"
        "    on_failure:\n"
        "      - {kinds: [connect], use: two}\n"
        "      - {kinds: [rate_limit], use: broken/b}\n"
        "      - {kinds: [overloaded, rate_limit], use: one/c}"
    )
    decision, error = ask(text, stream=stream)
    assert error is None
    assert [(each.upstream, each.model, each.error) for each in decision.attempts] == [
        ("busy", "a", "rate_limit"),
        ("broken", "b", "overloaded"),
        ("one", "c", None),
    ]
    assert (decision.upstream, decision.model) == ("one", "c")
    assert decision.chosen == [
        "smart.select[0] busy/a",
        "smart.on_failure[1] broken/b after rate_limit",
        "smart.on_failure[2] one/c after overloaded",
    ]


@pytest.mark.parametrize(
    ("model", "chain"),
    [
        ("first", ("log", "retry", "retry")),
        ("inner", ("log",)),
        ("fails", ("log", "retry")),
        ("nobody", ("log",)),
        ("outright", ("log", "retry", "retry")),
    ],
)
def test_the_record_names_the_chain_of_the_route_and_of_the_upstream_that_was_tried_last(
    model, chain, ask, plan_of, facts
):
    text = """
chains: {twice: [retry, retry]}
targets:
  smart:
    select:
      - {match: {model: first}, use: steady}
      - {match: {model: inner}, use: plain}
      - {match: {model: fails}, use: failing}
    on_failure: [{kinds: [rate_limit], use: once}]
  plain: {select: [use: one]}
  failing: {select: [use: busy]}
routes:
  - {name: outright, match: {model: outright}, chain: [log], to: steady}
  - {name: r, chain: [log], to: smart}
"""
    more = "  steady: {adapter: simulator, chain: twice}\n  once: {adapter: simulator, chain: [retry]}\n"
    decision, _ = ask(more + text, model=model)
    assert decision.chain == chain
    failures = ["rate_limit"] if model == "fails" else []
    assert decide(plan_of(UPSTREAMS + more + text), facts(model=model), failures=failures).chain == chain
    assert msgspec.json.decode(msgspec.json.encode(decision), type=type(decision)) == decision


def test_an_error_that_no_entry_names_is_the_callers(ask):
    decision, error = ask(route("    select: [use: busy]\n    on_failure: [{kinds: [connect], use: one}]"))
    assert (error.kind, len(decision.attempts)) == ("rate_limit", 1)


def test_each_entry_is_tried_once_and_then_the_last_error_stands(ask):
    decision, error = ask(route("    select: [use: busy]\n    on_failure: [{kinds: [rate_limit], use: busy/x}]"))
    assert (error.kind, [each.model for each in decision.attempts]) == ("rate_limit", ["m", "x"])


def test_nothing_is_tried_again_once_words_have_reached_the_caller(plan_of):
    text = UPSTREAMS + route("    select: [use: late]\n    on_failure: [{kinds: [overloaded], use: one}]")

    async def run():
        async with Gateway(plan_of(text)) as gateway:
            body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
            reply = await gateway.handle("openai.chat", body)
            chunks = 0
            try:
                async for _ in reply:
                    chunks += 1
            except GatewayError as error:
                return chunks, error.kind
        return chunks, None

    chunks, kind = asyncio.run(run())
    assert chunks > 0
    assert kind == "overloaded"


def test_a_target_within_a_target_fails_over_by_its_own_entries_first(ask):
    text = (
        "targets:\n"
        "  inner: {select: [use: busy], on_failure: [{kinds: [rate_limit], use: broken}]}\n"
        "  outer: {select: [use: inner], on_failure: [{kinds: [overloaded], use: one}]}\n"
        "routes: [{name: r, to: outer}]\n"
    )
    decision, error = ask(text)
    assert error is None
    assert [each.upstream for each in decision.attempts] == ["busy", "broken", "one"]


def test_a_request_that_no_case_takes_is_not_found(ask):
    decision, error = ask(route("    select: [{match: {model: x}, use: one}]"))
    assert (error.kind, decision.attempts) == ("not_found", [])
    assert "smart" in error.message


def test_what_is_off_is_passed_by(ask, plan_of):
    text = route(
        "    select:\n"
        "      - {match: {model: m}, use: unset}\n"
        "      - split: [{use: unset, weight: 99}, {use: busy, weight: 1}]\n"
        "    on_failure:\n"
        "      - {kinds: [rate_limit], use: unset}\n"
        "      - {kinds: [rate_limit], use: two}"
    )
    decision, error = ask(text)
    assert error is None
    assert [each.upstream for each in decision.attempts] == ["busy", "two"]
    plan = plan_of(UPSTREAMS + route("    select: [use: unset]"))
    assert plan.routes[0].off == "HEADGATE_NOT_SET is not set"


def test_weights_hold_over_many_draws(plan_of, facts):
    plan = plan_of(UPSTREAMS + route("    select:\n      - split: [{use: one, weight: 80}, {use: two, weight: 20}]"))
    drawn = Counter(decide(plan, facts(), at_random).leaf.upstream.name for _ in range(4000))
    assert 0.75 < drawn["one"] / 4000 < 0.85  # seven standard deviations
    assert decide(plan, facts()).leaf.upstream.name == "one"
    assert decide(plan, facts(), preferring(["two"])).leaf.upstream.name == "two"


def test_sticky_binds_a_value_to_a_branch_and_moves_no_more_than_it_must(plan_of, facts):
    def where(weights: str) -> dict[str, str]:
        plan = plan_of(UPSTREAMS + route(f"    select:\n      - {{split: [{weights}], sticky: header.x-session-id}}"))
        return {
            str(at): decide(plan, facts(headers={"x-session-id": str(at)}), at_random).leaf.upstream.name
            for at in range(2000)
        }

    before = where("{use: one, weight: 80}, {use: two, weight: 20}")
    assert before == where("{use: one, weight: 80}, {use: two, weight: 20}")
    assert 0.16 < Counter(before.values())["two"] / 2000 < 0.24
    after = where("{use: one, weight: 70}, {use: two, weight: 30}")
    moved = [key for key in before if before[key] != after[key]]
    assert all(after[key] == "two" for key in moved)
    assert len(moved) < 0.16 * 2000
    plan = plan_of(UPSTREAMS + route("    select:\n      - {split: [use: one, use: two], sticky: header.x-session-id}"))
    assert {decide(plan, facts(), at_random).leaf.upstream.name for _ in range(200)} == {"one", "two"}


def test_the_attraction_of_a_branch_has_no_edge_where_it_breaks():
    shares = tuple(Share(Leaf(str(at), None), weight) for at, weight in enumerate((1e-9, 1.0, 1e12)))
    split = Split(shares, "model", lambda wire: wire)
    assert all(split.bound(f"value {at}\ud800") in shares for at in range(500))


def test_a_target_is_listed_by_the_models_it_leads_to(plan_of):
    plan = plan_of(UPSTREAMS + route("    select: [{match: {model: x}, use: two/big}, {use: one}]"))
    assert [model.name for model in plan.models()] == ["big", "one-model"]


def test_auth_in_every_upstreams_chain_is_auth_and_in_one_of_them_is_not(plan_of, parts):
    guarded = "{adapter: simulator, chain: [{use: 'rule_parts:Gatekeeper'}]}"
    text = f"upstreams:\n  a: {guarded}\n  b: {guarded}\n  c: {{adapter: simulator}}\n"
    both = "targets: {t: {select: [use: a], on_failure: [{kinds: [connect], use: b}]}}\nroutes: [{name: r, to: t}]\n"
    one = both.replace("use: b}]", "use: c}]")
    assert plan_of(text + both).routes[0].authenticates
    assert not plan_of(text + one).routes[0].authenticates


def test_usage_is_asked_for_where_a_chain_reads_it(plan_of, parts):
    text = (
        "upstreams:\n  a: {adapter: simulator}\n  b: {adapter: simulator, chain: [{use: 'rule_parts:Counting'}]}\n"
        "targets: {t: {select: [{match: {model: x}, use: b}, {use: a}]}}\nroutes: [{name: r, to: t}]\n"
    )
    plan = plan_of(text)
    assert not plan.routes[0].needs_usage
    assert [leaf.upstream.needs_usage for leaf in plan.routes[0].aim.leaves()] == [True, False]


def test_a_plan_tells_what_targets_and_upstreams_nobody_uses(plan_of):
    plan = plan_of(UPSTREAMS + "targets: {idle: {select: [use: one]}}\nroutes: [{name: r, to: two}]\n")
    unused = [problem.message for problem in plan.warnings if problem.code == "W101"]
    assert any("target idle" in message for message in unused)
    assert not any("upstream one " in message for message in unused)  # the idle target names it


def test_the_files_own_tests_need_no_keys_and_see_no_chance(tmp_path):
    path = tmp_path / "routes.yaml"
    path.write_text(
        "version: 1\n"
        + UPSTREAMS
        + route("    select:\n      - split: [{use: unset, weight: 9}, {use: one, weight: 1}]")
        + "tests:\n"
        "  - {name: heaviest, given: {}, expect: {route: r, target: smart, upstream: unset}}\n"
        "  - {name: named, given: {branch: one}, expect: {upstream: one}}\n"
        "  - {name: down, given: {down: [unset]}, expect: {upstream: one}}\n"
        "  - {name: nothing left, given: {failures: [auth]}, expect: {upstream: null}}\n"
        "  - {name: wrong, given: {}, expect: {upstream: two}}\n"
    )
    trials, problems = rules.try_out(path)
    assert [trial.passed for trial in trials] == [True, True, True, True, False]
    failed = [problem for problem in problems if problem.code == "E060"]
    assert [(problem.line, problem.message) for problem in failed] == [
        (path.read_text().count("\n"), 'the test "wrong" expects upstream two, but it is unset')
    ]
    with pytest.raises(rules.RulesError):
        rules.load(path)
