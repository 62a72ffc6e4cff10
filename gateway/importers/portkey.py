"""Portkey: the gateway config, a tree of strategies whose leaves are providers.

What it means is taken from its documentation (portkey.ai/docs, product/ai-gateway/configs, conditional-routing, fallbacks) and
from its open gateway (handlers/handlerUtils, services/conditionalRouter); November 2026. Keys are spelled with underscores or
in camel case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..errors import ErrorKind
from ..rules.condition import Condition
from ..rules.given import pose
from ..rules.match import compile_match
from ..rules.schema import GivenRules
from .draft import ANY_ERROR, Draft, Upstream, is_name, retry, variable_for
from .portkey_match import alternatives
from .source import Cursor
from .vendors import Vendor, vendor_named, vendor_within, why_not_served

_PORT: Final = 8787
_MODEL: Final = "any-model"
_MOST_TRIES: Final = 5
_KINDS: Final[Mapping[int, tuple[ErrorKind, ...]]] = {
    400: ("invalid_request", "context_length", "content_filter", "unsupported"),
    401: ("auth",),
    402: ("quota",),
    403: ("permission", "account_disabled"),
    404: ("not_found",),
    408: ("timeout.connect", "timeout.first_token", "timeout.total", "unavailable"),
    409: ("invalid_request",),
    413: ("too_large",),
    422: ("invalid_request",),
    429: ("rate_limit", "quota"),
    500: ("upstream_error", "connect", "malformed"),
    502: ("upstream_error", "connect", "cut"),
    503: ("unavailable", "overloaded"),
    504: ("unavailable", "timeout.connect", "timeout.first_token"),
    529: ("overloaded",),
}
"""The kinds of error that a provider's status becomes here."""

_HOOKS: Final = (
    "input_guardrails",
    "inputGuardrails",
    "output_guardrails",
    "outputGuardrails",
    "before_request_hooks",
    "beforeRequestHooks",
    "after_request_hooks",
    "afterRequestHooks",
    "default_input_guardrails",
    "default_output_guardrails",
    "input_mutators",
    "output_mutators",
)
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "cache": ("Headgate keeps no answers", ""),
    "forward_headers": ("headers pass by the adapter's own list", "set fixed ones with `headers` of the upstream"),
    "forwardHeaders": ("headers pass by the adapter's own list", "set fixed ones with `headers` of the upstream"),
    "strict_open_ai_compliance": ("answers have the caller's format, always", ""),
    "strictOpenAiCompliance": ("answers have the caller's format, always", ""),
    **dict.fromkeys(_HOOKS, ("there are no guardrails", "write a middleware: docs/middleware.md")),
}


class Inherited(Struct, frozen=True, kw_only=True):
    """What a node hands down to its targets, unless they say otherwise. ``kinds`` None: those that a retry has by itself."""

    model: str | None = None
    tries: int = 1
    kinds: tuple[ErrorKind, ...] | None = None
    timeout_s: float | None = None
    host: Cursor | None = None


class Way(Struct, frozen=True):
    """Where a node leads: what ``use:`` says, and what a test may expect of it: upstream, model, tries until it gives up.

    ``depends``: conditions below decide, so that a test may expect nothing.
    """

    use: str
    upstream: str
    model: str | None
    tries: int = 1
    depends: bool = False


def convert(draft: Draft, environment: Mapping[str, str]) -> None:
    """Fill ``draft`` from Portkey's configuration, its root."""
    draft.server["listen"] = f"127.0.0.1:{_PORT}"
    draft.server_note = "the port of Portkey's gateway"
    draft.chain.append("log")
    conversion = _Conversion(draft, environment)
    way = conversion.node(draft.root, Inherited(), "main")
    if way is not None:
        draft.route("all", {}, way.use)
        conversion.tests(way)


