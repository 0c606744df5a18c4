"""The admin port: health, readiness, metrics."""

from aiohttp import web

from cotguard.gateway.app import Gateway

__all__ = ["create_admin_app"]


def create_admin_app(gateway: Gateway) -> web.Application:
    """``/healthz`` says the process lives, ``/readyz`` that it takes requests, ``/metrics`` is for Prometheus."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        if gateway.draining.is_set():
            return web.Response(text="draining\n", status=503)
        if not await gateway.ready():
            return web.Response(text="a model that detects does not answer\n", status=503)
        return web.Response(text="ready\n")

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=gateway.metrics.expose(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app
