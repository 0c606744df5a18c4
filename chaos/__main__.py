"""All scenarios: ``python -m chaos [--quick] [SCENARIO ...]``. Ends with 1 if one is not in order."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from chaos.gateway import open_many_files
from chaos.report import FOLDER, HEADINGS, row, write
from chaos.scenarios import SCENARIOS, Scenario, play
from chaos.stage import Result, Scale
from loadtest.machine import describe

__all__ = ["main"]

_FULL: Final = Scale()
_QUICK: Final = Scale(exchanges=24, idle=200, slow=20, seconds=4, width=8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the scenarios, print the table and write the report."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--quick", action="store_true", help="some of everything, in about two minutes; no report")
    parser.add_argument("--exchanges", type=int, help="of scenarios that count them", metavar="N")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of: {', '.join(SCENARIOS)} (default: all)")
    given = parser.parse_args(arguments)
    if unknown := set(given.scenarios) - SCENARIOS.keys():
        parser.error(f"there is no scenario {min(unknown)!r}; write one of: {', '.join(SCENARIOS)}")
    scale = _QUICK if given.quick else _FULL
    if given.exchanges:
        scale = replace(scale, exchanges=given.exchanges)
    open_many_files()
    title, console = describe(), Console()
    results = _play_all({name: SCENARIOS[name] for name in given.scenarios or SCENARIOS}, scale)
    table = Table(*HEADINGS)
    for result in results:
        table.add_row(*row(result))
    console.print(table)
    for result in results:
        for problem in result.problems:
            console.print(f"{result.name}: {problem}")
    if not (given.quick or given.scenarios):
        write(FOLDER, title, results)
        console.print(f"Kept in {FOLDER}")
    return int(any(result.problems for result in results))


def _play_all(scenarios: dict[str, Scenario], scale: Scale) -> list[Result]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    results = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name, scenario in scenarios.items():
            task = progress.add_task(name, total=scale.exchanges if scenario.counted else None)
            results.append(play(name, scenario, scale, partial(progress.advance, task)))
            progress.update(task, total=results[-1].exchanges, completed=results[-1].exchanges)
    return results


if __name__ == "__main__":
    sys.exit(main())
