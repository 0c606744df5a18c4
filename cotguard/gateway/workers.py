"""Several workers behind one admin port, in three kinds of processes.

1. The *main* process serves the admin port and sums up what workers tell it. It is not forked once its loop runs.
2. The *supervisor* starts the workers, once the main process listens, and replaces those that die. It has no event loop
   and no client's connection: nothing that a fork should not copy.
3. The *workers* serve the data port. Each has a channel to the main process, handed over as it is started, whose end
   is the worker's end.

A signal to the main process drains all. When it or the supervisor is gone, the others end by themselves.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, cast

import uvloop

from cotguard.console.desk import CHANGES, TRIALS, Reply
from cotguard.gateway.admin_port import AdminPort, url_of
from cotguard.gateway.analysis import Answer
from cotguard.gateway.notify import Manager
from cotguard.gateway.reports import Reports
from cotguard.gateway.trial import summed
from cotguard.http.tls import follow
from cotguard.telemetry.metrics import Metrics
from cotguard.telemetry.totals import Snapshot, Totals

__all__ = [
    "ANALYSIS",
    "CONSOLE",
    "READINESS",
    "RELOAD",
    "SNAPSHOT",
    "STOP_SIGNALS",
    "serve_workers",
]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SNAPSHOT = "snapshot"
"""A question to a worker: a snapshot of its metrics."""
READINESS = "readiness"
"""A question to a worker: why it takes no requests, empty when it does."""
RELOAD = "reload"
"""A request to a worker: load the configuration anew. The answer is why it cannot be used, empty if it is in force."""
ANALYSIS = "analysis"
"""A question of another gateway: a path and a body. Bodies are told in Latin-1, whatever they are in."""
CONSOLE = "console"
"""A question of the console's, and what it is about. The answer is a status and a value."""

_LOG = logging.getLogger("cotguard.workers")
_SILENT = "a worker does not answer"
_LOOK_SECONDS = 0.2
_RESTART_PAUSE = 1.0
_METRICS_SECONDS = 1.0
"""A worker that takes longer is counted with what it said before."""
_REFRESH_SECONDS = 1.0
"""How often workers are asked without a scrape: so much of its accounts is lost at most when one is killed."""
_RELOAD_SECONDS = 60.0
_ANALYSIS_SECONDS = 60.0
_URL_BYTES = 1024
_OK = 200
_FORK = multiprocessing.get_context("fork")

Work = Callable[[socket.socket, str], None]
"""Serves, given its channel and the URL of the admin port."""


