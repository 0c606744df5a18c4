"""What the console costs the gateway, and who looks at it: ``python -m loadtest.viewer``.

1. Two gateways with an audit trail stand before the same mock server: one with the console and one without, which is
   the baseline. Each turn starts both anew, since two processes of the same program differ by some per cent.
2. In each turn the load of :mod:`loadtest.bench` (paced) goes, in random order, through the gateway without the
   console; through the other while nobody looks on; while somebody looks at Live; and while he loads Exchanges again
   and again, too. A run counts as many of the console's samples, one every two seconds, as fit into its seconds.
3. A viewer logs in, loads all files, the session and the last hour, and then hears every sample. He is a plain client
   in this process, or with ``--browser`` the pages in Chromium, which takes time from the cores that the gateway runs
   on, but none that is counted as the gateway's.
4. What the console takes by itself is measured once more without any request, where there is little else to measure.
5. Processor time is that of all the gateway's processes, user and system. Ratios are those of runs of the same turn:
   the median, and the interval that holds it with 95 % confidence.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import aiohttp
import uvloop

import cotguard
from loadtest.chromium import chromium, log_in
from loadtest.contenders import Contender, started_cotguard
from loadtest.load import session
from loadtest.machine import describe
from loadtest.measure import paced, paced_load
from loadtest.pairs import Ratio
from loadtest.serving import Server, started
from loadtest.tables import cells

__all__ = ["ROWS", "Costs", "Options", "main", "measure", "report"]

_TOKEN = "made-up-for-the-load-test"  # noqa: S105  # of gateways that nobody else reaches
_STATIC = Path(cotguard.__file__).parent / "console" / "static"
_AGAIN_SECONDS = 4.0
_WARM_UP_SECONDS = 1.0

_NONE = "no console"
_ALONE = "the console, and nobody looks"
_LIVE = "one viewer of Live"
_BOTH = f"one viewer of Live, and Exchanges loaded every {_AGAIN_SECONDS:g} s"
ROWS = (_NONE, _ALONE, _LIVE, _BOTH)
"""What is measured, the baseline first."""


@dataclass
class Costs:
    """Of each row what was measured."""

    event: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ROWS})
    """Microseconds of processor time an event, turn by turn."""
    idle: dict[str, float] = field(default_factory=dict)
    """Milliseconds of processor time a second without any request."""


Look = Callable[[str, bool], AbstractAsyncContextManager[None]]
"""Somebody looks at the console at an address, also at Exchanges or not."""


@dataclass(frozen=True)
class Options:
    """How much is measured. Seconds are those of one run."""

    streams: int = 64
    rate: float = 50.0
    seconds: float = 4.0
    turns: int = 10
    planted: bool = False
    policy: str = "balanced"
    workers: int = 1
    browser: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    default = Options()
    parser = argparse.ArgumentParser(prog="python -m loadtest.viewer", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=default.streams, help="responses at once (default %(default)s)")
    parser.add_argument("--rate", type=float, default=default.rate, help="tokens/s of a stream (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of a run (default %(default)s)")
    parser.add_argument("--turns", type=int, default=default.turns, help="runs of each row (default %(default)s)")
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
    with tempfile.TemporaryDirectory() as folder, started("loadtest.upstream") as upstream:
        start = partial(_started, options, upstream, Path(folder))
        async with _chromium_looks() if options.browser else nullcontext(_client_looks) as look, session() as client:
            progress("without requests")
            with start() as gateways:
                for name in ROWS:
                    async with gateways.in_row(name, look) as gateway:
                        costs.idle[name] = await _idle(gateway, options.seconds)
            for turn in range(options.turns):
                progress(f"turn {turn + 1} of {options.turns}")
                with start() as gateways:
                    for contender in gateways:
                        await _run(options, client, contender, upstream, _WARM_UP_SECONDS)
                    for name in random.sample(ROWS, len(ROWS)):
                        async with gateways.in_row(name, look) as contender:
                            cost = await _run(options, client, contender, upstream, options.seconds)
                        costs.event[name].append(cost)
    return costs


class _Gateways(NamedTuple):
    """The two that are compared."""

    without: Contender
    watched: Contender

    @asynccontextmanager
    async def in_row(self, name: str, look: Look) -> AsyncIterator[Contender]:
        """The one that the row ``name`` is about, while what it tells of goes on."""
        looking = look(f"{self.watched.admin}/console", name == _BOTH) if name in (_LIVE, _BOTH) else nullcontext()
        async with looking:
            yield self.without if name == _NONE else self.watched


@contextmanager
def _started(options: Options, upstream: Server, folder: Path) -> Iterator[_Gateways]:
    with ExitStack() as stack:

        def start(name: str, *more: str) -> Contender:
            shared = ("--audit-dir", str(folder / name), "--workers", str(options.workers))
            running = started_cotguard(options.policy, upstream.urls[0], options=(*shared, *more))
            return stack.enter_context(running)

        yield _Gateways(start("without"), start("watched", "--admin-token", _TOKEN))


async def _idle(gateway: Contender, seconds: float) -> float:
    assert gateway.server is not None  # noqa: S101  # it runs
    before, start = gateway.server.cpu_seconds, time.monotonic()
    await asyncio.sleep(seconds)
    return (gateway.server.cpu_seconds - before) / (time.monotonic() - start) * 1e3


async def _run(
    options: Options, client: aiohttp.ClientSession, gateway: Contender, upstream: Server, seconds: float
) -> float:
    plain = Contender(gateway.name, gateway.url, gateway.server)  # its metrics are not asked for
    load = paced_load(options.streams, options.rate, seconds, planted=options.planted)
    return (await paced(client, plain, upstream, load))["cpu"]


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
        while True:
            await asyncio.sleep(_AGAIN_SECONDS)
            await load(client, "exchanges", "api/exchanges/filters", "api/exchanges?limit=50")

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
    for place, (name, found) in enumerate(costs.event.items()):
        ratios = [str(Ratio.of(found, costs.event[base])) if at < place else "" for at, base in enumerate(ROWS[:2])]
        rows.append((name, f"{costs.idle[name]:.2f}", f"{statistics.median(found):.1f}", *ratios))
    text = "text full of values" if options.planted else "prose without values"
    processes = "one process" if options.workers == 1 else f"{options.workers} workers"
    viewer = "Chromium" if options.browser else "a plain client"
    headings = ("", "CPU ms/s without requests", "CPU µs/event", f"ratio to {_NONE}", "ratio to nobody looks")
    return (
        cells(headings, rows, right=True)
        + f"\ncotguard {version('cotguard')} with `{options.policy}`, {processes}; {options.streams} streams of "
        f"{options.rate:g} tokens/s, {text}; {options.turns} turns of {options.seconds:g} s a row; the viewer is "
        f"{viewer}. Medians; of ratios in the same turn also the interval that holds the median with 95 % confidence.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
