"""From text to plan: every section read, everything wrong with them noted, then the whole put together.

This is the one place that knows the order: chains, upstreams, targets, routes, and the file's own tests on what came out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec

from .. import vocabulary
from ..chain import KnowsUpstreams, Reached
from ..media.options import MediaRules
from ..units import Size
from .accounts import Accounts
from .assumed import Assumed
from .chains import Chains
from .document import Entry, Node, Scalar, Table, plain
from .fail_open import inner_of
from .include import Parts, merge, numbered, read_parts
from .named import NAME
from .plan import Place, Plan, Route
from .prices import PriceTables
from .problems import Problems, Spot
from .read import Reader
from .routes import Routes, note_unused, served_models
from .schema import VERSION, Defaults, RuleFile, ServerOptions, Tls
from .stores import Stores
from .targets import Targets
from .trials import Trial, note_failures, read_trials, run_trials
from .upstream import Upstream
from .upstreams import Upstreams


class Built(NamedTuple):
    """A plan, or None when there are errors; how the tests of its files went; and its files, see ``Plan.sources``.

    ``untested`` is the plan whatever its tests say."""

    plan: Plan | None
    trials: tuple[Trial, ...]
    sources: tuple[Path, ...]
    untested: Plan | None = None


def build_plan(
    text: str,
    source: str,
    directory: Path,
    problems: Problems,
    previous: Plan | None = None,
    path: Path | None = None,
    assumed: Assumed = "none",
) -> Built:
    """Return the plan of ``text`` and what it includes; it is None when there is an error among ``problems``.

    ``source`` is what messages call the file, ``directory`` what its paths are relative to, ``path`` where it stands, if
    anywhere. Pools whose upstream is configured as in ``previous`` are taken over. A plan with ``assumed`` secrets is for
    looking at, not for serving.
    """
    parts = read_parts(text, source, directory, path, problems)
    if not parts.whole:
        return Built(None, (), parts.sources)
    directories = {part.source: part.directory for part in parts.parts}
    reader = Reader(problems, directories, assumed)
    build = _Build(parts, reader, previous)
    plan = build.plan(source)
    trials = read_trials(reader, reader.items(build.root.get("tests"), "tests"))
    if problems.failed:
        return Built(None, (), build.sources)

    def rehearse(off: frozenset[str]) -> Plan | None:
        unheard = Problems()
        staged = _Build(parts, Reader(unheard, directories, "all"), None, off).plan(source)
        return None if unheard.failed else staged

    tried = tuple(run_trials(trials, plan, rehearse))
    note_failures(tried, problems)
    return Built(plan if all(trial.passed for trial in tried) else None, tried, build.sources, plan)


class _Build:
    def __init__(self, parts: Parts, reader: Reader, previous: Plan | None, off: frozenset[str] | None = None) -> None:
        self._parts = parts
        self.root = merge(parts.parts, reader)
        self._reader = reader
        self._problems = reader.problems
        self._previous = previous
        self._off = off

    @property
    def sources(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys([*self._parts.sources, *self._reader.files]))

    def plan(self, source: str) -> Plan:
        problems, reader, root = self._problems, self._reader, self.root
        self._versions()
        for part in self._parts.parts:
            reader.keys(part.root, RuleFile, "")
        server = self._server()
        defaults = self._section("defaults", Defaults)
        self._countable(defaults)

        upstream_entries = reader.table(root.get("upstreams"), "upstreams")
        chain_entries = reader.table(root.get("chains"), "chains")
        target_entries = reader.table(root.get("targets"), "targets")
        self._names({"upstreams": upstream_entries, "targets": target_entries, "chains": chain_entries})

        store_entries = reader.table(root.get("stores"), "stores")
        stores = Stores(reader, store_entries, defaults, root.get("defaults"))
        stores.build_all()
        prices = PriceTables(reader, root.get("prices"), upstream_entries)
        chains = Chains(reader, chain_entries, stores, prices.any)
        chains.build_all()
        account_entries = reader.table(root.get("accounts"), "accounts")
        accounts = Accounts(reader, account_entries, stores)
        accounts.build_all()
        media = self._media()
        builder = Upstreams(reader, chains, stores, accounts, defaults, self._previous, self._off, media.fetch, prices)
        built = {name: builder.build(name, entry) for name, entry in upstream_entries.items()}
        upstreams = {name: upstream for name, upstream in built.items() if upstream is not None}

        targets = Targets(reader, target_entries, list(upstream_entries), upstreams)
        targets.build_all()
        routes = Routes(reader, chains, stores, defaults, targets)
        nodes = reader.items(root.get("routes"), "routes")
        tried = [routes.build(node, where) for where, node in numbered(nodes, "routes")]
        for (where, node), route in zip(numbered(nodes, "routes"), tried, strict=True):
            if route is not None:
                accounts.astray(route, _spot_in(root, node, "chain"), where)
        made = [route for route in tried if route is not None]
        if not problems.failed:  # what is broken may be what would have used them
            if not nodes:
                problems.add("W103", root.spot, "there are no routes: every call will be refused", "add routes")
            note_unused(problems, "chain", _spots(chain_entries), chains.used)
            note_unused(problems, "upstream", _spots(upstream_entries), targets.used)
            note_unused(problems, "target", _spots(target_entries), targets.used)
            note_unused(problems, "store", _spots(store_entries), stores.used)
            note_unused(problems, "pool of accounts", _spots(account_entries), accounts.used)
        members = _members(stores, accounts, chains, upstreams, made)
        _introduce(members.values(), upstreams)
        return Plan(
            source,
            server,
            made,
            upstreams,
            served_models(made),
            members,
            problems.sorted(),
            self.sources,
            exact_tokens=defaults.tokens == "exact",
        )

    def _versions(self) -> None:
        """Note a version that is missing or unknown. An included file need not say its version."""
        if self.root.get("version") is None:
            said = 'the file needs the key "version"'
            self._problems.add("E010", self.root.spot, said, f'begin with "version: {VERSION}"')
        for part in self._parts.parts:
            node = part.root.get("version")
            if node is None or (isinstance(node, Scalar) and node.value == VERSION and node.value is not True):
                continue
            said = node.text if isinstance(node, Scalar) else str(plain(node))
            newer = isinstance(node, Scalar) and type(node.value) is int and node.value > VERSION
            hint = f'write "version: {VERSION}", or run headgate migrate'
            if newer:
                hint = f'this build knows "version: {VERSION}": update Headgate'
            self._problems.add("E014", node.spot, f"version {said} is not known here", hint)

    def _section(self, name: str, kind: type[Defaults]) -> Defaults:
        node = self.root.get(name)
        return kind() if node is None else self._reader.struct(node, kind, name) or kind()

    def _media(self) -> MediaRules:
        node = self.root.get("media")
        return MediaRules() if node is None else self._reader.struct(node, MediaRules, "media") or MediaRules()

    def _countable(self, defaults: Defaults) -> None:
        """Note that tokens cannot be counted here: a rule must not change its mind with an extra."""
        if defaults.tokens == "exact" and not vocabulary.is_installed():
            spot = _spot_in(self.root, self.root.get("defaults"), "tokens")
            hint = 'pip install "headgate[tokens]", or leave it out: rules then see bytes / 4'
            self._problems.add("E055", spot, "defaults.tokens: exact needs the extra tokens", hint)

    def _server(self) -> ServerOptions:
        node = self.root.get("server")
        server = None if node is None else self._reader.struct(node, ServerOptions, "server")
        if node is not None and server is None:
            return ServerOptions()
        server = self._with_tls(server or ServerOptions(), node)
        if server.loop == "uvloop" and find_spec("uvloop") is None:
            hint = 'pip install "headgate[uvloop]", or write loop: auto'
            spot = _spot_in(self.root, node, "loop")
            self._problems.add("E066", spot, "server.loop: uvloop needs the extra uvloop", hint)
        if self._previous is not None:
            self._unchanged(server, self._previous.server, node)
        return server

    def _with_tls(self, server: ServerOptions, node: Node | None) -> ServerOptions:
        if server.tls is None:
            return server
        at = _spot_in(self.root, node, "tls")
        tls = Tls(cert=self._reader.path(server.tls.cert, at), key=self._reader.path(server.tls.key, at))
        for key, path in (("cert", tls.cert), ("key", tls.key)):
            self._reader.files.append(Path(path))
            if self._reader.assumed == "none" and not Path(path).is_file():
                spot = _spot_in(self.root, node, "tls", key)
                self._problems.add(
                    "E011", spot, f"server.tls.{key}: there is no file {path}", "paths start at the rule file"
                )
        return msgspec.structs.replace(server, tls=tls)

    def _unchanged(self, server: ServerOptions, before: ServerOptions, node: Node | None) -> None:
        for key in ServerOptions.restart:
            if getattr(server, key) != getattr(before, key):
                change = f"{_spelled(getattr(before, key))} → {_spelled(getattr(server, key))}"
                self._problems.add(
                    "E053",
                    _spot_in(self.root, node, key),
                    f"server.{key} cannot change while the server runs: {change}",
                    "restart to apply it",
                )

    def _names(self, sections: Mapping[str, Mapping[str, Entry]]) -> None:
        taken: dict[str, tuple[str, Spot]] = {}
        for section, entries in sections.items():
            kind = section.removesuffix("s")
            for name, entry in entries.items():
                if not NAME.fullmatch(name):
                    hint = "letters, digits, dot, dash and underscore; a slash separates upstream from model"
                    self._problems.add("E015", entry.spot, f'"{name}" is no name for one of {section}', hint)
                if name in taken:
                    other, spot = taken[name]
                    said = f'"{name}" is {_a(other)} {spot.seen_from(entry.spot)} already'
                    self._problems.add("E016", entry.spot, said, "upstreams, targets and chains share names")
                taken.setdefault(name, (kind, entry.spot))


def _spelled(value: object) -> str:
    """Return an option as a message says it."""
    if isinstance(value, Tls):
        return f"{value.cert} and {value.key}"
    return "nothing" if value is None else f"{value} bytes" if isinstance(value, Size) else str(value)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _spots(entries: Mapping[str, Entry]) -> dict[str, Spot]:
    return {name: entry.spot for name, entry in entries.items()}


def _spot_in(root: Table, node: Node | None, *keys: str) -> Spot:
    """Return where the innermost of ``keys`` stands below ``node`` that is there."""
    spot = root.spot if node is None else node.spot
    for key in keys:
        node = node.get(key) if isinstance(node, Table) else None
        if node is None:
            break
        spot = node.spot
    return spot


def _members(
    stores: Stores, accounts: Accounts, chains: Chains, upstreams: Mapping[str, Upstream], routes: Iterable[Route]
) -> dict[Place, object]:
    """Return the stores, the pools of accounts, the middlewares and adapters that upstreams and routes lead to, upstreams'
    first, and what targets keep; each with its place. What stands before something starts before it, and ends after it."""
    owners: dict[int, str] = {}
    for name, chain in chains.named.items():
        for middleware in chain.middlewares:
            owners.setdefault(id(inner_of(middleware)), f"chains.{name}")
    owned = [
        (f"upstreams.{name}", inner_of(member))
        for name, upstream in upstreams.items()
        for member in (upstream.adapter, *upstream.middlewares)
        if member is not None
    ]
    owned += [(f"routes.{route.name}", inner_of(middleware)) for route in routes for middleware in route.middlewares]
    owned += [
        (f"targets.{target.spelled}", part)
        for route in routes
        for target in route.aim.targets()
        for part in (target.hedge and target.hedge.allowance, target.shadow and target.shadow.shadows)
        if part is not None
    ]
    members: dict[Place, object] = {
        Place(f"stores.{name}", type(store)): store for name, store in stores.named.items() if name in stores.used
    }
    for name, pool in accounts.named.items():
        if name in accounts.used:
            members[Place(f"accounts.{name}", type(pool))] = pool
    seen: set[int] = set()
    counts: Counter[tuple[str, type]] = Counter()
    for owner, member in owned:
        if id(member) in seen:
            continue
        seen.add(id(member))
        owner, kind = owners.get(id(member), owner), type(member)
        counts[owner, kind] += 1
        members[Place(owner, kind, counts[owner, kind])] = member
    return members


def _introduce(members: Iterable[object], upstreams: Mapping[str, Upstream]) -> None:
    """Tell those who want to know where upstreams are."""
    reached: dict[str, Reached] = {}
    for name, upstream in upstreams.items():
        base_url = getattr(upstream.adapter, "base_url", None)
        reached[name] = Reached(upstream.adapter_name, base_url if isinstance(base_url, str) else None)
    for member in members:
        if isinstance(member, KnowsUpstreams):
            member.know(reached)
