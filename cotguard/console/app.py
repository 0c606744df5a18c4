"""The console's routes on the admin port: pages, their files, and what they ask.

Nothing but the login page answers whoever is not logged in. Pages run no script but the console's own, speak to no
other host, and nothing that the gateway tells is parsed as HTML.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from cotguard import __version__
from cotguard.console.desk import Reply
from cotguard.console.exchanges import Exchanges
from cotguard.console.history import INTERVAL, History
from cotguard.console.sessions import COOKIE, Session, Sessions
from cotguard.framing.json import JSONError, dumps, loads
from cotguard.gateway.admin_access import Failures
from cotguard.policy.schema import SCHEMA_FILE
from cotguard.telemetry.totals import Snapshot

__all__ = ["PREFIX", "add_console"]

PREFIX: Final = "/console"
_STATIC = Path(__file__).with_name("static")
_SHELL = (_STATIC / "index.html").read_text()
_LOGIN = (_STATIC / "login.html").read_text()
_PAGES = ("live", "exchanges", "playground", "policy", "loaded")
_OPEN = frozenset({f"{PREFIX}/login", f"{PREFIX}/static/style.css", f"{PREFIX}/static/icon.svg"})
_CSRF = "x-cotguard-csrf"
_ASKED = {"policies": "policies", "loaded": "loaded", "trial": "trial"}
_TOLD = {"try": "try", "check": "check", "compare": "compare", "trial": "trial_start"}
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

Ask = Callable[[str, Mapping[str, Any]], Awaitable[Reply]]
"""The answer to a question and what it is about (:mod:`cotguard.console.desk`)."""


class _Console:
    """The handlers. ``token``: what is shown to log in."""

    def __init__(self, ask: Ask, token: str) -> None:
        self._ask = ask
        self._token = token
        self._sessions = Sessions()
        self._failures = Failures()

    def session(self, request: web.Request) -> Session | None:
        return self._sessions.find(request.cookies.get(COOKIE, ""))

    async def show_login(self, _request: web.Request) -> web.Response:
        return _login("", 200)

    async def log_in(self, request: web.Request) -> web.Response:
        if wait := self._failures.wait(request.remote):
            refused = _login("Too many wrong tokens from this address. Wait a minute.", 429)
            refused.headers[hdrs.RETRY_AFTER] = str(wait)
            return refused
        sent = str((await request.post()).get("token", ""))
        if not hmac.compare_digest(_digest(sent), _digest(self._token)):
            self._failures.note(request.remote)
            return _login("This is not the token.", 401)
        response = web.Response(status=303, headers={hdrs.LOCATION: f"{PREFIX}/live"})
        response.set_cookie(
            COOKIE, self._sessions.begin(), path=PREFIX, httponly=True, samesite="Strict", secure=request.secure
        )
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        session, sent = self.session(request), str((await request.post()).get("csrf", ""))
        if session is None or not session.allows(sent):
            return _told(403, {"error": "Load the page again and repeat it."})
        self._sessions.end(request.cookies[COOKIE])
        response = web.Response(status=303, headers={hdrs.LOCATION: f"{PREFIX}/login"})
        response.del_cookie(COOKIE, path=PREFIX)
        return response

    async def who(self, request: web.Request) -> web.Response:
        session = self.session(request)
        assert session is not None  # noqa: S101  # the middleware has seen it
        return _told(200, {"name": "admin token", "right": "change", "csrf": session.csrf, "version": __version__})

    async def asked(self, request: web.Request, question: str) -> web.Response:
        return _told(*await self._ask(question, {}))

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
        return _told(*await self._ask(question, about))


def add_console(
    app: web.Application,
    ask: Ask,
    figures: Callable[[], Awaitable[Snapshot]],
    hindrance: Callable[[], Awaitable[str]],
    token: str,
    audit_dir: str,
) -> None:
    """Add the console's routes to the admin port's application.

    ``figures`` gives all metrics, ``hindrance`` why no requests can be taken, if so.
    """
    console, router = _Console(ask, token), app.router
    history = History(figures)

    async def following(_app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(history.follow())
        yield
        task.cancel()
        exchanges.close()

    async def columns(_request: web.Request) -> web.Response:
        return _told(200, {"interval": INTERVAL, "columns": history.columns()})

    async def live(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream", **_HEADERS})
        await response.prepare(request)
        with suppress(ConnectionError):
            while console.session(request) is not None:
                sample = await history.next()
                sample["totals"]["hindrance"] = await hindrance()
                await response.write(b"event: sample\ndata: %s\n\n" % dumps(sample))
        return response

    exchanges = Exchanges(Path(audit_dir) if audit_dir else None)

    async def recent(request: web.Request) -> web.Response:
        return _told(*await exchanges.recent(request.query))

    async def filters(_request: web.Request) -> web.Response:
        return _told(*await exchanges.filters())

    async def one(request: web.Request) -> web.Response:
        return _told(*await exchanges.one(request.match_info["id"]))

    async def value(request: web.Request) -> web.Response:
        return _told(*await exchanges.value(request.match_info["hash"]))

    app.cleanup_ctx.append(following)
    router.add_get(f"{PREFIX}/api/exchanges", recent)
    router.add_get(f"{PREFIX}/api/exchanges/filters", filters)
    router.add_get(f"{PREFIX}/api/exchanges/{{id}}", one)
    router.add_get(f"{PREFIX}/api/values/{{hash}}", value)
    router.add_get(f"{PREFIX}/api/live/history", columns)
    router.add_get(f"{PREFIX}/api/live", live)
    app.middlewares.append(_guarded(console))

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=_SHELL, content_type="text/html")

    async def home(_request: web.Request) -> web.Response:
        return web.Response(status=303, headers={hdrs.LOCATION: f"{PREFIX}/live"})

    router.add_get(f"{PREFIX}/login", console.show_login)
    router.add_post(f"{PREFIX}/login", console.log_in)
    router.add_post(f"{PREFIX}/logout", console.log_out)
    router.add_get(PREFIX, home)
    router.add_get(f"{PREFIX}/", home)
    for name in _PAGES:
        router.add_get(f"{PREFIX}/{name}", page)
    for path in sorted(_STATIC.rglob("*.*")):
        if path.suffix in _TYPES:
            router.add_get(
                f"{PREFIX}/static/{path.relative_to(_STATIC)}", partial(_file, path.read_bytes(), _TYPES[path.suffix])
            )
    router.add_get(f"{PREFIX}/api/session", console.who)
    router.add_get(f"{PREFIX}/api/schema", partial(_file, SCHEMA_FILE.read_bytes(), "application/json"))
    for name, question in _ASKED.items():
        router.add_get(f"{PREFIX}/api/{name}", partial(console.asked, question=question))
    for name, question in _TOLD.items():
        router.add_post(f"{PREFIX}/api/{name}", partial(console.told, question=question))
    router.add_delete(f"{PREFIX}/api/trial", partial(console.asked, question="trial_stop"))


def _guarded(console: _Console) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != PREFIX and not request.path.startswith(f"{PREFIX}/"):
            return await handler(request)
        response = await _answered(console, request, handler)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    return guard


async def _answered(console: _Console, request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return _told(403, {"error": "Other sites send nothing here."})
    if request.path not in _OPEN:
        session = console.session(request)
        if session is None:
            if request.method == hdrs.METH_GET and "text/html" in request.headers.get(hdrs.ACCEPT, ""):
                return web.Response(status=303, headers={hdrs.LOCATION: f"{PREFIX}/login"})
            return _told(401, {"error": "Log in."})
        safe = request.method in (hdrs.METH_GET, hdrs.METH_HEAD) or request.path == f"{PREFIX}/logout"
        if not safe and not session.allows(request.headers.get(_CSRF, "")):
            return _told(403, {"error": "Load the page again and repeat it."})
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _told(error.status, {"error": "There is nothing here."})


async def _file(body: bytes, content_type: str, _request: web.Request) -> web.Response:
    return web.Response(body=body, content_type=content_type, charset="utf-8")


def _login(problem: str, status: int) -> web.Response:
    return web.Response(text=_LOGIN.replace("$problem", problem), status=status, content_type="text/html")


def _told(status: int, value: object) -> web.Response:
    return web.Response(status=status, body=dumps(value), content_type="application/json")


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="surrogateescape")).digest()
