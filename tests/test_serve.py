"""The real command in processes of its own: readiness, workers, drain."""

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import aiohttp.test_utils
import psutil
import pytest
from aiohttp import web
from conftest import Upstream, error_of
from scripted import CHAT_PATH, DONE, chunk, finish, post, streaming, texts

POLICY = "version: 1\nname: t\nclassifier: false\nrules:\n  - entities: [EMAIL_ADDRESS]\n    action: redact\n"
REQUEST = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}


@dataclass
class Served:
    """A ``cotguard serve`` that is ready."""

    process: asyncio.subprocess.Process
    urls: list[str]
    admins: list[str]

    async def status(self, index: int, path: str) -> int:
        """Status of a path on a worker's admin port."""
        return (await self.read(index, path))[0]

    async def read(self, index: int, path: str) -> tuple[int, str]:
        """Status and body of a path on a worker's admin port."""
        async with aiohttp.ClientSession() as session, session.get(self.admins[index] + path) as response:
            return response.status, await response.text()

    async def count(self, index: int, sample: str) -> float:
        """A value of a worker's metrics; 0 where it is missing."""
        _, metrics = await self.read(index, "/metrics")
        return sum(float(line.removeprefix(sample)) for line in metrics.splitlines() if line.startswith(sample + " "))

    async def end(self) -> int | None:
        """The exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 10)


OK = 'cotguard_requests_total{dialect="chat_completions",outcome="ok",status="200"}'


@asynccontextmanager
async def serving(upstream: str, folder: Path, workers: int = 1, **flags: object) -> AsyncIterator[Served]:
    policy = folder / "policy.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    ports = aiohttp.test_utils.unused_port(), aiohttp.test_utils.unused_port()
    command = [sys.executable, "-m", "cotguard", "serve", "--upstream", upstream, "--policy", str(policy)]
    command += ["--listen", f"127.0.0.1:{ports[0]}", "--admin-listen", f"127.0.0.1:{ports[1]}"]
    command += ["--workers", str(workers), *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items())]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        lines = [(await asyncio.wait_for(process.stdout.readline(), 30)).decode() for _ in range(workers)]
        urls = [re.findall(r"http://[\d.:]+", line) for line in lines]
        yield Served(process, [found[0] for found in urls], sorted(found[-1] for found in urls))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_readiness_metrics_and_a_clean_end(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming([chunk({"content": "mail ann.lee@example.com now"}), finish(), DONE])
    async with serving(upstream.url, tmp_path) as served:
        assert await served.read(0, "/healthz") == (200, "ok\n")
        assert await served.read(0, "/readyz") == (200, "ready\n")
        assert [await served.status(0, path) for path in ("/x", "/v1/models", "/v1/chat/completions")] == [404] * 3
        _, body = await post(served.urls[0], stream=True)
        assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"
        assert await served.count(0, OK) == 1
        status, body = await post(served.urls[0] + "/metrics")
        assert (status, error_of(body)["code"]) == (404, "not_found")  # the data port has the upstream's paths only
        assert await served.end() == 0


@pytest.mark.parametrize("enough", [True, False])
async def test_a_drain_lets_streams_end_as_long_as_it_may(upstream: Upstream, tmp_path: Path, enough: bool) -> None:
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "mail ann.le"}))
        await go_on.wait()
        await response.write(chunk({"content": "e@example.com now"}) + finish() + DONE)
        return response

    upstream.handler = handler
    async with (
        serving(upstream.url, tmp_path, drain_timeout=20 if enough else 0.5) as served,
        aiohttp.ClientSession() as session,
    ):
        response = await session.post(served.urls[0] + CHAT_PATH, json=REQUEST)
        served.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert await served.read(0, "/readyz") == (503, "draining\n")
        assert await served.status(0, "/healthz") == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await post(served.urls[0])
        if enough:
            go_on.set()
        body = await response.text()
        assert await asyncio.wait_for(served.process.wait(), 10) == 0
    go_on.set()
    if enough:
        assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"
        assert body.endswith("data: [DONE]\n\n")
    else:
        assert error_of(body)["code"] == "shutting_down"
        assert "ann" not in body
        assert "[DONE]" not in body


async def test_workers_share_the_port_and_are_replaced(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming([chunk({"content": "mail ann.lee@example.com now"}), finish(), DONE])
    async with serving(upstream.url, tmp_path, workers=2) as served:
        assert len(set(served.admins)) == 2
        for _ in range(32):  # each on a connection of its own, which the kernel gives to either worker
            _, body = await post(served.urls[0], stream=True)
            assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"
        counts = [await served.count(index, OK) for index in (0, 1)]
        assert sum(counts) == 32
        assert min(counts) > 0
        first, second = psutil.Process(served.process.pid).children()
        first.kill()
        assert served.process.stdout is not None
        again = await asyncio.wait_for(served.process.stdout.readline(), 20)
        assert b"cotguard listens" in again
        assert second.is_running()
        assert [await served.status(index, "/readyz") for index in (0, 1)] == [200, 200]
        _, body = await post(served.urls[0], stream=True)
        assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"
        assert await served.end() == 0
        assert not second.is_running()


async def test_a_signal_while_a_worker_is_being_replaced(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(upstream.url, tmp_path, workers=2) as served:
        first, second = psutil.Process(served.process.pid).children()
        first.kill()
        await asyncio.sleep(0.5)  # within the pause before the new one
        assert await served.end() == 0
        assert not second.is_running()


async def test_workers_end_with_their_parent(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(upstream.url, tmp_path, workers=2) as served:
        workers = psutil.Process(served.process.pid).children()
        served.process.kill()
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive


@pytest.mark.parametrize("workers", [0, 1, 2])
async def test_settings_that_cannot_be_served(tmp_path: Path, workers: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "{}:{}".format(*taken.getsockname())
        command = [sys.executable, "-m", "cotguard", "serve", "--upstream", "http://127.0.0.1:9", "--listen", address]
        process = await asyncio.create_subprocess_exec(
            *command, "--workers", str(workers), stderr=asyncio.subprocess.PIPE
        )
        _, told = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 2
    expected = f"listen: {address}: Address already in use" if workers else "workers: write a number"
    assert told.decode().startswith(expected)
