"""Bytes of a Chat Completions stream into chunks: what both Completions APIs have in common, with this one's reader."""

from __future__ import annotations

from typing import Final

from ...ir.event import Wire
from ..base import MAX_FRAME_BYTES
from ..openai_stream import DoneStreamDecoder
from .answer_reader import AnswerReader
from .members import FORMAT

STREAMED: Final = Wire(FORMAT, "sse")


class ChatStreamDecoder(DoneStreamDecoder):
    """One stream."""

    __slots__ = ()

    def __init__(self, *, hide_usage: bool = False, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        super().__init__(STREAMED, AnswerReader(), hide_usage=hide_usage, max_frame_bytes=max_frame_bytes)
