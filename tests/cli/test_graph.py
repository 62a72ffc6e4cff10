"""``headgate graph``: the drawing says what the plan does, and both languages say what the drawing does, whatever the names."""

import re
from pathlib import Path

import msgspec
import pydot
import pytest
from headgate.gateway import rules
from headgate.gateway.cli.dot import dot
from headgate.gateway.cli.drawing import MAX_LINE, draw
from headgate.gateway.cli.main import main
from headgate.gateway.cli.mermaid import MAX_EDGES, can_be_shown, mermaid
from headgate.gateway.doors import DOORS

pytestmark = pytest.mark.filterwarnings("ignore:.* deprecated - use:DeprecationWarning:pydot")

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "routes").glob("*.yaml"))

RULES = """\
version: 1
upstreams:
  one: {adapter: simulator, chain: [retry]}
  two: {adapter: openai, key: env:HEADGATE_NOT_SET}
  lost: {adapter: simulator, key: "env:HEADGATE_NOT_SET?"}
  idle: {adapter: simulator}
chains:
  base: [log, retry]
targets:
  smart:
    select:
      - {match: {principal.team: red, request.tokens: {gt: 9}}, use: lost/big}
      - split: [{use: inner, weight: 3}, {use: lost}]
        sticky: principal.key
    on_failure:
      - {kinds: [overloaded, connect], use: one}
      - {kinds: [quota], use: lost}
  inner: {select: [use: two/m]}
  gone: {select: [use: lost]}
routes:
  - {name: claude, match: {format: anthropic.messages, model: [a*, b]}, chain: base, to: smart}
  - {name: gone, match: {model: gone}, to: gone}
  - {name: small, match: {model: small}, chain: base, to: one/tiny}
  - {name: other, match: {model: other}, chain: base, to: smart}
  - {name: rest, chain: [log], to: one}
"""

NAMES = [
    "end", "subgraph", "click a call b()", "classDef x fill:#f00;", "style a:#b;c", "linkStyle 0 stroke:#fff;", ":::off",
    "direction TB", "a  direction  LR", "accTitle: x", "%% note", "%%{init: {}}%%", "---", "-->|x|", "=== ---",
    'a"b', "it's", "a;b;", "(a)) ]] }}", "{a}|b|", "| a |", "[x](y)", "![x](y)", "[x]: y", "[ ] task", "1. one", "1) one",
    "- two", "+ plus", "> quote", "# head", "##;;", "* three *", "**bold** _it_ __x__ a_b", "___", "~~strike~~", "`code`",
    "<b>x</b><script>alert(1)</script>", "#35; #quot; &amp; &#35; &lt;", "A & B", "www.example.com http://x.y a@b.c",
    "fa:fa-car fab:fa-x", "$$x^2$$", "$$$", "a\\nb \\N \\G \\\\n", "back\\", "ünï ☃ 😀 漢字 ﬂ°°35¶ß", "🧑‍🚀 x",
    "  two  spaces   ",
    "tab\tline\nmark\u202e", "x: y: z:", "\u200b zero",
]  # fmt: skip

SHAPES = {"([": "])", "[[": "]]", "{{": "}}", "[": "]", "(": ")"}
HARMLESS = re.compile(r"[^\W_]|(?<=[A-Za-z0-9])_(?=[A-Za-z0-9])|:(?= )|#[0-9]+;|[ .,/\[\]{}…-]")
LEFT_TO_MERMAID = re.compile(r"direction |  |www\.|#92;n|#36;#36;|ﬂ#176;|#182;ß|fa[a-z]?#58;fa")
"""What a label would not survive, each seen in a picture that Mermaid 11 drew: what it looks for before and after it has
read entity codes."""


@pytest.fixture
def drawing_of(tmp_path, monkeypatch):
    """Return a function from a rule file's text, or data, to its drawing."""
    monkeypatch.delenv("HEADGATE_NOT_SET", raising=False)

    def drawn(text):
        path = tmp_path / "routes.yaml"
        path.write_text(text if isinstance(text, str) else msgspec.json.encode(text).decode())
        return draw(rules.outline(path))

    return drawn


