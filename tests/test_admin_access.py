"""The admin port: what needs the token, and what a page in a browser cannot have without one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from cotguard.gateway.admin import create_admin_app
from cotguard.gateway.admin_access import _ADDRESSES, _FAILURES, _Failures
from cotguard.telemetry.totals import Snapshot

TOKEN = "0123456789abcdef"
Ask = Callable[..., Awaitable[aiohttp.ClientResponse]]


class Ready:
    """A gateway that takes requests."""

    async def hindrance(self) -> str:
        return ""

    async def analysis(self, path: str, body: bytes) -> tuple[int, bytes]:
        return 200, b"[]"

    async def metrics(self, accept: str) -> bytes:
        return b"a_metric 1\n"

    async def figures(self) -> Snapshot:
        return []

    async def console(self, name: str, about: Mapping[str, Any]) -> tuple[int, Any]:
        return 200, {}


@pytest_asyncio.fixture
async def admin() -> AsyncIterator[Callable[[str], Awaitable[Ask]]]:
    """Asks the admin port that has ``token``."""
    runners: list[web.AppRunner] = []
    session = aiohttp.ClientSession()

    async def make(token: str) -> Ask:
        runner = web.AppRunner(create_admin_app(Ready(), token))
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]

        async def ask(path: str = "/metrics", method: str = "GET", **headers: str) -> aiohttp.ClientResponse:
            async with session.request(method, f"http://{host}:{port}{path}", headers=headers) as response:
                await response.read()
            return response

        return ask

    yield make
    await session.close()
    for runner in runners:
        await runner.cleanup()


async def test_everything_but_probes_needs_the_token(admin: Callable[[str], Awaitable[Ask]]) -> None:
    ask = await admin(TOKEN)
    for path in ("/healthz", "/readyz"):
        assert (await ask(path)).status == 200
    for path in ("/metrics", "/analyze", "/healthz/x", "/healthz/../metrics", "//healthz"):
        refused = await ask(path)
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="cotguard"')
    assert (await ask("/healthz", "POST")).status == 401
    for authorization in (f"Bearer {TOKEN}", f"bearer  {TOKEN} "):
        response = await ask(Authorization=authorization)
        assert (response.status, await response.text()) == (200, "a_metric 1\n")


@pytest.mark.parametrize("sent", ["Basic {}", "{}", "Bearer {}x", "Bearer x{}", "Bearer {} x", "Bearer é{}"])
async def test_other_credentials_are_refused(admin: Callable[[str], Awaitable[Ask]], sent: str) -> None:
    ask = await admin(TOKEN)
    refused = await ask(Authorization=sent.format(TOKEN))
    assert refused.status == 401
    assert TOKEN not in await refused.text()


async def test_who_guesses_has_to_wait(admin: Callable[[str], Awaitable[Ask]]) -> None:
    ask = await admin(TOKEN)
    statuses = [(await ask(Authorization=f"Bearer {guess}")).status for guess in range(_FAILURES + 1)]
    assert statuses == [401] * _FAILURES + [429]
    refused = await ask(Authorization=f"Bearer {TOKEN}")
    assert refused.status == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert (await ask("/readyz")).status == 200


async def test_to_send_no_token_is_no_guess(admin: Callable[[str], Awaitable[Ask]]) -> None:
    ask = await admin(TOKEN)
    responses = await asyncio.gather(*(ask() for _ in range(2 * _FAILURES)))
    assert {response.status for response in responses} == {401}
    assert (await ask(Authorization=f"Bearer {TOKEN}")).status == 200


def test_addresses_wait_apart_and_few_are_remembered() -> None:
    now = 100.0
    failures = _Failures(lambda: now)
    for _ in range(_FAILURES):
        failures.note("10.0.0.1")
        failures.note("2001:db8::1")
    assert failures.wait("10.0.0.1") == 60
    assert failures.wait("2001:db8::ffff") == 60  # who has one address of such a network has all
    for other in ("10.0.0.2", "2001:db8:1::1", None):
        assert failures.wait(other) == 0
    now += 59.5
    assert failures.wait("10.0.0.1") == 1
    now += 0.5
    assert failures.wait("10.0.0.1") == 0
    for number in range(2 * _ADDRESSES):
        failures.note(f"10.1.{number >> 8}.{number & 255}")
    assert len(failures._times) == _ADDRESSES


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9090", "LOCALHOST", "127.0.0.1:9090", "[::1]:9090", "10.0.0.5"]
)
async def test_without_a_token_this_machine_asks(admin: Callable[[str], Awaitable[Ask]], host: str) -> None:
    ask = await admin("")
    assert (await ask(Host=host)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:9090"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Host": "127.0.0.1:x"},
        {"Host": ""},
        {"Host": "localhost", "Origin": "https://evil.example"},
        {"Host": "localhost", "Origin": "null"},
    ],
)
async def test_without_a_token_no_page_asks(admin: Callable[[str], Awaitable[Ask]], headers: dict[str, str]) -> None:
    ask = await admin("")
    refused = await ask(**headers)
    assert refused.status == 403
    assert "Access-Control-Allow-Origin" not in refused.headers
    assert (await ask("/readyz", **headers)).status == 200
