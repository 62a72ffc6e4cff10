"""LiteLLM's proxy: ``model_list``, ``router_settings``, ``litellm_settings``, ``general_settings``.

What its settings mean is taken from its documentation (docs.litellm.ai, proxy/config_settings, proxy/reliability, routing)
and, for how deployments are drawn and wildcards are filled, from its router; November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ..errors import ErrorKind
from .draft import ANY_ERROR, Draft, Upstream, is_name, sample
from .litellm_deployments import MAX_RETRIES, Deployment, Deployments, seconds_of
from .litellm_groups import Groups, Way
from .litellm_words import GENERAL, LIBRARY, MODEL_INFO, PARAMS, ROUTER, explain
from .source import Cursor

_PORT: Final = 4000
_RETRIES: Final = 2
_MAX_FALLBACKS: Final = 5
_POLICY: Final[Mapping[str, tuple[ErrorKind, ...]]] = {
    "AuthenticationErrorRetries": ("auth", "permission", "account_disabled"),
    "BadRequestErrorRetries": ("invalid_request",),
    "TimeoutErrorRetries": ("timeout.connect", "timeout.pool", "timeout.write", "timeout.first_token", "timeout.idle"),
    "RateLimitErrorRetries": ("rate_limit", "quota"),
    "ContentPolicyViolationErrorRetries": ("content_filter",),
    "InternalServerErrorRetries": ("upstream_error", "overloaded", "unavailable", "connect", "cut"),
}


def convert(draft: Draft, environment: Mapping[str, str]) -> None:
    """Fill ``draft`` from LiteLLM's configuration, its root."""
    _Conversion(draft, environment).run()


