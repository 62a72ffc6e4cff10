"""Frames that say more of the open part and nothing besides: what most frames of most streams are.

They tell the usage so far, too, and repeat the envelope.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ...wire.members import NULL


class _Part(Struct, forbid_unknown_fields=True, gc=False):
    text: str
    thought: bool | UnsetType = UNSET


class _Content(Struct, forbid_unknown_fields=True, gc=False):
    parts: tuple[_Part]
    role: str = ""


class _Candidate(Struct, forbid_unknown_fields=True, gc=False):
    content: _Content
    index: int = 0


class _More(Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """The order is Google's, since the decoder looks for the next member first."""

    candidates: tuple[_Candidate]
    usage_metadata: Raw = NULL
    model_version: str = ""
    create_time: str = ""
    response_id: str = ""


MORE: Final = msgspec.json.Decoder(_More)
