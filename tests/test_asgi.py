"""The ASGI middleware: a Starlette application on a real uvicorn, asked by the OpenAI SDK and by plain clients."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio
import uvicorn
from conftest import error_of
from scripted import CHAT_PATH, DONE, chunk, events_of, finish, post, texts
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from yarl import URL

from cotguard import Moderator
from cotguard.asgi import ModerationMiddleware, middleware
from cotguard.classifier.bundle import DEFAULT, NONE
from cotguard.dialects.catalogue import dialects
from cotguard.telemetry.metrics import Metrics

DIALECTS = dialects()
MAIL = "mail ann.lee@example.com now"
MESSAGES: Any = [{"role": "user", "content": "x"}]

Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class Desk:
    """An application whose answer is set by the test."""

    url: str = ""
    handler: Handler | None = None
    metrics: Metrics = field(default_factory=Metrics)
    scopes: list[Mapping[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: Request) -> Response:
        self.scopes.append(request.scope)
        self.bodies.append(await request.body())
        assert self.handler is not None
        return await self.handler(request)

    def count(self, status: int, outcome: str, dialect: str = "chat_completions") -> float:
        labels = {"dialect": dialect, "status": str(status), "outcome": outcome}
        return self.metrics.registry.get_sample_value("cotguard_requests_total", labels) or 0


async def page(_request: Request) -> Response:
    return PlainTextResponse("write to ann.lee@example.com")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """A uvicorn that serves ``app`` on loopback."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, lifespan="on", ws="websockets-sansio", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.005)
        if serving.done():
            await serving
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    await serving
    listening.close()


MakeDesk = Callable[..., Awaitable[Desk]]


@pytest.fixture(scope="module")
def moderators() -> Iterator[Callable[[str], Moderator]]:
    """Policies are loaded once a run."""
    made: dict[str, Moderator] = {}

    def moderator(policy: str) -> Moderator:
        if policy not in made:
            made[policy] = Moderator(policy, bundle=NONE if policy == "egress" else DEFAULT)
        return made[policy]

    yield moderator
    for each in made.values():
        each.close()


@pytest_asyncio.fixture
async def make_desk(moderators: Callable[[str], Moderator], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeDesk]:
    servers: list[Any] = []
    monkeypatch.setattr(middleware, "dialects", lambda: DIALECTS)  # tables are read once a run, too

    async def make(*inside: Middleware, policy: str = "patterns-only", mount: str = "", **options: Any) -> Desk:
        desk = Desk()
        routes = [
            Route("/v1/chat/completions", desk.answer, methods=["POST"]),
            Route("/v1/messages", desk.answer, methods=["POST"]),
            Route("/v1/models", desk.answer),
            Route("/v1/audio/transcriptions", desk.answer, methods=["POST"]),
            Route("/about", page),
            Route("/health", page),
            WebSocketRoute("/live", echo),
        ]
        outside = Middleware(ModerationMiddleware, moderators(policy), metrics=desk.metrics, **options)
        app = Starlette(routes=routes, middleware=[outside, *inside])
        if mount:
            app = Starlette(routes=[Mount(mount, app=app)])
        server = serving(app)
        desk.url = await server.__aenter__()
        servers.append(server)
        return desk

    yield make
    for server in servers:
        await server.__aexit__(None, None, None)


def streamed(desk: Desk, *events: bytes, content_type: str = "text/event-stream", status: int = 200) -> Handler:
    async def handler(_request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                for event in events:
                    yield event
            finally:
                desk.ended.set()

        return StreamingResponse(body(), status, {"x-request-id": "r1", "x-own": MAIL}, content_type)

    return handler


def whole(document: object, status: int = 200) -> Handler:
    async def handler(_request: Request) -> Response:
        return JSONResponse(document, status)

    return handler


def completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "unknown": MAIL}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


async def get(url: str | URL, method: str = "GET", **options: Any) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.request(method, url, **options) as response:
        return response.status, await response.text()


async def test_the_openai_sdk_sees_a_moderated_stream_and_body(make_desk: MakeDesk) -> None:
    desk = await make_desk()
    client = openai.AsyncOpenAI(base_url=desk.url + "/v1", api_key="k", max_retries=0)
    said = [chunk({"reasoning_content": "think of ann.lee@"}), chunk({"reasoning_content": "example.com. "})]
    said += [chunk({"content": each}) for each in ("mail ann.", "lee@exa", "mple.com", " and so on")]
    desk.handler = streamed(desk, *said, finish(), DONE)
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    deltas = [event.choices[0].delta async for event in stream]
    assert "".join(delta.content or "" for delta in deltas) == "mail [EMAIL_ADDRESS] and so on"
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas) == "think of [EMAIL_ADDRESS]. "
    desk.handler = whole(completion(MAIL))
    found = await client.chat.completions.create(model="m", messages=MESSAGES)
    assert found.choices[0].message.content == "mail [EMAIL_ADDRESS] now"
    assert desk.count(200, "ok") == 2
    await client.close()


