"""The console over HTTP: who gets in, what he is answered, and what no answer holds."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from conftest import Upstream, nothing_new
from scripted import DONE, chunk, finish, post, streaming

from cotguard.audit.trail import AuditOptions, Trail
from cotguard.callers.caller import Console
from cotguard.config.settings import Settings
from cotguard.console.desk import Desk
from cotguard.console.history import Figures, sample, totals
from cotguard.console.sessions import Sessions
from cotguard.gateway.admin import GatewayState, create_admin_app
from cotguard.gateway.app import Gateway, create_app
from cotguard.telemetry.metrics import Metrics
from cotguard.telemetry.totals import Snapshot, snapshot

TOKEN = "0123456789abcdef"
STATIC = Path(__file__).parent.parent / "cotguard" / "console" / "static"
PAGES = [f"/console/{name}" for name in ("live", "exchanges", "playground", "policy", "loaded")]
PATHS = ["/console", "/console/", *PAGES, "/console/static/app.js", "/console/api/session", "/console/api/schema"]


class Quiet:
    """A gateway that says what it is asked."""

    def __init__(self) -> None:
        self.counted = Metrics()

    async def hindrance(self) -> str:
        return ""

    async def analysis(self, path: str, body: bytes) -> tuple[int, bytes]:
        return 200, b"[]"

    async def metrics(self, accept: str) -> bytes:
        return b""

    async def figures(self) -> Snapshot:
        return snapshot(self.counted.registry)

    async def console(self, name: str, about: Mapping[str, Any]) -> tuple[int, Any]:
        return 200, {"asked": name, "about": about}


Client = Callable[..., Awaitable[aiohttp.ClientResponse]]


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    """Asks the admin port, and keeps cookies; redirections are not followed."""
    runner = web.AppRunner(create_admin_app(Quiet(), TOKEN))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:

        async def ask(method: str, path: str, **options: Any) -> aiohttp.ClientResponse:
            url = f"http://{host}:{port}{path}"
            async with session.request(method, url, allow_redirects=False, **options) as response:
                await response.read()
            return response

        yield ask
    await runner.cleanup()


async def log_in(client: Client) -> dict[str, str]:
    assert (await client("POST", "/console/login", data={"token": TOKEN})).status == 303
    csrf: str = (await (await client("GET", "/console/api/session")).json())["csrf"]
    return {"x-cotguard-csrf": csrf}


async def test_nothing_but_the_login_page_answers_strangers(client: Client) -> None:
    for path in PATHS:
        assert (await client("GET", path)).status == 401
        page = await client("GET", path, headers={"accept": "text/html"})
        assert (page.status, page.headers["location"]) == (303, "/console/login")
    for path in ("/console/api/check", "/console/api/trial", "/console/logout"):
        assert (await client("POST", path, json={})).status == 401
    assert (await client("GET", "/console/login")).status == 200
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert (await client("GET", "/console/api/session", headers=bearer)).status == 401


async def test_wrong_tokens_are_refused_and_soon_slowed_down(client: Client) -> None:
    for _ in range(10):
        assert (await client("POST", "/console/login", data={"token": "<b>wrong</b>"})).status == 401
    refused = await client("POST", "/console/login", data={"token": TOKEN})
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) <= 60
    assert "wrong</b>" not in await refused.text()


async def test_wrong_tokens_count_wherever_they_are_shown(client: Client) -> None:
    for _ in range(5):
        assert (await client("POST", "/console/login", data={"token": "wrong"})).status == 401
        assert (await client("GET", "/metrics", headers={"authorization": "Bearer wrong"})).status == 401
    assert (await client("POST", "/console/login", data={"token": TOKEN})).status == 429
    assert (await client("GET", "/metrics", headers={"authorization": f"Bearer {TOKEN}"})).status == 429


async def test_what_is_not_there_logs_nobody_out(client: Client) -> None:
    for path in ("/console/api/nothing", "/console/nothing", "/console/static/nothing.js", "/consoles"):
        assert (await client("GET", path)).status == 401
    await log_in(client)
    for path in ("/console/api/nothing", "/console/nothing", "/console/static/nothing.js"):
        answer = await client("GET", path)
        assert (answer.status, await answer.json()) == (404, {"error": "There is nothing here."})
    assert (await client("GET", "/consoles")).status == 401  # it is not the console's


async def test_who_looks_on_does_not_keep_the_gateway_from_ending() -> None:
    runner = web.AppRunner(create_admin_app(Quiet(), TOKEN))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    console = f"http://{host}:{port}/console"
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.post(f"{console}/login", data={"token": TOKEN}):
            pass
        async with session.get(f"{console}/api/live") as response:
            assert (await response.content.readline()) == b"event: sample\n"
            async with asyncio.timeout(30):  # half of what aiohttp would wait
                await runner.cleanup()
            assert b"data: " in await response.content.read()


async def test_a_fault_is_told_without_what_it_was_about(caplog: pytest.LogCaptureFixture) -> None:
    gateway: Any = None  # it has no policies
    status, told = await Desk(gateway, nothing_new).answered("check", {"policy": "x", "draft": "ann.lee@example.com"})
    assert (status, told) == (500, {"error": "This failed; the log says where."})
    assert [record.getMessage() for record in caplog.records] == ["console failed"]


async def test_so_many_try_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    csrf, may_end, begun = await log_in(client), asyncio.Event(), asyncio.Semaphore(0)

    async def slow(_self: Quiet, name: str, _about: object) -> tuple[int, Any]:
        begun.release()
        await may_end.wait()
        return 200, {"asked": name}

    monkeypatch.setattr(Quiet, "console", slow)
    tries = [asyncio.ensure_future(client("POST", "/console/api/try", json={}, headers=csrf)) for _ in range(4)]
    for _ in tries:
        await begun.acquire()
    refused = await client("POST", "/console/api/compare", json={}, headers=csrf)
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    may_end.set()
    assert [each.status for each in await asyncio.gather(*tries)] == [200] * 4
    assert (await client("POST", "/console/api/compare", json={}, headers=csrf)).status == 200


async def test_what_changes_anything_needs_the_sessions_token(client: Client) -> None:
    csrf = await log_in(client)
    assert (await client("POST", "/console/api/check", json={})).status == 403
    assert (await client("POST", "/console/api/check", json={}, headers={"x-cotguard-csrf": "x"})).status == 403
    told = await client("POST", "/console/api/check", json={"draft": "a"}, headers=csrf)
    assert await told.json() == {"asked": "check", "about": {"draft": "a", "by": "admin token"}}
    elsewhere = {**csrf, "sec-fetch-site": "cross-site"}
    assert (await client("POST", "/console/api/check", json={}, headers=elsewhere)).status == 403
    assert (await client("DELETE", "/console/api/trial")).status == 403
    assert (await client("POST", "/console/logout", data={"csrf": "x"})).status == 403
    assert (await client("POST", "/console/logout", data={"csrf": csrf["x-cotguard-csrf"]})).status == 303
    assert (await client("GET", "/console/api/session")).status == 401


@pytest.mark.parametrize(
    "path", ["/console/playground", "/console/static/app.js", "/console/login", "/console/api/schema"]
)
async def test_every_answer_forbids_other_scripts_and_hosts(client: Client, path: str) -> None:
    await log_in(client)
    answer = await client("GET", path)
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_bad_bodies_are_refused(client: Client) -> None:
    csrf = await log_in(client)
    for body in (b"{", b"[]", b"1"):
        headers = {**csrf, "content-type": "application/json"}
        assert (await client("POST", "/console/api/check", data=body, headers=headers)).status == 400
    assert (await client("POST", "/console/api/check", data=b"{}", headers=csrf)).status == 400


async def test_without_a_trail_the_page_is_told_so(client: Client) -> None:
    await log_in(client)
    assert await (await client("GET", "/console/api/exchanges")).json() == {
        "trail": False,
        "exchanges": [],
        "more": False,
    }


def test_nothing_in_the_pages_parses_html_or_keeps_anything() -> None:
    for path in STATIC.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Storage\b", text), path
    for path in STATIC.glob("*.html"):
        assert not re.search(
            r"<script(?! type=\"module\" src=\"/console/)| style=| on[a-z]+=|https?://", path.read_text()
        )


def test_a_session_ends() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    name = sessions.begin("admin token", Console.CHANGE)
    assert sessions.find(name) is not None
    assert sessions.find("other") is None
    now = 8 * 3600.0
    assert sessions.find(name) is None


def test_samples_and_totals_are_those_of_the_metrics() -> None:
    metrics = Metrics()
    before = Figures(snapshot(metrics.registry), 100.0)
    metrics.requests.labels("chat_completions", "200", "ok").inc(6)
    metrics.decisions.labels("PERSON", "reasoning", "redact", "redacted").inc(4)
    for _ in range(100):
        metrics.held.observe(3)
    now = Figures(snapshot(metrics.registry), 102.0)
    told = sample(before, now)
    assert (told["requests"], told["decisions"], told["events"]) == (3.0, 2.0, 50.0)
    assert told["held_p50"] == 3.0  # in the middle of the bucket from 2 to 4
    assert told["added_p50"] is None
    assert totals(now)["requests"] == [["chat_completions", "200", "ok", 6.0]]
    assert totals(now)["decisions"] == [["PERSON", "reasoning", "redact", "redacted", 4.0]]
    assert totals(now)["events"] == 100


PLANTED = ("ann.lee@example.com", "4111 1111 1111 1111", "AKIAIOSFODNN7EXAMPLE")
STREAM = [
    chunk({"reasoning": f"Her address is {PLANTED[0]}, and her card is {PLANTED[1]}."}),
    chunk({"content": f"The key is {PLANTED[2]}, and again {PLANTED[0]}."}),
    finish(),
    DONE,
]


async def test_live_traffic_is_shown_in_numbers_and_names_alone(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming(STREAM)
    settings, counted = Settings(upstream=upstream.url, policy="patterns-only"), Metrics()
    gateway = Gateway(settings, metrics=counted, trail=Trail(AuditOptions(directory=str(tmp_path)), counted))
    async with (
        TestServer(create_app(gateway)) as data,
        TestServer(create_admin_app(GatewayState(gateway, nothing_new), TOKEN, str(tmp_path))) as admin,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        for _ in range(3):
            await post(str(data.make_url("")).rstrip("/"), stream=True)
        async with session.post(admin.make_url("/console/login"), data={"token": TOKEN}):
            pass

        async def told(path: str) -> Any:
            async with session.get(admin.make_url(f"/console/api/{path}")) as response:
                assert response.status == 200
                text = await response.text()
            assert not any(value in text or value.replace(" ", "") in text for value in PLANTED)
            return json.loads(text)

        listed = (await told("exchanges?limit=2&entity=EMAIL_ADDRESS"))["exchanges"]
        older = await told(f"exchanges?before={listed[-1]['seq']}")
        assert [len(listed), len(older["exchanges"]), older["more"]] == [2, 1, False]
        assert (await told("exchanges?entity=IBAN_CODE"))["exchanges"] == []
        assert (await told("exchanges/filters"))["entities"][0] == "EMAIL_ADDRESS"
        opened = await told(f"exchanges/{listed[0]['request_id']}")
        assert not {"mac", "chain", "v"} & {name for each in [*listed, *opened["decisions"]] for name in each}
        found = {(each["entity"], each["channel"]): each for each in opened["decisions"]}
        assert set(found) == {
            ("EMAIL_ADDRESS", "reasoning"),
            ("CREDIT_CARD", "reasoning"),
            ("SECRET_API_KEY", "output"),
            ("EMAIL_ADDRESS", "output"),
        }
        address = found["EMAIL_ADDRESS", "output"]
        assert (address["recurrences"], address["length"]) == (6, len(PLANTED[0]))
        values = await told(f"values/{address['value']}")
        assert (values["decisions"], values["exchanges"], len(values["latest"])) == (6, 3, 6)
        for path in ("policies", "loaded", "trial", "schema", "session", "live/history"):
            await told(path)
        async with session.get(admin.make_url("/console/api/live")) as stream:
            await stream.content.readline()
            line = await stream.content.readline()
        assert not any(value.encode() in line for value in PLANTED)
        assert json.loads(line.removeprefix(b"data: "))["totals"]["requests"] == [
            ["chat_completions", "200", "ok", 3.0]
        ]
