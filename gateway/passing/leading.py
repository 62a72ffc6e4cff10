"""Addresses in a provider's answers that would lead a client past the gateway, with its key: they are made to lead back.

Anthropic's batches say where their results are, and its SDK goes there as it is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from ..errors import UpstreamError
from ..ir.event import Chunk, Wire
from ..wire.members import encode_json

_LONGEST: Final = 4096
"""Bytes of a member that are waited for: what is longer is no address, and passes as it came."""


def led_back(url: str, root: str, base: str) -> str | None:
    """Return ``url``, which a provider at ``root`` hands out, as one of the gateway at ``base``; None if it leads elsewhere.

    A path alone stays one.
    """
    if url.startswith("/") and not url.startswith("//"):
        prefix, below = urlsplit(root).path, urlsplit(base).path
        return below + (url.removeprefix(prefix) if url.startswith(prefix + "/") else url)
    return base + url.removeprefix(root) if url.startswith(root + "/") else None


class Leading:
    """Passes JSON on, but for the value of each ``member``, an address that ``lead`` says anew. A Decoder."""

    def __init__(self, member: str, lead: Callable[[str], str], wire: Wire) -> None:
        self.error: UpstreamError | None = None
        self._name = encode_json(member)
        name = re.escape(self._name)
        self._whole = re.compile(name + rb'(\s*:\s*)"([^"\\]*)"')
        self._begun = re.compile(name + rb'\s*(?::\s*(?:"[^"\\]*)?)?')
        self._lead = lead
        self._wire = wire
        self._held = b""

    def feed(self, data: bytes) -> Chunk | None:
        """Return what is sure; at most a member is held."""
        data, self._held = self._held + data, b""
        done, at = [], 0
        while (found := data.find(self._name, at)) >= 0:
            whole = self._whole.match(data, found)
            if whole is not None:
                url = self._lead(whole[2].decode("utf-8", "replace"))
                done += [data[at:found], self._name, whole[1], encode_json(url)]
                at = whole.end()
                continue
            if len(data) - found < _LONGEST and self._begun.fullmatch(data, found):
                break
            done.append(data[at : found + len(self._name)])
            at = found + len(self._name)
        else:
            found = max(at, len(data) - len(self._name) + 1)
        done.append(data[at:found])
        self._held = data[found:]
        return Chunk((), b"".join(done), self._wire) if any(done) else None

    def close(self) -> Chunk | None:
        """Return what was held."""
        held, self._held = self._held, b""
        return Chunk((), held, self._wire) if held else None
