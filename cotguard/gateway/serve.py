"""Running the gateway: listeners, signals, drain.

With several workers each is a process of its own on the same port (``SO_REUSEPORT``), and one more process serves the
admin port for all (:mod:`cotguard.gateway.workers`). Addresses that cannot be had are wrong settings and are told
before anything is started.
"""

import asyncio
import gc
import logging
import multiprocessing
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, Self

import uvloop
from aiohttp import web

from cotguard.addresses import split_address
from cotguard.audit.key import TrailError
from cotguard.audit.trail import Trail
from cotguard.callers.keys import KeyStore
from cotguard.config.errors import SettingsError
from cotguard.config.settings import Settings
from cotguard.config.sources import Loaded, Sources
from cotguard.console.desk import Reply
from cotguard.gateway.admin import GatewayState
from cotguard.gateway.admin_port import AdminPort, url_of
from cotguard.gateway.app import Gateway, create_app
from cotguard.gateway.memory import give_back
from cotguard.gateway.moderations import OWN, Moderation, load_moderations
from cotguard.gateway.notify import Manager
from cotguard.gateway.reload import Reloader, files_of
from cotguard.gateway.reports import Reporter
from cotguard.gateway.sealing import key_ring
from cotguard.gateway.workers import (
    ANALYSIS,
    CONSOLE,
    READINESS,
    RELOAD,
    SNAPSHOT,
    STOP_SIGNALS,
    serve_workers,
)
from cotguard.http.tls import context_of, follow
from cotguard.http.watching import Stamps, stamps_of
from cotguard.sealing.keyring import KeyRing
from cotguard.telemetry import logs
from cotguard.telemetry.metrics import METRICS
from cotguard.telemetry.totals import Snapshot, snapshot

__all__ = ["open_many_files", "serve"]

_LOG = logging.getLogger("cotguard.gateway")
_BACKLOG = 4096
_IDLE_SECONDS = 75
"""How long a connection may be without a whole request: between requests, and while the head of one comes."""

_FAREWELL_SECONDS = 2
"""Time beyond the drain timeout for writing the error that ends a stream."""


class _Prepared(NamedTuple):
    """What is loaded once, before any fork: workers share it."""

    settings: Settings
    first: Settings
    """As they were loaded: without what is made up for a start."""
    sources: Sources
    stamps: Stamps
    moderations: Mapping[str, Moderation]
    keys: KeyRing | None
    trail: Trail | None

    @classmethod
    def of(cls, sources: Sources, loaded: Loaded) -> Self:
        first = settings = loaded.settings
        if not settings.hash_key:  # one for all workers
            settings = settings.model_copy(update={"hash_key": secrets.token_hex(32)})
        moderations = load_moderations(settings)
        stamps = stamps_of(files_of(loaded, moderations.values()))
        try:
            trail = None if settings.audit is None else Trail(settings.audit, METRICS)
        except TrailError as error:
            raise SettingsError(str(error)) from None
        return cls(settings, first, sources, stamps, moderations, key_ring(settings), trail)

    def gateway(self) -> tuple[Gateway, Reloader]:
        gateway = Gateway(self.settings, self.moderations, METRICS, keys=self.keys, trail=self.trail)
        return gateway, Reloader(gateway, self.sources, self.first, self.stamps)


def serve(sources: Sources, workers: int) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status. Raises :class:`SettingsError`."""
    if workers < 1:
        raise SettingsError("workers: write a number from 1")
    loaded = sources.load()
    settings = loaded.settings
    _check_address("listen", settings.listen, shared=workers > 1)
    _check_address("admin_listen", settings.admin_listen, shared=False)
    _check_callers(settings, workers)
    logs.configure(settings.log_format, settings.log_level)
    open_many_files()
    if settings.seal and not settings.seal_keys:
        _LOG.warning("no seal_keys: signed reasoning is sealed with a random key, and lost to clients at a restart")
    prepared = _Prepared.of(sources, loaded)
    gc.collect()
    give_back()
    gc.freeze()  # what lives as long as the process is not looked through again, nor copied by a worker's collector
    if workers == 1:
        uvloop.run(_serve(prepared))
        return 0
    patience = max(settings.classifier_deadline, settings.guard_deadline) + 1  # a worker may ask its models first
    return serve_workers(workers, partial(_work, prepared), AdminPort.of(settings), patience=patience)


def open_many_files() -> None:
    """Allow what the system allows: a stream is two sockets, and the customary limit of 1,024 is for ``select``."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(prepared: _Prepared) -> None:
    """The only process: data port and admin port."""
    gateway, reloader = prepared.gateway()
    admin, tls = await AdminPort.of(prepared.settings).start(GatewayState(gateway, reloader.reload), gateway.metrics)
    manager = Manager.of(os.environ)
    async with asyncio.TaskGroup() as tasks:
        background = tasks.create_task(follow(tls)), tasks.create_task(manager.watch(_is_alive))
        async with _data_port(gateway, reloader, url_of(admin, tls), manager, shared=False) as stop:
            manager.ready()
            await stop.wait()
            manager.stopping()
        for each in background:
            each.cancel()
    await admin.cleanup()


