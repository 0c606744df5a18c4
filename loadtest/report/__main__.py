"""Measure and write the report: ``python -m loadtest.report``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from cotguard.gateway.serve import open_many_files
from loadtest.report.page import write
from loadtest.report.plan import FULL, QUICK
from loadtest.report.results import measure, read
from loadtest.report.sections import SECTIONS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for and write figures, plots and page."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.report", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it works: its figures mean nothing")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=SECTIONS,
        help="measure these sections anew and keep the others' figures; none: write the page again",
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="(default %(default)s)")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    results = {} if options.only is None else read(options.folder)
    names = SECTIONS if options.only is None else options.only
    if names:
        open_many_files()  # of this process and of those it starts
        results = uvloop.run(measure(QUICK if options.quick else FULL, names, options.folder, results))
    page = write(results, options.folder)
    sys.stdout.write(f"{page}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
