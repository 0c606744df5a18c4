"""Server processes: how one serves, and how the bench starts and stops one.

A server prints a line with its addresses when it is ready, as ``cotguard serve`` does.
"""

import asyncio
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import uvloop
from aiohttp import web

__all__ = ["Server", "serve", "started"]

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
    """A server process that is ready."""

    urls: Sequence[str]
    """The addresses in the line it printed, its own first."""
    process: psutil.Process

    @property
    def cpu_seconds(self) -> float:
        """Processor time it has used, user and system, in nanosecond steps: ``/proc`` counts in hundredths."""
        return time.clock_gettime(~self.process.pid << 3 | 2)  # the clock id clock_getcpuclockid(3) gives on Linux

    @property
    def memory_bytes(self) -> int:
        """Its resident set."""
        return self.process.memory_info().rss


@contextmanager
def started(module: str, *arguments: str) -> Iterator[Server]:
    """``python -m module`` as a process of its own. Raises ``RuntimeError`` when it does not get ready."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own modules
        try:
            assert process.stdout is not None  # noqa: S101  # it is a pipe
            line = process.stdout.readline()
            urls = re.findall(r"https?://[^\s;]+", line)
            if not urls:
                raise RuntimeError(f"{' '.join(command[1:])} did not start")
            yield Server(urls, psutil.Process(process.pid))
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
