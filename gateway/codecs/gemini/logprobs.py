"""Log probabilities: Gemini's ``logprobsResult`` and the OpenAI-shaped pieces that the IR carries, both ways.

Source: ``LogprobsResult`` of the API reference: the chosen tokens, and for each of them the likeliest ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from ...wire.members import BAD_JSON


class _Token(Struct, rename="camel"):
    token: str = ""
    log_probability: float = 0.0
    token_id: int | None = None


class _Likeliest(Struct):
    candidates: list[_Token] = []


class _Result(Struct, rename="camel"):
    chosen_candidates: list[_Token] = []
    top_candidates: list[_Likeliest] = []


class _Said(Struct):
    token: str = ""
    logprob: float = 0.0
    token_id: int | None = None
    top_logprobs: list[_Said] | None = None


class _Piece(Struct):
    content: list[_Said] | None = None


_RESULT: Final = msgspec.json.Decoder(_Result)
_PIECE: Final = msgspec.json.Decoder(_Piece)


def read_logprobs(raw: Raw) -> Raw | None:
    """Return a ``logprobsResult`` in OpenAI's shape; None if it is none, or empty."""
    try:
        result = _RESULT.decode(raw)
    except BAD_JSON:
        return None
    if not result.chosen_candidates:
        return None
    content = []
    for i, chosen in enumerate(result.chosen_candidates):
        likeliest = result.top_candidates[i].candidates if i < len(result.top_candidates) else ()
        content.append({**_said(chosen), "top_logprobs": [_said(token) for token in likeliest]})
    return Raw(msgspec.json.encode({"content": content}))


def write_logprobs(pieces: Iterable[Raw]) -> dict[str, Any] | None:
    """Return the ``logprobsResult`` of all ``pieces`` together; None where they say nothing."""
    chosen: list[dict[str, Any]] = []
    likeliest: list[dict[str, Any]] = []
    for piece in pieces:
        try:
            content = _PIECE.decode(piece).content
        except BAD_JSON:
            continue
        for said in content or ():
            chosen.append(_token(said))
            likeliest.append({"candidates": [_token(other) for other in said.top_logprobs or ()]})
    if not chosen:
        return None
    told: dict[str, Any] = {"chosenCandidates": chosen}
    if any(item["candidates"] for item in likeliest):
        told["topCandidates"] = likeliest
    return told


def _said(token: _Token) -> dict[str, Any]:
    told: dict[str, Any] = {"token": token.token, "logprob": token.log_probability, "bytes": None}
    if token.token_id is not None:
        told["token_id"] = token.token_id
    return told


def _token(said: _Said) -> dict[str, Any]:
    told: dict[str, Any] = {"token": said.token, "logProbability": said.logprob}
    if said.token_id is not None:
        told["tokenId"] = said.token_id
    return told
