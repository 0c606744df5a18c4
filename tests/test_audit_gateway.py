"""Records of what the gateway does: before it is delivered, of each decision and exchange, and never of a text."""

import asyncio
import json
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from conftest import Upstream, _listen, error_of
from scripted import CHAT_PATH, DONE, chunk, finish, post, streaming, texts
from test_serve import until

from cotguard.audit.trail import AuditOptions, Trail
from cotguard.cli import main
from cotguard.config.settings import Settings
from cotguard.detectors.registry import build
from cotguard.gateway.app import Gateway, create_app
from cotguard.gateway.moderations import Moderation, load_moderations
from cotguard.policy import parse
from cotguard.telemetry.metrics import Metrics

POLICY = """
version: 1
name: audited
classifier: false
on_audit_error: {on_audit_error}
request: {{texts: moderate}}
rules:
  - {{entities: [EMAIL_ADDRESS], action: redact}}
  - {{entities: [IP_ADDRESS], action: flag}}
"""
REQUEST = {"model": "m-1", "stream": True, "messages": [{"role": "user", "content": "ask bob@example.org"}]}


@asynccontextmanager
async def audited(upstream: Upstream, folder: Path, on_audit_error: str = "closed") -> AsyncIterator[tuple[str, Trail]]:
    policy = parse(POLICY.format(on_audit_error=on_audit_error), "audited.yaml", None)
    settings = Settings(upstream=upstream.url)
    metrics = Metrics()
    trail = Trail(AuditOptions(directory=str(folder), deadline=2), metrics)
    moderations = load_moderations(settings, own=Moderation.of(policy, build(policy)))
    runner, url = await _listen(create_app(Gateway(settings, moderations, metrics, trail=trail)))
    try:
        yield url, trail
    finally:
        await runner.cleanup()


def records(folder: Path, kind: str = "") -> list[dict[str, Any]]:
    lines = [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
    return [line for line in lines if not kind or line["type"] == kind]


async def test_an_exchange_and_its_decisions(upstream: Upstream, tmp_path: Path) -> None:
    thoughts = [chunk({"reasoning": "ann.lee@example.com is not Ann.Lee@Example.com at 10.1.2.3"})]
    upstream.handler = streaming([*thoughts, chunk({"content": "write bob@example.org"}), finish(), DONE])
    async with audited(upstream, tmp_path) as (url, _), aiohttp.ClientSession() as session:
        headers = {"Authorization": "Bearer sk-client"}
        async with session.post(url + CHAT_PATH, json=REQUEST, headers=headers) as response:
            told = response.headers
            body = await response.text()
        assert "example" not in "".join(texts(body).values())
    assert main(["audit", "verify", str(tmp_path)]) == 0
    assert [each["event"] for each in records(tmp_path, "event")] == ["start", "stop"]
    (exchange,) = records(tmp_path, "exchange")
    assert exchange["request_id"] == told["x-cotguard-request-id"]
    assert exchange["policy_digest"] == told["x-cotguard-policy"]
    wanted = {"model": "m-1", "dialect": "chat_completions", "route": "default", "status": 200, "outcome": "ok"}
    assert wanted.items() <= exchange.items()
    assert exchange["upstream"] == upstream.url.removeprefix("http://")
    decisions = records(tmp_path, "decision")
    assert exchange["decisions"] == len(decisions) == 5
    asked, first, second, address, answered = decisions
    assert (asked["direction"], asked["channel"]) == ("request", "user")
    assert (first["start"], first["length"], first["action"], first["rule"]) == (0, 19, "redact", 0)
    assert first["value"] == second["value"] != answered["value"] == asked["value"]
    assert (address["action"], address["outcome"], address["rule"]) == ("flag", "flagged", 1)
    assert {each["caller"] for each in (*decisions, exchange)} == {exchange["caller"]}
    assert exchange["caller"].startswith("credential:")
    kept = json.dumps(records(tmp_path))
    for secret in ("example", "10.1.2.3", "sk-client", "Bearer"):
        assert secret not in kept


async def test_a_decision_is_recorded_before_what_follows_from_it_is_delivered(
    upstream: Upstream, tmp_path: Path
) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "mail ann.lee@example.com, then "}))
        await go_on.wait()
        return response

    upstream.handler = slow
    async with audited(upstream, tmp_path) as (url, _), aiohttp.ClientSession() as session:
        async with session.post(url + CHAT_PATH, json=REQUEST) as response:
            seen = b""
            while b"[EMAIL_ADDRESS]" not in seen:
                seen += await response.content.readany()
            outcomes = [(each["direction"], each["entity"]) for each in records(tmp_path, "decision")]
            assert outcomes == [("request", "EMAIL_ADDRESS"), ("response", "EMAIL_ADDRESS")]
        go_on.set()

        async def gone() -> bool:
            return bool(records(tmp_path, "exchange"))

        await until(gone)
    (exchange,) = records(tmp_path, "exchange")
    assert (exchange["status"], exchange["outcome"]) == (499, "client_gone")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process grows, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


