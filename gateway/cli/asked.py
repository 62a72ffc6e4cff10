"""The request that ``explain`` and ``replay`` are asked about: from a file, a curl command line or options, checked as the
gateway would check it before any rule sees it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

from .. import registry
from ..codecs.base import RequestFacts
from ..counting import as_request
from ..doors import DOORS, OPERATIONS, counted_at, format_below, path_of
from ..errors import CallerError
from ..facts import ANONYMOUS, Principal
from ..passing.model import boundary_of
from ..passing.paths import Place, api_of, check_plain, is_never_passed, place_of
from ..passing.request import Passed, Socket, Upload
from ..registry import UnknownName
from ..rules.given import Posed, pose_bytes
from ..rules.plan import Plan

_ENVELOPE: Final = frozenset({"method", "path", "url", "headers", "body", "query", "format"})
_SINGLE: Final = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "content-type", "x-request-id"})
_ANTHROPIC: Final = frozenset({"system", "stop_sequences", "anthropic_version", "mcp_servers", "context_management"})
_OPENAI: Final = frozenset(
    {"max_completion_tokens", "response_format", "stream_options", "frequency_penalty", "presence_penalty", "logprobs"}
    | {"reasoning_effort", "n", "seed", "stop", "functions", "logit_bias", "modalities", "prediction", "store"}
)
_ANTHROPIC_PARTS: Final = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "image", "document"})
_OPENAI_PARTS: Final = frozenset({"image_url", "input_audio", "file", "refusal"})
_OLLAMA: Final = frozenset(
    {"options", "keep_alive", "think", "template", "raw", "images", "context", "system", "format"}
)
_COMPLETIONS: Final = frozenset(
    {"max_tokens", "temperature", "top_p", "n", "logprobs", "echo", "stop", "best_of", "presence_penalty"}
    | {"frequency_penalty", "logit_bias", "seed", "stream_options", "user"}
)


class Refused(Exception):
    """What is asked about is no request that the gateway would serve; the text says why."""


class Asked(NamedTuple):
    """A request as it came. Header names are in lower case; ``format`` is None where nobody said it, ``path`` empty."""

    body: bytes
    path: str = ""
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    method: str = "POST"
    format: str | None = None


def from_json(text: bytes) -> Asked:
    """Return the request in ``text``: a body, or an object of method, path (or url), headers and body. Raises Refused."""
    try:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise Refused(f"this is no JSON object: {fault}") from fault
    if "body" not in members or not members.keys() <= _ENVELOPE:
        return Asked(text)
    try:
        rest = {name: msgspec.json.decode(raw) for name, raw in members.items() if name != "body"}
        body = bytes(members["body"]).strip()
        if body.startswith(b'"'):
            body = msgspec.json.decode(body, type=str).encode("utf-8", "surrogatepass")
    except msgspec.DecodeError as fault:
        raise Refused(f"the recorded request cannot be read: {fault}") from fault
    for name in ("method", "path", "url", "format"):
        if not isinstance(rest.get(name, ""), str):
            raise Refused(f'"{name}" of the recorded request must be a text')
    headers = _pairs(rest.get("headers"), "headers")
    query = dict(_pairs(rest.get("query"), "query"))
    return from_parts(
        rest.get("method", "POST"), rest.get("path", rest.get("url", "")), headers, body, query, rest.get("format")
    )


def from_parts(
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    query: Mapping[str, str] | None = None,
    format: str | None = None,
) -> Asked:
    """Return the request that a client sends to ``url``, or to a path. Raises Refused for headers that contradict."""
    try:
        parts = urlsplit(url)
        host, user = parts.netloc.rpartition("@")[2], parts.username
    except ValueError as fault:
        raise Refused(f"this is no URL: {fault}") from fault
    given = list(headers)
    names = {name.lower() for name, _ in given}
    if host and "host" not in names:
        given.append(("host", host))
    if user is not None and "authorization" not in names:
        password = parts.password or ""
        basic = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        given.append(("authorization", f"Basic {basic}"))
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        found.setdefault(name, value)
    found.update(query or {})
    return Asked(body, unquote(parts.path), join(given), found, method.upper(), format)


def join(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers under lower-case names, repeated ones joined. Raises Refused for those that must stand once."""
    joined: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        if name in joined:
            if name in _SINGLE and joined[name] != value:
                raise Refused(f"the header {name} is there twice with different values: send it once")
            if name not in _SINGLE:
                value = f"{joined[name]}, {value}"
        joined[name] = value
    return joined


def posed_as_asked(asked: Asked, plan: Plan, principal: Principal = ANONYMOUS, tokens: int | None = None) -> Posed:
    """Return the request as a gateway with ``plan`` would meet it.

    Raises Refused for what it would not let in, DecodeError for a body that cannot be read.
    """
    server = plan.server
    if sum(len(name) + len(value) + 4 for name, value in asked.headers.items()) > server.max_header:
        raise Refused(f"the request headers are larger than {int(server.max_header)} bytes (server.max_header)")
    if (place := _place(asked)) is not None and asked.format in (None, place.format):
        return _posed_as_passed(asked, place, plan, principal, tokens)
    if is_never_passed(asked.path):
        raise Refused(f"{asked.path[:200]} is the administration of an account, which is not passed on")
    if asked.method != "POST":
        raise Refused(f"{asked.method} is not served: calls are sent with POST")
    _check_content_type(asked.headers)
    if len(asked.body) > server.max_body:
        raise Refused(f"the request body is larger than {int(server.max_body)} bytes (server.max_body)")
    format = _format(asked)
    path = asked.path if asked.path not in ("", "/") else path_of(format)
    body, facts = asked.body, RequestFacts(path, asked.query, asked.headers)
    counts = counted_at(path) is not None
    if counts:
        body, facts = as_request(format, body, facts)
    return pose_bytes(registry.codec(format), body, facts, principal, tokens, plan, counts=counts)


