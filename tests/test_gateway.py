"""The gateway's routes, headers and requests over loopback sockets. Leaks and faults have files of their own."""

import asyncio
import gc
import gzip
import json
import logging
import zlib
from collections.abc import Callable

import aiohttp
import anthropic
import brotli
import pytest
import zstandard
from aiohttp import web
from conftest import Accounts, ProxyFactory, Upstream, error_of
from google import genai
from scripted import CHAT_PATH, DONE, chunk, finish, post, streaming, texts

from cotguard.dialects.contract import Prepared
from cotguard.telemetry.logs import formatter


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/embeddings", "/slots", "/metrics", "/v1/chat/completions/x", "/v1/../slots"]
)
async def test_unknown_paths_never_reach_the_upstream(upstream: Upstream, make_proxy: ProxyFactory, path: str) -> None:
    proxy = await make_proxy()
    async with aiohttp.ClientSession() as session, session.post(proxy.url + path, json={}) as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] in ("not_found", "unsupported")
    assert upstream.paths == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "//V1/chat//completions/"])
async def test_spellings_of_the_moderated_path(upstream: Upstream, make_proxy: ProxyFactory, path: str) -> None:
    upstream.handler = streaming([chunk({"content": "mail ann.lee@example.com now"}), finish(), DONE])
    proxy = await make_proxy()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    async with aiohttp.ClientSession() as session, session.post(proxy.url + path, json=body) as response:
        assert "[EMAIL_ADDRESS] now" in await response.text()
    assert upstream.paths == ["/v1/chat/completions"]


async def test_usage_and_unknown_headers(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    choice = {"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}

    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"X-Reasoning-Trace": "ann.lee@example.com", "Set-Cookie": "a=b", "x-request-id": "r-1"}
        body = {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage}
        return web.json_response(body, headers=headers)

    upstream.handler = handler
    proxy = await make_proxy()
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(proxy.url + "/v1/chat/completions", json=body) as response,
    ):
        assert (await response.json())["usage"] == usage
        assert not {"X-Reasoning-Trace", "Set-Cookie"} & set(response.headers)


async def test_the_list_of_models_is_rebuilt(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"object": "list", "data": [{"id": "m", "object": "model", "system_prompt": "secret"}], "extra": 1}
        )

    upstream.handler = handler
    proxy = await make_proxy()
    async with aiohttp.ClientSession() as session, session.get(proxy.url + "/v1/models") as response:
        assert await response.json() == {"object": "list", "data": [{"id": "m", "object": "model"}]}


