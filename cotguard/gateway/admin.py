"""The admin port: health, readiness, metrics."""

from typing import Protocol

from aiohttp import web

from cotguard.gateway.app import Gateway

__all__ = ["GatewayState", "State", "create_admin_app"]


class State(Protocol):
    """What the admin port tells."""

    async def hindrance(self) -> str:
        """Why no requests can be taken now; empty when they can."""
        ...

    async def metrics(self) -> bytes:
        """The text exposition format."""
        ...


class GatewayState:
    """The state of the gateway of this process."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def hindrance(self) -> str:
        if self._gateway.leaving:
            return "draining"
        return "" if await self._gateway.staff.ready() else "a model that detects does not answer"

    async def metrics(self) -> bytes:
        return self._gateway.metrics.expose()


def create_admin_app(state: State) -> web.Application:
    """``/healthz`` says the process lives, ``/readyz`` that it takes requests, ``/metrics`` is for Prometheus."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        hindrance = await state.hindrance()
        return web.Response(text=f"{hindrance or 'ready'}\n", status=503 if hindrance else 200)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=await state.metrics(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app