def _place(asked: Asked) -> Place | None:
    return place_of(asked.path, api_of(asked.headers, asked.query))


def _posed_as_passed(asked: Asked, place: Place, plan: Plan, principal: Principal, tokens: int | None) -> Posed:
    """Return a request that nobody translates, of any method, body and type. Raises Refused."""
    limit = plan.server.max_upload
    if len(asked.body) > limit:
        raise Refused(f"the request body is larger than {int(limit)} bytes (server.max_upload)")
    content_type = asked.headers.get("content-type", "application/json")
    path = quote(place.path, safe="/:@!$&'()*+,;=~")
    shakes_hands = asked.headers.get("upgrade", "").strip().lower() == "websocket"
    try:
        check_plain(path)
        passed = Passed(
            asked.method,
            path,
            urlencode(asked.query),
            Upload(asked.body, None, len(asked.body)),
            Socket((), plan.server.max_body) if shakes_hands else None,
            media_type=content_type.partition(";")[0].strip().lower(),
            boundary=boundary_of(content_type),
        )
        facts = RequestFacts(place.path, asked.query, asked.headers)
        return pose_bytes(registry.codec(place.format), asked.body, facts, principal, tokens, plan, passed=passed)
    except CallerError as fault:
        raise Refused(fault.message) from fault


def _check_content_type(headers: Mapping[str, str]) -> None:
    given = headers.get("content-type", "" if "origin" in headers else "application/json")
    media_type = given.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        hint = " (curl -d says so by itself: add -H 'content-type: application/json')" if "form" in media_type else ""
        raise Refused(f"content-type {media_type[:80]!r} is not served: send application/json{hint}")


def _format(asked: Asked) -> str:
    """Return the caller's format: as said, else by the path, else by what only one format has."""
    if asked.format is not None:
        try:
            registry.codec(asked.format)
        except UnknownName as fault:
            raise Refused(str(fault)) from fault
    by_path = format_at_path(asked.path)
    if by_path is None and (place := _place(asked)) is not None:
        by_path = place.format
    if by_path is None and asked.path not in ("", "/") and asked.format is None:
        known = ", ".join(paths[0] for paths in (DOORS | OPERATIONS).values())
        raise Refused(f"nothing is served at POST {asked.path[:200]}: known are {known}")
    if asked.format is not None and by_path not in (None, asked.format):
        raise Refused(f"the format is said to be {asked.format}, but {asked.path[:200]} is where {by_path} is served")
    found = asked.format or by_path or _guess(asked)
    if found is None:
        choices = ", ".join(registry.names("codecs"))
        raise Refused(f"the body does not tell its format: say --format (one of {choices}) or --path")
    return found


def format_at_path(path: str) -> str | None:
    """Return the format of what is asked for at ``path``, a count of tokens among it; None where nothing is known."""
    return format_below(path) or counted_at(path) or (None if (place := place_of(path)) is None else place.format)


def _guess(asked: Asked) -> str | None:
    """Return the one format whose traits the request has."""
    if "anthropic-version" in asked.headers:
        return "anthropic.messages"
    try:
        body = msgspec.json.decode(asked.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise Refused(f"the request body cannot be read: {fault}") from fault
    if not isinstance(body, dict):
        raise Refused("the request body is no JSON object")
    if "contents" in body:
        return "gemini"
    if "query" in body and "documents" in body:
        return "rerank"
    if "messages" not in body:
        if "prompt" not in body:
            return "openai.responses" if "input" in body else None
        ollama, completions = bool(body.keys() & _OLLAMA), bool(body.keys() & _COMPLETIONS)
        return None if ollama == completions else "ollama.generate" if ollama else "openai.completions"
    if body.keys() & {"options", "keep_alive"}:
        return "ollama.chat"
    messages = [each for each in _items(body.get("messages")) if isinstance(each, dict)]
    tools = [each for each in _items(body.get("tools")) if isinstance(each, dict)]
    parts = {
        str(part.get("type")) for each in messages for part in _items(each.get("content")) if isinstance(part, dict)
    }
    roles = {str(each.get("role")) for each in messages}
    anthropic = bool(
        body.keys() & _ANTHROPIC or parts & _ANTHROPIC_PARTS or any("input_schema" in each for each in tools)
    )
    openai = bool(
        body.keys() & _OPENAI
        or parts & _OPENAI_PARTS
        or roles & {"tool", "developer", "system", "function"}
        or any("function" in each or "tool_calls" in each for each in (*tools, *messages))
    )
    if anthropic == openai:
        return None
    return "anthropic.messages" if anthropic else "openai.chat"


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _pairs(value: object, what: str) -> list[tuple[str, str]]:
    """Return the pairs of an object of texts, or of a list of pairs. Raises Refused."""
    pairs = list(value.items()) if isinstance(value, dict) else [] if value is None else value
    if not isinstance(pairs, list) or not all(
        isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(each, str) for each in pair)
        for pair in pairs
    ):
        raise Refused(f'"{what}" of the recorded request must be an object of texts')
    return [(name, value) for name, value in pairs]
