"""``when``: CEL expressions on the facts of requests."""

import asyncio
import logging
import sys

import msgspec
import pytest
from headgate.gateway import rules
from headgate.gateway.facts import Principal
from headgate.gateway.rules.cel import NoCel, WhenFault, compile_when, read_when
from headgate.gateway.rules.document import Table, parse
from headgate.gateway.rules.problems import Problems
from headgate.gateway.server.gateway import Gateway
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cel_expr_python")

METADATA = {
    "team": "core",
    "tier": 3,
    "ratio": 0.5,
    "beta": True,
    "tags": ["a", "b", 5],
    "none": None,
    "deep": {"er": {"n": 1}},
    "huge": 10**30,
}
AGENT = {"headers": {"user-agent": "codex/1.2", "x-team": "core"}}
META = {"metadata": METADATA}

# the expression, the request, whether it matches
ANSWERS = [
    ("true", {}, True),
    ("false", {}, False),
    ("model == 'm' && format == 'openai.chat'", {}, True),
    ("model.startsWith('gpt-') || model.endsWith('mini')", {"model": "o4-mini"}, True),
    ("model in ['a', 'b']", {"model": "b"}, True),
    ("size(model) > 3 ? path == '/v1' : path.contains('chat')", {}, True),
    ("model.matches('^gpt-[45]')", {"model": "gpt-5"}, True),
    ("model.matches('^gpt-[45]')", {"model": "a gpt-5"}, False),
    ("model.matches(r'\\d')", {"model": "gpt-5"}, True),
    ("matches(model, '5')", {"model": "gpt-5"}, True),
    ("model.matches('^(a+)+$')", {"model": "a" * 5000 + "b"}, False),
    ("request.tokens > 10 && request.tokens < 20", {"body": b"x" * 60}, True),
    ("request.tokens * 2 == 30", {"body": b"x" * 60}, True),
    ("request.stream != request.tools", {"stream": True}, True),
    ("request.tools", {"tools": [{"name": "a"}]}, True),
    ("request.has_image", {"body": b'{"type":"image"}'}, True),
    ("!request.has_image", {}, True),
    ("model == 'x' // words\n || true // more", {}, True),
    # headers and query parameters: their names have no case, their values do
    ('header["user-agent"].startsWith("codex")', AGENT, True),
    ('header["User-Agent"].startsWith("codex")', AGENT, True),
    ("header['user-agent'] == 'Codex/1.2'", AGENT, False),
    ("header.`user-agent` == 'codex/1.2'", AGENT, True),
    ('header\n ["x-team"]\n == "core"', AGENT, True),
    ('"User-Agent" in header', AGENT, True),
    ('"x-none" in header', AGENT, False),
    ("header.exists(name, name.startsWith('x-'))", AGENT, True),
    ("header.all(name, header[name] != '')", AGENT, True),
    ("query.debug == '1' && int(query['n']) > 4", {"query": {"debug": "1", "n": "5"}}, True),
    ("query.N == '1'", {"query": {"n": "1"}}, False),
    ("has(query.n) && !has(query.m)", {"query": {"n": ""}}, True),
    ("header['x-team'] == metadata.team", {**AGENT, **META}, True),
    # what is missing is null: equal to nothing else, and no answer to anything but a comparison for equality
    ("header.x == 'y'", {}, False),
    ("header.x != 'y'", {}, True),
    ("!(header.x == 'y')", {}, True),
    ("header.x == null", {}, True),
    ("header.x == ''", {}, False),
    ("header.x == 'y' || model == 'm'", {}, True),
    ("header.x in ['y', 'z']", {}, False),
    ("header.x.startsWith('y')", {}, False),
    ("!header.x.startsWith('y')", {}, False),
    ("header.x.startsWith('y') || model == 'm'", {}, True),
    ("model == 'm' || header.x.startsWith('y')", {}, True),
    ("header.x.startsWith('y') && model == 'm'", {}, False),
    ("header.x < 'y'", {}, False),
    ("query.a == query.b", {}, True),
    ("has(header.x)", {}, False),
    ("header[model] == 'y'", {}, False),
    ("metadata.none == metadata.missing", META, True),
    ("metadata.missing > 3", META, False),
    ("metadata.missing > 3 || true", META, True),
    ("metadata.team == 'core'", {}, False),
    # metadata may be anything, and is compared as what it is
    ("metadata.team == 'core'", META, True),
    ("metadata['tier'] == 3", META, True),
    ("metadata.tier == '3'", META, False),
    ("metadata.tier > 2.5", META, True),
    ("metadata.ratio < 1", META, True),
    ("metadata.team > 3", META, False),
    ("metadata.beta", META, True),
    ("metadata.team", META, False),
    ("metadata.missing", META, False),
    ("metadata.tier", META, False),
    ("metadata.beta // really", META, True),
    ("metadata.beta && model == 'm'", META, True),
    ("'a' in metadata.tags && 5 in metadata.tags", META, True),
    ("metadata.tags.exists(tag, tag == 'b')", META, True),
    ("metadata.tags[0] == 'a'", META, True),
    ("metadata.tags[9] == 'a'", META, False),
    ("metadata.deep.er.n == 1", META, True),
    ("metadata.deep.none.n == 1", META, False),
    ("has(metadata.deep.er)", META, True),
    ("has(metadata.deep.no)", META, False),
    ("'team' in metadata", {"metadata": {"team": 1}}, True),
    ("metadata == {'a': 1}", {"metadata": {"a": 1}}, True),
    ("metadata.huge > 1", META, False),
    ("metadata.team == 'core' && has(metadata.team)", META, False),
    # what cannot be computed
    ("1 / request.tokens == 0", {"body": b""}, False),
    ("int(model) > 3", {}, False),
    ("{'a': 1, 'a': 2}.size() > 0", {}, False),
    # a word of a group that is no group
    ("[{'header': 1}].exists(each, each.header == 1)", {}, True),
    ("'header.x' == 'header' + '.x'", {}, True),
    ("'query.a == //' != model", {}, True),
]


