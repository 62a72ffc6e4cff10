"""``headgate replay``: logged or recorded requests, decided once more by other rules. Nothing is sent."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec

from .. import rules
from ..errors import DecodeError
from ..rules.decide import decide
from ..rules.given import pose_bytes
from ..rules.logged import Decided, LoggedCall, Unsaid, decide_again, decided_by, logged_decision
from ..rules.plan import Plan
from ..rules.problems import mask_keys
from ..rules.target import likeliest
from .asked import Refused, from_json, posed_as_asked
from .body_diff import shortened
from .show import Screen, problems_as_data
from .veil import MASK

_FILE: Final = "routes.yaml"
_LONGEST: Final = 64 * 1024 * 1024
"""Bytes of a line at most: memory stays bounded, whatever the file is."""
_MAX_GROUPS: Final = 500
_EXAMPLES: Final = 3
_MAX_SHOWN: Final = 10
"""Unreadable lines that are told one by one."""


_NOTHING: Final = msgspec.Raw()


class _Kind(msgspec.Struct):
    """Tells a recorded request, which has a body, from a line of the log, which has none."""

    body: msgspec.Raw = _NOTHING


_KIND: Final = msgspec.json.Decoder(_Kind)
_LINE: Final = msgspec.json.Decoder(LoggedCall)


class Change(NamedTuple):
    """One member of a decision that would be another."""

    what: str
    before: str
    after: str


class _Group:
    """The calls whose decision changes alike; the first few of them by line."""

    __slots__ = ("count", "examples")

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[tuple[int, str]] = []


class Tally:
    """What became of all lines, in bounded memory."""

    def __init__(self) -> None:
        self.same = 0
        self.changed = 0
        self.groups: dict[tuple[Change, ...], _Group] = {}
        self.ungrouped = 0
        self.untold: dict[str, int] = {}
        self.unreadable = 0
        self.faults: list[tuple[int, str]] = []

    @property
    def read(self) -> int:
        """All lines but empty ones."""
        return self.same + self.changed + sum(self.untold.values()) + self.unreadable

    def note(self, number: int, about: str, changes: tuple[Change, ...]) -> None:
        """Count a call whose decision changes like this, or not at all."""
        if not changes:
            self.same += 1
            return
        self.changed += 1
        group = self.groups.get(changes)
        if group is None:
            if len(self.groups) >= _MAX_GROUPS:
                self.ungrouped += 1
                return
            group = self.groups[changes] = _Group()
        group.count += 1
        if len(group.examples) < _EXAMPLES:
            group.examples.append((number, about))

    def cannot_tell(self, fact: str) -> None:
        """Count a call about which the rules ask for a fact that is not there."""
        key = fact if fact in self.untold or len(self.untold) < _MAX_GROUPS else "others"
        self.untold[key] = self.untold.get(key, 0) + 1

    def refuse(self, number: int, why: str) -> None:
        """Count a line that cannot be read."""
        self.unreadable += 1
        if len(self.faults) < _MAX_SHOWN:
            self.faults.append((number, why))


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "replay",
        help="say which decisions about logged requests other rules would change",
        description="Say which decisions other rules would change: route, upstream, model, chain. LOG is what the middleware "
        "log wrote, or recorded requests, one JSON object of method, path, headers and body a line. A logged call is compared "
        "with what the log says became of it, or with FILE if it is given; a recorded request with FILE. Nothing is sent. "
        "Exit code 0: no decision changes; 1: some do, or a line cannot be read or told.",
    )
    parser.add_argument("log", metavar="LOG", help="the lines; - reads them from standard input")
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help=f"the rules before (default for recorded requests: {_FILE})"
    )
    parser.add_argument("--against", metavar="NEW.yaml", required=True, help="the rules after")
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument("--all-on", action="store_true", help="take every upstream as on, whatever keys are set")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Replay a log."""
    screen, complaints = Screen(sys.stdout), Screen(sys.stderr)
    try:
        new = rules.outline(options.against, all_on=options.all_on, tested=False)
        old = None if options.file is None else rules.outline(options.file, all_on=options.all_on, tested=False)
        tally = Tally()
        if options.log == "-":
            _replay(sys.stdin.buffer, _Judge(new, old, options.all_on), tally)
        else:
            with open(options.log, "rb") as log:
                _replay(log, _Judge(new, old, options.all_on), tally)
    except rules.RulesError as fault:
        if options.json:
            screen.json({"log": options.log, "ok": False, "problems": problems_as_data(fault.problems)})
        else:
            complaints.problems(fault.problems)
        return 1
    except OSError as fault:
        complaints.failure(f"cannot read {options.log}: {fault.strerror or fault}")
        return 1
    if options.json:
        screen.json(_as_data(tally, options))
    else:
        _print(tally, screen)
    return 1 if tally.changed or tally.untold or tally.unreadable else 0


