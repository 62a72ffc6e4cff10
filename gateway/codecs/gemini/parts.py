"""Parts of contents into the IR: the one reader for requests and answers.

Source: ``Part`` of the API reference and of google-genai 3.4. A part that has no word in the IR (``executableCode``,
``codeExecutionResult``, ``toolCall``, whatever is added) becomes ``Opaque``, verbatim. A ``thoughtSignature`` stays on the
part that it came on: it proves that very part. One that came alone, on an empty text, is ``Opaque`` too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from msgspec import Raw

from ...errors import DecodeError
from ...ir.message import Media, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from ...wire.members import NULL
from .blobs import standard
from .members import FORMAT, SIGNATURE, Fields, is_object, text_of

_KINDS: Final = (
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
)
"""Members that say what a part is; exactly one of them should be there."""
_HERE: Final = "https://generativelanguage.googleapis.com/"
AS_IS: Final = "functionResponse.response"
"""With the value null in the extra of a result: its text is the whole JSON object, not the words of ``output``."""

NAMELESS: Final = "functionResponse.name"
"""With the value null in the extra of a result: it has no name, though its call has one."""


def read_part(raw: Raw, path: str, *, answered: bool = False) -> Part:
    """Return what one part says, ``answered`` by a provider. Raises DecodeError with a path below ``path``."""
    it = Fields(raw, path)
    kinds = [name for name in _KINDS if it.raw(name) is not None]
    if len(kinds) != 1:
        name = next((name for name in it.rest if name != SIGNATURE), SIGNATURE)
        return Opaque(FORMAT, kinds[0] if kinds else name, bytes(raw))
    if answered and kinds[0] == "functionCall" and _is_last_fragment(it):
        return Opaque(FORMAT, kinds[0], bytes(raw))
    read = _READERS.get(kinds[0])
    part = read(it) if read is not None else None
    if part is not None:
        return part
    return Opaque(FORMAT, SIGNATURE if kinds[0] == "text" else kinds[0], bytes(raw))


def _text(it: Fields) -> Text | Reasoning | None:
    text = it.string("text") or ""
    thought = it.raw("thought")
    if thought is not None and bytes(thought) == b"true":
        it.take("thought")
        signature = it.string(SIGNATURE)
        return Reasoning(text, signature, origin=FORMAT, extra=it.extra())
    if not text and it.raw(SIGNATURE) is not None:
        return None
    _one_spelling(it)
    return Text(text, extra=it.extra())


def _function_call(it: Fields) -> ToolCall | None:
    call = it.need_object("functionCall")
    if call.raw("partialArgs") is not None or call.raw("willContinue") is not None:
        # Vertex AI's fragments of arguments, sent to those who asked for them: no call that could be run.
        return None
    id, name = call.string("id"), call.need_string("name")
    arguments = ""
    if (args := call.take("args")) is not None:
        if not is_object(args):
            raise DecodeError(call.at("args"), "expected an object")
        arguments = text_of(args, call.at("args"))
    it.adopt("functionCall", call)
    _one_spelling(it)
    return ToolCall(id or "", name, arguments, extra=it.extra())


def _is_last_fragment(it: Fields) -> bool:
    """Whether a call says nothing but that it is whole now: how Vertex AI ends one that it told in fragments."""
    call = it.raw("functionCall")
    return call is not None and is_object(call) and not Fields(call, "").rest.keys() - {"id"}


def _function_response(it: Fields) -> ToolResult:
    answer = it.need_object("functionResponse")
    id, name = answer.string("id"), answer.string("name")
    content: list[Text | Media | Opaque] = []
    is_error = False
    if (response := answer.take("response")) is not None:
        words, is_error = _words(response, answer)
        if words is None:
            words = text_of(response, answer.at("response"))
            it.rest[AS_IS] = NULL
        content.append(Text(words))
    for j, raw in enumerate(answer.array("parts") or ()):
        part = read_part(raw, answer.at(f"parts[{j}]"))
        content.append(part if isinstance(part, (Text, Media, Opaque)) else Opaque(FORMAT, "part", bytes(raw)))
    it.adopt("functionResponse", answer)
    _one_spelling(it)
    return ToolResult(id or "", tuple(content), is_error, name, extra=it.extra())


def _words(response: Raw, answer: Fields) -> tuple[str | None, bool]:
    """The text that a ``response`` holds under the one name that the API gives meaning to; whether it tells an error."""
    if not is_object(response):
        raise DecodeError(answer.at("response"), "expected an object")
    it = Fields(response, answer.at("response"))
    if len(it.rest) == 1:
        for name in ("output", "error"):
            raw = it.rest.get(name)
            if raw is not None and bytes(raw)[:1] == b'"':
                return it.need_string(name), name == "error"
    return None, False


def _inline_data(it: Fields) -> Media | None:
    if (thought := it.raw("thought")) is not None and bytes(thought) == b"true":
        return None  # a sketch on the way to the answer
    blob = it.need_object("inlineData")
    media_type = blob.string("mimeType")
    (data, spelling), name = standard(blob.need_string("data")), blob.string("displayName")
    it.adopt("inlineData", blob)
    it.rest.update(spelling)
    _one_spelling(it)
    return Media(media_kind(media_type), media_type, data=data, name=name, extra=it.extra())


def _file_data(it: Fields) -> Media:
    file = it.need_object("fileData")
    media_type = file.string("mimeType")
    uri, name = file.need_string("fileUri"), file.string("displayName")
    it.adopt("fileData", file)
    _one_spelling(it)
    kind = media_kind(media_type)
    # Files that were uploaded to Google are nobody else's to read.
    if uri.startswith(("gs://", "files/", _HERE)):
        return Media(kind, media_type, file_id=uri, name=name, extra=it.extra())
    return Media(kind, media_type, uri=uri, name=name, extra=it.extra())


def media_kind(media_type: str | None) -> Literal["image", "audio", "document", "video"]:
    """What a MIME type is a type of."""
    match (media_type or "").partition("/")[0].lower():
        case "image":
            return "image"
        case "audio":
            return "audio"
        case "video":
            return "video"
    return "document"


_READERS: Final[Mapping[str, Callable[[Fields], Part | None]]] = {
    "text": _text,
    "functionCall": _function_call,
    "functionResponse": _function_response,
    "inlineData": _inline_data,
    "fileData": _file_data,
}


def _one_spelling(it: Fields) -> None:
    """Keep a signature under one name, however it was spelled."""
    if (raw := it.take(SIGNATURE)) is not None:
        it.rest[SIGNATURE] = raw
