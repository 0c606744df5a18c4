"""Pools go over to a new document while requests are under way."""

import asyncio
from pathlib import Path

import pytest
from upstreams_kit import (
    LIMIT,
    ask,
    asking_for_certificates,
    certified,
    counted,
    label,
    parsed,
    pools,
    refusing,
    said,
    serving,
    until,
)

from cotguard.telemetry.metrics import Metrics
from cotguard.upstreams.errors import AllDownError, NotConnectedError

HOLD = "?hold=1"
OUTSTANDING = ("cotguard_upstream_outstanding_requests", "server")
UP = ("cotguard_upstream_up", "pool", "server")
WAITING = ("cotguard_upstream_waiting_requests", "pool")


async def test_pools_come_and_go() -> None:
    async with serving("a") as one, serving("b") as two, pools(main={"servers": [one.url]}) as made:
        with pytest.raises(KeyError):
            made.current["other"]
        made.reload(parsed(main={"servers": [two.url]}, other={"servers": [one.url]}), authenticates=False)
        assert (await said(made.current["main"]), await said(made.current["other"])) == ("b", "a")
        made.reload(parsed(other={"servers": [one.url]}), authenticates=False)
        with pytest.raises(KeyError):
            made.current["main"]


async def test_an_unchanged_server_keeps_its_connections_and_its_requests() -> None:
    metrics = Metrics()
    async with serving("a") as one, serving("b") as two, pools(metrics, main={"servers": [one.url]}) as made:
        held = await ask(made.current["main"], query=HOLD)
        assert await said(made.current["main"]) == "a"
        assert one.connections == 2
        servers = [{"url": one.url, "weight": 3}, {"url": two.url, "weight": 3}]
        made.reload(parsed(main={"servers": servers, "key": "new"}), authenticates=False)
        assert counted(metrics, *OUTSTANDING) == {(label(one.url),): 1}
        assert [await said(made.current["main"]) for _ in range(3)] == ["b", "b", "b"]  # the other has one under way
        one.go.set()
        assert await held.whole(LIMIT) == b"a"
        held.close()
        assert {await said(made.current["main"]) for _ in range(4)} == {"a", "b"}
        assert one.connections == 2


async def test_an_unchanged_server_keeps_what_its_breaker_and_its_checks_say() -> None:
    metrics = Metrics()
    async with serving("a") as model:
        with refusing() as url:
            document = {"servers": [url], "retries": 0, "breaker": {"failures": 1, "pause": 60}}
            checked = {"servers": [model.url], "health": {"path": "/health", "every": 0.02}}
            model.health = 500
            async with pools(metrics, broken=document, checked=checked) as made:
                with pytest.raises(NotConnectedError):
                    await ask(made.current["broken"])
                await until(lambda: ("checked", label(model.url)) not in counted(metrics, *UP))
                made.reload(
                    parsed(broken={**document, "retries": 1}, checked={**checked, "retries": 1}), authenticates=False
                )
                for name in ("broken", "checked"):
                    with pytest.raises(AllDownError):
                        await ask(made.current[name])
                made.reload(
                    parsed(broken={**document, "breaker": {"failures": 2}}, checked={"servers": [model.url]}),
                    authenticates=False,
                )
                with pytest.raises(NotConnectedError):  # another breaker knows nothing yet
                    await ask(made.current["broken"])
                assert await said(made.current["checked"]) == "a"


async def test_what_is_under_way_at_a_server_that_goes_is_not_touched() -> None:
    metrics = Metrics()
    async with serving("a") as one, serving("b") as two, pools(metrics, main={"servers": [one.url]}) as made:
        before = made.current["main"]
        held = await ask(before, query=HOLD)
        made.reload(parsed(main={"servers": [two.url]}), authenticates=False)
        assert {await said(made.current["main"]) for _ in range(3)} == {"b"}
        assert await said(before) == "a"  # it was chosen for an exchange before
        assert counted(metrics, *UP) == {("main", label(two.url)): 1}
        assert counted(metrics, *OUTSTANDING) == {}
        assert one.connections > 0
        one.go.set()
        assert await held.whole(LIMIT) == b"a"
        held.close()
        await until(lambda: not one.connections)
        assert await said(before) == "a"
        await until(lambda: not one.connections)


async def test_those_who_wait_are_served_by_what_they_waited_for() -> None:
    metrics = Metrics()
    async with serving("a") as one, serving("b") as two:
        document = {"servers": [one.url], "concurrency": 1}
        async with pools(metrics, main=document) as made:
            held = await ask(made.current["main"], query=HOLD)
            waiting = asyncio.create_task(said(made.current["main"]))
            await until(lambda: counted(metrics, *WAITING))
            made.reload(parsed(main={"servers": [two.url]}), authenticates=False)
            assert await said(made.current["main"]) == "b"
            held.close()
            assert await waiting == "a"
            await until(lambda: not one.connections)


