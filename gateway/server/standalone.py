"""A process of its own: sockets, TLS, several workers on one port, signals, drain.

SIGTERM and SIGINT drain: no new connections, readiness 503, calls under way may finish within ``server.drain``. A second
one ends at once. SIGHUP reloads the rule file, as a change of it does.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from .. import rules
from ..rules.listen import Listen, parse_listen
from ..rules.plan import Plan
from ..version import VERSION
from .gateway import Gateway
from .handlers import make_server
from .loops import Loop, choose_loop, loop_factory

_log = logging.getLogger("headgate.server")
_WORKER: Final = "HEADGATE_WORKER"
"""Set in the environment of worker processes, so that they serve instead of starting workers of their own."""
_LARGER_THAN_ANY_READ: Final = 4 * 1024 * 1024
_START_S: Final = 10.0
"""A worker that ends by itself so soon would do so again; one that was killed may well live the next time."""
_PROTOCOL_HEADROOM: Final = 4
"""aiohttp refuses oversized headers in plain text before we see them; what is up to this many times above our limit we
see, and refuse in the caller's format."""


def run(path: str | os.PathLike[str], listen: str | None = None) -> int:
    """Serve the rule file at ``path`` until a signal ends it. Returns the exit code. Raises RulesError, OSError."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # one that comes before there is anything to reload must not end us
    gateway = Gateway.load(path, watch=True)
    where = parse_listen(listen or gateway.plan.server.listen)
    gateway.listening = str(where)
    exposed = rules.check_exposure(gateway.plan, where)
    if exposed is not None:
        raise rules.RulesError([exposed])
    workers = gateway.plan.server.workers
    if workers > 1 and _WORKER not in os.environ and not where.path:
        with _one_port(where) as shared:
            return _supervise(Path(path), str(shared), workers)
    loop = choose_loop(gateway.plan)
    try:
        with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
            runner.run(_serve(gateway, where, loop, shared=_WORKER in os.environ))
    finally:
        if where.path:
            Path(where.path).unlink(missing_ok=True)
    return 0


async def _serve(gateway: Gateway, where: Listen, loop: Loop, *, shared: bool) -> None:
    options = gateway.plan.server
    limit = options.max_header * _PROTOCOL_HEADROOM
    await gateway.start()
    server = make_server(gateway, max_line_size=limit, max_field_size=limit, lingering_time=2.0)
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    _tune_memory()
    try:
        await runner.setup()
        tls = _tls(gateway.plan)
        if tls is not None:
            gateway.adopting.append(partial(_renew, tls))
        gateway.adopting.append(partial(_compare, loop))
        site = await _listen(runner, where, tls, shared=shared)
        _announce(gateway, site.name if not where.path else str(where), loop)
        await _until_signalled(gateway)
        await site.stop()
        await _drain(gateway, gateway.plan.server.drain)
    finally:
        await runner.cleanup()
        await gateway.aclose()


def _tune_memory() -> None:
    """Spare each call what the interpreter and the allocator would do anew for it. Only here, where the process is ours.

    The collector: a call leaves no reference cycles behind, so nearly all that it does between calls is to walk modules
    and rules, some 10 % of a call's CPU. The allocator: asyncio receives into 256 KiB, which glibc maps, shrinks and unmaps
    for every read, until it has seen a larger block freed; from then on such blocks come from the heap.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    bytearray(_LARGER_THAN_ANY_READ)


async def _listen(runner: web.ServerRunner, where: Listen, tls: ssl.SSLContext | None, *, shared: bool) -> web.BaseSite:
    site: web.BaseSite
    if where.path:
        site = web.UnixSite(runner, where.path, ssl_context=tls)
    else:
        site = web.TCPSite(runner, where.host, where.port, ssl_context=tls, backlog=4096, reuse_port=shared or None)
    await site.start()
    return site


def _tls(plan: Plan) -> ssl.SSLContext | None:
    tls = plan.server.tls
    if tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(tls.cert, tls.key)
    return context


