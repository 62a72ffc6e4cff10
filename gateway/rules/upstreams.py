"""Upstreams: adapters found, options checked, secrets read, pools made or taken over."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Collection, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from .. import registry
from ..accounts.pool import AccountPool
from ..call import Call
from ..chain import Adapter, AdapterContext, Next, Timeouts, compose
from ..counting import ending
from ..doors import PASSED
from ..errors import Overloaded
from ..media.options import FetchRules
from ..metering import Metering
from ..operations import operating, operations_of, passes
from ..reasoning import memory as reasoning
from ..relay.reply import Reply
from ..transport.choose import CannotServe, open_transport
from ..transport.options import TransportOptions
from ..units import Duration, Secret
from .accounts import Accounts, off_because
from .chains import Chains
from .document import Entry, Node, Scalar, Table
from .named import BUILD_FAULTS, describe, find_class
from .plan import Plan
from .prices import PriceTables
from .problems import Spot, looks_like_key
from .read import Reader
from .schema import Defaults, TimeoutRules, UpstreamRules
from .stand_ins import around, check
from .stores import Stores
from .upstream import Pool, Upstream

_COMMON: Final = frozenset(UpstreamRules.__struct_fields__)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade"})
_SECRET_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"}
)


class _Off(Exception):
    """An optional secret is unset."""


class Upstreams:
    """Builds the upstreams of one file, one by one.

    ``off`` are those that are off, all others on; None: the environment says which, by the secrets that are set.
    """

    def __init__(
        self,
        reader: Reader,
        chains: Chains,
        stores: Stores,
        accounts: Accounts,
        defaults: Defaults,
        previous: Plan | None,
        off: Collection[str] | None = None,
        fetch: FetchRules | None = None,
        prices: PriceTables | None = None,
    ) -> None:
        self._prices = prices
        self._fetch = fetch
        self._reader = reader
        self._problems = reader.problems
        self._chains = chains
        self._stores = stores
        self._accounts = accounts
        self._defaults = defaults
        self._off = off
        self._able: dict[str, list[str]] = {}
        self._previous: Mapping[str, Upstream] = {} if previous is None else previous.upstreams

    def build(self, name: str, entry: Entry) -> Upstream | None:
        """Return the upstream, or None when something in it is wrong (and noted)."""
        where, node = f"upstreams.{name}", entry.value
        if not isinstance(node, Table):
            self._reader.struct(node, UpstreamRules, where)
            return None
        kind = self._adapter(node, where)
        names = None if kind is None else [field.encode_name for field in msgspec.structs.fields(kind.Options)]
        rules = self._reader.struct(node, UpstreamRules, where, keep=("chain",), beside=names)
        own = Table(node.spot, {key: each for key, each in node.entries.items() if key in (names or ())})
        options = None if kind is None else self._reader.struct(own, kind.Options, where)
        chain = self._chains.of(node.get("chain"), f"{where}.chain")
        if rules is None or kind is None or options is None:
            return None
        self._check(rules, node, where)
        check(rules.emulate, self._fetch, node, where, self._problems)
        accounts = self._accounts.of(rules, node, where, chain.middlewares)
        prices = None
        if self._prices is not None:
            prices = self._prices.of(rules, node, where)
            self._prices.no_budgets(chain.middlewares, node, where)
        policy = self._stores.reasoning(rules.reasoning, node, where)
        try:
            credential = self._credential(rules, node, where)
            if accounts is not None and (without := off_because(accounts)) is not None:
                raise _Off(without)
            headers = self._headers(rules, node, where)
            off = None
        except _Off as why:
            credential, headers, off = None, {}, str(why)
        if self._off is not None:
            off = "the test takes it as off" if name in self._off else None
        pool_options = self._paths(rules.pool, _spot(node, "pool"))
        optional = [rules.key, *map(_reference, rules.headers.values())]
        upstream = Upstream(
            name,
            rules.adapter,
            options,
            _timeouts(self._defaults.timeout, rules.timeout),
            _unavailable(name, off or "it could not be built"),
            off=off,
            optional=any(secret is not None and secret.optional for secret in optional) or _may_all_be_off(accounts),
            chain_names=chain.names,
            middlewares=chain.middlewares,
            models=rules.models,
            shared=(rules.base_url, rules.adapter, pool_options, rules.transport, self._stamps(pool_options)),
            secret_headers=frozenset(header.lower() for header, text in rules.headers.items() if _reference(text)),
            accounts=accounts,
        )
        if off is not None:
            self._problems.add("W102", entry.spot, f"the upstream {name} is off: {off}", "routes to it do not match")
            return upstream
        pool = self._pool(upstream, rules, node, where)
        if pool is None:
            return upstream
        context = AdapterContext(
            name,
            pool.transport,
            upstream.timeouts,
            credential,
            rules.base_url,
            rules.credential == "pass-through",
            headers,
        )
        adapter = self._instance(kind, options, context, node, where)
        if adapter is None:
            return upstream
        for format in (*operations_of(adapter), *(each for each in PASSED if passes(adapter, each))):
            self._able.setdefault(format, []).append(name)
        memory = None if policy is None else reasoning.around(name, adapter, policy)
        end = ending(adapter, memory or adapter, operating(name, adapter, self._able))
        metering = None if prices is None else Metering(name, prices, end)
        serve = compose(chain.middlewares, end if metering is None else metering)
        serve, ask = around(rules.emulate, self._fetch, adapter, serve)
        if metering is not None:
            serve = metering.gate(serve)
        tls = _is_encrypted(getattr(adapter, "base_url", None) or rules.base_url, pool_options)
        return msgspec.structs.replace(
            upstream, adapter=adapter, pool=pool, entry=serve, memory=memory, ask=ask, tls=tls
        )

    def _adapter(self, node: Table, where: str) -> type[Adapter] | None:
        name = node.get("adapter")
        if not isinstance(name, Scalar) or not isinstance(name.value, str):
            return None
        return find_class(registry.adapter, name.value, "E030", name.spot, where, self._problems)

    def _check(self, rules: UpstreamRules, node: Table, where: str) -> None:
        if rules.credential == "pass-through" and rules.key is not None:
            self._problems.add(
                "E052",
                _spot(node, "credential"),
                f"{where}: credential: pass-through sends the caller's key, but there is a key: too",
                "remove one of the two",
            )
        if rules.base_url is None:
            return
        spot = _spot(node, "base_url")
        try:
            parts = urlsplit(rules.base_url)
            host, _ = parts.hostname, parts.port  # a bad port raises on being read
        except ValueError:
            host = None
            parts = urlsplit("")
        if parts.username is not None or parts.password is not None:
            self._problems.add("E020", spot, f"{where}.base_url carries a user or password", "give it as key: env:NAME")
        elif parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            self._problems.add("E011", spot, f"{where}.base_url: expected http(s)://host[:port][/path]")

    def _credential(self, rules: UpstreamRules, node: Table, where: str) -> str | None:
        if rules.key is None:
            return None
        return self._read(rules.key, _spot(node, "key"), f"{where}.key")

    def _read(self, secret: Secret, spot: Spot, where: str) -> str | None:
        value, off = self._reader.secret(secret, spot, where)
        if off is not None:
            raise _Off(off)
        return value

    def _headers(self, rules: UpstreamRules, node: Table, where: str) -> dict[str, str]:
        headers: dict[str, str] = {}
        table = node.get("headers")
        for name, text in rules.headers.items():
            entry = table.entries[name] if isinstance(table, Table) else Entry(node.spot, node)
            place = f"{where}.headers.{name}"
            if not _HEADER_NAME.fullmatch(name):
                self._problems.add("E011", entry.spot, f"{place}: not a header name")
            elif name.lower() in _FRAMING:
                self._problems.add("E011", entry.spot, f"{place}: the transport sets it")
            elif name.lower() in headers:
                self._problems.add("E004", entry.spot, f"{place} is written twice", "header names have no case")
            value = self._header(name, text, entry.value, place)
            if value is not None:
                headers[name.lower()] = value
        return headers

    def _header(self, name: str, text: str, node: Node, where: str) -> str | None:
        secret = _reference(text)
        if secret is not None:
            if secret.reference.startswith("file:"):
                secret = Secret(f"file:{self._reader.path(text.removeprefix('file:'), node.spot)}")
            return self._read(secret, node.spot, where)
        if name.lower() in _SECRET_HEADERS or looks_like_key(text):
            self._problems.add(
                "E020",
                node.spot,
                f"{where} carries a secret",
                'write a reference: "env:NAME", "env:NAME?" or "file:path"',
            )
            return None
        if not text.isprintable():
            self._problems.add("E011", node.spot, f"{where}: a header value is one line of printable text")
            return None
        return text

    def _pool(self, upstream: Upstream, rules: UpstreamRules, node: Table, where: str) -> Pool | None:
        old = self._previous.get(upstream.name)
        if old is not None and old.pool is not None and old.shared == upstream.shared:
            return old.pool
        try:
            return Pool(open_transport(self._paths(rules.pool, _spot(node, "pool")), rules.transport))
        except CannotServe as fault:
            self._problems.add("E054", _spot(node, "transport"), f"{where}: {fault}", fault.hint)
            return None
        except ValueError as fault:
            written = node.get("pool")
            key = re.split(r"\W", str(fault), maxsplit=1)[0]
            spot = _spot(written, key) if isinstance(written, Table) else node.spot
            self._problems.add("E011", spot, f"{where}.pool.{fault}")
            return None

    def _paths(self, pool: TransportOptions, spot: Spot) -> TransportOptions:
        written = {name: getattr(pool, name) for name in ("ca_bundle", "client_cert", "client_key", "unix_socket")}
        known = {name: self._reader.path(path, spot) for name, path in written.items() if path is not None}
        return msgspec.structs.replace(pool, **known)

    def _stamps(self, pool: TransportOptions) -> tuple[object, ...]:
        """Return what tells one content of the pool's certificates from another: new ones need new connections."""
        paths = [Path(path) for path in (pool.ca_bundle, pool.client_cert, pool.client_key) if path is not None]
        self._reader.files += paths
        return tuple(map(_stamp, paths))

    def _instance(
        self, kind: type[Adapter], options: Struct, context: AdapterContext, node: Table, where: str
    ) -> Adapter | None:
        try:
            return kind(options, context)
        except BUILD_FAULTS as fault:
            self._problems.add("E032", _spot(node, "adapter"), f"{where} cannot be built: {describe(fault)}")
            return None


def _is_encrypted(base_url: object, pool: TransportOptions) -> bool:
    """Whether there is TLS on the way to ``base_url``, which is None for what is reached without a URL."""
    return any(isinstance(url, str) and urlsplit(url).scheme in ("https", "wss") for url in (base_url, pool.proxy))


def _may_all_be_off(accounts: AccountPool | None) -> bool:
    return accounts is not None and all(member.optional for member in accounts.all)


def _spot(node: Table, key: str) -> Spot:
    value = node.get(key)
    return node.spot if value is None else value.spot


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _reference(text: str) -> Secret | None:
    return Secret.parse(text) if re.match(r"(?:env|file):[^?]", text) else None


def _timeouts(*layers: TimeoutRules) -> Timeouts:
    """Return the built-in time-outs with each layer's values laid over them."""
    known: dict[str, Duration] = {}
    for layer in layers:
        known |= {name: value for name, value in msgspec.structs.asdict(layer).items() if value is not None}
    return Timeouts(**known)


def _unavailable(name: str, why: str) -> Next:
    def refuse(call: Call) -> Awaitable[Reply]:
        raise Overloaded(f"the upstream {name} is off: {why}", kind="unavailable")

    return refuse
