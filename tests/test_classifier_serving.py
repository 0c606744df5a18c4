"""The classifier behind the gateway, over sockets: the guarantees, faults, readiness, metrics."""

import asyncio
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from conftest import Handler, Proxy, ProxyFactory, Upstream, error_of, nothing_new
from scripted import CHAT_PATH, DONE, chunk, cut, finish, post, streaming, texts

from cotguard.classifier.bundle import DEFAULT, load
from cotguard.classifier.detector import Classifier
from cotguard.classifier.engine import Answer, Engine, InferenceError, Window
from cotguard.classifier.handover import ask, handed_over
from cotguard.classifier.inference import Inference
from cotguard.detectors.contract import RequestFacts
from cotguard.detectors.registry import build
from cotguard.gateway.admin import GatewayState, create_admin_app
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import PlainView
from cotguard.policy import Policy, parse
from cotguard.spans import ChannelKind

RULES = """
version: 1
name: t
{}
rules:
  - entities: [EMAIL_ADDRESS, PERSON, STREET_ADDRESS, SECRET, LOCATION]
    action: redact
"""
POLICY = parse(RULES.format(""), "t.yaml", None)
OPEN = parse(RULES.format("on_error: open"), "t.yaml", None)

REASONING = (
    "Okay, so the customer is Margaret Okonkwo, who moved to 12 Harbour Lane last spring and writes from "
    "m.okonkwo@example.org. Okonkwo says that her password is tulip-River-99, which I must keep to myself. Let me "
    "think about what Margaret needs: the refund for the broken kettle, nothing else. I should leave out the address. "
)
ANSWER = (
    "Thank you for your message, the refund is on its way and should be there within five working days. If the kettle "
    "breaks again, write to us and we send another one. Best regards from all of us, and say hello to Margaret Okonkwo."
)
SECRETS = ("Margaret", "Okonkwo", "Harbour", "okonkwo@", "tulip", "River-99")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load(DEFAULT)


@pytest.fixture(scope="module")
def patterns() -> tuple[object, ...]:
    return build(POLICY)


@pytest_asyncio.fixture
async def proxy(make_proxy: ProxyFactory, classifier: Classifier, patterns: tuple[object, ...]) -> Proxy:
    return await make_proxy(POLICY, (*patterns, classifier), classifier_deadline=60)  # however busy the machine is


def offline(text: str, kind: ChannelKind, detectors: Sequence[object], policy: Policy = POLICY) -> str:
    exchange = Exchange(policy, detectors, RequestFacts(), bytes(16))  # type: ignore[arg-type]  # of a fixture
    lane = exchange.lane(0)
    lane.open(kind, PlainView(kind))
    lane.feed(kind, text)
    lane.finish()
    return "".join(emission.text for emission in lane.take())


# --- The guarantees ----------------------------------------------------------------------------------------------


