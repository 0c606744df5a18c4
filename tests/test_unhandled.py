"""Faults that nobody handled: the log tells their type and place, and nothing of what they were about."""

import asyncio
import logging
from functools import partial

import pytest
from aiohttp import web

from cotguard.gateway.unhandled import SERVER_LOG, log_fault

SECRET = "sk-4711-hunter2"


async def answer(sent: bytes) -> bytes:
    """What a server answers whose handler raises."""

    async def handler(_request: web.Request) -> web.Response:
        raise KeyError(SECRET)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, logger=SERVER_LOG)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    writer.write(sent)
    received = await reader.read()
    writer.close()
    await runner.cleanup()
    return received


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        (f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {SECRET}\x0b\r\n\r\n", 400, "BadHttpMessage"),
        (f"GET /{SECRET}\x0b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "InvalidURLError"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 500, "KeyError"),
    ],
)
async def test_what_the_server_logs(caplog: pytest.LogCaptureFixture, sent: str, status: int, error: str) -> None:
    caplog.set_level(logging.DEBUG)
    assert f" {status} ".encode() in await answer(sent.encode())
    assert f"Error handling request from 127.0.0.1 error={error} at=" in caplog.text
    assert SECRET not in caplog.text
    assert "Traceback" not in caplog.text


async def test_what_the_loop_logs(caplog: pytest.LogCaptureFixture) -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_fault)
    loop.call_soon(partial(fail, SECRET))
    loop.call_exception_handler({"message": "Task was destroyed but it is pending!", "task": SECRET})
    await asyncio.sleep(0)
    assert f"Exception error=ValueError at={__file__}:" in caplog.text
    assert "Task was destroyed but it is pending!" in caplog.text
    assert SECRET not in caplog.text