def request_of(facts, **given):
    for name in ("metadata", "tools"):
        if name in given:
            given[name] = msgspec.Raw(msgspec.json.encode(given[name]))
    return facts(**{"path": "/v1/chat", **given})


@pytest.mark.parametrize(
    ("text", "given", "expected"), ANSWERS, ids=[f"{each[0]} {at}" for at, each in enumerate(ANSWERS)]
)
def test_answers(text, given, expected, facts):
    if text.endswith("path.contains('chat')"):
        given = {**given, "model": "m"}
    assert compile_when(text, principal=False)(request_of(facts, **given)) is expected


PRINCIPAL = Principal("k", "core", "acme", ("batch", "eu"))


@pytest.mark.parametrize(
    ("text", "principal", "expected"),
    [
        ("principal.key == 'k' && principal.tenant == 'acme'", PRINCIPAL, True),
        ("principal.team == header['x-team']", PRINCIPAL, True),
        ("principal.team == 'core'", Principal("k"), False),
        ("principal.team == null", Principal("k"), True),
        ("principal.team.startsWith('c')", Principal("k"), False),
        ("'eu' in principal.tags", PRINCIPAL, True),
        ("principal.tags.exists(tag, tag.startsWith('b'))", PRINCIPAL, True),
        ("principal.tags.exists(tag, tag.startsWith('x'))", PRINCIPAL, False),
        ("size(principal.tags) == 0", Principal("k"), True),
    ],
)
def test_who_calls(text, principal, expected, facts):
    wire = facts(**AGENT)
    wire.principal = principal
    assert compile_when(text, principal=True)(wire) is expected


