"""The real command in processes of its own: readiness, workers, drain."""

import asyncio
import re
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
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
    url: str
    admin: str

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that serve the data port, where they are several."""
        (supervisor,) = psutil.Process(self.process.pid).children()
        return supervisor.children()

    async def status(self, path: str) -> int:
        """Status of a path on the admin port."""
        return (await self.read(path))[0]

    async def read(self, path: str) -> tuple[int, str]:
        """Status and body of a path on the admin port."""
        async with aiohttp.ClientSession() as session, session.get(self.admin + path) as response:
            return response.status, await response.text()

    async def ready(self) -> None:
        """Wait until it says that it is."""

        async def is_ready() -> bool:
            return await self.status("/readyz") == 200

        await until(is_ready)

    async def count(self, sample: str) -> float:
        """A value of the metrics; 0 where it is missing."""
        _, metrics = await self.read("/metrics")
        return sum(float(line.removeprefix(sample)) for line in metrics.splitlines() if line.startswith(sample + " "))

    async def end(self) -> int | None:
        """The exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 10)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(20):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


OK = 'cotguard_requests_total{dialect="chat_completions",outcome="ok",status="200"}'


@asynccontextmanager
async def serving(
    upstream: str, folder: Path, workers: int = 1, stderr: int | None = None, **flags: object
) -> AsyncIterator[Served]:
    policy = folder / "policy.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    ports = aiohttp.test_utils.unused_port(), aiohttp.test_utils.unused_port()
    command = [sys.executable, "-m", "cotguard", "serve", "--upstream", upstream, "--policy", str(policy)]
    command += ["--listen", f"127.0.0.1:{ports[0]}", "--admin-listen", f"127.0.0.1:{ports[1]}"]
    command += ["--workers", str(workers), *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items())]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=stderr)
    assert process.stdout is not None
    try:
        lines = [(await asyncio.wait_for(process.stdout.readline(), 30)).decode() for _ in range(workers)]
        ((url, *_, admin),) = {tuple(re.findall(r"http://[\d.:]+", line)) for line in lines}
        yield Served(process, url, admin)
    finally:
        if process.returncode is None:  # the test has failed; its children have this process's pipe
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        await process.wait()
        await asyncio.wait_for(process.stdout.read(), 30)  # to its end: all processes that can write to it are gone


