"""Two minimal streaming proxies to compare with: one that copies bytes, one that parses and writes every event.

``python -m loadtest.baselines pass-through|parse-and-write UPSTREAM``. They check nothing and moderate nothing: what
they cost is what aiohttp costs.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import aiohttp
import orjson
from aiohttp import web

from loadtest.dialects import DIALECTS
from loadtest.serving import serve

__all__ = ["BASELINES", "create_baseline"]

Pump = Callable[[aiohttp.ClientResponse, web.StreamResponse, bytes], Awaitable[None]]
"""From one response to the other, where each event ends with the separator given."""


async def _pass_through(upstream: aiohttp.ClientResponse, response: web.StreamResponse, _separator: bytes) -> None:
    async for data in upstream.content.iter_any():
        await response.write(data)


async def _parse_and_write(upstream: aiohttp.ClientResponse, response: web.StreamResponse, separator: bytes) -> None:
    rest = b""
    async for data in upstream.content.iter_any():
        *events, rest = (rest + data).split(separator)
        if events:
            await response.write(b"".join(_rewritten(event) + separator for event in events))


def _rewritten(event: bytes) -> bytes:
    name, label, data = event.rpartition(b"data: ")
    return name + label + (data if data == b"[DONE]" else orjson.dumps(orjson.loads(data)))


BASELINES: dict[str, Pump] = {"pass-through": _pass_through, "parse-and-write": _parse_and_write}


def create_baseline(pump: Pump, upstream: str) -> web.Application:
    """A proxy before ``upstream`` that moves response bodies with ``pump``."""
    session = web.AppKey("session", aiohttp.ClientSession)

    async def copy(separator: bytes, request: web.Request) -> web.StreamResponse:
        async with request.app[session].post(
            upstream + request.path, data=await request.read(), headers={"Content-Type": "application/json"}
        ) as received:
            response = web.StreamResponse(
                status=received.status, headers={"Content-Type": received.headers["Content-Type"]}
            )
            await response.prepare(request)
            await pump(received, response, separator)
        return response

    async def lifetime(app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as client:
            app[session] = client
            yield

    app = web.Application()
    for dialect in DIALECTS.values():
        app.router.add_post(dialect.path, partial(copy, dialect.separator))
    app.cleanup_ctx.append(lifetime)
    return app


if __name__ == "__main__":
    serve(create_baseline(BASELINES[sys.argv[1]], sys.argv[2]))
