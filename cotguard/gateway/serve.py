"""Running the gateway: listeners, signals, drain, workers.

With several workers each is a process of its own on the same port (``SO_REUSEPORT``); worker ``i`` has its admin
port at the configured one plus ``i``. A worker that dies is started again; a signal to the parent drains all. Addresses
that cannot be had are wrong settings and are told before anything is started.
"""

import asyncio
import gc
import logging
import multiprocessing
import signal
import socket
import sys
import time
from multiprocessing import connection
from types import FrameType
from typing import NamedTuple

import uvloop
from aiohttp import web

from cotguard.detectors.contract import Detector
from cotguard.detectors.registry import build
from cotguard.gateway.admin import create_admin_app
from cotguard.gateway.app import Gateway, create_app
from cotguard.gateway.settings import Settings, SettingsError
from cotguard.policy import Policy, load

__all__ = ["serve"]

_BACKLOG = 4096
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOOK_SECONDS = 0.2
_RESTART_PAUSE = 1.0
_FAREWELL_SECONDS = 2
"""Time beyond the drain timeout for writing the error that ends a stream."""


class _Moderation(NamedTuple):
    policy: Policy
    detectors: tuple[Detector, ...]


def serve(settings: Settings, workers: int) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status. Raises :class:`SettingsError`."""
    if workers < 1:
        raise SettingsError("workers: write a number from 1")
    _check_address("listen", settings.listen, shared=workers > 1)
    _check_address("admin_listen", settings.admin_listen, shared=False)
    logging.basicConfig(level=logging.INFO, format="time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s")
    policy = load(settings.policy)
    # Once, before any fork: workers share what is loaded.
    moderation = _Moderation(policy, build(policy, settings.bundle, settings.guard))
    gc.collect()
    gc.freeze()  # what lives as long as the process is not looked through again, nor copied by a worker's collector
    if workers == 1:
        uvloop.run(_serve(settings, moderation, 0, shared=False))
        return 0
    return _supervise(settings, moderation, workers)


async def _serve(settings: Settings, moderation: _Moderation, index: int, *, shared: bool) -> None:
    gateway = Gateway(settings, moderation.policy, moderation.detectors)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    parent = multiprocessing.parent_process()
    if parent is not None:  # ready when it is gone: a worker that nobody stops any more stops by itself
        loop.add_reader(parent.sentinel, stop.set)
    runner = web.AppRunner(
        create_app(settings, gateway),
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,  # the gateway decodes bodies itself, with its limits
        shutdown_timeout=settings.drain_timeout + _FAREWELL_SECONDS,
    )
    admin = web.AppRunner(create_admin_app(gateway), access_log=None)
    await runner.setup()
    await admin.setup()
    host, port = _address(settings.listen)
    admin_host, admin_port = _address(settings.admin_listen)
    await web.TCPSite(admin, admin_host, admin_port + index if admin_port else 0).start()
    site = web.TCPSite(runner, host, port, backlog=_BACKLOG, reuse_port=shared or None)
    await site.start()
    bound = runner.addresses[0]
    admin_bound = admin.addresses[0]
    # The line that says the proxy is ready is written at once: workers share the output, and print may write its end
    # apart.
    sys.stdout.write(
        f"cotguard listens on http://{bound[0]}:{bound[1]} for {settings.upstream} with policy "
        f"{gateway.policy.name} and {gateway.classifier}{gateway.guard}; "
        f"admin on http://{admin_bound[0]}:{admin_bound[1]}\n"
    )
    sys.stdout.flush()
    await stop.wait()
    gateway.drain()
    await runner.cleanup()
    await admin.cleanup()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _check_address(name: str, text: str, *, shared: bool) -> None:
    """Raise :class:`SettingsError` if nothing can listen there: a worker would be started again and again."""
    try:
        family, _, _, _, address = socket.getaddrinfo(*_address(text), type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
            probe.bind(address)
    except OSError as error:
        raise SettingsError(f"{name}: {text}: {error.strerror}; choose another address") from error


def _supervise(settings: Settings, moderation: _Moderation, workers: int) -> int:
    context = multiprocessing.get_context("fork")
    stopping = False

    def start(index: int) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=_worker, args=(settings, moderation, index))
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # until the worker has got rid of the handler below
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        return process

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for number in _STOP_SIGNALS:
        signal.signal(number, stop)
    processes = [start(index) for index in range(workers)]
    while not stopping:
        connection.wait([process.sentinel for process in processes], timeout=_LOOK_SECONDS)
        for index, process in enumerate(processes):
            if not process.is_alive() and not stopping:
                logging.getLogger("cotguard").error("worker=%d exited=%s restarting", index, process.exitcode)
                time.sleep(_RESTART_PAUSE)
                processes[index] = start(index)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
    return 0


def _worker(settings: Settings, moderation: _Moderation, index: int) -> None:
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    uvloop.run(_serve(settings, moderation, index, shared=True))
