"""What the report measures, section by section. Each one gives figures that JSON can keep; none draws conclusions."""

import random
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from cotguard.classifier.bundle import NONE
from cotguard.detectors.registry import build
from cotguard.policy import load as load_policy
from loadtest.contenders import Contender, lineup, started_cotguard
from loadtest.exposition import histograms
from loadtest.hold import Holds, quantile
from loadtest.hold import measure as measure_hold
from loadtest.load import Delay, Load, delays, stream_scheduled
from loadtest.measure import Figures, account, memory, open_loop, paced, paced_load, unpaced
from loadtest.percentiles import Percentiles
from loadtest.report.plan import Plan
from loadtest.script import script
from loadtest.serving import Server

__all__ = ["SECTIONS", "Section", "Site", "classifier_point", "schedule"]

Found = dict[str, Any]
"""What a section found, as JSON can keep it."""

_POLICY = "balanced"
_UNPACED_TOKENS = 1000
_SCALED_TOKENS = 250
_LEAST_SECONDS = 1.0
_FIRST_SECONDS = 0.01
_SETTLE_SECONDS = 1.0
_START_WITHIN_SECONDS = 2.0
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Site:
    """Where a section measures. ``note`` is told what is being done."""

    plan: Plan
    client: aiohttp.ClientSession
    upstream: Server
    contenders: Sequence[Contender]
    note: Callable[[str], None]

    def chosen(self, names: Sequence[str]) -> list[Contender]:
        """Those of ``names`` that are running."""
        return [contender for contender in self.contenders if contender.name in names]


Section = Callable[[Site], Awaitable[Found]]


async def cost(site: Site) -> Found:
    """Paced and unpaced at one number of streams, in turns: every figure of every turn."""
    plan = site.plan
    slow: dict[str, list[Figures]] = {}
    fast: dict[str, list[Figures]] = {}
    for turn in range(plan.repeat):
        for contender in site.chosen(plan.compared):
            site.note(f"turn {turn + 1} of {plan.repeat}, {contender.name}")
            load = paced_load(plan.busy, plan.rate, plan.seconds)
            slow.setdefault(contender.name, []).append(await paced(site.client, contender, site.upstream, load))
            load = Load(plan.busy, _UNPACED_TOKENS, 0)
            fast.setdefault(contender.name, []).append(await unpaced(site.client, contender, load, plan.seconds / 2))
    return {"paced": slow, "unpaced": fast}


async def dialects(site: Site) -> Found:
    """Paced and unpaced streams of every dialect."""
    plan, found = site.plan, Found()
    for dialect in plan.dialects:
        for contender in site.chosen(plan.spoken):
            site.note(f"{dialect}, {contender.name}")
            load = replace(paced_load(plan.busy, plan.rate, plan.seconds), dialect=dialect)
            slow = await paced(site.client, contender, site.upstream, load)
            load = Load(plan.busy, _UNPACED_TOKENS, 0, dialect=dialect)
            fast = await unpaced(site.client, contender, load, plan.seconds / 2)
            found.setdefault(dialect, {})[contender.name] = {"paced": slow["cpu"], "unpaced": fast["cpu"]}
    return found


async def latency(site: Site) -> Found:
    """An open loop of paced streams, the same schedule for everybody: milliseconds by percentile."""
    plan, found = site.plan, Found()
    load = Load(plan.concurrent, plan.stream_tokens, plan.rate)
    for contender in site.chosen(plan.compared):
        site.note(contender.name)
        latencies = await open_loop(site.client, contender, site.upstream, load, plan.open_seconds, seed=1)
        found[contender.name] = {
            "requests": len(latencies.first),
            "failed": latencies.failed,
            "first": latencies.first.curve(),
            "whole": latencies.whole.curve(),
            "character": latencies.characters.curve(),
        }
        if latencies.own is not None:
            own = {f"{share * 100:g}": latencies.own.quantile(share) * 1e3 for share in (0.5, 0.99)}
            found[contender.name]["own"] = own
    return found


