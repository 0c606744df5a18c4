"""One file of a tree: read, moderated, and written anew where copies are wanted.

1. Files compressed with gzip are read through it, and so are their copies written; their first bytes tell.
2. A file with a NUL among its first ``_LOOKED_AT`` bytes is binary and is skipped. Bytes of a text that are not UTF-8
   become U+FFFD.
3. A copy gets its name when it is complete, and the permissions of the original. Where something fails there is none.
"""

import gzip
import io
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, cast

from cotguard.moderation.exchange import Verdict
from cotguard.moderator import ModerationFault, Moderator
from cotguard.scan.texts import Contents, Reading, RecordError
from cotguard.scan.tree import Entry
from cotguard.spans import Action, ChannelKind

__all__ = ["Outcome", "Scanner", "counted"]

_LOOKED_AT = 8192
_GZIP = b"\x1f\x8b"
_PROGRESS_BYTES = 2**20


@dataclass(slots=True)
class Outcome:
    """What became of a file. ``status`` is scanned, blocked, binary, link, special, unreadable or failed.

    ``findings`` counts by entity and action what the policy does something about.
    """

    path: Path
    status: str
    reason: str = ""
    characters: int = 0
    findings: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def rewritten(self) -> int:
        """Values that the policy rewrites."""
        return sum(
            count for found in self.findings.values() for action, count in found.items() if Action(action).rewrites
        )


def counted(verdicts: dict[Verdict, int]) -> dict[str, dict[str, int]]:
    """By entity and action, how often something is done about a value."""
    found: dict[str, dict[str, int]] = {}
    for verdict, count in sorted(verdicts.items(), key=lambda each: (each[0].entity, each[0].action)):
        if verdict.entity and verdict.action is not Action.ALLOW:
            actions = found.setdefault(verdict.entity, {})
            actions[verdict.action.value] = actions.get(verdict.action.value, 0) + count
    return found


class Scanner:
    """Scans files one by one; ``copies`` is the folder that copies go to, if there are any.

    ``advance`` is told how many more bytes of a file were read.
    """

    def __init__(
        self,
        moderator: Moderator,
        kind: ChannelKind,
        contents: Contents,
        copies: Path | None,
        advance: Callable[[int], object],
    ) -> None:
        self._moderator = moderator
        self._kind = kind
        self._contents = contents
        self._copies = copies
        self._advance = advance

    def scan(self, entry: Entry) -> Outcome:
        """Scan a file. Raises nothing that is the file's fault."""
        if entry.fault:
            return Outcome(entry.path, "unreadable", entry.fault)
        if entry.skipped:
            return Outcome(entry.path, entry.skipped)
        try:
            with entry.path.open("rb") as raw:
                return self._opened(entry, raw)
        except (ModerationFault, RecordError) as error:
            return Outcome(entry.path, "failed", str(error))
        except OSError as error:  # gzip's own too
            return Outcome(entry.path, "unreadable", error.strerror or "not what gzip writes")
        except (EOFError, zlib.error):
            return Outcome(entry.path, "unreadable", "not what gzip writes")

    def _opened(self, entry: Entry, raw: BinaryIO) -> Outcome:
        followed = _Followed(raw, self._advance)
        zipped = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        opened = cast("IO[bytes]", gzip.GzipFile(fileobj=followed) if zipped else io.BufferedReader(followed))
        with opened as source:
            head = source.read(_LOOKED_AT)
            if b"\0" in head:
                return Outcome(entry.path, "binary")
            source.seek(0)
            text = io.TextIOWrapper(source, "utf-8", errors="replace", newline="\n")
            if self._copies is None:
                return self._read(entry, text, _nowhere)
            with _copy(entry.path, self._copies / entry.place, zipped=zipped) as copy:
                return self._read(entry, text, copy.write)

    def _read(self, entry: Entry, source: IO[str], write: Callable[[str], object]) -> Outcome:
        reading = Reading(self._moderator, self._kind, self._contents, write)
        reading.read(source)
        status = "blocked" if reading.blocked else "scanned"
        return Outcome(entry.path, status, "", reading.characters, counted(reading.verdicts))


class _Followed(io.RawIOBase):
    """A file that tells how far it was read."""

    def __init__(self, raw: BinaryIO, advance: Callable[[int], object]) -> None:
        super().__init__()
        self._raw = raw
        self._advance = advance
        self._told = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # of all buffers it is given this one
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        if (at := self._raw.tell()) > self._told:  # the head is read twice
            self._advance(at - self._told)
            self._told = at
        return len(data)


@contextmanager
def _copy(original: Path, path: Path, *, zipped: bool) -> Iterator[IO[str]]:
    """A file to be written, which becomes ``path`` if nothing is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".cotguard-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            target = cast("IO[bytes]", gzip.GzipFile(filename="", fileobj=raw, mode="wb") if zipped else raw)
            with target, io.TextIOWrapper(target, "utf-8", newline="") as text:
                yield text
        shutil.copymode(original, name)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _nowhere(_text: str) -> None:
    pass
