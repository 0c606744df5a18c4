"""The command ``cotguard scan``.

One file, or standard input, goes to standard output. Folders and several files (*a tree*) go into copies (``--out``),
or are only counted (``--report``); what cannot be read is told, and the others are scanned all the same.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

from cotguard.classifier.bundle import DEFAULT, NONE
from cotguard.moderator import ModerationFault, Moderator
from cotguard.scan.copies import Scanner, counted
from cotguard.scan.texts import Contents, Reading, RecordError
from cotguard.scan.tree import Entry, entries
from cotguard.spans import Action, ChannelKind

__all__ = ["EXAMPLES", "add_arguments"]

_FAULT = 1
_USAGE_ERROR = 2
_FOUND = 1
_FAULTS = frozenset({"unreadable", "failed"})

EXAMPLES = """\
examples:
  echo 'mail ann.lee@example.com' | cotguard scan
  cotguard scan --policy secrets-only --channel reasoning trace.txt
  cotguard scan --jsonl texts.jsonl    # lines {"id", "text"} -> {"id", "redacted", "spans"}
  cotguard scan /var/log/app --glob '*.log' --glob '*.log.gz' --lines --out redacted
  cotguard scan prompts/ --policy secrets-only --report --fail-on-findings    # in CI

Folders are scanned with what is in them; links are not followed, and binary files are skipped. With --out the copy of
logs/a/b.log is OUT/logs/a/b.log. The status is 1 where a file could not be scanned."""


def add_arguments(scan: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    scan.add_argument("--policy", default="balanced", help="ready policy or file (default balanced)")
    kinds = [kind.value for kind in ChannelKind]
    scan.add_argument("--channel", default="output", choices=kinds, help="what the text is (default output)")
    scan.add_argument(
        "--bundle", default=DEFAULT, help=f"classifier: a ready bundle, a directory, or {NONE} (default {DEFAULT})"
    )
    contents = scan.add_mutually_exclusive_group()
    contents.add_argument(
        "--jsonl",
        dest="contents",
        action="store_const",
        const=Contents.RECORDS,
        default=Contents.TEXT,
        help="one JSON object a line, in and out",
    )
    contents.add_argument(
        "--lines", dest="contents", action="store_const", const=Contents.LINES, help="every line is a text of its own"
    )
    scan.add_argument("--out", type=Path, help="folder for redacted copies", metavar="DIR")
    scan.add_argument("--report", action="store_true", help="a JSON line for each file: findings by entity and action")
    scan.add_argument("--fail-on-findings", action="store_true", help="status 1 if the policy rewrites anything")
    scan.add_argument(
        "--glob", action="append", default=[], help="of files in folders only these; may be given again", metavar="GLOB"
    )
    scan.add_argument("paths", nargs="*", default=["-"], help="files and folders, or - for standard input")
    scan.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    paths = [Path(path) for path in arguments.paths]
    if arguments.out is None and not arguments.report:
        if len(paths) == 1 and not paths[0].is_dir():
            return _scan_one(arguments)
        return _wrong("folders and several files: write --out DIR for redacted copies, or --report")
    if "-" in arguments.paths:
        return _wrong("standard input goes to standard output: leave out --out and --report")
    if arguments.out is not None and (problem := _problem(arguments.out, paths)):
        return _wrong(problem)
    return _scan_tree(arguments, paths)


def _wrong(problem: str) -> int:
    print(problem, file=sys.stderr)  # noqa: T201
    return _USAGE_ERROR


def _problem(out: Path, paths: list[Path]) -> str:
    """Why copies of ``paths`` cannot go to ``out``; empty where they can."""
    places = Counter(out.resolve() / path.resolve().name for path in paths)
    for path in paths:
        place = out.resolve() / path.resolve().name
        if places[place] > 1:
            return f"{path}: two of the paths have this name, and so would their copies; scan them one after the other"
        if place == path.resolve():
            return f"{path}: its copy would replace it; choose another --out"
    return ""


def _scan_one(arguments: argparse.Namespace) -> int:
    """One file, or standard input, to standard output."""
    moderator = Moderator(arguments.policy, bundle=arguments.bundle)
    name, contents = arguments.paths[0], arguments.contents
    try:
        source: IO[str] = sys.stdin if name == "-" else Path(name).open(encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        return _wrong(f"{name}: {error.strerror}")
    reading = Reading(moderator, ChannelKind(arguments.channel), contents, _to_stdout)
    with moderator, source:
        try:
            reading.read(source)
        except RecordError as error:
            return _wrong(str(error))
        except (ModerationFault, UnicodeDecodeError) as error:
            problem = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
            print(problem if contents is not Contents.TEXT else f"scan stopped: {problem}", file=sys.stderr)  # noqa: T201
            return _FAULT
    found = any(Action(action).rewrites for actions in counted(reading.verdicts).values() for action in actions)
    return _FOUND if arguments.fail_on_findings and found else 0


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _scan_tree(arguments: argparse.Namespace, paths: list[Path]) -> int:
    def walked() -> Iterator[Entry]:
        return entries(paths, arguments.glob, None if arguments.out is None else arguments.out.resolve())

    totals: Counter[str] = Counter()
    findings = characters = 0
    with Moderator(arguments.policy, bundle=arguments.bundle) as moderator, _progress(walked) as advance:
        scanner = Scanner(moderator, ChannelKind(arguments.channel), arguments.contents, arguments.out, advance)
        for entry in walked():
            outcome = scanner.scan(entry)
            totals[outcome.status] += 1
            findings += outcome.rewritten
            characters += outcome.characters
            if arguments.report:
                print(json.dumps(asdict(outcome) | {"path": str(outcome.path)}), flush=True)  # noqa: T201
            if outcome.status in _FAULTS:
                print(f"{outcome.path}: {outcome.reason}", file=sys.stderr)  # noqa: T201
    told = ", ".join(f"{count} {status}" for status, count in sorted(totals.items())) or "no files"
    print(f"{told}; {characters} characters, {findings} values that the policy rewrites", file=sys.stderr)  # noqa: T201
    if not _FAULTS.isdisjoint(totals):
        return _FAULT
    return _FOUND if arguments.fail_on_findings and findings else 0


@contextmanager
def _progress(walked: Callable[[], Iterator[Entry]]) -> Iterator[Callable[[int], object]]:
    """Show progress on a terminal; yields what is told of bytes that were read."""
    if not sys.stderr.isatty():
        yield lambda _bytes: None
        return
    from rich.console import Console  # only where somebody looks
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("scanning"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("", total=sum(entry.bytes for entry in walked()))
        yield lambda read: progress.advance(task, read)