def said(drawing):
    """A drawing as plain data."""
    nodes = {node.key: (node.lines, node.off) for node in drawing.nodes}
    edges = sorted((edge.start, edge.end, edge.lines, edge.on_failure) for edge in drawing.edges)
    return nodes, edges


def read_mermaid(text):
    """Return what a chart says, as ``said``; every line of it must be one that this module knows."""
    nodes, edges, off, ways, depth = {}, [], set(), {}, 0
    first, *lines = text.splitlines()
    assert first == "flowchart LR"
    for line in map(str.strip, lines):
        if found := re.fullmatch(r'(\w+)(\(\[|\[\[|\{\{|\[|\()"([^"]*)"(\]\)|\]\]|\}\}|\]|\))', line):
            key, before, label, after = found.groups()
            assert SHAPES[before] == after
            nodes[key] = unescaped(label)
        elif found := re.fullmatch(r'(\w+) (-->|-\.->|---|-\.-)(?:\|"([^"]*)"\|)? (\w+)', line):
            start, arrow, label, end = found.groups()
            edges.append((start, end, unescaped(label) if label else (), "." in arrow, ">" in arrow))
        elif found := re.fullmatch(r"class ([\w,]+) (off|way)", line):
            names = found[1].split(",")
            off |= set(names) if found[2] == "off" else set()
            ways |= dict.fromkeys(names) if found[2] == "way" else {}
        elif re.fullmatch(r'subgraph routes\["[\w ,]+"\]', line):
            depth += 1
        elif line == "end":
            depth -= 1
        else:
            assert line in ("classDef off stroke-dasharray: 5 5", "classDef way fill:none,stroke:none"), line
    assert depth == 0
    plain = [edge[:4] for edge in edges if edge[0] not in ways and edge[1] not in ways]
    assert all(edge[4] for edge in edges if edge[1] not in ways), "an arrow at its end"
    for key in ways:
        (into,), (out,) = [[edge for edge in edges if edge[side] == key] for side in (1, 0)]
        assert into[3] == out[3] and not into[2] and not out[2]
        plain.append((into[0], out[1], nodes.pop(key), out[3]))
    assert off <= nodes.keys()
    return {key: (lines, key in off) for key, lines in nodes.items()}, sorted(plain)


def unescaped(label):
    for line in label.split("<br/>"):
        assert "".join(HARMLESS.findall(line)) == line
        assert not LEFT_TO_MERMAID.search(line), line
    text = re.sub(r"#([0-9]+);", lambda code: chr(int(code[1])), label)
    return tuple(text.replace("\u2060", "").replace("\xa0", " ").split("<br/>"))


def read_dot(text):
    """Return what a graph says, as ``said``, by a parser of the language."""
    (graph,) = pydot.graph_from_dot_data(text)
    (cluster,) = graph.get_subgraphs()
    assert cluster.get_name() == "cluster_routes"
    assert all(edge.get("style") == "invis" for inner in cluster.get_subgraphs() for edge in inner.get_edges())
    nodes = {}
    for node in [*graph.get_nodes(), *cluster.get_nodes()]:
        if node.get_name() not in ("node", "edge", "graph"):
            nodes[node.get_name()] = (unquoted(node.get_label()), "dashed" in (node.get("style") or ""))
    edges = [
        (edge.get_source(), edge.get_destination(), unquoted(edge.get_label()), edge.get("style") == "dotted")
        for edge in graph.get_edges()
    ]
    return nodes, sorted(edges)


def unquoted(label):
    """Return the lines of a label, as Graphviz reads an escString and then entities."""
    if label is None:
        return ()
    assert label[0] == label[-1] == '"'
    text = re.sub(r"\\(.)", lambda escape: {"n": "\0", "\\": "\\", '"': '"'}[escape[1]], label[1:-1])
    assert not re.search(r"&(?!amp;)", text)
    return tuple(text.replace("&amp;", "&").split("\0"))


