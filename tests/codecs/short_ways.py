"""What the tests of the short ways share: objects that are common but for one thing or two, and a way to compare values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from msgspec import Raw, Struct

TEXTS = st.sampled_from(["", "hi", " ", 'é\n"', "\U0001f600 x"])
NULLS = st.none()


def objects(
    needed: dict[str, st.SearchStrategy[Any]], may: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[Any]:
    """Objects in any order of members, now and then with a null or an unknown member."""
    odd = st.one_of(st.just({}), st.just({}), st.just({}), st.sampled_from([{"x_own": 1}, {"x_own": None}]))
    some = st.fixed_dictionaries(needed, optional={name: st.one_of(it, it, it, NULLS) for name, it in may.items()})
    return st.tuples(some, odd).flatmap(
        lambda pair: st.permutations(list({**pair[0], **pair[1]}.items())).map(
            dict
        )  # order decides what extras look like
    )


def told(value: object) -> object:
    """All there is to compare in a value: the order of unknown members too, which is how they are written again."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, Struct):
        return type(value).__name__, [told(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, Mapping):
        return [(name, told(member)) for name, member in value.items()]
    if isinstance(value, (tuple, list)):
        return [told(member) for member in value]
    return value