def _renew(context: ssl.SSLContext, plan: Plan) -> None:
    """Take the certificate's present files for new connections; raises OSError for files that are none."""
    _tls(plan)  # first on its own: a certificate that does not fit its key must not replace one that does
    if plan.server.tls is not None:
        context.load_cert_chain(plan.server.tls.cert, plan.server.tls.key)


def _compare(loop: Loop, plan: Plan) -> None:
    """Say that new rules would have chosen another loop: whoever wonders about the speed looks into the log."""
    chosen = choose_loop(plan)
    if chosen.name != loop.name:
        _log.info("the event loop stays %s, a restart would choose %s", loop.name, chosen)


def _announce(gateway: Gateway, address: str, loop: Loop) -> None:
    plan = gateway.plan
    _log.info("the event loop is %s", loop)
    _log.info("headgate %s serves %s on %s: %d routes", VERSION, gateway.path, address, len(plan.routes))
    for name, upstream in plan.upstreams.items():
        if upstream.off:
            _log.info("upstream %s is off: %s", name, upstream.off)


async def _until_signalled(gateway: Gateway) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def ask_to_stop() -> None:
        if stop.is_set():
            _log.warning("ending at once")
            gateway.clock.close()
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, ask_to_stop)
    loop.add_signal_handler(signal.SIGINT, ask_to_stop)
    loop.add_signal_handler(signal.SIGHUP, gateway.reload_soon)
    await stop.wait()


async def _drain(gateway: Gateway, drain_s: float) -> None:
    """Wait until no call is under way, at most ``drain_s``."""
    gateway.draining = True
    until = time.monotonic() + drain_s
    if gateway.in_flight:
        _log.info("draining: %d calls under way, at most %g s", gateway.in_flight, drain_s)
    while gateway.in_flight and time.monotonic() < until:  # noqa: ASYNC110  # a drain may be late by a blink
        await asyncio.sleep(0.05)
    if gateway.in_flight:
        _log.warning("%d calls did not finish in time and are cut", gateway.in_flight)


@contextmanager
def _one_port(where: Listen) -> Iterator[Listen]:
    """Where the workers listen: with port 0, a free port for all of them, kept by a socket that takes no connection."""
    if where.port:
        yield where
        return
    with socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET) as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind((where.host, 0))
        yield Listen(where.host, kept.getsockname()[1])


def _supervise(path: Path, where: str, workers: int) -> int:
    """Run ``workers`` processes on one port (SO_REUSEPORT); pass signals on; start anew one that dies."""
    command = [sys.executable, "-m", "headgate", "serve", str(path), "--listen", where]
    environment = {**os.environ, _WORKER: "1"}
    stopping = False

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment)  # noqa: S603  # our own command line

    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: object) -> None:
        nonlocal stopping
        stopping = stopping or number != signal.SIGHUP
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    for _ in range(workers):
        processes.append(start())
    if stopping:  # meanwhile: they have not all heard of it
        pass_on(signal.SIGTERM, None)
    born = [time.monotonic()] * workers
    replaced: set[int] = set()
    while True:
        time.sleep(0.2)
        for index, process in enumerate(processes):
            code = process.poll()
            if code is None or stopping:
                continue
            early = code > 0 and time.monotonic() - born[index] < _START_S
            if early and index in replaced and any(each.poll() is None for each in processes):
                continue  # the rule file may be broken at present: the others go on by what it said before
            if early:
                _log.error("worker %d ended right after its start with code %d: giving up", process.pid, code)
                pass_on(signal.SIGTERM, None)
                break
            _log.error("worker %d ended with code %d: starting another", process.pid, code)
            processes[index], born[index] = start(), time.monotonic()
            replaced.add(index)
        if stopping and all(process.poll() is not None for process in processes):
            asked = (-signal.SIGTERM, -signal.SIGINT)  # one that was still starting dies of the signal itself
            return max(0 if process.returncode in asked else abs(process.returncode) for process in processes)


__all__ = ["run"]
