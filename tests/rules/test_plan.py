"""From a rule file to a plan: what it holds, which route serves, what starts and stops, what a reload keeps."""

import pytest
from headgate.gateway import registry, rules
from headgate.gateway.call import Call, Decision
from headgate.gateway.codecs.base import Peek, RequestFacts
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.loss import Ledger
from headgate.gateway.relay.scope import Clock, Scope

ECHO = '{adapter: "rule_parts:Echo"'
MARK = '"rule_parts:Mark"'


def call_for(model: str = "m") -> Call:
    scope = Scope(Clock(), lambda: None)
    codec = registry.codec("openai.chat")
    return Call(codec, b"{}", Peek(model=model), RequestFacts(), scope, "r", 0, 0, model, Decision("r"), Ledger())


def use(kind: str, name: str) -> str:
    return f'{{use: "rule_parts:{kind}", with: {{name: {name}}}}}'


# -- what a plan holds


def test_a_route_composes_its_chain_around_the_upstreams_chain_around_the_adapter(plan_of):
    plan = plan_of(f"""
        upstreams:
          echo: {ECHO}, chain: [{use("Retrying", "inner")}]}}
        chains:
          base: [{use("Mark", "first")}, chain: more]
          more: [{use("Counting", "second")}]
        routes:
          - {{name: r, chain: base, to: echo/some/model, loss: refuse, timeout: 90s}}
        """)
    (route,) = plan.routes
    assert route.chain_names == ("rule_parts:Mark", "rule_parts:Counting", "rule_parts:Retrying")
    assert (route.to, route.upstream.name, route.model) == ("echo/some/model", "echo", "some/model")
    assert (route.loss, route.total_s) == ("refuse", 90.0)
    assert (route.needs_usage, route.authenticates) == (True, False)


async def test_entry_runs_in_order_and_asks_for_the_routes_model(plan_of):
    plan = plan_of(f"""
        upstreams:
          echo: {ECHO}, chain: [{use("Mark", "inner")}]}}
        routes:
          - {{name: fixed, match: {{model: m}}, chain: [{use("Mark", "outer")}], to: echo/other}}
          - {{name: free, chain: [], to: echo}}
        """)
    call = call_for()
    assert await plan.routes[0].entry(call) == ("echo", "other")
    assert call.decision.notes == ["outer", "inner"]
    assert call.model == "m"
    assert await plan.routes[1].entry(call_for("x")) == ("echo", "x")
    assert plan.routes[1].total_s == 1800.0


def test_a_named_chain_is_shared_and_a_listed_one_is_not(plan_of):
    plan = plan_of(f"""
        upstreams: {{echo: {ECHO}}}}}
        chains: {{base: [{MARK}]}}
        routes:
          - {{name: a, match: {{model: a}}, chain: base, to: echo}}
          - {{name: b, match: {{model: b}}, chain: [chain: base], to: echo}}
          - {{name: c, match: {{model: c}}, chain: [{MARK}], to: echo}}
        """)
    a, b, c = (route.middlewares[0] for route in plan.routes)
    assert a is b and a is not c


def test_options_of_middlewares_and_adapters_are_decoded(plan_of, monkeypatch, tmp_path):
    (tmp_path / "secret.txt").write_text("s3cret\n")
    plan = plan_of("""
        upstreams:
          echo: {adapter: "rule_parts:Echo", voice: high, pause: 1m30s, x-note: free}
        routes:
          - name: r
            to: echo
            chain:
              - "rule_parts:Mark":
                  name: n
                  limits: {tries: 5, wait: 250ms}
                  steps: [{tries: 1}, {wait: 2s}]
                  secret: file:secret.txt
        """)
    assert plan.upstreams["echo"].options.voice == "high"
    assert plan.upstreams["echo"].options.pause == 90
    options = plan.routes[0].middlewares[0].options
    assert (options.limits.tries, options.limits.wait, options.name) == (5, 0.25, "n")
    assert [(step.tries, step.wait) for step in options.steps] == [(1, 1.0), (3, 2.0)]
    assert options.secret.read() == "s3cret"


