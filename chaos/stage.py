"""Where a scenario plays: the gateway, the scripted upstream and clients; and what is looked at when it is over.

1. Before, some exchanges of every dialect go through, so that what is made once is there; then memory and descriptors
   are noted.
2. A scenario breaks things while clients ask; what becomes of each exchange is kept.
3. Afterwards no stream may be under way, memory and descriptors must be back, within :data:`MEMORY_SHARE` and
   :data:`MEMORY_BYTES`, a new exchange must come through, and the audit trail must hold what it has to
   (:mod:`chaos.trail`).
"""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Final

import aiohttp

from chaos.exchange import SPOKEN, Asked, Client, End, Seen
from chaos.expected import FIRST, Expectation, policy_file
from chaos.gateway import LOG, Footprint, Gateway, started_gateway
from chaos.trail import account, quoted, verifies
from loadtest.serving import Server, started

__all__ = ["Result", "Run", "Scale", "Stage", "background", "until"]

MEMORY_SHARE: Final = 1.1
MEMORY_BYTES: Final = 16 * 2**20

_RATE = 240.0
"""Writes a second of a stream: it lasts about a second."""
_WIDTH = 16
_WARM_AT_ONCE = 2 * len(SPOKEN)
_WARM = 2 * _WARM_AT_ONCE
_SETTLE_SECONDS = 45.0
"""Longer than the gateway takes to give memory back."""
_LOOK_SECONDS = 0.25
_PATIENCE_SECONDS = 0.2
_NOTHING = Footprint(0, 0)
_FAULTS = ("Traceback", " exception=")


@dataclass(frozen=True)
class Scale:
    """How much happens: exchanges, connections that do nothing, clients that read slowly, seconds of other things."""

    exchanges: int = 500
    idle: int = 2000
    slow: int = 200
    seconds: float = 30.0
    width: int = _WIDTH
    """Exchanges at the same time."""


@dataclass
class Result:
    """What came out of a scenario."""

    name: str
    ends: Counter[End] = field(default_factory=Counter)
    leaked: int = 0
    altered: int = 0
    quoted: int = 0
    """Texts of the gateway's own (log, trail, metrics) with a part of a secret."""
    faults: int = 0
    """Lines of the log that tell of an unhandled fault."""
    records: int = 0
    lost: int = 0
    verifies: bool = True
    active: float = 0
    """Streams that the gateway counts as under way afterwards."""
    before: Footprint = _NOTHING
    after: Footprint = _NOTHING
    seconds: float = 0
    figures: dict[str, float] = field(default_factory=dict)
    """What only this scenario has."""
    problems: list[str] = field(default_factory=list)
    """Why it is not in order."""
    skipped: str = ""

    @property
    def exchanges(self) -> int:
        """How many there were."""
        return self.ends.total()

    def judge(self, allowed: frozenset[End]) -> None:
        """Note what is not in order, ``allowed`` being how exchanges may end."""
        wrong = {end: number for end, number in self.ends.items() if end not in allowed}
        found = {
            **{f"{end} exchanges": number for end, number in wrong.items()},
            "leaked characters": self.leaked,
            "altered texts": self.altered,
            "texts of the gateway's own that quote secrets": self.quoted,
            "unhandled faults": self.faults,
            "records lost": self.lost,
            "streams still under way": self.active,
            "trails that do not verify": int(not self.verifies),
            "bytes of memory too many": max(0, self.after.memory - _bound(self.before)),
            "descriptors too many": max(0, self.after.descriptors - self.before.descriptors),
        }
        self.problems += [f"{number:g} {what}" for what, number in found.items() if number]


@dataclass
class Stage:
    """See the module."""

    gateway: Gateway
    upstream: Server
    client: Client
    scale: Scale
    advance: Callable[[int], object]
    """Told how many exchanges are over."""
    result: Result
    seen: list[Seen] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    async def ask(self, asked: Asked) -> Seen:
        """One exchange, accounted for."""
        found = await self.client.ask(asked)
        self.note(found)
        return found

    def note(self, seen: Seen) -> None:
        """Account for an exchange."""
        self.seen.append(seen)
        self.advance(1)

    async def crowd(self, asks: Iterable[Asked]) -> list[Seen]:
        """Exchanges, as many at the same time as the scale says, until all are over."""
        found: list[Seen] = []
        left = iter(asks)

        async def one_after_the_other() -> None:
            for asked in left:
                seen = await self.ask(asked)
                found.append(seen)
                if seen.end in (End.REFUSED, End.CLOSED):
                    await asyncio.sleep(_PATIENCE_SECONDS)  # as clients do before they try again

        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.scale.width):
                tasks.create_task(one_after_the_other())
        return found

    @asynccontextmanager
    async def load(self, rate: float = _RATE) -> AsyncIterator[None]:
        """While whole exchanges follow one another; at the end those under way are awaited."""
        over = False

        def asks() -> Iterator[Asked]:
            while not over:
                yield self.whole(rate)

        crowd = asyncio.create_task(self.crowd(asks()))
        try:
            yield
        finally:
            over = True
            await crowd

    def note_base(self) -> None:
        """What memory and descriptors have to come back to."""
        self.result.before = self.gateway.footprint

    async def adopt(self, *policies: str) -> None:
        """Configure one policy after the other, each until it is in force; what that costs once is then there."""
        for name in policies:
            before = await self._applied()
            self.gateway.configure(policy=policy_file(name))
            await until(partial(self._applied_since, before))
        self.note_base()

    async def _applied(self) -> float:
        return await self.gateway.metric("cotguard_config_reloads_total", result="applied")

    async def _applied_since(self, before: float) -> bool:
        return await self._applied() > before

    def whole(self, rate: float = _RATE) -> Asked:
        """The next exchange, of which nothing is told to fail."""
        return Asked(next(self.numbers), rate)


