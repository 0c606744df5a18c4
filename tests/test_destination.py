"""Nothing that a client writes chooses where its request goes: request targets, hosts, headers, on a raw socket."""

import asyncio
import json

import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from scripted import CHAT_PATH

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
GEMINI = b'{"contents":[{"role":"user","parts":[{"text":"x"}]}]}'
NAMED = "gateway.example:8080"


async def send(url: str, line: str, *headers: str, body: bytes = BODY) -> int:
    """The status of a request that is written as it stands."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [line, *headers, "Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close"]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    status = int((await reader.readline()).split()[1])
    await reader.read()
    writer.close()
    return status


@pytest.fixture
def sent(upstream: Upstream) -> list[web.Request]:
    """What reaches the upstream."""
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response({"id": "c", "object": "chat.completion", "choices": []})

    upstream.handler = handler
    return seen


SAME = [
    (CHAT_PATH, [f"Host: {NAMED}"]),
    (CHAT_PATH, [f"Host: {NAMED}", "X-Forwarded-Host: evil.example", "Forwarded: host=evil.example", "Via: evil"]),
    (CHAT_PATH, [f"Host: {NAMED}", "X-Original-URL: /slots", "X-Rewrite-URL: /slots", "X-Forwarded-For: evil"]),
    (CHAT_PATH, [f"Host: {NAMED}", "X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE", "Cookie: a=evil"]),
    (CHAT_PATH, [f"Host: {NAMED}", "TE: trailers", "Trailer: evil", "Range: bytes=0-1", "Proxy-Authorization: evil"]),
]
STRANGERS = ("evil", "gateway.example", "169.254", "slots", "DELETE", "bytes=", "trailers")
NOWHERE = [
    (f"POST {CHAT_PATH} HTTP/1.1", [f"Host: {NAMED}", "Host: evil.example"]),
    (f"POST {CHAT_PATH} HTTP/1.1", []),
    ("CONNECT evil.example:443 HTTP/1.1", ["Host: evil.example:443"]),
    ("OPTIONS * HTTP/1.1", [f"Host: {NAMED}"]),
    (f"POST http://169.254.169.254{CHAT_PATH} HTTP/1.1", [f"Host: {NAMED}"]),
    (f"POST https://user@{NAMED}{CHAT_PATH} HTTP/1.1", ["Host: 169.254.169.254"]),
    (f"POST //evil.example{CHAT_PATH} HTTP/1.1", [f"Host: {NAMED}"]),
    (f"POST \\\\evil.example{CHAT_PATH} HTTP/1.1", [f"Host: {NAMED}"]),
    (f"POST {CHAT_PATH}@evil.example HTTP/1.1", [f"Host: {NAMED}"]),
    (f"POST @evil.example{CHAT_PATH} HTTP/1.1", [f"Host: {NAMED}"]),
    (f"GET {CHAT_PATH} HTTP/1.1", [f"Host: {NAMED}", "X-HTTP-Method-Override: POST"]),
    ("POST /v1/../slots HTTP/1.1", [f"Host: {NAMED}"]),
    ("POST /v1/%2e%2e/slots HTTP/1.1", [f"Host: {NAMED}"]),
]
NAMES = {
    "gemini-pro": "/v1beta/models/gemini-pro:generateContent",
    "a@evil.example": "/v1beta/models/a@evil.example:generateContent",
    "evil.example%2Fa@b": None,
    "a%2F..%2F..%2Fslots": None,
    "..%2Fslots": None,
    "a%3Fx=1": None,
    "a%23b": None,
    "a%0D%0AHost:%20evil": None,
}


async def test_the_upstream_is_the_settings_own(
    upstream: Upstream, make_proxy: ProxyFactory, sent: list[web.Request]
) -> None:
    proxy = await make_proxy()
    for target, headers in SAME:
        assert await send(proxy.url, f"POST {target} HTTP/1.1", *headers) == 200
        request = sent.pop()
        assert (request.method, request.raw_path) == ("POST", CHAT_PATH)
        assert request.headers["Host"] == upstream.url.removeprefix("http://")
        told = str(request.raw_headers)
        assert not [stranger for stranger in STRANGERS if stranger in told]


async def test_targets_that_are_none_go_nowhere(make_proxy: ProxyFactory, sent: list[web.Request]) -> None:
    proxy = await make_proxy()
    for line, headers in NOWHERE:
        assert await send(proxy.url, line, *headers) in (400, 404, 405), line
        assert sent == []


async def test_a_name_in_a_path_stays_in_its_segment(make_proxy: ProxyFactory, sent: list[web.Request]) -> None:
    proxy = await make_proxy()
    for model, path in NAMES.items():
        line = f"POST /v1beta/models/{model}:generateContent HTTP/1.1"
        status = await send(proxy.url, line, f"Host: {NAMED}", body=GEMINI)
        assert [request.raw_path for request in sent] == ([path] if path else [])
        assert path or status in (400, 404)
        sent.clear()
