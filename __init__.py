"""Headgate: an LLM gateway on aiohttp, any client format to any provider, by rules one can read, test and explain.

    from headgate import Gateway

    gateway = Gateway.load("routes.yaml")
    gateway.mount(app, prefix="/llm")                              # inside an aiohttp application
    reply = await gateway.handle("openai.chat", body, headers)     # without any socket

Importing this package opens nothing, starts nothing and keeps nothing: its names are imported when first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .gateway.call import Call
    from .gateway.chain import Adapter, AdapterContext, Middleware, Next
    from .gateway.errors import CallerError, GatewayError, HouseError, UpstreamError
    from .gateway.facts import Principal
    from .gateway.ir.event import Chunk
    from .gateway.relay.reply import Reply
    from .gateway.relay.stage import Stage, Stop
    from .gateway.server.gateway import Gateway
    from .gateway.version import VERSION as __version__
else:
    # Not for type checkers: they would take it as leave to import any name at all.
    _HOMES = {
        "Adapter": "chain",
        "AdapterContext": "chain",
        "Call": "call",
        "CallerError": "errors",
        "Chunk": "ir.event",
        "Gateway": "server.gateway",
        "GatewayError": "errors",
        "HouseError": "errors",
        "Middleware": "chain",
        "Next": "chain",
        "Principal": "facts",
        "Reply": "relay.reply",
        "Stage": "relay.stage",
        "Stop": "relay.stage",
        "UpstreamError": "errors",
    }

    def __getattr__(name):
        from importlib import import_module

        if name == "__version__":
            value = import_module(".gateway.version", __name__).VERSION
        elif name in _HOMES:
            value = getattr(import_module(f".gateway.{_HOMES[name]}", __name__), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    # a gateway, and what it raises
    "Gateway",
    "GatewayError",
    "CallerError",
    "UpstreamError",
    "HouseError",
    # what a middleware or an adapter of your own is written with
    "Middleware",
    "Next",
    "Adapter",
    "AdapterContext",
    "Call",
    "Principal",
    "Reply",
    "Chunk",
    "Stage",
    "Stop",
    "__version__",
]