async def test_without_a_trail_nothing_is_delivered_until_it_is_back(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming([chunk({"content": "mail ann.lee@example.com now"}), finish(), DONE])
    async with audited(upstream, tmp_path) as (url, trail):
        with full_disk():
            asked = len(upstream.paths)
            for _ in range(2):  # the first one finds out, the next does not begin
                status, body = await post(url, **REQUEST)
                assert (status, error_of(body)["code"]) == (500, "moderation_failed")
            assert len(upstream.paths) == asked

        async def back() -> bool:
            return not trail.failed

        await until(back)
        status, body = await post(url, **REQUEST)
        assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"
    assert main(["audit", "verify", str(tmp_path)]) == 0
    assert len(records(tmp_path, "exchange")) == 3


async def test_a_stream_ends_when_its_decisions_cannot_be_recorded(upstream: Upstream, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "a long enough beginning of the text, "}))
        await go_on.wait()
        await response.write(chunk({"content": "mail ann.lee@example.com, then "}) + finish() + DONE)
        return response

    upstream.handler = slow
    async with audited(upstream, tmp_path) as (url, _), aiohttp.ClientSession() as session:
        body = {**REQUEST, "messages": [{"role": "user", "content": "hello"}]}
        async with session.post(url + CHAT_PATH, json=body) as response:
            seen = await response.content.readany()
            with full_disk():
                go_on.set()
                async for data in response.content.iter_any():
                    seen += data
    assert b"EMAIL_ADDRESS" not in seen
    assert b"moderation_failed" in seen
    assert b"[DONE]" not in seen


async def test_a_policy_may_go_on_without_records(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming([chunk({"content": "mail ann.lee@example.com now"}), finish(), DONE])
    async with audited(upstream, tmp_path, "open") as (url, _):
        with full_disk():
            for stream in (True, True):
                _, body = await post(url, **{**REQUEST, "stream": stream})
                assert texts(body)[0, "content"] == "mail [EMAIL_ADDRESS] now"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert main(["serve", "--upstream", "http://x", "--audit-dir", str(tmp_path / "trail")]) == 2


async def test_an_exchange_is_recorded_before_its_last_bytes_are_delivered(upstream: Upstream, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "nothing to be seen here, "}))
        await go_on.wait()
        await response.write(chunk({"content": "go on"}) + finish() + DONE)
        return response

    upstream.handler = slow
    body = {**REQUEST, "messages": [{"role": "user", "content": "hello"}]}
    async with audited(upstream, tmp_path) as (url, trail), aiohttp.ClientSession() as session:
        async with session.post(url + CHAT_PATH, json=body) as response:
            seen = await response.content.readany()
            with full_disk():
                go_on.set()
                async for data in response.content.iter_any():
                    seen += data
        assert b"moderation_failed" in seen
        assert b"[DONE]" not in seen

        async def back() -> bool:
            return not trail.failed

        await until(back)
        async with session.post(url + CHAT_PATH, json=body) as response:
            while b"[DONE]" not in seen:
                seen += await response.content.readany()
            (*_, exchange) = records(tmp_path, "exchange")
            assert (exchange["request_id"], exchange["outcome"]) == (response.headers["x-cotguard-request-id"], "ok")
    assert [each["outcome"] for each in records(tmp_path, "exchange")] == ["ok", "failed", "ok"]
