"""Every mistake of shape that one slip makes of a whole rule file is found at its place, and told with the right name."""

import pytest

from .emit import emit
from .mutants import WHOLE, missing_keys, missing_units, misspelt_keys, mutants, wrong_types

# What one slip brings about elsewhere: the key is missing, its names are, and what had conditions has none.
CONSEQUENCES = {"E010", "E033", "E045", "E052"}
STYLES = {"block": 99, "flow": 2}


@pytest.mark.parametrize("style", STYLES)
def test_the_whole_file_is_in_order(style, problems_of):
    assert problems_of(emit(WHOLE, flow_below=STYLES[style]).text) == []


def test_there_are_many_mistakes_of_each_sort():
    for sort in (misspelt_keys, wrong_types, missing_units):
        assert len(list(sort())) >= 50
    assert len(list(missing_keys())) >= 12
    assert len({mutant.title for mutant in mutants()}) == len(list(mutants()))


@pytest.mark.parametrize("style", STYLES)
def test_a_mistake_is_told_at_its_place(style, problems_of):
    wrong = []
    for mutant in mutants():
        written = emit(mutant.data, flow_below=STYLES[style])
        place = (written.keys if mutant.at_key else written.values)[mutant.path]
        problems = problems_of(written.text)
        there = [each for each in problems if (each.line, each.column, each.code) == (*place, mutant.code)]
        meant = f'did you mean "{mutant.named}"?' if mutant.at_key else mutant.named
        others = [each for each in problems if each.severity == "error" and each not in there]
        found = any(meant in f"{each.message} {each.hint}" for each in there)
        if not found or any(each.code not in CONSEQUENCES for each in others):
            wrong.append((mutant.title, place, [str(each).partition(":")[2] for each in problems]))
    assert wrong == []
