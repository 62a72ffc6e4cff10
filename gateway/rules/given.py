"""The request that a test of the rules gives, made into what a caller of its format would send."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from .. import registry
from ..codecs.base import Codec, RequestFacts, UpstreamFacts
from ..doors import path_of
from ..facts import ANONYMOUS, Principal, WireFacts
from ..ir.message import Media, Message, Request, Text, Tool
from .plan import Plan
from .schema import GivenRules

_PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

_METADATA: Final = {"gemini": "labels"}
"""What a format calls its metadata, where it is called otherwise."""


class Posed(NamedTuple):
    """A request as the gateway would meet it."""

    codec: Codec
    body: bytes
    facts: RequestFacts
    wire: WireFacts


def pose(given: GivenRules, plan: Plan | None = None) -> Posed:
    """Return the request that ``given`` describes, as ``plan`` sees it. Raises UnknownName for its format, DecodeError for
    its body."""
    codec = registry.codec(given.format)
    body = msgspec.json.encode(given.body) if given.body is not None else _body(codec, given)
    path = given.path if given.path is not None else path_of(codec.format, given.model, stream=given.stream)
    facts = RequestFacts(path, given.query, {name.lower(): value for name, value in given.headers.items()})
    who = given.principal
    return pose_bytes(codec, body, facts, Principal(who.key, who.team, who.tenant, who.tags), given.tokens, plan)


def pose_bytes(
    codec: Codec,
    body: bytes,
    facts: RequestFacts,
    principal: Principal = ANONYMOUS,
    tokens: int | None = None,
    plan: Plan | None = None,
) -> Posed:
    """Return the request whose bytes are ``body``, as ``plan`` sees it; ``tokens`` stands in for its own. Raises
    DecodeError."""
    peek = codec.peek(body, facts)
    if peek.stream:
        codec = codec.for_caller(facts)
    wire = WireFacts(codec.format, peek, facts, body) if plan is None else plan.facts(codec, peek, facts, body)
    if tokens is not None:
        wire.tokens = tokens
    wire.principal = principal
    return Posed(codec, body, facts, wire)


def _body(codec: Codec, given: GivenRules) -> bytes:
    parts = (Text("Hello"), *((Media("image", "image/png", _PIXEL),) if given.has_image else ()))
    request = Request(
        codec.format,
        given.model,
        (Message("user", parts),),
        (Tool("look_up", b'{"type":"object","properties":{}}', "Looks something up."),) if given.tools else (),
        stream=given.stream,
    )
    body = codec.encode_request(request, UpstreamFacts()).body
    if not given.metadata:
        return body
    members = msgspec.json.decode(body, type=dict[str, object])
    return msgspec.json.encode({**members, _METADATA.get(codec.format, "metadata"): given.metadata})
