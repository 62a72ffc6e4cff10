"""Reranking: as callers ask for it, and as the providers that serve the same shape are asked.

The shape is Cohere's first, which Jina, Voyage's likes, vLLM, TEI's proxies and most vendors took over: ``model``, ``query``,
``documents``, ``top_n``, ``return_documents``; the answer has ``results`` of ``index`` and ``relevance_score``. Sources: the
references of Jina's ``/v1/rerank`` and of Cohere's v1 (read 2026-11-21).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from ...errors import DecodeError, Malformed
from ...ir.event import Usage
from ...ir.loss import Loss
from ...ir.message import Extra, Message, Opaque, Request, Text
from ...ir.rerank import Ranked, RerankAnswer, RerankRequest
from ...wire.members import OBJECT, Members, encode_json, is_string, string_of
from ..base import Encoded, RequestFacts, UpstreamFacts
from .base import MAX_CALLS, Errand, Finished, OperationCodec, lost, read_answer, read_request, write_members

FORMAT: Final = "rerank"
PATH: Final = "/rerank"
_KIND: Final = "document"


class _Usage(Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Result(Struct):
    index: int
    relevance_score: float


class _Answer(Struct):
    """``data`` is what Fireworks calls the results."""

    results: list[_Result] | None = None
    data: list[_Result] | None = None
    usage: _Usage | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_TEXT: Final = msgspec.json.Decoder(str)


# -- from callers


def read(body: bytes) -> RerankRequest:
    """Read a request. Raises DecodeError."""
    return read_request(body, _read)


def _read(it: Members) -> RerankRequest:
    model, query = it.need_string("model"), it.need_string("query")
    documents = _documents(it)
    top_n = it.integer("top_n")
    if top_n is not None and top_n < 1:
        raise DecodeError("top_n", "expected at least 1")
    return RerankRequest(
        model, query, documents, top_n, it.boolean("return_documents"), it.integer("max_tokens_per_doc"), it.extra()
    )


def _documents(it: Members) -> tuple[Raw, ...]:
    documents = it.array("documents")
    if not documents:
        missing = ", but it is missing" if documents is None else ""
        raise DecodeError("documents", f"expected at least one document{missing}")
    for at, raw in enumerate(documents):
        if is_string(raw):
            string_of(raw, f"documents[{at}]")
        elif bytes(memoryview(raw)[:1]) != b"{":
            raise DecodeError(f"documents[{at}]", "expected a string or an object")
        elif not _is_text(raw):
            raise DecodeError(f"documents[{at}]", "not valid UTF-8")
    return tuple(documents)


def _is_text(raw: Raw) -> bool:
    try:
        bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return True


class RerankCodec(OperationCodec):
    """The caller's side."""

    format = FORMAT

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        """The first message is the query, each of the others a document."""

        def view(it: Members) -> Request:
            model, query = it.need_string("model"), it.need_string("query")
            messages = [Message("user", (Text(query),), brief=True)]
            for at, raw in enumerate(_documents(it)):
                if is_string(raw):
                    messages.append(Message("user", (Text(string_of(raw, f"documents[{at}]")),), brief=True))
                else:
                    messages.append(_of_object(raw, at))
            return Request(FORMAT, model, tuple(messages), extra=it.extra())

        return read_request(body, view)

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        """Write what ``decode_request`` read, whatever became of the texts."""
        texts = [_written(message) for message in request.messages]
        known = {"model": request.model, "query": texts[0] if texts else "", "documents": texts[1:] or [""]}
        return Encoded(write_members(known, request.extra), PATH)

    def request_path(self, model: str, stream: bool) -> str:
        return PATH


def _of_object(raw: Raw, at: int) -> Message:
    it = Members(raw, f"documents[{at}]")
    text = it.raw("text")
    if text is None or not is_string(text):
        return Message("user", (Opaque(FORMAT, _KIND, bytes(raw)),))
    return Message("user", (Text(it.need_string("text"), extra=it.extra()),))


def _written(message: Message) -> object:
    part = message.parts[0] if message.parts else Text("")
    if isinstance(part, Opaque):
        return Raw(part.data)
    text = "".join(each.text for each in message.parts if isinstance(each, Text))
    return text if message.brief or not isinstance(part, Text) else {"text": text, **part.extra}


CODEC: Final = RerankCodec()


# -- to providers


def texts_of_documents(request: RerankRequest, provider: str) -> tuple[list[str], tuple[Loss, ...]]:
    """Return the documents for a ``provider`` that ranks texts alone, and what becomes of the request by that."""
    losses = list(lost(request.extra, provider))
    texts = []
    for at, raw in enumerate(request.documents):
        text, whole = text_of_document(raw)
        texts.append(text)
        if not whole:
            losses.append(Loss("emulated", f"documents[{at}]", "an object", f"sent as text: {provider} ranks texts"))
    if request.returns:
        losses.append(Loss("emulated", "return_documents", "true", "the gateway puts the documents back"))
    return texts, tuple(losses)


