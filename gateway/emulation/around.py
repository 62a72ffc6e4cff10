"""The emulations of one upstream, put around it: around its chain, so that retries concern each call that is made."""

from __future__ import annotations

from functools import partial

from ..call import Call
from ..chain import Next
from ..doors import APART
from ..relay.reply import Reply
from . import fan_out, structured
from .asking import is_wanted
from .checks import Checks
from .options import MOST_CHOICES, Emulate
from .running import FORMATS, RunningUsage
from .streams import streamed, whole


class Emulation:
    """Stands in for what an upstream lacks. ``serve`` leads to the upstream."""

    def __init__(self, options: Emulate, serve: Next) -> None:
        self.options = options
        self._serve = serve
        self._checks = Checks()
        self._most = options.most_choices

    async def __call__(self, call: Call, /) -> Reply:
        """Serve ``call``; what the caller does not ask for is not stood in for."""
        if call.counts or call.format in APART:
            return await self._serve(call)
        most = self._most_of(call)
        reply = await (self._one(call) if most is None else fan_out.fan_out(call, self._one, most))
        if self.options.usage_every_chunk and call.peek.stream and call.peek.stream_usage and call.format in FORMATS:
            reply.through(RunningUsage(None if call.wire is None else call.wire.by_size))
        return reply

    def ask(self, call: Call) -> Call:
        """Return the first call that would be made for ``call``; what is stood in for goes to its ledger. Sends nothing."""
        if call.counts or call.format in APART:
            return call
        most = self._most_of(call)
        if most is not None:
            call = fan_out.ask(call, most)
        if self.options.structured_output is not None:
            call = structured.ask(call, self.options.structured_output, self._checks)
        return self._streaming(call)

    def _most_of(self, call: Call) -> int | None:
        """Return how many calls may be made. One answer is checked at a time, so structured output needs them too."""
        if self._most is not None or self.options.structured_output is None:
            return self._most
        return MOST_CHOICES if is_wanted(call.request) else None

    async def _one(self, call: Call) -> Reply:
        way = self.options.structured_output
        serve: Next = self._last
        if way is not None:
            serve = partial(structured.structured, call_next=serve, way=way, checks=self._checks)
        return await serve(call)

    async def _last(self, call: Call) -> Reply:
        return await self._serve(self._streaming(call))

    def _streaming(self, call: Call) -> Call:
        stream = self.options.stream
        return call if stream is None else whole(call) if stream == "tell" else streamed(call)
