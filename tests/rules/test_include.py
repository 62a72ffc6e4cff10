"""Several files as one: order, names, places, paths, bounds."""

import textwrap
from pathlib import Path

import pytest
from headgate.gateway import rules
from headgate.gateway.rules.include import MAX_DEPTH, MAX_FILES

SIM = "upstreams: {sim: {adapter: simulator}}\n"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Return a function that writes files below a directory, and returns the path of routes.yaml there."""
    monkeypatch.chdir(tmp_path)

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return tmp_path / "routes.yaml"

    return write


def said(path, severity="error"):
    return [
        (Path(problem.source).name, problem.line, problem.column, problem.code)
        for problem in rules.check(path)
        if problem.severity == severity
    ]


def names(path):
    return [route.name for route in rules.load(path).routes]


def route(name):
    return f"routes: [{{name: {name}, match: {{model: {name}}}, to: sim}}]\n"


def test_own_routes_come_first_then_those_of_the_list_in_its_order(tree):
    path = tree(
        routes=f"version: 1\ninclude: [b.yaml, parts/*.yaml, a.yaml]\n{SIM}{route('own')}",
        a=route("a"),
        b="include: deep/c.yaml\n" + route("b"),
        deep__c=route("c"),
        parts__2=route("two"),
        parts__1=route("one"),
    )
    assert names(path) == ["own", "b", "c", "one", "two", "a"]
    assert said(path) == []


def test_a_single_path_needs_no_list_and_the_version_may_be_repeated(tree):
    path = tree(routes=f"version: 1\ninclude: a.yaml\n{SIM}", a="version: 1\n" + route("a"))
    assert names(path) == ["a"]
    tree(a="version: 2\n" + route("a"))
    assert said(path) == [("a.yaml", 1, 10, "E014")]


def test_the_version_of_the_first_file_cannot_come_from_another(tree):
    path = tree(routes=f"include: a.yaml\n{SIM}", a="version: 1\n" + route("a"))
    assert said(path) == [("routes.yaml", 1, 1, "E010")]


def test_sections_are_one_name_space_over_all_files(tree):
    path = tree(
        routes="version: 1\ninclude: [a.yaml, b.yaml]\nroutes: [{name: r, chain: base, to: best}]\n",
        a="chains: {base: [log]}\nupstreams: {sim: {adapter: simulator, chain: [{chain: base}]}}\n",
        b="targets: {best: {select: [use: sim]}}\ntests: [{name: t, given: {model: x}, expect: {upstream: sim}}]\n",
    )
    plan = rules.load(path)
    assert [route.chain_names for route in plan.routes] == [("log",)]
    trials, problems = rules.try_out(path)
    assert [trial.passed for trial in trials] == [True] and problems == []


def test_tests_of_all_files_run_and_fail_at_their_own_place(tree):
    test = "tests:\n  - {name: %s, given: {model: x}, expect: {upstream: %s}}\n"
    path = tree(
        routes=f"version: 1\ninclude: a.yaml\n{SIM}routes: [{{name: r, to: sim}}]\n" + test % ("one", "sim"),
        a=test % ("two", "mis"),
    )
    trials, _ = rules.try_out(path)
    assert [(trial.name, trial.passed) for trial in trials] == [("one", True), ("two", False)]
    assert said(path) == [("a.yaml", 2, 55, "E060")]


@pytest.mark.parametrize(
    ("here", "there", "place", "message"),
    [
        ("chains: {a: [log]}", "chains: {a: [log]}", (1, 10), 'chains has "a" in routes.yaml on line 4 already'),
        ("targets: {a: {select: [use: sim]}}", "chains: {a: []}", (1, 10), '"a" is a target in routes.yaml on line 4'),
        ("server: {workers: 1}", "server: {drain: 1s}", (1, 1), '"server" stands in routes.yaml on line 4 already'),
        ("defaults: {}", "defaults: {}", (1, 1), '"defaults" stands in routes.yaml on line 4 already'),
        ("routes: [{name: a, to: sim}]", "routes: [{name: a, to: sim}]", (1, 17), 'route "a" in routes.yaml on line 4'),
        (
            "tests: [{name: a, given: {}, expect: {route: null}}]",
            "tests: [{name: a, given: {}, expect: {route: null}}]",
            (1, 16),
            'test "a" in routes.yaml on line 4',
        ),
    ],
)
def test_what_stands_in_two_files_names_both_places(here, there, place, message, tree):
    path = tree(routes=f"version: 1\ninclude: a.yaml\n{SIM}{here}\n", a=f"{there}\n")
    (problem,) = [problem for problem in rules.check(path.name) if problem.code == "E016"]
    assert (problem.source, problem.line, problem.column) == ("a.yaml", *place)
    assert message in problem.message


def test_a_route_for_everything_hides_those_of_included_files(tree):
    path = tree(
        routes=f"version: 1\ninclude: parts/a.yaml\n{SIM}routes: [{{name: all, to: sim}}]\n", parts__a=route("a")
    )
    (problem,) = rules.check(path.name)
    assert (problem.source, problem.code) == ("parts/a.yaml", "E045")
    assert '"all" in routes.yaml on line 4' in problem.message and "come after" in problem.hint


def test_mistakes_are_told_in_their_own_file_all_at_once(tree):
    path = tree(
        routes=f"version: 1\ninclude: [parts/a.yaml, parts/b.yaml]\n{SIM}sever: {{}}\n",
        parts__a="chians: {}\nroutes:\n  - {nmae: x, to: sim}\n",
        parts__b="server: {workers: many}\nroutes:\n  - {name: y, to: smi}\n",
    )
    problems = [str(problem) for problem in rules.check(path.name) if problem.severity == "error"]
    assert [problem.split(" ")[0::2][:2] for problem in problems] == [
        ["parts/a.yaml:1:1", "E012"],
        ["parts/a.yaml:3:5", "E010"],
        ["parts/a.yaml:3:6", "E012"],
        ["parts/b.yaml:1:19", "E011"],
        ["parts/b.yaml:3:19", "E033"],
        ["routes.yaml:4:1", "E012"],
    ]
    assert "routes[0]" in problems[4], "the routes of each file are counted for themselves"


@pytest.mark.parametrize("section", ["upstreams", "chains", "targets", "routes", "tests"])
def test_a_section_of_the_wrong_kind_in_one_of_the_files(section, tree):
    right = "{}" if section in ("upstreams", "chains", "targets") else "[]"
    path = tree(routes=f"version: 1\ninclude: a.yaml\n{section}: {right}\n", a=f"{section}: text\n")
    assert ("a.yaml", 1, len(section) + 3, "E011") in said(path)


def test_paths_are_relative_to_the_file_in_which_they_stand(tree, tmp_path):
    path = tree(
        routes=f"version: 1\ninclude: team/a.yaml\n{SIM}"
        "routes: [{name: r, match: {model: r}, to: sim}, {name: q, to: own}]\n",
        team__a="""\
            server: {tls: {cert: cert.pem, key: key.pem}}
            upstreams:
              own:
                adapter: simulator
                key: file:key.txt
                headers: {x-team: file:team.txt}
                pool: {ca_bundle: ca.pem}
            """,
    )
    missing = [problem for problem in rules.check(path.name) if problem.severity == "error"]
    assert {(problem.line, problem.code) for problem in missing} >= {(1, "E011"), (5, "E021"), (6, "E021")}
    assert all(str(tmp_path / "team") in problem.message for problem in missing if problem.code in ("E021",))
    for name in ("cert.pem", "key.pem", "key.txt", "team.txt"):
        (tmp_path / "team" / name).write_text("x")
    left = [problem for problem in rules.check(path.name) if problem.severity == "error"]
    assert [(problem.line, problem.code) for problem in left] == [(7, "E011")]
    assert str(tmp_path / "team" / "ca.pem") in left[0].message


def test_a_file_that_is_missing_is_an_error_where_it_is_named_and_hides_no_other(tree):
    path = tree(
        routes=f"version: 1\n{SIM}include:\n  - a.yaml\n  - gone.yaml\n  - parts\n{route('own')}",
        a="routes: [\n",
        parts__b="",
    )
    assert said(path) == [("a.yaml", 2, 1, "E002"), ("routes.yaml", 5, 5, "E008"), ("routes.yaml", 6, 5, "E008")]
    hints = [problem.hint for problem in rules.check(path) if problem.code == "E008"]
    assert "parts/*.yaml" in hints[1]


def test_a_missing_file_does_not_make_its_names_seem_unknown(tree):
    path = tree(routes="version: 1\ninclude: gone.yaml\nroutes: [{name: r, to: theirs}]\n")
    assert said(path) == [("routes.yaml", 2, 10, "E008")]


def test_a_file_that_is_no_mapping_or_not_utf8(tree, tmp_path):
    path = tree(routes="version: 1\ninclude: [a.yaml, b.yaml]\n", a="- x\n")
    (tmp_path / "b.yaml").write_bytes(b"\xe9")
    assert said(path) == [("a.yaml", 1, 1, "E011"), ("b.yaml", 1, 1, "E001")]


def test_an_empty_file_is_no_mistake(tree):
    path = tree(routes=f"version: 1\ninclude: a.yaml\n{SIM}{route('r')}", a="# nothing yet\n")
    assert rules.check(path) == []


def test_circles(tree):
    path = tree(
        routes=f"version: 1\n{SIM}include: a.yaml\n{route('r')}",
        a="include: sub/b.yaml\n",
        sub__b="include: [../a.yaml, ../routes.yaml]\n",
    )
    messages = [problem.message for problem in rules.check(path.name) if problem.code == "E009"]
    assert [message.partition(": ")[2].partition(": ")[2] for message in messages] == [
        "a.yaml → sub/b.yaml → a.yaml",
        "routes.yaml → a.yaml → sub/b.yaml → routes.yaml",
    ]


def test_a_file_included_twice_names_the_other_place(tree):
    path = tree(
        routes=f"version: 1\n{SIM}include: [a.yaml, b.yaml]\n",
        a="include: c.yaml\n",
        b="include: ./c.yaml\n",
        c=route("c"),
    )
    (problem,) = [problem for problem in rules.check(path.name) if problem.severity == "error"]
    assert (problem.source, problem.line, problem.column, problem.code) == ("b.yaml", 1, 10, "E009")
    assert "in a.yaml on line 1" in problem.message


def test_a_glob_passes_over_its_own_file_and_what_is_named_outright(tree):
    path = tree(
        routes=f"version: 1\ninclude: ['*.yaml', a.yaml]\n{SIM}{route('r')}",
        a=route("a"),
        b=route("b"),
        c=route("c"),
    )
    assert said(path) == []
    assert names(path) == ["r", "b", "c", "a"]


def test_depth_and_number_are_bounded(tree, tmp_path):
    files = {f"f{at}": f"include: f{at + 1}.yaml\n" for at in range(MAX_DEPTH + 1)}
    path = tree(routes=f"version: 1\ninclude: f0.yaml\n{SIM}{route('r')}", **files, **{f"f{MAX_DEPTH + 1}": ""})
    assert said(path) == [(f"f{MAX_DEPTH - 1}.yaml", 1, 10, "E006")]
    tree(routes="version: 1\ninclude: many/*.yaml\n", **{f"many__{at}": "" for at in range(MAX_FILES)})
    assert said(path) == [("routes.yaml", 2, 10, "E006")]


def test_anchors_end_with_their_file(tree):
    path = tree(routes="version: 1\nx-a: &a {connect: 5s}\ninclude: a.yaml\n", a="defaults: {timeout: *a}\n")
    assert said(path) == [("a.yaml", 1, 21, "E007")]


def test_a_plan_knows_its_files_and_where_globs_look(tree, tmp_path):
    path = tree(
        routes=f"version: 1\ninclude: [a.yaml, parts/*/r.yaml]\n{SIM}{route('r')}", a="", parts__x__r="", parts__y__q=""
    )
    found = {source.relative_to(tmp_path).as_posix() for source in rules.load(path).sources}
    assert found == {"routes.yaml", "a.yaml", "parts", "parts/x", "parts/y", "parts/x/r.yaml"}


def test_a_file_in_error_says_where_a_change_may_mend_it(tree, tmp_path):
    path = tree(routes="version: 1\ninclude: [a.yaml, gone.yaml]\n", a="routes: [\n")
    with pytest.raises(rules.RulesError) as raised:
        rules.load(path)
    assert {source.name for source in raised.value.sources} == {"routes.yaml", "a.yaml", "gone.yaml"}


def test_a_text_includes_relative_to_its_directory(tree, tmp_path):
    tree(a=route("a"))
    plan = rules.loads(f"version: 1\ninclude: a.yaml\n{SIM}", directory=tmp_path)
    assert [route.name for route in plan.routes] == ["a"]
    assert plan.sources == (tmp_path / "a.yaml",)


def test_a_pool_is_taken_over_when_an_upstream_moves_to_another_file_of_the_same_directory(tree):
    upstream = "upstreams: {a: {adapter: openai, key: 'env:HEADGATE_NOT_SET?'}, sim: {adapter: simulator}}\n"
    path = tree(routes=f"version: 1\n{upstream}{route('r')}")
    before = rules.load(path)
    tree(routes=f"version: 1\ninclude: a.yaml\n{route('r')}", a=upstream)
    after = rules.load(path, previous=before)
    assert after.upstreams["sim"].pool is before.upstreams["sim"].pool
