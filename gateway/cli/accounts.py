"""``headgate accounts``: what is known of the accounts of a rule file's pools, and a reset of one, through the store that they
are kept in. A running gateway writes there once a second, and hears of a reset as soon. No key is shown."""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from .. import rules
from ..accounts.pool import AccountPool, Member
from ..accounts.record import Cooldown, Event, Record, Reset, read_record, read_reset, record_key, reset_key, standing
from ..accounts.state import LATER_S
from ..errors import HouseError
from ..stores.base import Store
from .show import Screen

_HEADINGS: Final = ("pool", "account", "state", "running", "calls", "errors", "why")
_FRESH_S: Final = 30.0
"""Calls under way of a process that has written nothing for longer are not counted: it is gone."""
_MAX_WHY: Final = 80


Action: TypeAlias = Callable[[argparse.Namespace, rules.Plan, Screen], Coroutine[Any, Any, None]]


class _Fault(Exception):
    """Why a command gives up."""


class Known(NamedTuple):
    """An account, what its store says of it, which of its cooldowns hold, by model, "" being all of them, and when it was reset
    last, in Unix seconds."""

    pool: AccountPool
    member: Member
    record: Record | None
    cooldowns: dict[str, Cooldown]
    reset_at: float


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "accounts",
        help="list the accounts of pools, say why one is left alone, and reset it",
        description="What is known of the accounts of pools: which are used, which are left alone, until when and why. It is "
        "read from the store that a pool names, which must be a file of SQLite's: what a gateway keeps in memory alone, "
        "nobody else sees. Running gateways take a reset within two seconds.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    _action(actions, "list", "list the accounts and their states", _list)
    for name, help, run in (
        ("why", "say what happened to an account lately", _why),
        ("reset", "have an account used again, whatever it was left alone for", _reset),
    ):
        _action(actions, name, help, run).add_argument("id", metavar="ID", help="the account, or POOL/ID")


