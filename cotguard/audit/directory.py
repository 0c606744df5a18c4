"""A trail in a directory, which several processes append to: one chain in files of bounded size.

    lock                             held (flock) while records are appended
    key                              where no audit_key is set
    audit-0000000000000001.jsonl     named by the first record's seq; the last one is appended to

1. Whoever holds the lock looks at the end of the last file, unless nobody else has written since. What follows the last
   newline is cut off: its writer died, and was never told that it is kept.
2. Records are sealed and written with one call. If the disk does not take all of them, the file is cut back to where it
   was: nothing has happened.
3. A file that would exceed its size is followed by a new one; beyond ``keep`` files the oldest are removed, which the
   new one tells.
4. If the directory's last record is older than one that this process knows of, the end of the trail was removed. A new
   file goes on from what is known, so the gap shows.

Records are kept when the system has taken them (``write``): the death of a process loses none, that of the machine may
lose the last seconds.
"""

import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cotguard.audit.chain import Head, Line, parse, seal, segment, signed
from cotguard.audit.key import AuditKey, TrailError, keep_key

__all__ = ["Directory", "TrailDamagedError", "TrailFile", "last_head", "open_directory", "trail_files"]

_LOG = logging.getLogger("cotguard.audit")
_LOCK = "lock"
_NAME = re.compile(r"audit-([0-9]{16})\.jsonl")
_MODE = 0o600
_TAIL_BYTES = 16_384


class TrailDamagedError(OSError):
    """The end of the trail is not what the key's owner wrote: nothing can be appended to it."""


class TrailFile(NamedTuple):
    """A file of a trail, named by its first record's ``seq``; ``torn`` bytes after ``size`` are of no whole record."""

    path: Path
    first: int
    size: int
    torn: int = 0


def trail_files(path: Path) -> list[TrailFile]:
    """The files of the trail in ``path``, in order, as they are between two writes. Raises ``OSError``."""
    try:
        lock = os.open(path / _LOCK, os.O_RDONLY)
    except FileNotFoundError:  # a copy
        return _settled(_listed(path))
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        return _settled(_listed(path))
    finally:
        os.close(lock)


def last_head(path: Path) -> Head | None:
    """The last record of the trail in ``path``, unverified, if there is one. Raises ``OSError``."""
    for file in reversed(trail_files(path)):
        descriptor = os.open(file.path, os.O_RDONLY)
        try:
            lines, _ = _last_lines(descriptor, file.size)
        finally:
            os.close(descriptor)
        if lines and (last := parse(lines[-1])) is not None:
            return last.head
    return None