def test_what_an_adapter_is_built_with(plan_of, monkeypatch, tmp_path):
    monkeypatch.setenv("ECHO_KEY", "k-1")
    (tmp_path / "team.txt").write_text("core")
    plan = plan_of("""
        defaults: {timeout: {connect: 3s, total: 10m}, loss: ignore}
        upstreams:
          echo:
            adapter: "rule_parts:Echo"
            base_url: https://llm.example/v1
            key: env:ECHO_KEY
            timeout: {total: 20m, idle: 1m}
            headers: {X-Team: file:team.txt, x-plain: "a b"}
          open: {adapter: "rule_parts:Echo", credential: pass-through}
        routes: [{name: r, match: {model: a}, to: echo}, {name: s, to: open}]
        """)
    context = plan.upstreams["echo"].adapter.context
    assert (context.name, context.base_url, context.credential) == ("echo", "https://llm.example/v1", "k-1")
    assert context.headers == {"x-team": "core", "x-plain": "a b"}
    assert (context.timeouts.connect, context.timeouts.total, context.timeouts.idle) == (3, 1200, 60)
    assert context.timeouts.first_token == 300
    assert context.pass_credential is False and plan.upstreams["open"].adapter.context.pass_credential is True
    assert context.transport is plan.upstreams["echo"].transport
    assert plan.routes[0].loss == "ignore" and plan.routes[0].total_s == 1200


def test_server_options(plan_of, tmp_path):
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).write_text("")
    server = plan_of("""
        server:
          listen: "[::1]:0"
          max_body: 10MiB
          trusted_proxies: [10.0.0.0/8, "::1"]
          tls: {cert: c.pem, key: k.pem}
          response_headers: [Headgate-Route]
        routes: []
        """).server
    assert (server.max_body, server.keep_alive, server.workers) == (10 * 2**20, 15, 1)
    assert server.tls.cert == str(tmp_path / "c.pem")
    assert [str(network) for network in server.networks] == ["10.0.0.0/8", "::1/128"]
    assert server.hidden_headers == {"headgate-route"}


def test_anchors_and_merge_keys(plan_of):
    plan = plan_of("""
        x-slow: &slow {timeout: {total: 1h}}
        upstreams:
          echo: {<<: *slow, adapter: "rule_parts:Echo", voice: high}
        routes: [{name: r, to: echo}]
        """)
    assert plan.routes[0].total_s == 3600


# -- which route serves

OPTIONAL = """
    upstreams:
      paid: {adapter: "rule_parts:Echo", key: "env:PAID_KEY?"}
      extra: {adapter: "rule_parts:Echo", headers: {x-token: "env:EXTRA_TOKEN?"}}
      free: {adapter: "rule_parts:Echo"}
    routes:
      - {name: paid, match: {model: big-*}, to: paid}
      - {name: fallback, match: {model: big-*}, to: free}
      - {name: extra, match: {model: extra}, to: extra}
      - {name: rest, to: free/small}
    """


def test_the_first_route_that_matches_serves(plan_of, facts, monkeypatch):
    monkeypatch.setenv("PAID_KEY", "k")
    plan = plan_of(OPTIONAL)
    assert plan.match(facts("big-1")).name == "paid"
    assert plan.match(facts("other")).name == "rest"


def test_routes_to_an_upstream_that_is_off_do_not_match(plan_of, facts, monkeypatch):
    monkeypatch.delenv("PAID_KEY", raising=False)
    plan = plan_of(OPTIONAL)
    assert plan.match(facts("big-1")).name == "fallback"
    assert plan.match(facts("extra")).name == "rest"
    paid = plan.upstreams["paid"]
    assert paid.off == "PAID_KEY is not set" and paid.adapter is None and paid.transport is None
    assert plan.routes[0].off == paid.off and plan.upstreams["free"].off is None
    assert [problem.code for problem in plan.warnings] == ["W102", "W102"]


