"""The gateway under test: ``cotguard serve`` in processes of its own, and what the system says of them."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import aiohttp
import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from chaos.upstream import free_port
from loadtest.serving import stopping

__all__ = ["Footprint", "Gateway", "open_many_files", "started_gateway"]

CONFIG = "cotguard.yaml"
TRAIL = "trail"
LOG = "gateway.log"


class Footprint(NamedTuple):
    """What all processes of the gateway have: resident bytes and open descriptors."""

    memory: int
    descriptors: int


@dataclass(frozen=True)
class Gateway:
    """A gateway that is ready. ``folder`` holds its configuration, its audit trail and its log."""

    url: str
    admin: str
    folder: Path
    workers: int
    settings: Mapping[str, object]
    process: psutil.Process = field(repr=False)

    @property
    def processes(self) -> list[psutil.Process]:
        """All of them, the one that was started first."""
        return [self.process, *self.process.children(recursive=True)]

    @property
    def serving(self) -> list[psutil.Process]:
        """Those that serve the data port."""
        if self.workers == 1:
            return [self.process]
        return [worker for supervisor in self.process.children() for worker in supervisor.children()]

    @property
    def footprint(self) -> Footprint:
        """Now. A process that ends meanwhile does not count."""
        memory = descriptors = 0
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                memory += process.memory_info().rss
                descriptors += process.num_fds()
        return Footprint(memory, descriptors)

    @property
    def log(self) -> str:
        """All that was logged so far."""
        return (self.folder / LOG).read_text(encoding="utf-8", errors="replace")

    @property
    def trail(self) -> Path:
        """The directory of its audit trail."""
        return self.folder / TRAIL

    def configure(self, **settings: object) -> None:
        """Write the config file anew, with other settings where they are named here."""
        _write(self.folder / CONFIG, yaml.safe_dump({**self.settings, **settings}))

    def configure_badly(self) -> None:
        """Write a config file that cannot be used."""
        _write(self.folder / CONFIG, "upstream: [\n")

    async def ready(self) -> bool:
        """Whether it says that it takes requests."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.admin}/readyz") as response:
            return response.status == 200

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 where there are none."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.admin}/metrics") as response:
            page = await response.text()
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@contextmanager
def started_gateway(
    folder: Path, settings: Mapping[str, object], workers: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[Gateway]:
    """A gateway with an audit trail, and ``settings``. Raises ``RuntimeError`` when it does not get ready."""
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    told = {"listen": listen, "admin_listen": admin, "audit_dir": str(folder / TRAIL), "bundle": "none", **settings}
    _write(folder / CONFIG, yaml.safe_dump(told))
    command = [sys.executable, "-m", "cotguard", "serve", "--config", str(folder / CONFIG), "--workers", str(workers)]
    with (
        (folder / LOG).open("ab") as log,
        subprocess.Popen(  # noqa: S603  # our own program
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(environment or {})}
        ) as process,
        stopping(process),
    ):
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        lines = [process.stdout.readline() for _ in range(workers)]
        urls = re.findall(r"https?://[\d.:]+", lines[-1])
        if len(urls) < 2:
            raise RuntimeError(f"the gateway did not start: {(folder / LOG).read_text(encoding='utf-8')}")
        yield Gateway(urls[0], urls[-1], folder, workers, told, psutil.Process(process.pid))


def open_many_files() -> None:
    """Let this process have as many connections as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _write(path: Path, text: str) -> None:
    """At once, as whoever deploys a file does."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