async def test_only_what_is_allowed_leaves(make_desk: MakeDesk) -> None:
    desk = await make_desk()
    desk.handler = streamed(desk, chunk({"content": "4", "unknown": MAIL}), finish(), DONE)
    request = {"model": "m", "messages": MESSAGES, "stream": True}
    address = desk.url + "//V1/Chat//Completions/"
    async with aiohttp.ClientSession() as session, session.post(address, json=request) as response:
        headers, body = response.headers, await response.text()
    assert (headers["x-request-id"], headers["cache-control"], "x-own" in headers) == ("r1", "no-store", False)
    assert "ann.lee" not in body
    assert desk.scopes[0]["path"] == CHAT_PATH  # whatever the spelling
    assert desk.scopes[0]["extensions"] == {}


async def test_a_stream_streams(make_desk: MakeDesk) -> None:
    desk = await make_desk()
    go_on = asyncio.Event()

    async def handler(_request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield chunk({"content": "The result is 4, which was to be shown. And then there is this: "})
            await go_on.wait()
            yield finish() + DONE

        return StreamingResponse(body(), media_type="text/event-stream")

    desk.handler = handler
    request = {"model": "m", "messages": MESSAGES, "stream": True}
    async with aiohttp.ClientSession() as session, session.post(desk.url + CHAT_PATH, json=request) as response:
        events = events_of(response)
        assert "The result is 4" in await asyncio.wait_for(anext(events), 5)
        go_on.set()
        assert [event async for event in events][-1] == "data: [DONE]"


async def test_a_client_that_leaves_ends_the_application(make_desk: MakeDesk) -> None:
    desk = await make_desk()

    async def handler(_request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                yield chunk({"content": "The result is 4, which was to be shown. And then there is this: "})
                await asyncio.Event().wait()
            finally:
                desk.ended.set()

        return StreamingResponse(body(), media_type="text/event-stream")

    desk.handler = handler
    async with aiohttp.ClientSession() as session:
        request = {"model": "m", "messages": MESSAGES, "stream": True}
        async with session.post(desk.url + CHAT_PATH, json=request) as response:
            await response.content.readany()
    await asyncio.wait_for(desk.ended.wait(), 5)
    async with asyncio.timeout(5):
        while not desk.count(499, "client_gone"):  # noqa: ASYNC110  # a metric tells nobody
            await asyncio.sleep(0.005)


async def test_the_classifier_works_in_the_stream(make_desk: MakeDesk) -> None:
    desk = await make_desk(policy="strict")
    desk.handler = streamed(desk, chunk({"content": "I asked Margaret Thornbury"}), finish(), DONE)
    _, body = await post(desk.url, stream=True)
    assert "Thornbury" not in texts(body)[0, "content"]
    desk.handler = whole(completion("I asked Margaret Thornbury"))
    _, body = await post(desk.url)
    assert "Thornbury" not in body


async def test_other_paths_are_refused_unless_they_are_listed(make_desk: MakeDesk) -> None:
    desk = await make_desk(passthrough=["/about", "/health", "/v1/chat/*", "/live", "/static/*"])
    assert await get(desk.url + "/about") == (200, "write to ann.lee@example.com")
    assert await get(desk.url + "/health") == (200, "write to ann.lee@example.com")  # of llama.cpp, if not listed
    status, body = await get(desk.url + "/elsewhere")
    assert (status, error_of(body)["code"]) == (404, "not_found")
    assert (await get(desk.url + "/v1/embeddings", "POST", json={}))[0] == 404
    assert (await get(URL(desk.url + "/static/%2e%2e/about", encoded=True)))[0] == 404
    desk.handler = whole(completion(MAIL))
    assert "ann.lee" not in (await post(desk.url))[1]  # what generates text cannot be listed
    async with aiohttp.ClientSession() as session, session.ws_connect(desk.url + "/live") as live:
        assert await live.receive_str() == "hello"


async def test_websockets_and_pages_are_refused_by_default(make_desk: MakeDesk) -> None:
    desk = await make_desk()
    assert (await get(desk.url + "/about"))[0] == 404
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await session.ws_connect(desk.url + "/live")


async def test_a_lookup_is_copied_through_the_table(make_desk: MakeDesk) -> None:
    desk = await make_desk()
    models = {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "o", "note": MAIL}]}
    desk.handler = whole(models)
    status, body = await get(desk.url + "/v1/models")
    assert (status, json.loads(body)["data"][0]["id"]) == (200, "m")
    assert "ann.lee" not in body


async def test_a_mounted_application(make_desk: MakeDesk) -> None:
    desk = await make_desk(mount="/llm")
    desk.handler = whole(completion(MAIL))
    status, body = await post(desk.url + "/llm")
    assert (status, "[EMAIL_ADDRESS]" in body) == (200, True)
    assert (await post(desk.url))[0] == 404


