"""Embeddings by any provider: a caller's request in as many of the provider's as it takes, and one answer of theirs.

Callers speak ``openai.embeddings``. What a provider says otherwise is a ``Wire`` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from msgspec import Raw
from msgspec.structs import replace

from ...errors import DecodeError, Malformed, Unsupported
from ...ir.embedding import EmbeddingAnswer, EmbeddingRequest, Encoding
from ...ir.event import Usage
from ...ir.loss import Loss
from ...ir.message import Extra
from ...wire.members import encode_json
from ...wire.patch import set_member
from ...wire.surrogates import mend_halves
from ...wire.vectors import is_packed, pack, unpack
from ..base import Encoded
from .base import MAX_CALLS, Errand, Finished

FORMAT: Final = "openai.embeddings"
PATH: Final = "/embeddings"
"""Of a provider that serves the callers' format."""
_BYTES_PER_TOKEN: Final = 2
"""What texts of scripts other than Latin come to. Texts that fit by this fit; the others take a request more."""


class Wire(Protocol):
    """How a provider is asked for embeddings. ``most`` inputs go in one request, and ``most_tokens`` of them together."""

    format: str
    most: int
    most_tokens: int | None

    def encode_request(self, request: EmbeddingRequest) -> Encoded:
        """Write a request that has no more inputs than allowed. Raises CallerError for what cannot be said."""
        ...

    def decode_response(self, body: bytes) -> EmbeddingAnswer:
        """Read an answer. Raises Malformed."""
        ...


class Embeddings:
    """The service: ``read`` reads the caller's request. ``most`` replaces that of ``wire``."""

    operation = FORMAT

    def __init__(self, wire: Wire, read: Callable[[bytes], EmbeddingRequest], most: int | None = None) -> None:
        self.format = wire.format
        self._wire = wire
        self._read = read
        self._most = most or wire.most

    def errand(self, body: bytes, model: str) -> Errand:
        """Return the requests to the provider. One that needs no change goes out as it came."""
        asked = self._read(body)
        if asked.count > self._most * MAX_CALLS:
            most = self._most * MAX_CALLS
            said = f"{asked.count} inputs are more than {most}: this upstream takes {self._most} in a request, and a call is"
            raise DecodeError("input", f"{said} split into {MAX_CALLS} at most", kind="too_large")
        named = asked if asked.model == model else replace(asked, model=model)
        parts = list(_parts(named, self._most, self._wire.most_tokens))
        encoding = asked.encoding or "float"
        requests: tuple[Encoded, ...]
        if len(parts) == 1 and self.format == FORMAT:
            requests = (
                Encoded(body if named is asked else set_member(mend_halves(body), "model", encode_json(model)), PATH),
            )
        else:
            requests = tuple(self._wire.encode_request(part) for part in parts)
        counts = [part.count for part in parts]

        def finish(bodies: Sequence[bytes]) -> Finished:
            answers = [self._answer(body, count) for body, count in zip(bodies, counts, strict=True)]
            if len(answers) == 1 and self.format == FORMAT and _is_spelled(answers[0].vectors, encoding):
                return Finished(bodies[0], answers[0].usage)
            return write_answer(answers, encoding, model)

        return Errand(requests, finish, tuple(dict.fromkeys(loss for each in requests for loss in each.losses)))

    def _answer(self, body: bytes, count: int) -> EmbeddingAnswer:
        answer = self._wire.decode_response(body)
        if len(answer.vectors) != count:
            raise Malformed(f"the provider answered {count} inputs with {len(answer.vectors)} vectors")
        return answer


def texts_of(request: EmbeddingRequest, provider: str) -> tuple[str, ...]:
    """Return the texts for a provider that takes no tokens. Raises Unsupported."""
    if request.tokens:
        said = f"token ids mean something to the model they were made for only, and {provider} takes texts"
        raise Unsupported(f"input: {said}: send the texts themselves", param="input")
    return request.texts


def _parts(request: EmbeddingRequest, most: int, most_tokens: int | None) -> Iterator[EmbeddingRequest]:
    """Yield requests of ``most`` inputs at most, in order; those that are too many tokens together are parted, too."""
    inputs: Sequence[str | tuple[int, ...]] = request.texts or request.tokens
    first = tokens = 0
    for at, each in enumerate(inputs):
        size = 0 if most_tokens is None else _size(each)
        if at > first and (at - first >= most or (most_tokens is not None and tokens + size > most_tokens)):
            yield _slice(request, first, at)
            first, tokens = at, 0
        tokens += size
    yield _slice(request, first, len(inputs))


def _size(each: str | tuple[int, ...]) -> int:
    return len(each.encode()) // _BYTES_PER_TOKEN + 1 if isinstance(each, str) else len(each)


def _slice(request: EmbeddingRequest, first: int, end: int) -> EmbeddingRequest:
    if first == 0 and end == request.count:
        return request
    return replace(request, texts=request.texts[first:end], tokens=request.tokens[first:end])


def _is_spelled(vectors: Sequence[Raw], encoding: Encoding) -> bool:
    packed = encoding == "base64"
    return all(is_packed(vector) is packed for vector in vectors)


def write_answer(answers: Sequence[EmbeddingAnswer], encoding: Encoding, model: str) -> Finished:
    """Write one answer in the caller's format. Raises Malformed for a vector that is none."""
    losses = [loss for answer in answers for loss in answer.losses]
    data: list[dict[str, object]] = []
    for answer in answers:
        same = answer.format == FORMAT
        for at, vector in enumerate(answer.vectors):
            beside: Extra = answer.beside[at] if same and answer.beside else {}
            data.append({"object": "embedding", "index": len(data), "embedding": _spelled(vector, encoding), **beside})
    usage = _sum(answers)
    if usage is None:
        losses.append(Loss("minted", "usage", "0 tokens", "the provider did not say how many there were"))
    tokens = 0 if usage is None else usage.input_tokens or 0
    first = answers[0]
    told: dict[str, object] = {
        "object": "list",
        "data": data,
        "model": first.model or model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, **(first.spent if len(answers) == 1 else {})},
        **(first.extra if first.format == FORMAT else {}),
    }
    return Finished(encode_json(told), usage, tuple(dict.fromkeys(losses)))


def _spelled(vector: Raw, encoding: Encoding) -> Raw:
    packed = encoding == "base64"
    if is_packed(vector) is packed:
        return vector
    try:
        return pack(vector) if packed else unpack(vector)
    except ValueError as fault:
        raise Malformed(f"the provider's answer cannot be read: {str(fault)[:200]}") from fault


def _sum(answers: Sequence[EmbeddingAnswer]) -> Usage | None:
    """Return the usage of all; None if one of them did not say."""
    tokens = 0
    for answer in answers:
        if answer.usage is None or answer.usage.input_tokens is None:
            return None
        tokens += answer.usage.input_tokens
    return Usage(input_tokens=tokens, uncached_input_tokens=tokens)
