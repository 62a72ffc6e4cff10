"""Calls that are no conversation: embeddings, reranking, moderation. Who serves them, and how several requests are one call.

Such a call takes the way of any other, through auth, log, retry and targets. At its end stands an adapter that has a service
for it; an upstream that has none says so, and a target passes it by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeVar, runtime_checkable

from .call import Call
from .chain import Next
from .errors import Unsupported
from .relay.reply import Reply
from .relay.scope import Scope

T = TypeVar("T")
AT_ONCE: Final = 4
"""How many requests of one call are under way together: a provider counts them all against the caller's rate."""


@runtime_checkable
class Operates(Protocol):
    """An adapter that serves operations. ``operations`` are the callers' formats, such as ``openai.embeddings``."""

    operations: frozenset[str]

    async def operate(self, call: Call, /) -> Reply:
        """Answer ``call``, whose format is one of ``operations``, with one whole chunk in that format."""
        ...


@runtime_checkable
class PassesOn(Protocol):
    """An adapter that passes on what nobody translates. ``passes`` is the format whose callers it serves so, or ""."""

    passes: str

    def passes_path(self, path: str, /) -> bool:
        """Whether it serves ``path``, spelled with its version."""
        ...

    async def pass_on(self, call: Call, /) -> Reply:
        """Send the request of ``call.passed`` as it came; return at the provider's response headers."""
        ...


def passes(adapter: object, format: str, path: str = "") -> bool:
    """Whether an adapter passes on calls of ``format`` to ``path``; "" is any."""
    return isinstance(adapter, PassesOn) and adapter.passes == format and (not path or adapter.passes_path(path))


def operations_of(adapter: object) -> frozenset[str]:
    """Return the formats of operations that an adapter serves."""
    return adapter.operations if isinstance(adapter, Operates) else frozenset()


def operating(name: str, adapter: object, able: Mapping[str, Sequence[str]]) -> Next:
    """Return the end of a chain for calls that are operations, at the upstream ``name``.

    ``able`` are the upstreams that serve a format, for whoever asks one that does not; it may still grow.
    """
    formats = operations_of(adapter)

    def end(call: Call) -> Awaitable[Reply]:
        if call.passed is not None and isinstance(adapter, PassesOn) and passes(adapter, call.format, call.facts.path):
            return adapter.pass_on(call)
        if isinstance(adapter, Operates) and call.format in formats:
            return adapter.operate(call)
        raise cannot(name, call.format, able.get(call.format, ()))

    return end


def cannot(name: str, format: str, able: Iterable[str] = ()) -> Unsupported:
    """Return the error for an operation that the upstream ``name`` does not serve."""
    others = ", ".join(able)
    hint = f"; these upstreams do: {others}" if others else ""
    return Unsupported(f"the upstream {name} does not serve {format}{hint}", status=501)


async def side_by_side(scope: Scope, works: Sequence[Callable[[], Awaitable[T]]], at_once: int = AT_ONCE) -> list[T]:
    """Return what ``works`` return, in their order, ``at_once`` of them under way together.

    The first failure ends the others, which are over when it is raised; those that had not begun never do.
    """
    if len(works) == 1:
        return [await works[0]()]
    found: dict[int, T] = {}
    left = iter(enumerate(works))

    async def work() -> None:
        for at, each in left:
            found[at] = await each()

    tasks = [scope.spawn(work()) for _ in range(min(at_once, len(works)))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return [found[at] for at in range(len(works))]
