"""``headgate keys``: virtual keys, made, listed, replaced and revoked in the database that a rule file names."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .. import rules
from ..identity.expiry import in_time, written
from ..units import Duration
from .show import Screen

if TYPE_CHECKING:
    from ..identity.database import KeyDatabase, VirtualKey

_HEADINGS: Final = ("name", "key", "state", "team", "tenant", "tags", "routes", "models", "expires")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "keys",
        help="make, list, replace and revoke virtual keys",
        description="Keys by which callers are let in, kept in the database that auth names in the rule file. Only a hash of "
        "each is written down. Running gateways take a change within two seconds.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    create = _action(actions, "create", "make a key, and print it this one time", _create)
    create.add_argument("name", metavar="NAME", help="what logs and limits call it")
    create.add_argument("--team", help="its team")
    create.add_argument("--tenant", default="", help="whose data it sees (default: a tenant of its own)")
    create.add_argument("--tag", action="append", default=[], help="a tag, for rules to ask about; may be repeated")
    create.add_argument("--route", action="append", metavar="GLOB", help="a route it may use; may be repeated")
    create.add_argument("--model", action="append", metavar="GLOB", help="a model it may ask for; may be repeated")
    create.add_argument("--expires", metavar="WHEN", help="30d, or a date such as 2027-01-31")
    _action(actions, "list", "list the keys", _list)
    _action(actions, "show", "show one key", _show).add_argument("name", metavar="NAME")
    rotate = _action(actions, "rotate", "give a key a new secret, and print it this one time", _rotate)
    rotate.add_argument("name", metavar="NAME")
    rotate.add_argument(
        "--grace",
        type=_grace,
        default=0.0,
        metavar="TIME",
        help="how long the old one stays good, such as 1h (default: not)",
    )
    rotate.add_argument("--expires", metavar="WHEN", help="when the key expires from now on: 30d, a date, or never")
    _action(actions, "revoke", "have a key refused from now on", _revoke).add_argument("name", metavar="NAME")


def _action(
    actions: Any, name: str, help: str, run: Callable[[argparse.Namespace, KeyDatabase, Screen], object]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=help)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--file", default="routes.yaml", help="the rule file that names the database (default: %(default)s)"
    )
    where.add_argument("--db", metavar="PATH", help="the database itself")
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.set_defaults(run=lambda options: _run(options, run))
    return parser


def _grace(text: str) -> float:
    try:
        return Duration.parse(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from fault


def _run(options: argparse.Namespace, action: Callable[[argparse.Namespace, KeyDatabase, Screen], object]) -> int:
    import sqlite3  # by this command alone: not every Python has it

    from ..identity.database import KeyDatabase

    complaints, path = Screen(sys.stderr), options.db or ""
    try:
        path = path or _named(options.file)
        action(options, KeyDatabase(path), Screen(sys.stdout))
    except rules.RulesError as fault:
        complaints.problems(fault.problems)
    except ValueError as fault:
        complaints.failure(str(fault))
    except BrokenPipeError:
        pass  # who read the list has seen enough
    except FileNotFoundError:
        complaints.failure(f"there is no {path}: headgate keys create makes it, in a directory that is there")
    except (sqlite3.Error, OSError) as fault:
        complaints.failure(f"cannot use {path}: {getattr(fault, 'strerror', None) or fault}")
    else:
        return 0
    return 1


def _named(file: str) -> str:
    """Return the database that the auth of a rule file names. Raises RulesError, ValueError."""
    plan = rules.outline(file, all_on=True, tested=False)
    found = {
        str(path) for member in plan.members.values() if (path := getattr(member, "key_database", None)) is not None
    }
    if len(found) == 1:
        return found.pop()
    if found:
        raise ValueError(f"{file} names several databases: say which, --db {' or --db '.join(sorted(found))}")
    raise ValueError(f"no auth in {file} names a database: add one (auth: {{database: keys.db}}), or give --db PATH")


def _create(options: argparse.Namespace, database: KeyDatabase, screen: Screen) -> None:
    from ..identity.database import Wanted

    wanted = Wanted(
        options.name,
        options.team,
        options.tenant,
        tuple(options.tag),
        tuple(options.route or ("*",)),
        tuple(options.model or ("*",)),
        _moment(options.expires),
    )
    _hand_over(options, database, screen, database.create(wanted))


def _rotate(options: argparse.Namespace, database: KeyDatabase, screen: Screen) -> None:
    expires = None if options.expires is None else in_time(options.expires, time.time())
    _hand_over(options, database, screen, database.rotate(options.name, options.grace, expires))


def _hand_over(options: argparse.Namespace, database: KeyDatabase, screen: Screen, key: str) -> None:
    """Print a key: on standard output alone, so that a script may take it, and nothing but it."""
    if options.json:
        screen.json({**_told(database.find(options.name)), "key": key})
        return
    Screen(sys.stderr).line(f"the key {options.name}; it is not shown again:")
    screen.line(key)


def _list(options: argparse.Namespace, database: KeyDatabase, screen: Screen) -> None:
    keys = database.every()
    if options.json:
        screen.json({"keys": [_told(key) for key in keys]})
        return
    screen.table([_HEADINGS, *map(_row, keys)])


def _show(options: argparse.Namespace, database: KeyDatabase, screen: Screen) -> None:
    key = database.find(options.name)
    if options.json:
        screen.json(_told(key))
        return
    told = dict(zip(_HEADINGS, _row(key), strict=True))
    told["created"] = written(key.created)
    if key.revoked is not None:
        told["revoked"] = written(key.revoked)
    for name, text in told.items():
        screen.line(f"{name:10}{text}")
    for secret in key.secrets[1:]:
        screen.line(f"{'replaced':10}{secret.prefix}…  good until {written(secret.until or 0.0)}")


def _revoke(options: argparse.Namespace, database: KeyDatabase, screen: Screen) -> None:
    database.revoke(options.name)
    if options.json:
        screen.json(_told(database.find(options.name)))
        return
    screen.line(f"the key {options.name} is revoked")


def _moment(text: str | None) -> float | None:
    moment = None if text is None else in_time(text, time.time())
    return None if moment == float("inf") else moment


def _told(key: VirtualKey) -> dict[str, object]:
    """Return what ``--json`` says of a key. Times are Unix seconds."""
    told = msgspec.structs.asdict(key)
    return {**told, "prefix": _prefix(key), "state": key.state(time.time())}


def _row(key: VirtualKey) -> Sequence[str]:
    expires = "never" if key.expires is None else written(key.expires)
    lists = (_joined(key.tags), _joined(key.routes), _joined(key.models))
    return key.name, f"{_prefix(key)}…", key.state(time.time()), key.team or "-", key.tenant, *lists, expires


def _prefix(key: VirtualKey) -> str:
    return key.secrets[0].prefix if key.secrets else ""


def _joined(texts: Sequence[str]) -> str:
    return ", ".join(texts) or "-"
