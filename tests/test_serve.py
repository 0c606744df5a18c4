"""The real command in processes of its own: readiness, workers, drain."""

import asyncio
import re
import signal
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
from conftest import Upstream
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
        async with aiohttp.ClientSession() as session, session.get(self.admins[index] + path) as response:
            return response.status


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
        assert [await served.status(0, path) for path in ("/healthz", "/readyz", "/metrics", "/x")] == [200] * 3 + [404]
        _, body = await post(served.urls[0], stream=True)
        assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"
        served.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(served.process.wait(), 10) == 0


async def _begun(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse:
    return await session.post(url + CHAT_PATH, json=REQUEST)


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
        response = await _begun(session, served.urls[0])
        served.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
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
        assert '"shutting_down"' in body
        assert "ann" not in body
        assert "[DONE]" not in body


async def test_workers_share_the_port_and_are_replaced(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming([chunk({"content": "mail ann.lee@example.com now"}), finish(), DONE])
    async with serving(upstream.url, tmp_path, workers=2) as served:
        assert len(set(served.admins)) == 2
        for _ in range(8):
            _, body = await post(served.urls[0], stream=True)
            assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"
        first, *_ = psutil.Process(served.process.pid).children()
        first.kill()
        assert served.process.stdout is not None
        again = await asyncio.wait_for(served.process.stdout.readline(), 20)
        assert b"cotguard listens" in again
        assert [await served.status(index, "/readyz") for index in (0, 1)] == [200, 200]
        served.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(served.process.wait(), 20) == 0
