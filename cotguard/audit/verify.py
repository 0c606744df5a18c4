"""Verifying a trail: that it is what the key's owner wrote, whole and in order.

What shows: a record that was changed, removed, inserted or moved; a file that is missing or renamed; oldest files that
were removed by somebody else than the gateway. What does not: records cut off at the end, unless a later one is known
from elsewhere (``heads``), and what a holder of the key has rewritten.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cotguard.audit.chain import Head, Line, parse, signed
from cotguard.audit.directory import TrailFile
from cotguard.audit.key import AuditKey

__all__ = ["Anchor", "Broken", "Verification"]

_MAX_LINE = 65_536
_LINES = 1000
"""How many lines are verified between two reports of progress."""


class Broken(Exception):  # noqa: N818  # a finding about a trail, not an error of ours
    """The trail does not verify: where, and what is wrong."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")


class Anchor(NamedTuple):
    """A record that is known from elsewhere, by what ``cotguard audit head`` printed."""

    seq: int
    mac: str


class Verification:
    """Verifies one trail, or lines of any number of chains; methods raise :class:`Broken`.

    ``heads`` must be in the trail; it must go on after ``start``, if that is given. ``advance`` is told of bytes read.
    """

    def __init__(
        self,
        key: AuditKey,
        heads: Iterable[Anchor] = (),
        start: Anchor | None = None,
        advance: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._key = key.signing
        self._missing = set(heads)
        self._start = start
        self._advance = advance
        self._kept = 0
        self._single = False
        self.types: Counter[str] = Counter()
        self.chains: dict[str, Head] = {}
        """The last record of each chain."""
        self.first: Line | None = None
        self.last: Line | None = None
        self.torn = 0
        """Bytes after the last record, of a writer that died; the next one will cut them off."""

    def directory(self, path: Path, files: Sequence[TrailFile]) -> None:
        """Verify the trail that ``files`` are; ``path`` is what it is called."""
        self._single = True
        for file in files:
            with file.path.open("rb") as lines:
                self._file(file, lines)
            self.torn = file.torn
        if self.first is None:
            raise Broken(str(path), "there is no record here")
        begins = self.first.head.seq
        if self._start is None and begins > max(self._kept, 1):
            raise Broken(
                str(path),
                f"the oldest files are missing: the trail begins with record {begins}, and the gateway has removed "
                f"those before {self._kept} only (moved away? then give the last record of what was, with --from)",
            )
        self._finish(str(path))

    def lines(self, name: str, lines: BinaryIO) -> None:
        """Verify lines of a file or of standard input; ``name`` is what it is called."""
        self._take_all(name, iter(lambda: lines.readline(_MAX_LINE), b""))
        self._finish(name)

    def _file(self, file: TrailFile, lines: BinaryIO) -> None:
        name = file.path.name
        begins = parse(lines.readline(_MAX_LINE))
        if begins is not None and (begins.type != "segment" or begins.head.seq != file.first):
            raise Broken(f"{name}:1", "this file began with another record, or had another name")
        lines.seek(0)
        self._take_all(name, iter(lambda: lines.readline(min(_MAX_LINE, file.size - lines.tell())), b""))

    def _take_all(self, name: str, lines: Iterable[bytes]) -> None:
        lines, number = iter(lines), 0
        while several := list(islice(lines, _LINES)):
            for line in several:
                number += 1
                self._take(f"{name}:{number}", line)
            self._advance(sum(map(len, several)))

    def _take(self, where: str, raw: bytes) -> None:
        line = parse(raw)
        if line is None:
            raise Broken(where, "this is no record, or one that was changed")
        before = self._before(where, line)
        if signed(self._key, before.mac, line.body) != line.head.mac:
            raise Broken(where, f"record {line.head.seq} was changed, or is of another trail, or the key is another")
        self.chains[line.head.chain] = line.head
        self.first, self.last = self.first or line, line
        self.types[line.type] += 1
        self._kept = max(self._kept, line.kept)
        self._missing.discard(Anchor(line.head.seq, line.head.mac))

    def _before(self, where: str, line: Line) -> Head | Anchor:
        """What ``line`` must follow."""
        seq = line.head.seq
        known: Head | Anchor | None = self.chains.get(line.head.chain) or self._start
        if self._single and self.chains and line.head.chain not in self.chains:
            raise Broken(where, "this record is of another chain")
        if known is None:
            if not line.prev:
                raise Broken(where, f"what comes before record {seq} is not here; give it with --from SEQ:HASH")
            known = Anchor(seq - 1, line.prev)
        if seq != known.seq + 1:
            raise Broken(where, f"record {seq} follows record {known.seq}: records are missing, added or moved")
        self._missing.discard(Anchor(known.seq, known.mac))
        return known

    def _finish(self, where: str) -> None:
        for anchor in sorted(self._missing):
            raise Broken(where, f"record {anchor.seq} is missing, or is not the one that was known")
