"""The rule file as msgspec Structs: every key with its type, default and meaning.

``later`` on a Struct names keys of the language that this version does not read yet: an error says so, instead of calling
them unknown. Structs of a section hold no names of other sections; those are looked up when the plan is built.
"""

from __future__ import annotations

import ipaddress
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from ..accounts.options import PoolRules
from ..emulation.options import Emulate
from ..errors import ErrorKind
from ..media.options import MediaRules
from ..pricing.table import PriceSection, UpstreamPrices
from ..transport.choose import TransportName
from ..transport.options import TransportOptions
from ..units import Duration, Percent, Secret, Size
from .listen import parse_listen

VERSION: Final = 1

Loss = Literal["report", "refuse", "ignore"]
"""What happens when a request cannot be said in the upstream's format without losing something: it is sent and the loss
named in a header and the record; it is refused; it is sent and the record alone knows."""

ChainItem = str | dict[str, object]
ChainRules = str | list[ChainItem]
"""The name of a chain, or a list of items; see ``chains``."""

OUR_HEADERS: Final = (
    "x-request-id",
    "headgate-route",
    "headgate-upstream",
    "headgate-attempts",
    "headgate-loss",
    "headgate-error",
    "headgate-cache",
    "headgate-tokens",
    "headgate-rounds",
    "headgate-cost",
)
"""Response headers of ours, which ``server.response_headers`` can switch off."""


_WATCH_S: Final = 2.0
_WATCH_AT_LEAST_S: Final = 0.1


