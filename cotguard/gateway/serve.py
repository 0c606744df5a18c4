"""Running the gateway: listeners, signals, drain.

With several workers each is a process of its own on the same port (``SO_REUSEPORT``), and one more process serves the
admin port for all (:mod:`cotguard.gateway.workers`). Addresses that cannot be had are wrong settings and are told
before anything is started.
"""

import asyncio
import ctypes
import gc
import logging
import multiprocessing
import os
import resource
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple, Self

import uvloop
from aiohttp import web

from cotguard.addresses import split_address
from cotguard.callers.keys import KeyStore
from cotguard.gateway.admin import GatewayState, create_admin_app
from cotguard.gateway.app import Gateway, create_app
from cotguard.gateway.moderations import Moderation, load_roles, with_detectors
from cotguard.gateway.notify import Manager
from cotguard.gateway.reports import Reporter
from cotguard.gateway.sealing import key_ring
from cotguard.gateway.settings import Settings, SettingsError
from cotguard.gateway.workers import METRICS, READINESS, STOP_SIGNALS, serve_workers
from cotguard.policy import load
from cotguard.sealing.keyring import KeyRing
from cotguard.telemetry.totals import Snapshot, snapshot

__all__ = ["open_many_files", "serve"]

_LOG = logging.getLogger("cotguard.gateway")
_BACKLOG = 4096
_IDLE_SECONDS = 75
"""How long a connection may be without a whole request: between requests, and while the head of one comes."""

_FAREWELL_SECONDS = 2
"""Time beyond the drain timeout for writing the error that ends a stream."""


class _Loaded(NamedTuple):
    """What is loaded once, before any fork: workers share it."""

    own: Moderation
    roles: Mapping[str, Moderation]
    keys: KeyRing | None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        own = with_detectors(load(settings.policy), settings)
        return cls(own, load_roles(settings, own.detectors), key_ring(settings))

    def gateway(self, settings: Settings) -> Gateway:
        return Gateway(settings, self.own.policy, self.own.detectors, roles=self.roles, keys=self.keys)


def serve(settings: Settings, workers: int) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status. Raises :class:`SettingsError`."""
    if workers < 1:
        raise SettingsError("workers: write a number from 1")
    _check_address("listen", settings.listen, shared=workers > 1)
    _check_address("admin_listen", settings.admin_listen, shared=False)
    _check_callers(settings, workers)
    logging.basicConfig(level=logging.INFO, format="time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s")
    open_many_files()
    if not settings.hash_key:  # one for all workers
        settings = settings.model_copy(update={"hash_key": secrets.token_hex(32)})
    if settings.seal and not settings.seal_keys:
        _LOG.warning("no seal_keys: signed reasoning is sealed with a random key, and lost to clients at a restart")
    loaded = _Loaded.of(settings)
    gc.collect()
    _give_memory_back()
    gc.freeze()  # what lives as long as the process is not looked through again, nor copied by a worker's collector
    if workers == 1:
        uvloop.run(_serve(settings, loaded))
        return 0
    work = partial(_work, settings, loaded)
    patience = max(settings.classifier_deadline, settings.guard_deadline) + 1  # a worker may ask its models first
    return serve_workers(workers, work, *split_address(settings.admin_listen), patience=patience)


def open_many_files() -> None:
    """Allow what the system allows: a stream is two sockets, and the customary limit of 1,024 is for ``select``."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _give_memory_back() -> None:
    """Return to the system what compiling and loading have freed; glibc does so by itself only at the heap's end."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


async def _serve(settings: Settings, loaded: _Loaded) -> None:
    """The only process: data port and admin port."""
    gateway = loaded.gateway(settings)
    admin = web.AppRunner(create_admin_app(GatewayState(gateway)), access_log=None)
    await admin.setup()
    await web.TCPSite(admin, *split_address(settings.admin_listen)).start()
    bound = admin.addresses[0]
    manager = Manager.of(os.environ)
    watching = asyncio.create_task(manager.watch(_is_alive))
    async with _data_port(settings, gateway, f"http://{bound[0]}:{bound[1]}", shared=False) as stop:
        manager.ready()
        await stop.wait()
        manager.stopping()
    watching.cancel()
    await admin.cleanup()


async def _is_alive() -> bool:
    """Whoever is asked has the loop's turn."""
    return True


