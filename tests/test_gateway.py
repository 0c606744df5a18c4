"""The gateway's routes, headers and whole responses over loopback sockets. Leaks and faults have files of their own."""

import json

import aiohttp
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from scripted import DONE, chunk, finish, post, streaming


@pytest.mark.parametrize(
    "path", ["/", "/v1/embeddings", "/slots", "/metrics", "/v1/chat/completions/x", "/v1/../slots"]
)
async def test_unknown_paths_never_reach_the_upstream(upstream: Upstream, make_proxy: ProxyFactory, path: str) -> None:
    proxy = await make_proxy()
    async with aiohttp.ClientSession() as session, session.post(proxy.url + path, json={}) as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "not_found"
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
        return web.json_response({"data": [{"id": "m", "object": "model", "system_prompt": "secret"}], "extra": 1})

    upstream.handler = handler
    proxy = await make_proxy()
    async with aiohttp.ClientSession() as session, session.get(proxy.url + "/v1/models") as response:
        assert await response.json() == {"object": "list", "data": [{"id": "m", "object": "model"}]}


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