class _Conversion:
    def __init__(self, draft: Draft, environment: Mapping[str, str]) -> None:
        self._draft = draft
        self._environment = environment
        self._given: list[tuple[str, dict[str, object], Way]] = []
        self._next: Way | None = None
        self._failure: ErrorKind = "rate_limit"

    def tests(self, way: Way) -> None:
        """Add tests: what is served by whom, and what happens when the first fails."""
        model = _MODEL
        for name, given, branch in self._given:
            asked = str(given.get("model", model))
            expect = {"upstream": branch.upstream, "model": branch.model or asked}
            self._draft.test(name, {"model": asked, **given}, expect)
        if not self._given and not way.depends:
            expect = {"route": "all", "upstream": way.upstream, "model": way.model or model}
            self._draft.test(f"everything is served by {way.upstream}", {"model": model}, expect)
        after = self._next
        if after is not None:
            expect = {"upstream": after.upstream, "model": after.model or model}
            failures = {"model": model, "failures": [self._failure]}
            self._draft.test(f"{after.upstream} is next after {self._failure}", failures, expect)

    def node(self, cursor: Cursor, inherited: Inherited, wanted: str) -> Way | None:
        """Return where a node of the tree leads; None if nothing of it can be served, which is reported."""
        inherited = self._inherit(cursor, inherited)
        for key, (why, instead) in _WORDS.items():
            if (found := cursor.get(key)) is not None:
                found.leave(why, instead)
        strategy = cursor.table("strategy")
        targets = cursor.list("targets")
        if targets is None:
            if strategy is not None and (mode := strategy.get("mode")) is not None:
                mode.leave("a strategy without targets")
            return self._leaf(cursor, inherited, wanted)
        mode = None if strategy is None else strategy.get("mode")
        called = "single" if mode is None else str(mode.value)
        if strategy is None or called not in ("single", "fallback", "loadbalance", "conditional"):
            where = cursor.get("targets") if mode is None else mode
            (where or cursor).leave("expected a strategy: single, fallback, loadbalance or conditional")
            targets.leave("nothing says how to choose between them", "write a target with select")
            return None
        assert mode is not None or called == "single"
        if mode is not None:
            mode.carry()
        children = list(targets.items())
        if not children:
            targets.leave("no targets")
            return None
        if called == "conditional":
            return self._conditional(strategy, children, inherited, wanted)
        if called == "single":
            for each in children[1:]:
                each.leave("the strategy `single` takes the first target")
            return self._child(children[0], inherited, wanted)
        ways = [(each, self._child(each, inherited, f"{wanted}-{at}")) for at, each in enumerate(children, 1)]
        known = [(each, way) for each, way in ways if way is not None]
        if not known:
            return None
        return self._fallback(strategy, known, wanted) if called == "fallback" else self._balance(known, wanted)

    def _child(self, cursor: Cursor, inherited: Inherited, wanted: str) -> Way | None:
        if not cursor.is_table:
            cursor.leave("expected a mapping")
            return None
        name = cursor.get("name")
        if name is not None and not (name.is_table or name.is_items):
            name.carry()
            wanted = str(name.value)
        return self.node(cursor, inherited, wanted)

    # -- strategies

    def _fallback(self, strategy: Cursor, known: list[tuple[Cursor, Way]], wanted: str) -> Way:
        kinds = self._kinds(strategy.get("on_status_codes", "onStatusCodes"), ANY_ERROR)
        first = known[0][1]
        if len(known) == 1 or not kinds:
            return first
        on_failure: list[object] = [{"kinds": kinds, "use": way.use} for _, way in known[1:]]
        name = self._draft.target(wanted, [{"use": first.use}], on_failure)
        if wanted == "main" and first.tries == 1 and not any(way.depends for _, way in known[:2]):
            self._failure = next((kind for kind in ("rate_limit", "upstream_error") if kind in kinds), kinds[0])
            self._next = known[1][1]
        return replace(first, use=name, tries=sum(way.tries for _, way in known))

    def _balance(self, known: list[tuple[Cursor, Way]], wanted: str) -> Way | None:
        shares: dict[str, float] = {}
        for cursor, way in known:
            found = cursor.get("weight")
            weight = 1.0 if found is None else found.as_number()
            if weight is None or not 0 < weight < 1e9:
                cursor.leave("it has no share: its weight is no number above 0")
                continue
            shares[way.use] = shares.get(way.use, 0.0) + weight
        if not shares:
            return None
        heaviest = max(shares, key=lambda use: shares[use])
        first = next(way for _, way in known if way.use == heaviest)
        if len(shares) == 1:
            return first
        split = [{"use": use, "weight": weight} for use, weight in shares.items()]
        name = self._draft.target(wanted, [{"split": split}])
        return replace(first, use=name)

    def _conditional(self, strategy: Cursor, children: list[Cursor], inherited: Inherited, wanted: str) -> Way | None:
        named = {str(name.value): each for each in children if (name := each.get("name")) is not None}
        ways: dict[str, Way | None] = {}

        def way_to(found: Cursor | None) -> Way | None:
            if found is None:
                return None
            name = str(found.value)
            if name not in named:
                found.leave("no target is called so")
                return None
            found.carry()
            if name not in ways:
                ways[name] = self._child(named[name], inherited, wanted)
            return ways[name]

        cases: list[object] = []
        earlier: list[Mapping[str, Condition]] = []
        conditions = strategy.list("conditions")
        for condition in conditions.items() if conditions is not None else ():
            self._case(condition, way_to(condition.get("then")), cases, earlier, tested=wanted == "main")
        default = way_to(strategy.get("default"))
        before = list(earlier)
        if default is not None and self._draft.reachable(earlier, {}):
            cases.append({"use": default.use})
            if wanted == "main":
                self._note(f"everything else goes to {default.upstream}", {}, default, before)
        for each in children:
            name = each.get("name")
            if name is None or str(name.value) not in ways:
                each.leave("no condition leads to it")
        if not cases:
            return None
        first = default or next(way for way in ways.values() if way is not None)
        return replace(first, use=self._draft.target(wanted, cases), depends=True)

    def _case(
        self,
        condition: Cursor,
        way: Way | None,
        cases: list[object],
        earlier: list[Mapping[str, Condition]],
        *,
        tested: bool,
    ) -> None:
        query = condition.table("query")
        if query is None or way is None:
            condition.leave("a condition needs a query, and a target that is carried")
            return
        matches = alternatives(query)
        if matches is None:
            condition.leave("match and when have no word for it", "write a case of the target by hand")
            return
        before = list(earlier)
        taken = [match for match in matches if self._draft.reachable(earlier, match)]
        if not taken:
            condition.leave("earlier conditions take everything that it does, or it is no match that the rules know")
            return
        for match in taken:
            cases.append({"match": match, "use": way.use})
        if any(key.startswith("metadata.") for match in taken for key in match):
            query.change("metadata is the request's own member here, not a header", "callers send it in the body")
        else:
            query.carry()
        given = _given(taken[0])
        if given is not None and tested:
            self._note(f"{condition.path} goes to {way.upstream}", given, way, before)

    def _note(self, name: str, given: dict[str, object], way: Way, earlier: list[Mapping[str, Condition]]) -> None:
        """Note a test, unless an earlier case would take its request, or conditions below decide."""
        wire = pose(msgspec.convert({"model": _MODEL, **given}, GivenRules)).wire
        if not way.depends and not any(compile_match(conditions)(wire) for conditions in earlier):
            self._given.append((name, given, way))

    # -- providers

    def _inherit(self, cursor: Cursor, inherited: Inherited) -> Inherited:
        params = cursor.table("override_params", "overrideParams")
        model = inherited.model
        if params is not None and (named := params.get("model")) is not None:
            model = named.as_text()
        for key, value in params.entries() if params is not None else ():
            if key != "model":
                value.leave("Headgate does not set parameters of requests", "let callers send it")
        tries, kinds = inherited.tries, inherited.kinds
        policy = cursor.table("retry")
        if policy is not None:
            attempts = policy.number("attempts")
            tries = 1 + max(0, min(int(attempts or 0), _MOST_TRIES))
            codes = policy.get("on_status_codes", "onStatusCodes")
            kinds = None if codes is None else self._kinds(codes, ())
            heeded = policy.flag("use_retry_after_header", "useRetryAfterHeader")
            if heeded is False and (found := policy.get("use_retry_after_header", "useRetryAfterHeader")) is not None:
                found.change("a provider's Retry-After is heeded, up to `max_wait`")
        timeout = cursor.get("request_timeout", "requestTimeout")
        seconds = inherited.timeout_s
        if timeout is not None:
            milliseconds = timeout.as_number()
            if milliseconds is not None and 0 < milliseconds < 1e10:
                seconds = milliseconds / 1000
                timeout.change(
                    "it bounds the wait for the first content of a stream", "set `total` to bound whole answers too"
                )
            elif milliseconds is not None:
                timeout.leave("no time that one could wait")
        host = cursor.get("custom_host", "customHost") or inherited.host
        return Inherited(model=model, tries=tries, kinds=kinds, timeout_s=seconds, host=host)

    def _leaf(self, cursor: Cursor, inherited: Inherited, wanted: str) -> Way | None:
        provider, virtual = cursor.get("provider"), cursor.get("virtual_key", "virtualKey")
        key = cursor.get("api_key", "apiKey") or virtual
        named = "" if provider is None or provider.is_table or provider.is_items else str(provider.value).strip()
        model, slugged = inherited.model, named.startswith("@")
        if model is not None and model.startswith("@") and "/" in model:
            head, _, model = model.partition("/")
            named, slugged = named or head, True
        vendor: Vendor | None
        if slugged or (not named and virtual is not None):
            vendor = vendor_within(named or str(virtual.value if virtual is not None else ""))
            told = provider or virtual or cursor
            if vendor is not None and told is not virtual:
                told.change(f"taken for {vendor.name} by its name: Portkey's vault knows, the configuration does not")
        else:
            vendor = vendor_named(named)
        if vendor is None or (model is not None and not is_name(model)):
            named_safely = named if is_name(named) else "?"
            why = why_not_served(named_safely) if named else "nothing says which provider it is of"
            if cursor is self._draft.root:
                for _, each in cursor.entries():
                    if not each.spoken_of:
                        each.leave(why)
            else:
                cursor.leave(why, "the rest does without it")
            return None
        if key is None and vendor.variable and provider is not None:
            provider.change("no key is given: the caller's own goes to the provider")
        elif provider is not None and not provider.spoken_of:
            provider.carry()
        base_url = self._draft.address(inherited.host, vendor, self._environment)
        if base_url == "":
            (inherited.host or provider or cursor).leave("nobody knows where it is", "add it as an upstream")
            return None
        name = vendor.name
        reference = self._key(key, virtual, vendor, base_url)
        upstream = Upstream(
            adapter=vendor.adapter,
            base_url=base_url,
            key=reference,
            pass_through=key is None and bool(vendor.variable),
            timeout={} if inherited.timeout_s is None else {"first_token": inherited.timeout_s},
            chain=(retry(inherited.tries, inherited.kinds),) if inherited.tries > 1 and inherited.kinds != () else (),
        )
        name = self._draft.upstream(name, upstream, cursor)
        return Way(name if model is None else f"{name}/{model}", name, model)

    def _key(self, key: Cursor | None, virtual: Cursor | None, vendor: Vendor, base_url: str | None) -> str | None:
        if key is None or key is not virtual:
            return self._draft.key(key, vendor, vendor.name, base_url)
        if key.is_table or key.is_items or not str(key.value).strip():
            key.leave("expected a text")
            return None
        name = variable_for(str(key.value))
        key.hide("Portkey's vault holds the key itself", f"put it into the environment variable {name}")
        return f"env:{name}?"

    def _kinds(self, codes: Cursor | None, otherwise: tuple[ErrorKind, ...]) -> tuple[ErrorKind, ...]:
        """Return the kinds of error that status codes become."""
        if codes is None:
            return otherwise
        found: dict[ErrorKind, None] = {}
        for each in codes.items():
            code = each.as_number()
            kinds = _KINDS.get(int(code)) if code is not None else None
            if kinds is None:
                each.leave("no kind of error is made of this status")
                continue
            found |= dict.fromkeys(kinds)
        codes.change("errors are told by kind, which is coarser than a status: see docs/troubleshooting.md")
        return tuple(kind for kind in ANY_ERROR if kind in found)


def _given(match: Mapping[str, object]) -> dict[str, object] | None:
    """Return a request for a test that ``match`` takes; None where that is not plain."""
    given: dict[str, object] = {}
    metadata: dict[str, object] = {}
    for fact, condition in match.items():
        value = condition[0] if isinstance(condition, list) else condition
        if isinstance(value, Mapping):
            if set(value) == {"prefix"}:
                value = value["prefix"]
            else:
                return None
        if fact == "model":
            given["model"] = value
        elif fact == "request.stream":
            given["stream"] = value
        elif fact.startswith("metadata."):
            metadata[fact.removeprefix("metadata.")] = value
        else:
            return None
    return {**given, **({"metadata": metadata} if metadata else {})}