class _Judge:
    """Decides lines by both rules. ``old`` is read when the first recorded request asks for it."""

    def __init__(self, new: Plan, old: Plan | None, all_on: bool) -> None:
        self._new = new
        self._old = old
        self._all_on = all_on

    def judge(self, line: bytes) -> tuple[str, Decided, Decided]:
        """Return what a line is about, and both decisions. Raises Unsaid, Refused, DecodeError, msgspec's DecodeError."""
        if bytes(_KIND.decode(line).body):
            return self._recorded(line)
        call = _LINE.decode(line)
        before = logged_decision(call) if self._old is None else decide_again(self._old, call)
        return f"{call.request_id} {call.format} {call.model}", before, decide_again(self._new, call)

    def _recorded(self, line: bytes) -> tuple[str, Decided, Decided]:
        if self._old is None:
            self._old = rules.outline(_FILE, all_on=self._all_on, tested=False)
        posed = posed_as_asked(from_json(line), self._new)
        model = posed.wire.model
        earlier = pose_bytes(posed.codec, posed.body, posed.facts, plan=self._old)
        before = decided_by(decide(self._old, earlier.wire, likeliest), model)
        after = decided_by(decide(self._new, posed.wire, likeliest), model)
        return f"{posed.wire.format} {model}", before, after


def _replay(log: BinaryIO, judge: _Judge, tally: Tally) -> None:
    for number, line in _numbered(log):
        if line is None:
            tally.refuse(number, f"longer than {_LONGEST} bytes")
            continue
        start = line.find(b"{")
        if start < 0:
            tally.refuse(number, "no JSON object")
            continue
        try:
            about, before, after = judge.judge(line[start:])  # a logger may have put a time and a name before it
        except Unsaid as fault:
            tally.cannot_tell(_shown(str(fault)))
        except (Refused, DecodeError, msgspec.DecodeError, UnicodeDecodeError) as fault:
            tally.refuse(number, _shown(str(fault)))
        else:
            tally.note(number, _shown(about), _changes(before, after))


def _numbered(log: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines that are not empty, each with its number; None in place of one that is too long."""
    number = 0
    while line := log.readline(_LONGEST):
        number += 1
        if len(line) == _LONGEST and not line.endswith(b"\n"):
            while (rest := log.readline(_LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        elif line := line.strip():
            yield number, line


def _changes(before: Decided, after: Decided) -> tuple[Change, ...]:
    found = []
    for what in ("route", "upstream", "model", "chain"):
        old, new = getattr(before, what), getattr(after, what)
        if old != new and (what == "route" or before.route is None or old is not None):
            found.append(Change(what, _spelled(old), _spelled(new)))
    return tuple(found)


def _spelled(value: str | tuple[str, ...] | None) -> str:
    if isinstance(value, str):
        return _shown(value)
    return _shown(", ".join(value)) if value else "none"


def _shown(text: str) -> str:
    """Return a text from a log, without what looks like a key, and not too long to be kept."""
    return shortened(mask_keys(text, MASK))


def _print(tally: Tally, screen: Screen) -> None:
    for changes, group in _by_count(tally):
        screen.line(f"{group.count}  {'; '.join(f'{each.what}: {each.before} → {each.after}' for each in changes)}")
        for number, about in group.examples:
            screen.line(f"      line {number}: {about}")
    if tally.ungrouped:
        screen.line(f"{tally.ungrouped}  other changes")
    for fact, count in tally.untold.items():
        screen.line(f"{count}  cannot be told: the rules ask for {fact}, which the log does not hold")
    for number, why in tally.faults:
        screen.line(f"line {number} cannot be read: {why}")
    if tally.unreadable > len(tally.faults):
        screen.line(f"and {tally.unreadable - len(tally.faults)} lines more that cannot be read")
    untold = sum(tally.untold.values())
    screen.line(
        f"{tally.read} read: {tally.same} the same, {tally.changed} changed, {untold} cannot be told, "
        f"{tally.unreadable} cannot be read"
    )


def _by_count(tally: Tally) -> list[tuple[tuple[Change, ...], _Group]]:
    return sorted(tally.groups.items(), key=lambda item: -item[1].count)


def _as_data(tally: Tally, options: argparse.Namespace) -> object:
    data = {
        "log": options.log,
        "ok": not (tally.changed or tally.untold or tally.unreadable),
        "read": tally.read,
        "same": tally.same,
        "changed": tally.changed,
        "changes": [
            {
                "count": group.count,
                "changes": [each._asdict() for each in changes],
                "examples": [{"line": number, "about": about} for number, about in group.examples],
            }
            for changes, group in _by_count(tally)
        ],
        "other_changes": tally.ungrouped,
        "cannot_be_told": tally.untold,
        "unreadable": tally.unreadable,
        "unreadable_lines": [{"line": number, "why": why} for number, why in tally.faults],
    }
    return data