async def test_the_entry_of_a_route_that_is_off_refuses(plan_of, monkeypatch):
    monkeypatch.delenv("PAID_KEY", raising=False)
    with pytest.raises(GatewayError, match="PAID_KEY") as raised:
        await plan_of(OPTIONAL).routes[0].entry(call_for())
    assert raised.value.kind == "unavailable"


def test_no_route_matches(plan_of, facts):
    plan = plan_of(f"upstreams: {{echo: {ECHO}}}}}\nroutes: [{{name: a, match: {{model: a}}, to: echo}}]")
    assert plan.match(facts("b")) is None


COVERED = [
    ("match: {model: a*}", "match: {model: abc}", True),
    ("match: {model: a*}", "match: {model: [ab, ac*]}", True),
    ("match: {model: a*}", "match: {model: [ab, b]}", False),
    ("match: {model: a*}", "match: {model: a*, request.stream: true}", True),
    ("match: {model: a*, request.stream: true}", "match: {model: a*}", False),
    ("match: {model: '*'}", "match: {request.stream: true}", True),
    ("match: {header.x: '*'}", "match: {model: a}", False),
    ("match: {header.x: '*'}", "match: {header.x: a}", True),
    ("match: {header.x: {exists: true}}", "match: {header.X: a*}", True),
    ("match: {}", "match: {model: a}", True),
    ("loss: refuse", "match: {model: a}", True),
    ("match: {request.tokens: {gt: 10}}", "match: {request.tokens: {gt: 20}}", True),
    ("match: {request.tokens: {gt: 20}}", "match: {request.tokens: {gt: 10}}", False),
    ("match: {format: openai.*}", "match: {format: openai.chat}", True),
    ("match: {model: {not: a}}", "match: {model: b}", False),
    ("match: {model: a}", "match: {model: a}", True),
]


@pytest.mark.parametrize(("earlier", "later", "covered"), COVERED)
def test_a_route_that_an_earlier_one_covers(earlier, later, covered, plan_of):
    text = f"""
        upstreams: {{echo: {ECHO}}}}}
        routes:
          - {{name: one, {earlier}, to: echo}}
          - {{name: two, {later}, to: echo}}
        """
    if not covered:
        assert len(plan_of(text).routes) == 2
        return
    with pytest.raises(rules.RulesError) as raised:
        plan_of(text)
    assert [(problem.code, problem.line) for problem in raised.value.problems] == [("E045", 6)]


# -- the model list


def test_models_that_can_be_named_without_guessing(plan_of, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    plan = plan_of(f"""
        upstreams:
          echo: {ECHO}, models: [e-1, e-2, x-1]}}
          shut: {ECHO}, key: "env:NO_KEY?", models: [o-1]}}
        routes:
          - {{name: named, match: {{model: [a, c*, x-1]}}, to: echo}}
          - {{name: globbed, match: {{model: e-*}}, to: echo}}
          - {{name: odd, match: {{model: big, request.stream: true}}, to: echo/e-9}}
          - {{name: shut, match: {{model: o-*}}, to: shut}}
          - {{name: rest, to: echo/small}}
        """)
    assert [(model.name, model.route.name) for model in plan.models()] == [
        ("a", "named"),
        ("x-1", "named"),
        ("e-1", "globbed"),
        ("e-2", "globbed"),
        ("big", "odd"),
        ("small", "rest"),
    ]


def test_authenticators_are_listed_for_the_model_list(plan_of):
    plan = plan_of(f"""
        upstreams: {{echo: {ECHO}}}}}
        routes: [{{name: r, chain: [{MARK}, {use("Gatekeeper", "g")}], to: echo}}]
        """)
    (route,) = plan.routes
    assert route.authenticates and [each.options.name for each in route.authenticators] == ["g"]


# -- exposure


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        ("127.0.0.1:8080", True),
        ("127.9.9.9:1", True),
        ("[::1]:8080", True),
        ("localhost:8080", True),
        ("unix:/tmp/a", True),
        ("0.0.0.0:8080", False),
        ("[::]:8080", False),
        ("10.0.0.1:80", False),
        ("gate.example:80", False),
    ],
)
def test_an_open_route_is_for_this_machine_alone(listen, local, plan_of):
    text = f"upstreams: {{echo: {ECHO}}}}}\nroutes: [{{name: r, to: echo}}]"
    problem = rules.check_exposure(plan_of(text), listen)
    assert (problem is None) is local
    assert rules.check_exposure(plan_of("server: {anonymous: allow}\n" + text), listen) is None
    guarded = text.replace("to: echo", 'chain: ["rule_parts:Gatekeeper"], to: echo')
    assert rules.check_exposure(plan_of(guarded), listen) is None


