"""OpenAI's moderations: requests and answers pass as they are, since no other provider has anything like them.

Source: ``CreateModerationRequest`` in OpenAI's API description: ``input`` is a text, texts, or parts of ``text`` and
``image_url``; without a model ``omni-moderation-latest`` is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...errors import DecodeError
from ...ir.message import Media, Message, Opaque, Part, Request, Text
from ...wire.members import ARRAY, Members, is_string, put_extra, string_of
from ..base import Encoded, RequestFacts, UpstreamFacts
from .base import Errand, Finished, OperationCodec, read_answer, read_request, write_members

FORMAT: Final = "openai.moderations"
PATH: Final = "/moderations"
_PARTS: Final = {"kept.parts": Raw(b"true")}
"""Marks a message whose parts stood in a list of parts: a list of one text is another thing than one text."""


class _Answer(Struct):
    results: list[Raw]


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class ModerationsCodec(OperationCodec):
    """The caller's side."""

    format = FORMAT
    default_model = "omni-moderation-latest"

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        """Each text is a message; parts are those of one."""
        return read_request(body, self._read)

    def _read(self, it: Members) -> Request:
        model = it.string("model") or self.default_model or ""
        return Request(FORMAT, model, _messages(it.take("input")), extra=it.extra())

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        """Write what ``decode_request`` read, whatever became of the texts."""
        messages = request.messages
        given: object
        if len(messages) == 1 and not messages[0].brief:
            given = [_part(part) for part in messages[0].parts] if messages[0].extra else [_text(messages[0])]
        else:
            texts = [_text(message) for message in messages]
            given = texts[0] if len(texts) == 1 else texts
        return Encoded(write_members({"model": request.model, "input": given}, request.extra), PATH)

    def request_path(self, model: str, stream: bool) -> str:
        return PATH


def _messages(raw: Raw | None) -> tuple[Message, ...]:
    if raw is None:
        raise DecodeError("input", "expected a string, an array of strings, or of parts, but it is missing")
    if is_string(raw):
        return (Message("user", (Text(string_of(raw, "input")),), brief=True),)
    if bytes(memoryview(raw)[:1]) != b"[":
        raise DecodeError("input", "expected a string, an array of strings, or of parts")
    items = ARRAY.decode(raw)
    if not items:
        raise DecodeError("input", "expected at least one input")
    if all(map(is_string, items)):
        return tuple(Message("user", (Text(string_of(each, f"input[{at}]")),)) for at, each in enumerate(items))
    return (Message("user", tuple(_read_part(each, f"input[{at}]") for at, each in enumerate(items)), extra=_PARTS),)


def _read_part(raw: Raw, path: str) -> Part:
    it = Members(raw, path)
    kind = it.need_string("type")
    if kind == "text":
        return Text(it.need_string("text"), extra=it.extra())
    if kind == "image_url":
        image = it.need_object("image_url")
        uri = image.need_string("url")
        it.adopt("image_url", image)
        return Media("image", uri=uri, extra=it.extra())
    return Opaque(FORMAT, kind, bytes(raw))


def _part(part: Part) -> object:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text, **part.extra}
    if isinstance(part, Media):
        url = part.uri if part.data is None else f"data:{part.media_type};base64,{part.data}"
        value: dict[str, object] = {"type": "image_url", "image_url": {"url": url}}
        put_extra(value, part.extra)
        return value
    assert isinstance(part, Opaque)
    return Raw(part.data)


def _text(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, Text))


CODEC: Final = ModerationsCodec()


class Moderations:
    """The service of OpenAI, and of providers that serve the same."""

    operation = FORMAT
    format = FORMAT

    def errand(self, body: bytes, model: str) -> Errand:
        """Return the request, read for the sake of those who sent a wrong one."""
        CODEC.decode_request(body, RequestFacts())
        peek = CODEC.peek(body, RequestFacts())
        body = CODEC.patch_request(body, peek, model=model, stream_usage=False)

        def finish(bodies: Sequence[bytes]) -> Finished:
            read_answer(_ANSWER, bodies[0])
            return Finished(bodies[0])

        return Errand((Encoded(body, PATH),), finish)