class Run:
    """One scenario under way. ``scratch``: a folder of its own."""

    def __init__(self, name: str, scale: Scale, advance: Callable[[int], object], scratch: Path) -> None:
        self.result = Result(name)
        self.scale = scale
        self.scratch = scratch
        self._advance = advance

    @asynccontextmanager
    async def stage(
        self,
        *,
        policies: Sequence[str] = (FIRST,),
        workers: int = 1,
        environment: Mapping[str, str] | None = None,
        trusted: ssl.SSLContext | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> AsyncIterator[Stage]:
        """The stage, under the first of ``policies`` at first; at the end the result is complete."""
        expectations = [_expectation(name) for name in policies]
        began = time.monotonic()
        with started("chaos.upstream") as upstream:
            pool = {"servers": [upstream.urls[0]], "breaker": None}
            told = {"upstream": "model", "upstreams": {"model": pool}, "policy": policy_file(policies[0])}
            with started_gateway(self.scratch, {**told, **(settings or {})}, workers, environment) as gateway:
                client = Client(gateway.url, {each.digest: each for each in expectations}, trusted)
                stage = Stage(gateway, upstream, client, self.scale, self._advance, self.result)
                try:
                    await until(gateway.ready)
                    await _warm(client)
                    stage.note_base()
                    yield stage
                    await self._look(stage)
                finally:
                    await client.close()
        self._hold_to_account(stage)
        self.result.seconds = time.monotonic() - began

    async def _look(self, stage: Stage) -> None:
        """What is left of it in the gateway."""
        gateway, result = stage.gateway, self.result

        async def answers() -> bool:
            return await gateway.ready() and await _under_way(stage.upstream) >= 0

        await until(answers)
        after = await stage.client.ask(stage.whole())
        stage.seen.append(after)
        if after.end is not End.COMPLETE:
            result.problems.append(f"the exchange afterwards ended {after.end}")

        async def settled() -> bool:
            result.after = gateway.footprint
            result.active = await gateway.metric("cotguard_active_streams")
            under_way = await _under_way(stage.upstream)
            back = result.after.memory <= _bound(result.before)
            return back and result.after.descriptors <= result.before.descriptors and not result.active + under_way

        await until(settled)
        async with aiohttp.ClientSession() as session, session.get(f"{gateway.admin}/metrics") as response:
            told = [await response.text(), gateway.log]
        result.quoted += quoted(told, (each.number for each in stage.seen))

    def _hold_to_account(self, stage: Stage) -> None:
        """What clients got, and what the trail says of it now that the gateway is gone."""
        result, seen = self.result, stage.seen
        result.ends.update(each.end for each in seen)
        result.leaked += sum(each.leaked for each in seen)
        result.altered += sum(each.altered for each in seen)
        result.faults += sum(
            fault in line for line in (self.scratch / LOG).read_text().splitlines() for fault in _FAULTS
        )
        found = account(stage.gateway.trail, seen)
        result.records, result.lost = found.records, found.exchanges + found.decisions
        result.verifies = verifies(stage.gateway.trail)
        kept = (file.read_text(encoding="utf-8", errors="replace") for file in stage.gateway.trail.glob("audit-*"))
        result.quoted += quoted(kept, (each.number for each in seen))


def _bound(base: Footprint) -> int:
    return int(base.memory * MEMORY_SHARE) + MEMORY_BYTES


@cache
def _expectation(name: str) -> Expectation:
    return Expectation(name)


async def _warm(client: Client) -> None:
    """Exchanges that are no part of the result."""
    for number in range(10**6, 10**6 + _WARM, _WARM_AT_ONCE):
        asks = (client.ask(Asked(each, 0)) for each in range(number, number + _WARM_AT_ONCE))
        wrong = [seen.end for seen in await asyncio.gather(*asks) if seen.end is not End.COMPLETE or seen.altered]
        if wrong:
            raise RuntimeError(f"before anything was broken an exchange ended {wrong[0]}, or its text was altered")


async def _under_way(upstream: Server) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{upstream.urls[0]}/under-way") as response:
        return int(await response.text())


@asynccontextmanager
async def background(what: Coroutine[object, None, None]) -> AsyncIterator[None]:
    """Meanwhile ``what`` goes on; it is cancelled at the end, and a fault of it is raised."""
    task = asyncio.create_task(what)
    try:
        yield
    finally:
        if not task.cancel():
            task.result()
        with suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds, at most :data:`_SETTLE_SECONDS`: what follows finds out that it does not."""
    end = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < end:
        try:
            if await holds():
                return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(_LOOK_SECONDS)
