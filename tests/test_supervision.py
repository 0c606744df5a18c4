"""What systemd is told, over a real socket."""

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cotguard.gateway.supervision import Notifier


@pytest.fixture(params=["file", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """As systemd listens, and where."""
    name = f"@cotguard-{secrets.token_hex(8)}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.setblocking(False)
        yield listening, name


def test_it_says_that_it_is_ready_and_that_it_ends(listener: tuple[socket.socket, str]) -> None:
    listening, name = listener
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready()
    notifier.stopping()
    assert [listening.recv(64), listening.recv(64)] == [b"READY=1", b"STOPPING=1"]


async def test_it_lives_as_long_as_the_loop_turns(listener: tuple[socket.socket, str]) -> None:
    listening, name = listener
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())})
    living = asyncio.create_task(notifier.live())
    for _ in range(3):
        assert await asyncio.get_running_loop().sock_recv(listening, 64) == b"WATCHDOG=1"
    living.cancel()


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}])
async def test_nobody_watches(watchdog: dict[str, str], listener: tuple[socket.socket, str]) -> None:
    listening, name = listener
    await Notifier({"NOTIFY_SOCKET": name, **watchdog}).live()
    with pytest.raises(BlockingIOError):
        listening.recv(64)


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nobody/listens/here"}])
async def test_nobody_listens(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    notifier.ready()
    notifier.stopping()
    await notifier.live()
