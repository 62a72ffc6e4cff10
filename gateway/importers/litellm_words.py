"""Why settings of LiteLLM are left out, and what to do instead, by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from .source import Cursor

Words: TypeAlias = Mapping[str, tuple[str, str]]

_CACHE: Final = ("Headgate keeps no answers", "")
_LOGGING: Final = ("Headgate sends nothing to other services", "read its log: the chain has `log`")
_COOLDOWN: Final = ("there are no cooldowns: every call tries the first again", "")
_COST: Final = ("Headgate has no prices", "")
_KEYS: Final = ("keys are in the rule file, there is no database", "add a key to `auth` in the chain")
_REDIS: Final = ("Headgate shares no state between processes", "")
_FIXED: Final = ("Headgate does not set parameters of requests", "let callers send it")

ROUTER: Final[Words] = {
    "allowed_fails": _COOLDOWN,
    "allowed_fails_policy": _COOLDOWN,
    "cooldown_time": _COOLDOWN,
    "disable_cooldowns": _COOLDOWN,
    "redis_host": _REDIS,
    "redis_port": _REDIS,
    "redis_password": _REDIS,
    "redis_url": _REDIS,
    "redis_db": _REDIS,
    "enable_pre_call_checks": (
        "the size of a prompt is not compared with the model's window before the call",
        "add a case with match: {request.tokens: {gt: …}}",
    ),
    "retry_after": ("the wait before another try is `backoff` of `retry`", ""),
    "max_fallbacks": ("a call goes through the fallbacks that are listed, five at most", ""),
    "enable_tag_filtering": ("there are no tags of deployments", "match metadata.NAME in a case of a target"),
    "tag_filtering_match_any": ("there are no tags of deployments", ""),
    "default_litellm_params": _FIXED,
    "model_group_retry_policy": ("retries are set for every model alike", "set `retry` of an upstream's chain"),
    "routing_strategy_args": ("deployments are drawn by weight", ""),
    "set_verbose": ("what is logged is the process's own setting", ""),
    "debug_level": ("what is logged is the process's own setting", ""),
}
LIBRARY: Final[Words] = {
    "cache": _CACHE,
    "cache_params": _CACHE,
    "callbacks": _LOGGING,
    "success_callback": _LOGGING,
    "failure_callback": _LOGGING,
    "service_callbacks": _LOGGING,
    "turn_off_message_logging": ("the log never holds messages", ""),
    "json_logs": ("the log is JSON lines", ""),
    "modify_params": ("a request is changed only as its format demands", ""),
    "telemetry": ("Headgate reports to nobody", ""),
    "ssl_verify": ("certificates are checked", "set `pool: {verify: …}` or `pool: {ca_bundle: …}` of an upstream"),
    "max_budget": _COST,
    "budget_duration": _COST,
}
GENERAL: Final[Words] = {
    "database_url": _KEYS,
    "store_model_in_db": _KEYS,
    "custom_auth": ("a Python function of LiteLLM's", "write a middleware: docs/middleware.md"),
    "alerting": _LOGGING,
    "alerting_threshold": _LOGGING,
    "max_parallel_requests": ("calls are not counted", "set `pool: {max_connections: …}` of an upstream"),
    "global_max_parallel_requests": ("calls are not counted", "set `pool: {max_connections: …}` of an upstream"),
    "completion_model": ("a call names its model", "end the routes with one that has no match"),
    "background_health_checks": ("providers are not asked unless somebody calls", ""),
    "health_check_interval": ("providers are not asked unless somebody calls", ""),
}
PARAMS: Final[Words] = {
    "temperature": _FIXED,
    "top_p": _FIXED,
    "max_tokens": _FIXED,
    "seed": _FIXED,
    "stop": _FIXED,
    "extra_body": _FIXED,
    "rpm": ("nothing limits requests per minute", "limit at the provider"),
    "tpm": ("nothing limits tokens per minute", "limit at the provider"),
    "weight": ("it is alone: there is nothing to share", ""),
    "max_parallel_requests": ("calls are not counted", "set `pool: {max_connections: …}` of the upstream"),
    "max_retries": ("num_retries says otherwise", ""),
    "input_cost_per_token": _COST,
    "output_cost_per_token": _COST,
    "tags": ("there are no tags of deployments", "match metadata.NAME in a case of a target"),
    "drop_params": ("what a format cannot say is set for a route", "set `loss` of the route"),
    "mock_response": ("answers of its own are the simulator's", "lead the route to an upstream of the simulator"),
}
MODEL_INFO: Final[Words] = {
    "base_model": _COST,
    "input_cost_per_token": _COST,
    "output_cost_per_token": _COST,
    "max_tokens": ("nothing is known of models but their names", ""),
    "max_input_tokens": ("nothing is known of models but their names", ""),
    "max_output_tokens": ("nothing is known of models but their names", ""),
}


def explain(section: Cursor | None, words: Words) -> None:
    """Report what of ``section`` nobody has spoken of, in these words where there are some."""
    for name, cursor in section.entries() if section is not None else ():
        if name in words and not cursor.spoken_of:
            cursor.leave(*words[name])
