"""When to read the rules again: a file they were made of has changed and come to rest, or somebody asked.

It looks at the files now and then instead of being told by the system: that works for a file that is replaced by renaming,
for one behind a link that is turned to another directory (as Kubernetes does with ConfigMaps), and on network file systems.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

SETTLE_S: Final = 0.1
"""Two looks so far apart must see the same: else somebody is still writing."""
SETTLE_LOOKS: Final = 20
"""After so many, what is there counts, at rest or not: a file may be gone for good, or be written to all the time."""
_FRESH_S: Final = 2.0
"""A file that was changed so lately may change again without another time stamp: coarse clocks tick that slowly."""
_TICK_S: Final = 0.02
"""How far the clock of time stamps may lag."""
_UNKNOWN: Final = b""

Looks = Mapping[Path, bytes | None]
"""A digest of what each file says, of a directory's names; None: it is not there."""


class Watch:
    """Looks after the files of a rule file. Not the files themselves but what they say counts: saving alone is no change."""

    def __init__(self, sources: Iterable[Path], began_unix: float) -> None:
        """Begin with rules that are made of ``sources`` and were read from ``began_unix`` on."""
        self._known: dict[Path, tuple[tuple[int, ...], bytes]] = {}
        self._seen: Looks = {path: self._digest_since(path, began_unix) for path in sources}
        self._stir = asyncio.Event()
        self._asked = False

    async def look(self, paths: Iterable[Path] | None = None) -> Looks:
        """Return what the files say now."""
        paths = tuple(self._seen if paths is None else paths)
        return await asyncio.to_thread(lambda: {path: self._digest(path) for path in paths})

    async def took(self, looks: Looks, sources: Iterable[Path], began_unix: float) -> None:
        """Note that the rules were read, at ``began_unix`` and after ``looks``, and that they are made of ``sources``."""
        sources = tuple(dict.fromkeys(sources))
        new = [path for path in sources if path not in looks]
        later = await asyncio.to_thread(lambda: {path: self._digest_since(path, began_unix) for path in new})
        self._seen = {path: looks[path] if path in looks else later[path] for path in sources}
        self._known = {path: known for path, known in self._known.items() if path in self._seen}
        self._stir.set()

    def ask(self) -> None:
        """Have the rules read again, changed or not."""
        self._asked = True
        self._stir.set()

    async def due(self, every_s: Callable[[], float | None]) -> None:
        """Return when the rules should be read again. ``every_s`` seconds lie between looks; None: never look."""
        while True:
            try:
                async with asyncio.timeout(every_s()):
                    await self._stir.wait()
            except TimeoutError:
                if await self._changed():
                    return
            else:
                self._stir.clear()
                if self._asked:
                    self._asked = False
                    return

    async def _changed(self) -> bool:
        looks = await self.look()
        if looks == self._seen:
            return False
        for _ in range(SETTLE_LOOKS):
            await asyncio.sleep(SETTLE_S)
            before, looks = looks, await self.look()
            gone = any(looks[path] is None and self._seen.get(path) is not None for path in looks)
            if looks == before and not gone:
                break
        return looks != self._seen

    def _digest_since(self, path: Path, began_unix: float) -> bytes | None:
        """Return the digest of a file that was read already, unless it may have changed after that."""
        digest = self._digest(path)
        try:
            return _UNKNOWN if path.stat().st_mtime > began_unix - _TICK_S else digest
        except OSError:
            return None

    def _digest(self, path: Path) -> bytes | None:
        """Return what stands for the file's content. It is read anew only if its stat differs, or is too fresh to tell."""
        try:
            state = path.stat()
            mark = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
            known = self._known.get(path)
            if known is not None and known[0] == mark:
                return known[1]
            digest = hashlib.blake2b(_content(path, state.st_mode), digest_size=16).digest()
        except OSError:
            return None
        if time.time() - max(state.st_mtime, state.st_ctime) > _FRESH_S:
            self._known[path] = mark, digest
        return digest


def _content(path: Path, mode: int) -> bytes:
    if stat.S_ISREG(mode):
        return path.read_bytes()
    if stat.S_ISDIR(mode):  # as a glob sees it: hidden names, which many editors give their own files, are none
        return "\0".join(sorted(name for name in os.listdir(path) if not name.startswith("."))).encode(
            errors="surrogateescape"
        )
    return b"?"  # a pipe can be read once
