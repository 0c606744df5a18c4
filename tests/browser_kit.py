"""A real browser on the console of a real gateway, in front of real model servers.

Playwright's loop stands in the way of others in its thread, so everything else that is asynchronous has a thread of its
own.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import lt
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import httpx
import prometheus_client.parser
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from callers_kit import Issuer, callers_file, issuing, make_key
from conftest import Upstream
from scripted import CHAT_PATH
from test_serve import Served, serving

from cotguard.console.app import PREFIX
from cotguard.console.sessions import COOKIE
from loadtest.load import Load, stream_paced, stream_scheduled
from loadtest.serving import started

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
from playwright.sync_api import (  # noqa: E402
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    Response,
    WebError,
    sync_playwright,
)

from loadtest.chromium import ARGUMENTS, program  # noqa: E402

__all__ = [
    "HOUSE",
    "PAGES",
    "TOKEN",
    "Stage",
    "Watch",
    "browsing",
    "listed",
    "log_in",
    "moderate",
    "show",
    "shown",
    "staged",
    "until",
    "visiting",
    "write",
]

TOKEN = "0123456789abcdef"
PAGES = ("live", "exchanges", "playground", "policy", "loaded")
HOUSE = """\
version: 1
name: house
classifier: false
rules:
  - entities: [SECRET]
    action: redact
  - entities: [PHONE_NUMBER]
    channels: [reasoning]
    action: pseudonymize
  - entities: [EMAIL_ADDRESS, PHONE_NUMBER]
    action: redact
  - entities: [CREDIT_CARD]
    action: mask
  - entities: [IBAN_CODE]
    action: hash
  - entities: [IP_ADDRESS]
    action: flag
  - entities: [CRYPTO]
    action: block
"""
"""What blocks is none of what the load generator streams."""

_ROLES: Mapping[str, object] = {
    "app": {},
    "batch": {},
    "viewer": {"console": "view"},
    "author": {"console": "try"},
}
_SECONDS = 20.0

_Value = TypeVar("_Value")


def until(value: Callable[[], _Value], holds: Callable[[_Value], object] = bool, page: Page | None = None) -> _Value:
    """The first ``value`` that ``holds``, else the last in 20 seconds; meanwhile ``page`` goes on."""
    deadline = time.monotonic() + _SECONDS
    while not holds(found := value()) and time.monotonic() < deadline:
        if page is None:
            time.sleep(0.05)
        else:
            page.wait_for_timeout(50)
    return found


class Aside:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def begin(self, coroutine: Coroutine[Any, Any, _Value]) -> Future[_Value]:
        """Let a coroutine run."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, _Value]) -> _Value:
        """The result of a coroutine."""
        return self.begin(coroutine).result(60)

    def end(self) -> None:
        """Let nothing run any more."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Stage:
    """The gateway and what stands around it.

    Requests for models ``prose:*`` and ``planted:*`` go to the load test's server, others to ``scripted``.
    """

    folder: Path
    aside: Aside
    served: Served
    scripted: Upstream
    issuer: Issuer
    load_url: str
    keys: Mapping[str, str]
    sent: int = 0
    """Requests so far."""

    @property
    def admin(self) -> str:
        return self.served.admin

    @property
    def policy(self) -> Path:
        return self.folder / "house.yaml"

    @property
    def trail(self) -> Path:
        return self.folder / "trail"

    @property
    def log(self) -> str:
        """What the gateway has logged."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def post(self, token: str = "", path: str = CHAT_PATH, **body: Any) -> httpx.Response:
        """A request of a client, streamed unless it says otherwise."""
        self.sent += 1
        request = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True, **body}
        headers = {"authorization": f"Bearer {token or self.keys['app']}"}
        return httpx.post(self.served.url + path, json=request, headers=headers, timeout=60)

    def session(self, token: str) -> str:
        """The cookie of somebody who has logged in with ``token``."""
        return httpx.post(f"{self.admin}{PREFIX}/login", data={"token": token}).cookies[COOKIE]

    def token(self, subject: str) -> str:
        """An OpenID token of somebody who may try."""
        return self.issuer.token("k", self.issuer.keys["k"], "ES256", sub=subject)

    def metrics(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """What /metrics says: values by the samples' names and sorted labels."""
        told = httpx.get(f"{self.admin}/metrics", headers={"authorization": f"Bearer {TOKEN}"}).raise_for_status().text
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in prometheus_client.parser.text_string_to_metric_families(told):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return found

    @contextmanager
    def traffic(self, load: Load) -> Iterator[None]:
        """Meanwhile the load generator has its streams under way, again and again."""
        stop = threading.Event()

        async def stream() -> None:
            async with self._client("batch") as client:
                while not stop.is_set():
                    self.sent += load.streams
                    await stream_paced(client, self.served.url, load)

        running = self.aside.begin(stream())
        try:
            yield
        finally:
            stop.set()
            running.result(60)

    def faults(self, load: Load) -> None:
        """As many streams, which may fail."""

        async def stream() -> None:
            async with self._client("batch") as client:
                await stream_scheduled(client, self.served.url, load, [0.0] * load.streams)

        self.sent += load.streams
        self.aside.run(stream())

    def _client(self, role: str) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers={"authorization": f"Bearer {self.keys[role]}"}, raise_for_status=True)


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """Everything that a console is about: a gateway with callers, a trail, and a policy that can be written."""
    aside, stack = Aside(), AsyncExitStack()
    try:
        with started("loadtest.upstream") as load:
            try:
                yield aside.run(_set_up(folder, stack, aside, load.urls[0]))
            finally:
                aside.run(stack.aclose())
    finally:
        aside.end()


