"""Reranking: a query, documents, and how well each of them answers it."""

from __future__ import annotations

from msgspec import Raw, Struct

from .event import Usage
from .message import NO_EXTRA, Extra


class RerankRequest(Struct, frozen=True):
    """``documents`` are JSON as it came, a text or an object each. ``returns``: whether the answer repeats the documents;
    None: the caller did not say. ``extra`` are the members that the format of the caller does not know."""

    model: str
    query: str
    documents: tuple[Raw, ...]
    top_n: int | None = None
    returns: bool | None = None
    max_tokens_per_doc: int | None = None
    extra: Extra = NO_EXTRA


class Ranked(Struct, frozen=True):
    """One document: its place among those of the request, from 0, and its score; the greater, the better."""

    index: int
    score: float
    extra: Extra = NO_EXTRA


class RerankAnswer(Struct, frozen=True):
    """The documents, best first. ``search_units`` is what a provider that bills by searches counted."""

    results: tuple[Ranked, ...]
    id: str = ""
    usage: Usage | None = None
    search_units: float | None = None
