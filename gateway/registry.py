"""Middlewares, adapters and codecs by name: ours and strangers' by the same road.

A name is looked up in this table, then among the installed entry points (groups ``headgate.middlewares``,
``headgate.adapters``, ``headgate.codecs``); ``package.module:Class`` names anything else that can be imported. Nothing is
imported before a rule names it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from typing import Final, Literal, cast

from .chain import Adapter, Middleware
from .codecs.base import Codec

Kind = Literal["middlewares", "adapters", "codecs"]
_ROOT: Final = __name__.removesuffix(".gateway.registry")

_BUILT_IN: Final[dict[Kind, dict[str, str]]] = {
    "middlewares": {
        "auth": f"{_ROOT}.middlewares.auth:Auth",
        "breaker": f"{_ROOT}.middlewares.breaker:Breaker",
        "limit": f"{_ROOT}.middlewares.limit:Limit",
        "cache": f"{_ROOT}.middlewares.cache:Cache",
        "continue": f"{_ROOT}.middlewares.continuation:Continue",
        "log": f"{_ROOT}.middlewares.log:Log",
        "redact": f"{_ROOT}.middlewares.redact:Redact",
        "retry": f"{_ROOT}.middlewares.retry:Retry",
        "rotate": f"{_ROOT}.middlewares.rotate:Rotate",
        "trace": f"{_ROOT}.middlewares.trace:Trace",
    },
    "adapters": {
        "anthropic": f"{_ROOT}.adapters.anthropic:AnthropicAdapter",
        "cohere": f"{_ROOT}.adapters.cohere:CohereAdapter",
        "gemini": f"{_ROOT}.adapters.gemini:GeminiAdapter",
        "ollama": f"{_ROOT}.adapters.ollama:OllamaAdapter",
        "openai": f"{_ROOT}.adapters.openai:OpenAIAdapter",
        "simulator": f"{_ROOT}.adapters.simulator:SimulatorAdapter",
    },
    "codecs": {
        "anthropic.messages": f"{_ROOT}.gateway.codecs.anthropic_messages:CODEC",
        "anthropic.passthrough": f"{_ROOT}.gateway.passing.codec:ANTHROPIC",
        "gemini": f"{_ROOT}.gateway.codecs.gemini:CODEC",
        "gemini.passthrough": f"{_ROOT}.gateway.passing.codec:GEMINI",
        "ollama.chat": f"{_ROOT}.gateway.codecs.ollama:CHAT",
        "ollama.generate": f"{_ROOT}.gateway.codecs.ollama:GENERATE",
        "openai.chat": f"{_ROOT}.gateway.codecs.openai_chat:CODEC",
        "openai.completions": f"{_ROOT}.gateway.codecs.openai_completions:CODEC",
        "openai.embeddings": f"{_ROOT}.gateway.codecs.operations:EMBEDDINGS",
        "openai.passthrough": f"{_ROOT}.gateway.passing.codec:OPENAI",
        "openai.moderations": f"{_ROOT}.gateway.codecs.operations:MODERATIONS",
        "openai.responses": f"{_ROOT}.gateway.codecs.openai_responses:CODEC",
        "rerank": f"{_ROOT}.gateway.codecs.operations:RERANK",
    },
}


class UnknownName(LookupError):
    """Nothing of that name is built in or installed, or it cannot be imported; ``known`` is what could have been meant."""

    def __init__(self, message: str, known: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.known = tuple(known)


@cache
def _installed(kind: Kind) -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group=f"headgate.{kind}")}


def names(kind: Kind) -> list[str]:
    """Return every known name of a kind, sorted. Imports nothing."""
    return sorted({*_BUILT_IN[kind], *_installed(kind)})


def installed(kind: Kind) -> list[str]:
    """Return the names that other distributions brought, sorted. Imports nothing."""
    return sorted(_installed(kind).keys() - _BUILT_IN[kind].keys())


def _find(kind: Kind, name: str) -> object:
    path = _BUILT_IN[kind].get(name) or _installed(kind).get(name) or (name if ":" in name else None)
    if path is None:
        raise UnknownName(f"unknown {kind.removesuffix('s')} {name!r}", names(kind))
    module_name, _, attribute = path.partition(":")
    if not module_name or module_name.startswith("."):
        raise UnknownName(f"{kind.removesuffix('s')} {name!r} cannot be imported: it must read package.module:Class")
    try:
        found: object = importlib.import_module(module_name)
        for step in attribute.split("."):
            found = getattr(found, step)
    except (
        Exception
    ) as fault:  # a stranger's module may raise anything: the rule file has a line to name, a traceback none
        why = str(fault) or type(fault).__name__
        raise UnknownName(f"{kind.removesuffix('s')} {name!r} cannot be imported: {why}") from fault
    return found


def middleware(name: str) -> type[Middleware]:
    """Return the middleware class called ``name``. Raises UnknownName."""
    return cast("type[Middleware]", _find("middlewares", name))


def adapter(name: str) -> type[Adapter]:
    """Return the adapter class called ``name``. Raises UnknownName."""
    return cast("type[Adapter]", _find("adapters", name))


@cache
def codec(name: str) -> Codec:
    """Return the codec of the format called ``name``. Raises UnknownName."""
    return cast("Codec", _find("codecs", name))
