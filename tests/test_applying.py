"""Drafts put in force through the console: written, loaded, recorded, taken back; and for whom nothing of it is."""

import errno
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from conftest import Upstream
from scripted import streaming
from test_reload import STREAM, policy, reloading, said
from test_serve import serving, until

from cotguard.audit.index import AuditIndex, Filters
from cotguard.audit.trail import AuditError, AuditOptions, Trail
from cotguard.gateway.admin import GatewayState, create_admin_app
from cotguard.gateway.app import Gateway
from cotguard.telemetry.metrics import Metrics

TOKEN = "0123456789abcdef"
Ask = Callable[..., Awaitable[tuple[int, Any]]]


@asynccontextmanager
async def logged_in(admin: str, token: str = TOKEN) -> AsyncIterator[Ask]:
    """Asks the console's endpoints: status and value."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.post(f"{admin}/console/login", data={"token": token}) as response:
            assert response.status == 200, await response.text()
        csrf = ""

        async def ask(method: str, path: str, about: object = None) -> tuple[int, Any]:
            url, headers = f"{admin}/console/api/{path}", {"x-cotguard-csrf": csrf}
            async with session.request(method, url, json=about, headers=headers) as answer:
                return answer.status, await answer.json()

        csrf = (await ask("GET", "session"))[1]["csrf"]
        yield ask


@asynccontextmanager
async def console(config: Path, trail: Trail | None = None) -> AsyncIterator[tuple[str, Gateway, Ask]]:
    """A gateway of this process that follows ``config``: its URL, itself, and its console."""
    async with reloading(config, trail) as (url, gateway, reloader):
        app = create_admin_app(GatewayState(gateway, reloader.reload), TOKEN)
        async with TestServer(app) as admin, logged_in(str(admin.make_url("")).rstrip("/")) as ask:
            yield url, gateway, ask


@pytest.fixture
def config(upstream: Upstream, tmp_path: Path) -> Path:
    """A configuration whose policy takes addresses."""
    upstream.handler = streaming(STREAM)
    path = tmp_path / "cotguard.yaml"
    (tmp_path / "own.yaml").write_text(policy("EMAIL_ADDRESS"))
    path.write_text(f"upstream: {upstream.url}\npolicy: {tmp_path / 'own.yaml'}\n")
    return path


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def in_force(ask: Ask) -> dict[str, Any]:
    told: dict[str, Any] = (await ask("GET", "policies"))[1]["policies"][0]
    return told


async def test_a_draft_is_applied_and_rolled_back(config: Path, tmp_path: Path) -> None:
    file, before, draft = tmp_path / "own.yaml", policy("EMAIL_ADDRESS"), policy("IP_ADDRESS")
    file.chmod(0o640)
    async with console(config) as (url, _, ask):
        first = await in_force(ask)
        shown = {name: first[name] for name in ("name", "file", "writable", "why_not", "previous", "used_by")}
        assert shown == {
            "name": "t",
            "file": "own.yaml",
            "writable": True,
            "why_not": "",
            "previous": False,
            "used_by": ["the gateway"],
        }
        assert await ask("GET", "policies/t/text") == (200, {"text": before, "why": ""})
        assert (await ask("POST", "rollback", {"policy": "t", "digest": first["digest"]}))[0] == 409
        status, told = await ask("POST", "apply", {"policy": "t", "draft": draft, "digest": first["digest"]})
        second = await in_force(ask)
        assert (status, told) == (200, {"name": "t", "digest": second["digest"]})
        assert second["digest"] != first["digest"]
        assert second["previous"]
        assert (file.read_text(), file.stat().st_mode & 0o777) == (draft, 0o640)
        assert "[IP_ADDRESS]" in await said(url)
        assert (await ask("POST", "rollback", {"policy": "t", "digest": second["digest"]}))[0] == 200
        assert "[EMAIL_ADDRESS]" in await said(url)
        assert (await in_force(ask))["digest"] == first["digest"]
        assert file.read_text() == before
        assert files(tmp_path) == {"cotguard.yaml", "own.yaml", "own.yaml~"}


async def test_policies_of_the_same_name_are_told_apart(upstream: Upstream, config: Path, tmp_path: Path) -> None:
    own, other = str(tmp_path / "own.yaml"), str(tmp_path / "other.yaml")
    (tmp_path / "other.yaml").write_text(policy("CREDIT_CARD"))
    (tmp_path / "cotguard.yaml").write_text(
        f"upstreams: {{there: {{servers: ['{upstream.url}']}}}}\nupstream: there\npolicy: {own}\n"
        f"routes:\n  - {{models: ['*'], policy: {other}, upstream: there}}\n"
    )
    async with console(config) as (url, _, ask):
        told = {each["name"]: each for each in (await ask("GET", "policies"))[1]["policies"]}
        assert {name: each["file"] for name, each in told.items()} == {own: "own.yaml", other: "other.yaml"}
        text = (await ask("GET", f"policies/{quote(other, safe='')}/text"))[1]["text"]
        assert text == policy("CREDIT_CARD")
        about = {"policy": other, "draft": policy("IP_ADDRESS"), "digest": told[other]["digest"]}
        assert (await ask("POST", "apply", about))[1]["name"] == other
        assert ((tmp_path / "own.yaml").read_text(), (tmp_path / "other.yaml").read_text()) == (
            policy("EMAIL_ADDRESS"),
            policy("IP_ADDRESS"),
        )
        assert "[IP_ADDRESS]" in await said(url)
        told = {each["name"]: each for each in (await ask("GET", "policies"))[1]["policies"]}
        about = {"policy": other, "draft": policy("IP_ADDRESS", "second"), "digest": told[other]["digest"]}
        assert (await ask("POST", "apply", about))[1]["name"] == "second"
        assert {each["name"] for each in (await ask("GET", "policies"))[1]["policies"]} == {"t", "second"}


async def test_what_somebody_else_has_changed_is_not_overwritten(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    async with console(config) as (_, _, ask):
        digest = (await in_force(ask))["digest"]
        about = {"policy": "t", "draft": policy("IP_ADDRESS"), "digest": digest}
        assert (await ask("POST", "apply", {**about, "digest": "0" * 16}))[0] == 409
        file.write_text(policy("PERSON"))  # not loaded yet
        assert (await ask("POST", "apply", about))[0] == 409
        assert (await ask("GET", "policies/t/text"))[1]["text"] is None
        file.write_text("rules: [")  # and what cannot be
        assert (await ask("POST", "apply", about))[0] == 409
        assert file.read_text() == "rules: ["
        assert not (tmp_path / "own.yaml~").exists()


async def test_a_bad_draft_writes_nothing(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    (tmp_path / "other.txt").write_text("Project Bluebird\n")
    async with console(config) as (_, _, ask):
        digest = (await in_force(ask))["digest"]
        listing = policy("KNOWN_VALUE", more=f"known_values:\n  file: {tmp_path / 'other.txt'}\n")
        for draft in ("rules: [", policy("NOTHING"), listing):
            status, told = await ask("POST", "apply", {"policy": "t", "draft": draft, "digest": digest})
            assert status == 422
            assert told["problems"][0]["line"] > 0
        assert (await ask("POST", "apply", {"policy": "t", "digest": digest}))[0] == 400
        assert (await ask("POST", "apply", {"policy": "other", "draft": "", "digest": digest}))[0] == 400
        assert file.read_text() == policy("EMAIL_ADDRESS")
        assert not (tmp_path / "own.yaml~").exists()


async def test_what_cannot_be_loaded_is_taken_back(config: Path, tmp_path: Path) -> None:
    file, everything = tmp_path / "own.yaml", tmp_path / "cotguard.yaml"
    good = everything.read_text()
    async with console(config) as (url, _, ask):
        first = await in_force(ask)
        about = {"policy": "t", "draft": policy("IP_ADDRESS"), "digest": first["digest"]}
        everything.write_text(good + "nonsense: 1\n")  # somebody else's mistake, elsewhere
        status, told = await ask("POST", "apply", about)
        assert status == 409
        assert "nonsense" in told["error"]
        assert (file.read_text(), (tmp_path / "own.yaml~").exists()) == (policy("EMAIL_ADDRESS"), False)
        assert "[EMAIL_ADDRESS]" in await said(url)
        everything.write_text(good)
        assert (await ask("POST", "apply", about))[0] == 200
        assert "[IP_ADDRESS]" in await said(url)


async def test_what_is_not_the_consoles_to_write(upstream: Upstream, config: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    (tmp_path / "link.yaml").symlink_to(file)
    for name, why in (("balanced", "comes with cotguard"), (str(tmp_path / "link.yaml"), "is a link")):
        (tmp_path / "cotguard.yaml").write_text(f"upstream: {upstream.url}\npolicy: {name}\nbundle: none\n")
        async with console(config) as (_, _, ask):
            told = await in_force(ask)
            assert (told["writable"], told["previous"], why in told["why_not"]) == (False, False, True)
            about = {"policy": told["name"], "draft": policy("IP_ADDRESS", told["name"]), "digest": told["digest"]}
            assert (await ask("POST", "apply", about))[0] == 409
            assert (await ask("POST", "rollback", about))[0] == 409
    assert file.read_text() == policy("EMAIL_ADDRESS")


async def test_a_folder_that_cannot_be_written(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)  # root may write everywhere
    async with console(config) as (_, _, ask):
        told = await in_force(ask)
        assert (told["writable"], "folder" in told["why_not"]) == (False, True)


async def test_a_file_that_cannot_be_replaced(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, replace = tmp_path / "own.yaml", Path.replace

    def mounted(path: Path, target: Path) -> Path:
        if target == file:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", mounted)
    async with console(config) as (_, _, ask):
        about = {"policy": "t", "draft": policy("IP_ADDRESS"), "digest": (await in_force(ask))["digest"]}
        status, told = await ask("POST", "apply", about)
        assert (status, "busy" in told["error"]) == (409, True)
        assert not (await in_force(ask))["previous"]
    assert files(tmp_path) == {"cotguard.yaml", "own.yaml"}
    assert file.read_text() == policy("EMAIL_ADDRESS")


@pytest.mark.parametrize("listed", ["values: [Project Bluebird]", "file: names.txt"])
async def test_known_values_are_shown_to_nobody(config: Path, tmp_path: Path, listed: str) -> None:
    (tmp_path / "names.txt").write_text("Project Bluebird\n")
    text = policy("KNOWN_VALUE", more=f"known_values:\n  {listed}\n")
    (tmp_path / "own.yaml").write_text(text + "# Bluebird is the plan\n")
    async with console(config) as (_, _, ask):
        _, told = await ask("GET", "policies/t/text")
        assert (told["text"] is None) is ("Project" in listed)
        assert "Project Bluebird" not in json.dumps(told)
        (tmp_path / "own.yaml").write_text(text + "# Project Bluebird is the plan\n")
        _, told = await ask("GET", "policies/t/text")
        assert told["text"] is None
        assert "known values" in told["why"]


async def test_who_writes_is_recorded_first(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = Trail(AuditOptions(directory=str(tmp_path / "trail")), Metrics())
    async with console(config, trail) as (_, gateway, ask):
        digest = (await in_force(ask))["digest"]
        about = {"policy": "t", "draft": policy("IP_ADDRESS"), "digest": digest, "by": "somebody else"}
        _, told = await ask("POST", "apply", about)
        with AuditIndex(tmp_path / "trail") as index:
            index.update()
            events = [(each["event"], each["detail"]) for each in index.search(Filters(type="event"), 10)]
        assert events[1:] == [("policy_written", f"{told['digest']} by admin token"), ("start", digest)]
        assert events[0] == ("config_applied", told["digest"])

        async def fails(_records: object) -> None:
            raise AuditError

        monkeypatch.setattr(trail, "commit", fails)
        status, refused = await ask("POST", "rollback", {"policy": "t", "digest": told["digest"]})
        assert (status, refused) == (409, {"error": "The audit trail takes no records."})
        assert gateway.active.named("t").policy.digest == told["digest"]


async def test_who_asks_an_upstream_is_recorded_first(
    config: Path, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = Trail(AuditOptions(directory=str(tmp_path / "trail")), Metrics())
    about = {"source": {"kind": "prompt", "upstream": "default", "model": "m", "prompt": "Bluebird"}, "by": "nobody"}
    async with console(config, trail) as (_, _, ask):
        assert (await ask("POST", "try", about))[0] == 200
        assert len(upstream.bodies) == 1
        with AuditIndex(tmp_path / "trail") as index:
            index.update()
            (event,) = [each for each in index.search(Filters(type="event"), 10) if each["event"] == "prompt_tried"]
        assert event["detail"] == "default by admin token"
        assert "Bluebird" not in json.dumps(event)

        async def fails(_records: object) -> None:
            raise AuditError

        monkeypatch.setattr(trail, "commit", fails)
        status, refused = await ask("POST", "try", about)
        assert (status, "the audit trail takes no records" in refused["error"]) == (400, True)
        assert len(upstream.bodies) == 1


async def test_all_workers_follow(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.handler = streaming(STREAM)
    monkeypatch.setenv("COTGUARD_ADMIN_TOKEN", TOKEN)
    async with serving(upstream.url, tmp_path, 2) as served:

        async def is_ready() -> bool:
            return await served.status("/readyz") == 200

        await until(is_ready)
        async with logged_in(served.admin) as ask:
            digest = (await in_force(ask))["digest"]
            status, _ = await ask("POST", "apply", {"policy": "t", "draft": policy("IP_ADDRESS"), "digest": digest})
            assert status == 200
            assert ["[IP_ADDRESS]" in await said(served.url) for _ in range(12)] == [True] * 12
        assert await served.end() == 0
