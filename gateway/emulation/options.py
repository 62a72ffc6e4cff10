"""What an upstream may say under ``emulate``: one key for each thing that its provider lacks."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

Way = Literal["tool", "instruction"]

MOST_CHOICES: Final = 8
"""Calls that ``n: fan_out`` makes for one request at most. Each of them is paid in full, the prompt included."""


class Emulate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the gateway stands in for, since the provider lacks it. Requests that do not ask for it pass as ever."""

    structured_output: Way | None = None
    """How JSON is had where a request wants it (``response_format``): ``tool``, a tool that the model must call;
    ``instruction``, words in the system prompt. The answer is checked against the schema, and once sent back to be mended.
    Needs the extra ``structured``."""
    n: Literal["fan_out"] | Annotated[int, Meta(ge=2, le=128)] | None = None
    """``fan_out``: a request for n choices becomes n calls at the same time, at most 8; a number: at most so many."""
    stream: Literal["tell", "gather"] | None = None
    """``tell``: the provider never streams, so its whole answer is told as a stream. ``gather``: it only streams, so a whole
    answer is gathered from that."""
    usage_every_chunk: bool = False
    """Every chunk of a stream carries usage so far, where the caller asks for usage in its stream. What the provider has not
    told yet is estimated, and marked."""
    media_urls: Literal["fetch"] | None = None
    """``fetch``: the provider takes images and files as data alone, so those given by URL are fetched, as ``media.fetch``
    allows. An adapter whose provider never takes a URL does so by itself."""

    @property
    def most_choices(self) -> int | None:
        """How many calls a request may become; None: it is left alone."""
        return MOST_CHOICES if self.n == "fan_out" else self.n
