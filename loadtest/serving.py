"""Server processes: how one serves, and how the bench starts and stops one.

A server prints a line with its addresses when it is ready, as ``cotguard serve`` does.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import uvloop
from aiohttp import web

__all__ = ["Server", "serve", "started", "stopping"]

_STOP_SECONDS = 10


def serve(app: web.Application) -> None:
    """Serve ``app`` on a free loopback port, with uvloop, until SIGTERM."""
    uvloop.run(_serve(app))


async def _serve(app: web.Application) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    host, port = runner.addresses[0][:2]
    sys.stdout.write(f"listens on http://{host}:{port}\n")
    sys.stdout.flush()
    await stop.wait()
    await runner.cleanup()


@dataclass(frozen=True)
class Server:
    """A server that is ready, with the processes it has begun."""

    urls: Sequence[str]
    """The addresses in the line it printed, its own first."""
    process: psutil.Process

    @property
    def cpu_seconds(self) -> float:
        """Processor time its processes have used, user and system, in nanosecond steps; ``/proc`` has hundredths."""
        # The clock id is the one that clock_getcpuclockid(3) gives on Linux.
        return sum(time.clock_gettime(~process.pid << 3 | 2) for process in self._processes)

    @property
    def memory_bytes(self) -> int:
        """The resident sets of its processes."""
        return sum(process.memory_info().rss for process in self._processes)

    @property
    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def started(module: str, *arguments: str, modules: str = "") -> Iterator[Server]:
    """``python -m module`` as a process of its own, found in the folder ``modules`` if one is given.

    What it reports is told when it has stopped: at a terminal cotguard has a console, which is not what is measured.

    Raises ``RuntimeError`` when it does not get ready.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = {"COTGUARD_LOG_LEVEL": "warning", **os.environ}  # a line for each exchange would bury the report
    if modules:
        environment |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": modules}
    with tempfile.TemporaryFile("w+") as reported:
        process = subprocess.Popen(  # noqa: S603  # our own
            command, stdout=subprocess.PIPE, stderr=reported, text=True, env=environment
        )
        try:
            with process, stopping(process):
                assert process.stdout is not None  # noqa: S101  # it is a pipe
                line = process.stdout.readline()
                urls = re.findall(r"https?://[^\s;]+", line)
                if not urls:
                    raise RuntimeError(f"{' '.join(command[1:])} did not start")
                yield Server(urls, psutil.Process(process.pid))
        finally:
            reported.seek(0)
            sys.stderr.write(reported.read())


@contextmanager
def stopping(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop ``process`` at the end."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
