"""Canonical layout: what changes, what never does, and that formatting twice is formatting once."""

import json
from pathlib import Path

import pytest
from headgate.gateway.rules.document import parse, plain
from headgate.gateway.rules.layout import CannotLayOut, lay_out
from headgate.gateway.rules.problems import Problems
from hypothesis import given, settings
from hypothesis import strategies as st

from .emit import emit
from .mutants import WHOLE

ROOT = Path(__file__).parents[2]
SHIPPED = [ROOT / "routes.yaml", *sorted((ROOT / "examples" / "routes").glob("*.yaml"))]

# title, before, after
CASES = [
    ("indentation", "a:\n     b:\n       c: 1\n", "a:\n  b:\n    c: 1\n"),
    ("a list in the column of its key", "a:\n- b\n- c: 1\n  d: 2\ne: 3\n", "a:\n  - b\n  - c: 1\n    d: 2\ne: 3\n"),
    ("a list in a list", "a:\n-   - b\n    - c\n-  d\n", "a:\n  - - b\n    - c\n  - d\n"),
    ("spaces behind colons and dashes", "a:   1\nb:\n  -   x\n", "a: 1\nb:\n  - x\n"),
    ("spaces within brackets", "a: { b : [ 1,2 ,  3 ],c: {} }\n", "a: {b: [1, 2, 3], c: {}}\n"),
    ("nothing behind a colon", "a: {b: , c: }\nd:\n", "a: {b: , c: }\nd:\n"),
    ("an alias as a value", "a: &x {b: 1}\nc:   *x\nd: {<<:   *x}\n", "a: &x {b: 1}\nc: *x\nd: {<<: *x}\n"),
    ("an anchor of a block", "a:   &x\n    b: 1\n", "a: &x\n  b: 1\n"),
    ("spaces at the end of lines", "a: 1  \n# c  \n", "a: 1\n# c\n"),
    ("empty lines", "\n\na: 1\n\n\n\nb: 2\n\n\n", "a: 1\n\nb: 2\n"),
    ("no line break at the end", "a: 1", "a: 1\n"),
    ("carriage returns", "a: 1\r\nb:\r\n- c\r\n", "a: 1\nb:\n  - c\n"),
    ("a comment behind", "a: 1 # x\n", "a: 1  # x\n"),
    ("comments in one column", "a: 1    # x\nbcd: 2  # y\n", "a: 1    # x\nbcd: 2  # y\n"),
    ("comments in a column too far", "a: 1        # x\nbcd: 2      # y\n", "a: 1    # x\nbcd: 2  # y\n"),
    ("values in one column", "ab:   {x: 1}\nabcd: [2]\n", "ab:   {x: 1}\nabcd: [2]\n"),
    ("values in a column too far", "ab:      1\nabcd:    2\n", "ab:   1\nabcd: 2\n"),
    ("a column ends with an empty line", "ab:   1\n\nabcd: 2\n", "ab: 1\n\nabcd: 2\n"),
    ("a comment before a key", "a:\n    # x\n    b: 1\n    # y\n# z\nc: 2\n", "a:\n  # x\n  b: 1\n  # y\n# z\nc: 2\n"),
    ("a comment in a list", "a:\n# x\n- b\n# y\n- c\n# z\nd: 1\n", "a:\n  # x\n  - b\n  # y\n  - c\n# z\nd: 1\n"),
    ("a comment behind a loose list of mappings", "a:\n- b: 1\n# z\nd: 1\n", "a:\n  - b: 1\n# z\nd: 1\n"),
    (
        "comments within brackets",
        "a: [ # x\n 1, # y\n # z\n   2\n ]\n",
        "a: [  # x\n  1,  # y\n  # z\n  2\n]\n",
    ),
    ("brackets in brackets", "a: [{b: [\n1,\n2]}, 3\n]\n", "a: [{b: [\n  1,\n  2]}, 3\n]\n"),
    ("a comment at the very end", "a: 1\n  # x", "a: 1\n# x\n"),
    ("only a comment", "   # x\n\n\n# y", "# x\n\n# y\n"),
    ("nothing", "", ""),
    ("a block scalar", "a:\n    b: |\n        x\n          # no comment  \n\n        y\n    c: 1\n",
     "a:\n  b: |\n      x\n        # no comment  \n\n      y\n  c: 1\n"),
    ("a block scalar with an indicator", "a:\n- |2\n   x\n- 1\n", "a:\n  - |2\n     x\n  - 1\n"),
    ("a folded one at the end", "a:\n- >-\n  x\n  y", "a:\n  - >-\n    x\n    y\n"),
    ("a text over lines", 'a: "x\n        y\n\n        z" # c\n', 'a: "x\n  y\n\n  z"  # c\n'),
    ("a plain text over lines", "a: x\n     y\nb: 1\n", "a: x\n  y\nb: 1\n"),
    ("quotes stay", "a: 'x'\nb: \"y\"\n\"c\": z\n", "a: 'x'\nb: \"y\"\n\"c\": z\n"),
    ("other alphabets", "é𝄞:   {日本: 'ü' } # 𝄞\n", "é𝄞: {日本: 'ü'}  # 𝄞\n"),
    ("a document's mark", "---\na:   1\n", "---\na: 1\n"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_layout(before, after):
    assert lay_out(before) == after
    assert lay_out(after) == after


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_are_in_canonical_layout(path):
    text = path.read_text(encoding="utf-8")
    assert lay_out(text) == text


def test_a_form_that_is_not_known_is_left_alone():
    with pytest.raises(CannotLayOut, match="line 2"):
        lay_out("a: 1\n? b\n: 2\n")


@pytest.mark.parametrize("flow_below", [99, 4, 2, 1])
def test_a_whole_file_keeps_its_meaning(flow_below):
    text = emit(WHOLE, flow_below=flow_below).text
    laid = lay_out(text)
    assert plain(parse(laid, "f", Problems())) == WHOLE
    assert lay_out(laid) == laid


KEYS = st.text("abcé", min_size=1, max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 99) | st.text("ab #:'\"-\né", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4), st.integers(1, 5), st.randoms(use_true_random=False))
def test_spaces_and_comments_anywhere_change_nothing(data, flow_below, random):
    lines = emit(data, flow_below=flow_below).text.splitlines()
    messy = []
    for line in lines:
        messy += random.choice([[], [], [""], ["", ""], ["# alone"], [" " * random.randint(0, 6) + "#at large"]])
        messy.append(line + random.choice(["", "", "  ", " # behind", "      #far"]))
    text = "\n".join(messy)
    laid = lay_out(text)
    assert plain(parse(laid, "f", Problems())) == data
    assert [part.strip() for part in laid.split("\n") if part.strip().startswith("#")] == [
        part.strip() for part in messy if part.strip().startswith("#")
    ]
    assert lay_out(laid) == laid


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*|>'\"#, \n1é", max_size=40))
def test_any_yaml_is_laid_out_or_left_alone(text):
    problems = Problems()
    parse(text, "f", problems)
    if problems.failed:
        return
    try:
        laid = lay_out(text)
    except CannotLayOut:
        return
    assert lay_out(laid) == laid
    assert json.dumps(plain_or_none(laid)) == json.dumps(plain_or_none(text))


def plain_or_none(text):
    root = parse(text, "f", Problems())
    return None if root is None else plain(root)
