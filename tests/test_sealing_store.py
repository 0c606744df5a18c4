"""Originals that stay inside: a real Redis server, its absence, its failure, and what tokens hold then."""

import asyncio
import base64
import json
import shutil
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from conftest import Proxy, ProxyFactory, Upstream
from sealing_kit import MAIL, Signing, said, sign, thought
from test_sealing_loops import anthropic_answer, anthropic_reasoning, anthropic_turn, anthropic_turns

from cotguard.moderation.exchange import ModerationFault
from cotguard.sealing.redis_store import RedisStore
from cotguard.sealing.store import Question, kept

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
needs_server = pytest.mark.skipif(SERVER is None, reason="no redis-server or valkey-server is installed")
KEYS = "a:" + base64.b64encode(b"k" * 32).decode()


class Server:
    """A server of the store."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        assert SERVER is not None
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self._process = await asyncio.create_subprocess_exec(SERVER, *options, stdout=asyncio.subprocess.DEVNULL)
        store = RedisStore(self.url, 1)
        for _ in range(200):
            if await store.check():
                break
            await asyncio.sleep(0.02)
        await store.close()

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await self._process.wait()
            self._process = None

    async def dump(self) -> bytes:
        """Everything that is kept."""
        found = b""
        store = RedisStore(self.url, 1)
        async for name in store._client.scan_iter():
            found += name + b"=" + (await store._client.get(name) or b"") + b"\n"
        await store.close()
        return found


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    started = Server()
    await started.start()
    yield started
    await started.stop()


async def ask(proxy: Proxy, messages: list[Any], *, stream: bool = True, key: str = "k1") -> tuple[int, bytes]:
    body = {"model": "m", "max_tokens": 9, "stream": stream, "messages": messages, "tools": [{"name": "send"}]}
    async with (
        aiohttp.ClientSession(headers={"x-api-key": key}) as session,
        session.post(f"{proxy.url}/v1/messages", json=body) as answer,
    ):
        return answer.status, await answer.read()


def message_of(data: bytes) -> list[dict[str, Any]]:
    """The blocks of a stream or of a whole message."""
    if data.startswith(b"{"):
        content: list[dict[str, Any]] = json.loads(data)["content"]
        return content
    blocks: list[dict[str, Any]] = []
    for line in data.split(b"\n"):
        event = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
        if event.get("type") == "content_block_start":
            blocks.append(event["content_block"])
        for name in ("thinking", "signature"):
            if name in event.get("delta", {}):
                blocks[event["index"]][name] += event["delta"][name]
    return blocks


def signing() -> Signing:
    return Signing(anthropic_turns, lambda turn: anthropic_reasoning([anthropic_turn(turn)])[0], anthropic_answer)


USER = {"role": "user", "content": "go"}


@needs_server
@pytest.mark.parametrize("stream", [True, False])
async def test_originals_stay_inside(
    upstream: Upstream, make_proxy: ProxyFactory, server: Server, stream: bool
) -> None:
    upstream.handler = handler = signing()
    proxy = await make_proxy(seal_store=server.url, seal_keys=KEYS)
    messages: list[Any] = [USER]
    for turn in range(4):
        status, data = await ask(proxy, messages, stream=stream)
        assert status == 200
        blocks = message_of(data)
        assert blocks[0]["thinking"] == said(turn)
        assert len(blocks[0]["signature"]) < 300
        messages += [{"role": "assistant", "content": blocks}, USER]
    assert handler.accepted == 4
    assert not handler.unexpected
    kept = await server.dump()
    assert kept.count(b"cotguard:seal:") == 4 + 2
    assert MAIL.encode() not in kept
    assert sign(thought(0)).encode() not in kept


@needs_server
async def test_replicas_share_the_store_and_a_seal_stays_bound(
    upstream: Upstream, make_proxy: ProxyFactory, server: Server
) -> None:
    upstream.handler = handler = signing()
    one, other = [await make_proxy(seal_store=server.url, seal_keys=KEYS) for _ in range(2)]
    _, data = await ask(one, [USER])
    history = [USER, {"role": "assistant", "content": message_of(data)}, USER]
    assert (await ask(other, history))[0] == 200
    status, refused = await ask(other, history, key="k2")
    assert status == 400
    assert b"is not valid here" in refused
    assert handler.accepted == 2


@needs_server
async def test_an_original_is_gone_when_its_time_is_over(
    upstream: Upstream, make_proxy: ProxyFactory, server: Server
) -> None:
    upstream.handler = handler = signing()
    proxy = await make_proxy(seal_store=server.url, seal_keys=KEYS, seal_max_age=0.3)
    _, data = await ask(proxy, [USER])
    await asyncio.sleep(0.4)
    assert await server.dump() == b""
    status, refused = await ask(proxy, [USER, {"role": "assistant", "content": message_of(data)}, USER])
    assert status == 400
    assert b"has expired" in refused
    assert handler.accepted == 1


@needs_server
@pytest.mark.parametrize("stream", [True, False])
async def test_without_its_store_an_exchange_fails_closed(
    upstream: Upstream, make_proxy: ProxyFactory, server: Server, stream: bool
) -> None:
    upstream.handler = handler = signing()
    proxy = await make_proxy(seal_store=server.url, seal_keys=KEYS, seal_deadline=2)
    assert await proxy.gateway.staff.ready()
    _, data = await ask(proxy, [USER])
    await server.stop()
    assert not await proxy.gateway.staff.ready()
    status, failed = await ask(proxy, [USER], stream=stream)
    assert status == (200 if stream else 500)
    assert b"Moderation failed" in failed
    assert b"signature_delta" not in failed
    assert b"message_stop" not in failed
    assert MAIL.encode() not in failed
    asked = len(upstream.bodies)
    status, failed = await ask(proxy, [USER, {"role": "assistant", "content": message_of(data)}, USER])
    assert status == 500
    assert b"Moderation failed" in failed
    assert len(upstream.bodies) == asked
    assert handler.accepted == 2
    assert proxy.accounts.closed["moderation_failed"] == 2
    await server.start()
    assert (await ask(proxy, [USER]))[0] == 200
    assert await proxy.gateway.staff.ready()


@needs_server
async def test_a_seal_without_a_store_opens_with_one(
    upstream: Upstream, make_proxy: ProxyFactory, server: Server
) -> None:
    upstream.handler = handler = signing()
    plain = await make_proxy(seal_keys=KEYS)
    stored = await make_proxy(seal_keys=KEYS, seal_store=server.url)
    _, data = await ask(plain, [USER])
    first = [USER, {"role": "assistant", "content": message_of(data)}, USER]
    status, data = await ask(stored, first)
    assert status == 200
    status, refused = await ask(plain, [*first, {"role": "assistant", "content": message_of(data)}, USER])
    assert status == 400
    assert b"is not valid here" in refused
    assert handler.accepted == 2


def test_a_fault_of_the_store_is_one_of_moderation() -> None:
    """With the compiled core too, where a class of Python's own comes from a compiled one."""
    with pytest.raises(ModerationFault, match="the store of sealed originals failed"):
        kept("handle", b"value", 1)


async def test_a_store_that_is_not_there_is_told_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", 0.2)
        began = time.monotonic()
        assert not await store.check()
        with pytest.raises(Exception, match=r".") as caught:
            await store(Question("handle", b"value", 1))
        assert time.monotonic() - began < 3
        assert "value" not in str(caught.value)
        await store.close()