def open_directory(
    path: Path, secret: str, max_bytes: int, keep: int, clock: Callable[[], float] = time.time
) -> "Directory":
    """The trail in ``path``, which is made if it is not there, with the key ``secret``, or its own if that is empty.

    Holds nothing open, and may be forked before the first append. Raises :class:`TrailError`.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        key = AuditKey(secret or keep_key(path, os.urandom(32).hex()))
        directory = Directory(path, key, max_bytes, keep, clock, keeps_key=not secret)
        directory.check()
    except TrailDamagedError:
        raise TrailError(
            f"{path}: the last record does not fit this key. Give the key that the trail was written with; if it is "
            "this one, the trail was changed: look with `cotguard audit verify`, and name another directory"
        ) from None
    except OSError as error:
        raise TrailError(
            f"{error.filename or path}: {error.strerror}; name a directory that the gateway may write"
        ) from None
    return directory


class Directory:
    """See the module. For one thread; not to be forked after the first append. Methods raise ``OSError``."""

    def __init__(
        self, path: Path, key: AuditKey, max_bytes: int, keep: int, clock: Callable[[], float], *, keeps_key: bool
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._clock = clock
        self._keeps_key = keeps_key
        self._lock: int | None = None
        self._file: int | None = None
        self._size = 0
        self._kept = 1
        self.key = key
        self.head: Head | None = None
        """The last record that this process knows of."""

    def check(self) -> None:
        """Look whether records can be appended."""
        with self._locked():
            self._catch_up()
        self.close()
        self.head = None  # by the time of the first append others may have written, and removed, more

    def append(self, tails: Sequence[bytes]) -> list[bytes]:
        """Append records; returns what was written. All of them are, or none."""
        with self._locked():
            files = self._catch_up()
            if self._file is not None and self.head is not None:
                lines, head = seal(self.key.signing, self.head, tails)
                data = b"".join(lines)
                if self._size + len(data) <= self._max_bytes:
                    _write(self._file, data, self._size)
                    self._size += len(data)
                    self.head = head
                    return lines
            return self._begin_file(files, tails)

    def close(self) -> None:
        """Close the files."""
        self._close_file()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self._path / _LOCK
        while True:
            fresh = self._lock is None
            lock = self._lock = os.open(path, os.O_CREAT | os.O_RDWR, _MODE) if self._lock is None else self._lock
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_at(lock, path):
                break
            self.close()  # it was removed, perhaps with the directory, and others may hold another one
        try:
            if fresh and self._keeps_key and keep_key(self._path, self.key.secret) != self.key.secret:
                raise TrailDamagedError(errno.EINVAL, "the directory has got another key", str(self._path))
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)

    def _catch_up(self) -> list[TrailFile]:
        """Make the last file, its size and the head what they are now; returns the files."""
        files = _listed(self._path)
        if self._file is not None and files:
            last_file = files[-1]
            if last_file.size == self._size and _is_at(self._file, last_file.path):
                return files
        self._close_file()
        last = None
        while files and last is None:
            last = self._reopen(files[-1])
            if last is None:  # its writer died before it wrote a record
                files.pop().path.unlink()
        known = self.head
        if known is not None and (last is None or (last.chain == known.chain and last.seq < known.seq)):
            found = 0 if last is None else last.seq
            _LOG.error("the end of the audit trail was removed", extra={"known": known.seq, "found": found})
            self._close_file()
        else:
            self.head = last
        return files

    def _reopen(self, file: TrailFile) -> Head | None:
        """Open a file; its last record, if it has one."""
        descriptor = os.open(file.path, os.O_RDWR | os.O_APPEND)
        try:
            lines, end = _last_lines(descriptor, file.size)
            if end < file.size:
                os.ftruncate(descriptor, end)
            last = self._verified(lines) if lines else None
            if (begins := parse(os.pread(descriptor, _TAIL_BYTES, 0).partition(b"\n")[0] + b"\n")) is not None:
                self._kept = max(self._kept, begins.kept)
        except BaseException:
            os.close(descriptor)
            raise
        self._file, self._size = descriptor, end
        return last

    def _verified(self, lines: Sequence[bytes]) -> Head:
        """The head that the last of ``lines`` is."""
        last, before = parse(lines[-1]), parse(lines[-2]) if len(lines) > 1 else None
        prev = _before(last, before) if last is not None else ""
        if last is not None and prev and signed(self.key.signing, prev, last.body) == last.head.mac:
            return last.head
        raise TrailDamagedError(errno.EINVAL, "the last record does not fit the key")

    def _begin_file(self, files: Sequence[TrailFile], tails: Sequence[bytes]) -> list[bytes]:
        head = self.head or Head.new()
        path = self._path / f"audit-{head.seq + 1:016d}.jsonl"
        # Only what is removed here moves the beginning: files that are missing otherwise show.
        firsts = [*(file.first for file in files), head.seq + 1]
        kept = max(self._kept, firsts[-self._keep]) if len(firsts) > self._keep else self._kept
        lines, head = seal(self.key.signing, head, [segment(head, kept, self._clock()), *tails])
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, _MODE)
        try:
            _write(descriptor, b"".join(lines), 0)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        self._close_file()
        self._file, self._size, self._kept, self.head = descriptor, sum(map(len, lines)), kept, head
        for file in files:
            if file.first < kept:
                with suppress(OSError):  # the next one to begin a file tries again
                    file.path.unlink()
        _LOG.info("audit file begun", extra={"file": path.name, "chain": head.chain, "head": str(head)})
        return lines

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _listed(path: Path) -> list[TrailFile]:
    with os.scandir(path) as entries:
        named = [(found, entry) for entry in entries if (found := _NAME.fullmatch(entry.name))]
        return sorted(TrailFile(Path(entry), int(found[1]), entry.stat().st_size) for found, entry in named)


def _settled(files: list[TrailFile]) -> list[TrailFile]:
    """The files, with what a writer that died has left told apart."""
    if files:
        path, first, size, _ = files[-1]
        descriptor = os.open(path, os.O_RDONLY)
        try:
            _, end = _last_lines(descriptor, size)
        finally:
            os.close(descriptor)
        files[-1] = TrailFile(path, first, end, size - end)
    return files


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _last_lines(descriptor: int, size: int) -> tuple[list[bytes], int]:
    """The last two whole lines, or all if there are fewer, and where the last one ends."""
    width = _TAIL_BYTES
    while True:
        start = max(size - width, 0)
        data = os.pread(descriptor, size - start, start)
        if start == 0 or data.count(b"\n") > 2:
            break
        width *= 4
    end = data.rfind(b"\n") + 1
    return [line + b"\n" for line in data[:end].split(b"\n")[:-1]][-2:], start + end


def _before(line: Line, before: Line | None) -> str:
    """The ``mac`` that ``line`` was signed with, if it is known."""
    if line.prev:
        return line.prev
    return before.head.mac if before is not None and before.head.seq == line.head.seq - 1 else ""


def _write(descriptor: int, data: bytes, size: int) -> None:
    """Write all of ``data`` at the end of a file of ``size`` bytes, or nothing."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        with suppress(OSError):  # what is left is cut off, or whole, when the file is looked at next
            os.ftruncate(descriptor, size)
        raise
