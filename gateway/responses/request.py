"""What a request says of state, and the same request written out so that it needs none."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ..errors import DecodeError
from ..wire.members import ARRAY, BAD_JSON, NULL, OBJECT, encode_json, fault, is_string, why
from ..wire.patch import set_member
from .errors import not_served

_CARRIED: Final = re.compile(rb'"encrypted_content"\s*:\s*"(?:signed|redacted):')
"""How the codec of this format carries what another one signed. Within a text the quotes would be escaped."""


class Asked(Struct, frozen=True):
    """The members that concern state. ``store`` is true where nothing is said, as it is at OpenAI."""

    previous_response_id: str | None = None
    store: bool | None = None
    background: bool | None = None
    conversation: Raw = NULL
    input: Raw = NULL
    reasoning: Raw = NULL
    include: Raw = NULL

    @property
    def stores(self) -> bool:
        """Whether the answer may be kept."""
        return self.store is not False


class _Reasoning(Struct):
    effort: str | None = None


_DECODER: Final = msgspec.json.Decoder(Asked)
_REASONING: Final = msgspec.json.Decoder(_Reasoning)
_INCLUDE: Final = msgspec.json.Decoder(list[str] | None)
_ENCRYPTED: Final = "reasoning.encrypted_content"


def read_asked(body: bytes) -> Asked:
    """Return what ``body`` asks for. Raises DecodeError, Unsupported for what is not served (501)."""
    try:
        asked = _DECODER.decode(body)
    except BAD_JSON as error:
        raise fault(error) from error
    if asked.conversation != NULL:
        if asked.previous_response_id is not None:
            raise DecodeError("conversation", "cannot stand beside previous_response_id")
        raise not_served("conversation", "conversations are not kept here: use previous_response_id")
    if asked.background:
        raise not_served(
            "background", "nothing runs in the background here: ask without it, with stream if it takes long"
        )
    return asked


def items_of(asked: Asked) -> tuple[Raw, ...]:
    """Return the input as items; a plain text is what the user says. Raises DecodeError."""
    if asked.input == NULL:
        return ()
    if is_string(asked.input):
        return (Raw(b'{"role":"user","content":%b}' % bytes(asked.input)),)
    try:
        return tuple(ARRAY.decode(asked.input))
    except BAD_JSON as error:
        raise DecodeError("input", why(error, "a string or an array of items")) from error


def write_out(body: bytes, items: tuple[Raw, ...]) -> bytes:
    """Return ``body`` with ``items`` as its input and without ``previous_response_id``; the rest as it came."""
    members = OBJECT.decode(body)
    members.pop("previous_response_id", None)
    members["input"] = Raw(b"[%b]" % b",".join(map(bytes, items)))
    return encode_json(members)


def with_encrypted_reasoning(body: bytes, asked: Asked) -> bytes:
    """Return ``body``, asking for encrypted reasoning besides if the provider is to store nothing, but to reason.

    What nobody stored can be given back so alone. Models without reasoning refuse to be asked.
    """
    if asked.stores or asked.reasoning == NULL:
        return body
    try:
        effort, include = _REASONING.decode(asked.reasoning).effort, _INCLUDE.decode(asked.include) or []
    except BAD_JSON:  # which the provider, or the codec, says
        return body
    if effort == "none" or _ENCRYPTED in include:
        return body
    return set_member(body, "include", encode_json([*include, _ENCRYPTED]))


def carries_foreign_reasoning(body: bytes) -> bool:
    """Whether ``body`` brings back what another format signed: no provider of this format may be sent it as it is."""
    return b'"encrypted_content"' in body and _CARRIED.search(body) is not None
