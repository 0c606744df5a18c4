"""Gateways are replaced one after the other behind a balancer, under load: no exchange is dropped.

The balancer does what real ones do: it asks ``/readyz`` now and then, gives requests to the gateways that are ready,
keeps its connections, and repeats nothing.
"""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from conftest import Upstream
from scripted import CHAT_PATH, DONE, chunk, cut, finish, texts
from test_serve import REQUEST, Served, serving, until

PROBE_SECONDS = 0.05
DRAIN_DELAY = 2.0
"""Many times as long: the balancer has ceased to send requests when the gateway ceases to take them."""

TEXT = "Write to ann.lee@example.com, and to bob.ray@example.org about the rest of it. "
MODERATED = "Write to [EMAIL_ADDRESS], and to [EMAIL_ADDRESS] about the rest of it. "


class Balancer:
    """See the module. ``gateways`` are those that it knows."""

    def __init__(self) -> None:
        self.gateways: list[Served] = []
        self.url = ""
        self._ready: list[Served] = []
        self._sent = 0

    async def knows(self, gateway: Served, *, ready: bool = True) -> None:
        """Wait until the balancer takes the gateway for ready, or for not."""

        async def is_known() -> bool:
            return (gateway in self._ready) is ready

        await until(is_known)

    async def probe(self) -> None:
        while True:
            known = list(self.gateways)
            answers = await asyncio.gather(*map(self._is_ready, known))
            self._ready = [each for each, is_ready in zip(known, answers, strict=True) if is_ready]
            await asyncio.sleep(PROBE_SECONDS)

    async def _is_ready(self, gateway: Served) -> bool:
        try:
            return await gateway.status("/readyz") == 200
        except aiohttp.ClientError:
            return False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def forward(request: web.Request) -> web.StreamResponse:
                self._sent += 1
                gateway = self._ready[self._sent % len(self._ready)]
                async with session.post(gateway.url + request.path, data=await request.read(), headers=HEADERS) as got:
                    response = web.StreamResponse(status=got.status, headers={"Content-Type": got.content_type})
                    await response.prepare(request)
                    async for data in got.content.iter_any():
                        await response.write(data)
                return response

            app = web.Application()
            app.router.add_post("/{path:.*}", forward)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0]
            self.url = f"http://{host}:{port}"
            probing = asyncio.create_task(self.probe())
            try:
                yield
            finally:
                probing.cancel()
                await runner.cleanup()


HEADERS = {"Content-Type": "application/json"}


class Load:
    """Clients that ask for one stream after the other until they are told to stop."""

    def __init__(self, url: str, clients: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url = url
        self._stopping = asyncio.Event()
        self._clients = clients

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        clients = [asyncio.create_task(self._ask_on()) for _ in range(self._clients)]
        try:
            yield
            self._stopping.set()
            await asyncio.gather(*clients)
        finally:
            for client in clients:
                client.cancel()

    async def _ask_on(self) -> None:
        async with aiohttp.ClientSession() as session:
            while not self._stopping.is_set():
                self.outcomes[await self._ask(session)] += 1

    async def _ask(self, session: aiohttp.ClientSession) -> str:
        try:
            async with session.post(self._url + CHAT_PATH, json=REQUEST) as response:
                body = await response.text()
        except aiohttp.ClientError as error:
            return type(error).__name__
        if response.status != 200 or not body.endswith("data: [DONE]\n\n"):
            return f"{response.status}, not complete"
        return "moderated" if texts(body)[0, "content"] == MODERATED else "not as it must be"


async def stream(request: web.Request) -> web.StreamResponse:
    """A stream of about a third of a second."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for text in cut(TEXT, random.Random(1), 8):
        await response.write(chunk({"content": text}))
        await asyncio.sleep(0.02)
    await response.write(finish() + DONE)
    return response


async def roll(upstream: Upstream, folder: Path, rounds: int, clients: int) -> Counter[str]:
    """Replace two gateways, one after the other, ``rounds`` times; what became of the clients' requests."""
    upstream.handler = stream
    balancer = Balancer()
    replica = partial(serving, upstream.url, folder, drain_delay=DRAIN_DELAY, drain_timeout=10)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            balancer.gateways.append(await stack.enter_async_context(replica()))
        await stack.enter_async_context(balancer.running())
        for gateway in balancer.gateways:
            await balancer.knows(gateway)
        load = Load(balancer.url, clients)
        async with load.running():
            for _ in range(2 * rounds):
                replacement = await stack.enter_async_context(replica())
                balancer.gateways.append(replacement)
                await balancer.knows(replacement)
                leaving = balancer.gateways[0]
                leaving.process.send_signal(signal.SIGTERM)
                await balancer.knows(leaving, ready=False)
                assert await asyncio.wait_for(leaving.process.wait(), 15) == 0
                balancer.gateways.remove(leaving)
        return load.outcomes


async def test_no_exchange_is_dropped(upstream: Upstream, tmp_path: Path) -> None:
    outcomes = await roll(upstream, tmp_path, rounds=1, clients=8)
    assert set(outcomes) == {"moderated"}
    assert outcomes["moderated"] > 50


@pytest.mark.long
async def test_no_exchange_is_dropped_in_many_restarts(upstream: Upstream, tmp_path: Path) -> None:
    outcomes = await roll(upstream, tmp_path, rounds=10, clients=32)
    print(f"{outcomes.total()} exchanges while 20 gateways were replaced: {dict(outcomes)}")
    assert set(outcomes) == {"moderated"}


async def test_while_it_leaves_it_serves_and_closes(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = stream
    async with (
        serving(upstream.url, tmp_path, drain_delay=DRAIN_DELAY) as served,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session,
    ):
        async with session.post(served.url + CHAT_PATH, json=REQUEST) as before:
            await before.read()
        assert "Connection" not in before.headers
        served.process.send_signal(signal.SIGTERM)

        async def is_leaving() -> bool:
            return await served.read("/readyz") == (503, "draining\n")

        await until(is_leaving)
        async with session.post(served.url + CHAT_PATH, json=REQUEST) as after:  # on the connection that was kept
            body = await after.text()
        assert texts(body)[0, "content"] == MODERATED
        assert after.headers["Connection"] == "close"
        async with session.get(served.url + "/nowhere") as refused:  # and on a new one
            assert (refused.status, refused.headers["Connection"]) == (404, "close")
        assert await asyncio.wait_for(served.process.wait(), 10) == 0
