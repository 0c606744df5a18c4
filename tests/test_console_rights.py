"""Who may do what in the console: callers of the gateway by their roles, for as long as these say so."""

import os
import pty
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from callers_kit import callers_file, issuing, make_key
from conftest import Upstream, nothing_new
from test_applying import TOKEN, Ask, logged_in
from test_serve import serving

from cotguard.callers.caller import Console, Scope
from cotguard.callers.keys import KeyStore
from cotguard.config.settings import Settings
from cotguard.console import sessions
from cotguard.gateway.admin import GatewayState, create_admin_app
from cotguard.gateway.app import Gateway
from cotguard.telemetry.metrics import Metrics

ROLES: dict[str, object] = {
    "reader": {},
    "viewer": {"console": "view"},
    "author": {"console": "try"},
    "owner": {"console": "change"},
}
DRAFT = "version: 1\nname: d\nclassifier: false\nrules: []\n"
QUESTIONS: list[tuple[str, str, str, object]] = [
    ("view", "GET", "live/history", None),
    ("view", "GET", "exchanges", None),
    ("view", "GET", "exchanges/filters", None),
    ("view", "GET", "exchanges/1", None),
    ("view", "GET", "values/1", None),
    ("view", "GET", "policies", None),
    ("view", "GET", "loaded", None),
    ("try", "GET", "policies/patterns-only/text", None),
    ("try", "GET", "schema", None),
    ("try", "POST", "try", {"source": {"kind": "text", "text": "a", "channel": "output"}}),
    ("try", "POST", "check", {"draft": DRAFT}),
    ("try", "POST", "compare", {"draft": DRAFT, "texts": [{"channel": "output", "text": "a"}]}),
    ("try", "GET", "trial", None),
    ("change", "POST", "trial", {"draft": DRAFT, "minutes": 1}),
    ("change", "DELETE", "trial", None),
    ("change", "POST", "apply", {"draft": DRAFT, "digest": ""}),
    ("change", "POST", "rollback", {"policy": "patterns-only", "digest": ""}),
]


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return str(tmp_path / "keys.db")


@asynccontextmanager
async def admin(folder: Path, keys: str, **callers: Any) -> AsyncIterator[str]:
    """The admin port of a gateway with callers."""
    make_key(keys, "reader")
    settings = Settings(
        upstream="http://127.0.0.1:1",
        policy="patterns-only",
        keys=keys,
        callers_file=callers_file(folder, ROLES, **callers),
    )
    gateway = Gateway(settings, metrics=Metrics())
    await gateway.start()
    async with TestServer(create_admin_app(GatewayState(gateway, nothing_new), TOKEN)) as server:
        yield str(server.make_url("")).rstrip("/")
    await gateway.close()


async def refusal(url: str, token: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/console/login", data={"token": token}, allow_redirects=False) as response,
    ):
        return response.status, await response.text()


@pytest.mark.parametrize(("role", "right"), [("viewer", "view"), ("author", "try"), ("owner", "change")])
async def test_endpoints_answer_those_who_have_the_right(tmp_path: Path, keys: str, role: str, right: str) -> None:
    identifier, key = make_key(keys, role)
    async with admin(tmp_path, keys) as url, logged_in(url, key) as ask:
        _, who = await ask("GET", "session")
        assert (who["name"], who["right"]) == (f"key:{identifier}", right)
        for needed, method, path, about in QUESTIONS:
            status, told = await ask(method, path, about)
            if Console(right).includes(Console(needed)):
                assert status in (200, 409), path  # a policy that comes with cotguard is not written
            else:
                assert (status, needed in told["error"], right in told["error"]) == (403, True, True), path


async def test_the_admin_token_has_every_right(tmp_path: Path, keys: str) -> None:
    async with admin(tmp_path, keys) as url, logged_in(url) as ask:
        assert {(await ask(method, path, about))[0] for _, method, path, about in QUESTIONS} == {200, 409}


async def test_who_has_no_right_does_not_get_in(tmp_path: Path, keys: str) -> None:
    _, reader = make_key(keys, "reader")
    revoked, key = make_key(keys, "owner")
    _, unknown = make_key(keys, "nobody")
    with KeyStore(keys) as store:
        store.revoke(revoked)
    async with admin(tmp_path, keys) as url:
        status, page = await refusal(url, reader)
        assert (status, "no right in the console" in page) == (403, True)
        for each in (key, unknown, "cg_" + "0" * 16 + "_" + "x" * 43, "a.b.c", "x", ""):
            status, page = await refusal(url, each)
            assert (status, "no token that is known here" in page) == (401, True)


async def test_keys_are_slowed_down_like_the_token(tmp_path: Path, keys: str) -> None:
    _, key = make_key(keys, "owner")
    async with admin(tmp_path, keys) as url:
        for number in range(10):
            assert (await refusal(url, f"cg_{number:016x}_" + "x" * 43))[0] == 401
        assert (await refusal(url, key))[0] == 429


