"""``headgate test``: runs the tests in a rule file."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .. import rules
from ..rules.problems import Spot
from ..rules.trials import Trial, show
from .show import Screen, problems_as_data


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "test",
        help="run the tests in a rule file",
        description="Run the tests in a rule file. Nothing is sent: no network, no provider and no secret is needed. "
        "Every upstream counts as on, and of a split the heaviest branch is taken, unless a test says otherwise.",
    )
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default="routes.yaml", help="the rule file (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the tests; exit code 0: all passed, and the file has no errors."""
    trials, problems = rules.try_out(options.file)
    screen = Screen(sys.stdout)
    failed = sum(not trial.passed for trial in trials)
    others = [problem for problem in problems if problem.severity == "error" and problem.code != "E060"]
    if options.json:
        data = {"file": options.file, "ok": not (failed or others), "tests": [_as_data(trial) for trial in trials]}
        screen.json({**data, "problems": problems_as_data(others)})
    else:
        screen.problems(others)
        for trial in trials:
            _print(screen, trial)
        if others:
            screen.line(f"{options.file}: the tests cannot run before the file is in order")
        else:
            screen.line(f"{options.file}: {len(trials) - failed} passed, {failed} failed")
    return 1 if failed or others else 0


def _print(screen: Screen, trial: Trial) -> None:
    screen.verdict(trial.passed, trial.name)
    if trial.fault is not None:
        screen.line(f"      {_place(trial.spot)} {trial.fault}")
    for each in trial.differences:
        screen.line(f"      {_place(each.spot)} expected {each.key} {show(each.expected)}, got {show(each.got)}")
    verdict = trial.verdict
    if trial.passed or verdict is None:
        return
    screen.line(f"      route: {'none matches' if verdict.route is None else verdict.route.name}")
    for step in verdict.chosen:
        screen.line(f"      {step}")


def _place(spot: Spot) -> str:
    return f"{spot.source}:{spot.line}:{spot.column}"


def _as_data(trial: Trial) -> dict[str, object]:
    verdict = trial.verdict
    return {
        "name": trial.name,
        "line": trial.spot.line,
        "passed": trial.passed,
        "fault": trial.fault,
        "differences": [
            {"key": each.key, "expected": each.expected, "got": each.got, "line": each.spot.line}
            for each in trial.differences
        ],
        "route": None if verdict is None or verdict.route is None else verdict.route.name,
        "upstream": None if verdict is None or verdict.leaf is None else verdict.leaf.upstream.name,
        "chosen": [] if verdict is None else list(verdict.chosen),
    }
