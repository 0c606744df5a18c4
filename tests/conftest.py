"""Shared fixtures: a scripted upstream, and the real gateway in front of it, on loopback sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from aiohttp import web

from cotguard.detectors.contract import Detector
from cotguard.detectors.registry import build
from cotguard.gateway.app import GATEWAY, Gateway, create_app
from cotguard.gateway.settings import Settings
from cotguard.policy import Policy, load
from cotguard.telemetry.metrics import Metrics

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="session")
def balanced() -> tuple[Policy, tuple[Detector, ...]]:
    """Compiling the automata takes seconds: once a run."""
    policy = load("balanced")
    return policy, build(policy)


@dataclass
class Upstream:
    """A model server whose next answer is set by the test."""

    handler: Handler | None = None
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.bodies.append(await request.read())
        assert self.handler is not None
        try:
            return await self.handler(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.cancelled.set()
            raise


async def _listen(app: web.Application) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    scripted = Upstream()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", scripted.answer)
    runner, scripted.url = await _listen(app)
    yield scripted
    await runner.cleanup()


@dataclass
class Proxy:
    """The gateway under test."""

    url: str
    gateway: Gateway


ProxyFactory = Callable[..., Awaitable[Proxy]]


@pytest_asyncio.fixture
async def make_proxy(upstream: Upstream, balanced: tuple[Policy, tuple[Detector, ...]]) -> AsyncIterator[ProxyFactory]:
    runners: list[web.AppRunner] = []

    async def make(
        policy: Policy | None = None, detectors: tuple[Detector, ...] | None = None, **settings: object
    ) -> Proxy:
        configured = Settings.model_validate({"upstream": upstream.url, **settings})
        if policy is None:
            policy, built = balanced
            detectors = built if detectors is None else detectors
        app = create_app(configured, Gateway(configured, policy, detectors, Metrics()))
        runner, url = await _listen(app)
        runners.append(runner)
        return Proxy(url, app[GATEWAY])

    yield make
    for runner in runners:
        await runner.cleanup()
