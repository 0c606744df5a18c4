"""The load generator and the mock server: schedules, what counts as delay, percentiles, faults."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from loadtest.dialects import DIALECTS, Dialect
from loadtest.load import (
    Arrival,
    Load,
    Stream,
    character_delays,
    poisson,
    session,
    stream_paced,
    stream_scheduled,
    stream_unpaced,
)
from loadtest.percentiles import Percentiles
from loadtest.script import Script, script
from loadtest.upstream import SLOW_START_SECONDS, Fault, create_upstream


async def _listening(app: web.Application) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[str]:
    runner, url = await _listening(create_upstream())
    yield url
    await runner.cleanup()


@pytest_asyncio.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with session() as client:
        yield client


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_dialect_reads_back_what_it_writes(dialect: Dialect) -> None:
    deltas = Script(40, planted=True).deltas
    written = dialect.opening + b"".join(dialect.token(*delta) for delta in deltas) + dialect.closing
    assert written.endswith(dialect.ending)
    assert written.endswith(dialect.separator)
    events = written.split(dialect.separator)[:-1]
    assert "".join(map(dialect.text, events)) == "".join(token for _, token in deltas)


@pytest.mark.parametrize("planted", [False, True])
async def test_every_stream_is_told_whole_and_its_times_are_kept(
    client: aiohttp.ClientSession, upstream: str, planted: bool
) -> None:
    load = Load(streams=3, tokens=20, rate=500, planted=planted)
    streams = await stream_paced(client, upstream, load)
    assert {stream.text for stream in streams} == {script(20, planted=planted).text}
    async with client.get(f"{upstream}/sent") as response:
        sent = await response.json()
    assert sorted(sent) == ["0", "1", "2"]
    for seed, stream in enumerate(streams):
        times = sent[str(seed)]
        assert len(times) == 20
        assert times == sorted(times)
        assert times[0] >= stream.due
    async with client.get(f"{upstream}/sent") as response:
        assert await response.json() == {}


async def test_tokens_are_due_from_the_request_on_not_from_the_last_one(
    client: aiohttp.ClientSession, upstream: str
) -> None:
    began = time.monotonic()
    [stream] = await stream_scheduled(client, upstream, Load(1, 50, rate=250), [0.0])
    async with client.get(f"{upstream}/sent") as response:
        [times] = (await response.json()).values()
    assert stream.ended
    for number, at in enumerate(times):
        assert at - began >= number / 250 - 0.002  # timers of the event loop count in milliseconds


async def test_unpaced_responses_are_counted(client: aiohttp.ClientSession, upstream: str) -> None:
    assert await stream_unpaced(client, upstream, Load(4, 10, rate=0), seconds=0) == 0
    assert await stream_unpaced(client, upstream, Load(2, 10, rate=0), seconds=0.05) >= 2


async def test_a_stalled_stream_is_silent_from_its_middle_on(client: aiohttp.ClientSession, upstream: str) -> None:
    load = Load(1, 10, rate=0, fault=Fault.STALL)
    dialect = DIALECTS[load.dialect]
    got = b""
    async with client.post(upstream + dialect.path, json=load.body(0)) as response:
        with suppress(TimeoutError):
            while data := await asyncio.wait_for(response.content.readany(), 1):
                got += data
        assert not response.content.at_eof()
    assert "".join(map(dialect.text, got.split(dialect.separator)[:-1])) == "".join(script(5, planted=False).tokens)


async def test_a_cut_stream_has_no_end(client: aiohttp.ClientSession, upstream: str) -> None:
    with pytest.raises(aiohttp.ClientError):
        await stream_paced(client, upstream, Load(1, 10, rate=500, fault=Fault.CUT))
    with pytest.raises(aiohttp.ClientError):
        await stream_unpaced(client, upstream, Load(1, 10, rate=0, fault=Fault.CUT), seconds=0.01)


async def test_a_malformed_event_is_no_json(client: aiohttp.ClientSession, upstream: str) -> None:
    with pytest.raises(ValueError, match="unexpected"):
        await stream_paced(client, upstream, Load(1, 10, rate=500, fault=Fault.MALFORMED))


async def test_a_slow_start_delays_everything(client: aiohttp.ClientSession, upstream: str) -> None:
    [stream] = await stream_paced(client, upstream, Load(1, 4, rate=500, fault=Fault.SLOW_START))
    assert stream.text == script(4, planted=False).text
    assert stream.first_text is not None
    assert stream.first_text >= SLOW_START_SECONDS


def test_arrivals_are_poisson_and_repeatable() -> None:
    times = poisson(50, 40, seed=1)
    assert times == poisson(50, 40, seed=1) != poisson(50, 40, seed=2)
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 40
    assert abs(len(times) - 2000) < 5 * 2000**0.5


async def test_open_loop_latency_counts_from_the_schedule() -> None:
    """A server that answers nobody before the last request has come: nobody waits for an answer to begin."""
    offsets = [0.0, 0.01, 0.02, 0.05]
    all_here = asyncio.Barrier(len(offsets))
    dialect, tokens = DIALECTS["chat"], script(2, planted=False).deltas

    async def answer(request: web.Request) -> web.StreamResponse:
        await all_here.wait()
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"".join(dialect.token(*token) for token in tokens) + dialect.ending)
        return response

    app = web.Application()
    app.router.add_post(dialect.path, answer)
    runner, url = await _listening(app)
    async with session() as client:
        streams = await stream_scheduled(client, url, Load(4, 2, rate=0), offsets)
    await runner.cleanup()
    for offset, stream in zip(offsets, streams, strict=True):
        assert stream.ended
        assert stream.due - streams[0].due == pytest.approx(offset)
        assert stream.first_text is not None
        assert stream.first_text >= offsets[-1] - offset


async def test_what_fails_in_an_open_loop_is_counted_and_the_others_go_on(
    client: aiohttp.ClientSession, upstream: str
) -> None:
    cut = await stream_scheduled(client, upstream, Load(1, 4, rate=500, fault=Fault.CUT), [0.0, 0.0])
    whole = await stream_scheduled(client, upstream, Load(1, 4, rate=500), [0.0])
    assert [bool(stream.ended) for stream in cut + whole] == [False, False, True]


def test_delays_of_characters_weigh_what_arrived() -> None:
    ends, sent = [3, 6, 9], [0.0, 1.0, 2.0]
    arrivals = [Arrival(0.5, 2), Arrival(1.5, 5), Arrival(2.25, 9)]
    assert list(character_delays(ends, sent, arrivals)) == [
        (0.0, 0.5, 2),
        (0.0, 1.5, 1),
        (1.0, 0.5, 2),
        (1.0, 1.25, 1),
        (2.0, 0.25, 3),
    ]


def test_a_stream_without_text_has_no_first_one() -> None:
    assert Stream(1.0).first_text is None
    assert Stream(1.0, [Arrival(1.5, 0), Arrival(2.5, 4)]).first_text == 1.5


@given(st.lists(st.floats(2e-6, 500), min_size=1, max_size=50), st.floats(1, 100))
def test_percentiles_are_samples_to_three_digits(seconds: list[float], percentile: float) -> None:
    found = Percentiles(seconds)
    assert len(found) == len(seconds)
    ordered = sorted(seconds)
    assert min(abs(found.at(percentile) - each) - 0.001 * each - 1e-6 for each in ordered) <= 0
    assert found.at(100) == pytest.approx(ordered[-1], rel=0.002, abs=2e-6)
    assert ordered[0] - 1e-6 <= found.at(percentile) <= ordered[-1] * 1.002 + 1e-6


def test_percentiles_of_nothing_and_of_weights() -> None:
    assert Percentiles().at(99) == 0
    found = Percentiles()
    found.add(0.001, 99)
    found.add(1.0)
    assert found.at(50) == pytest.approx(0.001, rel=0.01)
    assert found.at(100) == pytest.approx(1.0, rel=0.01)
    assert found.curve((50, 99.9)) == {"50": pytest.approx(1, rel=0.01), "99.9": pytest.approx(1000, rel=0.01)}