# the expression with a mark § before the place, the code, part of the message, part of the hint
FAULTS = [
    ("§modle == 'm'", "E047", '"modle"', '"model"'),
    ("§headers['x'] == 'm'", "E047", '"headers"', '"header"'),
    ("model == 'm' && §request.tokenz > 3", "E047", '"request.tokenz"', '"request.tokens"'),
    ("request.tokens§.count > 3", "E049", "members", "by name"),
    ("§request['tokens'] > 3", "E047", '"request"', "request.tokens"),
    ("header.user-§agent == 'x'", "E047", '"agent"', 'header["user-agent"]'),
    ("§_t1 == 'x'", "E047", '"_t1"', "underscore"),
    ("model == §gpt", "E047", '"gpt"', ""),
    ("§szie(model) > 3", "E047", '"szie"', '"size"'),
    ("model.§startWith('m')", "E047", '"startWith"', '"startsWith"'),
    ("model ==§", "E047", "ends too early", ""),
    ("model §= 'm'", "E047", 'unexpected "="', "=="),
    ("true §and true", "E047", 'unexpected "and"', "&&"),
    ("model == §'m", "E047", "unexpected", "quote"),
    ("true &&\n true &&\n §modle == 'm'", "E047", '"modle"', '"model"'),
    ("true && '''a\nb''' == §modle", "E047", '"modle"', '"model"'),
    ("header.x == 'ä' && §modle == 'é'", "E047", '"modle"', '"model"'),
    ("header.exists(§query, query == 'a')", "E047", "variable of exists", "else"),
    ("has(header§['x'])", "E047", "after a dot", "in metadata"),
    ("header[§r'x'] == 'a'", "E047", "backslashes", "user-agent"),
    ("model.matches§(path)", "E047", "must be a text", "such as"),
    ("model.matches§('a' + path)", "E047", "must be a text", "such as"),
    ("§" + "(" * 40 + "true" + ")" * 40, "E047", "nested too deeply", "in [..]"),
    ("§" + "model" + ".a" * 900 + " == 1", "E047", "nested too deeply", ""),
    ("§true" + " || true" * 300, "E047", "longer than 2000", "split"),
    ("model == '§\ud800'", "E047", "half a character", ""),
    ("§return", "E047", "reserved", ""),
    ("§principal.team == 'x'", "E042", "principal.team", "select"),
    ("model == 'a' || §principal == 'x'", "E042", "wire facts only", "select"),
    ("model.matches(§'(a')", "E044", "missing )", "RE2"),
    ("model.matches(§'(?=a)')", "E044", "", "RE2"),
    ("model §> 3", "E049", '">" does not fit (string, int)', "quote"),
    ("header['x'] §> 3", "E049", "(string, int)", "quote"),
    ("query.x §== true", "E049", "(string, bool)", ""),
    ("model §== null", "E049", "null", "never null"),
    ("request.tokens §> 1.5", "E049", "(int, double)", "do not mix"),
    ("request.stream §&& model", "E049", "(bool, string)", ""),
    ("§!model", "E049", '"!"', ""),
    ("header.x§.y == 'a'", "E049", "members", "by name"),
    ("§model", "E049", "a string", "compare"),
    ("§request.tokens + 1", "E049", "an int", "compare"),
    ("§header.x", "E049", "", "compare"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "message", "hint"), FAULTS, ids=[f"{each[0][:40]!a}" for each in FAULTS])
def test_faults(text, code, message, hint):
    with pytest.raises(WhenFault) as raised:
        compile_when(text.replace("§", ""), principal=False)
    fault = raised.value
    assert (fault.code, fault.offset) == (code, text.index("§")), fault
    assert message in str(fault) and hint in fault.hint


def test_a_fact_of_the_caller_that_does_not_exist():
    with pytest.raises(WhenFault) as raised:
        compile_when("principal.teem == 'x'", principal=True)
    assert '"principal.team"' in raised.value.hint


# the value of when, with a mark where the mistake is said to be
PLACES = [
    "model == §gpt",
    '"model == §gpt"',
    "'model == §gpt'",
    "§'model == ''a'' || gpt'",
    '§"model == \\"a\\" || gpt"',
    "§&a model == gpt",
    "|\n  model == 'a' ||\n§  model == gpt\n",
    "|\n\n  // which\n  model == 'a'\n§  || gpt\n",
    "§>\n  model == 'a' ||\n  model == gpt\n",
    "§model == 'a' ||\n  model == gpt\n",
    "§{a: b}",
    "§[a]",
    "§true",
    "§5",
    "§''",
]


@pytest.mark.parametrize("text", PLACES)
def test_where_a_mistake_is(text):
    problems = Problems()
    root = parse("when: " + text.replace("§", ""), "f", problems)
    assert isinstance(root, Table)
    assert read_when(root.entries["when"].value, "when", problems) is None
    (problem,) = problems.sorted()
    before = "when: " + text[: text.index("§")]
    assert (problem.line, problem.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))


def test_no_answer_is_told_once_without_what_the_caller_sent(facts, caplog):
    holds = compile_when("metadata.n > 3 && header.x.startsWith('a')", principal=False)
    with caplog.at_level(logging.WARNING, "headgate.rules"):
        assert not holds(request_of(facts, metadata={"n": 10**30 + 4321}))
        assert not holds(request_of(facts, metadata={"n": "a"}))
    (record,) = caplog.records
    assert "metadata.n > 3" in record.getMessage() and "4321" not in record.getMessage()


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (nested(14), True),
        (nested(500), False),
        ([0] * 999, True),
        ([0] * 1001, False),
        ([[0] * 300] * 4, False),
        ({str(n): n for n in range(1001)}, False),
    ],
    ids=["deep", "too deep", "long", "too long", "too many", "too wide"],
)
def test_metadata_is_bounded(value, expected, facts):
    for text in ("metadata.a != 'x'", "metadata != {'a': 'x'}"):
        holds = compile_when(text, principal=False)
        assert holds(request_of(facts, metadata={"a": value})) is expected


def test_what_iterates_too_long_is_no_answer(facts):
    text = "metadata.a.all(x, metadata.a.all(y, x + y >= 0))"
    holds = compile_when(text, principal=False)
    assert holds(request_of(facts, metadata={"a": list(range(20))}))
    assert not holds(request_of(facts, metadata={"a": list(range(900))}))


