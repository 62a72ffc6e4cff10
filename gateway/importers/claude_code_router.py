"""claude-code-router: ``~/.claude-code-router/config.json``, with ``Providers`` and ``Router``.

What it means is taken from its README and its router (versions 1 and 2; version 3 keeps its configuration in a database, and
reads such a file once); November 2026. It serves Claude Code, so callers speak ``anthropic.messages``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from ..rules.listen import parse_listen
from ..rules.problems import looks_like_key
from .draft import ANY_ERROR, Draft, Upstream, is_name, slug, spell_duration
from .source import Cursor
from .vendors import Vendor, vendor_named

_FORMAT: Final = "anthropic.messages"
_PORT: Final = 3456
_LONG: Final = 60_000
_LISTEN: Final = re.compile(r"[A-Za-z0-9._\[\]:-]+:[0-9]+")
_OWN: Final = frozenset(
    {
        "openrouter",
        "deepseek",
        "tooluse",
        "reasoning",
        "enhancetool",
        "groq",
        "gemini",
        "cleancache",
        "anthropic",
        "openai",
    }
)
"""Transformers that make up for differences between the formats: here the codecs do."""

_SCENES: Final[Mapping[str, dict[str, object]]] = {
    "background": {"model": ["*claude*haiku*", "*haiku*claude*"]},
    "image": {"request.has_image": True},
}
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "LOG_LEVEL": ("the log has one line for a call", ""),
    "NON_INTERACTIVE_MODE": ("Headgate never asks", ""),
    "CLAUDE_PATH": ("Headgate starts no client", "set ANTHROPIC_BASE_URL for it"),
    "CUSTOM_ROUTER_PATH": ("rules hold no code", "write a case with match or when"),
    "REWRITE_SYSTEM_PROMPT": ("prompts are sent as they came", ""),
    "StatusLine": ("Headgate shows nothing in a client", ""),
    "transformers": ("code of its own", "write a middleware: docs/middleware.md"),
    "Transformers": ("code of its own", "write a middleware: docs/middleware.md"),
    "plugins": ("code of its own", "write a middleware: docs/middleware.md"),
}


class Served(Struct, frozen=True, eq=False):
    """A provider that is carried: its upstream's name and its models."""

    upstream: str
    models: tuple[str, ...]


def convert(draft: Draft, environment: Mapping[str, str]) -> None:
    """Fill ``draft`` from claude-code-router's configuration, its root."""
    _Conversion(draft, environment).run()


