"""Where callers of OpenAI, Anthropic and Gemini ask for what is passed on as it comes, and for what never is.

A path stands for itself and all below it. Sources: the resources of the official SDKs openai 3.52, anthropic 2.11 and
google-genai, and Gemini's REST reference (read 2026-11-21).
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote

from ..doors import counted_at, format_at
from ..errors import CallerError, Unsupported

Api: TypeAlias = Literal["", "anthropic", "gemini"]
OPENAI: Final = "openai.passthrough"
ANTHROPIC: Final = "anthropic.passthrough"
GEMINI: Final = "gemini.passthrough"


class Place(NamedTuple):
    """A path that a caller of ``format`` asks for, spelled with its version whatever the caller wrote.

    ``kept``: what is asked for here leaves something behind at the provider, where everybody finds it who comes with the
    same credential.
    """

    format: str
    path: str
    kept: bool


_OPENAI_PASSING: Final = ("/audio", "/content_provenance_checks", "/decisions", "/images", "/responses/compact")
_OPENAI_KEPT: Final = (
    "/agents",
    "/assistants",
    "/audio/voice_consents",
    "/audio/voices",
    "/batches",
    "/chatkit",
    "/containers",
    "/conversations",
    "/evals",
    "/files",
    "/fine_tuning",
    "/live",
    "/realtime",
    "/safety",
    "/skills",
    "/threads",
    "/uploads",
    "/vaults",
    "/vector_stores",
    "/videos",
)
_OPENAI_OWN: Final = re.compile(r"/v1/chat/completions/.+|/v1/models/[^/]+|/v1/realtime")
"""Kept as well; but for ``/v1/realtime`` itself, which is a WebSocket."""
_ANTHROPIC_PASSING: Final = ("/v1/complete",)
_ANTHROPIC_KEPT: Final = (
    "/v1/agents",
    "/v1/deployment_runs",
    "/v1/deployments",
    "/v1/dreams",
    "/v1/environments",
    "/v1/files",
    "/v1/memory_stores",
    "/v1/messages/batches",
    "/v1/sessions",
    "/v1/skills",
    "/v1/tunnels",
    "/v1/user_profiles",
    "/v1/vaults",
)
_GEMINI_ROOTS: Final = (
    "agents",
    "auth_tokens",
    "batches",
    "cachedContents",
    "corpora",
    "credentials",
    "decisions",
    "environments",
    "fileSearchStores",
    "files",
    "interactions",
    "operations",
    "triggers",
    "tunedModels",
    "tuningJobs",
    "voices",
    "webhooks",
)
_GEMINI: Final = re.compile(rf"(/upload|/download)?/(v1|v1beta|v1alpha)/({'|'.join(_GEMINI_ROOTS)})(?:[/:].*)?")
_GEMINI_METHODS: Final = (
    "asyncBatchEmbedContent",
    "batchEmbedContents",
    "batchGenerateContent",
    "computeTokens",
    "embedContent",
    "predict",
    "predictLongRunning",
)
_GEMINI_MODEL: Final = re.compile(
    rf"/v1(?:beta|alpha)?/(?:models|tunedModels)/([^/:]+)(?::({'|'.join(_GEMINI_METHODS)})|/operations(?:/.*)?)"
)
_GEMINI_PASSING: Final = frozenset({"batchEmbedContents", "computeTokens", "embedContent", "predict"})
_GEMINI_SOCKET: Final = "/ws/google.ai.generativelanguage."
_NEVER: Final = (
    "/v1/organization",
    "/v1/organizations",
    "/v1/projects",
    "/v1/webhook_endpoints",
    "/v1/webhook_event_types",
)
"""The administration of the account itself: keys, members, bills."""
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9._~:@!$&'()*+,;=%-]+)+")


def place_of(path: str, api: Api = "") -> Place | None:
    """Return what stands at ``path``, None for what is none of this. ``api`` is whose caller asks; "": nobody knows.

    Some paths stand in several APIs, such as ``/v1/files``; without a word they are OpenAI's.
    """
    if format_at(path) is not None or counted_at(path) is not None:
        return None
    if found := _GEMINI_MODEL.fullmatch(path):
        return Place(GEMINI, path, found[2] not in _GEMINI_PASSING)
    if path.startswith(_GEMINI_SOCKET):
        return Place(GEMINI, path, False)
    if found := _GEMINI.fullmatch(path):
        google, theirs, own = Place(GEMINI, path, found[3] != "decisions"), _anthropic(path), _openai(path)
        if found[1] is not None or found[2] != "v1" or api == "gemini" or (theirs is None and own is None):
            return google
        return theirs if theirs is not None and (api == "anthropic" or own is None) else own
    theirs = _anthropic(path)
    if theirs is not None and api == "anthropic":
        return theirs
    return _openai(path if path.startswith("/v1/") else f"/v1{path}") or theirs


def api_of(headers: Container[str], query: Container[str]) -> Api:
    """Return whose API a caller speaks, as far as its headers, in lower case or any, and its query tell."""
    if "anthropic-version" in headers:
        return "anthropic"
    if "x-goog-api-key" in headers or "x-goog-api-client" in headers or "key" in query:
        return "gemini"
    return ""


def _openai(path: str) -> Place | None:
    if _OPENAI_OWN.fullmatch(path):
        return Place(OPENAI, path, path != "/v1/realtime")
    if _below(path.removeprefix("/v1"), _OPENAI_KEPT):
        return Place(OPENAI, path, True)
    return Place(OPENAI, path, False) if _below(path.removeprefix("/v1"), _OPENAI_PASSING) else None


def _anthropic(path: str) -> Place | None:
    if _below(path, _ANTHROPIC_KEPT):
        return Place(ANTHROPIC, path, True)
    return Place(ANTHROPIC, path, False) if _below(path, _ANTHROPIC_PASSING) else None


def is_kept(path: str) -> bool:
    """Whether what is asked for at ``path``, spelled with its version, leaves something behind in any API."""
    places = (place_of(path), place_of(path, "anthropic"), place_of(path, "gemini"))
    return any(place is not None and place.kept for place in places)


def is_never_passed(path: str) -> bool:
    """Whether ``path`` is of the administration of an account, which no route opens."""
    return _below(path, _NEVER)


def unserved(place: Place) -> Unsupported:
    """Return the error for a path that is known, and that no route leads to who serves it."""
    root = "/".join(place.path.split("/")[:3])
    vendor = place.format.partition(".")[0]
    return Unsupported(
        f"no route serves {place.path[:200]}: it is passed on as it comes, by a route such as "
        f'{{name: passing, match: {{path: "{root}*"}}, to: {vendor}}}, to an upstream with adapter: {vendor}',
        status=501,
    )


def is_below(path: str, root: str) -> bool:
    """Whether ``path`` is ``root`` or below it: ``/v1/files`` covers ``/v1/files/abc``."""
    return path == root or (path.startswith(root) and (root[-1:] == "/" or path[len(root)] in "/:"))


def check_plain(path: str) -> None:
    """Raise CallerError for a path, as it was sent, of which a provider may make another one than we do."""
    segments = unquote(path, errors="replace").split("/")
    if not _PLAIN.fullmatch(path) or len(segments) != path.count("/") + 1 or not {".", ".."}.isdisjoint(segments):
        raise CallerError("this path is not passed on: it has empty, relative or encoded parts")
    if any(letter in part for part in segments for letter in '\\%?#"<>') or not "".join(segments).isprintable():
        raise CallerError("this path is not passed on: it has letters that a provider may read in several ways")


def model_at(path: str) -> str:
    """Return the model that stands in the path, as Gemini's do; "" where there is none."""
    found = _GEMINI_MODEL.fullmatch(path)
    return "" if found is None else found[1]


def with_model(path: str, model: str) -> str:
    """Return a path in which a model stands with another, encoded, in its place."""
    found = _GEMINI_MODEL.fullmatch(path)
    return path if found is None else path[: found.start(1)] + model + path[found.end(1) :]


def _below(path: str, roots: tuple[str, ...]) -> bool:
    return any(is_below(path, root) for root in roots)
