"""The results as a table on the terminal, as Markdown and as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import orjson

from chaos.exchange import End
from chaos.stage import MEMORY_BYTES, MEMORY_SHARE, Result
from loadtest.tables import cells

__all__ = ["FOLDER", "HEADINGS", "row", "write"]

FOLDER: Final = Path(__file__).with_name("report")

HEADINGS: Final = (
    "scenario",
    "exchanges",
    "ended",
    "stuck",
    "leaked characters",
    "altered",
    "records",
    "lost",
    "trail",
    "MiB",
    "descriptors",
    "verdict",
)

_ABOUT = f"""\
Every exchange is checked to its last byte: what a client got must be the beginning of what the policy makes of the
whole text (all of it if the exchange is complete), and no fragment of four characters of a secret may be in it. Leaked
are characters of secrets, altered are texts that are not such a beginning.

How exchanges ended: `complete`; `error`: the stream ended in its dialect's error shape; `refused`: a status of 400 or
more in that shape; `closed`: the connection was closed; `left`: the client went, as it was told to; `stuck`: nothing of
that within a minute; `undefined`: the body ended, neither whole nor as an error. Which of them are in order differs:
whoever is connected to a worker that is killed can only see his connection closed.

`lost`: records that are missing in the audit trail, given what clients saw: of exchanges that were complete, of values
whose replacement was delivered. `trail`: what `cotguard audit verify` says. Memory (resident, all processes of the
gateway) and open descriptors are told before and after; memory may be {MEMORY_SHARE:g} times what it was, and
{MEMORY_BYTES >> 20} MiB.
"""


def row(result: Result) -> Sequence[str]:
    """The cells of one scenario."""
    if result.skipped:
        return (result.name, *("" for _ in HEADINGS[2:]), "not run")
    before, after = result.before, result.after
    return (
        result.name,
        f"{result.exchanges:,}",
        ", ".join(f"{count:,} {end}" for end, count in sorted(result.ends.items()) if end is not End.STUCK),
        f"{result.ends[End.STUCK]:,}",
        f"{result.leaked:,}",
        f"{result.altered:,}",
        f"{result.records:,}",
        f"{result.lost:,}",
        "ok" if result.verifies else "broken",
        f"{before.memory >> 20} → {after.memory >> 20}",
        f"{before.descriptors} → {after.descriptors}",
        "failed" if result.problems else "ok",
    )


def write(folder: Path, title: str, results: Sequence[Result]) -> None:
    """Write ``README.md`` and ``results.json``. ``title`` says when and on what."""
    folder.mkdir(exist_ok=True)
    total = sum(result.exchanges for result in results)
    parts = [
        f"# When things break\n\n{title}\n\n{total:,} exchanges. Made by `python -m chaos`.\n",
        _ABOUT,
        cells(HEADINGS, map(row, results), right=True),
        "".join(_details(result) for result in results),
    ]
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")
    (folder / "results.json").write_bytes(
        orjson.dumps({"about": title, "scenarios": [_told(result) for result in results]}, option=orjson.OPT_INDENT_2)
    )


def _details(result: Result) -> str:
    figures = ", ".join(f"{what} {value:,.10g}" for what, value in result.figures.items())
    told = [figures] if figures else []
    told += [f"**{problem}**" for problem in result.problems]
    told += [result.skipped] if result.skipped else []
    return f"- {result.name} ({result.seconds:.0f} s): {'; '.join(told) or 'nothing more to tell'}\n"


def _told(result: Result) -> Mapping[str, object]:
    return {
        "scenario": result.name,
        "ends": {end.value: count for end, count in result.ends.items()},
        "leaked": result.leaked,
        "altered": result.altered,
        "quoted": result.quoted,
        "faults": result.faults,
        "records": result.records,
        "lost": result.lost,
        "verifies": result.verifies,
        "active": result.active,
        "before": result.before._asdict(),
        "after": result.after._asdict(),
        "seconds": round(result.seconds, 1),
        "figures": result.figures,
        "problems": result.problems,
        "skipped": result.skipped,
    }
