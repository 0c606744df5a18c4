"""The configuration follows its files: at once and as a whole for what comes, never for what is under way."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from conftest import Upstream, _listen
from log_kit import lines
from scripted import CHAT_PATH, DONE, chunk, finish, post, streaming, texts
from test_serve import OK, serving, until

from cotguard.audit.trail import Trail
from cotguard.config.sources import Sources
from cotguard.gateway.app import Gateway, create_app
from cotguard.gateway.moderations import load_moderations
from cotguard.gateway.reload import Reloader, files_of
from cotguard.http.watching import stamps_of
from cotguard.telemetry.metrics import Metrics

POLICY = "version: 1\nname: {name}\nclassifier: false\nrules:\n  - entities: [{entity}]\n    action: redact\n"
TEXT = "mail ann.lee@example.com, host 10.1.2.3, word Bluebird"
STREAM = [chunk({"content": TEXT}), finish(), DONE]


def policy(entity: str, name: str = "t", more: str = "") -> str:
    return POLICY.format(name=name, entity=entity) + more


APPLIED = 'cotguard_config_reloads_total{result="applied"}'


async def said(url: str) -> str:
    """What a client gets of the text."""
    _, body = await post(url, stream=True)
    return texts(body)[0, "content"]


async def gets(url: str, part: str) -> None:
    """Wait until a client gets ``part``."""

    async def there() -> bool:
        return part in await said(url)

    await until(there)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_running_gateway_follows_its_policy(upstream: Upstream, tmp_path: Path, workers: int) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "mail "}))
        await go_on.wait()
        await response.write(chunk({"content": "ann.lee@example.com now"}) + finish() + DONE)
        return response

    upstream.handler = slow
    file = tmp_path / "policy.yaml"
    async with serving(upstream.url, tmp_path, workers) as served:
        await served.ready()
        async with aiohttp.ClientSession() as session:
            body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
            async with session.post(served.url + CHAT_PATH, json=body) as under_way:
                before = under_way.headers["x-cotguard-policy"]
                upstream.handler = streaming(STREAM)
                file.write_text(policy("IP_ADDRESS"))
                await gets(served.url, "ann.lee@example.com, host [IP_ADDRESS]")
                await until(lambda: _reaches(served.count(APPLIED), workers))  # each by itself
                go_on.set()
                assert "mail [EMAIL_ADDRESS] now" in "".join(texts(await under_way.text()).values())
            async with session.post(served.url + CHAT_PATH, json=body) as after:
                assert after.headers["x-cotguard-policy"] != before
                assert len(after.headers["x-cotguard-request-id"]) == 32
        if workers > 1:  # one that takes another's place begins with what is in force
            served.workers[0].kill()
            await until(lambda: _reaches(served.status("/readyz"), 503))
            await served.ready()
            for _ in range(8):
                assert "[IP_ADDRESS]" in await said(served.url)
        file.write_text("version: 1\nrules: nothing\n")
        refused = 'cotguard_config_reloads_total{result="refused"}'
        await until(lambda: _reaches(served.count(refused), workers))
        assert await served.count("cotguard_config_last_reload_success") == 0
        assert "[IP_ADDRESS]" in await said(served.url)
        file.write_text(policy("EMAIL_ADDRESS"))
        os.kill(served.process.pid, signal.SIGHUP)
        await gets(served.url, "[EMAIL_ADDRESS], host 10.1.2.3")
        assert await served.count(OK) > 0
        assert await served.end() == 0


async def _reaches(value: Awaitable[float], least: float) -> bool:
    return bool(await value >= least)


@asynccontextmanager
async def reloading(config: Path, trail: Trail | None = None) -> AsyncIterator[tuple[str, Gateway, Reloader]]:
    """A gateway in this process, and what reloads it."""
    sources = Sources({}, {"KEY": "k" * 20}, str(config))
    loaded = sources.load()
    moderations = load_moderations(loaded.settings)
    gateway = Gateway(loaded.settings, moderations, Metrics(), trail=trail)
    stamps = stamps_of(files_of(loaded, moderations.values()))
    runner, url = await _listen(create_app(gateway))
    try:
        yield url, gateway, Reloader(gateway, sources, loaded.settings, stamps)
    finally:
        await runner.cleanup()


async def test_routes_upstreams_and_known_values(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming(STREAM)
    config, words = tmp_path / "cotguard.yaml", tmp_path / "words.txt"
    (tmp_path / "own.yaml").write_text(policy("KNOWN_VALUE", "own", "known_values: {file: words.txt}\n"))
    words.write_text("Blackbird\n")
    own = f"policy: {tmp_path}/own.yaml\n"
    config.write_text(f"upstream: http://127.0.0.1:9\n{own}")
    async with reloading(config) as (url, gateway, reloader):
        assert (await post(url, stream=True))[0] == 502
        servers = f"upstreams: {{local: {{servers: ['{upstream.url}'], key: '${{KEY}}'}}}}\n"
        config.write_text(f"upstream: local\n{own}{servers}")
        assert await reloader.reload() == ""
        assert await said(url) == TEXT
        words.write_text("Bluebird\n")
        await reloader.catch_up()
        assert (await said(url)).endswith("word [KNOWN_VALUE]")
        config.write_text(f"routes: [{{models: [m], upstream: local, policy: patterns-only}}]\n{servers}{own}")
        assert await reloader.reload() == ""
        assert "[EMAIL_ADDRESS]" in await said(url)
        assert (await post(url, model="other"))[0] == 404
        exposed = gateway.metrics.expose().decode()
        assert 'name="patterns-only"' in exposed
        assert exposed.count("cotguard_policy_info{") == 2


async def test_what_cannot_be_used_changes_nothing(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.handler = streaming(STREAM)
    config = tmp_path / "cotguard.yaml"
    good = f"upstream: {upstream.url}\npolicy: patterns-only\n"
    config.write_text(good)
    async with reloading(config) as (url, gateway, reloader):
        active = gateway.active
        for bad, reason in (
            ("upstream: [sk-secret-value", "cotguard.yaml:1"),
            ("upstream: http://x\nupstream_key: sk-secret-value é\n", "upstream_key"),
            (good + "callers_file: /nowhere.yaml\n", "/nowhere.yaml"),
            (good + "policy2: x\n", "no such setting"),
            (good.replace("patterns-only", "/nowhere.yaml"), "/nowhere.yaml"),
            ("", "nothing in this file"),
        ):
            config.write_text(bad)
            assert reason in await reloader.reload()
            assert gateway.active is active
            assert "[EMAIL_ADDRESS]" in await said(url)
        assert "the last good one stays" in caplog.text
        assert "sk-secret" not in lines(caplog)
        config.write_text(good)
        assert await reloader.reload() == ""


async def test_some_settings_wait_for_a_start(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "cotguard.yaml"
    good = f"upstream: {upstream.url}\npolicy: secrets-only\nbundle: none\n"
    config.write_text(good)
    caplog.set_level(logging.INFO)
    async with reloading(config) as (_, gateway, reloader):
        config.write_text(good + "listen: 127.0.0.1:1\nguard_concurrency: 3\nidle_timeout: 7\n")
        assert await reloader.reload() == ""
        settings = gateway.active.settings
        assert (settings.listen, settings.guard_concurrency, settings.idle_timeout) == ("127.0.0.1:8080", 16, 7)
        assert 'settings="listen, guard_concurrency"' in lines(caplog)
        assert "policy_name=secrets-only" in lines(caplog)


async def test_an_unchanged_policy_is_not_loaded_again(upstream: Upstream, tmp_path: Path) -> None:
    config = tmp_path / "cotguard.yaml"
    good = f"upstream: {upstream.url}\npolicy: secrets-only\n"
    config.write_text(good)
    async with reloading(config) as (_, gateway, reloader):
        before = gateway.active.moderations[""]
        config.write_text(good + "idle_timeout: 7\n")
        assert await reloader.reload() == ""
        assert gateway.active.moderations[""] is before


async def test_a_file_is_read_once_it_stands_still(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming(STREAM)
    config, file = tmp_path / "cotguard.yaml", tmp_path / "own.yaml"
    link = tmp_path / "current.yaml"
    file.write_text(policy("EMAIL_ADDRESS"))
    link.symlink_to(file)
    config.write_text(f"upstream: {upstream.url}\npolicy: {link}\n")
    async with reloading(config) as (url, _, reloader):
        following = asyncio.create_task(reloader.follow())
        assert "[EMAIL_ADDRESS]" in await said(url)
        other = tmp_path / "other.yaml"
        other.write_text(policy("IP_ADDRESS"))
        (tmp_path / "new").symlink_to(other)
        (tmp_path / "new").rename(link)  # as Kubernetes swaps a ConfigMap
        await gets(url, "[IP_ADDRESS]")
        following.cancel()
