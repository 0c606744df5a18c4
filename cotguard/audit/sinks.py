"""Where records go: one *journal* makes them a chain, *copies* of its lines go to standard output and to collectors.

All are called from the writer's thread. They raise ``OSError`` when they cannot take what they are given, and are then
given the same again until they can.
"""

import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from cotguard.audit.chain import Head, seal, segment
from cotguard.audit.key import AuditKey

__all__ = ["Copy", "Journal", "ProcessChain", "StandardOutput"]

_ATOMIC_BYTES = select.PIPE_BUF
"""What a pipe takes at once: workers share it, and their lines must not mix."""


class Journal(Protocol):
    """Makes records a chain."""

    @property
    def key(self) -> AuditKey:
        """The key that the chain is signed with."""

    @property
    def head(self) -> Head | None:
        """The last record of the chain, if there is one."""

    def append(self, tails: Sequence[bytes]) -> list[bytes]:
        """Append records, as ``encode`` made them, all or none; returns the lines, with those of segments."""

    def close(self) -> None:
        """Close what is open."""


class Copy(Protocol):
    """Takes lines of the journal."""

    @property
    def name(self) -> str:
        """What logs and metrics call it."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Take ``lines``; after a failure the same ones are given again."""

    def close(self) -> None:
        """Close what is open."""


class ProcessChain:
    """A journal that keeps nothing: a chain of this process alone, for where there is no directory."""

    def __init__(self, key: AuditKey, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.key = key
        self.head: Head | None = None

    def append(self, tails: Sequence[bytes]) -> list[bytes]:
        head = self.head or Head.new()
        opening = [] if self.head else [segment(head, 1, self._clock())]
        lines, self.head = seal(self.key.signing, head, [*opening, *tails])
        return lines

    def close(self) -> None:
        pass


class StandardOutput:
    """A copy for whoever reads ``descriptor``. A reader that is slow makes writing slow, in the thread that writes."""

    name = "stdout"

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._begun: bytes | None = None
        """What is left of lines that were not all taken: the next attempt goes on in the middle of a line."""

    def write(self, lines: Sequence[bytes]) -> None:
        rest = self._begun if self._begun is not None else b"".join(lines)
        try:
            while rest:
                # Up to the last line's end that is taken at once; a record is shorter than that.
                end = rest.rfind(b"\n", 0, _ATOMIC_BYTES) + 1 or _ATOMIC_BYTES
                try:
                    rest = rest[os.write(self._descriptor, rest[:end]) :]
                except BlockingIOError:  # whoever started the gateway may have made it so
                    select.select([], [self._descriptor], [])
        finally:
            self._begun = rest or None

    def close(self) -> None:
        pass
