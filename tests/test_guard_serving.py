"""A guard model behind the gateway, over sockets: the guarantees, faults, readiness, what is told, and bounds."""

import asyncio
import json
import logging
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from conftest import Proxy, ProxyFactory, Upstream, error_of, nothing_new
from scripted import CHAT_PATH, DONE, chunk, cut, finish, post, streaming, texts

from cotguard.classifier.bundle import DEFAULT
from cotguard.classifier.detector import Classifier
from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.detectors.registry import build
from cotguard.gateway.admin import GatewayState, create_admin_app
from cotguard.guard.detector import Guard
from cotguard.guard.format import Hazard, Passage, load_format
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import PlainView
from cotguard.policy import Policy, parse
from cotguard.spans import ChannelKind

KEY = "sk-guard-5e1f0c"
USER = "Tell me about cutlery."
REASONING = (
    "The user asks about cutlery, so knives are fine to mention. First they stab the guard at the gate, in the dark. "
    "Then I should go on with forks and spoons, which are harmless! The answer can be short and friendly, I think.\n"
    "Mail ann.lee@example.com is in the notes. "
) * 2
ANSWER = "Cutlery is what you eat with: knives, forks and spoons. " * 3 + "Never stab anybody with it. Enjoy your meal."
FORMAT = """
version: 1
name: test-guard
segment: {least: 40, most: 120}
context: {user: 100, before: 0}
messages: [{role: user, content: "{user}"}, {role: assistant, content: "{before}{segment}"}]
request: {max_tokens: 8}
verdict: {scores: {safe: 0, unsafe: 1}, categories: {}}
categories: {S1: [VIOLENT_CRIMES], S10: [HATE]}
"""


def policy(action: str, on_error: str = "closed") -> Policy:
    rules = f"  - {{entities: [HAZARD], action: {action}}}\n  - {{entities: [EMAIL_ADDRESS], action: redact}}\n"
    return parse(f"version: 1\nname: t\nclassifier: false\non_error: {on_error}\nrules:\n{rules}", "t.yaml", None)


Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


def completion(content: object, reason: str = "stop") -> web.Response:
    message = {"role": "assistant", "content": content}
    return web.json_response({"id": "g", "choices": [{"index": 0, "message": message, "finish_reason": reason}]})


