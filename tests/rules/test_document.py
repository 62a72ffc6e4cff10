"""YAML text into nodes: positions, strictness, bounds."""

import json

import pytest
from headgate.gateway.rules.document import MAX_NODES, Items, Node, Scalar, Table, parse, plain
from headgate.gateway.rules.problems import Problems, Spot, looks_like_key
from hypothesis import given, settings
from hypothesis import strategies as st


def read(text: str) -> tuple[Node | None, list[str]]:
    problems = Problems()
    root = parse(text, "f", problems)
    return root, [problem.code for problem in problems.sorted()]


PLAIN = [
    ("a: 1", {"a": 1}),
    ("a: -7", {"a": -7}),
    ("a: 1.5", {"a": 1.5}),
    ("a: .5", {"a": 0.5}),
    ("a: true", {"a": True}),
    ("a: False", {"a": False}),
    ("a:", {"a": None}),
    ("a: ~", {"a": None}),
    ("a: ''", {"a": ""}),
    ("a: 'on'", {"a": "on"}),
    ('a: "1:30"', {"a": "1:30"}),
    ("a: |\n  on\n", {"a": "on\n"}),
    ("a: 127.0.0.1:8080", {"a": "127.0.0.1:8080"}),
    ("a: gpt-4*", {"a": "gpt-4*"}),
    ("a: 30s", {"a": "30s"}),
    ("a: 2024-10", {"a": "2024-10"}),
    ("a: onwards", {"a": "onwards"}),
    ("a: [x, y: 2]", {"a": ["x", {"y": 2}]}),
    ("'8080': a", {"8080": "a"}),
    ("'<<': a", {"<<": "a"}),
    ("a: 12345678901234567890123", {"a": 12345678901234567890123}),
    ("base: &b {x: 1, y: 2}\nc: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}}),
    (
        "a: &a {x: 1}\nb: &b {x: 2, z: 2}\nc: {y: 0, <<: [*a, *b]}",
        {"a": {"x": 1}, "b": {"x": 2, "z": 2}, "c": {"y": 0, "x": 1, "z": 2}},
    ),
    ("a: &a [1, 2]\nb: *a", {"a": [1, 2], "b": [1, 2]}),
]


@pytest.mark.parametrize(("text", "value"), PLAIN, ids=[case[0] for case in PLAIN])
def test_what_a_text_says(text, value):
    root, codes = read(text)
    assert codes == []
    assert plain(root) == value


AMBIGUOUS = ["yes", "No", "ON", "off", "1:30", "-1:30", "12:30:45", "0o17", "017", "0x1F", "0b11", "1_000", "1e3",
             "1.5E-3", "1.", "1" * 40, "2024-01-31", "2024-1-2 10:00:00", "2024-01-31T10:00:00Z",
             ".inf", "-.Inf", ".NaN"]  # fmt: skip


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_a_text_that_readers_disagree_about_must_be_quoted(text):
    assert read(f"a: {text}")[1] == ["E005"]
    assert read(f"a: '{text}'")[1] == []


def test_nodes_know_where_they_stand():
    root, _ = read("a:\n  - b: 1\n    cé: [x,  yy]\n")
    assert isinstance(root, Table) and root.spot == ("f", 1, 1)
    items = root.get("a")
    assert isinstance(items, Items) and items.spot == ("f", 2, 3)
    table = items.items[0]
    assert isinstance(table, Table) and table.entries["cé"].spot == ("f", 3, 5)
    inner = table.get("cé")
    assert isinstance(inner, Items) and [item.spot[1:] for item in inner.items] == [(3, 10), (3, 14)]


def test_what_an_anchor_brings_keeps_its_own_place():
    root, _ = read("x: &x {a: 1}\ny:\n  <<: *x\n")
    assert isinstance(root, Table)
    merged = root.get("y")
    assert isinstance(merged, Table) and merged.entries["a"].spot == ("f", 1, 8)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: 1\na: 2", "E004"),
        ("a: {b: 1, b: 1}", "E004"),
        ("x: &x {a: 1}\ny: {<<: *x, q: 1, <<: *x}", "E004"),
        ("a: *b", "E007"),
        ("a: &a [*a]", "E007"),
        ("a: &a {b: 1}\nc: {<<: 4}", "E007"),
        ("[a]: 1", "E003"),
        ("? {a: b}\n: 1", "E003"),
        ("1: a", "E003"),
        ("a: !!python/object/apply:os.system [ls]", "E003"),
        ("--- a\n--- b", "E003"),
        ("a: [", "E002"),
        ("a: b: c", "E002"),
        ("a: 'b", "E002"),
        ("a: \x07", "E002"),
        ("no: a", "E005"),
    ],
)
def test_what_is_refused(text, code):
    assert read(text)[1] == [code]


def test_aliases_cannot_blow_up():
    lines = ["x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"x{at}: &x{at} [{', '.join([f'*x{at - 1}'] * 10)}]" for at in range(1, 9)]
    assert read("\n".join(lines))[1] == ["E006"]


def test_bounds():
    assert read("[" * 40 + "]" * 40)[1] == []
    assert read("[" * 42 + "]" * 42)[1] == ["E006"]
    assert read("[" * 300_000)[1] == ["E006"]
    assert read("- a\n" * (MAX_NODES - 1))[1] == []
    assert read("- a\n" * MAX_NODES)[1] == ["E006"]
    assert read("#" * (1024 * 1024 + 1))[1] == ["E006"]


def test_an_empty_text_is_nothing():
    assert read("") == (None, [])
    assert read("# only a comment\n") == (None, [])


KEYS = [
    "sk-abcdefghijklmnopqrst",
    "sk-ant-api03-abcdefghijkl",
    "Bearer abcdefghijklmnop",
    "AKIAABCDEFGHIJKLMNOP",
    "AIzaSyA-abcdefghijklmnopqrstuvwxyz012345",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdef",
    "gsk_abcdefghijklmnopqrstuvwx",
    "-----BEGIN RSA PRIVATE KEY-----",
]
INNOCENT = ["env:SK_KEY", "task-management-service-for-all", "claude-sonnet-4-5-20250929", "gpt-5.4-mini", "sk-short",
            "https://api.example/v1", "hf-transformers-are-not-keys-at-all", "basic chain"]  # fmt: skip


@pytest.mark.parametrize("text", KEYS)
def test_keys_are_recognised_and_never_repeated(text):
    assert looks_like_key(text)
    problems = Problems()
    root = parse(f'a: "{text}"', "f", problems)
    assert isinstance(root, Table) and isinstance(root.get("a"), Scalar)
    (problem,) = problems.sorted()
    assert problem.code == "E020" and text not in str(problem)
    problems.add("E011", Spot("f", 9, 9), f"got {text}", f"not {text}")
    assert text not in str(problems.sorted()[-1])


@pytest.mark.parametrize("text", INNOCENT)
def test_other_texts_are_no_keys(text):
    assert not looks_like_key(text)


_TEXT = st.text(
    st.characters(max_codepoint=0xFFFF, exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff\ufffe\uffff"),
    max_size=40,
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(_JSON)
def test_json_is_read_as_json(value):
    root, codes = read(json.dumps(value))
    assert codes == [] and plain(root) == value


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*?|>'\"%@`#!,~ \n\t<0123456789.é\x00", max_size=40))
def test_no_text_breaks_the_parser(text):
    root, codes = read(text)
    if root is not None and not codes:
        plain(root)
