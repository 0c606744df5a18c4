"""The admin port: health, readiness, metrics."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiohttp import hdrs, web
from prometheus_client.exposition import choose_encoder

from cotguard.console.app import PREFIX, create_console_app
from cotguard.console.desk import Desk, Reply
from cotguard.gateway.admin_access import AdminToken, access
from cotguard.gateway.analysis import Answer, add_analysis
from cotguard.gateway.app import Gateway
from cotguard.telemetry.totals import Snapshot, snapshot

__all__ = ["GatewayState", "State", "create_admin_app"]


class State(Protocol):
    """What the admin port tells."""

    async def hindrance(self) -> str:
        """Why no requests can be taken now; empty when they can."""
        ...

    async def metrics(self, accept: str) -> bytes:
        """The exposition in the format that an ``Accept`` header asks for."""
        ...

    async def analysis(self, path: str, body: bytes) -> Answer:
        """The answer to another gateway's question (:mod:`cotguard.gateway.analysis`)."""
        ...

    async def figures(self) -> Snapshot:
        """All metrics, not older than a few seconds."""
        ...

    async def console(self, name: str, about: Mapping[str, Any]) -> Reply:
        """The answer to a question of the console's (:mod:`cotguard.console.desk`)."""
        ...


class GatewayState:
    """The state of the gateway of this process; ``reload`` is as :class:`~cotguard.console.desk.Desk` says."""

    def __init__(self, gateway: Gateway, reload: Callable[[], Awaitable[str]]) -> None:
        self._gateway = gateway
        self._desk = Desk(gateway, reload)

    async def hindrance(self) -> str:
        if self._gateway.leaving:
            return "draining"
        if reason := self._gateway.hindrance:
            return reason
        return "" if await self._gateway.staff.ready() else "a model that detects does not answer"

    async def metrics(self, accept: str) -> bytes:
        return self._gateway.metrics.expose(accept)

    async def analysis(self, path: str, body: bytes) -> Answer:
        return await self._gateway.analyst.answer(path, body)

    async def figures(self) -> Snapshot:
        return snapshot(self._gateway.metrics.registry)

    async def console(self, name: str, about: Mapping[str, Any]) -> Reply:
        return await self._desk.answered(name, about)


def create_admin_app(state: State, token: str = "", audit_dir: str = "", console: str = "") -> web.Application:
    """``/healthz`` says the process lives, ``/readyz`` that it takes requests, ``/metrics`` is for Prometheus.

    Other gateways ask there what a text holds (:mod:`cotguard.gateway.analysis`).

    The web console, which shows the audit trail in ``audit_dir``, is there where there is something to log in with:
    ``console``, or else ``token``.

    ``token``: who may use anything but the first two (:mod:`cotguard.gateway.admin_access`).
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        hindrance = await state.hindrance()
        return web.Response(text=f"{hindrance or 'ready'}\n", status=503 if hindrance else 200)

    async def metrics(request: web.Request) -> web.Response:
        accept = request.headers.get(hdrs.ACCEPT, "")
        content_type = choose_encoder(accept)[1]
        return web.Response(body=await state.metrics(accept), headers={hdrs.CONTENT_TYPE: content_type})

    needed = AdminToken(token) if token else None
    shown = needed if console in ("", token) else AdminToken(console)
    app = web.Application(middlewares=[access(needed, PREFIX if shown else "")])
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    add_analysis(app, state.analysis)
    if shown:
        app.add_subapp(PREFIX, create_console_app(state, shown, audit_dir))
    return app