@dataclass
class GuardServer:
    """A guard that knows one word; ``reply`` stands in for it when set."""

    url: str = ""
    reply: Reply | None = None
    pause: float = 0
    random: Callable[[], float] | None = None
    bodies: list[dict[str, object]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    now: int = 0
    most: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.path == CHAT_PATH
        body = await request.read()
        self.bodies.append(json.loads(body))
        self.headers.append(request.headers.get("Authorization", ""))
        self.now += 1
        self.most = max(self.most, self.now)
        self.asked.set()
        try:
            await asyncio.sleep(self.pause * (self.random() if self.random else 1))
            if self.reply is not None:
                return await self.reply(request)
            return completion("unsafe\nS1" if b"stab" in body else "safe")
        except asyncio.CancelledError:
            self.left.set()
            raise
        finally:
            self.now -= 1


@pytest_asyncio.fixture
async def server() -> AsyncIterator[GuardServer]:
    guard = GuardServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", guard.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    guard.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield guard
    await runner.cleanup()


MakeGuarded = Callable[..., Awaitable[Proxy]]


@pytest.fixture
def make_guarded(make_proxy: ProxyFactory, server: GuardServer, tmp_path: Path) -> MakeGuarded:
    """A gateway with the guard; other settings by name."""
    path = tmp_path / "format.yaml"
    path.write_text(FORMAT, encoding="utf-8")

    async def make(rules: Policy, more: Sequence[Detector] = (), **settings: object) -> Proxy:
        named = {"guard_url": server.url + "/v1", "guard_format": str(path), "guard_api_key": KEY, "guard_model": "g"}
        return await make_proxy(rules, (*build(rules, guard=str(path)), *more), **{**named, **settings})

    return make


def by_word(passages: Sequence[Passage]) -> list[list[Hazard]]:
    return [[Hazard("VIOLENT_CRIMES", 1)] if "stab" in passage.segment else [] for passage in passages]


def offline(text: str, kind: ChannelKind, rules: Policy, path: Path) -> str:
    guard = Guard(load_format(str(path / "format.yaml")), list(ChannelKind), by_word)
    exchange = Exchange(rules, [*build(rules), guard], RequestFacts(user=USER), bytes(16))
    lane = exchange.lane(0)
    lane.open(kind, PlainView(kind))
    lane.feed(kind, text)
    lane.finish()
    return "".join(emission.text for emission in lane.take())


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": USER}]

# --- The guarantees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["flag", "redact", "withhold", "block"])
@pytest.mark.parametrize("seed", range(3))
async def test_any_cut_is_moderated_alike(
    upstream: Upstream, make_guarded: MakeGuarded, server: GuardServer, tmp_path: Path, action: str, seed: int
) -> None:
    rng, rules = random.Random(seed), policy(action)
    server.pause, server.random = 0.03, rng.random
    proxy = await make_guarded(rules)
    events = [chunk({"reasoning_content": text}) for text in cut(REASONING, rng, 9)]
    events += [chunk({"content": text}) for text in cut(ANSWER, rng, 9)]
    upstream.handler = streaming([*events, finish(), DONE])
    _, body = await post(proxy.url, stream=True, messages=MESSAGES)
    delivered = texts(body)
    reasoning = offline(REASONING, ChannelKind.REASONING, rules, tmp_path)
    assert delivered[0, "reasoning_content"] == reasoning
    assert ("stab" in reasoning) is (action == "flag")
    assert "ann.lee" not in body
    if action == "block":
        assert (0, "content") not in delivered
        assert "content_filter" in body
    else:
        assert delivered[0, "content"] == offline(ANSWER, ChannelKind.OUTPUT, rules, tmp_path)


async def test_whole_responses(upstream: Upstream, make_guarded: MakeGuarded, tmp_path: Path) -> None:
    rules = policy("redact")
    proxy = await make_guarded(rules)
    message = {"role": "assistant", "reasoning": REASONING, "content": ANSWER}

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    upstream.handler = handler
    status, body = await post(proxy.url)
    said = json.loads(body)["choices"][0]["message"]
    assert status == 200
    assert said["reasoning"] == offline(REASONING, ChannelKind.REASONING, rules, tmp_path)
    assert said["content"] == offline(ANSWER, ChannelKind.OUTPUT, rules, tmp_path)


async def test_what_the_guard_is_sent(upstream: Upstream, make_guarded: MakeGuarded, server: GuardServer) -> None:
    proxy = await make_guarded(policy("redact"))
    upstream.handler = streaming([chunk({"content": text}) for text in (ANSWER[:70], ANSWER[70:])] + [finish(), DONE])
    await post(proxy.url, stream=True, messages=MESSAGES)
    asked = [body["messages"] for body in server.bodies]
    assert {json.dumps(messages[0]) for messages in asked} == {json.dumps(MESSAGES[1])}  # type: ignore[index]
    assert "".join(messages[1]["content"] for messages in asked) == ANSWER  # type: ignore[index]
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in server.bodies} == {("g", 0, 8)}
    assert set(server.headers) == {f"Bearer {KEY}"}
    assert proxy.gateway.staff.guard == " and guard test-guard"


async def test_beside_the_classifier(upstream: Upstream, make_guarded: MakeGuarded) -> None:
    rules = parse(
        "version: 1\nname: t\nrules:\n  - {entities: [HAZARD, PERSON], action: redact}\n",
        "t.yaml",
        None,
    )
    proxy = await make_guarded(rules, [Classifier.load(DEFAULT)])
    text = "The customer is Margaret Okonkwo, who would like to have her refund soon. Then they stab him. All is well."
    upstream.handler = streaming([chunk({"content": each}) for each in re.findall("..?.?.?", text)] + [finish(), DONE])
    _, body = await post(proxy.url, stream=True)
    said = texts(body)[0, "content"]
    assert "[PERSON]" in said
    assert "[VIOLENT_CRIMES]" in said
    assert not [word for word in ("Margaret", "Okonkwo", "stab") if word in said]


# --- Faults ------------------------------------------------------------------------------------------------------