def test_what_is_drawn(drawing_of):
    drawing = drawing_of(RULES)
    assert [(node.key, *node.lines) for node in drawing.nodes] == [
        ("format1", "anthropic.messages"),
        ("format2", *sorted(DOORS.keys() - {"anthropic.messages"})),
        ("route1", "1 claude", "format: anthropic.messages", "model: [a*, b]"),
        ("route2", "2 gone", "model: gone", "off: HEADGATE_NOT_SET is not set"),
        ("route3", "3 small", "model: small"),
        ("route4", "4 other", "model: other"),
        ("route5", "5 rest"),
        ("chain1", "base: log, retry"),
        ("chain2", "log"),
        ("target1", "smart"),
        ("target2", "inner"),
        ("target3", "gone", "off: HEADGATE_NOT_SET is not set"),
        ("upstream1", "lost", "adapter: simulator", "off: HEADGATE_NOT_SET is not set"),
        ("upstream2", "two", "adapter: openai"),
        ("upstream3", "one", "adapter: simulator", "chain: retry"),
    ]
    assert {node.key for node in drawing.nodes if node.off} == {"route2", "target3", "upstream1"}
    assert [(edge.start, edge.end, *edge.lines) for edge in drawing.edges if not edge.on_failure] == [
        *[("format1", f"route{at}") for at in (1, 2, 3, 4, 5)],
        *[("format2", f"route{at}") for at in (2, 3, 4, 5)],
        ("route1", "chain1"),
        ("route2", "target3"),
        ("route3", "chain1"),
        ("route4", "chain1"),
        ("route5", "chain2"),
        ("chain1", "target1", "1 claude, 4 other"),
        ("chain1", "upstream3", "3 small", "as tiny"),
        ("chain2", "upstream3"),
        ("target1", "upstream1", "select[0]", "principal.team: red", "request.tokens: {gt: 9}", "as big"),
        ("target2", "upstream2", "as m"),
        ("target1", "target2", "select[1]", "otherwise", "weight 3", "sticky: principal.key"),
        ("target1", "upstream1", "select[1]", "otherwise", "weight 1", "sticky: principal.key"),
        ("target3", "upstream1"),
    ]
    assert [(edge.start, edge.end, *edge.lines) for edge in drawing.edges if edge.on_failure] == [
        ("target1", "upstream3", "on_failure[0]", "connect, overloaded"),
        ("target1", "upstream1", "on_failure[1]", "quota"),
    ]


def test_formats_that_reach_the_same_routes_stand_in_one_box(drawing_of):
    drawing = drawing_of(RULES.replace("format: anthropic.messages", "path: /x"))
    assert [node.lines for node in drawing.of("format")] == [tuple(sorted(DOORS))]
    one = "version: 1\nupstreams: {s: {adapter: simulator}}\nroutes: [{name: a, match: {format: openai.chat}, to: s}]\n"
    lines = [node.lines for node in drawing_of(one).of("format")]
    assert lines == [(*sorted(DOORS.keys() - {"openai.chat"}), "no route takes it"), ("openai.chat",)]


def test_what_is_long_is_cut_or_goes_on_in_the_next_line(drawing_of):
    match = {f"header.x-{at}": "v" for at in range(9)} | {"model": "m" * 99}
    data = {
        "version": 1,
        "upstreams": {"s": {"adapter": "simulator"}},
        "chains": {"base": ["log"] * 20},
        "routes": [{"name": "n" * 99, "match": match, "chain": "base", "to": "s"}],
    }
    drawing = drawing_of(data)
    (route,), (chain,) = drawing.of("route"), drawing.of("chain")
    assert route.lines[0] == "1 " + "n" * (MAX_LINE - 3) + "…"
    assert (len(route.lines), route.lines[-1]) == (6, "and 6 more conditions")
    assert len(chain.lines) == 3 and " ".join(chain.lines) == "base: " + ", ".join(["log"] * 20)
    assert all(len(line) <= MAX_LINE for node in drawing.nodes for line in node.lines)


@pytest.mark.parametrize("language", ["mermaid", "dot"])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_written_down_as_they_are_drawn(path, language, capsys):
    drawing = draw(rules.outline(path))
    assert main(["graph", str(path), "--format", language]) == 0
    text = capsys.readouterr().out
    assert (read_mermaid(text) if language == "mermaid" else read_dot(text)) == said(drawing)
    assert can_be_shown(drawing, text)


