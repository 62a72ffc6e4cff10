"""The request that a test of the rules gives, made into what a caller of its format would send."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from .. import registry
from ..codecs.base import Codec, Peek, RequestFacts, UpstreamFacts
from ..doors import path_of
from ..facts import ANONYMOUS, Principal, WireFacts
from ..ir.message import Media, Message, Request, Text, Tool
from ..passing.request import Passed
from .plan import Plan
from .schema import GivenRules

_PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

_METADATA: Final = {"gemini": "labels"}
"""What a format calls its metadata, where it is called otherwise."""


class Posed(NamedTuple):
    """A request as the gateway would meet it. ``counts``: it asks for its tokens alone; ``passed``: nobody translates it."""

    codec: Codec
    body: bytes
    facts: RequestFacts
    wire: WireFacts
    counts: bool = False
    passed: Passed | None = None

    @property
    def peek(self) -> Peek:
        """What is read of it before a route is chosen. Raises DecodeError."""
        return _peek(self.codec, self.body, self.facts, self.counts, self.passed)


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
    *,
    counts: bool = False,
    passed: Passed | None = None,
) -> Posed:
    """Return the request whose bytes are ``body``, as ``plan`` sees it; ``tokens`` stands in for its own. Raises
    DecodeError, CallerError."""
    seen = body if passed is None else b""  # what nobody translates no rule reads
    peek = _peek(codec, body, facts, counts, passed)
    if peek.stream:
        codec = codec.for_caller(facts)
    wire = WireFacts(codec.format, peek, facts, seen) if plan is None else plan.facts(codec, peek, facts, seen)
    if tokens is not None or passed is not None:
        wire.tokens = len(body) // 4 if tokens is None else tokens
    wire.principal = principal
    return Posed(codec, body, facts, wire, counts, passed)


def _peek(codec: Codec, body: bytes, facts: RequestFacts, counts: bool, passed: Passed | None) -> Peek:
    if passed is not None:
        return Peek(passed.model)
    peek = codec.peek(body, facts)
    return replace(peek, stream=False) if counts else peek


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
