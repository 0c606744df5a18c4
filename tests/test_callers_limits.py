"""Limits of callers, counted here and in a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from callers_kit import RedisServer
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.callers import limits, shared_limits
from cotguard.callers.caller import Caller, Scope
from cotguard.callers.denied import Denied, Reason
from cotguard.callers.limits import DAY, WINDOW, Lease, Limiter, LocalLimiter, tokens_in
from cotguard.callers.shared_limits import SharedLimiter


def caller(name: str = "key:1", **limits: int) -> Caller:
    return Caller(name, Scope(**limits))  # type: ignore[arg-type]  # limits only


async def denied(limiter: Limiter, asking: Caller, tokens: int = 0) -> tuple[Reason, int | None]:
    with pytest.raises(Denied) as raised:
        await limiter.admit(asking, tokens)
    return raised.value.reason, raised.value.retry_after


@settings(max_examples=200, deadline=None)
@given(limit=st.integers(1, 5), gaps=st.lists(st.integers(0, 160).map(lambda quarters: quarters / 4), max_size=60))
def test_never_more_than_the_limit_in_any_minute(limit: int, gaps: list[float]) -> None:
    now = 0.0
    limiter = LocalLimiter(lambda: now, lambda: now)
    asking = caller(requests_per_minute=limit)
    admitted: list[float] = []

    async def ask() -> int | None:
        try:
            lease = await limiter.admit(asking, 0)
        except Denied as refused:
            return refused.retry_after
        admitted.append(now)
        await lease.end(0)
        return None

    async def run() -> None:
        nonlocal now
        for gap in gaps:
            now += gap
            wait = await ask()
            if wait is not None:
                assert sum(at > now - WINDOW for at in admitted) == limit  # nobody is refused for nothing
                now += wait
                assert await ask() is None  # and what is told is true

    asyncio.run(run())
    for at in admitted:
        assert sum(at - WINDOW < other <= at for other in admitted) <= limit


@settings(max_examples=100, deadline=None)
@given(limit=st.integers(1, 4), turns=st.lists(st.booleans(), max_size=40))
def test_never_more_than_the_limit_under_way(limit: int, turns: list[bool]) -> None:
    async def run() -> None:
        limiter = LocalLimiter()
        under_way: list[Lease] = []
        for begins in turns:
            if not begins and under_way:
                await under_way.pop().end(0)
            elif len(under_way) < limit:
                under_way.append(await limiter.admit(caller(concurrency=limit), 0))
            else:
                assert await denied(limiter, caller(concurrency=limit)) == (Reason.CONCURRENCY, 1)

    asyncio.run(run())


async def test_tokens_of_a_day() -> None:
    now = DAY * 20_000 + 10.0
    limiter = LocalLimiter(lambda: now, lambda: now)
    asking = caller(tokens_per_day=100)
    lease = await limiter.admit(asking, 40)
    assert await denied(limiter, asking, 61) == (Reason.TOKENS, DAY - 10)
    await lease.end(50)
    await (await limiter.admit(asking, 10)).end(0)
    assert await denied(limiter, asking, 1) == (Reason.TOKENS, DAY - 10)
    await limiter.admit(caller("key:2", tokens_per_day=100), 100)
    now += DAY - 10
    late = await limiter.admit(asking, 100)
    now += DAY
    await late.end(90)
    assert await denied(limiter, asking, 11) == (Reason.TOKENS, DAY)  # charged when it came


def test_tokens_are_estimated_from_characters() -> None:
    assert [tokens_in(characters) for characters in (0, 1, 4, 5)] == [0, 1, 1, 2]


async def test_callers_that_ask_no_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SWEEP_AT", 10)
    now = 0.0
    limiter = LocalLimiter(lambda: now, lambda: now)
    stays = await limiter.admit(caller("stays", concurrency=1), 0)
    for number in range(100):
        await (await limiter.admit(caller(str(number), requests_per_minute=1), 0)).end(0)
        now += DAY / 10
    assert len(limiter._accounts) < 30
    assert await denied(limiter, caller("stays", concurrency=1)) == (Reason.CONCURRENCY, 1)
    await stays.end(0)


# --- In a database that several share ---------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def make_limiter(redis: RedisServer) -> AsyncIterator[Callable[[], SharedLimiter]]:
    made: list[SharedLimiter] = []

    def make() -> SharedLimiter:
        made.append(SharedLimiter(redis.url))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_two_gateways_count_together(make_limiter: Callable[[], SharedLimiter]) -> None:
    one, two = make_limiter(), make_limiter()
    asking = caller(requests_per_minute=5)
    told: list[tuple[Reason, int]] = []

    async def ask(limiter: Limiter) -> bool:
        try:
            lease = await limiter.admit(asking, 0)
        except Denied as refused:
            told.append((refused.reason, refused.retry_after or 0))
            return False
        await lease.end(0)
        return True

    answers = await asyncio.gather(*(ask(limiter) for limiter in (one, two) for _ in range(20)))
    assert sum(answers) == 5
    assert all(reason is Reason.REQUESTS and 55 <= wait <= 60 for reason, wait in told)
    await (await two.admit(caller("key:2", requests_per_minute=5), 0)).end(0)


async def test_requests_under_way_are_shared_and_renewed(
    make_limiter: Callable[[], SharedLimiter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_limits, "_RENEW_SECONDS", 0.1)
    monkeypatch.setattr(shared_limits, "_ADMIT", shared_limits._ADMIT.replace("now + 60, lease", "now + 1, lease"))
    monkeypatch.setattr(shared_limits, "_RENEW", shared_limits._RENEW.replace("now + 60", "now + 2"))
    one, two = make_limiter(), make_limiter()
    asking = caller(concurrency=2)
    first, second = await one.admit(asking, 0), await two.admit(asking, 0)
    await asyncio.sleep(1.5)  # longer than a lease
    assert await denied(one, asking) == (Reason.CONCURRENCY, 1)
    await first.end(0)
    third = await two.admit(asking, 0)
    assert await denied(one, asking) == (Reason.CONCURRENCY, 1)
    two._leases.clear()  # as if its process had died
    async with asyncio.timeout(10):
        while True:
            try:
                await one.admit(asking, 0)
                break
            except Denied:
                await asyncio.sleep(0.1)
    await second.end(0)
    await third.end(0)


async def test_tokens_are_shared(make_limiter: Callable[[], SharedLimiter]) -> None:
    one, two = make_limiter(), make_limiter()
    asking = caller(tokens_per_day=100)
    await (await one.admit(asking, 40)).end(50)
    reason, wait = await denied(two, asking, 11)
    assert reason is Reason.TOKENS
    assert wait is not None
    assert 0 < wait <= DAY
    await (await two.admit(asking, 10)).end(0)


async def test_without_the_database_nobody_with_a_limit_is_admitted(
    redis: RedisServer, make_limiter: Callable[[], SharedLimiter]
) -> None:
    limiter = make_limiter()
    lease = await limiter.admit(caller(concurrency=1), 0)
    await redis.stop()
    assert await denied(limiter, caller(concurrency=1)) == (Reason.UNAVAILABLE, 5)
    await lease.end(10)
    await redis.start()
    await (await limiter.admit(caller(concurrency=1), 0)).end(0)


async def test_names_in_the_database_tell_no_callers(
    redis: RedisServer, make_limiter: Callable[[], SharedLimiter]
) -> None:
    limiter = make_limiter()
    await limiter.admit(caller("jwt:0:ann@example.com", requests_per_minute=9, concurrency=9, tokens_per_day=9), 1)
    names = [name.decode() async for name in limiter._redis.scan_iter()]
    assert sorted(name.rpartition(":")[2] for name in names) == ["leases", "requests", "tokens"]
    assert not any("ann" in name for name in names)
    assert all([await limiter._redis.ttl(name) > 0 for name in names])
