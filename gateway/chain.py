"""The onion: the one shape every middleware and adapter has, and how a chain of them becomes a callable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from .accounts.pool import AccountPool
from .call import Call
from .relay.reply import Reply
from .stores.base import Store
from .transport.base import Transport
from .units import Duration

Next: TypeAlias = Callable[[Call], Awaitable[Reply]]
"""Returns at the provider's response headers; raises GatewayError."""


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """Time-outs of an upstream. ``first_token`` and ``idle`` count only where the upstream streams."""

    connect: Duration = Duration(5)
    pool: Duration = Duration(5)
    write: Duration = Duration(30)
    first_token: Duration = Duration(300)
    idle: Duration = Duration(120)
    total: Duration = Duration(1800)


class Middleware(Protocol):
    """What stands in a chain. ``Options`` is a msgspec Struct that the rule file fills.

    ``needs_usage`` says that it reads usage, so that a provider is asked for it; ``may_retry`` that it may call
    ``call_next`` again, so that the commit waits for the first content; ``authenticates`` that it refuses strangers.
    """

    Options: ClassVar[type[Struct]]

    def __init__(self, options: Any, /) -> None:
        """Take the decoded ``Options``."""
        ...

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Serve ``call``, usually by way of ``call_next``."""
        ...


@runtime_checkable
class CarriesOver(Protocol):
    """A middleware or adapter that goes on where its predecessor was when the rules are reloaded: counts, caches, tokens."""

    def carry_over(self, old: Any, /) -> None:
        """Share what ``old`` holds: the instance of the same class in the same place of the rules in force.

        Called before ``start``, and only when there is such an instance; its options may be others. ``old`` goes on with the
        calls that it has, and with all of them if the new rules do not start: so share, and take nothing away. Must not
        block. An error refuses the new rules.
        """
        ...


@runtime_checkable
class UsesStore(Protocol):
    """A middleware whose options may name one of the file's stores: it is given that as ``store`` when it was made.

    ``store_name`` is None where it keeps things by itself.
    """

    store_name: str | None
    store: Store


class Reached(Struct, frozen=True):
    """Where an upstream is: its adapter's name, and the URL below which its API is, if it has one."""

    adapter: str
    base_url: str | None = None


@runtime_checkable
class KnowsUpstreams(Protocol):
    """A middleware that is told which upstreams its rules have, and where they are, before it starts."""

    def know(self, upstreams: Mapping[str, Reached], /) -> None:
        """Take them, by name."""
        ...


@runtime_checkable
class UsesAccounts(Protocol):
    """A middleware that sends calls out with accounts: ``pools`` is filled with that of each upstream in whose chain it stands,
    by the upstream's name."""

    pools: dict[str, AccountPool]


class AdapterContext(Struct, frozen=True):
    """What an adapter is built with, next to its options.

    ``credential`` is the upstream's key, or None; ``transport`` is its pool, shared by reloads as long as it is configured
    alike.
    """

    name: str
    transport: Transport
    timeouts: Timeouts
    credential: str | None = None
    base_url: str | None = None
    pass_credential: bool = False
    headers: Mapping[str, str] = {}
    max_answer_bytes: int = 64 * 1024 * 1024

    def __repr__(self) -> str:
        return f"AdapterContext({self.name!r})"  # a Struct would show the credential


class Adapter(Protocol):
    """How a provider is reached: the end of a chain. Built as ``cls(options, context)``."""

    Options: ClassVar[type[Struct]]

    def __init__(self, options: Any, context: AdapterContext, /) -> None:
        """Take the decoded ``Options`` and what every adapter is given."""
        ...

    async def __call__(self, call: Call, /) -> Reply:
        """Send the call to the provider; return at its response headers."""
        ...


class Preview(Struct, frozen=True):
    """The request that an adapter would send. ``secret_headers`` are the headers, in lower case, that show a credential."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    secret_headers: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Preview({self.method} {self.url.partition('?')[0]!r})"  # a Struct would show the credential


@runtime_checkable
class Previews(Protocol):
    """An adapter that can say what it would send."""

    def preview(self, call: Call, /) -> Preview | None:
        """Return the request that ``call`` would become, and send nothing; None if it answers in process.

        Losses go to the ledger of ``call``. Raises what the adapter would raise before it sends.
        """
        ...


def compose(middlewares: Iterable[Middleware], last: Next) -> Next:
    """Return the callable that runs ``middlewares`` in order around ``last``."""
    entry = last
    for middleware in reversed(tuple(middlewares)):
        entry = _link(middleware, entry)
    return entry


def _link(middleware: Middleware, call_next: Next) -> Next:
    run = middleware.__call__  # a call by way of the object looks for it each time

    def serve(call: Call) -> Awaitable[Reply]:
        return run(call, call_next)

    return serve