def _action(actions: Any, name: str, help: str, run: Action) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=help)
    parser.add_argument("--file", default="routes.yaml", help="the rule file (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.set_defaults(run=lambda options: _run(options, run))
    return parser


def _run(options: argparse.Namespace, action: Action) -> int:
    complaints = Screen(sys.stderr)
    try:
        asyncio.run(action(options, rules.outline(options.file, tested=False), Screen(sys.stdout)))
    except rules.RulesError as fault:
        complaints.problems(fault.problems)
    except _Fault as fault:
        complaints.failure(str(fault))
    except BrokenPipeError:
        pass  # who read the list has seen enough
    except (HouseError, sqlite3.Error, OSError, ValueError) as fault:
        complaints.failure(f"cannot read the store: {getattr(fault, 'strerror', None) or fault}")
    else:
        return 0
    return 1


# -- the actions


async def _list(options: argparse.Namespace, plan: rules.Plan, screen: Screen) -> None:
    pools = _pools(plan)
    now = time.time()
    known = await _known(pools, now)
    if options.json:
        screen.json({"file": options.file, "accounts": [_as_data(each, now) for each in known]})
        return
    if not pools:
        raise _Fault(f"no upstream in {options.file} has accounts")
    rows: list[Sequence[str]] = [_HEADINGS]
    for each in known:
        running, calls, errors = _figures(each.record, now)
        figures = (str(running), str(calls), str(errors)) if each.record is not None else ("-", "-", "-")
        states = [_said(model, cooldown, now) for model, cooldown in sorted(each.cooldowns.items())]
        whys = [_short(cooldown.why) for _, cooldown in sorted(each.cooldowns.items())]
        if not _is_seen(each.pool):
            states = ["in memory"]
        elif each.member.off is not None:
            states = [f"off: {each.member.off}"]
        rows.append((each.pool.name, each.member.id, (states or ["in use"])[0], *figures, (whys or [""])[0]))
        rows += [("", "", state, "", "", "", why) for state, why in zip(states[1:], whys[1:], strict=False)]
    screen.table(rows)
    for pool in pools:
        if not _is_seen(pool):
            screen.line(_unseen(pool))


async def _why(options: argparse.Namespace, plan: rules.Plan, screen: Screen) -> None:
    now = time.time()
    found = await _known(_named(options.id, plan), now, options.id)
    if options.json:
        screen.json({"file": options.file, "accounts": [_as_data(each, now) for each in found]})
        return
    for each in found:
        screen.line(f"{each.pool.name}/{each.member.id}")
        for model, cooldown in sorted(each.cooldowns.items()):
            screen.line(f"  now: {_said(model, cooldown, now)}: {cooldown.why}")
        if not each.cooldowns:
            screen.line("  now: in use" if each.member.off is None else f"  now: off: {each.member.off}")
        for event in reversed(() if each.record is None else each.record.events):
            screen.line(f"  {_moment(event.at)}  {_told(event)}")


async def _reset(options: argparse.Namespace, plan: rules.Plan, screen: Screen) -> None:
    pools = _named(options.id, plan)
    for each in await _known(pools, time.time(), options.id):
        latest = max((cooldown.at for cooldown in each.cooldowns.values()), default=0.0)
        at = max(time.time(), latest, each.reset_at + LATER_S)  # the later word, whatever the clock did
        assert each.pool.store is not None
        await _put(each.pool.store, each.pool.name, each.member.id, Reset(at))
        if not options.json:
            screen.line(f"{each.pool.name}/{each.member.id} is used again; running gateways know within two seconds")
    if options.json:
        screen.json({"file": options.file, "reset": [f"{pool.name}/{_id(options.id)}" for pool in pools]})


# -- where they are kept


def _pools(plan: rules.Plan) -> list[AccountPool]:
    return [member for member in plan.members.values() if isinstance(member, AccountPool)]


def _id(text: str) -> str:
    return text.rpartition("/")[2]


def _named(text: str, plan: rules.Plan) -> list[AccountPool]:
    """Return the pools that have the account; all of them can be looked into. Raises _Fault."""
    pool_name, _, id = text.rpartition("/")
    pools = [
        pool for pool in _pools(plan) if pool_name in ("", pool.name) and any(member.id == id for member in pool.all)
    ]
    if not pools:
        known = ", ".join(f"{pool.name}/{member.id}" for pool in _pools(plan) for member in pool.all)
        raise _Fault(f'there is no account "{text}"; known are {known or "none"}')
    for pool in pools:
        if not _is_seen(pool):
            raise _Fault(_unseen(pool))
    return pools


def _is_seen(pool: AccountPool) -> bool:
    return pool.store is not None and pool.store.shared


def _unseen(pool: AccountPool) -> str:
    return (
        f"the accounts of {pool.name} are kept in memory, by the store {pool.store_name}: a running gateway's state can be "
        f"seen and reset only through a file. Give accounts.{pool.name} a store of kind sqlite"
    )


async def _known(pools: Iterable[AccountPool], now: float, id: str = "") -> list[Known]:
    """Return what is known of the accounts of ``pools``, or of those called ``id``."""
    known: list[Known] = []
    for pool in pools:
        members = [member for member in pool.all if not id or member.id == _id(id)]
        found = await _read(pool, members) if _is_seen(pool) else []
        told = dict(zip(members, zip(found[::2], found[1::2], strict=True), strict=False))
        for member in members:
            kept, reset = told.get(member, (None, None))
            record = read_record(kept)
            reset_at = read_reset(reset)
            cooldowns = {} if record is None else standing(record, reset_at, now)
            known.append(Known(pool, member, record, cooldowns, reset_at))
    return known


async def _read(pool: AccountPool, members: Sequence[Member]) -> list[bytes | None]:
    keys = [key for member in members for key in (record_key(pool.name, member.id), reset_key(pool.name, member.id))]
    assert pool.store is not None
    path = getattr(pool.store, "path", None)
    if path is not None and not path.exists():
        return [None] * len(keys)  # nobody has kept anything yet, and looking makes no file
    async with _opened(pool.store) as store:
        return await store.get(keys)


async def _put(store: Store, pool: str, id: str, reset: Reset) -> None:
    async with _opened(store) as opened:
        opened.put(reset_key(pool, id), reset.encode())
        await opened.settled()


class _opened:
    """A store that is open for a while."""

    def __init__(self, store: Store) -> None:
        self._store: Any = store

    async def __aenter__(self) -> Store:
        await self._store.start()
        store: Store = self._store
        return store

    async def __aexit__(self, *_: object) -> None:
        await self._store.stop()


# -- in words


def _figures(record: Record | None, now: float) -> tuple[int, int, int]:
    """Return the calls under way, all calls, and those that failed, of every process that is known of."""
    counts = [] if record is None else list(record.counts.values())
    running = sum(each.in_flight for each in counts if abs(now - each.at) <= _FRESH_S)
    return running, sum(each.calls for each in counts), sum(each.errors for each in counts)


def _said(model: str, cooldown: Cooldown, now: float) -> str:
    where = f"{model}: " if model else ""
    if cooldown.until is None:
        return f"{where}parked until it is reset, {cooldown.kind}"
    what = "cooling" if cooldown.kind == "rate_limit" else "parked"
    return f"{where}{what} until {_moment(cooldown.until)}, {_span(cooldown.until - now)} from now, {cooldown.kind}"


def _told(event: Event) -> str:
    where = f" ({event.model})" if event.model else ""
    if event.what not in ("cooling", "parked"):
        return event.what + where
    how_long = "until it is reset" if event.for_s is None else f"for {_span(event.for_s)}"
    return f"{event.what} {how_long} after {event.kind}{where}: {event.why}"


def _moment(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix))


def _span(seconds: float) -> str:
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _short(text: str) -> str:
    return text if len(text) <= _MAX_WHY else f"{text[: _MAX_WHY - 1]}…"


def _as_data(each: Known, now: float) -> dict[str, object]:
    running, calls, errors = _figures(each.record, now)
    return {
        "pool": each.pool.name,
        "account": each.member.id,
        "seen": _is_seen(each.pool),
        "off": each.member.off,
        "running": running,
        "calls": calls,
        "errors": errors,
        "cooldowns": [
            {"model": model or None, **msgspec.structs.asdict(cooldown)}
            for model, cooldown in sorted(each.cooldowns.items())
        ],
        "events": [] if each.record is None else [msgspec.structs.asdict(event) for event in each.record.events],
    }