async def test_readiness_metrics_and_a_clean_end(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming([chunk({"content": "mail ann.lee@example.com now"}), finish(), DONE])
    async with serving(upstream.url, tmp_path) as served:
        assert await served.read("/healthz") == (200, "ok\n")
        assert await served.read("/readyz") == (200, "ready\n")
        assert [await served.status(path) for path in ("/x", "/v1/models", "/v1/chat/completions")] == [404] * 3
        _, body = await post(served.url, stream=True)
        assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"
        assert await served.count(OK) == 1
        status, body = await post(served.url + "/metrics")
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
        response = await session.post(served.url + CHAT_PATH, json=REQUEST)
        served.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert await served.read("/readyz") == (503, "draining\n")
        assert await served.status("/healthz") == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await post(served.url)
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


async def test_workers_share_both_ports(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming([chunk({"content": "mail ann.lee@example.com now"}), finish(), DONE])
    async with serving(upstream.url, tmp_path, workers=2) as served:
        await served.ready()
        assert await served.read("/healthz") == (200, "ok\n")
        assert await served.read("/readyz") == (200, "ready\n")
        assert await served.count("cotguard_workers") == 2
        assert len(served.workers) == 2
        for _ in range(32):  # each on a connection of its own, which the kernel gives to either worker
            _, body = await post(served.url, stream=True)
            assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"
        assert await served.count(OK) == 32
        assert await served.count('cotguard_first_token_seconds_bucket{le="+Inf",side="delivered"}') == 32
        written = await served.count("cotguard_event_added_seconds_count")
        assert written == await served.count('cotguard_event_added_seconds_bucket{le="+Inf"}') >= 32
        assert await served.count("cotguard_active_streams") == 0
        assert "cotguard_build_info{" in (await served.read("/metrics"))[1]
        assert await served.end() == 0


async def test_a_killed_worker_is_replaced_and_what_it_counted_stays(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming([chunk({"content": "mail ann.lee@example.com now"}), finish(), DONE])
    async with serving(upstream.url, tmp_path, workers=2) as served:
        await served.ready()
        ended = asyncio.Event()
        accounts: list[float] = [0]
        workers: set[float] = set()
        succeeded = 0

        async def load() -> None:
            nonlocal succeeded
            while not ended.is_set():
                with suppress(aiohttp.ClientError):  # a connection that the killed worker had, or was about to get
                    _, body = await post(served.url, stream=True)
                    assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"
                    succeeded += 1

        async def scrape() -> None:
            while not ended.is_set():
                accounts.append(await served.count(OK))
                workers.add(await served.count("cotguard_workers"))
                await asyncio.sleep(0.02)

        async def counted() -> bool:
            return accounts[-1] >= 50

        async def replacing() -> bool:
            status, told = await served.read("/readyz")
            return (status, told) == (503, "1 of 2 workers are being started\n")

        async def goes_on() -> bool:
            return succeeded >= before + 50

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(load())
            tasks.create_task(scrape())
            await until(counted)
            first, second = served.workers
            first.kill()
            await until(replacing)
            before = succeeded
            await served.ready()
            assert succeeded > before  # the other one went on
            assert await served.count("cotguard_workers") == 2
            assert second.is_running()
            assert first not in served.workers
            before = succeeded
            await until(goes_on)
            ended.set()
        assert accounts == sorted(accounts)
        assert workers == {1, 2}
        # Killed, it could not tell what it counted since the last scrape.
        assert succeeded - 50 < await served.count(OK) <= succeeded + 8
        assert await served.count("cotguard_active_streams") == 0
        assert await served.end() == 0
        assert not second.is_running()


async def test_a_worker_that_ends_by_itself_tells_all_it_counted(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming([chunk({"content": "x"}), finish(), DONE])
    async with serving(upstream.url, tmp_path, workers=2) as served:
        await served.ready()
        for _ in range(16):
            await post(served.url, stream=True)
        for worker in served.workers:
            worker.terminate()

        async def none_left() -> bool:
            return await served.count("cotguard_workers") == 0

        await until(none_left)
        assert await served.count(OK) == 16
        await served.ready()
        assert await served.count(OK) == 16
        assert await served.end() == 0


async def test_a_worker_that_does_not_answer(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming([chunk({"content": "x"}), finish(), DONE])
    async with serving(upstream.url, tmp_path, workers=2, classifier_deadline=0.2) as served:
        await served.ready()
        for _ in range(8):
            await post(served.url, stream=True)
        assert await served.count(OK) == 8
        stopped, _ = served.workers
        stopped.suspend()
        assert await served.read("/readyz") == (503, "a worker does not answer\n")
        assert await served.count(OK) == 8  # with what it said before
        stopped.resume()
        await served.ready()
        assert await served.end() == 0


async def test_a_drain_of_workers_is_told(upstream: Upstream, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "one "}))
        await go_on.wait()
        await response.write(finish() + DONE)
        return response

    upstream.handler = handler
    async with serving(upstream.url, tmp_path, workers=2) as served, aiohttp.ClientSession() as session:
        await served.ready()
        response = await session.post(served.url + CHAT_PATH, json=REQUEST)
        assert await served.count("cotguard_active_streams") == 1
        served.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert await served.read("/readyz") == (503, "draining\n")
        assert await served.count("cotguard_active_streams") == 1
        go_on.set()
        assert (await response.text()).endswith("data: [DONE]\n\n")
        assert await asyncio.wait_for(served.process.wait(), 10) == 0


async def test_a_signal_while_a_worker_is_being_replaced(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(upstream.url, tmp_path, workers=2) as served:
        first, second = served.workers
        first.kill()
        await asyncio.sleep(0.5)  # within the pause before the new one
        assert await served.end() == 0
        assert not second.is_running()


@pytest.mark.parametrize("killed", ["main", "supervisor"])
async def test_no_process_outlives_another_kind(upstream: Upstream, tmp_path: Path, killed: str) -> None:
    async with serving(upstream.url, tmp_path, workers=2) as served:
        main = psutil.Process(served.process.pid)
        processes = main.children(recursive=True)
        if killed == "main":
            main.kill()
        else:
            main.children()[0].kill()
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive
        assert await asyncio.wait_for(served.process.wait(), 10) == (-signal.SIGKILL if killed == "main" else 1)


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


async def test_as_many_files_may_be_open_as_the_system_allows(upstream: Upstream, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with serving(upstream.url, tmp_path) as served:
            assert psutil.Process(served.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("workers", [1, 2])
async def test_other_gateways_ask_on_the_admin_port(upstream: Upstream, tmp_path: Path, workers: int) -> None:
    token = "t" * 32
    async with serving(upstream.url, tmp_path, workers, admin_token=token) as served:
        await served.ready()
        asked = {"text": "mail ann.lee@example.com now"}
        async with aiohttp.ClientSession() as session:
            async with session.post(served.admin + "/analyze", json=asked) as response:
                assert response.status == 401
            headers = {"Authorization": f"Bearer {token}"}
            for _ in range(2 * workers):  # each worker has its turn
                async with session.post(served.admin + "/analyze", json=asked, headers=headers) as response:
                    ((found,),) = [await response.json()]
                    assert (found["entity_type"], found["start"], found["end"]) == ("EMAIL_ADDRESS", 5, 24)
            async with session.get(served.admin + "/supportedentities", headers=headers) as response:
                assert "EMAIL_ADDRESS" in await response.json()
