"""Pinning: whether a tool is still defined as it was when this gateway saw it first.

A server of tools can change what it says of a tool after people have looked at it. So for every caller and tool the
first definition is remembered, as a keyed hash of its canonical JSON; another one is reported, again and again, until
the pin is gone. Of all pins the least recently used are forgotten beyond ``capacity``.

Pins are kept in memory, or in an SQLite file, where they survive a restart and are shared by the workers of a machine.
The file holds its own key; there are no names and no definitions in it. To accept what has changed, restart, or remove
the file.

Known limit: two applications that share a caller's name and have tools of the same name see each other's definitions as
changes.
"""

import hashlib
import hmac
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any

__all__ = ["CAPACITY", "Pins", "PinsError"]

CAPACITY = 100_000
"""Pins kept by default: some 15 MiB."""

_USED_EVERY = 3600
"""Seconds after which the use of a pin is written down again: reading stays reading."""

_SCHEMA = """\
CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 1), key BLOB NOT NULL);
INSERT OR IGNORE INTO secret VALUES (1, randomblob(32));
CREATE TABLE IF NOT EXISTS pins (tool BLOB PRIMARY KEY, definition BLOB NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pins_used ON pins (used);
"""
_FORGET = (
    "DELETE FROM pins WHERE tool IN (SELECT tool FROM pins ORDER BY used LIMIT max(0, (SELECT count(*) FROM pins) - ?))"
)


class PinsError(Exception):
    """The pins cannot be read or written. The message holds no name and no definition."""


class Pins:
    """See the module. ``file``: an SQLite file, made where there is none; empty: memory. Safe to use from threads.

    Reading a file blocks, for less than a millisecond as a rule. Raises :class:`PinsError`, as ``changed`` does.
    """

    def __init__(self, file: str = "", capacity: int = CAPACITY, clock: Callable[[], float] = time.time) -> None:
        self._capacity = capacity
        self._clock = clock
        self._lock = threading.Lock()
        try:
            if file:
                os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
            self._database = sqlite3.connect(file or ":memory:", isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(_SCHEMA)
            self._key: bytes = self._database.execute("SELECT key FROM secret").fetchone()[0]
        except (OSError, sqlite3.Error) as error:
            raise PinsError(f"the pins cannot be kept: {type(error).__name__}") from error

    def changed(self, caller: str, tools: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Names of the tools that ``caller`` used with another definition first; tools that are new are pinned."""
        found: dict[str, None] = {}
        try:
            with self._lock:
                before = self._database.total_changes
                for name, definition in tools:
                    digest = self._hash(definition)
                    if self._pinned(self._hash([caller, name]), digest) != digest:
                        found[name] = None
                if self._database.total_changes != before:
                    self._database.execute(_FORGET, (self._capacity,))
        except sqlite3.Error as error:
            raise PinsError(f"the pins cannot be compared: {type(error).__name__}") from error
        return list(found)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _pinned(self, tool: bytes, digest: bytes) -> bytes:
        """The definition's hash that is pinned, which is ``digest`` if there was none."""
        now = self._clock()
        row = self._row(tool)
        if row is None:
            self._database.execute("INSERT OR IGNORE INTO pins VALUES (?, ?, ?)", (tool, digest, now))
            row = self._row(tool) or (digest, now)
        if row[1] <= now - _USED_EVERY:
            self._database.execute("UPDATE pins SET used = ? WHERE tool = ?", (now, tool))
        return row[0]

    def _row(self, tool: bytes) -> tuple[bytes, float] | None:
        with closing(self._database.execute("SELECT definition, used FROM pins WHERE tool = ?", (tool,))) as rows:
            found: tuple[bytes, float] | None = rows.fetchone()
        return found

    def _hash(self, value: object) -> bytes:
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
        return hmac.digest(self._key, canonical.encode(), hashlib.sha256)