async def _set_up(folder: Path, stack: AsyncExitStack, aside: Aside, load_url: str) -> Stage:
    scripted = Upstream()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", scripted.answer)
    server = await stack.enter_async_context(TestServer(app))
    scripted.url = str(server.make_url("")).rstrip("/")
    issuer = await stack.enter_async_context(issuing())
    issuer.add("k", "EC")
    keys = folder / "keys.db"
    (folder / "house.yaml").write_text(HOUSE, encoding="utf-8")
    config = {
        "upstreams": {"scripted": {"servers": [scripted.url]}, "load": {"servers": [load_url]}},
        "routes": [{"name": "load", "models": ["prose:*", "planted:*"], "upstream": "load"}],
    }
    (folder / "cotguard.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    oidc: dict[str, object] = {"issuer": issuer.url, "audience": "cotguard", "roles": {"staff": "author"}}
    made = {role: make_key(str(keys), role)[1] for role in _ROLES}
    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    stack.callback(os.close, log)
    served = await stack.enter_async_context(
        serving(
            "scripted",
            folder,
            stderr=log,
            policy=folder / "house.yaml",
            config=folder / "cotguard.yaml",
            keys=keys,
            callers_file=callers_file(folder, dict(_ROLES), oidc=oidc),
            admin_token=TOKEN,
            audit_dir=folder / "trail",
            log_level="debug",
        )
    )
    await served.ready()
    return Stage(folder, aside, served, scripted, issuer, load_url, made)


@dataclass
class Watch:
    """What the pages of a context did, and what went wrong in them."""

    origin: str
    problems: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)

    def follow(self, context: BrowserContext) -> None:
        """Watch all pages of ``context``."""
        context.add_init_script(
            "addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) =>"
            " console.error(`forbidden: ${violatedDirective} ${blockedURI}`))"
        )
        context.on("console", self._said)
        context.on("weberror", self._raised)
        context.on("request", self._asked)
        context.on("response", self._answered)
        context.on("requestfailed", self._failed)

    def expect(self, status: int) -> None:
        """Forget that the console answered with ``status``, which the browser reports as an error."""
        told = f"the server responded with a status of {status} "
        found = [each for each in self.problems if told in each]
        assert found, self.problems
        self.problems = [each for each in self.problems if each not in found]

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text} ({message.location})")

    def _raised(self, error: WebError) -> None:
        self.problems.append(f"raised: {error.error}")

    def _asked(self, request: Request) -> None:
        self.requests.append(request)
        if not request.url.startswith((f"{self.origin}/console/", "data:", f"blob:{self.origin}/")):
            self.problems.append(f"asked elsewhere: {request.url}")

    def _answered(self, response: Response) -> None:
        self.responses.append(response)

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # by leaving the page
            self.problems.append(f"failed: {request.url} {request.failure}")


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser; skips where there is none."""
    try:
        path = program()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(browser: Browser, stage: Stage, token: str = TOKEN, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """A page of somebody who has logged in with ``token``, if that is not empty; nothing may go wrong on it."""
    context = browser.new_context(**options)
    watch = Watch(stage.admin)
    watch.follow(context)
    try:
        if token:
            context.add_cookies(
                [
                    {
                        "name": COOKIE,
                        "value": stage.session(token),
                        "url": f"{stage.admin}{PREFIX}",
                        "httpOnly": True,
                        "sameSite": "Strict",
                    }
                ]
            )
        page = context.new_page()
        page.set_default_timeout(_SECONDS * 1000)
        yield page, watch
        assert not watch.problems, watch.problems
    finally:
        context.close()


def log_in(page: Page, stage: Stage, token: str) -> None:
    """Log in with ``token``."""
    page.goto(f"{stage.admin}/console/login")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()
    shown(page, "Live")


def show(page: Page, stage: Stage, name: str, query: str = "") -> Page:
    """Go to the page ``name``."""
    page.goto(f"{stage.admin}/console/{name}{query}")
    return shown(page, name.capitalize())


def shown(page: Page, title: str) -> Page:
    """Wait until the page with this title is there."""
    page.locator("main:not([aria-busy]) h1", has_text=title).wait_for()
    return page


def listed(page: Page) -> list[str]:
    """The exchanges that the page lists, with those on its further pages."""
    rows, older = page.locator("tr[data-request]"), page.get_by_role("button", name="Show older")
    while older.is_visible():
        before = rows.count()
        older.click()
        assert until(rows.count, partial(lt, before), page) > before
    return [str(each) for each in rows.evaluate_all("rows => rows.map(({dataset}) => dataset.request)")]


def moderate(page: Page) -> Locator:
    """Let what was entered be moderated; its result."""
    with page.expect_response("**/console/api/try"):
        page.get_by_role("button", name="Moderate").click()
    result = page.get_by_role("region", name="Result", exact=True)
    result.get_by_role("heading", name="Result", exact=True).wait_for()
    return result


def write(page: Page, text: str, problems: int = 0) -> Locator:
    """Write a draft, and wait until it is checked; what is said of it."""
    with page.expect_response("**/console/api/check"):
        page.get_by_label("Draft", exact=True).fill(text)
    state = page.locator(f"#draft-state[data-problems='{problems}']")
    state.wait_for()
    return state
