"""Faults of upstreams, clients and detectors, each tried over a socket.

Whatever happens, nothing undecided is delivered, the client gets an error of the dialect's shape, and the fault is
counted under its kind.
"""

import asyncio
import gzip
import json
import resource
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import brotli
import psutil
import pytest
import zstandard
from aiohttp import web
from conftest import Accounts, Handler, Proxy, ProxyFactory, Upstream, error_of
from scripted import CHAT_PATH, DONE, chunk, finish, post, streaming, texts

from cotguard.detectors.contract import Detector, Scope, Session
from cotguard.detectors.registry import build
from cotguard.dialects.contract import ErrorKind, Translator, Undelivered
from cotguard.framing.sse import MAX_EVENT_BYTES
from cotguard.gateway.call import Call
from cotguard.gateway.responses import Responses
from cotguard.http.encodings import Decoder, EncodingError
from cotguard.policy import parse
from cotguard.spans import Span

HEAD = chunk({"content": "mail ann.le"})
REQUEST = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}


def failed(status: int, kind: str) -> Accounts:
    """What is counted when one exchange fails closed."""
    return Accounts({(str(status), "failed"): 1}, {kind: 1}, {})


def answered(count: int = 1) -> Accounts:
    """What is counted when all went well."""
    return Accounts({("200", "ok"): count}, {}, {})


# --- Streams -----------------------------------------------------------------------------------------------------

BROKEN_STREAMS = {
    "cut mid-value": ([HEAD], "upstream_interrupted"),
    "cut mid-event": ([HEAD, b'data: {"choices": [{"ind'], "upstream_invalid"),
    "malformed JSON": ([HEAD, b"data: {oops\n\n"], "upstream_invalid"),
    "not UTF-8": ([HEAD, b'data: {"choices": "\xff\xfe"}\n\n'], "upstream_invalid"),
    "no object": ([HEAD, b"data: 4\n\n"], "upstream_invalid"),
    "wrong type": ([HEAD, b'data: {"choices": [{"index": 0, "delta": {"content": 5}}]}\n\n'], "upstream_invalid"),
    "a choice too many": ([HEAD, chunk({"content": "x"}, index=7)], "upstream_invalid"),
    "an error event": (
        [HEAD, b'data: {"error": {"message": "ann.lee@example.com", "code": 500}}\n\n'],
        "upstream_error",
    ),
    "a line over the limit": ([HEAD, b"data: " + b"a" * (MAX_EVENT_BYTES + 1)], "upstream_invalid"),
    "lines over the limit": ([HEAD, (b"data: " + b"a" * 2**20 + b"\n") * 33], "upstream_invalid"),
    "nothing": ([], "upstream_interrupted"),
}


@pytest.mark.parametrize("name", BROKEN_STREAMS)
async def test_a_broken_stream(upstream: Upstream, make_proxy: ProxyFactory, name: str) -> None:
    events, kind = BROKEN_STREAMS[name]
    upstream.handler = streaming(events)
    proxy = await make_proxy()
    status, body = await post(proxy.url, stream=True)
    error = error_of(body)
    assert status == 200
    assert "ann" not in body
    assert "[DONE]" not in body
    if name == "an error event":  # of which the upstream's own numeric code is kept
        assert (error["type"], error["code"]) == ("upstream_error", 500)
    else:
        assert (error["type"], error["code"]) == ("server_error", kind)
    assert proxy.accounts == failed(200, kind)


class Breaking:
    """A translator that breaks where it is asked for the ``at``-th time, and where it is to end in a fault if ``fail``.

    It has moderated what it was given before it breaks.
    """

    def __init__(self, inner: Translator, at: int, *, fail: bool) -> None:
        self.inner = inner
        self.left = at
        self.breaks = fail

    @property
    def content_type(self) -> str:
        return self.inner.content_type

    @property
    def finished(self) -> bool:
        return self.inner.finished

    def receive(self, data: bytes) -> bytes:
        return self._unless_broken(self.inner.receive(data))

    def end(self) -> bytes:
        return self._unless_broken(self.inner.end())

    def fail(self, kind: ErrorKind, message: str, undelivered: Undelivered = Undelivered.NOTHING) -> bytes:
        if self.breaks:
            raise TypeError("of ann.lee@example.com")
        return self.inner.fail(kind, message, undelivered)

    def keep_alive(self) -> bytes:
        return self.inner.keep_alive()

    def _unless_broken(self, written: bytes) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise TypeError("of ann.lee@example.com")
        return written


