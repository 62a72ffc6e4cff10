"""What stands around an upstream because its provider lacks it: emulations, and media that are fetched."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..call import Call
from ..chain import Adapter, Next
from ..emulation.around import Emulation
from ..emulation.checks import is_installed
from ..emulation.options import Emulate
from ..media.around import MediaFetching, needed
from ..media.options import FetchRules
from .document import Node, Table
from .problems import Problems, Spot


class StandIns(NamedTuple):
    """``entry`` serves calls; ``ask`` returns the call that an adapter would be asked for, noting what is stood in for."""

    entry: Next
    ask: Callable[[Call], Call] | None = None


def check(rules: Emulate, fetch: FetchRules | None, node: Table, where: str, problems: Problems) -> None:
    """Note what cannot be stood in for here."""
    if rules.structured_output is not None and not is_installed():
        said = f"{where}.emulate.structured_output needs the extra structured"
        problems.add("E058", _spot(node, "structured_output"), said, 'pip install "headgate[structured]"')
    if rules.media_urls is not None and fetch is None:
        said = f"{where}.emulate.media_urls: no host is allowed to be asked"
        problems.add("E059", _spot(node, "media_urls"), said, 'say which: "media: {fetch: {hosts: [images.example]}}"')


def around(rules: Emulate, fetch: FetchRules | None, adapter: Adapter, serve: Next) -> StandIns:
    """Return ``serve`` with what stands in around it."""
    asks: list[Callable[[Call], Call]] = []
    if rules != Emulate(media_urls=rules.media_urls):
        emulation = Emulation(rules, serve)
        serve = emulation
        asks.append(emulation.ask)
    kinds = needed(adapter, all_kinds=rules.media_urls is not None)
    if kinds and fetch is not None:
        # Outermost, so that a file is fetched once however many calls are made.
        media = MediaFetching(kinds, fetch, serve)
        serve = media
        asks.insert(0, media.ask)
    return StandIns(serve, _one_after_the_other(asks) if asks else None)


def _one_after_the_other(asks: list[Callable[[Call], Call]]) -> Callable[[Call], Call]:
    def ask(call: Call) -> Call:
        for each in asks:
            call = each(call)
        return call

    return ask


def _spot(node: Table, key: str) -> Spot:
    """Return where a key of ``emulate`` stands."""
    table: Node | None = node.get("emulate")
    value = table.get(key) if isinstance(table, Table) else None
    return node.spot if value is None else value.spot