def text_of_document(raw: Raw) -> tuple[str, bool]:
    """Return a document as a text, and whether that is all of it: ``{"text": …}`` is, of other objects it is their JSON."""
    if is_string(raw):
        return _TEXT.decode(raw), True
    members: Extra = OBJECT.decode(raw)
    text = members.get("text")
    if text is not None and is_string(text):
        return (_TEXT.decode(text), True) if len(members) == 1 else (bytes(raw).decode(), False)
    return bytes(raw).decode(), False


class Wire(Protocol):
    """How a provider of another shape is asked. ``most`` documents go in one request."""

    format: str
    most: int

    def encode_request(self, request: RerankRequest) -> Encoded:
        """Write a request."""
        ...

    def decode_response(self, body: bytes) -> RerankAnswer:
        """Read an answer. Raises Malformed."""
        ...


class SameRerank:
    """The service of a provider of the same shape: requests and answers pass as they are."""

    operation = FORMAT
    format = FORMAT

    def errand(self, body: bytes, model: str) -> Errand:
        """Return the request, read for the sake of those who sent a wrong one."""
        asked = read(body)
        if asked.model != model:
            body = CODEC.patch_request(body, CODEC.peek(body, RequestFacts()), model=model, stream_usage=False)
        count = len(asked.documents)

        def finish(bodies: Sequence[bytes]) -> Finished:
            body = bodies[0]
            told = read_answer(_ANSWER, body)
            results = told.results
            if results is None and told.data is not None:
                results, body = told.data, encode_json(_results_renamed(OBJECT.decode(body)))
            if results is None:
                raise Malformed("the provider's answer has no results")
            _check((each.index for each in results), count)
            usage = told.usage
            tokens = None if usage is None else usage.prompt_tokens or usage.total_tokens
            return Finished(body, None if tokens is None else Usage(input_tokens=tokens, uncached_input_tokens=tokens))

        return Errand((Encoded(body, PATH),), finish)


def _results_renamed(answer: dict[str, Raw]) -> dict[str, Raw]:
    return {"results" if name == "data" else name: raw for name, raw in answer.items() if name != "results"}


class Rerank:
    """The service of a provider with a ``wire`` of its own. Many documents are ranked in several requests: a score is that of
    one document, whatever others stand beside it."""

    operation = FORMAT

    def __init__(self, wire: Wire, most: int | None = None) -> None:
        self.format = wire.format
        self._wire = wire
        self._most = most or wire.most

    def errand(self, body: bytes, model: str) -> Errand:
        """Return the requests to the provider."""
        asked = replace(read(body), model=model)
        documents, most = asked.documents, self._most
        if len(documents) > most * MAX_CALLS:
            said = f"{len(documents)} are more than {most * MAX_CALLS}: this upstream takes {most} in a request, and a call is"
            raise DecodeError("documents", f"{said} split into {MAX_CALLS} at most", kind="too_large")
        starts = range(0, len(documents), most)
        requests = []
        for start in starts:
            part = asked if len(starts) == 1 else replace(asked, documents=documents[start : start + most])
            requests.append(self._wire.encode_request(part))

        def finish(bodies: Sequence[bytes]) -> Finished:
            answers = [self._wire.decode_response(body) for body in bodies]
            for start, answer in zip(starts, answers, strict=True):
                _check((each.index for each in answer.results), min(most, len(documents) - start))
            return _write_answer(asked, answers, starts)

        return Errand(tuple(requests), finish, tuple(dict.fromkeys(loss for each in requests for loss in each.losses)))


def _check(indexes: Iterable[int], count: int) -> None:
    """Raise Malformed where a place is none of the request's."""
    for index in indexes:
        if not 0 <= index < count:
            raise Malformed(f"the provider ranked document {index} of {count}")


def _write_answer(asked: RerankRequest, answers: Sequence[RerankAnswer], starts: Sequence[int]) -> Finished:
    """Write one answer, best first, no more than the caller wants."""
    ranked = [
        Ranked(start + each.index, each.score)
        for start, answer in zip(starts, answers, strict=True)
        for each in answer.results
    ]
    ranked.sort(key=lambda each: -each.score)  # stable: the earlier of equals first
    results: list[dict[str, object]] = []
    for each in ranked[: asked.top_n]:
        told: dict[str, object] = {"index": each.index, "relevance_score": each.score}
        if asked.returns:
            document = asked.documents[each.index]
            told["document"] = {"text": document} if is_string(document) else document
        results.append(told)
    body: dict[str, object] = {"id": answers[0].id} if answers[0].id else {}
    body.update({"model": asked.model, "results": results})
    counted = [answer.usage.input_tokens for answer in answers if answer.usage is not None]
    tokens = sum(each or 0 for each in counted) if len(counted) == len(answers) else None
    if tokens is not None:
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    units = [answer.search_units for answer in answers if answer.search_units is not None]
    if units:
        total = sum(units)
        body["meta"] = {"billed_units": {"search_units": int(total) if total == int(total) else total}}
    usage = None if tokens is None else Usage(input_tokens=tokens, uncached_input_tokens=tokens)
    return Finished(encode_json(body), usage)
