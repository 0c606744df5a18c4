"""The scripted model server: ``python -m chaos.upstream``, a process that starts another whenever that one is killed.

A request says what is streamed: ``model`` is ``chaos``, a colon and the writes a second (0: as fast as they go), and,
after another colon, ``reset`` if the connection shall be reset at a random byte; ``max_tokens``, less one, is how much
filler goes first; ``seed`` is the script's number. Bytes are cut into writes at random, also in the midst of events.

``GET /under-way`` gives the number of streams under way.
"""

import asyncio
import multiprocessing
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from types import FrameType

import orjson
import uvloop
from aiohttp import web

from chaos.script import FILLER, Script
from loadtest.dialects import DIALECTS, Dialect

__all__ = ["RESET", "abort", "create_upstream", "free_port"]

RESET = "reset"

_FILLERS_PER_WRITE = 64
_PAUSE_SECONDS = 0.05
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_FORK = multiprocessing.get_context("fork")


def create_upstream() -> web.Application:
    """The server as an application."""
    under_way = 0

    async def answer(dialect: Dialect, request: web.Request) -> web.StreamResponse:
        nonlocal under_way
        body = await request.json(loads=orjson.loads)
        _, rate, *fate = body["model"].split(":")
        filler = (body.get("max_tokens") or body["maxTokens"]) - 1  # as a proxy may have spelt it for Gemini
        script = Script(body["seed"])
        writes = list(_writes(dialect, script))
        left = -1
        if fate == [RESET]:
            left = random.Random(f"reset {script.number}").randint(0, sum(map(len, writes)))  # noqa: S311  # no secret
        response = web.StreamResponse(headers={"Content-Type": dialect.content_type})
        response.force_close()  # descriptors that the gateway has afterwards are then no idle connections
        under_way += 1
        try:
            if left == 0:  # not even a status line
                abort(request.transport, reset=True)
                return response
            await response.prepare(request)
            async for data in _paced(_filled(dialect, filler, writes), float(rate)):
                if 0 <= left <= len(data):
                    await response.write(data[:left])
                    abort(request.transport, reset=True)
                    break
                await response.write(data)
                left -= len(data) if left > 0 else 0
        except ConnectionResetError:
            pass  # the gateway has left
        finally:
            under_way -= 1
        return response

    async def count(_request: web.Request) -> web.Response:
        return web.Response(text=str(under_way))

    app = web.Application()
    for dialect in DIALECTS.values():
        app.router.add_post(dialect.path, partial(answer, dialect))
    app.router.add_get("/under-way", count)
    return app


def abort(transport: asyncio.BaseTransport | None, *, reset: bool) -> None:
    """Close a connection at once; with ``reset`` the peer gets an RST instead of an end."""
    if isinstance(transport, asyncio.Transport):
        if reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        transport.abort()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _writes(dialect: Dialect, script: Script) -> Iterator[bytes]:
    """About as many pieces as there are events, cut at random bytes."""
    events = [dialect.opening]
    before = "reasoning"
    for channel, piece in script.deltas:
        events.append((dialect.between if channel != before else b"") + dialect.token(channel, piece))
        before = channel
    whole = b"".join([*events, dialect.closing])
    draw = random.Random(f"writes {script.number}")  # noqa: S311  # a script, no secret
    mean, at = len(whole) // len(events), 0
    while at < len(whole):
        width = draw.randint(1, 2 * mean)
        yield whole[at : at + width]
        at += width


def _filled(dialect: Dialect, filler: int, writes: list[bytes]) -> Iterator[bytes]:
    """``writes`` with the filler where the reasoning begins."""
    if filler == 0:
        yield from writes
        return
    rest, opening = b"".join(writes), len(dialect.opening)
    yield rest[:opening]
    event = dialect.token("reasoning", FILLER)
    while filler > 0:
        yield event * min(filler, _FILLERS_PER_WRITE)
        filler -= _FILLERS_PER_WRITE
    yield rest[opening:]


async def _paced(writes: Iterator[bytes], rate: float) -> AsyncIterator[bytes]:
    """Against the clock, so that delays do not add up."""
    start = time.monotonic()
    for number, data in enumerate(writes):
        if rate:
            await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        yield data


def main() -> int:
    """Serve until SIGTERM, with a new process for each that dies."""
    port = free_port()
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        process.terminate()

    process = _FORK.Process(target=_serve, args=(port,))
    signal.signal(signal.SIGTERM, stop)
    while not stopping:
        process = _FORK.Process(target=_serve, args=(port,))
        process.start()
        process.join()
        time.sleep(_PAUSE_SECONDS)  # nobody listens meanwhile
    return 0


def _serve(port: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    uvloop.run(_serve_forever(port))


async def _serve_forever(port: int) -> None:
    runner = web.AppRunner(create_upstream(), access_log=None, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    sys.stdout.write(f"listens on http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
