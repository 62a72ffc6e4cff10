"""What commands print: findings, tables, JSON. Columns are aligned; colour only on a terminal that wants it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from io import TextIOWrapper
from typing import Final, TextIO

import msgspec

from ..rules import Plan, Problem, Route
from ..rules.condition import Condition, spell
from ..rules.target import Hedge, Shadow

_COLOURS: Final = {"good": "32", "error": "31", "warning": "33", "bold": "1", "faint": "2"}
_HEADINGS: Final = ("#", "route", "match", "chain", "to", "state")


class Screen:
    """Writes to ``stream``."""

    def __init__(self, stream: TextIO) -> None:
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter still shows the rest
        self._stream = stream
        self._colour = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def line(self, text: str) -> None:
        """Print one line; what a terminal would obey instead of showing is shown escaped."""
        print(visible(text), file=self._stream)

    def failure(self, text: str) -> None:
        """Print why a command gave up."""
        print(f"headgate: {self._paint('error', 'error')}: {visible(text)}", file=self._stream)

    def problems(self, problems: Iterable[Problem]) -> None:
        """Print findings as a compiler does, one a line."""
        for problem in problems:
            text = visible(str(problem))
            mark = f"{problem.severity} {problem.code}"
            print(text.replace(mark, self._paint(mark, problem.severity), 1), file=self._stream)

    def verdict(self, good: bool, text: str) -> None:
        """Print that something holds, or does not."""
        mark = self._paint("ok", "good") if good else self._paint("FAIL", "error")
        print(f"{mark}{' ' * (4 if good else 2)}{visible(text)}", file=self._stream)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print rows in aligned columns, the first row as headings."""
        rows = [[visible(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for at, row in enumerate(rows):
            text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            print(self._paint(text, "bold") if at == 0 else text, file=self._stream)

    def json(self, data: object) -> None:
        """Print data for programs."""
        print(msgspec.json.format(msgspec.json.encode(data), indent=2).decode(), file=self._stream)

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colour else text


def problems_as_data(problems: Iterable[Problem]) -> list[dict[str, object]]:
    """Return findings for JSON: code, severity, source, line, column, message, hint."""
    return [msgspec.structs.asdict(problem) for problem in problems]


def plan_as_data(plan: Plan) -> dict[str, object]:
    """Return what ``routes --json`` says of a plan."""
    return {
        "routes": [
            {
                "name": route.name,
                "source": route.source,
                "line": route.line,
                "match": _match(route),
                "when": route.when,
                "chain": list(route.chain_names),
                "to": route.to,
                "upstream": None if route.upstream is None else route.upstream.name,
                "model": route.model,
                "beside": [
                    {"place": each.place, "use": each.aim.spelled, "off": each.aim.off} for each in _beside(route)
                ],
                "loss": route.loss,
                "timeout_s": route.total_s,
                "off": route.off,
            }
            for route in plan.routes
        ],
        "upstreams": [
            {"name": upstream.name, "adapter": upstream.adapter_name, "off": upstream.off}
            for upstream in plan.upstreams.values()
        ],
        "models": [{"name": model.name, "route": model.route.name} for model in plan.models()],
        "problems": problems_as_data(plan.warnings),
    }


def routes_table(plan: Plan) -> list[Sequence[str]]:
    """Return the routes in order as rows of text, headings first."""
    rows: list[Sequence[str]] = [_HEADINGS]
    for at, route in enumerate(plan.routes, 1):
        match = "  ".join(demands(route.conditions, route.when)) or "every request"
        state = "on" if route.off is None else f"off: {route.off}"
        rows.append((str(at), route.name, match, ", ".join(route.chain_names) or "-", _led_to(route), state))
    return rows


def _led_to(route: Route) -> str:
    """Return where a route leads, with what is asked beside that."""
    kinds = [(each, "shadow" if isinstance(each, Shadow) else "hedge") for each in _beside(route)]
    said = ", ".join(f"{kind} {each.aim.spelled}" for each, kind in kinds)
    return f"{route.to} ({said})" if said else route.to


def _beside(route: Route) -> list[Hedge | Shadow]:
    found = {each.place: each for target in route.aim.targets() for each in target.beside}
    return list(found.values())


def demands(conditions: Mapping[str, Condition], when: str | None) -> list[str]:
    """Return what a ``match`` and a ``when`` ask for, one short text for each condition."""
    said = [f"{fact}: {short(spell(condition))}" for fact, condition in conditions.items()]
    return said if when is None else [*said, f"when: {' '.join(when.split())}"]


def _match(route: Route) -> dict[str, object]:
    return {fact: spell(condition) for fact, condition in route.conditions.items()}


def short(value: object) -> str:
    """Return what a condition demands, or a value, in the file's own spelling."""
    if isinstance(value, list):
        return f"[{', '.join(map(short, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {short(inner)}' for key, inner in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def visible(text: str) -> str:
    """Return ``text`` with what a terminal would obey instead of showing it escaped."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
