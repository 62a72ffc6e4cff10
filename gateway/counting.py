"""Calls that ask for no answer but for how many tokens the request has: what the three endpoints say, and who counts.

A call with ``counts`` set takes the way of any other. At its end the provider counts, where it has an endpoint for that in
the caller's format; else a tokenizer, where the extra is there; else the size of the texts is taken.

Sources: the request and answer types of the official SDKs anthropic 2.11 and openai 3.52, and for Gemini
``models.countTokens`` of its REST reference: ``contents`` or ``generateContentRequest``, never both (read 2026-11-21).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, runtime_checkable
from urllib.parse import unquote

from msgspec import Raw, Struct
from msgspec.structs import replace

from .call import Call
from .chain import Adapter, Next
from .codecs.base import RequestFacts
from .counted import QUICK_BYTES
from .doors import APART
from .errors import DecodeError, UpstreamError
from .ir.event import Chunk
from .relay.reply import Reply
from .tokens import Tally, tally_or_estimate
from .vocabulary import is_loaded
from .wire.members import BAD_JSON, OBJECT, encode_json

HEADER: Final = "headgate-tokens"
"""Says who counted: ``provider``, ``tokenizer``, or ``estimate`` where something of it was guessed."""
_NO_ENDPOINT: Final = frozenset({404, 405, 501})
"""What a provider answers that speaks the format and has no such endpoint."""
_WRAPPED: Final = ("generateContentRequest", "generate_content_request")


class Endpoint(Struct, frozen=True):
    """Where one format counts: at the path of a request with ``before`` at its end replaced by ``after``.

    ``members`` are those of a request that it takes, None where it takes all; ``answer`` is the body for a number.
    """

    before: str
    after: str
    members: frozenset[str] | None
    answer: Callable[[int], bytes]


ENDPOINTS: Final = {
    "anthropic.messages": Endpoint(
        "",
        "/count_tokens",
        frozenset(
            {
                "model",
                "messages",
                "system",
                "tools",
                "tool_choice",
                "thinking",
                "cache_control",
                "output_config",
                "speed",
            }
            | {"context_management", "mcp_servers"}
        ),
        lambda tokens: b'{"input_tokens":%d}' % tokens,
    ),
    "openai.responses": Endpoint(
        "",
        "/input_tokens",
        frozenset(
            {"model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning"}
            | {"truncation", "conversation", "previous_response_id", "personality"}
        ),
        lambda tokens: b'{"object":"response.input_tokens","input_tokens":%d}' % tokens,
    ),
    "gemini": Endpoint(":generateContent", ":countTokens", None, lambda tokens: b'{"totalTokens":%d}' % tokens),
}


@runtime_checkable
class Counts(Protocol):
    """An adapter that knows what to do with a call whose ``counts`` is set."""

    counts: frozenset[str]
    """The formats in which its provider counts."""


# -- from the caller


def as_request(format: str, body: bytes, facts: RequestFacts) -> tuple[bytes, RequestFacts]:
    """Return the request whose tokens a caller asks for, and where it would have been sent. Raises DecodeError."""
    endpoint = ENDPOINTS[format]
    facts = replace(facts, path=facts.path.removesuffix("/").removesuffix(endpoint.after) + endpoint.before)
    if format == "gemini" and any(name.encode() in body for name in _WRAPPED):
        members = _members(body)
        for name in _WRAPPED:
            if name in members:
                inner = _members(bytes(members[name]), name)
                inner.pop("model", None)  # the path names it
                body = encode_json(inner)
    return body, facts


def _members(body: bytes, path: str = "") -> dict[str, Raw]:
    try:
        return OBJECT.decode(body)
    except BAD_JSON as fault:
        raise DecodeError(path, f"expected a JSON object: {fault}") from fault


# -- to the provider


def asked(format: str, body: bytes, path: str, *, written: bool) -> tuple[bytes, str]:
    """Return what to send to a provider's endpoint, and where, for a request that would go to ``path``.

    ``written`` says that a codec wrote the body: a caller's own is a count request as it came.
    """
    endpoint = ENDPOINTS[format]
    path = path.removesuffix(endpoint.before) + endpoint.after
    if format == "gemini":
        members = _members(body)
        if members.keys() - {"contents"}:
            model = unquote(path.removeprefix("/v1beta/").removesuffix(endpoint.after))
            body = encode_json({_WRAPPED[0]: {"model": model, **members}})
    elif written and endpoint.members is not None:
        body = encode_json({name: raw for name, raw in _members(body).items() if name in endpoint.members})
    return body, path


# -- the end of a chain


def ending(adapter: Adapter, serve: Next, operate: Next) -> Next:
    """Return the end of a chain, which hands calls to ``serve``: ``adapter``, or what stands around it.

    Those that are no conversation it hands to ``operate``.

    A call that counts never gets to an adapter that does not know of such calls: it would answer.
    """
    formats = adapter.counts if isinstance(adapter, Counts) else frozenset()

    def end(call: Call) -> Awaitable[Reply]:
        if call.codec.format in APART:
            return operate(call)
        return _count(adapter, formats, call) if call.counts else serve(call)

    return end


async def _count(ask: Next, formats: frozenset[str], call: Call) -> Reply:
    if call.format in formats:
        try:
            reply = await ask(call)
        except UpstreamError:
            if call.decision.attempts[-1].status not in _NO_ENDPOINT:
                raise
        else:
            reply.headers = {**reply.headers, HEADER: "provider"}
            return reply
    found = await _tally(call)
    body = ENDPOINTS[call.format].answer(found.tokens)
    counted = found.vocabulary != "" and found.whole
    return Reply.whole(
        Chunk((), body, call.codec.whole), call.scope, headers={HEADER: "tokenizer" if counted else "estimate"}
    )


async def _tally(call: Call) -> Tally:
    request, model = call.request, call.model
    if is_loaded(model) and (call.body is not None and len(call.body) <= QUICK_BYTES):
        return tally_or_estimate(request, model)
    return await asyncio.to_thread(tally_or_estimate, request, model)