@pytest.mark.parametrize(("read", "write"), [(read_mermaid, mermaid), (read_dot, dot)], ids=["mermaid", "dot"])
def test_ways_and_states_are_written_down(read, write, drawing_of):
    drawing = drawing_of(RULES)
    assert read(write(drawing)) == said(drawing)


@pytest.mark.parametrize(("read", "write"), [(read_mermaid, mermaid), (read_dot, dot)], ids=["mermaid", "dot"])
def test_no_name_breaks_out_of_its_label(read, write, drawing_of):
    routes = [
        {"name": name, "match": {"model": {"prefix": name}}, "chain": ["log"], "to": f"s/{name}"} for name in NAMES
    ]
    select = [*({"match": {"header.x-a": name}, "use": f"s/{name}"} for name in NAMES), {"use": "s"}]
    drawing = drawing_of(
        {
            "version": 1,
            "upstreams": {"s": {"adapter": "simulator"}},
            "targets": {"t": {"select": select}},
            "routes": [*routes, {"name": "t", "to": "t"}],
        }
    )
    assert len(drawing.of("route")) == len(NAMES) + 1
    assert read(write(drawing)) == said(drawing)


@pytest.mark.parametrize(
    ("extra", "asked", "lines"),
    [
        (
            "re2",
            {"match": {"model": {"regex": '^(a|b){2}[^"#;]+$'}, "query.q": {"not": ["a", {"prefix": "b*"}]}}},
            ('model: {regex: ^(a|b){2}[^"#;]+$}', "query.q: {not: [a, {prefix: b*}]}"),
        ),
        (
            "cel_expr_python",
            {"when": 'request.tokens > 9\n&& header["x"] == "a|b"'},
            ('when: request.tokens > 9 && header["x"] == …',),
        ),
    ],
    ids=["regex", "when"],
)
def test_what_needs_an_extra(extra, asked, lines, drawing_of):
    pytest.importorskip(extra)
    upstreams = {"s": {"adapter": "simulator"}}
    drawing = drawing_of({"version": 1, "upstreams": upstreams, "routes": [{"name": "r", **asked, "to": "s"}]})
    (route,) = drawing.of("route")
    assert route.lines[1:] == lines
    assert read_mermaid(mermaid(drawing)) == read_dot(dot(drawing)) == said(drawing)


def test_a_picture_is_written_to_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "routes.yaml").write_text(RULES)
    assert main(["graph"]) == 0
    printed = capsys.readouterr().out
    assert main(["graph", "-o", "routes.mmd"]) == 0
    assert (tmp_path / "routes.mmd").read_text(encoding="utf-8") == printed
    assert capsys.readouterr().out == "wrote routes.mmd\n"
    assert main(["graph", "-o", "gone/routes.mmd"]) == 1
    assert "cannot write gone/routes.mmd: No such file" in capsys.readouterr().err


def test_a_file_with_mistakes_is_not_drawn(tmp_path, capsys):
    path = tmp_path / "routes.yaml"
    path.write_text(RULES.replace("to: smart", "to: smrat"))
    assert main(["graph", str(path)]) == 1
    shown = capsys.readouterr()
    assert "E033" in shown.err and shown.out == ""
    with pytest.raises(SystemExit):
        main(["graph", "--format", "svg"])


def test_a_chart_that_mermaid_would_not_draw_is_said_to_be_too_large(tmp_path, capsys):
    path = tmp_path / "routes.yaml"
    routes = [{"name": f"r{at}", "match": {"model": f"m{at}"}, "to": "s"} for at in range(MAX_EDGES // 2 + 1)]
    data = {"version": 1, "upstreams": {"s": {"adapter": "simulator"}}, "routes": routes}
    path.write_bytes(msgspec.json.encode(data))
    assert main(["graph", str(path)]) == 0
    assert "--format dot" in capsys.readouterr().err
    path.write_bytes(msgspec.json.encode({**data, "routes": routes[:-1]}))
    assert main(["graph", str(path)]) == 0
    assert main(["graph", str(path), "--format", "dot"]) == 0
    assert capsys.readouterr().err == ""