async def concurrency(site: Site) -> Found:
    """Unpaced responses at several numbers of streams."""
    plan, found = site.plan, Found()
    for contender in site.chosen(plan.scaled):
        for streams in plan.streams:
            site.note(f"{contender.name}, {streams} streams")
            load = Load(streams, _SCALED_TOKENS, 0)
            figures = await unpaced(site.client, contender, load, min(_LEAST_SECONDS, plan.seconds))
            found.setdefault(contender.name, {})[str(streams)] = figures
    return found


async def streams(site: Site) -> Found:
    """Paced streams at several numbers of them."""
    plan, found = site.plan, Found()
    for contender in site.chosen(plan.scaled):
        for count in (*plan.streams, *plan.more_streams):
            site.note(f"{contender.name}, {count} streams")
            load = paced_load(count, plan.rate_of(count), plan.seconds / 2)
            figures = await paced(site.client, contender, site.upstream, load)
            found.setdefault(contender.name, {})[str(count)] = figures
    return found


async def length(site: Site) -> Found:
    """Responses of several lengths, one after the other: processor seconds of each, by characters."""
    plan, found = site.plan, Found()
    upstream = site.upstream.urls[0]
    for contender in site.chosen(plan.lengthened):
        found[contender.name] = await _lengths(site, contender, plan.lengths)
    for bundle in plan.bundles[:1]:
        with started_cotguard(_POLICY, upstream, bundle=bundle) as contender:
            found[f"{contender.name}, {bundle}"] = await _lengths(site, contender, plan.classifier_lengths)
    return found


async def _lengths(site: Site, contender: Contender, lengths: Sequence[int]) -> Figures:
    found = Figures()
    for characters in lengths:
        site.note(f"{contender.name}, {characters:,} characters")
        ends = script(characters, planted=False).ends  # a token has a character or more
        load = Load(1, 1 + sum(end < characters for end in ends), 0)
        await unpaced(site.client, contender, load, _FIRST_SECONDS)  # the mock server makes its events once
        figures = await unpaced(site.client, contender, load, min(_LEAST_SECONDS, site.plan.seconds))
        found[str(ends[load.tokens - 1])] = figures["cpu"] * load.tokens / 1e6
    return found


async def resident(site: Site) -> Found:
    """Memory of fresh proxies, by streams: silent ones that have brought one token, and paced ones."""
    plan, found = site.plan, Found()
    upstream, settle = site.upstream.urls[0], min(_SETTLE_SECONDS, plan.seconds)
    for kind in ("idle", "busy"):
        with lineup(plan.remembered, upstream) as contenders:
            for contender in contenders:
                sizes = {"0": contender.idle_bytes}
                for count in plan.memory_streams:
                    site.note(f"{contender.name}, {count} {kind} streams")
                    fault, rate = ("stall", plan.rate) if kind == "idle" else ("", plan.rate_of(count))
                    load = Load(count, 2 if fault else 10_000, rate, fault=fault)
                    sizes[str(count)] = await memory(site.client, contender, load, load.spread + settle)
                found.setdefault(kind, {})[contender.name] = sizes
    await account(site.client, site.upstream)
    fresh = {}
    for bundle in plan.bundles and (NONE, *plan.bundles):
        with started_cotguard(_POLICY, upstream, bundle=bundle) as contender:
            fresh[bundle] = contender.idle_bytes
    return {**found, "fresh": fresh}


async def hold(site: Site) -> Found:
    """Characters and tokens on hold after each token of prose, without a clock; shares of them."""
    found = Found()
    text = script(site.plan.hold_tokens, planted=False).text
    cases = [(name, NONE) for name in site.plan.hold_policies]
    cases += [(_POLICY, bundle) for bundle in site.plan.bundles]
    for name, bundle in cases:
        site.note(f"{name}, {bundle}")
        policy, holds = load_policy(name), Holds()
        measure_hold(text, policy, build(policy, bundle), holds)
        found[name if bundle == NONE else f"{name}, {bundle}"] = {
            "characters": _shares(holds.characters),
            "tokens": _shares(holds.tokens),
        }
    return found


