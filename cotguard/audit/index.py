"""Searching a trail: an SQLite file beside it, which is brought up to date before every search.

The index holds the lines themselves; what is searched for are columns that SQLite derives from them. It goes on where
it stopped in each file, takes settled records only, and forgets files that are no longer in the trail. It may be
removed at any time. It verifies nothing: that is what ``cotguard audit verify`` is for.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson

from cotguard.audit.chain import parse
from cotguard.audit.directory import TrailFile, trail_files
from cotguard.audit.key import TrailError

__all__ = ["COUNTED", "INDEX_NAME", "AuditIndex", "Filters"]

INDEX_NAME = "index.sqlite"
_VERSION = 1
_WAIT_SECONDS = 30.0
_MAX_LINE = 65_536
_ROWS = 1000
_MATCHED = ("type", "request_id", "caller", "route", "model", "entity", "action", "outcome", "value")
_INDEXED = ("time", "request_id", "value", "caller", "entity")
COUNTED = (*_MATCHED, "role", "dialect", "policy", "policy_digest", "upstream", "direction", "channel", "detector")
"""What records can be counted by."""

_COLUMNS = ", ".join(
    f"{name} TEXT GENERATED ALWAYS AS (json_extract(line, '$.{name}')) VIRTUAL" for name in ("time", *COUNTED)
)
_Row = tuple[str, int, int, str]
_SCHEMA = (
    "CREATE TABLE files (name TEXT PRIMARY KEY, inode INTEGER NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE records (file TEXT NOT NULL, position INTEGER NOT NULL, seq INTEGER NOT NULL, line TEXT NOT NULL, "
    f"{_COLUMNS}, PRIMARY KEY (file, position))",
    "CREATE INDEX records_seq ON records (seq)",
    *(f"CREATE INDEX records_{each} ON records ({each}, seq) WHERE {each} IS NOT NULL" for each in _INDEXED),
    f"PRAGMA user_version = {_VERSION}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is searched for: records that have all of these. ``since`` and ``until`` are times as records tell them."""

    since: str | None = None
    until: str | None = None
    type: str | None = None
    request_id: str | None = None
    caller: str | None = None
    route: str | None = None
    model: str | None = None
    entity: str | None = None
    action: str | None = None
    outcome: str | None = None
    value: str | None = None


