"""The hash chain: every record is signed together with the signature of the one before.

    {"v":1,"chain":"9f...","seq":7,"time":"...","type":"decision", ... ,"mac":"4c..."}

1. ``mac`` is HMAC-SHA256 of the ``mac`` before and of the line's own bytes up to ``,"mac"``. Bytes are signed as they
   are written, so there is no canonical form to disagree about.
2. ``seq`` counts from 1 without a gap, ``chain`` is random and the same in all records of a chain: a record that is
   changed, removed, inserted, moved or comes from another chain does not fit, and no later one fits any more.
3. A *segment* record begins every file. Its ``prev`` is the ``mac`` before, so a file can be verified without those
   before it; its ``kept`` is the first ``seq`` that was left when it was written, so it shows when more is missing.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple, Self

from cotguard import __version__
from cotguard.audit.records import timestamp

__all__ = ["Head", "Line", "parse", "seal", "segment", "signed"]

_FIRST = "0" * 64
_LINE = re.compile(
    rb'(?P<body>\{"v":1,"chain":"(?P<chain>[0-9a-f]{16})","seq":(?P<seq>[1-9][0-9]{0,17}),'
    rb'"time":"(?P<time>[0-9T:.-]{26}Z)","type":"(?P<type>[a-z]{1,16})",[^\n]*),"mac":"(?P<mac>[0-9a-f]{64})"\}\n'
)

_LINK = re.compile(rb',"prev":"(?P<prev>[0-9a-f]{64})","kept":(?P<kept>[1-9][0-9]{0,17})\Z')


class Head(NamedTuple):
    """The last record of a chain; that of an empty one has ``seq`` 0."""

    chain: str
    seq: int
    mac: str

    @classmethod
    def new(cls) -> Self:
        """Of a chain that is about to begin."""
        return cls(secrets.token_hex(8), 0, _FIRST)

    def __str__(self) -> str:
        return f"{self.seq}:{self.mac}"


class Line(NamedTuple):
    """A record as it was written. ``prev`` and ``kept`` are those of a segment record, else empty and 0."""

    head: Head
    time: str
    type: str
    body: bytes
    prev: str
    kept: int


def seal(key: bytes, head: Head, tails: Iterable[bytes]) -> tuple[list[bytes], Head]:
    """The lines of records that follow ``head``, as ``encode`` made them, and the new head."""
    chain, seq, mac = head
    lines = []
    for tail in tails:
        seq += 1
        body = b'{"v":1,"chain":"%s","seq":%d,%s' % (chain.encode(), seq, tail)
        mac = signed(key, mac, body)
        lines.append(b'%s,"mac":"%s"}\n' % (body, mac.encode()))
    return lines, Head(chain, seq, mac)


def segment(head: Head, kept: int, seconds: float) -> bytes:
    """What begins a file after ``head``, made ``seconds`` after 1970; records from ``kept`` on are left."""
    return b'"time":"%s","type":"segment","version":"%s","prev":"%s","kept":%d' % (
        timestamp(seconds).encode(),
        __version__.encode(),
        head.mac.encode(),
        kept,
    )


def signed(key: bytes, prev: str, body: bytes) -> str:
    """The ``mac`` of a line after the one whose ``mac`` is ``prev``."""
    return hmac.digest(key, prev.encode() + body, hashlib.sha256).hex()


def parse(line: bytes) -> Line | None:
    """The record that ``line`` is, its newline included, if it is one."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    head = Head(found["chain"].decode(), int(found["seq"]), found["mac"].decode())
    kind, prev, kept = found["type"].decode(), "", 0
    if kind == "segment":
        if (link := _LINK.search(found["body"])) is None:
            return None
        prev, kept = link["prev"].decode(), int(link["kept"])
    return Line(head, found["time"].decode(), kind, found["body"], prev, kept)