class _Conversion:
    def __init__(self, draft: Draft, environment: Mapping[str, str]) -> None:
        self._draft = draft
        self._root = draft.root
        self._environment = dict(environment)
        self._router = self._root.table("router_settings")
        self._library = self._root.table("litellm_settings")
        self._groups: dict[str, list[Deployment]] = {}
        self._fallbacks: dict[str, list[str]] = {}
        self._for_length: dict[str, list[str]] = {}
        self._for_content: dict[str, list[str]] = {}
        self._retries = _RETRIES
        self._policy: dict[ErrorKind, int] = {}

    def run(self) -> None:
        self._draft.server["listen"] = f"127.0.0.1:{_PORT}"
        self._draft.server_note = "LiteLLM's port; 0.0.0.0 opens it to the network"
        self._variables()
        self._settings()
        deployments = self._root.list("model_list")
        reader = Deployments(self._draft, self._environment)
        for cursor in deployments.items() if deployments is not None else ():
            deployment = reader.read(cursor)
            if deployment is not None:
                self._groups.setdefault(deployment.group, []).append(deployment)
        self._fallbacks = self._read_fallbacks("fallbacks")
        self._for_length = self._read_fallbacks("context_window_fallbacks")
        self._for_content = self._read_fallbacks("content_policy_fallbacks")
        self._defaults()
        aliases = self._aliases()
        covered = {*self._fallbacks, *self._for_length, *self._for_content}
        self._ways = Groups(self._draft, self._groups, covered, self._retries, self._policy)
        for name in sorted(self._groups, key=_specificity):
            self._route(name, aliases.get(name, []))
        self._explain_rest()

    # -- settings

    def _variables(self) -> None:
        variables = self._root.table("environment_variables")
        for name, cursor in variables.entries() if variables is not None else ():
            if isinstance(cursor.value, str):
                self._environment.setdefault(name, cursor.value)
            cursor.leave("a rule file sets no variables", "set it in the environment of the process")

    def _setting(self, name: str) -> Cursor | None:
        """Return a setting of the router; it may stand in two places, and that of ``router_settings`` wins."""
        first = None if self._router is None else self._router.get(name)
        second = None if self._library is None else self._library.get(name)
        if first is not None and second is not None:
            second.leave("router_settings says otherwise, and wins")
        return first or second

    def _number(self, name: str) -> float | None:
        found = self._setting(name)
        return None if found is None else found.as_number()

    def _settings(self) -> None:
        draft, general = self._draft, self._root.table("general_settings")
        master = None if general is None else general.get("master_key")
        if master is not None and not (master.is_table or master.is_items):
            reference = draft.secret(master, "LITELLM_MASTER_KEY", "the master key")
            draft.chain.append({"auth": {"keys": [{"name": "master", "key": reference}]}})
        draft.chain.append("log")
        size = None if general is None else general.number("max_request_size_mb")
        if size is not None and 0 < size < 1e6:
            draft.server["max_body"] = f"{max(int(size), 1)}MB"
        retries = self._number("num_retries")
        if retries is not None:
            self._retries = max(0, min(int(retries), MAX_RETRIES))
        policy = self._setting("retry_policy")
        for name, cursor in policy.entries() if policy is not None else ():
            if name in _POLICY and (number := cursor.as_number()) is not None:
                self._policy |= dict.fromkeys(_POLICY[name], max(0, min(int(number), MAX_RETRIES)))
        self._timeouts()
        drop = None if self._library is None else self._library.get("drop_params")
        if drop is not None and self._library is not None:
            flag = self._library.flag("drop_params")
            if flag is not None:
                draft.defaults["loss"] = "report" if flag else "refuse"
        strategy = self._setting("routing_strategy")
        if strategy is not None:
            if strategy.value == "simple-shuffle":
                strategy.carry()
            else:
                strategy.change("deployments are drawn by weight", "there is no other strategy for a split")

    def _timeouts(self) -> None:
        total = self._setting("timeout") or (None if self._library is None else self._library.get("request_timeout"))
        library = None if self._library is None else self._library.get("request_timeout")
        if library is not None and library is not total and self._setting("timeout") is not None:
            library.leave("the timeout of the router says otherwise, and wins")
        found = seconds_of({"total": total, "first_token": self._setting("stream_timeout")})
        if found:
            self._draft.defaults["timeout"] = Upstream(adapter="", timeout=found).rules()["timeout"]

    def _read_fallbacks(self, name: str) -> dict[str, list[str]]:
        """Return group to groups. LiteLLM spells it as a list of mappings with one key each, and ``*`` is every group."""
        found: dict[str, list[str]] = {}
        setting = self._setting(name)
        if setting is None:
            return found
        for item in setting.items() if setting.is_items else [setting]:
            for group, cursor in item.entries():
                names = [self._known(each) for each in cursor.items()]
                known = [each for each in names if each is not None]
                if group != "*" and group not in self._groups:
                    cursor.leave(f"no model of this configuration is called so, or it was left out: {name}")
                elif known:
                    found.setdefault(group, []).extend(known)
        return found

    def _known(self, cursor: Cursor) -> str | None:
        """Return the group, or the deployment by its id, that a fallback names."""
        if cursor.is_table:
            cursor.leave("a fallback with parameters of its own", "Headgate sends the caller's request as it is")
            return None
        name = str(cursor.value)
        if name in self._groups:
            cursor.carry()
            return name
        for group, deployments in self._groups.items():
            if any(name == each.identity for each in deployments):
                cursor.change(f"a deployment by its id: the whole model {group} serves instead")
                return group
        cursor.leave("no model of this configuration is called so, or it was left out")
        return None

    def _defaults(self) -> None:
        setting = self._setting("default_fallbacks")
        every = [self._known(each) for each in setting.items()] if setting is not None else []
        known = [each for each in every if each is not None] or self._fallbacks.get("*", [])
        for found in (self._fallbacks, self._for_length, self._for_content):
            common = known if found is self._fallbacks else found.get("*", [])
            for group in self._groups:
                if group not in found and common:
                    found[group] = [each for each in common if each != group]

    def _aliases(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        setting = self._setting("model_group_alias")
        for alias, cursor in setting.entries() if setting is not None else ():
            inner = cursor.get("model") if cursor.is_table else cursor
            group = None if inner is None or inner.is_table or inner.is_items else str(inner.value)
            if group not in self._groups or not is_name(alias) or alias in self._groups:
                cursor.leave("an alias of nothing that was carried, or of a name that a model has")
                continue
            assert inner is not None and group is not None
            inner.carry()
            if cursor.is_table and (hidden := cursor.get("hidden")) is not None:
                hidden.leave("/v1/models lists every name that a route says outright")
            found.setdefault(group, []).append(alias)
        return found

    # -- routes

    def _route(self, group: str, aliases: Sequence[str]) -> None:
        names = self._ways.names(group)
        if not names:
            return
        way = self._ways.way(group)
        if way is None:
            return
        draft, on_failure = self._draft, self._on_failure(group)
        to = draft.target(group, [{"use": way.use}], on_failure) if on_failure else way.use
        every = [*names, *aliases]
        if not draft.route(group, {"model": every[0] if len(every) == 1 else every}, to):
            for each in self._groups[group]:
                each.cursor.leave("an earlier route takes every name that it matches: it has none")
            return
        for name in [names[0], *aliases]:
            self._test(f"{name} is served by {way.upstream}", sample(name), group, way, [])
        fallback = next((each for each in self._chain_of(group, self._fallbacks) if self._ways.way(each)), None)
        second = None if fallback is None else self._ways.way(fallback)
        if second is not None and on_failure:
            failures = ["rate_limit"] * way.tries
            self._test(f"{names[0]} falls back to {fallback}", sample(names[0]), group, second, failures)

    def _test(self, name: str, model: str, group: str, way: Way, failures: list[str]) -> None:
        given: dict[str, object] = {"model": model}
        if failures:
            given["failures"] = failures
        expect = {"upstream": way.upstream, "model": way.model or model}
        self._draft.test(name, given, expect if failures else {"route": group, **expect})

    # -- fallbacks

    def _chain_of(self, group: str, found: Mapping[str, list[str]]) -> list[str]:
        """Return the fallbacks of a group with theirs, as LiteLLM goes through them: the first one's before the second."""
        chain: list[str] = []

        def follow(name: str) -> None:
            for each in found.get(name, ()):
                if each != group and each not in chain and len(chain) < _MAX_FALLBACKS:
                    chain.append(each)
                    follow(each)

        follow(group)
        return chain

    def _on_failure(self, group: str) -> list[object]:
        special = [("context_length", self._for_length), ("content_filter", self._for_content)]
        entries: list[object] = []
        for kind, found in special:
            ways = [self._ways.way(each) for each in found.get(group, ()) if each != group]
            entries += [{"kinds": [kind], "use": way.use} for way in ways if way is not None]
        handled = {
            kind for kind, found in special if found
        }  # where there are special ones, the others never see the kind
        kinds = tuple(kind for kind in ANY_ERROR if kind not in handled)
        ways = [self._ways.way(each) for each in self._chain_of(group, self._fallbacks)]
        return [*entries, *({"kinds": kinds, "use": way.use} for way in ways if way is not None)]

    # -- the rest

    def _explain_rest(self) -> None:
        for section, words in (
            (self._router, ROUTER),
            (self._library, {**ROUTER, **LIBRARY}),
            (self._root.table("general_settings"), GENERAL),
        ):
            explain(section, words)
        deployments = self._root.list("model_list")
        for cursor in deployments.items() if deployments is not None else ():
            explain(cursor.table("litellm_params"), PARAMS)
            explain(cursor.table("model_info"), MODEL_INFO)


def _specificity(group: str) -> tuple[bool, int]:
    """Sort exact names first, then wildcards, the longest first: LiteLLM's order."""
    return "*" in group, -len(group) if "*" in group else 0
