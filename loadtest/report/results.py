"""The figures between measuring and reporting: one JSON file, to which a section can be measured anew alone."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.contenders import lineup
from loadtest.load import session
from loadtest.machine import describe
from loadtest.report.plan import Plan
from loadtest.report.sections import SECTIONS, Site
from loadtest.serving import started

__all__ = ["REMOTE", "RESULTS", "Results", "measure", "read", "remote"]

Results = dict[str, Any]
"""By section, what it found; ``machine``: by section, where; ``plan``: how much."""

RESULTS = "results.json"
REMOTE = "remote.json"
"""``added50_ms``, ``throughput_ratio`` (to the engine's own client), ``baseline``, and a ``reason`` where missed."""


def read(folder: Path) -> Results:
    """What was measured so far; empty if nothing was."""
    return _document(folder / RESULTS)


def remote(folder: Path) -> Results:
    """What another command found of a remote classifier, as the section of that name; empty without its file."""
    found = _document(folder / REMOTE)
    return {"remote": found} if found else {}


def _document(file: Path) -> Results:
    return orjson.loads(file.read_bytes()) if file.exists() else {}


async def measure(plan: Plan, names: Iterable[str], folder: Path, results: Results) -> Results:
    """Measure sections by name, on top of ``results``; kept in ``folder`` after each."""
    chosen = [name for name in SECTIONS if name in names]
    results = {"machine": {}, **results, "plan": asdict(plan)}
    with (
        _progress(len(chosen)) as note,
        started("loadtest.upstream") as upstream,
        lineup(plan.compared, upstream.urls[0]) as contenders,
    ):
        for name in chosen:
            machine = describe()
            async with session() as client:
                site = Site(plan, client, upstream, contenders, partial(_note, note, name))
                found = await SECTIONS[name](site)
            if found:
                results[name], results["machine"][name] = found, machine
            note("")
            document = orjson.dumps(results, option=orjson.OPT_INDENT_2)
            (folder / RESULTS).write_bytes(document + b"\n")
    return results


def _note(note: Callable[[str], None], section: str, said: str) -> None:
    note(f"{section}: {said}")


@contextmanager
def _progress(sections: int) -> Iterator[Callable[[str], None]]:
    """A bar of sections on a terminal, lines elsewhere. Nothing to say ends a section."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sections)

        def note(said: str) -> None:
            if not said:
                bar.advance(task)
            elif console.is_terminal:
                bar.update(task, description=said)
            else:
                console.print(said, highlight=False)

        yield note
