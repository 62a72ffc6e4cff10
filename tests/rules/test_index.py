"""The index leaves out only what cannot match, and only what cannot cover."""

import string

from headgate.gateway.codecs.base import Peek, RequestFacts
from headgate.gateway.facts import WireFacts
from headgate.gateway.globs import Glob
from headgate.gateway.rules.condition import Above, AllOf, AnyOf, Exists, Has, Is, Not, Text
from headgate.gateway.rules.coverage import all_covered
from headgate.gateway.rules.index import Index
from headgate.gateway.rules.match import compile_match
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.text("ab-", max_size=4)
TEXTS = st.text("ab-*?", max_size=4).map(lambda text: Text(Glob.parse(text)))
LEAVES = TEXTS | st.builds(Has, st.sampled_from("ab")) | st.builds(Exists, st.booleans())
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(AllOf, st.lists(inner, min_size=1, max_size=2).map(tuple))
    ),
    max_leaves=4,
)
MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "model": TEXTS | st.lists(TEXTS, min_size=1, max_size=3).map(lambda texts: AnyOf(tuple(texts))),
        "header.x-team": CONDITIONS,
        "metadata.user": CONDITIONS,
        "request.tokens": st.builds(Above, st.integers(0, 9)),
        "request.stream": st.builds(Is, st.booleans()),
    },
)


@given(st.lists(MATCHES, max_size=12), WORDS, st.none() | WORDS, st.none() | WORDS, st.booleans())
def test_every_rule_that_matches_is_a_candidate(rules, model, team, user, stream):
    headers = {} if team is None else {"x-team": team.upper()}
    metadata = None if user is None else b'{"user":"%s"}' % user.encode()
    wire = WireFacts(
        "openai.chat", Peek(model=model, stream=stream, metadata=metadata), RequestFacts("", {}, headers), b"x" * 20
    )
    index = Index()
    for conditions in rules:
        index.add(conditions)
    found = index.candidates(lambda fact: fact.get(wire))
    matching = [at for at, conditions in enumerate(rules) if compile_match(conditions)(wire)]
    assert found == sorted(set(found))
    assert set(matching) <= set(found)


@given(st.lists(MATCHES, max_size=12), MATCHES)
def test_every_rule_that_covers_is_a_candidate(rules, narrow):
    index = Index()
    for conditions in rules:
        index.add(conditions)
    covering = {at for at, conditions in enumerate(rules) if all_covered(conditions, narrow)}
    assert covering <= set(index.covering(narrow))


def test_a_thousand_rules_are_told_apart_by_what_they_demand():
    index = Index()
    for at in range(500):
        index.add({"format": Text(Glob.parse("openai.chat")), "model": Text(Glob.parse(f"team{at:03}-*"))})
        index.add({"format": Text(Glob.parse("openai.chat")), "header.x-key": Text(Glob.parse(f"Key{at:03}"))})
    values = {"model": "team250-gpt", "header.x-key": "KEY100", "format": "openai.chat"}
    assert index.candidates(lambda fact: values.get(fact.name)) == [201, 500]


def test_the_last_of_many_routes_serves_and_a_hidden_one_is_found(plan_of, facts):
    text = "upstreams: {sim: {adapter: simulator}}\nroutes:\n" + "".join(
        f"  - {{name: {prefix}{at}, match: {{model: '{prefix}{at}-*'}}, to: sim}}\n"
        for at in range(20)
        for prefix in string.ascii_lowercase[:4]
    )
    plan = plan_of(text)
    assert plan.match(facts("d19-x")).name == "d19"
    assert plan.match(facts("d20-x")) is None
    assert len(plan.routes) == 80
