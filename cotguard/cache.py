"""A folder of files that were costly to make: ``$COTGUARD_CACHE``, or ``cotguard`` in the user's cache folder.

What is read goes to native code that trusts it. So a file counts only if nobody but this user and root can have
written it, or put it there; anything else is as if it were not there, and so is a damaged one. Nothing that goes wrong
here is told as an error: the caller makes the contents again. An empty ``$COTGUARD_CACHE`` means no cache.
"""

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["MAX_FILES", "folder", "read", "write"]

MAX_FILES = 16
"""How many files are kept: those last read or written."""

_DIGEST_BYTES = 32
_SUFFIX = ".bin"


def folder() -> Path | None:
    """Where the files are, if there is such a place."""
    configured = os.environ.get("COTGUARD_CACHE")
    if configured is not None:
        return Path(configured) if configured else None
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cotguard"
    except RuntimeError:  # no home
        return None


def read(name: str) -> bytes | None:
    """What was written under ``name``, if it is there and can be trusted."""
    try:
        with _opened() as place, os.fdopen(_open(name, os.O_RDONLY, place), "rb") as file:
            _check(file.fileno())
            digest, data = file.read(_DIGEST_BYTES), file.read()
            with suppress(OSError):  # root's, which this user may only read
                os.utime(file.fileno())
    except OSError:
        return None
    return data if hashlib.sha256(data).digest() == digest else None


def write(name: str, data: bytes) -> None:
    """Keep ``data`` under ``name``, if possible: all of it or nothing."""
    place = folder()
    if place is None:
        return
    with suppress(OSError):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened() as descriptor:
            unfinished = secrets.token_hex(8)
            try:
                with os.fdopen(_open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, descriptor), "wb") as file:
                    file.write(hashlib.sha256(data).digest() + data)
                os.rename(unfinished + _SUFFIX, name + _SUFFIX, src_dir_fd=descriptor, dst_dir_fd=descriptor)
            except OSError:
                os.unlink(unfinished + _SUFFIX, dir_fd=descriptor)
                raise
            _forget_oldest(descriptor)


@contextmanager
def _opened() -> Iterator[int]:
    """The folder's descriptor: what is done by it is done in the folder that was checked."""
    place = folder()
    if place is None:
        raise FileNotFoundError
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(name: str, flags: int, place: int) -> int:
    return os.open(name + _SUFFIX, flags | os.O_NOFOLLOW, 0o600, dir_fd=place)


def _check(descriptor: int) -> None:
    """Raise ``PermissionError`` if somebody else can have written it."""
    found = os.fstat(descriptor)
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError


def _forget_oldest(place: int) -> None:
    names = [name for name in os.listdir(place) if name.endswith(_SUFFIX)]
    names.sort(key=lambda name: os.stat(name, dir_fd=place).st_mtime_ns)
    for name in names[:-MAX_FILES]:
        os.unlink(name, dir_fd=place)
