"""Too much to do, over sockets: places, the queue, slow clients and slow requests."""

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import psutil
import pytest
from aiohttp import web
from conftest import Handler, Proxy, ProxyFactory, Upstream, error_of
from scripted import CHAT_PATH, DONE, chunk, finish, post, streaming, texts
from test_serve import serving, until

from cotguard.classifier.bundle import DEFAULT
from cotguard.classifier.detector import Classifier
from cotguard.classifier.inference import Inference
from cotguard.classifier.tensors import Answer, Window
from cotguard.config.settings import Settings
from cotguard.gateway.app import create_app
from cotguard.policy import parse
from cotguard.telemetry.metrics import Metrics

REQUEST = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
RULES = "version: 1\nname: t\nrules:\n  - entities: [EMAIL_ADDRESS, PERSON]\n    action: redact\n"


class Gate:
    """An upstream whose streams end when they may."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.under_way = 0
        self.most = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(chunk({"content": "mail ann.lee@example.com now"}))
            await self.open.wait()
            await response.write(finish() + DONE)
        finally:
            self.under_way -= 1
        return response


async def metered(proxy: Proxy, sample: str) -> None:
    """Wait until the metrics have it."""

    async def has_it() -> bool:
        return sample.encode() in proxy.gateway.metrics.expose()

    await until(has_it)


# --- Places ------------------------------------------------------------------------------------------------------


async def test_no_more_than_the_limit_are_under_way(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    gate = Gate()
    upstream.handler = gate
    proxy = await make_proxy(max_exchanges=2, max_waiting=3)
    asked = [asyncio.create_task(post(proxy.url, stream=True)) for _ in range(5)]
    await metered(proxy, 'cotguard_overload_waiting_requests{priority="normal"} 3.0')
    async with aiohttp.ClientSession() as session, session.post(proxy.url + CHAT_PATH, json=REQUEST) as response:
        body = await response.text()
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert response.headers["x-should-retry"] == "true"
    assert error_of(body)["code"] == "overloaded"
    assert proxy.accounts.requests == {("503", "refused"): 1}
    gate.open.set()
    for _, text in await asyncio.gather(*asked):
        assert texts(text)[0, "content"] == "mail [EMAIL_ADDRESS] now"
    assert gate.most == 2
    assert proxy.accounts.requests == {("503", "refused"): 1, ("200", "ok"): 5}
    await metered(proxy, "cotguard_active_streams 0.0")


async def test_a_deadline_of_the_queue(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    gate = Gate()
    upstream.handler = gate
    proxy = await make_proxy(max_exchanges=1, queue_timeout=0.05)
    first = asyncio.create_task(post(proxy.url, stream=True))
    await upstream.asked.wait()
    status, body = await post(proxy.url, stream=True)
    assert (status, error_of(body)["code"]) == (503, "overloaded")
    gate.open.set()
    assert (await first)[0] == 200
    await metered(proxy, 'cotguard_overload_shed_total{priority="normal",reason="timeout"} 1.0')


async def test_a_waiting_client_that_leaves(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    gate = Gate()
    upstream.handler = gate
    proxy = await make_proxy(max_exchanges=1, max_waiting=1)
    first = asyncio.create_task(post(proxy.url, stream=True))
    await upstream.asked.wait()
    leaving = asyncio.create_task(post(proxy.url, stream=True))
    await metered(proxy, 'cotguard_overload_waiting_requests{priority="normal"} 1.0')
    leaving.cancel()
    await metered(proxy, 'cotguard_overload_waiting_requests{priority="normal"} 0.0')
    staying = asyncio.create_task(post(proxy.url, stream=True))
    await metered(proxy, 'cotguard_overload_waiting_requests{priority="normal"} 1.0')
    gate.open.set()
    assert [(await task)[0] for task in (first, staying)] == [200, 200]
    assert len(upstream.paths) == 2  # the upstream never heard of the one that left


async def test_a_place_is_free_again_after_every_end(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    proxy = await make_proxy(max_exchanges=1, max_waiting=0)
    for handler, status in (
        (streaming([chunk({"content": "x"}), finish(), DONE]), 200),
        (streaming([b"data: {oops\n\n"]), 200),
        (streaming([], {"Content-Type": "text/html"}), 502),
    ):
        upstream.handler = handler
        assert (await post(proxy.url, stream=True))[0] == status
    upstream.handler = streaming([chunk({"content": "x"}), finish(), DONE])
    assert (await post(proxy.url, stream=True, n=0))[0] == 400
    assert (await post(proxy.url, stream=True))[0] == 200


class Stuck:
    """A judge that never answers."""

    ready = True
    batch = lanes = 1

    async def __call__(self, windows: list[Window], until: float) -> list[Answer]:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        """Nothing runs."""


async def test_a_classifier_with_too_much_to_do(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    """Fails closed at once, and is told apart from a failure."""
    proxy = await make_proxy(parse(RULES, "t.yaml", None), (Classifier.load(DEFAULT),))
    inference = Inference(Stuck(), deadline=5, metrics=proxy.gateway.metrics)  # type: ignore[arg-type]  # of lists
    proxy.gateway.staff._members["classifier"] = inference
    nothing = np.zeros(0, dtype=np.int64)
    waits = [asyncio.create_task(inference([Window(nothing, nothing)])) for _ in range(3)]
    await asyncio.sleep(0)
    inference._pace = 10.0
    upstream.handler = streaming([chunk({"content": "Margaret Okonkwo moved last spring. " * 20}), finish(), DONE])
    _, body = await post(proxy.url, stream=True)
    assert error_of(body)["code"] == "overloaded"
    assert "Okonkwo" not in body
    assert proxy.accounts.closed == {"overloaded": 1}
    for task in waits:
        task.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await inference.close()


# --- Slow clients ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(url: str, sent: bytes) -> AsyncIterator[socket.socket]:
    """A client that reads nothing by itself."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (host, int(port)))
        await loop.sock_sendall(client, sent)
        yield client