class _Conversion:
    def __init__(self, draft: Draft, environment: Mapping[str, str]) -> None:
        self._draft = draft
        self._root = draft.root
        self._environment = environment
        self._served: dict[str, Served] = {}
        self._fallbacks: dict[str, list[str]] = {}

    def run(self) -> None:
        self._settings()
        proxy = self._proxy()
        providers = self._root.list("Providers", "providers")
        for cursor in providers.items() if providers is not None else ():
            self._provider(cursor, proxy)
        self._read_fallbacks()
        self._by_name()
        router = self._root.table("Router", "router")
        if router is not None:
            self._scenes(router)
        for key, (why, instead) in _WORDS.items():
            if (found := self._root.get(key)) is not None and found.value not in ("", [], {}):
                found.leave(why, instead)

    # -- settings

    def _settings(self) -> None:
        draft, root = self._draft, self._root
        key = root.get("APIKEY")
        has_key = key is not None and not (key.is_table or key.is_items) and bool(str(key.value).strip())
        if key is not None and has_key:
            reference = draft.secret(key, "CCR_APIKEY", "the callers' key")
            draft.chain.append({"auth": {"keys": [{"name": "me", "key": reference}]}})
        elif key is not None:
            key.carry()
        log = root.flag("LOG")
        if log is not False:
            draft.chain.append("log")
        host, port = root.get("HOST"), root.get("PORT")
        listen = f"{'127.0.0.1' if host is None else host.value}:{_PORT if port is None else port.value}"
        try:
            address = parse_listen(listen)
        except ValueError:
            address = None
        if address is None or not _LISTEN.fullmatch(listen) or looks_like_key(listen):
            for each in (host, port):
                if each is not None:
                    each.leave("no address to listen on")
            listen = f"127.0.0.1:{_PORT}"
        elif not address.is_local and not has_key:
            listen = f"127.0.0.1:{_PORT if port is None else port.value}"
            for each, why in ((host, "without APIKEY it listens on this machine alone"), (port, "")):
                if each is not None:
                    each.change(why) if why else each.carry()
        else:
            for each in (host, port):
                if each is not None:
                    each.carry()
        draft.server["listen"] = listen
        timeout = root.get("API_TIMEOUT_MS")
        milliseconds = None if timeout is None else timeout.as_number()
        if timeout is not None and milliseconds is not None and not 0 < milliseconds < 1e10:
            timeout.leave("no time that one could wait")
        elif milliseconds is not None:
            draft.defaults["timeout"] = {"total": spell_duration(milliseconds / 1000)}

    def _proxy(self) -> str | None:
        found = self._root.get("PROXY_URL", "HTTPS_PROXY", "https_proxy", "httpsProxy")
        text = "" if found is None or found.is_table or found.is_items else str(found.value).strip()
        if found is None or not text:
            return None
        try:
            parts = urlsplit(text)
            plain = (
                parts.hostname is not None and parts.port is not None and parts.path in ("", "/") and not parts.query
            )
        except ValueError:
            plain = False
            parts = urlsplit("")
        safe = plain and _LISTEN.fullmatch(parts.netloc) and not looks_like_key(text)
        if not safe or parts.scheme not in ("http", "https") or not text.isprintable():
            found.leave("expected http://host:port", "set `pool: {proxy: …, proxy_auth: env:NAME}` of each upstream")
            return None
        found.carry()
        return text.rstrip("/")

    # -- providers

    def _provider(self, cursor: Cursor, proxy: str | None) -> None:
        name, address = cursor.get("name"), cursor.get("api_base_url", "baseUrl")
        called = "" if name is None or name.is_table or name.is_items else str(name.value).strip()
        if not is_name(called) or "," in called or address is None or called.lower() in self._served:
            cursor.leave("it needs a name of its own and api_base_url")
            return
        transformers = self._transformers(cursor)
        if any(each.startswith("vertex") for each in transformers):
            cursor.leave("Vertex AI wants tokens of a service account, which no adapter fetches")
            return
        vendor = self._vendor(called, str(address.value), transformers)
        base_url = self._draft.address(address, vendor, self._environment)
        if base_url == "":
            cursor.leave("its address is none", "add it as an upstream")
            return
        assert name is not None
        name.carry()
        key = cursor.get("api_key", "apiKey")
        reference = self._draft.key(key, vendor, called, base_url)
        found = cursor.list("models")
        models: list[str] = []
        for each in found.items() if found is not None else ():
            model = each.as_text()
            if model is not None and not is_name(model):
                each.leave("not the name of a model")
            elif model is not None:
                models.append(model)
        self._explain_transformers(cursor)
        upstream = Upstream(adapter=vendor.adapter, base_url=base_url, key=reference, proxy=proxy)
        upstream_name = self._draft.upstream(slug(called), upstream, cursor)
        self._served[called.lower()] = Served(upstream_name, tuple(dict.fromkeys(models)))

    @staticmethod
    def _transformers(cursor: Cursor) -> list[str]:
        """Return the names of a provider's transformers, lower case."""
        transformer = cursor.get("transformer")
        uses = None if transformer is None else transformer.get("use")
        found = []
        for each in uses.items() if uses is not None else ():
            value = each.value[0] if isinstance(each.value, list) and each.value else each.value
            found.append(str(value).lower())
        return found

    @staticmethod
    def _vendor(called: str, address: str, transformers: list[str]) -> Vendor:
        """Return who is at an address. It is always given; the vendor tells the adapter, and the usual variable."""
        known = vendor_named(called)
        if "generativelanguage.googleapis.com" in address:
            return _known("gemini")
        if transformers == ["anthropic"] or address.rstrip("/").endswith("/messages"):
            return replace(_known("anthropic"), variable="" if known is None else known.variable)
        if known is None or known.adapter != "openai" or known.name == "gemini":
            return replace(_known("openai"), variable="" if known is None else known.variable)
        return known

    def _explain_transformers(self, cursor: Cursor) -> None:
        transformer = cursor.get("transformer")
        if transformer is None or transformer.spoken_of:
            return
        for scope, found in transformer.entries():
            uses = found if scope == "use" else found.get("use")
            for each in uses.items() if uses is not None else ():
                value = each.value
                name = str(value[0] if isinstance(value, list) and value else value).lower()
                options = isinstance(value, list) and len(value) > 1
                if name in _OWN and not options:
                    each.carry()
                elif name == "maxtoken":
                    each.leave(
                        "Headgate does not set parameters of requests",
                        "`max_output_tokens` of the upstream stands in where callers name none",
                    )
                else:
                    each.leave("there are no transformers", "write a middleware: docs/middleware.md")

    # -- routes

    def _aim(self, found: Cursor) -> tuple[str, str, str] | None:
        """Return what ``use:`` says for ``provider,model``, the upstream and the model; None if it is not carried."""
        text = "" if found.is_table or found.is_items else str(found.value).strip()
        provider, _, model = text.partition(",")
        served = self._served.get(provider.strip().lower())
        model = model.strip()
        if not text:
            found.carry()
            return None
        if served is None or not is_name(model):
            found.leave("expected PROVIDER,MODEL with a provider that is carried")
            return None
        found.carry()
        return f"{served.upstream}/{model}", served.upstream, model

    def _read_fallbacks(self) -> None:
        fallbacks = self._root.table("fallback")
        for scene, cursor in fallbacks.entries() if fallbacks is not None else ():
            aims = [self._aim(each) for each in cursor.items()]
            self._fallbacks[scene] = [aim[0] for aim in aims if aim is not None]
            if not self._fallbacks[scene]:
                cursor.leave("no provider of it is carried")

    def _by_name(self) -> None:
        """Add the routes of ``/model provider,model``, which come before every scene."""
        for called, served in self._served.items():
            for model in served.models:
                name = f"{called},{model}"
                self._draft.route(name, {"format": _FORMAT, "model": name}, f"{served.upstream}/{model}")
            if served.models:
                first = served.models[0]
                given = {"format": _FORMAT, "model": f"{called},{first}"}
                self._draft.test(f"{called},{first} by name", given, {"upstream": served.upstream, "model": first})

    def _scenes(self, router: Cursor) -> None:
        threshold = router.number("longContextThreshold")
        limit = _LONG if threshold is None or not 0 < threshold < 1e9 else int(threshold)
        if threshold is not None and (found := router.get("longContextThreshold")) is not None:
            found.change("request.tokens is the body's bytes / 4, not a tokenizer's count")
        if (found := router.get("longContext")) is not None:
            given = {"model": "claude-sonnet-4-6", "tokens": limit + 1}
            self._scene("longContext", found, {"request.tokens": {"gt": limit}}, given)
        if (found := router.get("background")) is not None:
            self._scene("background", found, _SCENES["background"], {"model": "claude-haiku-4-5"})
        for name, what in (("webSearch", "offers a search of the web"), ("think", "asks for thinking")):
            if (found := router.get(name)) is not None:
                self._cannot(name, found, what)
        if (found := router.get("image")) is not None:
            self._scene("image", found, _SCENES["image"], {"model": "claude-sonnet-4-6", "has_image": True})
        if (found := router.get("default")) is not None:
            self._scene("default", found, {}, {"model": "claude-sonnet-4-6"})

    def _cannot(self, name: str, found: Cursor, what: str) -> None:
        if str(found.value).strip():
            found.leave(
                f"no fact says whether a request {what}: it goes where the others go",
                "callers name the model: /model provider,model",
            )
        else:
            found.carry()

    def _scene(self, name: str, found: Cursor, match: Mapping[str, object], given: Mapping[str, object]) -> None:
        aim = self._aim(found)
        if aim is None:
            return
        use, upstream, model = aim
        others = [each for each in self._fallbacks.get(name, ()) if each != use]
        if others:
            entries: list[object] = [{"kinds": ANY_ERROR, "use": each} for each in others]
            use = self._draft.target(name, [{"use": use}], entries)
        self._draft.route(name, {"format": _FORMAT, **match}, use)
        expect = {"route": name, "upstream": upstream, "model": model}
        self._draft.test(f"{name} is served by {upstream}", {"format": _FORMAT, **given}, expect)


def _known(name: str) -> Vendor:
    vendor = vendor_named(name)
    assert vendor is not None
    return vendor