TEXT = "one and two, and three and so on"


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_stream_that_is_broken_here(
    upstream: Upstream,
    make_proxy: ProxyFactory,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    fail: bool,
) -> None:
    """A fault of ours: one answer all the same, whose stream ends in the dialect's error, or breaks off."""
    upstream.handler = slowly([chunk({"content": TEXT[:9]}), chunk({"content": TEXT[9:]}), finish() + DONE])

    streamed = Responses._streamed

    async def broken(self: Responses, call: Call, translator: Translator, *rest: Any) -> web.StreamResponse:
        return await streamed(self, call, Breaking(translator, at, fail=fail), *rest)

    monkeypatch.setattr(Responses, "_streamed", broken)
    proxy = await make_proxy()
    if fail:
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(post(proxy.url, stream=True), 10)
    else:
        status, body = await asyncio.wait_for(post(proxy.url, stream=True), 10)
        assert (status, error_of(body)["code"]) == (200, "moderation_failed")
        delivered = texts(body.partition('data: {"error"')[0]).get((0, "content"), "")
        assert TEXT.startswith(delivered)
        assert bool(delivered) == (at > 1)  # of one event all is on hold
    assert proxy.accounts == failed(200, "moderation_failed")


def slowly(events: list[bytes]) -> Handler:
    """Each event is read by itself."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(event)
            await asyncio.sleep(0.2)
        return response

    return handler


async def test_a_connection_cut_mid_value(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    """Without the end of the body that a well-behaved server writes."""
    upstream.handler = aborting(HEAD, "text/event-stream")
    proxy = await make_proxy()
    _, body = await post(proxy.url, stream=True)
    assert texts(body.partition('data: {"error"')[0]) == {(0, "content"): "mail "}
    assert error_of(body)["code"] == "upstream_interrupted"
    assert proxy.accounts == failed(200, "upstream_interrupted")


async def test_an_event_of_twenty_megabytes(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    """Below the limit: moderated like any other. One detector, because all of them take seconds for it."""
    policy = parse("version: 1\nname: t\nrules:\n  - entities: [EMAIL_ADDRESS]\n    action: redact\n", "t.yaml", None)
    text = "plain words and more of them, " * (20 * 2**20 // 30) + "mail ann.lee@example.com now"
    upstream.handler = streaming([chunk({"content": text}), finish(), DONE])
    proxy = await make_proxy(policy, build(policy))
    _, body = await post(proxy.url, stream=True)
    assert texts(body)[0, "content"] == text.replace("ann.lee@example.com", "[EMAIL_ADDRESS]")
    assert proxy.accounts == answered()


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
    proxy = await make_proxy()
    _, body = await post(proxy.url, stream=True)
    assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"
    assert proxy.accounts == answered()


@pytest.mark.parametrize("encoding", ENCODERS)
async def test_encoded_streams_that_do_not_decode(upstream: Upstream, make_proxy: ProxyFactory, encoding: str) -> None:
    upstream.handler = streaming([b"\x00\x01\x02 ann.lee@example.com"], {"Content-Encoding": encoding})
    proxy = await make_proxy()
    _, body = await post(proxy.url, stream=True)
    assert error_of(body)["code"] == "upstream_invalid"
    assert "ann" not in body
    assert proxy.accounts == failed(200, "upstream_invalid")


@pytest.mark.parametrize("encoding", ENCODERS)
async def test_encoded_streams_that_break_off(upstream: Upstream, make_proxy: ProxyFactory, encoding: str) -> None:
    packed = ENCODERS[encoding](HEAD)
    upstream.handler = streaming([packed[:-6]], {"Content-Encoding": encoding})
    proxy = await make_proxy()
    _, body = await post(proxy.url, stream=True)
    assert "ann" not in body
    (kind,) = proxy.accounts.closed
    assert error_of(body)["code"] == kind
    assert proxy.accounts == failed(200, kind)


async def test_an_unknown_encoding_of_a_stream(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = streaming([HEAD], {"Content-Encoding": "snappy"})
    proxy = await make_proxy()
    _, body = await post(proxy.url, stream=True)
    assert error_of(body)["code"] == "upstream_invalid"
    assert "ann" not in body
    assert proxy.accounts == failed(502, "upstream_invalid")


BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(b"\n" * 2**26, 1),
    "deflate": lambda: zlib.compress(b"\n" * 2**26, 1),
    "br": lambda: brotli.compress(b"\n" * 2**26, quality=1),
    "zstd": lambda: zstandard.compress(b"\n" * 2**26),
}


@pytest.mark.parametrize("encoding", BOMBS)
def test_a_small_piece_that_decodes_to_a_large_one(encoding: str) -> None:
    """A stream has no limit as a whole; what one read brings must have one."""
    bomb = BOMBS[encoding]()
    before = psutil.Process().memory_info().rss
    with pytest.raises(EncodingError):
        Decoder(encoding, 2**62).feed(bomb)
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


def silent_after(body: bytes, content_type: str = "text/event-stream") -> Handler:
    """An upstream that begins and never goes on."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        await response.write(body)
        await asyncio.sleep(30)
        return response

    return handler


