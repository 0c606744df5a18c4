"""The gateway with its classifier's model elsewhere, over sockets: the guarantees, faults, readiness."""

import asyncio
import random

import aiohttp
import oip
import pytest
from aiohttp.test_utils import BaseTestServer, TestServer
from conftest import Proxy, ProxyFactory, Upstream, error_of, nothing_new
from oip import Server, serving
from scripted import DONE, chunk, cut, finish, post, streaming, texts

from cotguard.classifier.bundle import DEFAULT, load
from cotguard.classifier.detector import Classifier
from cotguard.classifier.engine import Engine
from cotguard.classifier.remote import replicas
from cotguard.classifier.remote.address import Served, addresses
from cotguard.detectors.contract import RequestFacts
from cotguard.gateway.admin import GatewayState, create_admin_app
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import PlainView
from cotguard.policy import parse
from cotguard.spans import ChannelKind

POLICY = parse(
    "version: 1\nname: t\nrules:\n  - entities: [EMAIL_ADDRESS, PERSON, STREET_ADDRESS, SECRET]\n    action: redact\n",
    "t.yaml",
    None,
)
REASONING = (
    "Okay, so the customer is Margaret Okonkwo, who moved to 12 Harbour Lane last spring and writes from "
    "m.okonkwo@example.org. Okonkwo says that her password is tulip-River-99, which I must keep to myself. Let me "
    "think about what Margaret needs: the refund for the broken kettle, nothing else. I should leave out the address. "
)
SECRETS = ("Margaret", "Okonkwo", "Harbour", "okonkwo@")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(load(DEFAULT))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "_PAUSE", 0.05)


@pytest.fixture(scope="module")
def expected(engine: Engine) -> str:
    """The reasoning as it is moderated with the model here."""
    exchange = Exchange(POLICY, (Classifier(engine),), RequestFacts(), bytes(16))
    lane = exchange.lane(0)
    lane.open(ChannelKind.REASONING, PlainView(ChannelKind.REASONING))
    lane.feed(ChannelKind.REASONING, REASONING)
    lane.finish()
    text = "".join(emission.text for emission in lane.take())
    assert text.count("[PERSON]") >= 2
    return text


async def proxy_of(make_proxy: ProxyFactory, *servers: Server, **settings: object) -> Proxy:
    url = ",".join(server.url for server in servers)
    classifier = Classifier.load(DEFAULT, Served(addresses(url)))
    return await make_proxy(POLICY, (classifier,), classifier_url=url, **settings)


def scripted_stream(seed: int) -> list[bytes]:
    events = [chunk({"reasoning": text}) for text in cut(REASONING, random.Random(seed), 20)]
    return [*events, finish(), DONE]


async def readiness(admin: BaseTestServer, wanted: int) -> bool:
    """Whether it becomes ``wanted``, soon."""
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            async with session.get(admin.make_url("/readyz")) as response:
                if response.status == wanted:
                    return True
            await asyncio.sleep(0.02)
    return False


@pytest.mark.parametrize("scheme", ["grpc", "http"])
async def test_a_replica_killed_while_streams_run(
    upstream: Upstream, make_proxy: ProxyFactory, engine: Engine, expected: str, scheme: str
) -> None:
    servers = [Server(oip.model_of(engine), scheme, pause=0.02) for _ in range(2)]
    async with serving(*servers):
        proxy = await proxy_of(make_proxy, *servers)
        assert proxy.gateway.staff.classifier == f"classifier {DEFAULT} on {servers[0].url},{servers[1].url}"
        upstream.handler = streaming(scripted_stream(1))
        _, alone = await post(proxy.url, stream=True)
        assert texts(alone)[0, "reasoning"] == expected
        streams = asyncio.gather(*(post(proxy.url, stream=True) for _ in range(24)))
        await asyncio.sleep(0.15)
        await servers[0].kill()
        among = await streams
        assert {texts(body)[0, "reasoning"] for _, body in among} == {expected}
        assert proxy.accounts.requests == {("200", "ok"): 25}


async def test_all_replicas_down_and_back(
    upstream: Upstream, make_proxy: ProxyFactory, engine: Engine, expected: str
) -> None:
    servers = [Server(oip.model_of(engine)), Server(oip.model_of(engine), "http")]
    upstream.handler = streaming(scripted_stream(2))
    async with serving(*servers):
        proxy = await proxy_of(make_proxy, *servers, classifier_deadline=1.0)
        async with TestServer(create_admin_app(GatewayState(proxy.gateway, nothing_new))) as admin:
            assert await readiness(admin, 200)
            for server in servers:
                await server.kill()
            for _ in range(2):
                status, body = await post(proxy.url, stream=True)
                assert status == 200
                assert error_of(body)["code"] == "moderation_failed"
                assert "[DONE]" not in body
                assert not [secret for secret in SECRETS if secret in body]
            assert await readiness(admin, 503)
            assert proxy.accounts.closed == {"moderation_failed": 2}
            await servers[1].start()
            assert await readiness(admin, 200)
            _, body = await post(proxy.url, stream=True)
            assert texts(body)[0, "reasoning"] == expected
    exposed = proxy.gateway.metrics.expose().decode()
    assert f'cotguard_classifier_replica_up{{replica="{servers[0].url}"}} 0.0' in exposed
    assert 'cotguard_classifier_failures_total{kind="timeout"} 2.0' in exposed


async def test_answers_that_are_none_fail_closed(upstream: Upstream, make_proxy: ProxyFactory, engine: Engine) -> None:
    server = Server(oip.model_of(engine))
    upstream.handler = streaming(scripted_stream(3))
    async with serving(server):
        proxy = await proxy_of(make_proxy, server, classifier_deadline=1.0)
        await post(proxy.url, stream=True)
        server.fault = "no number"
        _, body = await post(proxy.url, stream=True)
        assert error_of(body)["code"] == "moderation_failed"
        assert "customer" not in body
    assert proxy.accounts.closed == {"moderation_failed": 1}
