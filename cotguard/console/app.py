"""The console's routes on the admin port: pages, their files, and what they ask.

Nothing but the login page answers whoever is not logged in. Pages run no script but the console's own, speak to no
other host, and nothing that the gateway tells is parsed as HTML.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from cotguard import __version__
from cotguard.console.desk import TRIAL, TRIAL_START, TRIAL_STOP, Reply
from cotguard.console.exchanges import Exchanges
from cotguard.console.history import INTERVAL, History
from cotguard.console.sessions import COOKIE, Session, Sessions
from cotguard.framing.json import JSONError, dumps, loads
from cotguard.gateway.admin_access import AdminToken
from cotguard.policy.schema import SCHEMA_FILE
from cotguard.telemetry.totals import Snapshot

__all__ = ["PREFIX", "State", "create_console_app"]

PREFIX: Final = "/console"
_STATIC = Path(__file__).with_name("static")
_SHELL = (_STATIC / "index.html").read_bytes()
_LOGIN = (_STATIC / "login.html").read_text()
_PAGES = ("live", "exchanges", "playground", "policy", "loaded")
_OPEN = frozenset({f"{PREFIX}/login", f"{PREFIX}/static/style.css", f"{PREFIX}/static/icon.svg"})
_CSRF = "x-cotguard-csrf"
_REPEAT = {"error": "Load the page again and repeat it."}
_MAX_BYTES = 4 * 2**20
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class State(Protocol):
    """What the console shows and asks; see :class:`cotguard.gateway.admin.State`."""

    async def figures(self) -> Snapshot: ...

    async def hindrance(self) -> str: ...

    async def console(self, name: str, about: Mapping[str, Any]) -> Reply: ...


class _Console:
    """The handlers. ``token``: what is shown to log in."""

    def __init__(self, state: State, token: AdminToken, audit_dir: str) -> None:
        self._state = state
        self._token = token
        self._sessions = Sessions()
        self._history = History(state.figures, state.hindrance)
        self._exchanges = Exchanges(Path(audit_dir) if audit_dir else None)

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """While the application runs, samples are taken."""
        task = asyncio.create_task(self._history.follow())
        yield
        task.cancel()
        self._exchanges.close()

    async def shut_down(self, _app: web.Application) -> None:
        """Else whoever looks on would keep the process from ending."""
        self._history.end()

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let nobody in who is not logged in, and nothing out without the headers."""
        response = await self._guarded(request, handler)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            return _told(403, {"error": "Other sites send nothing here."})
        if request.path not in _OPEN:
            session = self._session(request)
            if session is None:
                if request.method == hdrs.METH_GET and "text/html" in request.headers.get(hdrs.ACCEPT, ""):
                    return _moved("login")
                return _told(401, {"error": "Log in."})
            safe = request.method in (hdrs.METH_GET, hdrs.METH_HEAD) or request.path == f"{PREFIX}/logout"
            if not safe and not session.allows(request.headers.get(_CSRF, "")):
                return _told(403, _REPEAT)
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _told(error.status, {"error": "There is nothing here."})

    def _session(self, request: web.Request) -> Session | None:
        return self._sessions.find(request.cookies.get(COOKIE, ""))

    async def show_login(self, _request: web.Request) -> web.Response:
        return _login("", 200)

    async def log_in(self, request: web.Request) -> web.Response:
        if wait := self._token.wait(request.remote):
            refused = _login("Too many wrong tokens from this address. Wait a minute.", 429)
            refused.headers[hdrs.RETRY_AFTER] = str(wait)
            return refused
        if not self._token.accepts(str((await request.post()).get("token", "")), request.remote):
            return _login("This is not the token.", 401)
        response = _moved("live")
        response.set_cookie(
            COOKIE, self._sessions.begin(), path=PREFIX, httponly=True, samesite="Strict", secure=request.secure
        )
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        session, sent = self._session(request), str((await request.post()).get("csrf", ""))
        if session is None or not session.allows(sent):
            return _told(403, _REPEAT)
        self._sessions.end(request.cookies[COOKIE])
        response = _moved("login")
        response.del_cookie(COOKIE, path=PREFIX)
        return response

    async def who(self, request: web.Request) -> web.Response:
        session = self._session(request)
        assert session is not None  # noqa: S101  # the middleware has seen it
        return _told(200, {"name": "admin token", "right": "change", "csrf": session.csrf, "version": __version__})

    async def hour(self, _request: web.Request) -> web.Response:
        return _told(200, {"interval": INTERVAL, "columns": self._history.columns()})

    async def live(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream", **_HEADERS})
        await response.prepare(request)
        with suppress(ConnectionError):
            while self._session(request) is not None and (sample := await self._history.next()) is not None:
                await response.write(b"event: sample\ndata: %s\n\n" % dumps(sample))
        return response

    async def recent(self, request: web.Request) -> web.Response:
        return _told(*await self._exchanges.recent(request.query))

    async def filters(self, _request: web.Request) -> web.Response:
        return _told(*await self._exchanges.filters())

    async def exchange(self, request: web.Request) -> web.Response:
        return _told(*await self._exchanges.one(request.match_info["id"]))

    async def value(self, request: web.Request) -> web.Response:
        return _told(*await self._exchanges.value(request.match_info["hash"]))

    async def asked(self, _request: web.Request, question: str) -> web.Response:
        return _told(*await self._state.console(question, {}))

    async def told(self, request: web.Request, question: str) -> web.Response:
        body = bytearray()
        async for data in request.content.iter_any():
            body += data
            if len(body) > _MAX_BYTES:
                return _told(413, {"error": f"Send at most {_MAX_BYTES} bytes."})
        try:
            about = loads(bytes(body))
        except JSONError:
            about = None
        if request.content_type != "application/json" or not isinstance(about, dict):
            return _told(400, {"error": "Send a JSON object."})
        return _told(*await self._state.console(question, about))


def create_console_app(state: State, token: AdminToken, audit_dir: str) -> web.Application:
    """The console as an application, to be served below :data:`PREFIX`; ``audit_dir`` is empty where no trail is."""
    console = _Console(state, token, audit_dir)
    app = web.Application(middlewares=[console.guard])
    app.cleanup_ctx.append(console.running)
    app.on_shutdown.append(console.shut_down)
    app.add_routes(
        [
            web.get("", _home),
            web.get("/", _home),
            web.get("/login", console.show_login),
            web.post("/login", console.log_in),
            web.post("/logout", console.log_out),
            *(web.get(f"/{name}", partial(_file, _SHELL, "text/html")) for name in _PAGES),
            *(
                web.get(f"/static/{path.relative_to(_STATIC)}", partial(_file, path.read_bytes(), _TYPES[path.suffix]))
                for path in sorted(_STATIC.rglob("*.*"))
                if path.suffix in _TYPES
            ),
            web.get("/api/session", console.who),
            web.get("/api/live", console.live),
            web.get("/api/live/history", console.hour),
            web.get("/api/exchanges", console.recent),
            web.get("/api/exchanges/filters", console.filters),
            web.get("/api/exchanges/{id}", console.exchange),
            web.get("/api/values/{hash}", console.value),
            web.get("/api/schema", partial(_file, SCHEMA_FILE.read_bytes(), "application/json")),
            *(web.get(f"/api/{name}", partial(console.asked, question=name)) for name in ("policies", "loaded")),
            *(web.post(f"/api/{name}", partial(console.told, question=name)) for name in ("try", "check", "compare")),
            web.get("/api/trial", partial(console.asked, question=TRIAL)),
            web.post("/api/trial", partial(console.told, question=TRIAL_START)),
            web.delete("/api/trial", partial(console.asked, question=TRIAL_STOP)),
        ]
    )
    return app


async def _home(_request: web.Request) -> web.Response:
    return _moved("live")


async def _file(body: bytes, content_type: str, _request: web.Request) -> web.Response:
    return web.Response(body=body, content_type=content_type, charset="utf-8")


def _moved(page: str) -> web.Response:
    return web.Response(status=303, headers={hdrs.LOCATION: f"{PREFIX}/{page}"})


def _login(problem: str, status: int) -> web.Response:
    return web.Response(text=_LOGIN.replace("$problem", problem), status=status, content_type="text/html")


def _told(status: int, value: object) -> web.Response:
    return web.Response(status=status, body=dumps(value), content_type="application/json")
