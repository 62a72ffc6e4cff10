"""OpenAI's embeddings: as callers ask for them, and as OpenAI and its likes are asked.

Sources: ``CreateEmbeddingRequest`` and its answer in OpenAI's API description; the limits of a request, 2048 inputs and
300,000 tokens of all of them, in the docstring of ``embeddings.create`` of openai 3.52. ``input_type`` is not OpenAI's:
Voyage and NVIDIA serve this format with it, and Cohere demands it.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from ...errors import DecodeError
from ...ir.embedding import EmbeddingAnswer, EmbeddingRequest, Encoding
from ...ir.event import Usage
from ...ir.message import Message, Request, Text
from ...wire.members import BAD_JSON, NULL, Members
from ..base import Encoded, RequestFacts, UpstreamFacts
from .base import OperationCodec, read_answer, read_request, write_members
from .embeddings import FORMAT, PATH

T = TypeVar("T")
_AT: Final = re.compile(r"at `\$\[(\d+)\]")
_STRINGS: Final = msgspec.json.Decoder(tuple[str, ...])
_TOKENS: Final = msgspec.json.Decoder(tuple[int, ...])
_TOKEN_LISTS: Final = msgspec.json.Decoder(tuple[tuple[int, ...], ...])
_ENCODING: Final = msgspec.json.Decoder(Literal["float", "base64"])
_KNOWN_IN_A_VECTOR: Final = frozenset({"object", "index", "embedding"})
_KNOWN: Final = frozenset({"object", "data", "model", "usage"})


class _Usage(Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(Struct):
    data: list[dict[str, Raw]]


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_USAGE: Final = msgspec.json.Decoder(_Usage | None)
_INDEX: Final = msgspec.json.Decoder(int)


# -- from callers


def read(body: bytes) -> EmbeddingRequest:
    """Read a request. Raises DecodeError."""
    return read_request(body, _read)


def _read(it: Members) -> EmbeddingRequest:
    model = it.need_string("model")
    texts, tokens = _inputs(it.take("input"))
    return EmbeddingRequest(
        model,
        texts,
        tokens,
        _encoding(it),
        _dimensions(it),
        it.string("input_type"),
        it.string("user"),
        it.extra(),
    )


def _inputs(raw: Raw | None) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Return texts and token lists, one of which is empty."""
    data = b"" if raw is None else bytes(raw)
    inner = data[1:].lstrip()
    if data[:1] == b'"':
        return _all(_STRINGS, b"[%b]" % data), ()
    if data[:1] != b"[":
        missing = ", but it is missing" if raw is None else ""
        raise DecodeError("input", f"expected a string, an array of strings, or token ids{missing}")
    if inner[:1] == b"]":
        raise DecodeError("input", "expected at least one input")
    if inner[:1] == b'"':
        return _all(_STRINGS, data), ()
    if inner[:1] != b"[":
        return (), (_all(_TOKENS, data),)
    lists = _all(_TOKEN_LISTS, data)
    for at, each in enumerate(lists):
        if not each:
            raise DecodeError(f"input[{at}]", "expected at least one token")
    return (), lists


def _all(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except BAD_JSON as error:
        found = _AT.search(str(error))
        where = f"input[{found[1]}]" if found is not None and data[:1] == b"[" else "input"
        what = "not valid JSON" if not isinstance(error, msgspec.ValidationError) else "not like the first input"
        raise DecodeError(where, f"{what}: all are strings, or all are token ids") from error


def _encoding(it: Members) -> Encoding | None:
    raw = it.take("encoding_format")
    try:
        return None if raw is None else _ENCODING.decode(raw)
    except BAD_JSON as error:
        raise DecodeError("encoding_format", 'expected "float" or "base64"') from error


def _dimensions(it: Members) -> int | None:
    wanted = it.integer("dimensions")
    if wanted is not None and wanted < 1:
        raise DecodeError("dimensions", "expected at least 1")
    return wanted


class OpenAIEmbeddingsCodec(OperationCodec):
    """The caller's side."""

    format = FORMAT

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        """Each text is a message; token ids are nothing that anybody could read, and stay beside."""

        def view(it: Members) -> Request:
            model, user, raw = it.need_string("model"), it.string("user"), it.raw("input")
            texts, _ = _inputs(raw)
            if texts:
                it.take("input")
            brief = raw is not None and bytes(raw)[:1] == b'"'
            messages = tuple(Message("user", (Text(text),), brief=brief) for text in texts)
            return Request(FORMAT, model, messages, user=user, extra=it.extra())

        return read_request(body, view)

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        """Write what ``decode_request`` read, whatever became of the texts."""
        texts = [text_of(message) for message in request.messages]
        brief = len(texts) == 1 and request.messages[0].brief
        known = {
            "model": request.model,
            "input": None if not texts else texts[0] if brief else texts,
            "user": request.user,
        }
        return Encoded(write_members(known, request.extra), PATH)

    def request_path(self, model: str, stream: bool) -> str:
        return PATH


def text_of(message: Message) -> str:
    """Return the words of a message."""
    return "".join(part.text for part in message.parts if isinstance(part, Text))


CODEC: Final = OpenAIEmbeddingsCodec()


# -- to providers


class OpenAIEmbeddings:
    """The wire of OpenAI, and of every provider that serves its format."""

    format = FORMAT
    most = 2048
    most_tokens: int | None = 300_000

    def encode_request(self, request: EmbeddingRequest) -> Encoded:
        """Write a request; a caller of the same format loses nothing."""
        known = {
            "model": request.model,
            "input": request.texts or request.tokens,
            "encoding_format": request.encoding,
            "dimensions": request.dimensions,
            "input_type": request.purpose,
            "user": request.user,
        }
        return Encoded(write_members(known, request.extra), PATH)

    def decode_response(self, body: bytes) -> EmbeddingAnswer:
        """Read an answer, its vectors by their ``index``. Raises Malformed."""
        told, data = read_answer(_MEMBERS, body), read_answer(_ANSWER, body).data
        raw = bytes(told.get("usage", NULL))
        usage = read_answer(_USAGE, raw)
        spent = {} if usage is None else read_answer(_MEMBERS, raw)
        tokens = (
            None if usage is None else usage.prompt_tokens if usage.prompt_tokens is not None else usage.total_tokens
        )
        vectors = sorted(enumerate(data), key=lambda each: _index(each[1], each[0]))
        model = told.get("model")
        return EmbeddingAnswer(
            tuple(each["embedding"] for _, each in vectors if "embedding" in each),
            "" if model is None or bytes(model)[:1] != b'"' else msgspec.json.decode(model, type=str),
            None if tokens is None else Usage(input_tokens=tokens, uncached_input_tokens=tokens),
            tuple({name: raw for name, raw in each.items() if name not in _KNOWN_IN_A_VECTOR} for _, each in vectors),
            {name: raw for name, raw in told.items() if name not in _KNOWN},
            spent,
            FORMAT,
        )


def _index(vector: dict[str, Raw], at: int) -> int:
    raw = vector.get("index")
    return at if raw is None else read_answer(_INDEX, bytes(raw))


WIRE: Final = OpenAIEmbeddings()
