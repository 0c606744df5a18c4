"""The gateway's own API keys, in an SQLite file.

A key is ``cg_<id>_<secret>``: an identifier of 64 random bits and a secret of 256. The file holds the SHA-256 of the
whole key. A slow or salted hash would add nothing: it makes guesses of what people choose expensive, and nobody guesses
256 random bits, at any speed. Keys are looked up by their identifier and their hashes compared in constant time.

Every request looks its key up in the file (tens of microseconds), so a key that is revoked in one process is refused
by all others from that moment on. In write-ahead mode readers and the one writer do not wait for one another. The file
must be on a local disk, and belongs to who runs the gateway (mode 0600).

In a folder that cannot be written, such as a mounted Secret, the file is read as it lies there, and anew when another
one has taken its place.
"""

import hmac
import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

from cotguard.callers.denied import Denied, Reason
from cotguard.callers.document import KeyScope

__all__ = ["Key", "KeyStore", "KeyStoreError", "is_key"]

_KEY = re.compile(r"cg_([0-9a-f]{16})_[A-Za-z0-9_-]{43}", re.ASCII)
_NOBODY = bytes(32)
_VERSION = 1
_WAIT_SECONDS = 5.0
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    scope TEXT NOT NULL,
    digest BLOB NOT NULL,
    created REAL NOT NULL,
    expires REAL,
    revoked REAL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_COLUMNS = "id, name, role, scope, created, expires, revoked"


class KeyStoreError(ValueError):
    """The file of keys cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key: nothing that would let anybody use it. Times are seconds since 1970."""

    id: str
    name: str
    role: str
    scope: KeyScope
    created: float
    expires: float | None
    revoked: float | None


def is_key(credential: str) -> bool:
    """Whether ``credential`` has the form of a key."""
    return _KEY.fullmatch(credential) is not None


class KeyStore:
    """The file at ``path``, which ``create`` makes if it is not there. Not to be used across a fork.

    Raises :class:`KeyStoreError`, here and from all that changes or lists keys.
    """

    def __init__(self, path: str, *, create: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        if create and not Path(path).exists():
            self._make(path)
        if not Path(path).is_file():
            raise KeyStoreError(f"{path}: no such file; make it with `cotguard keys create --store {path}`")
        self._database, self._read = self._open()

    def _open(self) -> tuple[sqlite3.Connection, Path | None]:
        """The database, and its real place if it is only read there: it never changes, another one takes its place."""
        place = Path(self._path).resolve()
        only_read = not os.access(place.parent, os.W_OK)
        # The mode keeps a file that vanished meanwhile from being made anew, empty and readable for all.
        mode = "mode=ro&immutable=1" if only_read else "mode=rw"
        try:
            database = sqlite3.connect(
                f"{place.as_uri()}?{mode}", uri=True, timeout=_WAIT_SECONDS, isolation_level=None
            )
            version = database.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise KeyStoreError(f"{self._path}: {error}; is this the file of `cotguard keys`?") from None
        if version != _VERSION:
            database.close()
            raise KeyStoreError(f"{self._path}: this is no file of `cotguard keys` of this release; name another file")
        return database, place if only_read else None

    def _take_another(self) -> None:
        """Go on with the file that has taken the place of one that is only read. Raises :class:`KeyStoreError`."""
        if self._read is not None and Path(self._path).resolve() != self._read:
            old = self._database
            self._database, self._read = self._open()
            old.close()

    @staticmethod
    def _make(path: str) -> None:
        """Make the file complete under another name: nobody sees a part of it, and two makers do not collide."""
        draft = f"{path}.{secrets.token_hex(4)}"
        try:
            os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            database = sqlite3.connect(draft)
            database.execute("PRAGMA journal_mode = WAL")  # which the file remembers
            database.executescript(_SCHEMA)
            database.close()
            try:
                os.link(draft, path)  # unlike a renaming, it replaces nothing
            except FileExistsError:
                pass
            finally:
                Path(draft).unlink()
        except OSError as error:
            raise KeyStoreError(f"{path}: {error.strerror}; name a file in a directory that you may write") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def find(self, credential: str) -> Key:
        """The key whose text ``credential`` is. Raises :class:`~cotguard.callers.denied.Denied`."""
        found = _KEY.fullmatch(credential)
        if found is None:
            raise Denied(Reason.UNKNOWN)
        try:
            self._take_another()
            row = self._database.execute(
                f"SELECT digest, {_COLUMNS} FROM keys WHERE id = ?",  # noqa: S608  # no text of anybody's
                (found[1],),
            ).fetchone()
        except (sqlite3.Error, KeyStoreError):
            raise Denied(Reason.UNAVAILABLE, 1) from None
        digest, *columns = row or (_NOBODY,)
        if not hmac.compare_digest(_digest(credential), digest):
            raise Denied(Reason.UNKNOWN)
        key = _key(*columns)
        if key.revoked is not None:
            raise Denied(Reason.REVOKED)
        if key.expires is not None and key.expires <= self._clock():
            raise Denied(Reason.EXPIRED)
        return key

    def create(self, name: str, role: str, scope: KeyScope, lifetime: float | None = None) -> tuple[Key, str]:
        """A new key, valid for ``lifetime`` seconds, and its text, which is kept nowhere."""
        identifier, now = secrets.token_hex(8), self._clock()
        text = f"cg_{identifier}_{secrets.token_urlsafe(32)}"
        key = Key(identifier, name, role, scope, now, None if lifetime is None else now + lifetime, None)
        written = json.dumps(scope.model_dump(mode="json", exclude_defaults=True))
        self._change(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            (identifier, name, role, written, _digest(text), key.created, key.expires),
        )
        return key, text

    def list(self) -> list[Key]:
        """All keys, the oldest first."""
        try:
            rows = self._database.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created, id").fetchall()  # noqa: S608
        except sqlite3.Error as error:
            raise KeyStoreError(f"{self._path}: {error}") from None
        return [_key(*row) for row in rows]

    def revoke(self, identifier: str) -> bool:
        """Revoke a key. Returns whether there was one that was not."""
        return self._change("UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (self._clock(), identifier))

    def _change(self, statement: str, values: tuple[object, ...]) -> bool:
        try:
            return self._database.execute(statement, values).rowcount > 0
        except sqlite3.Error as error:
            raise KeyStoreError(f"{self._path}: {error}") from None


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


def _key(
    identifier: str,
    name: str,
    role: str,
    scope: str,
    created: float,
    expires: float | None,
    revoked: float | None,
) -> Key:
    return Key(identifier, name, role, KeyScope.model_validate_json(scope), created, expires, revoked)
