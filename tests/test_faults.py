"""Faults of upstreams, clients and detectors, each tried over a socket.

Whatever happens, nothing undecided is delivered, the client gets an error of the dialect's shape, and the fault is
counted under its kind.
"""

import asyncio
import gzip
import json
import resource
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import aiohttp
import brotli
import pytest
import zstandard
from aiohttp import web
from conftest import Handler, Proxy, ProxyFactory, Upstream
from scripted import CHAT_PATH, DONE, chunk, finish, post, streaming, texts

from cotguard.detectors.contract import Detector, Scope, Session
from cotguard.framing.sse import MAX_EVENT_BYTES
from cotguard.policy import parse
from cotguard.spans import Span

HEAD = chunk({"content": "mail ann.le"})
REQUEST = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}


def failures(proxy: Proxy, mode: str = "closed") -> dict[str, float]:
    """Counts by kind."""
    found: dict[str, float] = {}
    for family in proxy.gateway.metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "cotguard_failures_total" and sample.labels["mode"] == mode:
                found[sample.labels["kind"]] = sample.value
    return found


def outcomes(proxy: Proxy) -> dict[tuple[str, str], float]:
    """Requests by status and outcome."""
    found: dict[tuple[str, str], float] = {}
    for family in proxy.gateway.metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "cotguard_requests_total":
                found[sample.labels["status"], sample.labels["outcome"]] = sample.value
    return found


def error_of(body: str) -> dict[str, object]:
    """The error that ends a stream, or that a whole body is."""
    last = [line for line in body.splitlines() if line][-1].removeprefix("data: ")
    error: dict[str, object] = json.loads(last)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# --- Streams -----------------------------------------------------------------------------------------------------

BROKEN_STREAMS = {
    "cut mid-value": ([HEAD], "upstream_interrupted"),
    "cut mid-event": ([HEAD, b'data: {"choices": [{"ind'], "upstream_invalid"),
    "malformed JSON": ([HEAD, b"data: {oops\n\n"], "upstream_invalid"),
    "not UTF-8": ([HEAD, b'data: {"choices": "\xff\xfe"}\n\n'], "upstream_invalid"),
    "no object": ([HEAD, b"data: 4\n\n"], "upstream_invalid"),
    "wrong type": ([HEAD, b'data: {"choices": [{"index": 0, "delta": {"content": 5}}]}\n\n'], "upstream_invalid"),
    "a choice too many": ([HEAD, chunk({"content": "x"}, index=7)], "upstream_invalid"),
    "an error event": ([HEAD, b'data: {"error": {"message": "ann.lee@example.com", "code": 500}}\n\n'], None),
    "a line over the limit": ([HEAD, b"data: " + b"a" * (MAX_EVENT_BYTES + 1)], "upstream_invalid"),
}


@pytest.mark.parametrize("name", BROKEN_STREAMS)
async def test_a_broken_stream(upstream: Upstream, make_proxy: ProxyFactory, name: str) -> None:
    events, code = BROKEN_STREAMS[name]
    upstream.handler = streaming(events)
    proxy = await make_proxy()
    status, body = await post(proxy.url, stream=True)
    error = error_of(body)
    assert status == 200
    assert "ann" not in body
    assert "[DONE]" not in body
    assert code is None or error["code"] == code
    assert sum(failures(proxy).values()) == 1
    assert code is None or failures(proxy) == {code: 1}
    assert outcomes(proxy) == {("200", "failed"): 1}