async def test_an_upstream_that_falls_silent(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = silent_after(HEAD)
    proxy = await make_proxy(idle_timeout=1, keep_alive_after=0.3)
    _, body = await post(proxy.url, stream=True)
    assert "mail " in texts(body)[0, "content"]
    assert "ann" not in body
    assert body.count(": keep-alive") in (2, 3)
    assert error_of(body)["code"] == "upstream_timeout"
    assert proxy.accounts == failed(200, "upstream_timeout")
    await asyncio.wait_for(upstream.cancelled.wait(), 5)


# --- Whole responses ---------------------------------------------------------------------------------------------


def whole(
    body: bytes, status: int = 200, content_type: str = "application/json", headers: dict[str, str] | None = None
) -> Handler:
    """An upstream that answers at once."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, content_type=content_type, headers=headers)

    return handler


def aborting(body: bytes, content_type: str = "application/json", status: int = 200) -> Handler:
    """An upstream that is gone in the midst of its answer."""

    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": content_type, "Content-Length": "5000"}
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        await response.write(body)
        await asyncio.sleep(0.05)  # an abort takes back what was not sent yet
        assert request.transport is not None
        request.transport.abort()
        return response

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
    assert proxy.accounts == failed(502, "upstream_invalid")


async def test_a_whole_response_that_breaks_off(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = aborting(GOOD)
    proxy = await make_proxy()
    status, answer = await post(proxy.url)
    assert status == 502
    assert "ann" not in answer
    assert error_of(answer)["code"] == "upstream_interrupted"
    assert proxy.accounts == failed(502, "upstream_interrupted")


async def test_a_whole_response_over_the_limit(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = whole(GOOD)
    proxy = await make_proxy(max_response_bytes=50)
    status, answer = await post(proxy.url)
    assert (status, error_of(answer)["code"]) == (502, "upstream_invalid")
    assert proxy.accounts == failed(502, "upstream_invalid")


@pytest.mark.parametrize("encoding", ENCODERS)
async def test_encoded_whole_responses(upstream: Upstream, make_proxy: ProxyFactory, encoding: str) -> None:
    upstream.handler = whole(ENCODERS[encoding](GOOD), headers={"Content-Encoding": encoding})
    proxy = await make_proxy()
    _, answer = await post(proxy.url)
    assert json.loads(answer)["choices"][0]["message"]["content"] == "mail [EMAIL_ADDRESS]"
    assert proxy.accounts == answered()


@pytest.mark.parametrize("encoding", [*ENCODERS, "snappy"])
async def test_encoded_whole_responses_that_do_not_decode(
    upstream: Upstream, make_proxy: ProxyFactory, encoding: str
) -> None:
    body = ENCODERS[encoding](GOOD)[: len(GOOD) // 2] if encoding in ENCODERS else GOOD
    upstream.handler = whole(body, headers={"Content-Encoding": encoding})
    proxy = await make_proxy()
    status, answer = await post(proxy.url)
    assert (status, error_of(answer)["code"]) == (502, "upstream_invalid")
    assert "ann" not in answer
    assert proxy.accounts == failed(502, "upstream_invalid")


async def test_a_whole_response_that_stops_midway(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = silent_after(GOOD[:-20], "application/json")
    proxy = await make_proxy(idle_timeout=0.5)
    status, answer = await post(proxy.url)
    assert (status, error_of(answer)["code"]) == (504, "upstream_timeout")
    assert "ann" not in answer
    assert proxy.accounts == failed(504, "upstream_timeout")
    await asyncio.wait_for(upstream.cancelled.wait(), 5)


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
    assert error_of(answer)["type"] == "invalid_request_error"
    assert proxy.accounts == Accounts({(str(status), "upstream_error"): 1}, {}, {})


async def test_an_upstream_error_that_breaks_off(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = aborting(GOOD, status=500)
    proxy = await make_proxy()
    status, answer = await post(proxy.url)
    assert (status, error_of(answer)["code"]) == (502, "upstream_interrupted")
    assert "ann" not in answer
    assert proxy.accounts == failed(502, "upstream_interrupted")


async def test_a_redirect_is_not_followed(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = whole(b"", 302, headers={"Location": "/v1/chat/completions"})
    proxy = await make_proxy()
    status, answer = await post(proxy.url)
    assert (status, error_of(answer)["code"]) == (502, "upstream_invalid")
    assert len(upstream.paths) == 1
    assert proxy.accounts == failed(502, "upstream_invalid")


# --- Upstreams that are not there --------------------------------------------------------------------------------


async def test_an_upstream_that_never_answers(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    upstream.handler = handler
    proxy = await make_proxy(first_byte_timeout=1)
    status, answer = await post(proxy.url)
    assert (status, error_of(answer)["code"]) == (504, "upstream_timeout")
    assert proxy.accounts == failed(504, "upstream_timeout")
    await asyncio.wait_for(upstream.cancelled.wait(), 5)


async def test_an_upstream_that_refuses_connections(make_proxy: ProxyFactory, unused_tcp_port: int) -> None:
    proxy = await make_proxy(upstream=f"http://127.0.0.1:{unused_tcp_port}")
    status, answer = await post(proxy.url)
    assert (status, error_of(answer)["code"]) == (502, "upstream_error")
    assert proxy.accounts == failed(502, "upstream_error")


@pytest.mark.parametrize("said", [b"", b"lee@example.com\r\n\r\n", b"HTTP/1.1 200 OK\r\nServer: lee"])
async def test_an_upstream_that_speaks_no_http(make_proxy: ProxyFactory, said: bytes) -> None:
    asked = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        proxy = await make_proxy(upstream=f"http://{host}:{port}")
        status, answer = await post(proxy.url)
    assert (status, error_of(answer)["code"]) == (502, "upstream_error")
    assert "lee" not in answer
    assert asked == 1  # a generation is never asked for twice
    assert proxy.accounts == failed(502, "upstream_error")


# --- Detectors ---------------------------------------------------------------------------------------------------


class _Raising:
    """A detector that fails on the word 'boom'."""

    name = "raising"
    entities = frozenset({"PERSON"})

    def open(self, scope: Scope) -> Session:
        return self

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        raise RuntimeError("choked on " + text)


RAISING = "version: 1\nname: t\non_error: {}\nrules:\n  - entities: [ALL]\n    action: redact\n"


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("on_error", ["closed", "open"])
async def test_a_detector_that_raises(
    upstream: Upstream, make_proxy: ProxyFactory, caplog: pytest.LogCaptureFixture, on_error: str, streamed: bool
) -> None:
    detector: Detector = _Raising()
    if streamed:
        upstream.handler = streaming([chunk({"content": "boom text"}), finish(), DONE])
    else:
        upstream.handler = whole(GOOD.replace(b"mail", b"boom"))
    proxy = await make_proxy(parse(RAISING.format(on_error), "t.yaml", None), (detector,))
    _, answer = await post(proxy.url, stream=streamed)
    if on_error == "closed":
        assert "boom" not in answer
        assert error_of(answer)["code"] == "moderation_failed"
        assert proxy.accounts == failed(200 if streamed else 500, "moderation_failed")
    else:
        assert "boom" in answer
        assert proxy.accounts.closed == {}
        assert proxy.accounts.opened == {"moderation_failed": 1}
    assert "boom" not in caplog.text
    assert "choked" not in caplog.text


async def test_what_went_on_unmoderated_is_no_success(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = streaming([chunk({"content": "boom text"}), finish(), DONE])
    proxy = await make_proxy(parse(RAISING.format("open"), "t.yaml", None), (_Raising(),))
    await post(proxy.url, stream=True)
    assert ("200", "ok") not in proxy.accounts.requests


# --- Clients -----------------------------------------------------------------------------------------------------


async def _never(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def _talking(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for _ in range(3000):
        await response.write(chunk({"content": "plain words "}))
        await asyncio.sleep(0.01)
    return response


LEFT: dict[str, Handler] = {
    "before the first byte": _never,
    "a silent stream": silent_after(HEAD),
    "a stream under way": _talking,
}


async def _leave(upstream: Upstream, proxy: Proxy) -> float:
    """Seconds from a client's leaving to the end of the upstream's request."""
    upstream.cancelled.clear()
    upstream.asked.clear()
    async with aiohttp.ClientSession() as session:
        request = asyncio.create_task(session.post(proxy.url + CHAT_PATH, json=REQUEST))
        await upstream.asked.wait()
        await asyncio.wait({request}, timeout=0.1)
        start = time.monotonic()
        if request.done():
            request.result().close()
        else:
            request.cancel()
            with suppress(asyncio.CancelledError):
                await request
        await asyncio.wait_for(upstream.cancelled.wait(), 5)
        return time.monotonic() - start


@pytest.mark.parametrize("when", LEFT)
async def test_a_client_that_leaves(upstream: Upstream, make_proxy: ProxyFactory, when: str) -> None:
    """The upstream is cancelled within 100 ms; so that a busy machine does not matter, the best of three counts."""
    upstream.handler = LEFT[when]
    proxy = await make_proxy(keep_alive_after=60)
    assert min([await _leave(upstream, proxy) for _ in range(3)]) < 0.1
    assert b"cotguard_active_streams 0.0" in proxy.gateway.metrics.expose()
    assert proxy.accounts.closed == {}


@pytest.mark.parametrize("when", LEFT)
async def test_a_client_that_leaves_is_counted(upstream: Upstream, make_proxy: ProxyFactory, when: str) -> None:
    upstream.handler = LEFT[when]
    proxy = await make_proxy(keep_alive_after=60)
    await _leave(upstream, proxy)
    assert [(outcome, count) for (_, outcome), count in proxy.accounts.requests.items()] == [("client_gone", 1)]


async def test_a_client_that_stops_reading(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    """The upstream may write what fits the kernel's buffers in between, and no more; others are served meanwhile."""
    event = chunk({"content": "plain words and more of them. " * 100})
    wanted = 200 * 2**20
    written = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal written
        assert request.transport is not None
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while written < wanted:
            await response.write(event)
            written += len(event)
        return response

    upstream.handler = flood
    proxy = await make_proxy()
    host, port = proxy.url.removeprefix("http://").split(":")
    body = json.dumps(REQUEST).encode()
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        client.connect((host, int(port)))
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        stood, before = 0, -1
        while stood < 5:
            await asyncio.sleep(0.1)
            stood = stood + 1 if written == before > 0 else 0
            before = written
        # 6 MB were measured: the send and receive buffers that Linux gives the proxy's two sockets.
        assert written < 16 * 2**20
        upstream.handler = streaming([STREAM])
        _, answer = await asyncio.wait_for(post(proxy.url, stream=True), 5)
        assert "[EMAIL_ADDRESS]" in answer
        assert not upstream.cancelled.is_set()
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
    assert proxy.accounts == answered(1000)
