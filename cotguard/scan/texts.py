"""What is in a file: one text, lines that are texts, or records. Each is read piece by piece and written as it goes.

* A *text* is one channel from its first character to its last, so values across lines are found.
* *Lines* are texts of their own, as in logs; a value has the same pseudonym in all of them.
* *Records* are lines ``{"id", "text"}``; each becomes a line ``{"id", "redacted", "spans"}``.

What is in memory at a time is bounded: what a channel may hold, or a record of ``MAX_RECORD_CHARS``.
"""

import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from enum import StrEnum
from typing import IO

from cotguard.moderation.exchange import Verdict
from cotguard.moderator import ModerationFault, Moderator
from cotguard.spans import ChannelKind

__all__ = ["MAX_RECORD_CHARS", "Contents", "Reading", "RecordError"]

MAX_RECORD_CHARS = 2**24
"""Characters of the longest record."""

_READ_CHARS = 65_536


class Contents(StrEnum):
    """What a file holds."""

    TEXT = "text"
    LINES = "lines"
    RECORDS = "records"


class RecordError(ValueError):
    """A line that is no record. The message holds nothing of it."""


class Reading:
    """One file being read. ``verdicts`` and ``characters`` are those of what was read so far.

    ``write`` is given what may be written, in order. Raises :class:`RecordError` and :class:`ModerationFault`, which
    tell the number of the line if there are lines.
    """

    def __init__(
        self, moderator: Moderator, kind: ChannelKind, contents: Contents, write: Callable[[str], object]
    ) -> None:
        self.verdicts: Counter[Verdict] = Counter()
        self.characters = 0
        self.blocked = False
        self._moderator = moderator
        self._kind = kind
        self._contents = contents
        self._write = write
        self._pseudonym_key = secrets.token_bytes(16)

    def read(self, source: IO[str]) -> None:
        """Read ``source`` to its end."""
        if self._contents is Contents.TEXT:
            self._moderate(iter(lambda: source.readline(_READ_CHARS), ""))
            return
        number = 0
        while line := source.readline(_READ_CHARS):
            number += 1
            try:
                if self._contents is Contents.LINES:
                    self._line(line, source)
                else:
                    self._record(line, source)
            except (ModerationFault, RecordError) as error:
                raise type(error)(f"line {number}: {error}") from error

    def _moderate(self, pieces: Iterator[str]) -> None:
        exchange = self._moderator.exchange(pseudonym_key=self._pseudonym_key)
        try:
            for piece in pieces:
                self.characters += len(piece)
                for released in exchange.feed(self._kind, piece):
                    self._write(released.text)
            for released in exchange.finish():
                self._write(released.text)
        finally:
            self.verdicts.update(exchange.verdicts)
            self.blocked |= exchange.blocked

    def _line(self, line: str, source: IO[str]) -> None:
        ending = ""

        def pieces() -> Iterator[str]:
            nonlocal line, ending
            while line:
                text = line.rstrip("\r\n")
                if line.endswith("\n"):
                    ending = line[len(text) :]
                    yield text
                    return
                yield line
                line = source.readline(_READ_CHARS)

        self._moderate(pieces())
        self._write(ending)

    def _record(self, line: str, source: IO[str]) -> None:
        while not line.endswith("\n") and (more := source.readline(_READ_CHARS)):
            line += more
            if len(line) > MAX_RECORD_CHARS:
                raise RecordError(f"more than {MAX_RECORD_CHARS} characters: cut the text into several records")
        try:
            record = json.loads(line)
            text = record["text"]
            if not isinstance(text, str):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RecordError('write a JSON object with "id" and "text"') from None
        found = self._moderator.moderate(text, self._kind)
        self.characters += len(text)
        self.verdicts.update(found.verdicts)
        spans = [asdict(span) for span in found.spans]
        self._write(json.dumps({"id": record.get("id"), "redacted": found.text, "spans": spans}) + "\n")
