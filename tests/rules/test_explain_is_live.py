"""What ``explain`` says is what a gateway does: rule files and requests made up, decided by both, compared member by member."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest
from headgate.gateway import registry, rules
from headgate.gateway.call import Decision
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.errors import GatewayError
from headgate.gateway.facts import Principal
from headgate.gateway.rules.decide import decide
from headgate.gateway.rules.explain import explain
from headgate.gateway.rules.given import Posed, pose_bytes
from headgate.gateway.rules.target import likeliest
from headgate.gateway.rules.tries import tries
from headgate.gateway.server.gateway import Gateway
from hypothesis import HealthCheck, assume, given, reject, seed, settings
from hypothesis import strategies as st

from .rule_files import KINDS, asks, rule_files

EXAMPLES = int(os.environ.get("HEADGATE_EXAMPLES", "300"))
UNHURRIED = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture)


few = settings(
    max_examples=EXAMPLES,
    derandomize="HEADGATE_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=UNHURRIED,
)
"""The same examples every time; with HEADGATE_EXAMPLES=n that many, others at each run."""


def heaviest(population: Sequence[Any], weights: Sequence[float]) -> list[Any]:
    """What stands in for chance."""
    return [population[list(weights).index(max(weights))]]


async def live(text: str, asked: Sequence[dict[str, Any]]) -> list[tuple[Decision | None, GatewayError | None]]:
    """Return the record of each call that a gateway served, None if it found no route, and the error that it ended with."""
    async with Gateway(rules.loads(text)) as gateway:
        return [await served(gateway, wanted) for wanted in asked]


async def served(gateway: Gateway, wanted: dict[str, Any]) -> tuple[Decision | None, GatewayError | None]:
    """Return what became of one call."""
    scope, plan = gateway.open_scope()
    codec, body = registry.codec(wanted["format"]), json.dumps(wanted["body"]).encode()
    decision = None
    try:
        facts = RequestFacts(wanted["path"], wanted["query"], wanted["headers"])
        call, route = gateway.prepare(plan, codec, body, facts, scope, "req_explain", scope.loop.time())
        decision = call.decision
        reply = await route.entry(call.replace(principal=principal_of(wanted)))
        await reply.collect()
        return decision, None
    except GatewayError as error:
        return decision, error
    finally:
        scope.close()


def principal_of(wanted: dict[str, Any]) -> Principal:
    who = wanted["principal"]
    return Principal(who["key"], who["team"], "", tuple(who["tags"]))


def posed(wanted: dict[str, Any]) -> Posed:
    body = json.dumps(wanted["body"]).encode()
    facts = RequestFacts(wanted["path"], wanted["query"], wanted["headers"])
    return pose_bytes(registry.codec(wanted["format"]), body, facts, principal_of(wanted))


def plan_of(text: str) -> rules.Plan:
    """Return the plan of a rule file; give the example up if one of its rules is never reached."""
    problems: tuple[rules.Problem, ...] = ()
    try:
        return rules.loads(text)
    except rules.RulesError as fault:
        problems = fault.problems
    assert {problem.code for problem in problems if problem.severity == "error"} == {"E045"}
    reject()


def check(text: str, asked: Sequence[dict[str, Any]]) -> None:
    """Assert that both say the same of each request."""
    plan = plan_of(text)
    with mock.patch("random.choices", heaviest):
        results = asyncio.run(live(text, asked))
    for wanted, (decision, error) in zip(asked, results, strict=True):
        compare(plan, wanted, decision, error)


def compare(plan: rules.Plan, wanted: dict[str, Any], decision: Decision | None, error: GatewayError | None) -> None:
    """Assert that ``explain`` says what became of a live call."""
    if decision is None:
        told = explain(plan, posed(wanted))
        assert told.verdict.route is None
        assert len(told.routes) == len(plan.routes)
        assert all(each.unmet or each.off is not None for each in told.routes)
        assert error is not None and told.outgoing.refusal is not None
        assert told.outgoing.refusal.message == error.message
        return
    failed = decision.attempts if error is not None else decision.attempts[:-1]
    # where nothing decides how to go on, a failure inside a stream is the caller's, and the record does not have it
    told = explain(plan, posed(wanted), failures=[each.error or error.kind for each in failed])
    said = told.outgoing.decision
    for name in ("route", "target", "upstream", "model", "chain", "chosen"):
        assert getattr(said, name) == getattr(decision, name), name
    leaves = [*told.verdict.tried, *(() if told.verdict.leaf is None else (told.verdict.leaf,))]
    asked = wanted["body"]["model"]
    assert [(leaf.upstream.name, leaf.model or asked) for leaf in leaves] == [
        (each.upstream, each.model) for each in decision.attempts
    ]
    if not decision.attempts:
        assert error is not None and told.outgoing.refusal is not None
        assert told.outgoing.refusal.message == error.message
    elif error is None:
        assert told.outgoing.in_process
    else:
        assert told.outgoing.refusal is not None
        assert told.outgoing.refusal.kind == error.kind
    assert all(each.unmet or each.off is not None for each in (*told.routes, *told.cases))


@few
@given(rule_files(), st.lists(asks(), min_size=1, max_size=3))
def test_explain_says_what_a_gateway_does(parts, text, wanted):
    check(text, wanted)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@seed(20)
@settings(max_examples=10_000, deadline=None, suppress_health_check=UNHURRIED, database=None)
@given(rule_files(), st.lists(asks(), min_size=1, max_size=3))
def test_explain_says_what_a_gateway_does_ten_thousand_times(parts, text, wanted):
    check(text, wanted)


@settings(few, max_examples=max(EXAMPLES // 3, 50))
@given(rule_files(), asks(), st.lists(st.sampled_from(KINDS), max_size=5))
def test_the_list_of_tries_holds_every_way_that_failures_lead(parts, text, wanted, failures):
    plan = plan_of(text)
    wire = posed(wanted).wire
    verdict = decide(plan, wire, likeliest, failures)
    assume(verdict.route is not None)
    listed = tries(verdict.route.aim, wire, likeliest)
    leaves = [*verdict.tried, *(() if verdict.leaf is None else (verdict.leaf,))]
    if leaves:
        assert (listed[0].leaf, listed[0].kinds) == (leaves[0], None)
    for leaf, kind in zip(leaves[1:], failures, strict=False):
        assert any(each.leaf is leaf and each.kinds is not None and kind in each.kinds for each in listed)
