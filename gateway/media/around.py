"""Around an upstream that takes bytes alone: what a request gives by URL is fetched before it is asked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol, get_args, runtime_checkable

from ..call import Call
from ..chain import Next
from ..ir.message import Media
from ..relay.reply import Reply
from .inline import Kind, inlined, losses, places, shown
from .options import FetchRules

ALL: Final[frozenset[str]] = frozenset(get_args(Kind))


@runtime_checkable
class NeedsBytes(Protocol):
    """An adapter whose provider takes these kinds of media as data alone."""

    needs_bytes: frozenset[str]


class MediaFetching:
    """Serves calls by way of ``serve``, with their files in them."""

    def __init__(self, kinds: Collection[str], rules: FetchRules, serve: Next) -> None:
        self._kinds = frozenset(kinds)
        self._rules = rules
        self._serve = serve

    async def __call__(self, call: Call, /) -> Reply:
        """Fetch what must be fetched. Raises CallerError for what cannot be had."""
        wanted = self._wanted(call)
        if wanted:
            request = call.request
            call.ledger.add_request(losses(request, wanted))
            call = call.with_request(await inlined(request, wanted, self._rules))
        return await self._serve(call)

    def ask(self, call: Call) -> Call:
        """Return the call as it would be served, noting what would be fetched; nothing is asked of anybody."""
        if not (wanted := self._wanted(call)):
            return call
        call.ledger.add_request(losses(call.request, wanted))
        return call.with_request(shown(call.request, wanted))

    def _wanted(self, call: Call) -> dict[str, tuple[str, Media]]:
        if call.counts or call.passed is not None:
            return {}
        wire = call.wire
        if call.body is not None and wire is not None and not wire.has_image and self._kinds == {"image"}:
            return {}  # as most requests: nothing is decoded for it
        return places(call.request, self._kinds, self._rules)


def needed(adapter: object, *, all_kinds: bool) -> frozenset[str]:
    """Return the kinds of media that must be bytes for ``adapter``; ``all_kinds``: whatever it says itself."""
    if all_kinds:
        return ALL
    return adapter.needs_bytes if isinstance(adapter, NeedsBytes) else frozenset()