async def test_a_server_of_two_pools_that_wait_for_it_serves_both() -> None:
    metrics = Metrics()
    async with serving("a") as model:
        document = {"servers": [model.url], "concurrency": 1}
        async with pools(metrics, main=document) as made:
            held = await ask(made.current["main"], query=HOLD)
            old = asyncio.create_task(said(made.current["main"]))
            await until(lambda: counted(metrics, *WAITING) == {("main",): 1})
            made.reload(parsed(main={**document, "retries": 0}), authenticates=False)
            new = asyncio.create_task(said(made.current["main"]))
            await until(lambda: counted(metrics, *WAITING) == {("main",): 2})
            held.close()
            assert [await old, await new] == ["a", "a"]
    assert counted(metrics, *OUTSTANDING) == {}


async def test_checks_begin_and_end() -> None:
    health = {"every": 0.02}
    async with serving("a") as one, serving("b") as two:
        document = {"servers": [one.url], "health": health}
        async with pools(main=document) as made:
            await until(lambda: one.checks > 1)
            made.reload(parsed(main={"servers": [two.url], "health": health}), authenticates=False)
            await until(lambda: two.checks > 1 and not one.connections)
            checks = one.checks
            await until(lambda: two.checks > 4)
            assert one.checks == checks


def damaged(path: str) -> None:
    Path(path).write_text("damaged", encoding="utf-8")


async def test_a_certificate_is_rotated(tmp_path: Path) -> None:
    server, client = certified(tmp_path, "server"), certified(tmp_path, "client")
    async with serving("a", context=asking_for_certificates(server)) as model:
        document = {"servers": [model.url], "tls": {"ca": client.ca, "cert": client.cert, "key": client.key}}
        async with pools(main=document) as made:
            assert await said(made.current["main"]) == "a"
            made.reload(parsed(main=document), authenticates=False)
            assert await said(made.current["main"]) == "a"
            assert (model.connections, len(model.peers)) == (1, 1)
            before = parsed(main=document)
            certified(tmp_path, "client")
            made.reload(parsed(main=document), authenticates=False)
            assert await said(made.current["main"]) == "a"
            assert len(model.peers) == 2
            damaged(client.key)
            with pytest.raises(ValueError, match="write paths of PEM files"):
                made.reload({"other": before["main"], **before}, authenticates=False)
            assert await said(made.current["main"]) == "a"  # all is as it was
            with pytest.raises(KeyError):
                made.current["other"]


async def test_credentials_go_with_the_document() -> None:
    async with pools(main={"servers": ["http://a"]}) as made:
        sent = {"Authorization": "Bearer client", "user-agent": "x"}
        before = made.current["main"]
        assert before.credentials.passed(sent)["authorization"] == "Bearer client"
        made.reload(parsed(main={"servers": ["http://a"], "key": "ours"}), authenticates=False)
        assert "authorization" not in made.current["main"].credentials.passed(sent)
        made.reload(parsed(main={"servers": ["http://a"]}), authenticates=True)
        assert "authorization" not in made.current["main"].credentials.passed(sent)
        assert before.credentials.passed(sent)["authorization"] == "Bearer client"


async def test_reloads_all_the_time_lose_no_request() -> None:
    metrics = Metrics()
    async with serving("a") as one, serving("b") as two, serving("c") as three:
        urls = [one.url, two.url, three.url]
        documents = [
            parsed(main={"servers": urls[:2], "concurrency": 2}),
            parsed(main={"servers": urls[1:], "concurrency": 3}),
            parsed(main={"servers": urls[::2], "concurrency": 2, "connect_timeout": 9}),
        ]
        async with pools(metrics, main={"servers": urls[:1]}) as made:

            async def client() -> list[str]:
                return [await said(made.current["main"]) for _ in range(20)]

            clients = [asyncio.create_task(client()) for _ in range(10)]
            for number in range(40):
                made.reload(documents[number % 3], authenticates=False)
                await asyncio.sleep(0.005)
            answered = [name for found in await asyncio.gather(*clients) for name in found]
            assert len(answered) == 200
            assert set(answered) == {"a", "b", "c"}
            made.reload(parsed(main={"servers": urls[:1]}), authenticates=False)
            await until(lambda: not two.connections + three.connections)
            assert counted(metrics, *OUTSTANDING) == {}
            assert set(counted(metrics, *UP)) == {("main", label(one.url))}
            assert {state for _, state in counted(metrics, "cotguard_upstream_breaker", "server", "state")} == {
                "closed"
            }