class Cors(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Browsers of which origins may call."""

    origins: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Such as ``https://app.example``; ``*`` is any."""

    def __post_init__(self) -> None:
        for origin in self.origins:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise ValueError(
                    f'origins: expected "*" or scheme and host such as "https://app.example", got "{origin}"'
                )
            if origin.count("/") > 2:
                raise ValueError(f'origins: "{origin}" must end after the host or port: an origin has no path')


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server's certificate. Paths are relative to the rule file."""

    cert: str
    """PEM file with the certificate and its chain."""
    key: str
    """PEM file with its key."""


class ServerOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """How the gateway listens, and what it accepts."""

    listen: str = "127.0.0.1:8080"
    """``host:port`` or ``unix:/path``. Other than loopback needs auth on every route, or ``anonymous: allow``."""
    anonymous: Literal["allow", "refuse"] = "refuse"
    """Whether routes without auth may be reached from the network."""
    max_body: Size = Size(64 * 1024 * 1024)
    """The largest request body."""
    max_upload: Size = Size(2 * 1024 * 1024 * 1024)
    """The largest body of a request that is passed on untranslated, such as a file: it is never held whole."""
    max_header: Size = Size(64 * 1024)
    """The most that the headers of a request may take together."""
    receive: Duration = Duration(60)
    """How long a caller may take to send its request."""
    keep_alive: Duration = Duration(15)
    """Silence on a stream after which a comment is sent, so that no proxy between hangs up."""
    drain: Duration = Duration(30)
    """How long running calls may go on after the signal to stop."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose X-Forwarded-For and X-Forwarded-Proto are believed, such as ``10.0.0.0/8``."""
    cors: Cors | None = None
    """Off unless given."""
    tls: Tls | None = None
    """Plain HTTP unless given."""
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    """Processes that share the port."""
    loop: Literal["auto", "asyncio", "uvloop"] = "auto"
    """What ``headgate serve`` runs on: Python's ``asyncio``; ``uvloop``, which needs the extra ``uvloop``; or ``auto``: uvloop
    if it is installed and neither an upstream nor ``tls`` has anything encrypted, at which it is slower."""
    watch: bool | str = True
    """Whether ``headgate serve`` reloads when a file of the rules changed, and how often it looks, such as ``5s``; true is
    every 2 s."""
    response_headers: bool | tuple[str, ...] = True
    """False switches off every response header of ours, a list those in it."""

    restart: ClassVar[tuple[str, ...]] = ("listen", "max_header", "tls", "workers", "loop")
    """Keys that a reload cannot change."""

    def __post_init__(self) -> None:
        parse_listen(self.listen)
        if isinstance(self.watch, str):
            try:
                every_s = Duration.parse(self.watch)
            except ValueError as fault:
                raise ValueError(f"watch: {fault}") from fault
            if every_s < _WATCH_AT_LEAST_S:
                raise ValueError(f"watch: expected at least {_WATCH_AT_LEAST_S * 1000:g}ms, got {self.watch}")
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network)
            except ValueError as fault:
                raise ValueError(f"trusted_proxies: {fault}") from fault
        for name in ("max_body", "max_upload", "max_header", "receive", "keep_alive"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above zero")
        if not isinstance(self.response_headers, bool):
            for header in self.response_headers:
                if header.lower() not in OUR_HEADERS:
                    raise ValueError(
                        f'response_headers: "{header}" is none of ours, which are {", ".join(OUR_HEADERS)}'
                    )

    @cached_property
    def watch_s(self) -> float | None:
        """Seconds between looks at the files, or None."""
        if isinstance(self.watch, bool):
            return _WATCH_S if self.watch else None
        return Duration.parse(self.watch)

    @cached_property
    def networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """``trusted_proxies``, parsed."""
        return tuple(ipaddress.ip_network(network) for network in self.trusted_proxies)

    @cached_property
    def hidden_headers(self) -> frozenset[str]:
        """Response headers of ours that are switched off, in lower case."""
        if isinstance(self.response_headers, bool):
            return frozenset(() if self.response_headers else OUR_HEADERS)
        return frozenset(header.lower() for header in self.response_headers)


class TimeoutRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to give up on an upstream; what is left out comes from ``defaults``, then from the built-in values."""

    connect: Duration | None = None
    """Until the connection stands, TLS included."""
    pool: Duration | None = None
    """Until a connection of the pool is free."""
    write: Duration | None = None
    """Until the request is sent."""
    first_token: Duration | None = None
    """Until the first content of a stream; the provider's pings do not count."""
    idle: Duration | None = None
    """Between two pieces of a stream; the provider's pings do count."""
    total: Duration | None = None
    """From the first byte of the request to the last of the answer."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above zero")


class StoreRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where answers and what belongs to them are kept for a later call. What is full makes room: what is oldest goes first."""

    kind: Literal["memory", "sqlite"] = "memory"
    """``memory``: in the process, gone with it, and not shared by ``workers``; ``sqlite``: a file, which needs the extra
    ``sqlite``."""
    path: str | None = None
    """The file of a ``sqlite`` store, relative to the rule file."""
    max_entries: Annotated[int, Meta(ge=1)] = 10_000
    """How many values it holds."""
    max_size: Size = Size(64 * 1024 * 1024)
    """What they may take together, keys included."""
    ttl: Duration = Duration(30 * 86400)
    """After which any of them is gone."""

    def __post_init__(self) -> None:
        if self.kind == "sqlite" and not self.path:
            raise ValueError("kind: a sqlite store needs a path")
        if self.kind == "memory" and self.path is not None:
            raise ValueError("path: a store in memory has no file")
        for name in ("max_size", "ttl"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above zero")


class ResponsesRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who keeps the state of ``openai.responses``; what is left out comes from ``defaults``, then from the built-in values."""

    state: Literal["gateway", "upstream", "none"] | None = None
    """``gateway``: answers are kept here, for any upstream, so that ``previous_response_id`` works; ``upstream``: what a
    request says of state is the provider's business; ``none``: nothing is kept. Built in: ``gateway``."""
    store: str | None = None
    """The name of a store. Built in: ``default``."""
    ttl: Duration | None = None
    """How long an answer is kept, at most as long as the store keeps anything. Built in: 30 days."""

    def __post_init__(self) -> None:
        if self.ttl is not None and self.ttl <= 0:
            raise ValueError("ttl must be above zero")


class ReasoningRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the gateway keeps signed reasoning for callers whose format has no room for it; what is left out comes from
    ``defaults``, then from the built-in values."""

    remember: bool | None = None
    """Keep it, and put it back on the next turn to the same model. Built in: true."""
    store: str | None = None
    """The name of a store. Built in: ``default``."""
    ttl: Duration | None = None
    """How long it is kept. Built in: 1 day."""

    def __post_init__(self) -> None:
        if self.ttl is not None and self.ttl <= 0:
            raise ValueError("ttl must be above zero")


class Defaults(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds where a section says nothing."""

    timeout: TimeoutRules = TimeoutRules()
    """For every upstream."""
    loss: Loss = "report"
    """For every route."""
    responses: ResponsesRules = ResponsesRules()
    """For every route."""
    reasoning: ReasoningRules = ReasoningRules()
    """For every upstream."""
    tokens: Literal["estimate", "exact"] = "estimate"
    """What ``request.tokens`` is in every condition: the request's bytes / 4, or counted with the tokenizer of the model that
    the caller names, or the nearest there is. ``exact`` needs the extra ``tokens``."""


class UpstreamRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configured adapter. The adapter's own options stand beside these keys."""

    adapter: str
    """How the provider is reached: ``openai``, ``anthropic``, ``gemini``, ``ollama``, ``simulator``, an installed one, or
    ``module:Class``."""
    base_url: str | None = None
    """Where the provider is, spelled as the vendor's own SDK spells it; left out: the adapter's default."""
    key: Secret | None = None
    """The provider's key, by reference. ``env:NAME?`` switches the upstream off while NAME is unset."""
    accounts: str | None = None
    """Instead of ``key``: the name of a pool of accounts, which ``rotate`` in the chain takes turns with."""
    credential: Literal["own", "pass-through"] = "own"
    """Whether the provider sees our key or the caller's."""
    chain: ChainRules | None = None
    """Middlewares around every attempt at this upstream, such as ``[retry]``."""
    timeout: TimeoutRules = TimeoutRules()
    """When to give up."""
    pool: TransportOptions = TransportOptions()
    """Its connections."""
    transport: TransportName = "auto"
    """What carries the bytes: ``lean``, the gateway's own HTTP/1.1, ``aiohttp``, or ``auto``: lean where it can serve."""
    headers: dict[str, str] = {}
    """Sent with every request. A value may be a reference, ``env:NAME`` or ``file:path``."""
    models: tuple[str, ...] = ()
    """Names of models it serves, for ``/v1/models``."""
    reasoning: ReasoningRules = ReasoningRules()
    """What it signed, kept for callers of other formats."""
    emulate: Emulate = Emulate()
    """What the gateway stands in for, since the provider lacks it."""
    prices: UpstreamPrices = UpstreamPrices()
    """What its models cost."""


class ShareRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One branch of a split."""

    use: str
    """A target, an upstream, or ``upstream/model``."""
    weight: Annotated[float, Meta(gt=0)] = 1.0
    """Its share, against the weights of the other branches."""


class CaseRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One case of a target; the first that applies is taken. Without ``match`` and ``when`` it always applies."""

    match: dict[str, object] = {}
    """Conditions on facts of the request and on who calls, all of which must hold."""
    when: str | None = None
    """A CEL expression over the same facts, for what ``match`` cannot say. Needs the extra ``cel``."""
    use: str | None = None
    """A target, an upstream, or ``upstream/model``."""
    split: Annotated[tuple[ShareRules, ...], Meta(min_length=1)] | None = None
    """Instead of ``use``: branches that share the requests by weight."""
    sticky: str | None = None
    """A fact such as ``principal.key`` or ``header.x-session-id``: requests alike in it take the same branch of the split."""


class FailureRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to go when a try failed before anything of the answer reached the caller."""

    kinds: Annotated[tuple[ErrorKind, ...], Meta(min_length=1)]
    """Kinds of error, such as ``rate_limit`` and ``connect``."""
    use: str
    """A target, an upstream, or ``upstream/model``. Each entry is tried at most once for a call."""


class HedgeRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A second call beside one whose first content is late: whichever has content first is the answer, the other is ended."""

    after: Duration
    """How long what ``select`` chose may take until its first content; of a whole answer, until all of it is there."""
    use: str
    """A target, an upstream, or ``upstream/model``, also the same once more."""
    max_extra: Percent = Percent(0.05)
    """How many second calls there may be, as a share of this target's calls in the last ten minutes; one may be in any case."""

    def __post_init__(self) -> None:
        if self.after <= 0:
            raise ValueError("after must be above zero")


class ShadowRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Copies of some requests, whose answers nobody gets: they are read, told of in the log, and thrown away."""

    use: str
    """A target, an upstream, or ``upstream/model``."""
    share: Percent = Percent(0.01)
    """Of how many of this target's calls, drawn at random."""
    timeout: Duration = Duration(300)
    """How long a copy may take altogether."""
    at_once: Annotated[int, Meta(ge=1)] = 10
    """How many copies are under way at most; beyond them none is made."""

    def __post_init__(self) -> None:
        if self.timeout <= 0:
            raise ValueError("timeout must be above zero")


class TargetRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where requests go, in two questions: which branch applies, and what to do when it fails."""

    select: Annotated[tuple[CaseRules, ...], Meta(min_length=1)]
    """Cases, the first that applies is taken."""
    on_failure: tuple[FailureRules, ...] = ()
    """Entries by kind of error; the first that names the error and was not tried yet is taken."""
    hedge: HedgeRules | None = None
    """A second call beside a late one."""
    shadow: ShadowRules | None = None
    """Copies that go elsewhere, and are not answered."""


class GivenPrincipal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who calls, as auth would say."""

    key: str = "anonymous"
    """The name of a key."""
    team: str | None = None
    """Its team."""
    tenant: str = ""
    """Its tenant."""
    tags: tuple[str, ...] = ()
    """Its tags."""


class GivenRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request of a test; nothing is sent."""

    format: str = "openai.chat"
    """The caller's format."""
    model: str = "any"
    """What the caller asks for."""
    path: str | None = None
    """The path it is sent to; left out: the format's own."""
    headers: dict[str, str] = {}
    """Request headers."""
    query: dict[str, str] = {}
    """Query parameters."""
    metadata: dict[str, object] = {}
    """The caller's metadata."""
    stream: bool = False
    """Whether a stream is asked for."""
    tokens: Annotated[int, Meta(ge=0)] | None = None
    """The size of the request; left out: as the test's own request has it."""
    tools: bool = False
    """Whether tools are offered."""
    has_image: bool = False
    """Whether an image is shown."""
    body: dict[str, object] | None = None
    """The whole request instead of ``model``, ``metadata``, ``stream``, ``tools`` and ``has_image``."""
    principal: GivenPrincipal = GivenPrincipal()
    """Who calls; the test takes it as auth's word."""
    branch: tuple[str, ...] | str = ()
    """Branches to take of splits, as their ``use`` says; left out: the heaviest."""
    down: tuple[str, ...] = ()
    """Upstreams to take as off; every other is taken as on, whatever the environment holds."""
    failures: tuple[ErrorKind, ...] = ()
    """How the tries fail, one after the other; the decision after the last is what ``expect`` is about."""


class ExpectRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What should come out; what is left out is not looked at."""

    route: str | UnsetType | None = UNSET
    """The route's name; null: no route matches."""
    target: str | UnsetType = UNSET
    """What the route's ``to:`` says."""
    upstream: str | UnsetType | None = UNSET
    """The upstream's name; null: nothing is left to try."""
    model: str | UnsetType = UNSET
    """What the upstream is asked for."""
    chain: tuple[str, ...] | UnsetType = UNSET
    """The middlewares, in order, the upstream's last."""
    loss: tuple[str, ...] | UnsetType = UNSET
    """Places of the request that do not reach the provider, in order."""
    hedge: str | UnsetType | None = UNSET
    """The upstream that is asked too when the first content is late; null: none is."""
    shadow: str | UnsetType | None = UNSET
    """The upstream that copies go to; null: there are none."""


class TrialRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A test of the rules, run by ``headgate test`` and before every reload."""

    name: Annotated[str, Meta(min_length=1)]
    """What the report calls it."""
    given: GivenRules
    """A request."""
    expect: ExpectRules
    """What is decided about it."""


class RouteRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: which requests, through what, to where. The first route that matches serves."""

    name: Annotated[str, Meta(min_length=1)]
    """What logs and headers call it."""
    match: dict[str, object] = {}
    """Conditions on facts of the request, all of which must hold; left out: every request."""
    when: str | None = None
    """A CEL expression over the same facts that must hold too, for what ``match`` cannot say. Needs the extra ``cel``."""
    chain: ChainRules | None = None
    """Middlewares around the call: the name of a chain, or a list."""
    to: str
    """A target, an upstream, or ``upstream/model`` to ask it for that model whatever the caller named."""
    loss: Loss | None = None
    """What to do about what the upstream's format cannot say."""
    timeout: Duration | None = None
    """For the whole call, retries included; left out: the upstream's ``total``."""
    responses: ResponsesRules = ResponsesRules()
    """Who keeps the state of ``openai.responses``."""
    remember_reasoning: bool = True
    """Whether signed reasoning is kept for callers of other formats, where the upstream does so at all."""

    later: ClassVar[frozenset[str]] = frozenset({"select", "on_failure", "hedge", "shadow"})


class RuleFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule file. Keys that begin with ``x-`` are free for anchors and notes."""

    version: Literal[1]
    """Of the rule language."""
    include: str | tuple[str, ...] = ()
    """Other rule files, by path or glob, relative to this one. Their routes and tests come after those of this file, in the
    order of this list; names are shared; ``server`` and ``defaults`` stand in one of the files."""
    server: ServerOptions = ServerOptions()
    """How the gateway listens."""
    defaults: Defaults = Defaults()
    """What holds where a section says nothing."""
    stores: dict[str, StoreRules] = {}
    """Where things are kept, by names of your own; ``default`` is a memory store unless it stands here."""
    media: MediaRules = MediaRules()
    """Images and files that a request gives by URL."""
    accounts: dict[str, PoolRules] = {}
    """Pools of several credentials of one provider, by names of your own."""
    prices: PriceSection = PriceSection()
    """What models cost, wherever they are asked for."""
    upstreams: dict[str, UpstreamRules] = {}
    """Providers, by names of your own."""
    chains: dict[str, list[ChainItem]] = {}
    """Lists of middlewares, by names of your own."""
    targets: dict[str, TargetRules] = {}
    """Where requests go when one upstream is not enough, by names of your own."""
    routes: list[RouteRules] = []
    """The rules, first match wins."""
    tests: list[TrialRules] = []
    """Requests and what should be decided about them."""

    later: ClassVar[frozenset[str]] = frozenset({"telemetry"})
