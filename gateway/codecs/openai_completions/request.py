"""A client's request to the legacy Completions into the IR: the prompt is one thing said by a user.

Several prompts, and prompts of token ids, are an Opaque part: they go to a provider of this format as they came, and every
other format refuses them, naming ``prompt``. How something was spelled is remembered by a null in an ``extra``: ``stop``
(a string).

Source: ``CompletionCreateParams`` of OpenAI's SDK 3.52.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from ...errors import DecodeError
from ...ir.message import Message, Opaque, Request, Text
from ...wire.members import BAD_JSON, Members, is_string, string_of, why
from ..openai_request import read_stop, read_stream_options
from .words import FORMAT

_FALSE: Final = Raw(b"false")
_STRINGS: Final = msgspec.json.Decoder(list[str])
_INTS: Final = msgspec.json.Decoder(list[int])
_LISTS: Final = msgspec.json.Decoder(list[list[int]])


def decode_request(body: bytes) -> Request:
    """Read a request body. Raises DecodeError with the path of what is wrong."""
    it = Members(body, "")
    model = it.need_string("model")
    messages = _prompt(it)
    asked = it.integer("logprobs")
    stream_usage = read_stream_options(it)
    return Request(
        FORMAT,
        model,
        messages,
        max_output_tokens=it.integer("max_tokens"),
        temperature=it.number("temperature"),
        top_p=it.number("top_p"),
        top_k=it.integer("top_k"),
        stop=read_stop(it),
        seed=it.integer("seed"),
        n=it.integer("n"),
        frequency_penalty=it.number("frequency_penalty"),
        presence_penalty=it.number("presence_penalty"),
        logit_bias=None if (bias := it.take("logit_bias")) is None else bytes(bias),
        logprobs=None if asked is None else True,
        top_logprobs=asked,
        stream=it.rest.get("stream") != _FALSE and bool(it.boolean("stream")),
        stream_usage=stream_usage,
        user=it.string("user"),
        extra=it.extra(),
    )


def _prompt(it: Members) -> tuple[Message, ...]:
    raw = it.take("prompt")
    if raw is None:
        return ()
    if is_string(raw):
        return (Message("user", (Text(string_of(raw, "prompt")),), brief=True),)
    kind = "several prompts"
    try:
        texts = _STRINGS.decode(raw)
        if not texts:
            it.rest["prompt"] = raw
            return ()
        if len(texts) == 1:
            return (Message("user", (Text(texts[0]),)),)
    except BAD_JSON as error:
        if not _is_tokens(raw):
            what = "a string, an array of strings, or token ids"
            raise DecodeError("prompt", why(error, what)) from error
        kind = "token ids"
    return (Message("user", (Opaque(FORMAT, kind, bytes(raw)),)),)


def _is_tokens(raw: Raw) -> bool:
    for decoder in (_INTS, _LISTS):
        try:
            decoder.decode(raw)
        except BAD_JSON:
            continue
        return True
    return False
