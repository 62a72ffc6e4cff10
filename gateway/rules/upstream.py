"""An upstream of a plan: a configured adapter, its chain and its connections."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from ..accounts.pool import AccountPool
from ..call import Call
from ..chain import Adapter, Middleware, Next, Timeouts
from ..doors import APART, PASSED
from ..operations import operations_of, passes
from ..reasoning.memory import ReasoningMemory
from ..transport.base import Transport


class Pool:
    """The connections of an upstream, shared by the plans of a reload; ``holders`` started plans use it."""

    __slots__ = ("holders", "transport")

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.holders = 0


class Upstream(Struct, frozen=True, eq=False):
    """A configured adapter with its own chain.

    ``off`` says why it is off, or None; it then has neither adapter nor pool. ``optional`` says that its key or a header is,
    so that it may be off another time. ``shared`` is what must be alike for a reload to keep the connections.
    ``secret_headers`` are the configured headers, in lower case, whose value is a secret. ``memory`` keeps what it signs, if
    anything does. ``ask`` returns the call that the adapter gets for one, where something is stood in for; None: the same.
    ``accounts`` are those that calls go out with, None: none but its own key. ``tls``: whether its connections are encrypted.
    """

    name: str
    adapter_name: str
    options: Struct | None
    timeouts: Timeouts
    entry: Next
    adapter: Adapter | None = None
    pool: Pool | None = None
    off: str | None = None
    optional: bool = False
    chain_names: tuple[str, ...] = ()
    middlewares: tuple[Middleware, ...] = ()
    models: tuple[str, ...] = ()
    shared: object = None
    secret_headers: frozenset[str] = frozenset()
    memory: ReasoningMemory | None = None
    ask: Callable[[Call], Call] | None = None
    accounts: AccountPool | None = None
    tls: bool = False

    @property
    def transport(self) -> Transport | None:
        """The way to the provider, or None when it is off."""
        return None if self.pool is None else self.pool.transport

    def serves(self, format: str, path: str = "") -> bool:
        """Whether it answers callers of ``format``, conversations of any. One that is off serves nothing else.

        ``path`` is where a call goes that is passed on; "": whether there is any.
        """
        if format not in APART:
            return True
        return passes(self.adapter, format, path) if format in PASSED else format in operations_of(self.adapter)

    @property
    def needs_usage(self) -> bool:
        """Whether a middleware of its chain reads usage."""
        return any(getattr(each, "needs_usage", False) for each in self.middlewares)