def _shares(counts: Counter[int]) -> Mapping[str, int]:
    return {f"{share * 100:g}": quantile(counts, share) for share in _SHARES}


async def classifier(site: Site) -> Found:
    """The classifier's cost, and its queue at several loads. All loads for the first bundle, the highest for others."""
    plan, found = site.plan, Found()
    for bundle in plan.bundles:
        with started_cotguard(_POLICY, site.upstream.urls[0], bundle=bundle) as contender:
            site.note(f"{bundle}, unpaced")
            fast = await unpaced(site.client, contender, Load(16, _UNPACED_TOKENS, 0), plan.seconds)
            points = {}
            for count in plan.classifier_streams if bundle == plan.bundles[0] else plan.classifier_streams[-1:]:
                site.note(f"{bundle}, {count} streams")
                points[str(count)] = await classifier_point(site, contender, count)
            found[bundle] = {"unpaced": fast, "points": points}
    return found


def schedule(streams: int, turn: int = 0) -> list[float]:
    """When the streams of a classifier's measurement begin: at random, and the same for the simulation."""
    draw = random.Random(f"{streams} {turn}")  # noqa: S311  # a schedule, no secret
    return sorted(draw.uniform(0, _START_WITHIN_SECONDS) for _ in range(streams))


async def classifier_point(site: Site, contender: Contender, streams: int) -> Found:
    """Paced streams through the classifier, in several turns: seconds, and what its queue's histograms grew by.

    How long windows wait depends on which streams happen to fall together: every turn has its own schedule.
    """
    assert contender.server is not None  # noqa: S101  # it is cotguard
    assert contender.admin is not None  # noqa: S101  # same
    load = Load(streams, site.plan.classifier_tokens, site.plan.rate)
    ends, elapsed, failed = script(load.tokens, planted=False).ends, 0.0, 0
    found: list[Delay] = []
    before, cpu_before = await histograms(site.client, contender.admin), contender.server.cpu_seconds
    for turn in range(site.plan.classifier_turns):
        began = time.monotonic()
        seen = await stream_scheduled(site.client, contender.url, load, schedule(streams, turn))
        elapsed += time.monotonic() - began
        failed += sum(not stream.ended for stream in seen)
        for stream, times in zip(seen, await account(site.client, site.upstream), strict=True):
            found += delays(ends, times, stream.arrivals)
    cpu, after = contender.server.cpu_seconds - cpu_before, await histograms(site.client, contender.admin)
    wait, batch, judged = (
        after[f"cotguard_classifier_{name}"] - before[f"cotguard_classifier_{name}"]
        for name in ("wait_seconds", "batch_windows", "batch_seconds")
    )
    seconds, late = [delay.seconds for delay in found], sorted(delay.tokens for delay in found)
    tokens = Percentiles(seconds)
    return {
        "streams": streams,
        "tokens": load.tokens,
        "rate": load.rate,
        "turns": site.plan.classifier_turns,
        "failed": failed,
        "seconds": elapsed,
        "cpu": cpu,
        "windows": batch.total,
        "batches": batch.count,
        "judging": judged.total,
        "wait_mean": wait.mean,
        "wait50": wait.quantile(0.5),
        "wait99": wait.quantile(0.99),
        "delay_mean": statistics.fmean(seconds),
        "delay50": tokens.at(50),
        "delay99": tokens.at(99),
        "late50": late[len(late) // 2],
        "late99": late[len(late) * 99 // 100],
    }


SECTIONS: Mapping[str, Section] = {
    "cost": cost,
    "dialects": dialects,
    "latency": latency,
    "concurrency": concurrency,
    "streams": streams,
    "length": length,
    "memory": resident,
    "hold": hold,
    "classifier": classifier,
}
"""In the order in which they are measured."""
