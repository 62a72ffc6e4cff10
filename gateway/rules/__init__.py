"""Rule files: ``load`` compiles one to a Plan, ``check`` says everything that is wrong with it.

- ``document``, ``scalars``: YAML into nodes with positions; ``include``: several files as one; ``problems``: what is wrong
- ``schema``: every key, as msgspec Structs; ``read``: nodes into Structs, all mistakes at once; ``listen``: addresses
- ``read_match``, ``condition``, ``regex``, ``match``: from ``match:`` to a closure over a request's WireFacts
- ``cel``, ``cel_text``: the same for ``when:``
- ``assumed``: secrets that count as there where rules are only looked at or tested
- ``named``, ``chains``, ``stores``, ``accounts``, ``upstreams``, ``targets``, ``routes``: the parts of a plan
- ``build``: puts them together
- ``coverage``: proof that a rule is never reached; ``exposure``: whether the network may reach the plan
- ``upstream``, ``target``, ``plan``: the result
- ``layout``: a file in canonical layout; ``json_schema``, ``json_types``, ``json_match``, ``docstrings``: for editors
- ``migrations``: files of an earlier version into the present one
- ``decide``: what a plan decides about a request; ``given``, ``trials``: the tests in the file
- ``explain``, ``why_not``, ``tries``, ``preview``: the same for people: why, what else may be tried, what would be sent
- ``logged``: decisions about calls in the access log, made once more
"""

from __future__ import annotations

import os
from pathlib import Path

from ..facts import WireFacts
from .assumed import Assumed
from .build import Built, build_plan
from .exposure import check_exposure
from .listen import Listen, parse_listen
from .plan import Plan, Route, ServedModel
from .problems import CATALOGUE, Problem, Problems, RulesError, Spot
from .schema import ServerOptions
from .trials import Trial
from .upstream import Upstream

__all__ = [
    "load",
    "loads",
    "check",
    "check_exposure",
    "try_out",
    "outline",
    "Plan",
    "Route",
    "Upstream",
    "ServedModel",
    "Trial",
    "ServerOptions",
    "WireFacts",
    "Problem",
    "RulesError",
    "CATALOGUE",
    "Listen",
    "parse_listen",
]


def load(path: str | os.PathLike[str], *, previous: Plan | None = None) -> Plan:
    """Return the plan of the rule file at ``path``. Opens no connection. Raises RulesError with every problem found.

    ``previous`` is the plan that this one will replace: the pools of upstreams that did not change are taken over, and keys
    that need a restart must not differ. The old plan stays usable; ``retire`` closes what is left of it.
    """
    built, problems = _compile(Path(path), previous)
    if built.plan is None:
        raise RulesError(problems, built.sources)
    return built.plan


def loads(
    text: str, *, source: str = "routes.yaml", directory: str | os.PathLike[str] = ".", previous: Plan | None = None
) -> Plan:
    """Return the plan of a rule file's text; ``source`` is what problems call it, its paths are relative to ``directory``."""
    problems = Problems()
    built = build_plan(text, source, Path(directory).absolute(), problems, previous)
    if built.plan is None:
        raise RulesError(problems.sorted(), built.sources)
    return built.plan


def check(path: str | os.PathLike[str]) -> list[Problem]:
    """Return every error and warning of the rule file at ``path``, in the order of the file.

    An address that ``serve`` would refuse is among them; ``load`` leaves that to whoever listens.
    """
    built, problems = _compile(Path(path), None)
    exposed = None if built.plan is None else check_exposure(built.plan, built.plan.server.listen)
    return [*problems, exposed] if exposed is not None else list(problems)


def outline(path: str | os.PathLike[str], *, all_on: bool = False, tested: bool = True) -> Plan:
    """Return the plan of the rule file at ``path`` for looking at it, not for serving. Raises RulesError.

    Secrets that are missing count as there, but for optional ones: what they switch off is off, unless ``all_on``.
    Without ``tested`` the file's own tests need not pass.
    """
    built, problems = _compile(Path(path), None, "all" if all_on else "required")
    plan = built.plan if tested else built.untested
    if plan is None:
        raise RulesError(problems, built.sources)
    return plan


def try_out(path: str | os.PathLike[str]) -> tuple[tuple[Trial, ...], list[Problem]]:
    """Run the tests in the rule file at ``path``; return how they went, and every error and warning.

    There are no results when the file has errors of another kind. Needs neither network nor any secret: those that are
    missing count as there, which only ``check`` and ``load`` complain about.
    """
    built, problems = _compile(Path(path), None, "required")
    return built.trials, list(problems)


def _compile(path: Path, previous: Plan | None, assumed: Assumed = "none") -> tuple[Built, tuple[Problem, ...]]:
    problems = Problems()
    nothing = Built(None, (), (path.absolute(),))
    source = str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as fault:
        hint = 'write one with "headgate init"' if isinstance(fault, FileNotFoundError) else ""
        problems.add("E001", Spot(source, 1, 1), f"the file cannot be read: {fault.strerror or fault}", hint)
        return nothing, problems.sorted()
    except UnicodeDecodeError as fault:
        problems.add("E001", Spot(source, 1, 1), f"not UTF-8: byte {fault.start} cannot be read", "save it as UTF-8")
        return nothing, problems.sorted()
    built = build_plan(text, source, path.absolute().parent, problems, previous, path.absolute(), assumed)
    return built, problems.sorted()
