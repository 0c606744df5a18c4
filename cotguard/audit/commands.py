"""``cotguard audit``: verify a trail, search it, tell its head."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from cotguard.audit.directory import TrailFile, last_head, trail_files
from cotguard.audit.index import COUNTED, INDEX_NAME, AuditIndex, Filters
from cotguard.audit.key import TrailError, read_key
from cotguard.audit.records import timestamp
from cotguard.audit.verify import Anchor, Broken, Verification

__all__ = ["add_audit"]

_USAGE_ERROR = 2
_ANCHOR = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")
_AGO = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_OPTIONS = {
    "type": "exchange, decision, event or segment",
    "request_id": "as the response's x-cotguard-request-id",
    "caller": "who asked",
    "route": "where",
    "model": "which model was asked",
    "entity": "what was found",
    "action": "what the policy says",
    "outcome": "what happened",
    "value": "the hash of a value, as records tell it: all its recurrences",
}

_EXAMPLES = """\
examples:
  cotguard audit verify /var/lib/cotguard/audit
  cotguard audit head /var/lib/cotguard/audit          # SEQ:HASH, to be kept elsewhere
  cotguard audit verify /var/lib/cotguard/audit --head SEQ:HASH
  cotguard audit query /var/lib/cotguard/audit --since 2h --entity EMAIL_ADDRESS
  cotguard audit query /var/lib/cotguard/audit --since 7d --type decision --count-by caller