async def sleeps(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(1.0)
    return completion("safe")


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def dies_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"choices":')
    assert request.transport is not None
    request.transport.close()
    return response


def says(text: str, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    async def reply(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, headers=headers, content_type="application/json")

    return reply


def completes(content: object, reason: str = "stop") -> Reply:
    async def reply(_request: web.Request) -> web.StreamResponse:
        return completion(content, reason)

    return reply


FAULTS: dict[str, tuple[Reply, str]] = {
    "slow": (sleeps, "timeout"),
    "hangs up": (hangs_up, "connection"),
    "dies in the middle": (dies_in_the_middle, "connection"),
    "status 500": (says('{"error": {"message": "stab"}}', 500), "status"),
    "status 429": (says("", 429), "status"),
    "status 204": (says("", 204), "status"),
    "redirects": (says("", 307, {"Location": "http://127.0.0.1:9/"}), "status"),
    "no json": (says("<html>stab</html>"), "malformed"),
    "no choices": (says('{"choices": []}'), "malformed"),
    "a list": (says("[]"), "malformed"),
    "no text": (completes(None), "malformed"),
    "too large": (completes("x" * 70_000), "malformed"),
    "no verdict": (completes("I'd rather not stab"), "verdict"),
    "unknown category": (completes("unsafe\nS99"), "verdict"),
    "empty": (completes(""), "verdict"),
    "cut short": (completes("unsafe\nS1", "length"), "verdict"),
}


@pytest_asyncio.fixture
async def admin() -> AsyncIterator[Callable[[Proxy], Awaitable[TestServer]]]:
    servers: list[TestServer] = []

    async def make(proxy: Proxy) -> TestServer:
        servers.append(TestServer(create_admin_app(GatewayState(proxy.gateway, nothing_new))))
        await servers[-1].start_server()
        return servers[-1]

    yield make
    for server in servers:
        await server.close()


async def readiness(server: TestServer) -> int:
    async with aiohttp.ClientSession() as session, session.get(server.make_url("/readyz")) as response:
        return response.status


def failures(proxy: Proxy) -> dict[str, float]:
    exposed = proxy.gateway.metrics.expose().decode()
    return {kind: float(count) for kind, count in re.findall(r'guard_failures_total{kind="(\w+)"} (\S+)', exposed)}


def stream_or_whole(upstream: Upstream, stream: bool) -> None:
    if stream:
        upstream.handler = streaming([chunk({"content": ANSWER}), finish(), DONE])
        return

    async def whole(request: web.Request) -> web.StreamResponse:
        choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
        return web.json_response({"id": "c", "choices": [choice]})

    upstream.handler = whole


def deadline(kind: str) -> float:
    """Short only where it is to be missed: a busy machine is no fault."""
    return 0.5 if kind == "timeout" else 30


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_guard_that_fails(
    upstream: Upstream,
    make_guarded: MakeGuarded,
    server: GuardServer,
    admin: Callable[[Proxy], Awaitable[TestServer]],
    caplog: pytest.LogCaptureFixture,
    name: str,
    stream: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.reply, kind = FAULTS[name]
    proxy = await make_guarded(policy("redact"), guard_deadline=deadline(kind))
    port = await admin(proxy)
    stream_or_whole(upstream, stream)
    assert await readiness(port) == 503
    status, body = await post(proxy.url, stream=stream, messages=MESSAGES)
    assert status == (200 if stream else 500)
    assert error_of(body)["code"] == "moderation_failed"
    assert "[DONE]" not in body
    assert not [word for word in ("Cutlery", "stab", KEY) if word in body]
    assert proxy.accounts.closed == {"moderation_failed": 1}
    assert proxy.accounts.requests == {("200" if stream else "500", "failed"): 1}
    assert failures(proxy) == {kind: 2}  # the probe's and the stream's
    assert await readiness(port) == 503
    server.reply = None
    assert await readiness(port) == 200
    _, body = await post(proxy.url, stream=stream, messages=MESSAGES)
    assert "Cutlery is what you eat with" in body
    assert "[VIOLENT_CRIMES]" in body
    told = caplog.text + proxy.gateway.metrics.expose().decode()
    assert not [word for word in ("Cutlery", "cutlery", "stab", KEY) if word in told]


@pytest.mark.parametrize("name", ["slow", "hangs up", "status 500", "no json", "no verdict"])
async def test_fail_open_is_counted_apart(
    upstream: Upstream, make_guarded: MakeGuarded, server: GuardServer, name: str
) -> None:
    server.reply, kind = FAULTS[name]
    proxy = await make_guarded(policy("block", "open"), guard_deadline=deadline(kind))
    stream_or_whole(upstream, stream=True)
    _, body = await post(proxy.url, stream=True)
    assert texts(body)[0, "content"] == ANSWER
    assert proxy.accounts.opened == {"moderation_failed": 1}
    assert proxy.accounts.requests == {("200", "failed_open"): 1}
    assert failures(proxy) == {kind: 1}


async def test_nothing_of_a_segment_leaves_before_its_verdict(
    upstream: Upstream, make_guarded: MakeGuarded, server: GuardServer
) -> None:
    judged = asyncio.Event()

    async def reply(_request: web.Request) -> web.StreamResponse:
        await judged.wait()
        return completion("safe")

    server.reply = reply
    proxy = await make_guarded(policy("redact"))
    upstream.handler = streaming([chunk({"content": ANSWER}), finish(), DONE])
    request = {"model": "m", "stream": True, "messages": MESSAGES}
    async with aiohttp.ClientSession() as session, session.post(proxy.url + CHAT_PATH, json=request) as response:
        await asyncio.wait_for(server.asked.wait(), 5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await response.content.readany()
        judged.set()
        assert "Cutlery" in (await response.content.read()).decode()


async def test_a_guard_that_is_not_there(
    upstream: Upstream, make_guarded: MakeGuarded, admin: Callable[[Proxy], Awaitable[TestServer]]
) -> None:
    proxy = await make_guarded(policy("redact"), guard_url="http://127.0.0.1:9")
    assert await readiness(await admin(proxy)) == 503
    stream_or_whole(upstream, stream=True)
    _, body = await post(proxy.url, stream=True)
    assert error_of(body)["code"] == "moderation_failed"
    assert failures(proxy) == {"connection": 2}


async def test_a_connection_that_broke_is_tried_once_more(
    upstream: Upstream, make_guarded: MakeGuarded, server: GuardServer
) -> None:
    async def once(request: web.Request) -> web.StreamResponse:
        server.reply = None
        return await hangs_up(request)

    server.reply = once
    proxy = await make_guarded(policy("redact"))
    stream_or_whole(upstream, stream=True)
    _, body = await post(proxy.url, stream=True)
    assert "[VIOLENT_CRIMES]" in body
    assert failures(proxy) == {}


async def test_a_client_that_leaves_takes_its_questions_along(
    upstream: Upstream, make_guarded: MakeGuarded, server: GuardServer
) -> None:
    server.pause = 5
    proxy = await make_guarded(policy("redact"))
    stream_or_whole(upstream, stream=True)
    request = {"model": "m", "stream": True, "messages": MESSAGES}
    async with aiohttp.ClientSession() as session, session.post(proxy.url + CHAT_PATH, json=request):
        await asyncio.wait_for(server.asked.wait(), 5)
    await asyncio.wait_for(server.left.wait(), 4)
    for _ in range(100):
        if proxy.accounts.requests:
            break
        await asyncio.sleep(0.02)
    assert proxy.accounts.requests == {("499", "client_gone"): 1}
    assert failures(proxy) == {}


# --- Bounds ------------------------------------------------------------------------------------------------------


async def test_so_many_requests_at_once_and_no_more(
    upstream: Upstream, make_guarded: MakeGuarded, server: GuardServer
) -> None:
    server.pause = 0.01
    proxy = await make_guarded(policy("redact"), guard_concurrency=3)
    stream_or_whole(upstream, stream=True)
    bodies = await asyncio.gather(*(post(proxy.url, stream=True) for _ in range(16)))
    assert len({json.dumps(sorted(map(str, texts(body).items()))) for _, body in bodies}) == 1
    assert all("[VIOLENT_CRIMES]" in body for _, body in bodies)
    assert server.most == 3
    exposed = proxy.gateway.metrics.expose().decode()
    assert "cotguard_guard_queue_requests 0.0" in exposed
    for name in ("wait_seconds", "request_seconds"):
        assert float(re.findall(rf"cotguard_guard_{name}_count (\S+)", exposed)[0]) == len(server.bodies)


async def test_a_turn_that_does_not_come_is_a_fault(
    upstream: Upstream, make_guarded: MakeGuarded, server: GuardServer
) -> None:
    server.pause = 0.6
    proxy = await make_guarded(policy("redact"), guard_concurrency=1, guard_deadline=1.0)
    upstream.handler = streaming([chunk({"content": "Short."}), finish(), DONE])
    bodies = await asyncio.gather(*(post(proxy.url, stream=True) for _ in range(4)))
    answered = [body for _, body in bodies if "Short." in body]
    assert len(answered) == 1
    assert failures(proxy) == {"timeout": 3}


async def test_a_long_text_is_not_all_due_at_once(
    upstream: Upstream, make_guarded: MakeGuarded, server: GuardServer
) -> None:
    server.pause = 0.05
    proxy = await make_guarded(policy("redact"), guard_concurrency=2, guard_deadline=1.5)
    text = "A sentence that is long enough for a segment. " * 100
    upstream.handler = streaming([chunk({"content": text}), finish(), DONE])
    _, body = await post(proxy.url, stream=True)
    assert texts(body)[0, "content"] == text
    assert len(server.bodies) == 100
    assert server.most == 2
