"""The reference in docs/rules.md, written from the types that read rule files: ``python -m tests.rules.rules_page``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from headgate.gateway import rules
from headgate.gateway.accounts.options import AffinityRules, CooldownRules, MemberRules, PoolRules
from headgate.gateway.cli.drawing import draw
from headgate.gateway.cli.mermaid import mermaid
from headgate.gateway.emulation.options import Emulate
from headgate.gateway.media.options import FetchRules, MediaRules
from headgate.gateway.pricing.price import PriceRules
from headgate.gateway.pricing.table import PriceSection, UpstreamPrices
from headgate.gateway.rules import schema
from headgate.gateway.rules.docstrings import field_docs
from headgate.gateway.transport.options import TransportOptions
from headgate.gateway.units import Budget, Duration, FilePath, Percent, Rate, Secret, Size
from msgspec import UNSET, Struct, UnsetType

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"
MARK = "<!-- What follows is written by tests/rules/rules_page.py -->\n"
SECTIONS: tuple[tuple[str, type[Struct]], ...] = (
    ("The file", schema.RuleFile),
    ("server", schema.ServerOptions),
    ("server.cors", schema.Cors),
    ("server.tls", schema.Tls),
    ("defaults", schema.Defaults),
    ("timeout", schema.TimeoutRules),
    ("responses", schema.ResponsesRules),
    ("reasoning", schema.ReasoningRules),
    ("stores.NAME", schema.StoreRules),
    ("prices", PriceSection),
    ("prices.models.NAME", PriceRules),
    ("accounts.NAME", PoolRules),
    ("accounts.NAME.members[]", MemberRules),
    ("accounts.NAME.affinity", AffinityRules),
    ("accounts.NAME.cooldown", CooldownRules),
    ("upstreams.NAME", schema.UpstreamRules),
    ("upstreams.NAME.prices", UpstreamPrices),
    ("upstreams.NAME.pool", TransportOptions),
    ("upstreams.NAME.emulate", Emulate),
    ("media", MediaRules),
    ("media.fetch", FetchRules),
    ("targets.NAME", schema.TargetRules),
    ("targets.NAME.select[]", schema.CaseRules),
    ("targets.NAME.select[].split[]", schema.ShareRules),
    ("targets.NAME.on_failure[]", schema.FailureRules),
    ("targets.NAME.hedge", schema.HedgeRules),
    ("targets.NAME.shadow", schema.ShadowRules),
    ("routes[]", schema.RouteRules),
    ("tests[]", schema.TrialRules),
    ("tests[].given", schema.GivenRules),
    ("tests[].given.principal", schema.GivenPrincipal),
    ("tests[].expect", schema.ExpectRules),
)
WORDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    object: "anything",
    Duration: "duration",
    Size: "size",
    Rate: "rate",
    Budget: "budget",
    Percent: "share",
    FilePath: "path",
    Secret: "reference",
}


def reference() -> str:
    """Return the reference: a table for each section of a rule file."""
    return "\n".join(line for title, kind in SECTIONS for line in _section(title, kind)) + "\n"


def _section(title: str, kind: type[Struct]) -> Iterator[str]:
    yield f"### {title if ' ' in title else f'`{title}`'}"
    yield ""
    yield from (inspect.getdoc(kind) or "").replace("``", "`").splitlines()
    yield ""
    restart = getattr(kind, "restart", ())
    yield "| Key | Value | Default | |"
    yield "|---|---|---|---|"
    docs, types = field_docs(kind), get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        name = field.encode_name
        words = docs[field.name].replace("``", "`").replace("|", "\\|") + (
            " A change needs a restart." if name in restart else ""
        )
        yield f"| `{name}` | {_type(types[field.name])} | {_default(field)} | {words} |"
    yield ""


def _type(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is UnionType or origin is Union:
        return " or ".join(_type(each) for each in arguments if each not in (NoneType, UnsetType))
    if origin is Literal:
        if len(arguments) > 8:
            return "[kind of error](troubleshooting.md)"
        return ", ".join(f"`{each}`" for each in arguments)
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, Struct):
        return next(f"`{title}`" for title, each in SECTIONS if each is kind)
    return WORDS[kind]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None or value is UNSET or isinstance(value, Struct) or value in ((), [], {}):
        return ""
    if isinstance(value, Duration):
        return f"`{value / 86400:g}d`" if value and value % 86400 == 0 else f"`{value:g}s`"
    if isinstance(value, Size):
        return f"`{value // 1024}KiB`" if value % 2**20 else f"`{value // 2**20}MiB`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`" if value != "" else ""


def picture(text: str) -> str:
    """Return what ``headgate graph`` draws of a rule file, with all of its upstreams on."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "routes.yaml"
        path.write_text(text.replace('?"', '"'), encoding="utf-8")  # only optional keys can be missing in a picture
        return mermaid(draw(rules.outline(path)))


def page() -> str:
    """Return the whole page as it should be: the picture is that of the step before it."""
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    assert mark, f"{PAGE} lacks the line {MARK!r}"
    before, fence, after = written.partition("```mermaid\n")
    step = before.rpartition("```yaml\n")[2].partition("```")[0]
    written = before + fence + picture(step) + "```" + after.partition("```")[2]
    return written + MARK + "\n" + reference()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
