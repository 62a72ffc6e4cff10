"""Media by URL, put into a request as bytes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final, Literal

from msgspec.structs import replace

from ..codecs.ledger import in_the_callers_words
from ..errors import CallerError
from ..ir.loss import Loss
from ..ir.message import Media, Message, Opaque, Part, Request, Text, ToolResult
from ..transport.fetch import Fetched, NotFetched, fetch, is_fetchable
from .options import FetchRules

Kind = Literal["image", "audio", "document", "video"]

MAX_FILES: Final = 16
"""Files that are fetched for one request; a URL that stands there twice counts once."""
_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("image/",),
    "audio": ("audio/",),
    "video": ("video/",),
    "document": ("application/pdf", "text/"),
}


def places(request: Request, kinds: Collection[str], rules: FetchRules) -> dict[str, tuple[str, Media]]:
    """Return the URLs that will be fetched, each with the first place where it stands, and what stands there."""
    found: dict[str, tuple[str, Media]] = {}

    def note(media: Media, path: str) -> Media:
        uri = media.uri
        if uri is not None and media.kind in kinds and is_fetchable(uri, rules):
            found.setdefault(uri, (path, media))
        return media

    _changed(request, note)
    return found


def losses(request: Request, wanted: Mapping[str, tuple[str, Media]]) -> tuple[Loss, ...]:
    """Return what the ledger says of files that are fetched."""
    why = "fetched by the gateway: the provider takes no address"
    return in_the_callers_words(request, [Loss("emulated", path, media.kind, why) for path, media in wanted.values()])


def shown(request: Request, wanted: Mapping[str, tuple[str, Media]]) -> Request:
    """Return the request as it will be but for the files, which nobody is asked for: their data says so."""
    stand_in = base64.b64encode(b"(fetched when the call is made)").decode("ascii")
    return replace(request, messages=_changed(request, partial(_stand_in, wanted, stand_in)))


async def inlined(request: Request, wanted: Mapping[str, tuple[str, Media]], rules: FetchRules) -> Request:
    """Return the request with the files of ``wanted`` in it. Raises CallerError, by path, for one that cannot be had."""
    if len(wanted) > MAX_FILES:
        raise CallerError(f"the request gives more than {MAX_FILES} files by URL: send them as data")
    fetched: dict[str, Media] = {}
    for uri, (path, media) in wanted.items():
        try:
            file = await fetch(uri, rules)
            fetched[uri] = _with(media, file)
        except NotFetched as fault:
            (told,) = in_the_callers_words(request, (Loss("lost", path, media.kind, str(fault)),))
            said = f"{told.path}: the {media.kind} could not be fetched: {fault}"
            raise CallerError(said, param=told.path) from fault

    def put(media: Media, path: str) -> Media:
        file = None if media.uri is None else fetched.get(media.uri)
        if file is None or file.kind != media.kind:
            return media
        return replace(media, data=file.data, uri=None, media_type=file.media_type)

    return replace(request, messages=_changed(request, put))


def _with(media: Media, file: Fetched) -> Media:
    media_type = _sniffed(file.data) or file.media_type
    if not media_type.startswith(_TYPES[media.kind]):
        raise NotFetched(f"its server says that it is {file.media_type or 'nothing it has a name for'}")
    return replace(media, data=base64.b64encode(file.data).decode("ascii"), uri=None, media_type=media_type)


def _stand_in(wanted: Collection[str], data: str, media: Media, path: str) -> Media:
    return replace(media, data=data, uri=None) if media.uri in wanted else media


def _sniffed(data: bytes) -> str | None:
    """Return what the first bytes of a file say it is, where they do: servers call many an image application/octet-stream."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "application/pdf" if data.startswith(b"%PDF-") else None


def _changed(request: Request, change: Callable[[Media, str], Media]) -> tuple[Message, ...]:
    """Return the messages with each Media what ``change`` makes of it, given its place in the IR."""
    return tuple(
        replace(
            message,
            parts=tuple(_part(part, f"messages[{i}].content[{j}]", change) for j, part in enumerate(message.parts)),
        )
        for i, message in enumerate(request.messages)
    )


def _part(part: Part, path: str, change: Callable[[Media, str], Media]) -> Part:
    if isinstance(part, Media):
        return change(part, path)
    if isinstance(part, ToolResult) and any(isinstance(each, Media) for each in part.content):
        inner: list[Text | Media | Opaque] = [
            change(each, f"{path}.content[{k}]") if isinstance(each, Media) else each
            for k, each in enumerate(part.content)
        ]
        return replace(part, content=tuple(inner))
    return part
