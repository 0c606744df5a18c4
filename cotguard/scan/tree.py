"""The files of a scan: those that were named, and those in folders that were named.

Links in folders are not followed: they may lead out of the tree, or in circles. What is named itself may be a link.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Entry", "entries"]


class Entry(NamedTuple):
    """A file. ``place`` is where its copy goes, below the folder of copies; ``bytes`` its size on disk.

    ``skipped`` says why it is not read, if it is not: ``link``, ``special`` (a pipe, a socket, a device). ``fault``
    says what is wrong with it.
    """

    path: Path
    place: Path
    bytes: int = 0
    skipped: str = ""
    fault: str = ""


def entries(paths: Sequence[Path], globs: Sequence[str], without: Path | None) -> Iterator[Entry]:
    """All files under ``paths``, in order; of those in folders only those that one of ``globs`` matches, if there are.

    ``without`` is a folder that is left out.
    """
    for path in paths:
        if path.is_dir():
            yield from _inside(path, Path(path.resolve().name), globs, without)
        else:
            yield _entry(path, Path(path.name), named=True)


def _inside(folder: Path, place: Path, globs: Sequence[str], without: Path | None) -> Iterator[Entry]:
    """The files of a folder. Folders that cannot be read are entries with a fault."""
    faults: list[OSError] = []
    for at, folders, names in os.walk(folder, onerror=faults.append):
        yield from (_faulty(Path(fault.filename), place, fault) for fault in faults)
        faults.clear()
        here = Path(at)
        folders.sort()
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [
            name for name in folders if name not in links and (without is None or (here / name).resolve() != without)
        ]
        for name in sorted([*names, *links]):
            path = here / name
            if not globs or any(path.match(glob) for glob in globs):
                yield _entry(path, place / path.relative_to(folder), named=False)
    yield from (_faulty(Path(fault.filename), place, fault) for fault in faults)


def _entry(path: Path, place: Path, *, named: bool) -> Entry:
    try:
        found = path.stat(follow_symlinks=named)
    except OSError as error:
        return _faulty(path, place, error)
    if stat.S_ISLNK(found.st_mode):
        return Entry(path, place, skipped="link")
    if not stat.S_ISREG(found.st_mode):
        return Entry(path, place, skipped="special")
    return Entry(path, place, found.st_size)


def _faulty(path: Path, place: Path, error: OSError) -> Entry:
    return Entry(path, place, fault=error.strerror or type(error).__name__)