async def test_requests_are_moderated(make_desk: MakeDesk) -> None:
    desk = await make_desk(policy="egress")
    desk.handler = streamed(desk, chunk({"content": "Dear [EMAIL_"}), chunk({"content": "ADDRESS_1]"}), finish(), DONE)
    said = [{"role": "user", "content": "greet ann.lee@example.com"}]
    _, body = await post(desk.url, stream=True, messages=said)
    assert json.loads(desk.bodies[0])["messages"][0]["content"] == "greet [EMAIL_ADDRESS_1]"
    assert texts(body)[0, "content"] == "Dear ann.lee@example.com"


async def test_a_request_that_is_refused_does_not_reach_the_application(make_desk: MakeDesk) -> None:
    desk = await make_desk(max_request_bytes=1000)
    address = desk.url + CHAT_PATH
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"data": b"{", "headers": {"content-type": "application/json"}}, 400, "bad_request"),
        ({"data": b"{}", "headers": {"content-type": "text/plain"}}, 415, "unsupported"),
        ({"json": {"model": "m", "messages": [{"role": "user", "content": "x" * 1000}]}}, 413, "too_large"),
        ({"json": {}, "params": {"key": "1", "x": "2"}}, 400, "bad_request"),
    ]
    for options, status, code in cases:
        got, body = await get(address, "POST", **options)
        assert (got, error_of(body)["code"]) == (status, code)
    assert desk.bodies == []


async def test_errors_of_the_application_are_rebuilt(make_desk: MakeDesk) -> None:
    desk = await make_desk()
    desk.handler = whole({"error": {"message": MAIL, "type": "rate_limit_error", "code": "slow"}}, 429)
    status, body = await post(desk.url)
    assert (status, error_of(body)["message"]) == (429, "The upstream answered with status 429.")


@pytest.mark.parametrize(
    ("events", "content_type", "status", "code"),
    [
        ([chunk({"content": MAIL})], "text/event-stream", 200, "upstream_interrupted"),
        ([chunk({"content": "x"}), b"data: {{{\n\n"], "text/event-stream", 200, "upstream_invalid"),
        ([MAIL.encode()], "text/plain", 502, "upstream_invalid"),
        ([b"{"], "application/json", 502, "upstream_invalid"),
    ],
)
async def test_faults_end_in_the_dialects_shape(
    make_desk: MakeDesk, events: list[bytes], content_type: str, status: int, code: str
) -> None:
    desk = await make_desk()
    desk.handler = streamed(desk, *events, content_type=content_type)
    got, body = await post(desk.url, stream=True)
    assert (got, error_of(body)["code"]) == (status, code)
    assert "ann.lee" not in body
    assert "[DONE]" not in body
    assert desk.count(status, "failed") == 1


async def test_an_application_that_raises_is_told_as_a_fault(make_desk: MakeDesk) -> None:
    desk = await make_desk()

    async def handler(_request: Request) -> Response:
        raise RuntimeError(MAIL)

    desk.handler = handler
    status, body = await post(desk.url)
    assert status >= 500
    assert "ann.lee" not in body


async def test_a_block_ends_the_response_and_the_application(make_desk: MakeDesk, tmp_path: Any) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text("version: 1\nname: t\nclassifier: false\nrules: [{entities: [EMAIL_ADDRESS], action: block}]\n")
    desk = await make_desk(policy=str(policy))

    async def handler(_request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                while True:  # a model that does not stop
                    yield chunk({"content": f"{MAIL} "})
                    await asyncio.sleep(0)
            finally:
                desk.ended.set()

        return StreamingResponse(body(), media_type="text/event-stream")

    desk.handler = handler
    _, body = await post(desk.url, stream=True)
    assert '"content_filter"' in body
    assert texts(body)[0, "content"] == "mail "
    await asyncio.wait_for(desk.ended.wait(), 5)
    assert desk.count(200, "ok") == 1


async def test_what_is_compressed_inside_is_read(make_desk: MakeDesk) -> None:
    desk = await make_desk(Middleware(GZipMiddleware, minimum_size=1))
    desk.handler = whole(completion(MAIL))
    status, body = await post(desk.url)
    assert (status, "[EMAIL_ADDRESS]" in body) == (200, True)


async def test_a_form_is_written_anew(make_desk: MakeDesk) -> None:
    desk = await make_desk()
    desk.handler = whole({"text": MAIL})
    form = aiohttp.FormData({"model": "whisper-1"})
    form.add_field("file", b"RIFF", filename="a.wav", content_type="audio/wav")
    status, body = await get(desk.url + "/v1/audio/transcriptions", "POST", data=form)
    assert (status, json.loads(body)["text"]) == (200, "mail [EMAIL_ADDRESS] now")
    assert b"RIFF" in desk.bodies[0]


async def test_the_other_dialects_shapes(make_desk: MakeDesk) -> None:
    desk = await make_desk()
    desk.handler = whole({"type": "message"}, 500)
    request = {"model": "m", "max_tokens": 9, "messages": MESSAGES}
    status, body = await get(desk.url + "/v1/messages", "POST", json=request)
    assert (status, json.loads(body)["type"]) == (500, "error")
    assert json.loads(body)["error"]["message"] == "The upstream answered with status 500."
