"""A thread that works off what it is given, and that nobody waits for at the end of the process.

That of a ThreadPoolExecutor is joined when the interpreter ends: a collector that does not answer would hold the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_Work: TypeAlias = "tuple[Future[Any], Callable[[], Any]]"


class Worker(Executor):
    """One daemon thread, which does one thing after the other."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have ``fn`` called."""
        future: Future[T] = Future()
        self._work.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End after what was submitted; with ``cancel_futures`` after what is under way. Never waits."""
        if cancel_futures:
            try:
                while True:
                    work = self._work.get_nowait()
                    if work is not None:
                        work[0].cancel()
            except Empty:
                pass
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, call = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as fault:  # whoever holds the future is to see it
                future.set_exception(fault)
            else:
                future.set_result(result)
            del work, future, call  # or they would live until the next
