"""The processes of a run: servers pinned to a core, with what /proc says of them, and the load generator."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).parent


class Server:
    """A process that serves."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.pid = process.pid
        self.port = port

    def check_alive(self) -> None:
        """Raise SystemExit if it ended."""
        if self.process.poll() is not None:
            raise SystemExit(f"{self.process.args!r} ended with code {self.process.returncode}")

    def cpu_s(self) -> float:
        """Return the CPU time of all its threads so far, in seconds (nanosecond counters of the scheduler)."""
        self.check_alive()
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def rss_mb(self) -> float:
        """Return its resident memory in MB."""
        return self._status("VmRSS:")

    def peak_rss_mb(self) -> float:
        """Return the most that its resident memory ever was, in MB."""
        return self._status("VmHWM:")

    def _status(self, name: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(name)[2].split()[0]) * 1024 / 1e6

    def wait_until_up(self, path: str, body: str, headers: Mapping[str, str]) -> None:
        """Return once it answers. Raises SystemExit if it ended or does not."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body.encode(), dict(headers))
        why: object = "it did not listen"
        for _ in range(100):
            self.check_alive()
            try:
                urllib.request.urlopen(request, timeout=5).read()
                return
            except OSError as fault:
                why = fault
                time.sleep(0.1)
        raise SystemExit(f"{self.process.args!r} does not answer: {why}")


def free_port() -> int:
    """Return a port of the loopback that nobody listens on, below those that the kernel hands out to others meanwhile."""
    for port in random.sample(range(20000, 30000), 100):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise SystemExit("no port is free")


@contextmanager
def serving(core: int, port: int, *command: str, **environment: str) -> Iterator[Server]:
    """Run a Python command pinned to ``core`` as a server. What it wrote to stderr is shown if the block raises."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **environment},
            stderr=errors,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        try:
            yield Server(process, port)
        except BaseException:
            errors.seek(0)
            sys.stderr.write(errors.read().decode("utf-8", "replace"))
            raise
        finally:
            process.kill()
            process.wait()


class Generator:
    """The load generator, which takes one order after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, order: Mapping[str, object]) -> dict[str, float]:
        """Return what came of ``order``. Raises SystemExit if the generator failed, which has said why."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the load generator ended")
        result: dict[str, float] = json.loads(line)
        return result


@contextmanager
def generating(core: int) -> Iterator[Generator]:
    """Run the load generator pinned to ``core``."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "load.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    with process:
        try:
            yield Generator(process)
        finally:
            process.kill()
