"""What the console costs the gateway, and who looks at it: ``python -m loadtest.viewer``.

1. Two gateways with an audit trail, one with the console and one without, run side by side: the same load goes through
   both at the same time, each before a mock server of its own. So what else the machine does meets both.
2. In each turn, on the same streams and in random order: nobody looks; somebody looks at Live; and he loads Exchanges
   again and again, too. Each time the processor time of an event in both gateways is compared. A turn starts both
   anew, since two processes of the same program differ by some per cent.
3. A viewer logs in, loads all files, the session and the last hour, and then hears every sample, one every two seconds;
   what is counted begins with that. He is a plain client in this process, or with ``--browser`` the pages in Chromium,
   which takes time from the cores that the gateways run on, but none that is counted as theirs.
4. What the console takes by itself is measured once without any request, where there is little else to measure.
5. Processor time is that of all of a gateway's processes, user and system. Ratios are told by their median, and the
   interval that holds it with 95 % confidence.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import aiohttp
import uvloop

import cotguard
from loadtest.chromium import chromium, log_in
from loadtest.contenders import Contender, started_cotguard
from loadtest.load import Load, session, stream_paced
from loadtest.machine import describe
from loadtest.measure import account
from loadtest.pairs import Ratio
from loadtest.serving import Server, started
from loadtest.tables import cells

__all__ = ["ROWS", "Costs", "Options", "Pair", "main", "measure", "report"]

T = TypeVar("T")

_TOKEN = "made-up-for-the-load-test"  # noqa: S105  # of gateways that nobody else reaches
_STATIC = Path(cotguard.__file__).parent / "console" / "static"
_AGAIN_SECONDS = 4.0
_WARM_SECONDS = 1.0
_LONG_SECONDS = 600.0
"""More than a turn takes: streams are left at its end."""

_ALONE = "nobody looks"
_LIVE = "one viewer of Live"
_BOTH = f"one viewer of Live, and Exchanges loaded every {_AGAIN_SECONDS:g} s"
ROWS = (_ALONE, _LIVE, _BOTH)
"""What is measured, the baseline of the others first."""

Look = Callable[[str, bool], AbstractAsyncContextManager[None]]
"""Somebody looks at the console at an address, also at Exchanges or not."""


class Both(NamedTuple, Generic[T]):
    """One for the gateway without the console, one for the gateway with it."""

    without: T
    watched: T


class Pair(NamedTuple):
    """The same figure of both gateways, at the same time."""

    without: float
    watched: float

    @property
    def ratio(self) -> float:
        """What the console makes of it."""
        return self.watched / self.without


@dataclass
class Costs:
    """Of each row what was measured."""

    event: dict[str, list[Pair]] = field(default_factory=lambda: {name: [] for name in ROWS})
    """Microseconds of processor time an event, turn by turn."""
    idle: dict[str, Pair] = field(default_factory=dict)
    """Milliseconds of processor time a second without any request."""


@dataclass(frozen=True)
class Options:
    """How much is measured. Seconds are those of one measurement."""

    streams: int = 32
    rate: float = 50.0
    seconds: float = 4.0
    turns: int = 18
    planted: bool = False
    policy: str = "balanced"
    workers: int = 1
    browser: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    default = Options()
    parser = argparse.ArgumentParser(prog="python -m loadtest.viewer", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=default.streams, help="of each gateway (default %(default)s)")
    parser.add_argument("--rate", type=float, default=default.rate, help="tokens/s of a stream (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of a measurement (default %(default)s)")
    parser.add_argument("--turns", type=int, default=default.turns, help="how often (default %(default)s)")
    parser.add_argument("--planted", action="store_true", help="text full of values, so that much is decided")
    parser.add_argument("--policy", default=default.policy, help="(default %(default)s)")
    parser.add_argument("--workers", type=int, default=default.workers, help="of the gateway (default %(default)s)")
    parser.add_argument("--browser", action="store_true", help="the viewer is Chromium")
    options = Options(**vars(parser.parse_args(arguments)))
    machine = describe()
    costs = uvloop.run(measure(options, lambda told: print(told, file=sys.stderr)))  # noqa: T201  # progress
    sys.stdout.write(f"{machine}\n\n{report(options, costs)}")
    return 0


async def measure(options: Options, progress: Callable[[str], None]) -> Costs:
    """What an event cost, and what looking on costs by itself."""
    costs = Costs()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstreams = Both(*(stack.enter_context(started("loadtest.upstream")) for _ in range(2)))
        async with _chromium_looks() if options.browser else nullcontext(_client_looks) as look:
            progress("without requests")
            with _gateways(options, upstreams, folder) as gateways:
                for name in ROWS:
                    async with _in_row(name, gateways.watched, look):
                        spent, seconds, _ = await _spent(gateways, options.seconds)
                    costs.idle[name] = Pair(*(each / seconds * 1e3 for each in spent))
            for turn in range(options.turns):
                progress(f"turn {turn + 1} of {options.turns}")
                with _gateways(options, upstreams, folder) as gateways:
                    for name, pair in (await _turn(options, upstreams, gateways, look)).items():
                        costs.event[name].append(pair)
    return costs


@contextmanager
def _gateways(options: Options, upstreams: Both[Server], folder: Path) -> Iterator[Both[Contender]]:
    with ExitStack() as stack:

        def start(name: str, upstream: Server, *more: str) -> Contender:
            shared = ("--audit-dir", str(folder / name), "--workers", str(options.workers))
            running = started_cotguard(options.policy, upstream.urls[0], options=(*shared, *more))
            return stack.enter_context(running)

        without = start("without", upstreams.without)
        yield Both(without, start("watched", upstreams.watched, "--admin-token", _TOKEN))


async def _turn(options: Options, upstreams: Both[Server], gateways: Both[Contender], look: Look) -> Mapping[str, Pair]:
    load = Load(options.streams, int(options.rate * _LONG_SECONDS), options.rate, options.planted)
    measured = {}
    async with session() as client:
        streaming = [asyncio.create_task(stream_paced(client, gateway.url, load)) for gateway in gateways]
        await asyncio.sleep(load.spread + _WARM_SECONDS)
        for name in random.sample(ROWS, len(ROWS)):
            async with _in_row(name, gateways.watched, look):
                measured[name] = await _spent(gateways, options.seconds)
        for task in streaming:
            if not task.cancel():
                await task  # it failed
        await asyncio.gather(*streaming, return_exceptions=True)
        sent = [await account(client, upstream) for upstream in upstreams]
    pairs = {}
    for name, (spent, seconds, start) in measured.items():
        events = (sum(start <= at < start + seconds for times in each for at in times) for each in sent)
        pairs[name] = Pair(*(each / count * 1e6 for each, count in zip(spent, events, strict=True)))
    return pairs


def _in_row(name: str, gateway: Contender, look: Look) -> AbstractAsyncContextManager[None]:
    """What the row ``name`` tells of goes on."""
    return nullcontext() if name == _ALONE else look(f"{gateway.admin}/console", name == _BOTH)


async def _spent(gateways: Both[Contender], seconds: float) -> tuple[Pair, float, float]:
    """The processor seconds that both take from now on, for how long that was, and since when."""
    before, start = _clocks(gateways), time.monotonic()
    await asyncio.sleep(seconds)
    after, end = _clocks(gateways), time.monotonic()
    return Pair(after.without - before.without, after.watched - before.watched), end - start, start


def _clocks(gateways: Both[Contender]) -> Pair:
    return Pair(*(gateway.server.cpu_seconds if gateway.server else 0.0 for gateway in gateways))


@asynccontextmanager
async def _client_looks(console: str, exchanges: bool) -> AsyncIterator[None]:  # see Look
    """The plain client."""
    jar = aiohttp.CookieJar(unsafe=True)  # the host is an address
    files = [f"static/{path.relative_to(_STATIC)}" for path in _STATIC.rglob("*") if path.suffix in (".js", ".css")]

    async def load(client: aiohttp.ClientSession, *paths: str) -> None:
        for path in (*files, "api/session", *paths):
            async with client.get(f"{console}/{path}") as response:
                await response.read()

    async def again(client: aiohttp.ClientSession) -> None:
        await asyncio.sleep(_AGAIN_SECONDS / 2)  # so that so many loads are counted as fit into the time
        while True:
            await load(client, "exchanges", "api/exchanges/filters", "api/exchanges?limit=50")
            await asyncio.sleep(_AGAIN_SECONDS)

    heard = 0

    async def hear(response: aiohttp.ClientResponse) -> None:
        nonlocal heard
        async for line in response.content:
            heard += line.startswith(b"data: ")

    async with aiohttp.ClientSession(cookie_jar=jar, raise_for_status=True, read_bufsize=2**20) as client:
        async with client.post(f"{console}/login", data={"token": _TOKEN}) as response:
            await response.read()
        await load(client, "live", "api/live/history")
        async with client.get(f"{console}/api/live") as live:
            looking = [asyncio.create_task(hear(live)), *([asyncio.create_task(again(client))] if exchanges else ())]
            yield
            for task in looking:
                task.cancel()
            failed = [each for each in await asyncio.gather(*looking, return_exceptions=True) if _is_fault(each)]
    if failed or not heard:
        raise RuntimeError(f"the viewer saw {heard} samples: {failed}")


def _is_fault(result: BaseException | None) -> bool:
    return result is not None and not isinstance(result, asyncio.CancelledError)


@asynccontextmanager
async def _chromium_looks() -> AsyncIterator[Look]:
    """The browser, which stays open between runs."""

    @asynccontextmanager
    async def look(console: str, exchanges: bool) -> AsyncIterator[None]:  # see Look
        async with AsyncExitStack() as stack:
            context = await stack.enter_async_context(await browser.new_context())
            live = await context.new_page()
            await log_in(live, f"{console}/login", _TOKEN)
            await live.wait_for_selector("[data-now=requests][data-value]:not([data-value=''])")

            async def again() -> None:
                page = await context.new_page()
                await asyncio.sleep(_AGAIN_SECONDS / 2)
                while True:
                    await page.goto(f"{console}/exchanges")
                    await asyncio.sleep(_AGAIN_SECONDS)

            task = asyncio.create_task(again()) if exchanges else None
            yield
            if task:
                task.cancel()

    async with chromium() as browser:
        yield look


def report(options: Options, costs: Costs) -> str:
    """The table, in Markdown, and what it was made of."""
    rows = []
    for name, pairs in costs.event.items():
        without, watched = zip(*pairs, strict=True)
        ratios = [pair.ratio for pair in pairs]
        rows.append(
            (
                name,
                *(f"{figure:.2f}" for figure in costs.idle[name]),
                *(f"{statistics.median(figures):.1f}" for figures in (without, watched)),
                str(Ratio.of(watched, without)),
                "" if name == _ALONE else str(Ratio.of(ratios, [pair.ratio for pair in costs.event[_ALONE]])),
            )
        )
    text = "text full of values" if options.planted else "prose without values"
    processes = "one process" if options.workers == 1 else f"{options.workers} workers"
    viewer = "Chromium" if options.browser else "a plain client"
    headings = (
        *("", "idle, CPU ms/s, no console", "with the console", "CPU µs/event, no console", "with the console"),
        *("ratio to no console", "ratio to nobody looks"),
    )
    return (
        cells(headings, rows, right=True)
        + f"\ncotguard {version('cotguard')} with `{options.policy}`, {processes}; {options.streams} streams of "
        f"{options.rate:g} tokens/s through each gateway, {text}; {options.turns} turns of {options.seconds:g} s a row "
        f"with {viewer} as the viewer. Medians over turns, of ratios also the interval that holds the median with 95 % "
        "confidence.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
