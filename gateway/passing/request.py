"""A request that is passed on: how it was asked, its body while it comes in, and where its model stands.

The first 64 KB of a body are held before a route is chosen. A request that fits there can be sent again; of any other no
byte is kept once it was sent.
"""

from __future__ import annotations

from typing import Final, Protocol
from urllib.parse import parse_qsl, quote, unquote

import msgspec
from msgspec import Struct

from ..errors import CallerError
from ..wire.members import BAD_JSON, encode_json
from ..wire.patch import set_member
from .model import in_form, in_json, json_string
from .paths import model_at, with_model

HEAD_BYTES: Final = 64 * 1024
"""What is held of a body."""


class Reader(Protocol):
    """What gives the rest of a body. ``count`` are the bytes it gave so far; ``begun``: it was asked for some."""

    begun: bool
    count: int

    async def read(self) -> bytes:
        """Return the next piece, b"" at the end. Raises CallerError for a body that is too large, late or broken off."""
        ...


class Upload(Struct, frozen=True, eq=False):
    """A body. ``length`` in bytes, None if nobody knows; ``reader`` gives what follows ``head``, None if nothing does."""

    head: bytes = b""
    reader: Reader | None = None
    length: int | None = 0

    @property
    def is_spent(self) -> bool:
        """Whether bytes are gone that cannot be sent again."""
        return self.reader is not None and self.reader.begun

    @property
    def received(self) -> int:
        """Bytes that came from the caller so far."""
        return len(self.head) + (0 if self.reader is None else self.reader.count)

    def with_head(self, head: bytes) -> Upload:
        """Return the body with another beginning."""
        length = None if self.length is None else self.length + len(head) - len(self.head)
        return Upload(head, self.reader, length)


class Line(Protocol):
    """A WebSocket to a provider, open. Messages are whole; pings are answered."""

    protocol: str | None
    """The subprotocol that the provider chose."""

    async def receive(self) -> tuple[bytes, bool] | None:
        """Return a message, and whether it is text; None once there is none. Raises UpstreamError if the line broke."""
        ...

    async def send(self, message: bytes, is_text: bool) -> None:
        """Send a message, when most of those before it are taken. Raises UpstreamError."""
        ...

    @property
    def ended(self) -> tuple[int, str]:
        """The provider's code and reason, once ``receive`` has returned None."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, in bounded time."""
        ...


class Socket:
    """What a caller asks of a WebSocket; ``line`` is the provider's end of it, as soon as an adapter has opened it."""

    __slots__ = ("line", "max_bytes", "protocols", "received")

    def __init__(self, protocols: tuple[str, ...], max_bytes: int) -> None:
        self.protocols = protocols
        self.max_bytes = max_bytes
        self.line: Line | None = None
        self.received = 0
        """Bytes that came from the caller so far."""


class Passed(Struct, frozen=True, eq=False):
    """A request as it came. ``path`` and ``query`` are encoded as the caller sent them, the path with its version.

    ``base`` is the URL under which the caller reaches the gateway. ``media_type`` is that of the body, in lower case,
    ``boundary`` that of a form.
    """

    method: str
    path: str
    query: str = ""
    upload: Upload = Upload()
    socket: Socket | None = None
    base: str = ""
    media_type: str = ""
    boundary: str = ""

    def __repr__(self) -> str:
        return f"Passed({self.method} {self.path})"  # the query may hold a key

    @property
    def received(self) -> int:
        """Bytes that came from the caller so far."""
        return self.upload.received if self.socket is None else self.socket.received

    @property
    def model(self) -> str:
        """The model that is asked for, where it stands in the path, the query, or among what is held of the body.

        Raises CallerError for a body that names two: rules would have seen the one, and the provider the other.
        """
        if model := model_at(self.path):
            return unquote(model)
        if self.socket is not None:
            return next((value for name, value in parse_qsl(self.query) if name == "model"), "")
        head = self.upload.head
        if self.media_type == "multipart/form-data":
            place = in_form(head, self.boundary)
            return "" if place is None else head[slice(*place)].decode("utf-8", "replace")
        if not self.media_type.endswith("json"):
            return ""
        place = in_json(head)
        first = "" if place is None else json_string(head[slice(*place)])
        if self.upload.reader is not None:
            return first
        model = json_model(head)
        if model and model != first:
            raise CallerError("the body names two models: send the member once", param="model")
        return model

    def renamed(self, model: str) -> Passed:
        """Return the request with another model in the place of its own; itself where it names none."""
        path, query, upload = self.path, self.query, self.upload
        if model_at(path):
            path = with_model(path, quote(model, safe=""))
        elif self.socket is not None:
            query = "&".join(
                f"model={quote(model, safe='')}" if is_named(each, "model") else each for each in query.split("&")
            )
        elif self.media_type == "multipart/form-data":
            if (place := in_form(upload.head, self.boundary)) is not None:
                upload = _put(upload, place, model.encode())
        elif self.model and upload.reader is None:
            upload = upload.with_head(set_member(upload.head, "model", encode_json(model)))
        elif self.model and (place := in_json(upload.head)) is not None:
            upload = _put(upload, place, encode_json(model))
        return msgspec.structs.replace(self, path=path, query=query, upload=upload)


class _Named(Struct):
    model: str = ""


_NAMED: Final = msgspec.json.Decoder(_Named)


def json_model(body: bytes) -> str:
    """Return the model that a JSON object names; "" where it names none."""
    try:
        return _NAMED.decode(body).model
    except BAD_JSON:
        return ""


def _put(upload: Upload, place: tuple[int, int], value: bytes) -> Upload:
    return upload.with_head(upload.head[: place[0]] + value + upload.head[place[1] :])


def is_named(parameter: str, *names: str) -> bool:
    """Whether a parameter of a query, as it is written there, has one of ``names``, in lower case."""
    return unquote(parameter.partition("=")[0].replace("+", " ")).lower() in names