@pytest.mark.parametrize("text", ["", "8080", ":8080", "a:b", "::1:80", "a:70000", "unix:", "a:٣"])
def test_addresses_that_are_none(text):
    with pytest.raises(ValueError, match="listen:"):
        rules.parse_listen(text)


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:0", "unix:/a/b", "host.example:65535"])
def test_addresses_are_spelled_as_they_were_read(text):
    assert str(rules.parse_listen(text)) == text


# -- life


def living(name: str) -> str:
    return use("Living", name)


async def test_what_was_started_is_stopped_in_reverse(plan_of, parts):
    plan = plan_of(f"""
        upstreams: {{echo: {ECHO}, chain: [{living("up")}]}}}}
        chains: {{base: [{living("one")}, {living("two")}, {MARK}]}}
        routes:
          - {{name: a, match: {{model: a}}, chain: base, to: echo}}
          - {{name: b, chain: base, to: echo}}
        """)
    assert parts.HISTORY == []
    await plan.start()
    assert parts.HISTORY == ["start up", "start one", "start two"]
    await plan.aclose()
    assert parts.HISTORY[3:] == ["stop two", "stop one", "stop up"]
    await plan.aclose()
    assert len(parts.HISTORY) == 6


async def test_a_failed_start_stops_what_was_started(plan_of, parts):
    plan = plan_of(f"""
        upstreams: {{echo: {ECHO}}}}}
        routes: [{{name: a, chain: [{living("one")}, "rule_parts:Stillborn", {living("two")}], to: echo}}]
        """)
    with pytest.raises(RuntimeError, match="cannot start"):
        await plan.start()
    assert parts.HISTORY == ["start one", "stop one"]
    await plan.aclose()
    assert parts.HISTORY == ["start one", "stop one"]


RELOAD = """
    upstreams:
      same: {adapter: "rule_parts:Echo", base_url: https://a.example, pool: {max_connections: 5}}
      moved: {adapter: "rule_parts:Echo", base_url: https://b.example}
      resized: {adapter: "rule_parts:Echo", pool: {max_connections: 5}}
      gone: {adapter: "rule_parts:Echo"}
    routes:
      - {name: s, match: {model: s}, to: same}
      - {name: m, match: {model: m}, to: moved}
      - {name: r, match: {model: r}, to: resized}
      - {name: g, chain: [CHAIN], to: gone}
    """


async def test_a_reload_takes_over_the_pools_that_did_not_change(plan_of, parts):
    before = plan_of(RELOAD.replace("CHAIN", living("old")))
    await before.start()
    changed = RELOAD.replace("b.example", "c.example").replace('Echo", pool: {max_connections: 5}', 'Echo", pool: {}')
    changed = changed.replace("gone", "new").replace("CHAIN", living("new")).replace("{model: s}", "{model: s*}")
    after = plan_of(changed, previous=before)
    old, new = before.upstreams, after.upstreams
    kept = {name for name in old if name in new and new[name].transport is old[name].transport}
    assert kept == {"same"}

    closed: list[str] = []
    for plan in (before, after):
        for name, upstream in plan.upstreams.items():
            _watch(upstream.transport, f"{'new ' if plan is after and name not in kept else ''}{name}", closed)
    await after.start()
    await before.retire(after)
    assert sorted(closed) == ["gone", "moved", "resized"]
    assert parts.HISTORY == ["start old", "start new", "stop old"]
    await after.aclose()
    assert sorted(closed[3:]) == ["new moved", "new new", "new resized", "same"]