async def _is_alive() -> bool:
    """Whoever is asked has the loop's turn."""
    return True


def _work(prepared: _Prepared, channel: socket.socket, admin: str) -> None:
    """A worker's process."""
    uvloop.run(_serve_shared(prepared, channel, admin))


async def _serve_shared(prepared: _Prepared, channel: socket.socket, admin: str) -> None:
    gateway, reloader = prepared.gateway()

    state = GatewayState(gateway, reloader.reload)

    async def metrics(_: object) -> Snapshot:
        return snapshot(gateway.metrics.registry)

    async def readiness(_: object) -> str:
        return await state.hindrance()

    async def reload(_: object) -> str:
        return await reloader.reload()

    async def analysis(asked: tuple[str, str]) -> tuple[int, str]:
        path, body = asked
        status, answer = await state.analysis(path, body.encode("latin-1"))
        return status, answer.decode("latin-1")

    async def console(asked: tuple[str, dict[str, Any]]) -> Reply:
        return await state.console(*asked)

    answers = {CONSOLE: console, SNAPSHOT: metrics, READINESS: readiness, RELOAD: reload, ANALYSIS: analysis}
    reporter = Reporter(answers, unasked=SNAPSHOT)
    async with _data_port(gateway, reloader, admin, Manager(), shared=True) as stop:
        await reporter.start(channel)
        await stop.wait()
    await reporter.end()


@asynccontextmanager
async def _data_port(
    gateway: Gateway, reloader: Reloader, admin: str, manager: Manager, *, shared: bool
) -> AsyncIterator[asyncio.Event]:
    """Serve the data port, and say so; the event is that of a signal, after which streams under way may end.

    ``manager`` is told when a reload is asked for.
    """
    settings = gateway.active.settings
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    parent = multiprocessing.parent_process()
    if parent is not None:  # ready when it is gone: a worker that nobody stops any more stops by itself
        loop.add_reader(parent.sentinel, stop.set)
    runner = web.AppRunner(
        create_app(gateway),
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,  # the gateway decodes bodies itself, with its limits
        keepalive_timeout=_IDLE_SECONDS,
        shutdown_timeout=settings.drain_timeout + _FAREWELL_SECONDS,
    )
    await runner.setup()
    await reloader.catch_up()  # a worker that takes another's place was prepared long ago
    tls = context_of("data", settings.tls, gateway.metrics)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(reloader.follow()), tasks.create_task(follow(tls))
        loop.add_signal_handler(signal.SIGHUP, lambda: tasks.create_task(_reload(reloader, manager)))
        for listener in _listeners(*split_address(settings.listen), settings.client_timeout, shared=shared):
            await web.SockSite(runner, listener, ssl_context=tls, backlog=_BACKLOG).start()
        # The line that says the proxy is ready is written at once: workers share the output, and print may write its
        # end apart.
        sys.stdout.write(
            f"cotguard listens on {url_of(runner, tls)} for {_destinations(settings)} with policy "
            f"{gateway.active.moderations[OWN].policy.name} and {gateway.staff.classifier}{gateway.staff.guard}; "
            f"admin on {admin}\n"
        )
        sys.stdout.flush()
        yield stop
        gateway.leave()
        await asyncio.sleep(gateway.active.settings.drain_delay)
        gateway.drain()
        await runner.cleanup()
        for each in following:
            each.cancel()


async def _reload(reloader: Reloader, manager: Manager) -> None:
    manager.reloading()
    await reloader.reload()
    manager.ready()


def _destinations(settings: Settings) -> str:
    return settings.upstream if "/" in settings.upstream else f"upstreams {', '.join(settings.pools)}"


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
