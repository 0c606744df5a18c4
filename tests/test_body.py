import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from cotguard.http.body import Body

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Account:
    """What a body handed over."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.pieces = 0
        self.error: BaseException | None = None
        self.over = asyncio.Event()
        self.some = asyncio.Event()

    def arrived(self, data: bytes) -> None:
        assert not self.over.is_set()
        self.data += data
        self.pieces += 1
        self.some.set()

    def ended(self, error: BaseException | None) -> None:
        assert not self.over.is_set()
        self.error = error
        self.over.set()


@asynccontextmanager
async def answered(handler: Handler) -> AsyncIterator[aiohttp.ClientResponse]:
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession() as client, client.get(f"http://{host}:{port}/") as response:
        yield response
    await runner.cleanup()


def writing(*pieces: bytes, chunked: bool = True, abort: bool = False) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if not chunked:
            response.content_length = sum(map(len, pieces))
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0.01)
        if abort:
            assert request.transport is not None
            request.transport.abort()
        return response

    return handler


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("late", [0, 0.025, 0.2])
async def test_all_of_it_whenever_it_is_started(chunked: bool, late: float) -> None:
    pieces = [b"one", b"two", b"three", b"four", b"five"]
    async with answered(writing(*pieces, chunked=chunked)) as response:
        await asyncio.sleep(late)
        account = Account()
        Body(response, account.arrived, account.ended).start()
        await asyncio.wait_for(account.over.wait(), 5)
    assert (bytes(account.data), account.error) == (b"".join(pieces), None)


async def test_pieces_arrive_one_by_one() -> None:
    async with answered(writing(b"one", b"two", b"three")) as response:
        account = Account()
        Body(response, account.arrived, account.ended).start()
        await asyncio.wait_for(account.over.wait(), 5)
    assert account.pieces == 3


async def test_an_empty_body() -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=204)

    async with answered(handler) as response:
        account = Account()
        Body(response, account.arrived, account.ended).start()
        assert account.over.is_set()
    assert (bytes(account.data), account.error) == (b"", None)


@pytest.mark.parametrize("late", [0, 0.2])
async def test_a_body_that_breaks_off(late: float) -> None:
    async with answered(writing(b"one", b"two", abort=True)) as response:
        await asyncio.sleep(late)
        account = Account()
        Body(response, account.arrived, account.ended).start()
        await asyncio.wait_for(account.over.wait(), 5)
    assert isinstance(account.error, aiohttp.ClientError)
    assert b"onetwo".startswith(account.data)


async def test_nothing_arrives_while_it_is_paused() -> None:
    piece = b"x" * 4096

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(4096):
            await response.write(piece)
        return response

    async with answered(handler) as response:
        account = Account()
        body = Body(response, account.arrived, account.ended).start()
        await asyncio.wait_for(account.some.wait(), 5)
        body.pause()
        before = len(account.data)
        await asyncio.sleep(0.1)
        assert len(account.data) <= before + 256 * 1024  # what one read of the socket held
        body.resume()
        await asyncio.wait_for(account.over.wait(), 20)
    assert len(account.data) == 4096 * len(piece)


async def test_nothing_arrives_once_it_is_closed() -> None:
    async with answered(writing(b"one", b"two", b"three", abort=True)) as response:
        account = Account()
        body = Body(response, account.arrived, account.ended).start()
        await asyncio.wait_for(account.some.wait(), 5)
        body.close()
        seen = bytes(account.data)
        await asyncio.sleep(0.1)
    assert (bytes(account.data), account.over.is_set()) == (seen, False)
