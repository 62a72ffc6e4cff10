"""An explanation as lines for people, and as data for programs: both from the same record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ..accounts.pool import AccountPool
from ..counted import CountedFacts
from ..facts import ANONYMOUS, WireFacts
from ..rules.decide import Beside
from ..rules.explain import Drawn, Explanation
from ..rules.target import Shadow
from ..rules.tries import Try
from ..rules.why_not import PassedBy, Unmet
from ..units import Percent
from .body_diff import body_diff
from .show import short
from .veil import MASK, Veil, is_secret_name

_INDENT = " " * 10


def lines(told: Explanation, veil: Veil) -> Iterator[str]:
    """Yield the explanation line by line."""
    for line in _lines(told, veil):
        yield veil.text(line)


def _lines(told: Explanation, veil: Veil) -> Iterator[str]:
    wire, verdict, sent = told.posed.wire, told.verdict, told.outgoing
    traits = [
        name for name, there in (("stream", wire.stream), ("tools", wire.tools), ("image", wire.has_image)) if there
    ]
    size = f"{len(told.posed.body)} bytes, {wire.tokens} tokens as rules count them"
    if (vocabulary := _vocabulary(wire)) is not None:
        size += f" (by {vocabulary})"
    yield _row("request", "  ".join([wire.format, wire.model, wire.path, size, *traits]))
    if wire.principal != ANONYMOUS or (verdict.route is not None and verdict.route.authenticates):
        yield _row("caller", _caller(told))
    yield from _rows("passed by", [_passed_by(each, veil) for each in told.routes])
    if verdict.route is None:
        yield _row("route", "none matches")
        yield _row("refused", _refusal(told))
        return
    yield _row("route", f"{verdict.route.name}  ({verdict.route.source}:{verdict.route.line})")
    yield _row("chain", " → ".join(verdict.chain) or "-")
    yield _row("to", verdict.route.to)
    yield from _rows("not taken", [_passed_by(each, veil) for each in told.cases])
    yield from _rows("chosen", list(verdict.chosen))
    yield from _rows("split", [_split(each) for each in told.drawn])
    yield from _rows("tried", [f"{leaf.spelled} fails" for leaf in verdict.tried])
    yield from _rows("tries", [f"{at}. {_try(each)}" for at, each in enumerate(told.tries, 1)])
    yield from _rows("passed over", [f"{leaf.spelled} would lose something (loss: refuse)" for leaf in verdict.skipped])
    yield from _rows("hedge", [_beside(each) for each in verdict.hedges])
    yield from _rows("shadow", [_beside(each) for each in verdict.shadows])
    if verdict.leaf is not None:
        yield _row("upstream", f"{verdict.leaf.upstream.name} ({verdict.leaf.upstream.adapter_name})")
        yield from _rows("accounts", _accounts(verdict.leaf.upstream.accounts))
        yield _row("model", sent.decision.model)
    if sent.preview is not None:
        yield _row("sends", f"{sent.preview.method} {url_shown(sent.preview.url)}")
        for name, value in headers_shown(told).items():
            yield f"{_INDENT}{name}: {value}"
        yield from _body(told, veil)
    elif sent.in_process:
        by = (
            "the gateway counts the tokens" if told.posed.counts else f"the adapter {_adapter(told)} answers in process"
        )
        yield _row("sends", f"nothing: {by}")
    elif sent.refusal is None:
        yield _row("sends", f"the adapter {_adapter(told)} does not say what")
    loss = [f"{each.kind} {each.path}: {each.what} ({each.why})" for each in sent.losses]
    yield from _rows("loss", loss or (["none"] if sent.preview is not None else []))
    if sent.refusal is not None:
        yield _row("refused", _refusal(told))


def _row(label: str, text: str) -> str:
    return f"{label.ljust(len(_INDENT))}{text}"


def _rows(label: str, texts: list[str]) -> Iterator[str]:
    for at, text in enumerate(texts):
        yield _row(label if at == 0 else "", text)


def _caller(told: Explanation) -> str:
    who = told.posed.wire.principal
    facts = [f"key {who.key}"]
    facts += [f"team {who.team}"] if who.team is not None else []
    facts += [f"tenant {who.tenant}"] if who.tenant else []
    facts += [f"tags {', '.join(who.tags)}"] if who.tags else []
    note = (
        "" if who != ANONYMOUS else "  (auth is not asked here: --key-name, --team, --tenant and --tag say who calls)"
    )
    return ", ".join(facts) + note


def _passed_by(each: PassedBy, veil: Veil) -> str:
    reasons = [] if each.off is None else [f"off: {each.off}"]
    reasons += [_unmet(one, veil) for one in each.unmet]
    return f"{each.place}  {'; '.join(reasons)}"


def _unmet(one: Unmet, veil: Veil) -> str:
    if one.fact == "when":
        return f"when does not hold: {' '.join(str(one.expected).split())}"
    got = MASK if _is_secret_fact(one.fact) and one.got is not None else one.got
    return f"{one.fact}: expected {short(one.expected)}, got {'nothing' if got is None else _got(got, veil)}"


def _got(value: object, veil: Veil) -> str:
    text = veil.text(short(list(value) if isinstance(value, tuple) else value))
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def _is_secret_fact(name: str) -> bool:
    group, _, key = name.partition(".")
    return group in ("header", "query") and is_secret_name(key)


def _split(each: Drawn) -> str:
    total = sum(share.weight for share in each.split.shares)
    weights = ", ".join(f"{share.aim.spelled} {100 * share.weight / total:.4g} %" for share in each.split.shares)
    heaviest = max(each.split.shares, key=lambda share: share.weight)
    if each.bound:
        why = f"bound to it by {each.split.fact}"
    else:
        why = "the heaviest; live calls draw by weight" if each.share is heaviest else "as asked"
    return f"{each.place}  {weights}; shown is {each.share.aim.spelled}, {why}"


def _try(each: Try) -> str:
    text = each.off or f"no case of {each.place} applies" if each.leaf is None else each.leaf.spelled
    if each.kinds is None:
        return text
    return f"{text}  after {', '.join(sorted(each.kinds))} within {each.after}  ({each.place})"


def _beside(each: Beside) -> str:
    what = each.what
    to = what.aim.spelled if each.leaf is None or each.leaf is what.aim else f"{what.aim.spelled}: {each.leaf.spelled}"
    if isinstance(what, Shadow):
        return f"copies of {Percent(what.share)} of the calls to {to}  ({what.place})"
    share = Percent(what.allowance.share)
    return f"after {what.after_s:g} s without content also {to}, for {share} of the calls at most  ({what.place})"


def _beside_data(each: Beside) -> dict[str, object]:
    what = each.what
    found: dict[str, object] = {
        "place": what.place,
        "use": what.aim.spelled,
        "upstream": None if each.leaf is None else each.leaf.upstream.name,
    }
    if isinstance(what, Shadow):
        return {**found, "share": what.share}
    return {**found, "after_s": what.after_s, "max_extra": what.allowance.share}


def _adapter(told: Explanation) -> str:
    leaf = told.verdict.leaf
    return "" if leaf is None else leaf.upstream.adapter_name


def _accounts(pool: AccountPool | None) -> list[str]:
    if pool is None or not pool.members:
        return []
    ids = ", ".join(member.id for member in pool.members)
    return [f"{pool.name}, by {pool.pick}: {ids}; shown is {pool.members[0].id}"]


def _refusal(told: Explanation) -> str:
    refusal = told.outgoing.refusal
    return "" if refusal is None else f"{refusal.message}  ({refusal.kind}, HTTP {refusal.status})"


def headers_shown(told: Explanation) -> dict[str, str]:
    """Return the headers that would be sent, secrets masked."""
    preview, leaf = told.outgoing.preview, told.verdict.leaf
    if preview is None or leaf is None:
        return {}
    hidden = preview.secret_headers | leaf.upstream.secret_headers
    return {
        name: MASK if name in hidden or is_secret_name(name) else value
        for name, value in sorted(preview.headers.items())
    }


def url_shown(url: str) -> str:
    """Return a URL, the values in its query masked that may be secrets."""
    base, mark, query = url.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")]
    return (
        base + mark + "&".join(f"{name}{sign}{MASK if is_secret_name(name) else value}" for name, sign, value in pairs)
    )


def _same_format(told: Explanation) -> bool:
    if told.posed.passed is not None:
        return True
    leaf = told.verdict.leaf
    codec = None if leaf is None else getattr(leaf.upstream.adapter, "codec", None)
    return codec is not None and codec.format == told.posed.codec.format


def _body(told: Explanation, veil: Veil) -> Iterator[str]:
    preview = told.outgoing.preview
    assert preview is not None
    found = body_diff(told.posed.body, preview.body, veil.text)
    kept = "the caller's bytes pass" if _same_format(told) else "written anew in the upstream's format"
    if found == []:
        yield _row("body", f"{kept} as they came")
    elif found is None:
        yield _row("body", f"{kept}; too long to compare: {len(told.posed.body)} bytes become {len(preview.body)}")
    else:
        yield _row("body", f"{kept} but for these members:" if _same_format(told) else f"{kept}:")
        for line in found:
            yield f"{_INDENT}{line}"


def _vocabulary(wire: WireFacts) -> str | None:
    """Return what counted the tokens; None where nothing did."""
    return wire.counted.vocabulary if isinstance(wire, CountedFacts) and wire.counted is not None else None


def as_data(told: Explanation, veil: Veil) -> dict[str, Any]:
    """Return the explanation for JSON."""
    wire, verdict, sent = told.posed.wire, told.verdict, told.outgoing
    route, leaf, preview = verdict.route, verdict.leaf, sent.preview
    data = {
        "request": {
            "format": wire.format,
            "model": wire.model,
            "path": wire.path,
            "bytes": len(told.posed.body),
            "tokens": wire.tokens,
            "vocabulary": _vocabulary(wire),
            "stream": wire.stream,
            "tools": wire.tools,
            "has_image": wire.has_image,
            "principal": msgspec.to_builtins(wire.principal),
        },
        "passed_by": [_passed_by_data(each) for each in told.routes],
        "route": None if route is None else {"name": route.name, "source": route.source, "line": route.line},
        "chain": list(verdict.chain),
        "target": None if route is None else route.to,
        "cases_passed_by": [_passed_by_data(each) for each in told.cases],
        "chosen": list(verdict.chosen),
        "splits": [
            {
                "place": each.place,
                "branches": [{"use": share.aim.spelled, "weight": share.weight} for share in each.split.shares],
                "shown": each.share.aim.spelled,
                "bound_by": each.split.fact if each.bound else None,
            }
            for each in told.drawn
        ],
        "tried": [each.spelled for each in verdict.tried],
        "tries": [
            {
                "use": None if each.leaf is None else each.leaf.spelled,
                "upstream": None if each.leaf is None else each.leaf.upstream.name,
                "place": each.place or None,
                "after": None if each.kinds is None else sorted(each.kinds),
                "within": each.after or None,
                "off": each.off,
            }
            for each in told.tries
        ],
        "passed_over": [each.spelled for each in verdict.skipped],
        "hedges": [_beside_data(each) for each in verdict.hedges],
        "shadows": [_beside_data(each) for each in verdict.shadows],
        "upstream": None if leaf is None else leaf.upstream.name,
        "accounts": None if leaf is None or leaf.upstream.accounts is None else leaf.upstream.accounts.name,
        "model": sent.decision.model or None,
        "in_process": sent.in_process,
        "sends": None
        if preview is None
        else {
            "method": preview.method,
            "url": url_shown(preview.url),
            "headers": headers_shown(told),
            "as_it_came": preview.body == told.posed.body,
            "diff": body_diff(told.posed.body, preview.body, veil.text),
        },
        "loss": [msgspec.structs.asdict(each) for each in sent.losses],
        "refusal": None
        if sent.refusal is None
        else {"kind": sent.refusal.kind, "status": sent.refusal.status, "message": sent.refusal.message},
    }
    shown: dict[str, Any] = veil.data(data)
    return shown


def _passed_by_data(each: PassedBy) -> dict[str, object]:
    found: dict[str, object] = {"name": each.place, "off": each.off}
    if each.source:
        found |= {"source": each.source, "line": each.line}
    found["unmet"] = [
        {
            "fact": one.fact,
            "expected": one.expected,
            "got": MASK if _is_secret_fact(one.fact) and one.got is not None else one.got,
        }
        for one in each.unmet
    ]
    return found