The directory may be left out where COTGUARD_AUDIT_DIR is set. Records are signed with COTGUARD_AUDIT_KEY, or with the
key in the directory where that is not set."""


def add_audit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    audit = commands.add_parser(
        "audit", help="verify and search the audit trail", epilog=_EXAMPLES, formatter_class=raw
    )
    tasks = audit.add_subparsers(required=True, metavar="TASK")
    default = os.environ.get("COTGUARD_AUDIT_DIR")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "directory",
        nargs="?" if default else None,
        default=default,
        type=Path,
        help="the trail (default $COTGUARD_AUDIT_DIR)",
        metavar="DIR",
    )

    verify = tasks.add_parser("verify", parents=[place], help="whether the trail is whole: 0 if so, 1 if not")
    verify.add_argument(
        "--head", action="append", default=[], type=_anchor, help="a record that must be in it", metavar="SEQ:HASH"
    )
    verify.add_argument(
        "--from", dest="start", type=_anchor, help="the last record before it, where it was moved", metavar="SEQ:HASH"
    )
    verify.set_defaults(run=_told(_verify))

    tasks.add_parser("head", parents=[place], help="the last record, as SEQ:HASH").set_defaults(run=_told(_head))

    query = tasks.add_parser("query", parents=[place], help="search records, the latest first")
    query.add_argument("--since", type=_time, help="from this time on: 2026-01-31T08:00Z, or 2h ago", metavar="TIME")
    query.add_argument("--until", type=_time, help="before this time", metavar="TIME")
    for name, told in _OPTIONS.items():
        option = "--request" if name == "request_id" else f"--{name}"
        query.add_argument(option, dest=name, help=told, metavar=name.upper())
    query.add_argument("--limit", type=_positive, default=100, help="at most so many (default 100)", metavar="N")
    shown = query.add_mutually_exclusive_group()
    shown.add_argument("--jsonl", action="store_true", help="lines as they stand in the trail")
    shown.add_argument("--count-by", choices=COUNTED, help="count records instead of showing them", metavar="FIELD")
    query.add_argument("--index", type=Path, help=f"the index (default {INDEX_NAME} in the directory)", metavar="FILE")
    query.set_defaults(run=_told(_query))


def _told(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """``run``, with what cannot be opened told as wrong usage."""

    def told(arguments: argparse.Namespace) -> int:
        try:
            return run(arguments)
        except TrailError as error:
            problem = str(error)
        except OSError as error:
            problem = f"{error.filename}: {error.strerror}"
        print(problem, file=sys.stderr)  # noqa: T201
        return _USAGE_ERROR

    return told


def _verify(arguments: argparse.Namespace) -> int:
    path: Path = arguments.directory
    configured = os.environ.get("COTGUARD_AUDIT_KEY", "")
    key = read_key(path if path.is_dir() else None, configured)
    files = trail_files(path) if path.is_dir() else []
    size = sum(file.size for file in files)
    try:
        with _progress("verifying", size) as advance:
            verification = Verification(key, arguments.head, arguments.start, advance)
            if path.is_dir():
                verification.directory(path, files)
            elif str(path) == "-":
                verification.lines("standard input", sys.stdin.buffer)
            else:
                with path.open("rb") as lines:
                    verification.lines(str(path), lines)
    except Broken as broken:
        print(broken, file=sys.stderr)  # noqa: T201
        return 1
    for line in _account(path, files, verification):
        print(line)  # noqa: T201
    return 0


def _account(path: Path, files: list[TrailFile], verification: Verification) -> Iterator[str]:
    """What a trail that verifies holds."""
    types = ", ".join(f"{count} {name}" for name, count in sorted(verification.types.items()))
    first, last = verification.first, verification.last
    times = f", {first.time} to {last.time}" if first is not None and last is not None else ""
    within = f" in {len(files)} files" if files else ""
    yield f"{path}: ok, {verification.types.total()} records{within} ({types}){times}"
    for head in verification.chains.values():
        yield f"chain {head.chain} head {head}"
    if verification.torn:
        yield f"after it {verification.torn} bytes of a writer that died; the next one will cut them off"


def _head(arguments: argparse.Namespace) -> int:
    head = last_head(arguments.directory)
    if head is None:
        raise TrailError(f"{arguments.directory}: there is no record here")
    print(head)  # noqa: T201
    return 0


def _query(arguments: argparse.Namespace) -> int:
    filters = Filters(**{field.name: getattr(arguments, field.name) for field in fields(Filters)})
    with AuditIndex(arguments.directory, arguments.index) as index:
        with _progress("reading", sum(file.size for file in trail_files(arguments.directory))) as advance:
            index.update(advance)
        if index.skipped:
            print(f"{index.skipped} lines are no records; see `cotguard audit verify`", file=sys.stderr)  # noqa: T201
        if arguments.count_by:
            for value, count in index.count(filters, arguments.count_by, arguments.limit):
                print(f"{count:>10} {value}")  # noqa: T201
        elif arguments.jsonl:
            for line in index.lines(filters, arguments.limit):
                sys.stdout.write(line)
        else:
            for record in index.search(filters, arguments.limit):
                print(_shown(record))  # noqa: T201
    return 0


def _shown(record: dict[str, object]) -> str:
    """One line about a record: its time and type, and what fields it has; empty ones are left out."""
    rest = {name: value for name, value in record.items() if name not in _UNSHOWN and value not in ("", None)}
    told = (f"{name}={_quoted(value)}" for name, value in rest.items())
    return " ".join([f"{record['time']} {record['type']} seq={record['seq']}", *told])


_UNSHOWN = frozenset({"v", "chain", "seq", "time", "type", "mac", "prev"})
_BARE = re.compile(r"[\w.:/{}*@+-]+")


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if _BARE.fullmatch(text) else orjson.dumps(text).decode()


@contextmanager
def _progress(what: str, size: int) -> Iterator[Callable[[int], object]]:
    """Show progress on a terminal; what it gives is called with bytes that were read."""
    from rich.console import Console  # the other commands need not wait for it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=size or None)
        yield lambda count: progress.advance(task, count)


def _anchor(text: str) -> Anchor:
    found = _ANCHOR.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError("write it as `cotguard audit head` prints it, SEQ:HASH")
    return Anchor(int(found[1]), found[2])


def _time(text: str) -> str:
    if found := _AGO.fullmatch(text):
        return timestamp((datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})).timestamp())
    try:
        told = datetime.fromisoformat(text)
        return timestamp((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            "write a time such as 2026-01-31T08:00Z (UTC if it says none), or 2h"
        ) from None


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("write a number above 0")
    return int(text)
