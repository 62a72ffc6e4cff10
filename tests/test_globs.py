"""Globs against a plain reading of what they mean."""

import pytest
from headgate.gateway.globs import Glob, any_of
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = [
    ("gpt-5", ["gpt-5"], ["gpt-5.4", "GPT-5", ""]),
    ("gpt-*", ["gpt-", "gpt-5"], ["gpt", "xgpt-5"]),
    ("*-mini", ["-mini", "gpt-mini"], ["mini", "gpt-mini2"]),
    ("*son*", ["son", "a sonnet"], ["so", "s on"]),
    ("*", ["", "anything\nat all"], []),
    ("", [""], ["a"]),
    ("?", ["a", "é"], ["", "ab"]),
    ("a?c", ["abc", "a?c"], ["ac", "abbc"]),
    ("a*b*c", ["abc", "aXbYc", "abbc"], ["ab", "acb", "abcd"]),
    ("*a?*b", ["axb", "aab", "1a2b"], ["ab", "b"]),
    ("claude-*-4?5", ["claude-x-4-5", "claude--4.5"], ["claude-4-5"]),
    ("a.b[c]+", ["a.b[c]+"], ["axbc"]),
    ("a**b", ["ab", "aXb"], ["a"]),
]


@pytest.mark.parametrize(("pattern", "yes", "no"), CASES, ids=[case[0] for case in CASES])
def test_globs(pattern, yes, no):
    test = Glob.parse(pattern).compile()
    assert [text for text in yes if not test(text)] == []
    assert [text for text in no if test(text)] == []


def reference(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(reference(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and reference(pattern[1:], text[1:])


PATTERNS = st.text("ab*?", max_size=7)
TEXTS = st.text("ab", max_size=8)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, TEXTS)
def test_compiled_globs_mean_what_they_say(pattern, text):
    assert Glob.parse(pattern).compile()(text) == reference(pattern, text)


@settings(max_examples=150, deadline=None)
@given(st.lists(PATTERNS, min_size=1, max_size=4), TEXTS)
def test_a_list_of_globs_is_any_of_them(patterns, text):
    assert any_of([Glob.parse(each) for each in patterns])(text) == any(reference(each, text) for each in patterns)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, PATTERNS, st.lists(TEXTS, max_size=12))
def test_a_glob_that_covers_another_matches_all_it_matches(wide, narrow, texts):
    if Glob.parse(wide).covers(Glob.parse(narrow)):
        for text in texts:
            assert not reference(narrow, text) or reference(wide, text)


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("*", "a", True),
        ("*", "*", True),
        ("a*", "ab*", True),
        ("a*", "abc", True),
        ("*b", "ab", True),
        ("a*c", "ab*bc", True),
        ("?", "a", True),
        ("?*", "a*", True),
        ("a?", "a?", True),
        ("ab*", "a*", False),
        ("a", "a*", False),
        ("?", "*", False),
        ("a*", "*a", False),
    ],
)
def test_covering(wide, narrow, covers):
    assert Glob.parse(wide).covers(Glob.parse(narrow)) is covers


@pytest.mark.timeout(30)
def test_no_pattern_hangs():
    # each star could begin anywhere: a backtracking matcher would need about 10**20 steps
    test = Glob.parse("*a" * 12 + "b").compile()
    assert not test("a" * 20_000)


def test_globs_are_spelled_as_they_were_read():
    assert [str(Glob.parse(case[0])) for case in CASES] == [case[0].replace("**", "*") for case in CASES]
