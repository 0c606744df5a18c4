"""Shared fixtures: a scripted upstream, and the real gateway in front of it, on loopback sockets."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pytest
import pytest_asyncio
import uvloop
from aiohttp import web
from hypothesis import settings

from cotguard.config.settings import Settings
from cotguard.detectors.contract import Detector
from cotguard.detectors.registry import build
from cotguard.gateway.app import GATEWAY, Gateway, create_app
from cotguard.gateway.moderations import Moderation, load_moderations
from cotguard.policy import Policy, load
from cotguard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from browser_kit import Stage
    from playwright.sync_api import Browser

settings.register_profile("untimed", deadline=None)  # how long a case takes depends on what else runs
settings.load_profile("untimed")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its threads write past what pytest captures
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that ``serve`` runs on: how soon a peer is known to have left, and what is buffered, are its own."""
    return {"uvloop": uvloop.new_event_loop}


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
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.bodies.append(await request.read())
        self.asked.set()
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


class Accounts(NamedTuple):
    """What the metrics say of all requests since the gateway was made."""

    requests: dict[tuple[str, str], float]  # by status and outcome
    closed: dict[str, float]  # faults by kind, where the exchange ended
    opened: dict[str, float]  # faults by kind, where it went on unmoderated


@dataclass
class Proxy:
    """The gateway under test."""

    url: str
    gateway: Gateway

    @property
    def accounts(self) -> Accounts:
        """The counters as they stand."""
        found = Accounts({}, {}, {})
        for family in self.gateway.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == "cotguard_requests_total":
                    found.requests[sample.labels["status"], sample.labels["outcome"]] = sample.value
                elif sample.name == "cotguard_failures_total":
                    faults = found.closed if sample.labels["mode"] == "closed" else found.opened
                    faults[sample.labels["kind"]] = sample.value
        return found


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
        if detectors is None:
            detectors = build(policy, configured.bundle, configured.served, configured.guard)
        moderations = load_moderations(configured, own=Moderation.of(policy, detectors))
        app = create_app(Gateway(configured, moderations, Metrics()))
        runner, url = await _listen(app)
        runners.append(runner)
        return Proxy(url, app[GATEWAY])

    yield make
    for runner in runners:
        await runner.cleanup()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A real browser; skips where there is none."""
    from browser_kit import browsing  # and with it Playwright, which others need not load

    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def stage(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator["Stage"]:
    """What the browser looks at; not begun where there is no browser."""
    from browser_kit import staged

    with staged(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


async def nothing_new() -> str:
    """A reload of a gateway that was made from no files."""
    return ""


def error_of(body: str) -> dict[str, object]:
    """The error that ends a stream, or that a whole body is."""
    last = [line for line in body.splitlines() if line][-1].removeprefix("data: ")
    error: dict[str, object] = json.loads(last)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error