def paused(events: Sequence[bytes], rng: random.Random) -> Handler:
    """An upstream that rests now and then."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(event)
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random() / 50)
        return response

    return handler


@pytest.mark.parametrize("seed", range(4))
async def test_no_character_leaves_in_any_cut(
    upstream: Upstream, proxy: Proxy, classifier: Classifier, patterns: tuple[object, ...], seed: int
) -> None:
    rng = random.Random(seed)
    events = [chunk({"reasoning_content": text}) for text in cut(REASONING, rng)]
    events += [chunk({"content": text}) for text in cut(ANSWER, rng)]
    upstream.handler = paused([*events, finish(), DONE], rng)
    _, body = await post(proxy.url, stream=True)
    delivered = texts(body)
    detectors = (*patterns, classifier)
    assert delivered[0, "reasoning_content"] == offline(REASONING, ChannelKind.REASONING, detectors)
    assert delivered[0, "content"] == offline(ANSWER, ChannelKind.OUTPUT, detectors)
    assert "[PERSON]" in delivered[0, "reasoning_content"]
    assert "[SECRET" in delivered[0, "reasoning_content"]
    assert "[STREET_ADDRESS]" in delivered[0, "reasoning_content"]
    assert not [secret for secret in SECRETS if secret in body]


async def test_interleaved_channels(
    upstream: Upstream, proxy: Proxy, classifier: Classifier, patterns: tuple[object, ...]
) -> None:
    rng = random.Random(5)
    reasoning, answer = list(cut(REASONING, rng, 3)), list(cut(ANSWER, rng, 3))
    events = []
    while reasoning or answer:
        name, rest = rng.choice([(n, r) for n, r in (("reasoning", reasoning), ("content", answer)) if r])
        events.append(chunk({name: rest.pop(0)}))
    upstream.handler = streaming([*events, finish(), DONE])
    _, body = await post(proxy.url, stream=True)
    delivered = texts(body)
    assert delivered[0, "reasoning"] == offline(REASONING, ChannelKind.REASONING, (*patterns, classifier))
    assert not [secret for secret in SECRETS if secret in body]


async def test_whole_responses(upstream: Upstream, proxy: Proxy) -> None:
    message = {"role": "assistant", "reasoning": REASONING, "content": ANSWER}

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    upstream.handler = handler
    status, body = await post(proxy.url)
    assert status == 200
    assert "[PERSON]" in body
    assert not [secret for secret in SECRETS if secret in body]


async def test_among_many_others_a_stream_is_moderated_alike(upstream: Upstream, proxy: Proxy) -> None:
    rng = random.Random(1)
    events = [chunk({"reasoning": text}) for text in cut(REASONING * 3, rng, 20)]
    upstream.handler = streaming([*events, finish(), DONE])
    _, alone = await post(proxy.url, stream=True)
    among = await asyncio.gather(*(post(proxy.url, stream=True) for _ in range(64)))
    assert {texts(body)[0, "reasoning"] for _, body in among} == {texts(alone)[0, "reasoning"]}


# --- Faults ------------------------------------------------------------------------------------------------------


class Broken(Engine):
    """An engine that fails as it is told, until it is mended."""

    def __init__(self, classifier: Classifier, fault: Callable[[], object]) -> None:
        self.bundle = classifier.engine.bundle
        self.provider, self.batch = "CPUExecutionProvider", 1
        self.fault: Callable[[], object] | None = fault
        self._whole = classifier.engine

    def run(self, windows: Sequence[Window]) -> list[Answer]:
        if self.fault is not None:
            self.fault()
        return self._whole.run(windows)


def fails(error: Exception) -> Callable[[], object]:
    def fault() -> object:
        raise error

    return fault


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "raises": (fails(InferenceError("the model failed")), "error"),
    "out of memory": (fails(MemoryError()), "error"),
    "slow": (lambda: time.sleep(1.5), "timeout"),
}


@pytest_asyncio.fixture
async def admin() -> AsyncIterator[Callable[[Proxy], TestServer]]:
    servers: list[TestServer] = []

    def make(proxy: Proxy) -> TestServer:
        servers.append(TestServer(create_admin_app(GatewayState(proxy.gateway, nothing_new))))
        return servers[-1]

    yield make
    for server in servers:
        await server.close()


async def readiness(server: TestServer) -> int:
    async with aiohttp.ClientSession() as session, session.get(server.make_url("/readyz")) as response:
        return response.status


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_classifier_that_fails(
    upstream: Upstream,
    make_proxy: ProxyFactory,
    classifier: Classifier,
    admin: Callable[[Proxy], TestServer],
    name: str,
    stream: bool,
) -> None:
    fault, kind = FAULTS[name]
    engine = Broken(classifier, fault)
    proxy = await make_proxy(POLICY, (Classifier(engine),), classifier_deadline=1)
    server = admin(proxy)
    await server.start_server()
    if stream:
        upstream.handler = streaming([chunk({"content": ANSWER}), finish(), DONE])
    else:

        async def whole(request: web.Request) -> web.StreamResponse:
            choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
            return web.json_response({"id": "c", "choices": [choice]})

        upstream.handler = whole
    assert await readiness(server) == 200
    status, body = await post(proxy.url, stream=stream)
    assert status == (200 if stream else 500)
    assert error_of(body)["code"] == "moderation_failed"
    assert "kettle" not in body
    assert "[DONE]" not in body
    assert proxy.accounts.closed == {"moderation_failed": 1}
    assert f'cotguard_classifier_failures_total{{kind="{kind}"}} 1.0' in proxy.gateway.metrics.expose().decode()
    assert await readiness(server) == 503
    engine.fault = None
    await asyncio.sleep(1)  # what is slow ends
    assert await readiness(server) == 200
    status, body = await post(proxy.url, stream=stream)
    assert "five working days" in body


async def test_a_classifier_that_is_gone(
    upstream: Upstream, make_proxy: ProxyFactory, classifier: Classifier, admin: Callable[[Proxy], TestServer]
) -> None:
    proxy = await make_proxy(POLICY, (classifier,))
    server = admin(proxy)
    await server.start_server()
    inference = proxy.gateway.staff._members["classifier"]
    assert isinstance(inference, Inference)
    await inference._judge.close()
    upstream.handler = streaming([chunk({"content": ANSWER}), finish(), DONE])
    for _ in range(2):
        _, body = await post(proxy.url, stream=True)
        assert error_of(body)["code"] == "moderation_failed"
        assert "kettle" not in body
        assert await readiness(server) == 503


async def test_fail_open_is_counted_apart(upstream: Upstream, make_proxy: ProxyFactory, classifier: Classifier) -> None:
    proxy = await make_proxy(OPEN, (Classifier(Broken(classifier, FAULTS["raises"][0])),))
    upstream.handler = streaming([chunk({"content": ANSWER}), finish(), DONE])
    _, body = await post(proxy.url, stream=True)
    assert texts(body)[0, "content"] == ANSWER
    assert proxy.accounts.opened == {"moderation_failed": 1}
    assert proxy.accounts.requests == {("200", "failed_open"): 1}


async def test_a_client_that_leaves_while_the_classifier_works(
    upstream: Upstream, make_proxy: ProxyFactory, classifier: Classifier
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait(5)

    engine = Broken(classifier, wait)
    proxy = await make_proxy(POLICY, (Classifier(engine),))
    upstream.handler = streaming([chunk({"content": ANSWER * 3}), finish(), DONE])
    request = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    async with aiohttp.ClientSession() as session, session.post(proxy.url + CHAT_PATH, json=request) as response:
        assert response.status == 200
        assert await asyncio.to_thread(entered.wait, 5)
    for _ in range(100):
        if proxy.accounts.requests:
            break
        await asyncio.sleep(0.02)
    assert proxy.accounts.requests == {("499", "client_gone"): 1}
    engine.fault = None
    leave.set()
    _, body = await post(proxy.url, stream=True)
    assert "five working days" in body


async def test_what_is_told_about_the_classifier(upstream: Upstream, proxy: Proxy) -> None:
    upstream.handler = streaming([chunk({"content": ANSWER}), finish(), DONE])
    await post(proxy.url, stream=True)
    exposed = proxy.gateway.metrics.expose().decode()
    digest = load(DEFAULT).digest
    assert re.search(rf'cotguard_classifier_info{{.*digest="{digest}",provider="CPUExecutionProvider"}} 1.0', exposed)
    for name in ("batch_windows", "wait_seconds", "batch_seconds"):
        assert re.search(rf"cotguard_classifier_{name}_count [1-9]", exposed)
    assert "cotguard_classifier_queue_windows 0.0" in exposed


# --- The hand-over -----------------------------------------------------------------------------------------------


async def test_a_call_is_answered_where_it_asks() -> None:
    def call() -> list[int]:
        return [ask("who", abs, -1), ask("who", abs, -2)]

    async def answer(question: int) -> int:
        await asyncio.sleep(0)
        return question * 10

    assert await handed_over(call, {"who": answer}) == [-10, -20]
    assert call() == [1, 2]


async def test_a_fault_is_raised_where_it_was_asked() -> None:
    def call() -> str:
        try:
            return ask("who", str, "x")
        except TimeoutError:
            return "too late"

    async def answer(_question: str) -> str:
        raise TimeoutError

    assert await handed_over(call, {"who": answer}) == "too late"


async def test_a_question_to_nobody_is_a_fault() -> None:
    with pytest.raises(KeyError):
        await handed_over(lambda: ask("who", abs, -1), {})


async def test_two_are_asked_by_name() -> None:
    async def one(question: str) -> str:
        return f"one {question}"

    async def two(question: str) -> str:
        return f"two {question}"

    def call() -> list[str]:
        return [ask("two", str, "a"), ask("one", str, "b")]

    assert await handed_over(call, {"one": one, "two": two}) == ["two a", "one b"]


async def test_a_cancelled_call_ends_without_going_on() -> None:
    went_on: list[object] = []

    def call() -> None:
        try:
            went_on.append(ask("who", str, "x"))
        except Exception as error:
            went_on.append(error)

    async def answer(_question: str) -> str:
        await asyncio.sleep(10)
        return "never"

    task = asyncio.create_task(handed_over(call, {"who": answer}))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert went_on == []


def test_an_empty_window_can_be_judged(classifier: Classifier) -> None:
    nothing = np.zeros(0, dtype=np.int64)
    (answer,) = classifier.engine.run([Window(nothing, nothing)])
    assert len(answer.labels) == 0