def _watch(transport, name: str, closed: list[str]) -> None:
    close = transport.aclose
    if getattr(close, "watched", False):
        return

    async def aclose() -> None:
        closed.append(name)
        await close()

    aclose.watched = True
    transport.aclose = aclose


@pytest.mark.parametrize("order", ["first ends first", "second ends first"])
async def test_a_pool_lives_as_long_as_the_last_plan_that_uses_it(order, plan_of):
    first = plan_of(RELOAD.replace("CHAIN", MARK))
    await first.start()
    second = plan_of(RELOAD.replace("CHAIN", MARK), previous=first)
    await second.start()
    third = plan_of(RELOAD.replace("CHAIN", MARK).replace("b.example", "c.example"), previous=second)
    await third.start()
    closed: list[str] = []
    _watch(first.upstreams["moved"].transport, "old", closed)
    if order == "first ends first":
        await first.retire(second)
        assert closed == []
        await second.retire(third)
    else:
        await second.retire(third)
        assert closed == []
        await first.retire(second)
    assert closed == ["old"]
    _watch(third.upstreams["same"].transport, "same", closed)
    await third.aclose()
    assert closed == ["old", "same"]


async def test_a_plan_that_was_never_started_takes_no_pool_with_it(plan_of):
    first = plan_of(RELOAD.replace("CHAIN", MARK))
    await first.start()
    closed: list[str] = []
    _watch(first.upstreams["same"].transport, "same", closed)
    stillborn = plan_of(RELOAD.replace("CHAIN", '"rule_parts:Stillborn"'), previous=first)
    with pytest.raises(RuntimeError):
        await stillborn.start()
    await plan_of(RELOAD.replace("CHAIN", MARK), previous=first).aclose()
    assert closed == []
    successor = plan_of(RELOAD.replace("CHAIN", MARK), previous=first)
    await first.retire(successor)
    assert closed == []
    await successor.start()
    await successor.aclose()
    assert closed == ["same"]


async def test_a_broken_file_leaves_the_old_plan_alone(plan_of, facts):
    before = plan_of(RELOAD.replace("CHAIN", MARK))
    with pytest.raises(rules.RulesError):
        plan_of(RELOAD.replace("CHAIN", "nonsense"), previous=before)
    assert before.match(facts("s")).name == "s"
    await before.aclose()


async def test_every_pool_is_closed_even_if_one_fails(plan_of, parts):
    plan = plan_of(RELOAD.replace("CHAIN", living("x")))
    await plan.start()
    closed: list[str] = []
    for name, upstream in plan.upstreams.items():
        _watch(upstream.transport, name, closed)

    async def fail() -> None:
        raise OSError("cannot close")

    plan.upstreams["moved"].transport.aclose = fail
    with pytest.raises(OSError, match="cannot close"):
        await plan.aclose()
    assert sorted(closed) == ["gone", "resized", "same"]
    assert parts.HISTORY == ["start x", "stop x"]


def test_loading_opens_nothing_and_the_path_names_the_file(tmp_path, parts):
    path = tmp_path / "rules.yaml"
    path.write_text(f"version: 1\nupstreams: {{echo: {ECHO}}}}}\nroutes: [{{name: r, to: echo}}]\n")
    plan = rules.load(path)
    assert plan.source == str(path) and parts.HISTORY == [] and plan.warnings == ()
