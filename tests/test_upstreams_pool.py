"""Requests through a pool to real servers: which one gets them, what is tried again, and what never is."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from upstreams_kit import (
    LIMIT,
    PATH,
    Model,
    Wire,
    ask,
    asking_for_certificates,
    certified,
    counted,
    label,
    pools,
    refusing,
    said,
    serving,
    silent,
    talking,
    until,
)
from yarl import URL

from cotguard.dialects.contract import ErrorKind, Refused
from cotguard.http.encodings import TooLargeError
from cotguard.telemetry.metrics import Metrics
from cotguard.upstreams.errors import (
    AllDownError,
    AllFullError,
    NoAnswerError,
    NotConnectedError,
    PoolError,
    TooSlowError,
)
from cotguard.upstreams.outbound import Outgoing

HOLD = "?hold=1"
OUTCOMES = ("cotguard_upstream_requests_total", "server", "outcome")
OUTSTANDING = ("cotguard_upstream_outstanding_requests", "server")


async def test_a_request_and_its_answer() -> None:
    metrics = Metrics()
    async with serving() as model, pools(metrics, main={"servers": [model.url + "/openai/v1"]}) as made:
        answer = await ask(made.current["main"], b'{"x": 1}', query="?a=b")
        assert answer.response.status == 200
        assert answer.server == label(model.url)
        assert counted(metrics, *OUTSTANDING) == {(label(model.url),): 1}
        assert await answer.whole(LIMIT) == b"a"
        answer.close()
        assert counted(metrics, *OUTSTANDING) == {}
        assert model.paths == [f"/openai{PATH}?a=b"]
        assert model.bodies == [b'{"x": 1}']
        assert counted(metrics, *OUTCOMES) == {(label(model.url), "answered"): 1}
        assert counted(metrics, "cotguard_upstream_first_byte_seconds_count", "pool") == {("main",): 1}
        assert counted(metrics, "cotguard_upstream_up", "pool", "server") == {("main", label(model.url)): 1}


async def test_no_cookie_and_no_redirect() -> None:
    async with serving() as model, pools(main={"servers": [model.url]}) as made:
        model.status = 307
        answer = await ask(made.current["main"])
        assert answer.response.status == 307
        answer.close()
        model.status = 200
        for _ in range(2):
            answer = await ask(made.current["main"])
            assert "Cookie" not in answer.response.request_info.headers
            answer.close()


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing() as url:
        monkeypatch.setenv("http_proxy", url)
        async with serving() as model, pools(main={"servers": [model.url]}) as made:
            assert await said(made.current["main"]) == "a"


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "model.sock"
    async with serving("here", path) as model, pools(main={"servers": [model.url + ":/openai"]}) as made:
        assert await said(made.current["main"]) == "here"
        assert model.paths == ["/openai" + PATH]
    async with pools(main={"servers": [f"unix://{tmp_path}/nobody.sock"]}) as made:
        with pytest.raises(NotConnectedError):
            await ask(made.current["main"])


async def test_the_host_is_never_the_requests() -> None:
    async with serving() as model, serving("b") as other, pools(main={"servers": [model.url]}) as made:

        async def make(_base: str) -> Outgoing:
            return Outgoing(URL(other.url + PATH), {}, b"{}")

        with pytest.raises(ValueError, match="goes to the server that was chosen"):
            await made.current["main"].send("POST", make)
        assert model.paths == other.paths == []


# --- Connecting fails: another server ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["refused", "dns", "socket", "tls"])
async def test_where_there_is_no_connection_another_server_gets_the_request_once(kind: str, tmp_path: Path) -> None:
    metrics = Metrics()
    async with serving() as model, serving("plain") as plain:
        with refusing() as url:
            down = {
                "refused": url,
                "dns": "http://nowhere.invalid",
                "socket": f"unix://{tmp_path}/nobody.sock",
                "tls": plain.url.replace("http:", "https:"),
            }[kind]
            async with pools(metrics, main={"servers": [{"url": down, "weight": 9}, model.url]}) as made:
                for _ in range(4):
                    assert await said(made.current["main"], b'{"n": 1}') == "a"
    assert model.bodies == [b'{"n": 1}'] * 4
    failures = counted(metrics, "cotguard_upstream_connect_failures_total", "kind")
    assert set(failures) == {(kind if kind in ("dns", "tls") else "socket",)}
    assert counted(metrics, "cotguard_upstream_retries_total", "pool") == {("main",): sum(failures.values())}
    assert plain.bodies == []


@pytest.mark.parametrize("retries", [0, 1, 2])
async def test_at_most_two_retries(retries: int) -> None:
    metrics = Metrics()
    made_for: list[str] = []

    async def make(base: str) -> Outgoing:
        made_for.append(base)
        return Outgoing(URL(base + PATH), {}, b"{}")

    with refusing() as one, refusing() as two, refusing() as three, refusing() as four:
        servers = [one, two, three, four]
        async with pools(metrics, main={"servers": servers, "retries": retries}) as made:
            with pytest.raises(NotConnectedError):
                await made.current["main"].send("POST", make)
    assert len(made_for) == len(set(made_for)) == retries + 1  # each a server of its own, with a request of its own
    assert sum(counted(metrics, "cotguard_upstream_connect_failures_total", "server").values()) == retries + 1
    assert counted(metrics, *OUTSTANDING) == {}


async def test_a_single_server_is_tried_again() -> None:
    metrics = Metrics()
    with refusing() as url:
        async with pools(metrics, main={"servers": [url]}) as made:
            with pytest.raises(NotConnectedError):
                await ask(made.current["main"])
    assert counted(metrics, *OUTCOMES) == {(label(url), "not_connected"): 3}


async def test_time_to_connect_includes_tls() -> None:
    metrics = Metrics()
    async with silent() as wire, serving() as model:
        servers = [wire.url.replace("http:", "https:"), model.url]
        async with pools(metrics, main={"servers": servers, "connect_timeout": 0.1}) as made:
            assert [await said(made.current["main"]) for _ in range(2)] == ["a", "a"]
    assert set(counted(metrics, "cotguard_upstream_connect_failures_total", "kind")) == {("timeout",)}


async def test_time_to_connect_includes_the_look_up_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **_options: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", resolve)
    metrics = Metrics()
    async with pools(metrics, main={"servers": ["http://model.example"], "connect_timeout": 0.05}) as made:
        with pytest.raises(NotConnectedError):
            await ask(made.current["main"])
    assert set(counted(metrics, "cotguard_upstream_connect_failures_total", "kind")) == {("timeout",)}


# --- Something was sent: no other server ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("answers", [0, 1, 2])
async def test_a_server_that_closes_after_reading_is_asked_once(method: str, answers: int) -> None:
    metrics = Metrics()
    async with talking(answers) as wire, pools(metrics, main={"servers": [wire.url]}) as made:
        for _ in range(answers):  # so that the connection is one that was kept open
            assert await said(made.current["main"], method=method) == "ok"
        with pytest.raises(NoAnswerError):
            await ask(made.current["main"], method=method)
        assert wire.requests == answers + 1
        assert counted(metrics, *OUTCOMES)[label(wire.url), "no_answer"] == 1
        assert counted(metrics, "cotguard_upstream_retries_total", "pool") == {}
        assert counted(metrics, *OUTSTANDING) == {}


async def test_another_server_is_not_asked_either() -> None:
    async with talking(0) as one, talking(0) as two, pools(main={"servers": [one.url, two.url]}) as made:
        for asked in (1, 2, 3):
            with pytest.raises(NoAnswerError):
                await ask(made.current["main"])
            assert one.requests + two.requests == asked


async def test_a_server_that_never_answers() -> None:
    metrics = Metrics()
    async with silent() as one, silent() as two:
        document = {"servers": [one.url, two.url], "first_byte_timeout": 1}
        async with pools(metrics, main=document) as made:
            with pytest.raises(TooSlowError):
                await ask(made.current["main"])
        assert one.requests + two.requests == 1
    assert {outcome for _, outcome in counted(metrics, *OUTCOMES)} == {"timeout"}


async def test_an_answer_that_stops() -> None:
    async with serving() as model, pools(main={"servers": [model.url], "idle_timeout": 0.1}) as made:
        answer = await ask(made.current["main"], query=HOLD)
        with pytest.raises(TimeoutError):
            await answer.whole(LIMIT)
        answer.close()
        answer = await ask(made.current["main"])
        with pytest.raises(TooLargeError):
            await answer.whole(0)
        answer.close()


async def test_a_status_of_a_server_in_trouble_is_passed_on() -> None:
    metrics = Metrics()
    async with serving() as one, serving("b") as two:
        one.status = two.status = 503
        async with pools(metrics, main={"servers": [one.url, two.url]}) as made:
            answer = await ask(made.current["main"])
            assert answer.response.status == 503
            answer.close()
        assert len(one.bodies) + len(two.bodies) == 1
    assert {outcome for _, outcome in counted(metrics, *OUTCOMES)} == {"unavailable"}


async def test_a_request_that_cannot_be_made_counts_against_nobody() -> None:
    metrics = Metrics()

    async def make(_base: str) -> Outgoing:
        raise Refused(400, ErrorKind.UNSUPPORTED, "no")

    async with serving() as model:
        document = {"servers": [model.url], "breaker": {"failures": 1}}
        async with pools(metrics, main=document) as made:
            with pytest.raises(Refused):
                await made.current["main"].send("POST", make)
            assert await said(made.current["main"]) == "a"
    assert counted(metrics, *OUTSTANDING) == {}


async def test_a_client_that_leaves_ends_the_request() -> None:
    metrics = Metrics()
    async with silent() as wire, pools(metrics, main={"servers": [wire.url], "breaker": {"failures": 1}}) as made:
        for _ in range(2):
            asking = asyncio.create_task(ask(made.current["main"]))
            await until(wire.fresh)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
    assert counted(metrics, *OUTCOMES) == {(label(wire.url), "cancelled"): 2}
    assert counted(metrics, *OUTSTANDING) == {}


# --- Balance and limits -----------------------------------------------------------------------------------------------


async def test_weights() -> None:
    async with serving("a") as one, serving("b") as two:
        servers = [one.url, {"url": two.url, "weight": 3}]
        async with pools(main={"servers": servers}) as made:
            answered = [await said(made.current["main"]) for _ in range(12)]
            assert (answered.count("a"), answered.count("b")) == (3, 9)
            answers = [await ask(made.current["main"], query=HOLD) for _ in range(12)]
            servers_of = [answer.server for answer in answers]
            assert (servers_of.count(label(one.url)), servers_of.count(label(two.url))) == (3, 9)
            for answer in answers:
                answer.close()


async def test_the_server_with_the_fewest_requests_gets_the_next() -> None:
    async with serving("a") as one, serving("b") as two, pools(main={"servers": [one.url, two.url]}) as made:
        held = [await ask(made.current["main"], query=HOLD) for _ in range(6)]
        busy = held[0].server
        for answer in [answer for answer in held if answer.server != busy]:
            answer.close()
        following = [await ask(made.current["main"], query=HOLD) for _ in range(3)]
        assert {answer.server for answer in following} == {label(one.url), label(two.url)} - {busy}
        for answer in (*(answer for answer in held if answer.server == busy), *following):
            answer.close()


async def test_a_limit_is_kept_and_those_who_wait_are_served_in_order() -> None:
    metrics = Metrics()
    async with serving("a") as one, serving("b") as two:
        document = {"servers": [one.url, two.url], "concurrency": 2}
        async with pools(metrics, main=document) as made:
            held = [await ask(made.current["main"], query=HOLD) for _ in range(4)]
            served: list[int] = []

            async def one_more(number: int) -> None:
                answer = await ask(made.current["main"])
                served.append(number)
                answer.close()

            waiting = [asyncio.create_task(one_more(number)) for number in range(5)]
            await until(lambda: counted(metrics, "cotguard_upstream_waiting_requests", "pool") == {("main",): 5})
            assert counted(metrics, *OUTSTANDING) == {(label(one.url),): 2, (label(two.url),): 2}
            waiting[1].cancel()
            held.pop().close()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert served == [0, 2, 3, 4]
            for answer in held:
                answer.close()
            assert counted(metrics, *OUTSTANDING) == {}
            assert counted(metrics, "cotguard_upstream_waiting_requests", "pool") == {}


@pytest.mark.parametrize("limits", [{"queue_timeout": 0.05}, {"max_waiting": 0}])
async def test_the_wait_for_a_server_is_bounded(limits: dict[str, float]) -> None:
    metrics = Metrics()
    async with serving() as model:
        document = {"servers": [model.url], "concurrency": 1, **limits}
        async with pools(metrics, main=document) as made:
            answer = await ask(made.current["main"], query=HOLD)
            with pytest.raises(AllFullError) as raised:
                await ask(made.current["main"])
            assert (raised.value.status, raised.value.retry_after) == (503, 1)
            answer.close()
            assert await said(made.current["main"]) == "a"
    assert counted(metrics, "cotguard_upstream_unserved_total", "reason") == {("full",): 1}
    assert counted(metrics, *OUTSTANDING) == {}


async def test_a_place_that_is_given_to_one_who_leaves_is_not_lost() -> None:
    metrics = Metrics()
    async with serving() as model, pools(metrics, main={"servers": [model.url], "concurrency": 1}) as made:
        answer = await ask(made.current["main"], query=HOLD)
        waiting = asyncio.create_task(ask(made.current["main"]))
        await until(lambda: counted(metrics, "cotguard_upstream_waiting_requests", "pool"))
        answer.close()
        made.current["main"]._advance()  # it is his turn, and before he knows
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await said(made.current["main"]) == "a"
    assert counted(metrics, *OUTSTANDING) == {}


# --- Health -----------------------------------------------------------------------------------------------------------


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    """What was logged: the message and its fields."""
    return [
        (record.getMessage(), *(vars(record).get(name) for name in ("pool", "server", "reason")))
        for record in caplog.records
        if record.name.startswith("cotguard.")
    ]


def states(metrics: Metrics, model: Model | Wire) -> set[str]:
    found = counted(metrics, "cotguard_upstream_breaker", "server", "state")
    return {state for server, state in found if server == label(model.url)}


async def test_a_breaker_opens_is_tried_and_closes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "cotguard.upstreams")
    metrics = Metrics()
    async with serving("a") as one, serving("b") as two:
        document = {"servers": [one.url, two.url], "breaker": {"failures": 2, "pause": 0.3}}
        async with pools(metrics, main=document) as made:
            one.status = 502
            answered = []
            for _ in range(8):
                answer = await ask(made.current["main"])
                answered.append(answer.response.status)
                answer.close()
            assert answered.count(502) == 2
            assert states(metrics, one) == {"open"}
            assert states(metrics, two) == {"closed"}
            one.status = 200
            await asyncio.sleep(0.4)
            trial = [await ask(made.current["main"], query=HOLD) for _ in range(2)]
            assert {answer.server for answer in trial} == {label(one.url), label(two.url)}
            assert states(metrics, one) == {"closed"}
            for answer in trial:
                answer.close()
    assert told(caplog) == [
        ("breaker open", "main", label(one.url), None),
        ("breaker closed", "main", label(one.url), None),
    ]


async def test_while_a_trial_is_under_way_nothing_else_is_sent() -> None:
    metrics = Metrics()
    async with silent() as wire:
        document = {"servers": [wire.url], "first_byte_timeout": 1, "breaker": {"failures": 1, "pause": 0.1}}
        async with pools(metrics, main=document) as made:
            with pytest.raises(TooSlowError):
                await ask(made.current["main"])
            with pytest.raises(AllDownError) as raised:
                await ask(made.current["main"])
            assert (raised.value.status, raised.value.retry_after) == (503, 1)
            await asyncio.sleep(0.2)  # for just the pause it may wake a millisecond before its end
            trial = asyncio.create_task(ask(made.current["main"]))
            await until(lambda: wire.requests == 2)
            assert states(metrics, wire) == {"half_open"}
            with pytest.raises(AllDownError):
                await ask(made.current["main"])
            with pytest.raises(TooSlowError):
                await trial
            assert wire.requests == 2
    assert counted(metrics, "cotguard_upstream_unserved_total", "reason") == {("down",): 2}


async def test_without_a_breaker_every_request_is_sent() -> None:
    async with talking(0) as wire, pools(main={"servers": [wire.url], "breaker": None}) as made:
        for _ in range(10):
            with pytest.raises(NoAnswerError):
                await ask(made.current["main"])
        assert wire.requests == 10


async def test_errors_that_a_client_can_bring_about_open_no_breaker() -> None:
    async with serving() as model:
        model.status = 500
        async with pools(main={"servers": [model.url], "breaker": {"failures": 1}}) as made:
            for _ in range(3):
                answer = await ask(made.current["main"])
                assert answer.response.status == 500
                answer.close()


async def test_health_checks_take_a_server_out_and_in(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    caplog.set_level("INFO", "cotguard.upstreams")
    async with serving("a") as one, serving("b") as two:
        document = {"servers": [one.url + "/sub", two.url], "health": {"every": 0.02, "timeout": 1}}
        async with pools(metrics, main=document) as made:

            def up() -> set[tuple[str, ...]]:
                return set(counted(metrics, "cotguard_upstream_up", "server"))

            await until(lambda: one.checks > 1 < two.checks)
            assert up() == {(label(one.url),), (label(two.url),)}
            one.health = 503
            await until(lambda: up() == {(label(two.url),)})
            assert {await said(made.current["main"]) for _ in range(4)} == {"b"}
            two.health = 500
            await until(lambda: not up())
            with pytest.raises(AllDownError) as raised:
                await ask(made.current["main"])
            assert raised.value.retry_after == 5
            one.health = two.health = 200
            await until(lambda: len(up()) == 2)
            assert {await said(made.current["main"]) for _ in range(4)} == {"a", "b"}
    lines = [line for line in told(caplog) if line[2] == label(one.url)]
    assert lines == [
        ("server out", "main", label(one.url), "status 503"),
        ("server in", "main", label(one.url), None),
    ]
    checks = one.checks
    await asyncio.sleep(0.05)
    assert one.checks == checks  # they end with the pools


def passed(model: Model, checks: int) -> bool:
    return model.checks > checks and model.lapses < -1


async def test_one_check_that_fails_is_a_lapse(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as model, pools(main={"servers": [model.url], "health": {"every": 0.02}}) as made:
        for rounds in (1, 2, 3):
            model.lapses = 1
            await until(partial(passed, model, 3 * rounds))
        assert await said(made.current["main"]) == "a"
    assert not told(caplog)


@pytest.mark.parametrize("kind", ["refused", "silent"])
async def test_a_server_that_answers_no_check_is_out(kind: str) -> None:
    metrics = Metrics()
    async with silent() as wire:
        with refusing() as url:
            server = url if kind == "refused" else wire.url
            document = {"servers": [server], "health": {"every": 0.02, "timeout": 0.05}}
            async with pools(metrics, main=document) as made:
                await until(lambda: not counted(metrics, "cotguard_upstream_up", "server"))
                with pytest.raises(AllDownError):
                    await ask(made.current["main"])


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_mutual_tls(tmp_path: Path) -> None:
    metrics = Metrics()
    server, client = certified(tmp_path, "server"), certified(tmp_path, "client")
    async with serving("safe", context=asking_for_certificates(server)) as model:
        health = {"every": 0.02}
        tls = {"ca": client.ca, "cert": client.cert, "key": client.key}
        async with pools(metrics, main={"servers": [model.url], "tls": tls, "health": health}) as made:
            assert await said(made.current["main"]) == "safe"
            await until(lambda: model.checks > 1)
        asked = len(model.bodies)
        # With TLS 1.3 a client learns that its certificate was missing after it has sent its request.
        async with pools(metrics, main={"servers": [model.url], "tls": {"ca": client.ca}}) as made:
            with pytest.raises((NoAnswerError, NotConnectedError)):
                await ask(made.current["main"])
        async with pools(metrics, main={"servers": [model.url]}) as made:
            with pytest.raises(NotConnectedError):  # nobody the system trusts has signed it
                await ask(made.current["main"])
        other = certified(tmp_path, "other", authority="other-ca")
        tls = {"ca": client.ca, "cert": other.cert, "key": other.key}
        async with pools(metrics, main={"servers": [model.url], "tls": tls}) as made:
            with pytest.raises((NoAnswerError, NotConnectedError)):
                await ask(made.current["main"])
        assert len(model.bodies) == asked
    assert ("tls",) in counted(metrics, "cotguard_upstream_connect_failures_total", "kind")


# --- What is told -----------------------------------------------------------------------------------------------------


def test_every_error_says_what_the_client_is_told() -> None:
    found = {
        type(error): (error.status, error.kind, error.retry_after)
        for error in (
            AllDownError(3),
            AllFullError(),
            NotConnectedError(),
            NoAnswerError(),
            TooSlowError(),
        )
    }
    assert found == {
        AllDownError: (503, ErrorKind.OVERLOADED, 3),
        AllFullError: (503, ErrorKind.OVERLOADED, 1),
        NotConnectedError: (502, ErrorKind.UPSTREAM_ERROR, None),
        NoAnswerError: (502, ErrorKind.UPSTREAM_ERROR, None),
        TooSlowError: (504, ErrorKind.UPSTREAM_TIMEOUT, None),
    }


async def test_no_error_holds_what_was_sent() -> None:
    async with AsyncExitStack() as stack:
        urls = [stack.enter_context(refusing()), (await stack.enter_async_context(talking(0))).url]
        slow = await stack.enter_async_context(silent())
        for url in (*urls, slow.url):
            made = await stack.enter_async_context(
                pools(main={"servers": [url], "key": "hush-key", "first_byte_timeout": 0.05})
            )

            async def make(base: str) -> Outgoing:
                return Outgoing(URL(base + PATH + "?key=hush"), {"x-api-key": "hush"}, b"hush")

            with pytest.raises(PoolError) as raised:
                await made.current["main"].send("POST", make)
            error: BaseException | None = raised.value
            while error is not None:
                assert "hush" not in f"{error!r} {error}"
                error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
            assert "hush" not in repr(made.current["main"].credentials)