async def test_the_list_of_models_as_the_anthropic_sdk_reads_it(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.query == {"limit": "5"}
        model = {"id": "m", "type": "model", "display_name": "Model M", "created_at": "2026-01-01T00:00:00Z"}
        return web.json_response({"data": [model], "has_more": False, "first_id": "m", "last_id": "m"})

    upstream.handler = handler
    proxy = await make_proxy()
    async with anthropic.AsyncAnthropic(api_key="none", base_url=proxy.url) as sdk:
        listed = await sdk.models.list(limit=5)
    assert [(model.id, model.display_name) for model in listed.data] == [("m", "Model M")]


async def test_the_list_of_models_as_the_gemini_sdk_reads_it(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        model = {"name": "models/m", "displayName": "Model M", "inputTokenLimit": 9, "description": "secret words"}
        return web.json_response({"models": [model]})

    upstream.handler = handler
    proxy = await make_proxy()
    options = genai.types.HttpOptions(base_url=proxy.url, api_version="v1")
    with genai.Client(api_key="none", http_options=options) as sdk:
        listed = await asyncio.to_thread(lambda: list(sdk.models.list()))
    assert [(model.name, model.display_name, model.description) for model in listed] == [("models/m", "Model M", None)]


async def test_upgrades_and_queries_are_refused(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    proxy = await make_proxy()
    url = proxy.url + "/v1/chat/completions"
    async with aiohttp.ClientSession() as session:
        async with session.post(url, json={}, headers={"Connection": "upgrade", "Upgrade": "websocket"}) as response:
            assert response.status == 400
            assert "WebSocket" in json.loads(await response.text())["error"]["message"]
        async with session.post(url + "?beta=true", json={}) as response:
            assert response.status == 400
    assert upstream.paths == []


async def test_a_refused_head_is_told_by_its_id(
    make_proxy: ProxyFactory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        caplog.handler, "formatter", formatter("text")
    )  # formats when it is logged: the id is around it
    caplog.set_level(logging.INFO, "cotguard.access")
    proxy = await make_proxy()
    upgrade = {"Connection": "upgrade", "Upgrade": "websocket"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(proxy.url + CHAT_PATH, json={}, headers=upgrade) as response,
    ):
        assert response.status == 400
        request_id = response.headers["x-cotguard-request-id"]
    assert f"event=exchange request_id={request_id} " in caplog.text
    assert " outcome=refused " in caplog.text


async def test_what_a_detector_found_is_counted(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = streaming([chunk({"reasoning": "ann.lee@example.com and bob@example.org"}), finish(), DONE])
    proxy = await make_proxy()
    await post(proxy.url, stream=True)
    exposed = proxy.gateway.metrics.expose().decode()
    labels = 'action="redact",channel="reasoning",entity="EMAIL_ADDRESS",outcome="redacted"'
    assert f"cotguard_decisions_total{{{labels}}} 2.0" in exposed
    assert 'cotguard_requests_total{dialect="chat_completions",outcome="ok",status="200"} 1.0' in exposed
    for name in ("held_characters", "event_added_seconds", "held_seconds"):
        assert f"cotguard_{name}_count" in exposed


# --- Request bodies ----------------------------------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}
REQUEST = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
STREAM = chunk({"content": "mail ann.lee@example.com now"}) + finish() + DONE
LARGE = json.dumps({**REQUEST, "user": "a" * 2000}).encode()
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
BAD_REQUESTS: dict[str, tuple[bytes, dict[str, str], int]] = {
    "empty": (b"", JSON, 400),
    "bad JSON": (b'{"messages": [', JSON, 400),
    "not UTF-8": (b'{"messages": "\xff"}', JSON, 400),
    "no object": (b"[]", JSON, 400),
    "no list of messages": (b'{"messages": "ann.lee@example.com"}', JSON, 400),
    "too deep": (b'{"a":' * 190 + b"1" + b"}" * 190, JSON, 400),
    "no content type": (b"{}", {"Content-Type": ""}, 415),
    "text": (b"{}", {"Content-Type": "text/plain"}, 415),
    "another charset": (b"{}", {"Content-Type": "application/json; charset=utf-16"}, 415),
    "unknown encoding": (b"{}", {**JSON, "Content-Encoding": "snappy"}, 415),
    "broken gzip": (b"{}", {**JSON, "Content-Encoding": "gzip"}, 415),
    "compressed in disguise": (b"{}", {**JSON, "x-body-compressed": "zstd"}, 415),
}


async def send(url: str, data: bytes, headers: dict[str, str] = JSON) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + CHAT_PATH, data=data, headers=headers) as response,
    ):
        return response.status, await response.text()


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_bad_request(upstream: Upstream, make_proxy: ProxyFactory, name: str) -> None:
    data, headers, expected = BAD_REQUESTS[name]
    proxy = await make_proxy(max_request_bytes=2000)
    status, answer = await send(proxy.url, data, headers)
    assert status == expected
    assert error_of(answer)["type"] == "invalid_request_error"
    assert "ann" not in answer
    assert upstream.paths == []
    assert proxy.accounts == Accounts({(str(status), "refused"): 1}, {}, {})


@pytest.mark.parametrize("encoding", ["", *ENCODERS])
async def test_a_request_over_the_limit(upstream: Upstream, make_proxy: ProxyFactory, encoding: str) -> None:
    """The limit is on what is decoded."""
    proxy = await make_proxy(max_request_bytes=1000)
    data = ENCODERS[encoding](LARGE) if encoding else LARGE
    status, answer = await send(proxy.url, data, JSON | ({"Content-Encoding": encoding} if encoding else {}))
    assert error_of(answer)["type"] == "invalid_request_error"
    assert upstream.paths == []
    assert proxy.accounts == Accounts({(str(status), "refused"): 1}, {}, {})


async def test_a_request_over_the_limit_is_told_so(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    status, answer = await send((await make_proxy(max_request_bytes=1000)).url, LARGE)
    assert (status, error_of(answer)["code"]) == (413, "too_large")


async def test_a_key_that_comes_twice_goes_upstream_once(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    """So the upstream cannot read another request than the one that was checked."""
    upstream.handler = streaming([STREAM])
    data = b'{"logprobs": true, "stream": false, "stream": true, "messages": [], "messages": [{"role": "user"}]}'
    status, _ = await send((await make_proxy()).url, data)
    assert status == 200
    pairs = json.loads(upstream.bodies[0], object_pairs_hook=list)
    assert sorted(name for name, _ in pairs if name != "stream_options") == ["messages", "stream"]


@pytest.mark.parametrize("encoding", ENCODERS)
async def test_encoded_requests(upstream: Upstream, make_proxy: ProxyFactory, encoding: str) -> None:
    upstream.handler = streaming([STREAM])
    data = ENCODERS[encoding](json.dumps(REQUEST).encode())
    _, answer = await send((await make_proxy()).url, data, {**JSON, "Content-Encoding": encoding})
    assert "[EMAIL_ADDRESS] now" in answer
    assert json.loads(upstream.bodies[0])["messages"] == REQUEST["messages"]


async def test_a_request_is_not_kept_while_its_answer_streams(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    def alive() -> list[Prepared]:
        return [each for each in gc.get_objects() if isinstance(each, Prepared)]

    others: list[Prepared] = alive()
    sent: list[Prepared] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "one two"}))
        await asyncio.sleep(0.1)
        gc.collect()
        sent.extend(each for each in alive() if not any(each is other for other in others))
        await response.write(finish() + DONE)
        return response

    upstream.handler = handler
    proxy = await make_proxy()
    _, body = await post(proxy.url, stream=True)
    assert texts(body)[0, "content"] == "one two"
    assert [prepared.document for prepared in sent] == [{}]
