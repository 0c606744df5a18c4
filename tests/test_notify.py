"""What a service manager hears, over a socket of its kind."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Upstream
from log_kit import lines
from test_serve import serving, until

from cotguard.gateway.notify import Manager


@pytest.fixture(params=["a path", "an abstract name"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        if request.param == "a path":
            address = str(tmp_path / "notify")
            manager.bind(address)
        else:
            address = f"@cotguard/{os.getpid()}"
            manager.bind("\0" + address[1:])
        manager.settimeout(5)
        yield manager, address


def test_what_is_told(listening: tuple[socket.socket, str]) -> None:
    heard, address = listening
    manager = Manager.of({"NOTIFY_SOCKET": address})
    manager.ready()
    before = time.monotonic_ns() // 1000
    manager.reloading()
    manager.stopping()
    assert heard.recv(1000) == b"READY=1"
    reloading, _, microseconds = heard.recv(1000).decode().partition("\nMONOTONIC_USEC=")
    assert reloading == "RELOADING=1"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000
    assert heard.recv(1000) == b"STOPPING=1"


async def test_a_watchdog_hears_while_all_is_well(listening: tuple[socket.socket, str]) -> None:
    heard, address = listening
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    well = True
    asked = already = 0

    async def is_alive() -> bool:
        nonlocal asked
        asked += 1
        return well

    async def asked_again() -> bool:
        return asked >= already + 3

    watching = asyncio.create_task(Manager.of(environment).watch(is_alive))
    for _ in range(3):
        assert await asyncio.to_thread(heard.recv, 1000) == b"WATCHDOG=1"
    well = False
    already = asked
    await until(asked_again)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    heard.setblocking(False)
    told = 0
    with suppress(BlockingIOError):
        while heard.recv(1000):
            told += 1
    assert told <= 1  # one that was on its way


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "/nowhere"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "1000"},
    ],
    ids=["no manager", "no watchdog", "another's watchdog", "nowhere to tell"],
)
async def test_without_a_watchdog_there_is_nothing_to_do(environment: dict[str, str]) -> None:
    async def is_alive() -> bool:
        pytest.fail("nobody asked")

    await asyncio.wait_for(Manager.of(environment).watch(is_alive), 5)


def test_without_a_manager_nothing_is_told() -> None:
    manager = Manager.of({})
    manager.ready()
    manager.stopping()


def test_a_manager_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    Manager.of({"NOTIFY_SOCKET": "/nowhere/notify"}).ready()
    assert 'event="the service manager cannot be told" error=FileNotFoundError' in lines(caplog)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 2])
async def test_a_service_from_start_to_end(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")

        async def hear(*wanted: bytes) -> None:
            for message in wanted:
                while await asyncio.to_thread(heard.recv, 1000) != message:
                    pass

        async with serving(upstream.url, tmp_path, workers=workers) as served:
            await hear(b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1")
            if workers > 1:  # one hangs: nothing is heard until it goes on
                served.workers[0].suspend()
                with pytest.raises(TimeoutError):
                    await hear(b"READY=1")
                served.workers[0].resume()
                await hear(b"WATCHDOG=1")
            served.process.terminate()
            await hear(b"STOPPING=1")
            assert await asyncio.wait_for(served.process.wait(), 10) == 0
