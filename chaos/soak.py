"""A steady load for a long time: ``python -m chaos.soak [--minutes 30]``. Ends with 1 if something grows.

1. Streams of every dialect follow one another, so many at the same time, at so many writes a second each; every byte of
   them is checked, the audit trail is kept, and once a minute the configuration is another one.
2. Every ten seconds memory, descriptors, threads and tasks of the gateway are noted, and how much went through.
3. None of them may grow: the straight line through the samples after the warm-up may not rise by more than the
   tolerance (:data:`TOLERANCES`).
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Final, NamedTuple

import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from chaos.exchange import End
from chaos.expected import FIRST, SECOND, policy_file
from chaos.gateway import open_many_files
from chaos.growth import WARM_SHARE, Growth, growth
from chaos.report import FOLDER
from chaos.stage import Result, Run, Scale, Stage, background
from loadtest.machine import describe
from loadtest.tables import cells

__all__ = ["TOLERANCES", "Sample", "main", "soak"]

_SAMPLE_SECONDS = 10.0
_RELOAD_SECONDS = 60.0
_SCRIPTS = 250
"""Scripts, again and again: what the upstream and the client keep of them must not grow either."""


class Tolerance(NamedTuple):
    """What a line may rise by over the whole run: a share of the mean, and some."""

    share: float
    slack: float


TOLERANCES: Final[Mapping[str, Tolerance]] = {
    "memory": Tolerance(0.03, 0),
    "descriptors": Tolerance(0.03, 0),
    "threads": Tolerance(0, 0.5),
    "tasks": Tolerance(0.03, 0),
}
"""By the figures of :class:`Sample`."""


@dataclass(frozen=True)
class Sample:
    """Seconds since the begin; bytes of memory, open descriptors and threads of all processes of the gateway; tasks of
    its event loops; and exchanges and characters that were whole in the seconds before.
    """  # noqa: D205  # one list

    seconds: float
    memory: int
    descriptors: int
    threads: int
    tasks: float
    exchanges: int
    characters: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the verdict and write the report."""
    parser = argparse.ArgumentParser(prog="python -m chaos.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="how long (default %(default)g)")
    parser.add_argument("--streams", type=int, default=50, help="at the same time (default %(default)s)")
    parser.add_argument("--rate", type=float, default=20, help="writes a second of each (default %(default)g)")
    given = parser.parse_args(arguments)
    if given.minutes * 60 < 4 * _SAMPLE_SECONDS:
        parser.error(f"--minutes: write at least {4 * _SAMPLE_SECONDS / 60:.2g}: a sample is taken every ten seconds")
    open_many_files()
    about = f"{given.streams} streams, {given.rate:g} writes/s each, {given.minutes:g} minutes; {describe()}"
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch, _progress() as progress:
        task = progress.add_task("soaking", total=given.minutes * 60)
        run = Run("soak", Scale(width=given.streams), lambda _: None, Path(scratch))
        samples: list[Sample] = []
        uvloop.run(soak(run, samples, given.minutes * 60, given.rate, lambda: progress.advance(task, _SAMPLE_SECONDS)))
    run.result.judge(frozenset({End.COMPLETE}))
    report = _judged(about, run.result, samples)
    _write(FOLDER, about, report, run.result, samples)
    sys.stdout.write(f"{report}\nKept in {FOLDER}\n")
    return int(bool(run.result.problems))


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))


async def soak(run: Run, samples: list[Sample], seconds: float, rate: float, advance: Callable[[], None]) -> None:
    """Load the gateway for so many seconds; ``advance`` is called after every sample."""
    async with run.stage(policies=(FIRST, SECOND)) as stage:
        await stage.adopt(SECOND, FIRST)
        stage.numbers = cycle(range(_SCRIPTS))
        began = time.monotonic()
        async with stage.load(rate), background(_reload_again_and_again(stage)):
            seen = 0
            for number in range(1, int(seconds / _SAMPLE_SECONDS) + 1):
                await asyncio.sleep(began + number * _SAMPLE_SECONDS - time.monotonic())
                samples.append(await _sampled(stage, time.monotonic() - began, seen))
                seen = len(stage.seen)
                advance()


async def _reload_again_and_again(stage: Stage) -> None:
    for name in cycle((SECOND, FIRST)):
        await asyncio.sleep(_RELOAD_SECONDS)
        stage.gateway.configure(policy=policy_file(name))


async def _sampled(stage: Stage, seconds: float, before: int) -> Sample:
    footprint, whole = stage.gateway.footprint, stage.seen[before:]
    return Sample(
        round(seconds, 1),
        *footprint,
        sum(process.num_threads() for process in stage.gateway.processes),
        await stage.gateway.metric("cotguard_event_loop_tasks"),
        len(whole),
        sum(len(each.text) for each in whole),
    )


def _judged(about: str, result: Result, samples: Sequence[Sample]) -> str:
    """The report; what grows is noted among the result's problems."""
    times = [sample.seconds for sample in samples]
    rows = []
    for name, tolerance in TOLERANCES.items():
        values = [float(getattr(sample, name)) for sample in samples]
        found = growth(times, values)
        grows = not found.within(*tolerance)
        if grows:
            result.problems.append(f"{name} grow by {found.rise:g}")
        rows.append(_row(name, values, found, tolerance, grows=grows))
    through = growth(times, [float(sample.characters) for sample in samples])
    heads = ("figure", "first", "mean after the warm-up", "last", "rise of the line", "may be", "verdict")
    verdict = "; ".join(result.problems) or "nothing grows, nothing is lost, nothing leaks"
    return (
        f"# Soak\n\n{about}\n\n**{verdict}**\n\n{cells(heads, rows, right=True)}\n"
        f"{result.exchanges:,} exchanges, all complete: {result.ends[End.COMPLETE] == result.exchanges}. Leaked "
        f"characters: {result.leaked}, altered texts: {result.altered}, audit records: {result.records:,}, lost: "
        f"{result.lost}, trail verifies: {result.verifies}. Characters whole every ten seconds: {through.mean:,.0f} on "
        f"average, {through.rise:+,.0f} over the run. The warm-up is the first {WARM_SHARE:.0%}. Memory in MiB is of "
        f"all processes.\n\n"
        f"Before the load {result.before.memory >> 20} MiB and {result.before.descriptors} descriptors, after it "
        f"{result.after.memory >> 20} MiB and {result.after.descriptors}.\n"
    )


def _row(name: str, values: Sequence[float], found: Growth, tolerance: Tolerance, *, grows: bool) -> Sequence[str]:
    unit = 2**20 if name == "memory" else 1
    most = found.mean * tolerance.share + tolerance.slack
    figures = (values[0], found.mean, values[-1], found.rise, most)
    return (name, *(f"{figure / unit:,.1f}" for figure in figures), "grows" if grows else "ok")


def _write(folder: Path, about: str, report: str, result: Result, samples: Sequence[Sample]) -> None:
    folder.mkdir(exist_ok=True)
    if find_spec("matplotlib") is not None:
        from chaos.plot import plot  # an extra, which the soak does not need

        plot(folder / "soak.png", samples)
        report += "\n![Memory, descriptors, tasks and throughput over time](soak.png)\n"
    (folder / "soak.md").write_text(report, encoding="utf-8")
    told = {"about": about, "problems": result.problems, "samples": [asdict(sample) for sample in samples]}
    (folder / "soak.json").write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    sys.exit(main())