async def test_without_callers_there_is_the_admin_token_alone(tmp_path: Path, keys: str) -> None:
    _, key = make_key(keys, "owner")
    gateway = Gateway(Settings(upstream="http://127.0.0.1:1", policy="patterns-only"), metrics=Metrics())
    async with TestServer(create_admin_app(GatewayState(gateway, nothing_new), TOKEN)) as server:
        assert (await refusal(str(server.make_url("")).rstrip("/"), key))[0] == 401


async def test_a_session_ends_with_its_key(tmp_path: Path, keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    identifier, key = make_key(keys, "owner")
    async with admin(tmp_path, keys) as url, logged_in(url, key) as ask:
        with KeyStore(keys) as store:
            store.revoke(identifier)
        assert (await ask("GET", "session"))[0] == 200  # for a minute at most
        monkeypatch.setattr(sessions, "_CHECK_SECONDS", 0)
        assert (await ask("GET", "session"))[0] == 401
        monkeypatch.undo()
        assert (await ask("GET", "session"))[0] == 401


async def test_a_session_follows_its_role(tmp_path: Path, keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = make_key(keys, "owner")
    right = "try"

    async def answered(self: object, name: str, about: object) -> tuple[int, Any]:
        return (200, {"name": "k", "right": right}) if name == "caller" else (200, {})

    async with admin(tmp_path, keys) as url, logged_in(url, key) as ask:
        monkeypatch.setattr(sessions, "_CHECK_SECONDS", 0)
        monkeypatch.setattr(GatewayState, "console", answered)
        assert await rights(ask) == ("try", 200, 403)
        right = "view"
        assert await rights(ask) == ("view", 403, 403)
        right = "none"
        assert (await ask("GET", "session"))[0] == 401


async def rights(ask: Ask) -> tuple[str, int, int]:
    _, who = await ask("GET", "session")
    return who["right"], (await ask("GET", "trial"))[0], (await ask("DELETE", "trial"))[0]


async def test_what_cannot_be_checked_is_refused_and_lasts(
    tmp_path: Path, keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = make_key(keys, "owner")

    async def silent(self: object, name: str, about: object) -> tuple[int, Any]:
        return 503, {"error": "No worker answers now."}

    async with admin(tmp_path, keys) as url, logged_in(url, key) as ask:
        with monkeypatch.context() as patched:
            patched.setattr(sessions, "_CHECK_SECONDS", 0)
            patched.setattr(GatewayState, "console", silent)
            assert (await ask("GET", "session"))[0] == 503
            assert (await refusal(url, key))[0] == 503
        assert (await ask("GET", "session"))[0] == 200


async def test_tokens_of_an_openid_provider(tmp_path: Path, keys: str) -> None:
    async with issuing() as issuer:
        key = issuer.add("k", "EC")
        oidc: dict[str, object] = {"issuer": issuer.url, "audience": "cotguard", "roles": {"staff": "viewer"}}
        async with (
            admin(tmp_path, keys, oidc=oidc) as url,
            logged_in(url, issuer.token("k", key, "ES256")) as ask,
        ):
            _, who = await ask("GET", "session")
            assert (who["right"], who["name"].startswith("jwt:")) == ("view", True)


def test_rights_include_those_before() -> None:
    rights = list(Console)
    assert [[one.includes(other) for other in rights] for one in rights] == [
        [index >= other for other in range(4)] for index in range(4)
    ]


def test_a_key_narrows_no_right_and_gives_none() -> None:
    assert Scope(console=Console.TRY).narrowed(Scope()).console is Console.TRY
    assert Scope().narrowed(Scope(console=Console.CHANGE)).console is Console.NONE


@pytest.mark.parametrize("workers", [1, 2])
async def test_who_starts_it_at_a_terminal_is_shown_a_token(upstream: Upstream, tmp_path: Path, workers: int) -> None:
    terminal, stderr = pty.openpty()
    async with serving(upstream.url, tmp_path, workers, stderr) as served:
        await served.ready()
        shown = os.read(terminal, 4096).decode()
        address, token = re.findall(r"the console is at (\S+), token (\S+)", shown)[0]
        assert address == f"{served.admin}/console/"
        assert await served.status("/metrics") == 200  # as without a console
        async with logged_in(served.admin, token) as ask:
            assert (await ask("GET", "session"))[1]["right"] == "change"
        assert await served.end() == 0
    os.close(terminal)
    os.close(stderr)


async def test_without_a_terminal_and_a_token_there_is_no_console(upstream: Upstream, tmp_path: Path) -> None:
    async with serving(upstream.url, tmp_path) as served:
        assert await served.status("/console/login") == 404
        assert await served.end() == 0