def _work(settings: Settings, loaded: _Loaded, channel: socket.socket, admin: str) -> None:
    """A worker's process."""
    uvloop.run(_serve_shared(settings, loaded, channel, admin))


async def _serve_shared(settings: Settings, loaded: _Loaded, channel: socket.socket, admin: str) -> None:
    gateway = loaded.gateway(settings)

    async def metrics() -> Snapshot:
        return snapshot(gateway.metrics.registry)

    reporter = Reporter({METRICS: metrics, READINESS: GatewayState(gateway).hindrance}, unasked=METRICS)
    async with _data_port(settings, gateway, admin, shared=True) as stop:
        await reporter.start(channel)
        await stop.wait()
    await reporter.end()


@asynccontextmanager
async def _data_port(settings: Settings, gateway: Gateway, admin: str, *, shared: bool) -> AsyncIterator[asyncio.Event]:
    """Serve the data port, and say so; the event is that of a signal, after which streams under way may end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    parent = multiprocessing.parent_process()
    if parent is not None:  # ready when it is gone: a worker that nobody stops any more stops by itself
        loop.add_reader(parent.sentinel, stop.set)
    runner = web.AppRunner(
        create_app(settings, gateway),
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,  # the gateway decodes bodies itself, with its limits
        keepalive_timeout=_IDLE_SECONDS,
        shutdown_timeout=settings.drain_timeout + _FAREWELL_SECONDS,
    )
    await runner.setup()
    for listener in _listeners(*split_address(settings.listen), settings.client_timeout, shared=shared):
        await web.SockSite(runner, listener, backlog=_BACKLOG).start()
    bound = runner.addresses[0]
    # The line that says the proxy is ready is written at once: workers share the output, and print may write its end
    # apart.
    sys.stdout.write(
        f"cotguard listens on http://{bound[0]}:{bound[1]} for {settings.upstream} with policy "
        f"{gateway.policy.name} and {gateway.staff.classifier}{gateway.staff.guard}; admin on {admin}\n"
    )
    sys.stdout.flush()
    yield stop
    gateway.leave()
    await asyncio.sleep(settings.drain_delay)
    gateway.drain()
    await runner.cleanup()


def _listeners(host: str, port: int, client_timeout: float, *, shared: bool) -> Iterator[socket.socket]:
    """Sockets that listen on every address of ``host``.

    A client that takes nothing of a stream is dropped by the stream; one that takes nothing of what is left in buffers
    when its exchange is over, by the kernel, for all connections of these sockets.
    """
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        listener = socket.create_server(address, family=family, backlog=_BACKLOG, reuse_port=shared)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(2000 * client_timeout))
        yield listener


def _check_callers(settings: Settings, workers: int) -> None:
    """Raise ``KeyStoreError`` if the file of keys cannot be used; warn of limits that are not what they seem."""
    if settings.keys:
        KeyStore(settings.keys).close()
    roles = settings.callers.roles.values() if settings.callers else ()
    if workers > 1 and not settings.limits_url and any(role.scope().limited for role in roles):
        sys.stderr.write(
            f"cotguard: each of the {workers} workers counts callers' limits by itself, so that a caller may have as "
            "many times his limits; set limits_url to count them together\n"
        )


def _check_address(name: str, text: str, *, shared: bool) -> None:
    """Raise :class:`SettingsError` if nothing can listen there: a worker would be started again and again."""
    try:
        family, _, _, _, address = socket.getaddrinfo(*split_address(text), type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
            probe.bind(address)
    except OSError as error:
        raise SettingsError(f"{name}: {text}: {error.strerror}; choose another address") from error