class AuditIndex:
    """The index of the trail in ``directory``, in ``file`` or beside the trail. For one thread.

    Raises :class:`~cotguard.audit.key.TrailError`, here and from all methods.
    """

    def __init__(self, directory: Path, file: Path | None = None) -> None:
        self._directory = directory
        self._file = file or directory / INDEX_NAME
        self.skipped = 0
        """Lines that the last update could not read as records: the trail was changed."""
        try:
            with suppress(FileExistsError):
                os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            self._database = sqlite3.connect(self._file, timeout=_WAIT_SECONDS, isolation_level=None)
            with self._writing():
                version = self._database.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    for statement in _SCHEMA:
                        self._database.execute(statement)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None
        if version not in (0, _VERSION):
            self.close()
            raise TrailError(f"{self._file}: this is no index of this release; remove it, or name another with --index")

    def update(self, advance: Callable[[int], object] = lambda _: None) -> None:
        """Take in what the trail has got since the last update; ``advance`` is told of bytes read."""
        self.skipped = 0
        try:
            files = trail_files(self._directory)
            with self._writing():
                known = {name for (name,) in self._database.execute("SELECT name FROM files")}
                for name in known - {file.path.name for file in files}:
                    self._forget(name)
            for file in files:
                with suppress(FileNotFoundError):  # removed meanwhile: the next update forgets it
                    self._take(file, advance)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None

    def search(self, filters: Filters, limit: int) -> list[dict[str, Any]]:
        """The last ``limit`` records that match, the latest first."""
        return [orjson.loads(line) for line in self.lines(filters, limit)]

    def lines(self, filters: Filters, limit: int) -> list[str]:
        """The same, as they stand in the trail."""
        where, values = _condition(filters)
        return self._latest(where, values, limit)

    def exchanges(self, filters: Filters, entity: str, before: int, limit: int) -> list[dict[str, Any]]:
        """Like ``search``, of exchanges in which something of ``entity`` was found, if it is given.

        ``before``: the number of the record that they come before; 0 for all.
        """
        where, given = _condition(filters)
        values: list[str | int] = [*given]
        if entity:
            where += " AND request_id IN (SELECT request_id FROM records WHERE entity = ?)"
            values.append(entity)
        if before:
            where += " AND seq < ?"
            values.append(before)
        return [orjson.loads(line) for line in self._latest(where, values, limit)]

    def recurrences(self, value: str) -> tuple[int, int]:
        """In how many decisions, and in how many exchanges, the value with this hash was found."""
        found = self._read("SELECT count(*), count(DISTINCT request_id) FROM records WHERE value = ?", (value,))[0]
        return found[0], found[1]

    def count(self, filters: Filters, by: str, limit: int) -> list[tuple[str, int]]:
        """How many records that match have each value of ``by``, one of :data:`COUNTED`; the most frequent first."""
        if by not in COUNTED:
            raise TrailError(f"{by}: records are not counted by it; write one of {', '.join(COUNTED)}")
        where, values = _condition(filters)
        query = (
            f"SELECT {by}, count(*) AS times FROM records WHERE {where} AND {by} != '' "  # noqa: S608  # names of ours
            f"GROUP BY {by} ORDER BY times DESC, {by} LIMIT ?"
        )
        return self._read(query, (*values, limit))

    def close(self) -> None:
        """Close the index."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _latest(self, where: str, values: Sequence[str | int], limit: int) -> list[str]:
        query = f"SELECT line FROM records WHERE {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608  # names of ours
        return [line for (line,) in self._read(query, (*values, limit))]

    def _read(self, query: str, values: tuple[object, ...]) -> list[Any]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _take(self, file: TrailFile, advance: Callable[[int], object]) -> None:
        name = file.path.name
        with file.path.open("rb") as lines, self._writing():
            inode = os.fstat(lines.fileno()).st_ino
            row = self._database.execute("SELECT inode, size FROM files WHERE name = ?", (name,)).fetchone()
            done = row[1] if row is not None and row[0] == inode and row[1] <= file.size else 0
            if row is not None and not done:
                self._forget(name)
            position = lines.seek(done)
            while rows := self._rows(name, lines, position, file.size):
                self._database.executemany("INSERT INTO records (file, position, seq, line) VALUES (?, ?, ?, ?)", rows)
                advance(lines.tell() - position)
                position = lines.tell()
            self._database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (name, inode, position))

    def _rows(self, name: str, lines: BinaryIO, position: int, size: int) -> list[_Row]:
        """Some of the records from ``position`` on; ``lines`` then stands after them."""
        rows: list[_Row] = []
        while len(rows) < _ROWS and position < size:
            line = lines.readline(min(_MAX_LINE, size - position))
            seq = _seq(line)
            if seq:
                rows.append((name, position, seq, line.decode()))
            else:
                self.skipped += 1
            position += len(line)
        return rows

    def _forget(self, name: str) -> None:
        self._database.execute("DELETE FROM records WHERE file = ?", (name,))
        self._database.execute("DELETE FROM files WHERE name = ?", (name,))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:
            yield

    def _unusable(self, error: Exception) -> TrailError:
        return TrailError(f"{self._file}: {error}; name another file with --index, or remove this one if it is damaged")


def _seq(line: bytes) -> int:
    """The number of the record that ``line`` is; 0 if it is none."""
    record = parse(line)
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return 0
    return 0 if record is None else record.head.seq


def _condition(filters: Filters) -> tuple[str, list[str]]:
    """The filters as SQL, and the values in it."""
    bounds = [("time >= ?", filters.since), ("time < ?", filters.until)]
    asked = [*bounds, *((f"{name} = ?", getattr(filters, name)) for name in _MATCHED)]
    given = [(term, value) for term, value in asked if value is not None]
    return " AND ".join(term for term, _ in given) or "1", [value for _, value in given]