def serve_workers(count: int, work: Work, admin: AdminPort, *, patience: float) -> int:
    """Run ``work`` in ``count`` processes until a signal comes, with one admin port for all.

    A worker that does not say within ``patience`` seconds whether it is ready is not. Returns the exit status.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor = _FORK.Process(target=_supervise, args=(count, work, theirs, ours))
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until each process has its own way to stop
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until each has its own way to reload; the supervisor has none
    supervisor.start()
    theirs.close()
    uvloop.run(_Main(count, ours, supervisor, patience).serve(admin))
    supervisor.join()
    return int(supervisor.exitcode != 0)


class _Main:
    """The main process; the :class:`~cotguard.gateway.admin.State` of all workers together."""

    def __init__(self, count: int, control: socket.socket, supervisor: BaseProcess, patience: float) -> None:
        self._count = count
        self._control = control
        self._supervisor = supervisor
        self._patience = patience
        self._manager = Manager.of(os.environ)
        self._draining = False
        self._ended = asyncio.Event()
        self._metrics = Metrics()  # of this process: the admin port's certificate
        self._totals = Totals(self._metrics.registry)
        self._started = 0
        self._asked = 0
        self._workers: dict[int, Reports] = {}  # those that serve, by the number of their start

    async def serve(self, admin: AdminPort) -> None:
        """Serve the admin port until the supervisor and all workers have ended."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._drain)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        runner, tls = await admin.start(self, self._metrics)
        self._control.send(url_of(runner, tls).encode())
        async with asyncio.TaskGroup() as tasks:
            loop.add_reader(self._control, self._take_channel, tasks)
            loop.add_signal_handler(signal.SIGHUP, lambda: tasks.create_task(self.reload()))
            background = [
                tasks.create_task(self._refresh()),
                tasks.create_task(follow(tls)),
                tasks.create_task(self._manager.watch(self._is_alive)),
            ]
            await self._ended.wait()
            for task in background:
                task.cancel()
        await runner.cleanup()

    def _drain(self) -> None:
        self._draining = True
        self._manager.stopping()
        self._supervisor.terminate()

    def _take_channel(self, tasks: asyncio.TaskGroup) -> None:
        """Take what the supervisor hands over: the channel of a worker, or its own end."""
        said, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        if said:
            self._started += 1
            tasks.create_task(self._follow(self._started, socket.socket(fileno=descriptors[0])))
        else:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._ended.set()

    async def _follow(self, number: int, channel: socket.socket) -> None:
        """Listen to one worker until it ends."""

        def told(snapshot: Any) -> None:
            begins = number not in self._workers
            self._workers[number] = reports
            self._totals.update(number, snapshot)
            if begins and len(self._workers) == self._count:
                self._manager.ready()

        reports = Reports(channel, told)
        await reports.listen()
        self._workers.pop(number, None)
        self._totals.end(number)

    async def hindrance(self) -> str:
        if self._draining:
            return "draining"
        if missing := self._count - len(self._workers):
            return f"{missing} of {self._count} workers are being started"
        return next(filter(None, await self._answers()), "")

    async def _answers(self) -> list[str]:
        """What keeps workers from taking requests, of each of them."""
        asked = (reports.ask(READINESS, within=self._patience) for reports in self._workers.values())
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [_SILENT if isinstance(answer, BaseException) else answer for answer in answers]

    async def _is_alive(self) -> bool:
        """Whether no worker hangs. One that ends is replaced."""
        return _SILENT not in await self._answers()

    async def reload(self) -> list[str]:
        """Let all workers load the configuration anew. Returns why it cannot be used, for each that cannot."""
        self._manager.reloading()
        try:
            return await self._reloaded(self._workers.values())
        finally:
            self._manager.ready()

    @staticmethod
    async def _reloaded(workers: Iterable[Reports]) -> list[str]:
        asked = (reports.ask(RELOAD, within=_RELOAD_SECONDS) for reports in workers)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [answer if isinstance(answer, str) else _SILENT for answer in answers if answer]

    async def analysis(self, path: str, body: bytes) -> Answer:
        if not self._workers:
            return 503, b'{"error": "No worker serves now."}'
        self._asked += 1
        reports = list(self._workers.values())[self._asked % len(self._workers)]
        try:
            status, answer = await reports.ask(ANALYSIS, [path, body.decode("latin-1")], within=_ANALYSIS_SECONDS)
        except TimeoutError:
            return 504, b'{"error": "A worker does not answer."}'
        return status, answer.encode("latin-1")

    async def console(self, name: str, about: Mapping[str, Any]) -> Reply:
        workers = list(self._workers.values())
        asked = workers if name in TRIALS else workers[:1]
        replies = await asyncio.gather(
            *(reports.ask(CONSOLE, [name, about], within=_ANALYSIS_SECONDS) for reports in asked),
            return_exceptions=True,
        )
        answers = [each for each in replies if not isinstance(each, BaseException)]
        if not answers:
            return 503, {"error": "No worker answers now."}
        status, value = answers[0]
        if name in TRIALS and status == _OK:
            value = summed([state for each, state in answers if each == _OK])
        if name in CHANGES and status == _OK and any(await self._reloaded(workers[1:])):
            return 503, {"error": "It is written, and not in force in all workers; the log says why."}
        return status, value

    async def figures(self) -> Snapshot:
        return self._totals.snapshot()

    async def metrics(self, accept: str) -> bytes:
        await self._ask_all()
        return self._totals.expose(accept)

    async def _ask_all(self) -> None:
        await asyncio.gather(*(self._ask(number, reports) for number, reports in self._workers.items()))

    async def _ask(self, number: int, reports: Reports) -> None:
        with suppress(TimeoutError):
            snapshot = await reports.ask(SNAPSHOT, within=_METRICS_SECONDS)
            if number in self._workers:
                self._totals.update(number, snapshot)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            await self._ask_all()


def _supervise(count: int, work: Work, control: socket.socket, other: socket.socket) -> None:
    other.close()
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    url = control.recv(_URL_BYTES).decode()
    if not url:  # the main process cannot listen
        return

    def start() -> BaseProcess:
        ours, theirs = socket.socketpair()
        process = _FORK.Process(target=_work, args=(work, theirs, url, (ours, control)))
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until the worker has got rid of the handler above
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        theirs.close()
        with ours, suppress(ConnectionError):  # the main process may be gone
            socket.send_fds(control, [b"+"], [ours.fileno()])
        return process

    main = cast("BaseProcess", multiprocessing.parent_process())
    processes = [start() for _ in range(count)]
    while not stopping and main.is_alive():
        connection.wait([main.sentinel, *(process.sentinel for process in processes)], timeout=_LOOK_SECONDS)
        for index, process in enumerate(processes):
            if not process.is_alive() and not stopping:
                _LOG.error("worker exited and is started again", extra={"worker": index, "exit": process.exitcode})
                process.close()
                time.sleep(_RESTART_PAUSE)
                processes[index] = start()
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _work(work: Work, channel: socket.socket, url: str, others: tuple[socket.socket, ...]) -> None:
    for each in others:
        each.close()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        work(channel, url)
    except Exception:  # else multiprocessing prints it with its message, which may quote what must not be shown
        _LOG.critical("worker failed", exc_info=True)
        sys.exit(1)
