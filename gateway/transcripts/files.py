"""Lines in files of one directory, together no larger than ``max_size``, none older than ``keep``. Written by a thread.

Each process writes files of its own, named after the time they were begun, so that workers share the directory. Whoever
begins a file removes what is too old or too much. A disk that does not keep up, or is full, costs lines, not calls.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Final, Protocol

_log: Final = logging.getLogger("headgate.log")
MAX_WAITING: Final = 32 * 1024 * 1024
"""Bytes that may wait for the thread."""
PARTS: Final = 10
"""A file is at most this part of ``max_size``."""
SUFFIX: Final = ".jsonl"
_PREFIX: Final = "bodies-"
_LONGEST_S: Final = 86400.0


class Writable(Protocol):
    """Something that becomes a line later. ``size`` are the bytes that it holds meanwhile."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def line(self) -> bytes:
        """Return the line."""
        ...


class Files:
    """Takes what is to be written, and never blocks. ``clock`` is the wall's, in seconds."""

    def __init__(self, directory: Path, max_size: int, keep_s: float, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._max_size = max_size
        self._keep_s = keep_s
        self._clock = clock
        self._queue: SimpleQueue[tuple[Writable, int] | None] = SimpleQueue()
        self._put = 0
        self._done = 0
        self._lost = 0
        self._thread: threading.Thread | None = None
        self._file: BinaryIO | None = None
        self._began = 0.0
        self._size = 0
        self._count = 0
        self._failed = False

    def start(self) -> None:
        """Make the directory, readable for its owner alone, and begin. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()
        self._thread = threading.Thread(target=self._run, name="headgate-bodies", daemon=True)
        self._thread.start()

    def put(self, entry: Writable) -> None:
        """Write a line, soon. One for which there is no room is lost, and that is said when the next is written."""
        size = entry.size
        if self._thread is None or self._put - self._done > MAX_WAITING:
            self._lost += 1
            return
        self._put += size
        self._queue.put((entry, size))

    def stop(self) -> None:
        """Write what waits, and close. Blocks as long as that takes."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            entry, size = item
            try:
                self._write(entry.line())
                self._failed = False
            except OSError as fault:
                self._lost += 1
                if not self._failed:  # once, not with every call
                    _log.error("bodies are lost: cannot write in %s: %s", self._directory, fault)
                self._failed = True
            except Exception as fault:
                # What a body may hold is the world's: one that cannot be written must not end the thread.
                _log.error("a body is lost: it cannot be written (%s)", type(fault).__name__)
            self._done += size
            if self._lost and not self._failed:
                lost, self._lost = self._lost, 0
                _log.warning("%d bodies are lost: they came faster than they could be written", lost)

    def _write(self, line: bytes) -> None:
        part = max(self._max_size // PARTS, 1)
        if self._file is None or (self._size and self._size + len(line) > part) or self._is_old():
            self._open()
        assert self._file is not None
        self._file.write(line)
        self._size += len(line)

    def _is_old(self) -> bool:
        return bool(self._size) and self._clock() - self._began > min(self._keep_s / 2, _LONGEST_S)

    def _open(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._began, self._size = self._clock(), 0
        self._count += 1
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._began))
        path = self._directory / f"{_PREFIX}{stamp}-{os.getpid()}-{self._count:06d}{SUFFIX}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._clear(path)

    def _clear(self, current: Path) -> None:
        """Remove what is too old, and of the rest the oldest until what is to come has room."""
        found: list[tuple[float, int, Path]] = []
        for path in self._directory.glob(f"{_PREFIX}*{SUFFIX}"):
            try:
                about = path.stat()
            except FileNotFoundError:  # another worker was faster
                continue
            if path != current:
                found.append((about.st_mtime, about.st_size, path))
        room = self._max_size - self._max_size // PARTS
        for changed, size, path in sorted(found, reverse=True):
            room -= size
            if room < 0 or self._clock() - changed > self._keep_s:
                path.unlink(missing_ok=True)
