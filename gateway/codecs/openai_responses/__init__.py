"""OpenAI's Responses API, ``openai.responses``: requests, whole answers, streams and errors, for clients and providers.

``request_reader`` and ``request_writer`` read and write requests, ``item_reader`` and ``item_writer`` their input items;
``response`` whole answers, ``stream_decoder`` (frames) with ``event_reader`` (their meaning) and ``stream_encoder`` streamed
ones. What both have in common: ``output_reader``; ``output_writer``, with ``envelope`` and ``output_items`` for what it
writes. State (``store``, ``previous_response_id``, ``conversation``, ``item_reference``) is carried, not
kept: whoever keeps it works above the codec.
"""

from __future__ import annotations

from typing import Final

from ..base import Codec
from .codec import OpenAIResponses

CODEC: Final[Codec] = OpenAIResponses()

__all__ = ["CODEC", "OpenAIResponses"]