async def test_an_event_of_twenty_megabytes(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    """Below the limit: moderated like any other."""
    text = "plain words and more of them, " * (20 * 2**20 // 30) + "mail ann.lee@example.com now"
    upstream.handler = streaming([chunk({"content": text}), finish(), DONE])
    proxy = await make_proxy()
    _, body = await post(proxy.url, stream=True)
    assert texts(body)[0, "content"] == text.replace("ann.lee@example.com", "[EMAIL_ADDRESS]")


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
STREAM = chunk({"content": "mail ann.lee@example.com now"}) + finish() + DONE


@pytest.mark.parametrize("encoding", ENCODERS)
async def test_encoded_streams(upstream: Upstream, make_proxy: ProxyFactory, encoding: str) -> None:
    packed = ENCODERS[encoding](STREAM)
    upstream.handler = streaming([packed[:20], packed[20:]], {"Content-Encoding": encoding})
    _, body = await post((await make_proxy()).url, stream=True)
    assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"


@pytest.mark.parametrize("encoding", ENCODERS)
async def test_encoded_streams_that_do_not_decode(upstream: Upstream, make_proxy: ProxyFactory, encoding: str) -> None:
    upstream.handler = streaming([b"\x00\x01\x02 ann.lee@example.com"], {"Content-Encoding": encoding})
    proxy = await make_proxy()
    _, body = await post(proxy.url, stream=True)
    assert error_of(body)["code"] in ("upstream_invalid", "upstream_interrupted")
    assert "ann" not in body


async def test_an_unknown_encoding(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = streaming([HEAD], {"Content-Encoding": "snappy"})
    proxy = await make_proxy()
    _, body = await post(proxy.url, stream=True)
    assert error_of(body)["code"] == "upstream_invalid"
    assert failures(proxy) == {"upstream_invalid": 1}


async def test_an_upstream_that_falls_silent(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(HEAD)
        await asyncio.sleep(30)
        return response

    upstream.handler = handler
    proxy = await make_proxy(idle_timeout=0.4, keep_alive_after=0.1)
    _, body = await post(proxy.url, stream=True)
    assert "mail " in texts(body)[0, "content"]
    assert "ann" not in body
    assert body.count(": keep-alive") in (2, 3)
    assert error_of(body)["code"] == "upstream_timeout"
    assert failures(proxy) == {"upstream_timeout": 1}
    await asyncio.wait_for(upstream.cancelled.wait(), 1)


# --- Whole responses ---------------------------------------------------------------------------------------------


def whole(body: bytes, status: int = 200, content_type: str = "application/json") -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, content_type=content_type)

    return handler


GOOD = json.dumps({"id": "c", "choices": [{"index": 0, "message": {"content": "mail ann.lee@example.com"}}]}).encode()
BROKEN_BODIES = {
    "truncated": (GOOD[:-20], "application/json"),
    "empty": (b"", "application/json"),
    "an array": (b"[]", "application/json"),
    "no choices": (b'{"choices": "ann.lee@example.com"}', "application/json"),
    "HTML": (b"<p>ann.lee@example.com</p>", "text/html"),
    "not UTF-8": (GOOD.replace(b"mail", b"\xff\xfe"), "application/json"),
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
async def test_a_broken_whole_response(upstream: Upstream, make_proxy: ProxyFactory, name: str) -> None:
    body, content_type = BROKEN_BODIES[name]
    upstream.handler = whole(body, content_type=content_type)
    proxy = await make_proxy()
    status, answer = await post(proxy.url)
    assert status == 502
    assert "ann" not in answer
    assert error_of(answer)["code"] == "upstream_invalid"
    assert failures(proxy) == {"upstream_invalid": 1}


async def test_a_whole_response_that_breaks_off(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
        await response.prepare(request)
        await response.write(GOOD)
        assert request.transport is not None
        request.transport.close()
        return response

    upstream.handler = handler
    proxy = await make_proxy()
    status, answer = await post(proxy.url)
    assert status == 502
    assert "ann" not in answer
    assert error_of(answer)["code"] == "upstream_interrupted"


async def test_a_whole_response_over_the_limit(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = whole(GOOD)
    status, answer = await post((await make_proxy(max_response_bytes=50)).url)
    assert (status, error_of(answer)["code"]) == (502, "upstream_invalid")


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_an_upstream_error_that_echoes_the_prompt(
    upstream: Upstream, make_proxy: ProxyFactory, status: int
) -> None:
    echo = {"error": {"message": "bad prompt: 4111 1111 1111 1111", "type": "invalid_request_error", "param": "ann"}}
    upstream.handler = whole(json.dumps(echo).encode(), status)
    proxy = await make_proxy()
    got, answer = await post(proxy.url, stream=True)
    assert got == status
    assert "4111" not in answer
    assert "ann" not in answer
    assert error_of(answer)["type"]
    assert outcomes(proxy) == {(str(status), "upstream_error"): 1}


async def test_a_redirect_is_not_followed(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = whole(b"", 302)
    status, answer = await post((await make_proxy()).url)
    assert (status, error_of(answer)["code"]) == (502, "upstream_invalid")
    assert len(upstream.paths) == 1


# --- Upstreams that are not there --------------------------------------------------------------------------------


async def test_an_upstream_that_never_answers(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    upstream.handler = handler
    proxy = await make_proxy(first_byte_timeout=0.2)
    status, answer = await post(proxy.url)
    assert (status, error_of(answer)["code"]) == (504, "upstream_timeout")
    assert failures(proxy) == {"upstream_timeout": 1}
    await asyncio.wait_for(upstream.cancelled.wait(), 1)


async def test_an_upstream_that_refuses_connections(make_proxy: ProxyFactory, unused_tcp_port: int) -> None:
    proxy = await make_proxy(upstream=f"http://127.0.0.1:{unused_tcp_port}")
    status, answer = await post(proxy.url)
    assert (status, error_of(answer)["code"]) == (502, "upstream_error")
    assert failures(proxy) == {"upstream_error": 1}


# --- Detectors ---------------------------------------------------------------------------------------------------


class _Raising:
    """A detector that fails on the word 'boom'."""

    name = "raising"
    entities = frozenset({"PERSON"})

    def open(self, scope: Scope) -> Session:
        return self

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        raise RuntimeError("choked on " + text)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("on_error", ["closed", "open"])
async def test_a_detector_that_raises(
    upstream: Upstream, make_proxy: ProxyFactory, caplog: pytest.LogCaptureFixture, on_error: str, streamed: bool
) -> None:
    policy = f"version: 1\nname: t\non_error: {on_error}\nrules:\n  - entities: [ALL]\n    action: redact\n"
    detector: Detector = _Raising()
    if streamed:
        upstream.handler = streaming([chunk({"content": "boom text"}), finish(), DONE])
    else:
        upstream.handler = whole(GOOD.replace(b"mail", b"boom"))
    proxy = await make_proxy(parse(policy, "t.yaml", None), (detector,))
    _, answer = await post(proxy.url, stream=streamed)
    if on_error == "closed":
        assert "boom" not in answer
        assert error_of(answer)["code"] == "moderation_failed"
        assert failures(proxy) == {"moderation_failed": 1}
        assert failures(proxy, "open") == {}
    else:
        assert "boom" in answer
        assert failures(proxy) == {}
        assert failures(proxy, "open") == {"moderation_failed": 1}
    assert "boom" not in caplog.text
    assert "choked" not in caplog.text


# --- Clients -----------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_a_silent_stream(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(HEAD)
        await asyncio.sleep(30)
        return response

    upstream.handler = handler
    proxy = await make_proxy(keep_alive_after=60)
    await _leaves_within(upstream, proxy, asyncio.Event())


async def test_a_client_that_leaves_before_the_first_byte(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    asked = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.sleep(30)
        return web.Response()

    upstream.handler = handler
    proxy = await make_proxy()
    await _leaves_within(upstream, proxy, asked)


async def _leaves_within(upstream: Upstream, proxy: Proxy, asked: asyncio.Event) -> None:
    """The upstream must be cancelled within 100 ms; so that a busy machine does not matter, the best of five counts."""
    taken: list[float] = []
    for _ in range(5):
        upstream.cancelled.clear()
        asked.clear()
        async with aiohttp.ClientSession() as session:
            request = asyncio.create_task(session.post(proxy.url + CHAT_PATH, json=REQUEST))
            done, _ = await asyncio.wait({request, asyncio.create_task(asked.wait())}, return_when="FIRST_COMPLETED")
            if request in done:
                start = time.monotonic()
                request.result().close()
            else:
                start = time.monotonic()
                request.cancel()
                with suppress(asyncio.CancelledError):
                    await request
            await asyncio.wait_for(upstream.cancelled.wait(), 5)
            taken.append(time.monotonic() - start)
    assert min(taken) < 0.1
    assert b"cotguard_active_streams 0.0" in proxy.gateway.metrics.expose()


async def test_a_client_that_stops_reading(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    """The upstream may write what fits the buffers in between, and no more."""
    event = chunk({"content": "plain words and more of them. " * 100})
    wanted = 200 * 2**20
    written = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while written < wanted:
            await response.write(event)
            written += len(event)
        return response

    upstream.handler = handler
    proxy = await make_proxy()
    async with aiohttp.ClientSession() as session, session.post(proxy.url + CHAT_PATH, json=REQUEST) as response:
        await response.content.readany()
        stood, before = 0, -1
        while stood < 5:
            await asyncio.sleep(0.1)
            stood = stood + 1 if written == before else 0
            before = written
        assert written < 30 * 2**20
        response.close()
    await asyncio.wait_for(upstream.cancelled.wait(), 5)


@pytest.fixture
def thousands_of_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 10_000)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_thousand_connections_at_once(
    upstream: Upstream, make_proxy: ProxyFactory, thousands_of_files: None
) -> None:
    everyone = asyncio.Event()
    waiting = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal waiting
        waiting += 1
        if waiting == 1000:
            everyone.set()
        await everyone.wait()
        return await streaming([chunk({"content": "ann.lee@example.com ok"}), finish(), DONE])(request)

    upstream.handler = handler
    proxy = await make_proxy()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one() -> str:
            async with session.post(proxy.url + CHAT_PATH, json=REQUEST) as response:
                return texts(await response.text())[0, "content"]

        answers = await asyncio.gather(*(one() for _ in range(1000)))
    assert set(answers) == {"[EMAIL_ADDRESS] ok"}
    assert outcomes(proxy) == {("200", "ok"): 1000}


_JSON = {"Content-Type": "application/json"}
BAD_REQUESTS: dict[str, tuple[bytes, dict[str, str], int]] = {
    "bad JSON": (b'{"messages": [', _JSON, 400),
    "no object": (b"[]", _JSON, 400),
    "text": (b"{}", {"Content-Type": "text/plain"}, 415),
    "another charset": (b"{}", {"Content-Type": "application/json; charset=utf-16"}, 415),
    "unknown encoding": (b"{}", {**_JSON, "Content-Encoding": "snappy"}, 415),
    "broken gzip": (b"{}", {**_JSON, "Content-Encoding": "gzip"}, 415),
    "too large": (b'{"messages": [], "x": "' + b"a" * 2000 + b'"}', _JSON, 415),
}


@pytest.mark.parametrize("encoding", ENCODERS)
async def test_encoded_requests(upstream: Upstream, make_proxy: ProxyFactory, encoding: str) -> None:
    upstream.handler = streaming([STREAM])
    data = ENCODERS[encoding](json.dumps(REQUEST).encode())
    proxy = await make_proxy()
    headers = {**_JSON, "Content-Encoding": encoding}
    async with (
        aiohttp.ClientSession() as session,
        session.post(proxy.url + CHAT_PATH, data=data, headers=headers) as response,
    ):
        assert "[EMAIL_ADDRESS] now" in await response.text()
    assert json.loads(upstream.bodies[0])["messages"] == REQUEST["messages"]


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_bad_request(upstream: Upstream, make_proxy: ProxyFactory, name: str) -> None:
    data, headers, status = BAD_REQUESTS[name]
    proxy = await make_proxy(max_request_bytes=1000)
    async with (
        aiohttp.ClientSession() as session,
        session.post(proxy.url + CHAT_PATH, data=data, headers=headers) as response,
    ):
        assert response.status == status
        assert error_of(await response.text())["type"]
    assert upstream.paths == []
    assert outcomes(proxy) == {(str(status), "refused"): 1}
    assert failures(proxy) == {}
