"""The wire facts of a request whose tokens are counted when a rule asks for them: what ``tokens: exact`` is made of.

Counting decodes the request, once, and only when a rule asks. What takes more than a few milliseconds is to be done off the
event loop: ``slow`` says so beforehand.
"""

from __future__ import annotations

from typing import Final

from .codecs.base import Codec, Peek, RequestFacts
from .errors import GatewayError
from .facts import WireFacts
from .ir.message import Request
from .tokens import Tally, tally
from .vocabulary import is_loaded

QUICK_BYTES: Final = 4096
"""A body above this may take longer: 10 KB of prose are 1 ms with the fastest vocabulary, 20 ms with the slowest."""


class CountedFacts(WireFacts):
    """Facts whose ``tokens`` come from a tokenizer. A request that cannot be decoded has those of its size, as ever.

    ``counted`` is how it was counted, None as long as nobody asked, or where the size stands in.
    """

    __slots__ = ("_codec", "_tokens", "counted", "request")

    def __init__(self, codec: Codec, peek: Peek, facts: RequestFacts, body: bytes) -> None:
        self._tokens: int | None = None
        super().__init__(codec.format, peek, facts, body)
        self._tokens = None  # until a rule asks
        self._codec = codec
        self.counted: Tally | None = None
        self.request: Request | None = None
        """The request, once it was decoded for counting."""

    @property
    def slow(self) -> bool:
        """Whether to ask for ``tokens`` now may hold the event loop for more than a few milliseconds."""
        return self._tokens is None and (len(self._body) > QUICK_BYTES or not is_loaded(self.model))

    @property
    def tokens(self) -> int:
        """The tokens of the request as the model that the caller named reads it. Raises NoTokenizer."""
        if self._tokens is None:
            self._tokens = self._count()
        return self._tokens

    @tokens.setter
    def tokens(self, value: int) -> None:
        self._tokens = value

    @property
    def exact_tokens(self) -> int | None:
        """What ``tokens`` was, once a rule asked."""
        return self._tokens

    def _count(self) -> int:
        facts = RequestFacts(self.path, self.query, self.headers)
        try:
            self.request = request = self._codec.decode_request(self._body, facts)
        except GatewayError:  # whether to refuse it is not for a rule about its size to say
            return self.by_size
        self.counted = found = tally(request, self.model)
        return found.tokens
