"""Scenarios with clients that have a connection and do not use it as they should."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import orjson

from chaos.exchange import Asked, End, Seen
from chaos.stage import Run, Stage, until
from loadtest.dialects import DIALECTS

__all__ = ["idle_connections", "slow_readers"]

CLIENT_TIMEOUT: Final = 5
"""Seconds in which a client must take something."""

_HALF_A_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Ty"
_AT_ONCE = 64
_RECEIVE_BYTES = 4096
_SEGMENT_BYTES = 536
"""With segments as small as these the system's own buffers stay small too, on the gateway's side."""
_FILLER = 20_000
"""Far more than the buffers between hold."""
_MOST_BYTES = 2**20
"""What a client that takes nothing may cost."""


async def idle_connections(run: Run) -> None:
    """Thousands of connections on which nothing comes, or half a request's head; others are served meanwhile."""
    async with run.stage() as stage:
        async with _connected(stage, run.scale.idle) as sockets:
            loop = asyncio.get_running_loop()
            for each in sockets[::2]:
                await loop.sock_sendall(each, _HALF_A_HEAD)
            async with stage.load():
                await asyncio.sleep(run.scale.seconds / 3)
            most = stage.gateway.footprint
        run.result.figures = {
            "connections": run.scale.idle,
            "descriptors more": most.descriptors - run.result.before.descriptors,
            "KiB a connection": round((most.memory - run.result.before.memory) / run.scale.idle / 1024),
        }


async def slow_readers(run: Run) -> None:
    """Clients that take one byte a second of long answers, and then nothing, without leaving; others are served."""
    draw = random.Random("slow readers")  # noqa: S311  # a schedule, no secret

    async def read_slowly(number: int, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, _request(replace(stage.whole(0), filler=_FILLER, number=number)))
        with suppress(ConnectionError):  # a byte a second may be as good as nothing
            for _ in range(round(run.scale.seconds / 5 * draw.uniform(0.5, 1))):
                await loop.sock_recv(connection, 1)
                await asyncio.sleep(1)

    async def dropped() -> int:
        outcomes = "client_slow", "client_gone"  # whoever is the first to notice: the gateway, or the system
        counts = [await stage.gateway.metric("cotguard_requests_total", outcome=outcome) for outcome in outcomes]
        return int(sum(counts))

    async def all_dropped() -> bool:
        return await dropped() >= run.scale.slow

    async with run.stage(settings={"client_timeout": CLIENT_TIMEOUT}) as stage:
        numbers = [next(stage.numbers) for _ in range(run.scale.slow)]
        async with _connected(stage, run.scale.slow) as sockets:
            async with stage.load():
                await asyncio.gather(*map(read_slowly, numbers, sockets))
                most = stage.gateway.footprint.memory - run.result.before.memory
            await until(all_dropped)
            left = run.scale.slow - await dropped()
        for number in numbers:
            stage.note(Seen(number, End.CLOSED))
        run.result.figures = {
            "slow clients": len(numbers),
            "dropped": len(numbers) - left,
            "MiB more": round(most / 2**20),
        }
        if most > _MOST_BYTES * len(numbers):
            run.result.problems.append(f"a client that takes nothing costs {most // len(numbers)} bytes")
        if left:
            run.result.problems.append(f"{left} clients that take nothing are not dropped")


@asynccontextmanager
async def _connected(stage: Stage, count: int) -> AsyncIterator[list[socket.socket]]:
    """So many connections to the data port, with small buffers; closed at the end."""
    host, port = urlsplit(stage.gateway.url).hostname, urlsplit(stage.gateway.url).port
    loop, turns = asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE)

    async def connect(connection: socket.socket) -> None:
        async with turns:
            await loop.sock_connect(connection, (host, port))

    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
        await asyncio.gather(*map(connect, sockets))
        yield sockets
    finally:
        for each in sockets:
            each.close()


def _request(asked: Asked) -> bytes:
    body = orjson.dumps(asked.body)
    head = f"POST {DIALECTS[asked.dialect].path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