def test_bytes_that_are_no_text_do_no_harm(facts):
    broken = "caf\udce9"
    wire = facts(model="m", path=broken, headers={"x": broken, "y": "y"}, query={broken: "a"})
    for text in ("header.y == 'y'", "header.x != 'y'", "'y' in header", "size(query) == 1", "path.startsWith('caf')"):
        assert compile_when(text, principal=False)(wire), text


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    monkeypatch.setitem(sys.modules, "cel_expr_python.cel", None)
    with pytest.raises(NoCel):
        compile_when("true", principal=False)


WORDS = st.sampled_from(
    [
        "header",
        "query",
        "metadata",
        "request",
        "model",
        "principal",
        ".",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        ",",
        "?",
        ":",
        "&&",
        "||",
        "!",
        "==",
        "!=",
        "<",
        "in",
        "'a'",
        '"b"',
        "'''",
        "r'",
        "`",
        "1",
        "2.5",
        "-",
        "+",
        '"',
        "\\",
        "has",
        "matches",
        "exists",
        "tokens",
        "x",
        "true",
        "null",
        "//",
        "é",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=25), st.sampled_from(["", " ", "\n"]))
def test_any_words_are_judged(words, joint):
    text = joint.join(words)
    faults = []
    try:
        compile_when(text, principal=True)
    except WhenFault as fault:
        faults.append(fault)
    assert all(str(fault) and 0 <= fault.offset <= len(text) and "_t1" not in str(fault) for fault in faults)


ROUTES = """
upstreams:
  big: {adapter: simulator, script: ["text big"]}
  rest: {adapter: simulator, script: ["text rest"]}
routes:
  - name: big
    match: {model: gpt-*}
    when: metadata.team == "core" || header["x-size"] in ["l", "xl"]
    to: big
  - {name: rest, to: rest}
"""


@pytest.mark.parametrize(
    ("model", "metadata", "headers", "expected"),
    [
        ("gpt-5", {"team": "core"}, {}, "big"),
        ("gpt-5", {"team": "x"}, {"x-size": "xl"}, "big"),
        ("gpt-5", {"team": "x"}, {}, "rest"),
        ("gpt-5", {}, {"x-size": "s"}, "rest"),
        ("o3", {"team": "core"}, {}, "rest"),
    ],
)
def test_a_route_matches_when_both_hold(model, metadata, headers, expected, plan_of):
    body = {"model": model, "metadata": metadata, "messages": [{"role": "user", "content": "hi"}]}

    async def run():
        async with Gateway(plan_of(ROUTES)) as gateway:
            reply = await gateway.handle("openai.chat", msgspec.json.encode(body), headers=headers)
            return await reply.collect()

    assert expected in str(asyncio.run(run()))


def test_a_route_cannot_ask_who_calls(plan_of):
    text = "upstreams:\n  sim: {adapter: simulator}\nroutes: [{name: a, when: principal.team == 'x', to: sim}]"
    with pytest.raises(rules.RulesError) as raised:
        plan_of(text)
    (problem,) = raised.value.problems
    assert (problem.code, problem.line, problem.column) == ("E042", 4, 26)
    assert problem.message.startswith("routes[0].when: it asks for principal.team")


def test_a_test_in_the_file_asks_when(plan_of):
    trial = "{name: t, given: {model: gpt-5, metadata: {team: core}}, expect: {route: big}}"
    plan_of(f"{ROUTES}tests: [{trial}]")
    with pytest.raises(rules.RulesError, match="expects route big, but it is rest"):
        plan_of(f"{ROUTES}tests: [{trial.replace('core', 'x')}]")


def test_a_route_with_when_hides_no_other_but_may_be_hidden(plan_of):
    sim = "upstreams:\n  sim: {adapter: simulator}\n"
    loose = "{name: a, match: {model: x}, when: request.stream, to: sim}"
    strict = "{name: b, match: {model: x}, to: sim}"
    plan = plan_of(f"{sim}routes: [{loose}, {strict}]")
    assert [route.when for route in plan.routes] == ["request.stream", None]
    with pytest.raises(rules.RulesError, match='"a" is never reached'):
        plan_of(f"{sim}routes: [{strict}, {loose}]")


def test_many_routes_are_asked_for_their_when_too(plan_of, facts):
    text = "upstreams:\n  sim: {adapter: simulator}\nroutes:\n"
    text += "".join(
        f"  - {{name: r{at}, match: {{model: m}}, when: request.tokens == {at}, to: sim}}\n" for at in range(40)
    )
    plan = plan_of(text)
    assert plan.match(facts(body=b"x" * 31 * 4)).name == "r31"
    assert plan.match(facts(body=b"x" * 400)) is None
