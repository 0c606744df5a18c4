"""Whether files have changed: looked at a few times a second.

Looking also finds what file notification does not: a ConfigMap that is swapped through a link, a network share.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Stamps", "Watch", "stamps_of"]

_LOOK_SECONDS = 0.25

Stamp = tuple[int, int, int] | None
Stamps = dict[Path, Stamp]

_UNKNOWN: Stamp = (0, 0, 0)


class Watch:
    """Files, and how they were when they were read last (``stamps``)."""

    def __init__(self, stamps: Stamps) -> None:
        self._stamps = dict(stamps)

    @property
    def differs(self) -> bool:
        """Whether a file has changed since it was read."""
        return stamps_of(self._stamps) != self._stamps

    async def changed(self) -> None:
        """Return when a file has changed since it was read, and stands still: one half written is left alone."""
        seen = self._stamps
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = stamps_of(self._stamps)
            if now == seen and now != self._stamps:
                return
            seen = now

    def read(self) -> None:
        """The files are read from now on."""
        self._stamps = stamps_of(self._stamps)

    def add(self, files: Iterable[Path]) -> None:
        """Look at these as well. They are read at least once more, since they may have changed since they were."""
        for path in files:
            self._stamps.setdefault(path, _UNKNOWN)

    def keep(self, files: Iterable[Path]) -> None:
        """Look at these, and at no other."""
        self.add(files)
        kept = set(files)
        self._stamps = {path: stamp for path, stamp in self._stamps.items() if path in kept}


def stamps_of(files: Iterable[Path]) -> Stamps:
    """How the files are now: by time, size and what a link leads to."""
    return {path: _stamp(path) for path in files}


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