def ask(**changed: object) -> bytes:
    """The bytes of a request for a stream."""
    body = json.dumps(REQUEST | changed).encode()
    return HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def flood() -> Handler:
    """An upstream that writes as much as is taken."""
    event = chunk({"content": "plain words and more of them. " * 100})

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(event)
            await asyncio.sleep(0)

    return handler


async def test_a_client_that_takes_nothing_is_dropped(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = flood()
    proxy = await make_proxy(client_timeout=0.3, keep_alive_after=0.1)
    async with connected(proxy.url, ask()):
        await asyncio.wait_for(upstream.cancelled.wait(), 10)
    await metered(proxy, 'outcome="client_slow",status="499"} 1.0')
    assert len(proxy.accounts.requests) == 1
    assert proxy.accounts.closed == {}
    await metered(proxy, "cotguard_active_streams 0.0")


async def test_a_client_that_takes_little_is_not(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = flood()
    proxy = await make_proxy(client_timeout=0.3, keep_alive_after=0.05)
    async with connected(proxy.url, ask()) as client:
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        while time.monotonic() - began < 1.2:
            assert await loop.sock_recv(client, 4096)
            await asyncio.sleep(0.01)
        assert not upstream.cancelled.is_set()
        assert proxy.accounts.requests == {}


async def test_a_silent_stream_is_not_the_clients_fault(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    gate = Gate()
    upstream.handler = gate
    proxy = await make_proxy(client_timeout=0.1, keep_alive_after=0.05)
    asked = asyncio.create_task(post(proxy.url, stream=True))
    await upstream.asked.wait()
    await asyncio.sleep(0.4)
    gate.open.set()
    assert (await asked)[1].endswith("data: [DONE]\n\n")


# --- Slow requests -----------------------------------------------------------------------------------------------


async def test_a_body_that_comes_too_slowly(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    proxy = await make_proxy(client_timeout=0.2)
    async with connected(proxy.url, HEAD + b"Content-Length: 1000\r\n\r\n{") as client:
        loop = asyncio.get_running_loop()
        answer = loop.create_task(loop.sock_recv(client, 4096))
        while not answer.done():  # it goes on, a byte at a time
            await loop.sock_sendall(client, b" ")
            await asyncio.wait({answer}, timeout=0.02)
        assert answer.result().startswith(b"HTTP/1.1 408 ")
    assert upstream.paths == []
    assert proxy.accounts.requests == {("408", "refused"): 1}


async def test_a_large_body_has_more_time(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = streaming([chunk({"content": "x"}), finish(), DONE])
    proxy = await make_proxy(client_timeout=0.2)
    body = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "%b"}]}' % (b"x" * 40_000)
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    async with connected(proxy.url, head) as client:
        loop = asyncio.get_running_loop()
        for at in range(0, len(body), 8000):
            await loop.sock_sendall(client, body[at : at + 8000])
            await asyncio.sleep(0.1)
        assert (await loop.sock_recv(client, 4096)).startswith(b"HTTP/1.1 200 ")


async def test_a_head_that_comes_too_slowly(make_proxy: ProxyFactory) -> None:
    """Whether a byte comes now and then or none: what `serve` relies on of its HTTP server."""
    proxy = await make_proxy()
    app = create_app(proxy.gateway)
    app.on_cleanup.clear()  # it is the other's gateway
    runner = web.AppRunner(app, keepalive_timeout=0.3)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    reader, writer = await asyncio.open_connection(host, port)
    async with asyncio.timeout(5):
        for byte in HEAD * 100:
            writer.write(bytes([byte]))
            try:
                async with asyncio.timeout(0.02):
                    assert await reader.read(1) == b""
            except TimeoutError:
                continue
            break
        else:
            pytest.fail("the connection stays open")
    writer.close()
    await runner.cleanup()


async def test_a_client_that_takes_nothing_of_a_whole_response(upstream: Upstream, tmp_path: Path) -> None:
    """Its exchange is over, and the rest is in buffers, where the kernel looks after it."""
    message = {"role": "assistant", "content": "plain words and more of them. " * 200_000}
    answer = json.dumps({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=answer, content_type="application/json")

    upstream.handler = handler
    async with serving(upstream.url, tmp_path, client_timeout=0.5) as served:
        async with connected(served.url, ask(stream=False)) as client:
            port = client.getsockname()[1]
            process = psutil.Process(served.process.pid)

            async def is_dropped() -> bool:
                return port not in [getattr(each.raddr, "port", 0) for each in process.net_connections()]

            await asyncio.wait_for(upstream.asked.wait(), 5)
            assert not await is_dropped()
            await until(is_dropped)
        assert await served.count('cotguard_requests_total{dialect="chat_completions",outcome="ok",status="200"}') == 1
        assert await served.end() == 0


# --- The page about it -------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs/overload.md").read_text(encoding="utf-8")


def test_the_page_names_what_there_is() -> None:
    exposed = Metrics().expose().decode()
    names = set(re.findall(r"cotguard_\w+", PAGE))
    assert names
    assert not [name for name in names if f"# TYPE {name} " not in exposed]
    defaults = dict(re.findall(r"(?m)^\| `(\w+)` \| ([\d]+)(?: s| MiB)? \|", PAGE))
    assert len(defaults) == 7
    for name, told in defaults.items():
        default = Settings.model_fields[name].default
        assert default in (int(told), int(told) * 2**20), name


def test_the_pages_formula_gives_its_table() -> None:
    rows = re.findall(r"(?m)^\| (`.*`) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE)
    assert len(rows) == 4
    capacity = (Path(__file__).parents[1] / "docs/capacity.md").read_text(encoding="utf-8")
    for name, *numbers in rows:
        cost, streams, exchanges, waiting = map(int, numbers)
        assert streams == int(0.6 / (50 * cost * 1e-6))
        assert (exchanges, waiting) == (int(1.5 * streams), int(int(1.5 * streams) / 20 * 10))
        assert f"| 1,000 | `{name.replace('`', '')}` | {streams} |" in capacity
