"""The admin port: health, readiness, metrics."""

from aiohttp import web

from cotguard.gateway.app import Gateway

__all__ = ["create_admin_app"]


def create_admin_app(gateway: Gateway) -> web.Application:
    """``/healthz`` says the process lives, ``/readyz`` that it takes requests, ``/metrics`` is for Prometheus."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        draining = gateway.draining.is_set()
        return web.Response(text="draining\n" if draining else "ready\n", status=503 if draining else 200)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=gateway.metrics.expose(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app
