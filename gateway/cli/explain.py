"""``headgate explain``: what would become of a request. Nothing is sent, no connection is opened, no secret is shown."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from .. import rules
from ..errors import KINDS, DecodeError, GatewayError
from ..facts import Principal
from ..registry import UnknownName
from ..rules.explain import explain
from ..rules.given import Posed, pose
from ..rules.plan import Plan
from ..rules.schema import GivenRules
from .asked import Asked, Refused, format_at_path, from_json, from_parts, join, posed_as_asked
from .curl import CurlFault, read_curl
from .explained import as_data, lines
from .show import Screen, problems_as_data
from .veil import Veil, secrets_of

_FILE: Final = "routes.yaml"
_MADE_OF: Final = ("model", "stream", "tools", "image", "metadata")
"""Options that make a request, where none is given."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "explain",
        help="say what would become of a request",
        usage="headgate explain [FILE.yaml] [REQUEST] [options] [--curl COMMAND ...]",
        description="Say what would become of a request, and why: the route, the chain, the target and its tries, what would "
        "be sent to the provider, and what would be lost. Nothing is sent. The middlewares of the chain do not run: what "
        "they would change is not seen. Exit code 1: it would be refused.",
    )
    parser.add_argument(
        "words",
        metavar="FILE",
        nargs="*",
        help="a rule file, which ends in .yaml or .yml (default: routes.yaml), and a request: JSON as a client would send "
        "it, or an object of method, path, headers and body; - reads it from standard input",
    )
    parser.add_argument("--curl", nargs=argparse.REMAINDER, help="the request as a curl command line; the last option")
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument("--all-on", action="store_true", help="take every upstream as on, whatever keys are set")
    request = parser.add_argument_group("the request, or what stands around it")
    request.add_argument("--format", metavar="NAME", help="the caller's format, such as openai.chat")
    request.add_argument("--path", metavar="PATH", help="where it is sent to, such as /v1/messages")
    request.add_argument("--model", metavar="NAME", help="what the caller asks for")
    request.add_argument("--header", metavar="NAME:VALUE", action="append", type=_header, default=[])
    request.add_argument("--query", metavar="NAME=VALUE", action="append", type=_pair, default=[])
    request.add_argument("--metadata", metavar="NAME=VALUE", action="append", type=_pair, default=[])
    request.add_argument("--tokens", metavar="N", type=_count, help="the size that rules see, in place of its own")
    request.add_argument("--stream", action="store_true", help="a stream is asked for")
    request.add_argument("--tools", action="store_true", help="tools are offered")
    request.add_argument("--image", action="store_true", help="an image is shown")
    caller = parser.add_argument_group("who calls, as auth would say")
    caller.add_argument("--key-name", metavar="NAME", help="the configured name of a key, never the key")
    caller.add_argument("--team", metavar="NAME")
    caller.add_argument("--tenant", metavar="NAME")
    caller.add_argument("--tag", "--principal-tag", metavar="NAME", action="append", default=[])
    chance = parser.add_argument_group("what is left to chance and to providers")
    chance.add_argument("--branch", metavar="USE", action="append", default=[], help="the branch to take of a split")
    chance.add_argument(
        "--fail", metavar="KIND", action="append", default=[], choices=KINDS, help="how a try fails; once for each try"
    )
    parser.set_defaults(run=run, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Explain a request."""
    file, source = _files(options)
    screen, complaints = Screen(sys.stdout), Screen(sys.stderr)
    try:
        plan = rules.outline(file, all_on=options.all_on, tested=False)
    except rules.RulesError as fault:
        if options.json:
            screen.json({"file": file, "ok": False, "problems": problems_as_data(fault.problems)})
        else:
            complaints.problems(fault.problems)
        return 1
    try:
        posed = _posed(options, source, plan)
    except (Refused, CurlFault, DecodeError, UnknownName, OSError) as fault:
        said = f"cannot read {source}: {fault.strerror or fault}" if isinstance(fault, OSError) else _said(fault)
        said = Veil(secrets_of(plan, {}, {})).text(said)
        if options.json:
            screen.json({"file": file, "ok": False, "error": said})
        else:
            complaints.failure(said)
        return 1
    told = explain(plan, posed, options.branch, options.fail)
    veil = Veil(secrets_of(plan, posed.facts.headers, posed.facts.query))
    refused = told.outgoing.refusal is not None
    if options.json:
        screen.json({"file": file, "ok": not refused, **as_data(told, veil)})
    else:
        for line in lines(told, veil):
            screen.line(line)
        for branch in options.branch:
            if not any(share.aim.spelled == branch for each in told.drawn for share in each.split.shares):
                complaints.line(f"headgate: no split on the way has a branch {branch}")
    return 1 if refused else 0


def _said(fault: Exception) -> str:
    return fault.message if isinstance(fault, GatewayError) else str(fault)


def _files(options: argparse.Namespace) -> tuple[str, str | None]:
    """Return the rule file and the request's, None if there is none."""
    rule_files = [word for word in options.words if word.endswith((".yaml", ".yml"))]
    requests = [word for word in options.words if word not in rule_files]
    if len(rule_files) > 1 or len(requests) > 1:
        options.usage_error("give one rule file, which ends in .yaml, and one request")
    source = requests[0] if requests else None
    made = [f"--{name}" for name in _MADE_OF if getattr(options, name)]
    if source is not None and options.curl is not None:
        options.usage_error("give a request file or --curl, not both")
    if (source is not None or options.curl is not None) and made:
        options.usage_error(f"{made[0]} makes a request, but one is given already")
    if source is None and options.curl is None and not made and not options.format and not options.path:
        options.usage_error("there is no request: name a file, or say --curl, or say --model and the like")
    return (rule_files[0] if rule_files else _FILE), source


def _posed(options: argparse.Namespace, source: str | None, plan: Plan) -> Posed:
    """Return the request. Raises Refused, CurlFault, DecodeError, UnknownName, OSError."""
    principal = Principal(options.key_name or "anonymous", options.team, options.tenant or "", tuple(options.tag))
    if options.curl is not None:
        curl = read_curl(options.curl)
        asked = from_parts(curl.method, curl.url, curl.headers, curl.body)
    elif source is not None:
        asked = from_json(sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes())
    else:
        by_path = None if options.path is None else format_at_path(options.path)
        given = GivenRules(
            format=options.format or by_path or "openai.chat",
            model=options.model or "any",
            metadata=dict(options.metadata),
            stream=options.stream,
            tools=options.tools,
            has_image=options.image,
        )
        posed = pose(given)
        asked = Asked(posed.body, posed.facts.path, format=given.format)
    asked = asked._replace(
        path=options.path or asked.path,
        format=options.format or asked.format,
        headers={**asked.headers, **join(options.header)},
        query={**asked.query, **dict(options.query)},
    )
    return posed_as_asked(asked, plan, principal, options.tokens)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError("expected NAME:VALUE")
    return name.strip(), value.strip()


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError("expected NAME=VALUE")
    return name, value


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("expected a whole number")
    return int(text)
