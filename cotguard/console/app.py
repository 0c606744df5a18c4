"""The console's routes on the admin port: pages, their files, and what they ask.

Nothing but the login page answers whoever is not logged in: with the admin token, which gives every right, or as a
caller of the gateway whose role has one (:class:`~cotguard.callers.caller.Console`). Pages run no script but the
console's own, speak to no other host, and nothing that the gateway tells is parsed as HTML.
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
from cotguard.callers.caller import Console
from cotguard.callers.credentials import is_token
from cotguard.callers.keys import is_key
from cotguard.console.desk import APPLY, CALLER, ROLL_BACK, TEXT, TRIAL, TRIAL_START, TRIAL_STOP, Reply
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
_ADMIN = "admin token"
_SESSION = web.RequestKey("session", Session)
_MAX_BYTES = 4 * 2**20
_OK = 200
_DENIED = (401, 403)
_MAX_AT_ONCE = 4
"""Questions that take a gateway's time, of everybody together."""

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


class _UncheckedError(Exception):
    """Nobody could say what a caller may do."""


class _Console:
    """The handlers. ``token``: what is shown to log in."""

    def __init__(self, state: State, token: AdminToken, audit_dir: str) -> None:
        self._state = state
        self._token = token
        self._sessions = Sessions()
        self._history = History(state.figures, state.hindrance)
        self._exchanges = Exchanges(Path(audit_dir) if audit_dir else None)
        self._at_work = 0

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
            try:
                session = await self._session(request)
            except _UncheckedError:
                return _told(503, {"error": "Your right cannot be checked now. Repeat it in a moment."})
            if session is None:
                if request.method == hdrs.METH_GET and "text/html" in request.headers.get(hdrs.ACCEPT, ""):
                    return _moved("login")
                return _told(401, {"error": "Log in."})
            safe = request.method in (hdrs.METH_GET, hdrs.METH_HEAD) or request.path == f"{PREFIX}/logout"
            if not safe and not session.allows(request.headers.get(_CSRF, "")):
                return _told(403, _REPEAT)
            request[_SESSION] = session
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _told(error.status, {"error": "There is nothing here."})

    async def _session(self, request: web.Request) -> Session | None:
        """The session that the request belongs to, if its caller may still do anything here.

        Raises :class:`_UncheckedError`.
        """
        key = request.cookies.get(COOKIE, "")
        session = self._sessions.find(key)
        if session is not None and self._sessions.is_stale(session):
            right, _ = await self._right(session.credential)
            if right is Console.NONE:
                self._sessions.end(key)
                return None
            self._sessions.renew(session, right)
        return session

    async def _right(self, credential: str) -> tuple[Console, str]:
        """What the caller with this credential may do, and his name, empty where he is nobody.

        Raises :class:`_UncheckedError`.
        """
        status, told = await self._state.console(CALLER, {"credential": credential})
        if status == _OK:
            return Console(told["right"]), told["name"]
        if status in _DENIED:
            return Console.NONE, ""
        raise _UncheckedError

    def needs(self, right: Console, handler: Handler) -> Handler:
        """``handler``, for those who have ``right``."""

        async def checked(request: web.Request) -> web.StreamResponse:
            has = request[_SESSION].right
            if not has.includes(right):
                return _told(403, {"error": f'This needs the right "{right}"; you have "{has}".'})
            return await handler(request)

        return checked

    async def show_login(self, _request: web.Request) -> web.Response:
        return _login("", 200)

    async def log_in(self, request: web.Request) -> web.Response:
        if wait := self._token.wait(request.remote):
            refused = _login("Too many wrong tokens from this address. Wait a minute.", 429)
            refused.headers[hdrs.RETRY_AFTER] = str(wait)
            return refused
        sent = str((await request.post()).get("token", "")).strip()
        if self._token.is_right(sent):
            return self._logged_in(request, _ADMIN, Console.CHANGE)
        right, name = Console.NONE, ""
        if is_key(sent) or is_token(sent):
            try:
                right, name = await self._right(sent)
            except _UncheckedError:
                return _login("This cannot be checked now. Try it again.", 503)
        if right is not Console.NONE:
            return self._logged_in(request, name, right, sent)
        if name:
            return _login("Your role has no right in the console.", 403)
        self._token.note_wrong(request.remote)
        return _login("This is no token that is known here.", 401)

    def _logged_in(self, request: web.Request, name: str, right: Console, credential: str = "") -> web.Response:
        key = self._sessions.begin(name, right, credential)
        response = _moved("live")
        response.set_cookie(COOKIE, key, path=PREFIX, httponly=True, samesite="Strict", secure=request.secure)
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        if not request[_SESSION].allows(str((await request.post()).get("csrf", ""))):
            return _told(403, _REPEAT)
        self._sessions.end(request.cookies[COOKIE])
        response = _moved("login")
        response.del_cookie(COOKIE, path=PREFIX)
        return response

    async def who(self, request: web.Request) -> web.Response:
        session = request[_SESSION]
        told = {"name": session.name, "right": session.right, "csrf": session.csrf, "version": __version__}
        return _told(200, told)

    async def hour(self, _request: web.Request) -> web.Response:
        return _told(200, {"interval": INTERVAL, "columns": self._history.columns()})

    async def live(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream", **_HEADERS})
        await response.prepare(request)
        with suppress(ConnectionError, _UncheckedError):
            while await self._session(request) is not None and (sample := await self._history.next()) is not None:
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

    async def text(self, request: web.Request) -> web.Response:
        return _told(*await self._state.console(TEXT, {"policy": request.match_info["name"]}))

    async def asked(self, _request: web.Request, question: str) -> web.Response:
        return _told(*await self._state.console(question, {}))

    async def told(self, request: web.Request, question: str) -> web.Response:
        if self._at_work >= _MAX_AT_ONCE:
            refused = _told(429, {"error": "Others are trying things out, too. Repeat it in a moment."})
            refused.headers[hdrs.RETRY_AFTER] = "1"
            return refused
        self._at_work += 1
        try:
            return await self._asked_about(request, question)
        finally:
            self._at_work -= 1

    async def _asked_about(self, request: web.Request, question: str) -> web.Response:
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
        return _told(*await self._state.console(question, {**about, "by": request[_SESSION].name}))


def create_console_app(state: State, token: AdminToken, audit_dir: str) -> web.Application:
    """The console as an application, to be served below :data:`PREFIX`; ``audit_dir`` is empty where no trail is."""
    console = _Console(state, token, audit_dir)
    view, attempt, change = (partial(console.needs, right) for right in (Console.VIEW, Console.TRY, Console.CHANGE))

    def get(question: str) -> Handler:
        return partial(console.asked, question=question)

    def post(question: str) -> Handler:
        return partial(console.told, question=question)

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
            web.get("/api/live", view(console.live)),
            web.get("/api/live/history", view(console.hour)),
            web.get("/api/exchanges", view(console.recent)),
            web.get("/api/exchanges/filters", view(console.filters)),
            web.get("/api/exchanges/{id}", view(console.exchange)),
            web.get("/api/values/{hash}", view(console.value)),
            web.get("/api/policies", view(get("policies"))),
            web.get("/api/loaded", view(get("loaded"))),
            web.get("/api/policies/{name}/text", attempt(console.text)),
            web.get("/api/schema", attempt(partial(_file, SCHEMA_FILE.read_bytes(), "application/json"))),
            *(web.post(f"/api/{name}", attempt(post(name))) for name in ("try", "check", "compare")),
            web.get("/api/trial", attempt(get(TRIAL))),
            web.post("/api/trial", change(post(TRIAL_START))),
            web.delete("/api/trial", change(get(TRIAL_STOP))),
            web.post("/api/apply", change(post(APPLY))),
            web.post("/api/rollback", change(post(ROLL_BACK))),
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
