r"""Private keys in PEM blocks, unfinished ones included.

A block is too long to be held whole and has no end when the model is cut off, so it is no rule but a detector of
its own. Text is normalised first (:mod:`cotguard.detectors.normalize`): line breaks written as ``\n``, quotes and
indentation make no difference, because everything between the two boundary lines belongs to the block.

1. Outside a block: look for a header, ``-----BEGIN ... PRIVATE KEY-----``. Held is only the tail that may become one.
2. Inside: look for the footer, ``-----END ... KEY-----``. The block is reported in pieces of ``PIECE_CHARS``
   characters counted from its header, each when it is complete; the last one ends with the footer or the text.

Where pieces begin and end depends on the text alone (G1), and nothing of a piece is stable before it is reported
(G2). Memory and hold: one piece. Public keys and certificates are not secrets.

Sources: RFC 7468 (textual encodings), RFC 9580 section 6 (armour), RFC 4716 (``---- BEGIN`` with four dashes).

Known limit: a header that is merely quoted in prose, with no footer after it, hides the rest of the text.
"""

import re
from collections.abc import Sequence
from typing import Final

from cotguard.detectors.contract import Scope, Session
from cotguard.detectors.normalize import Normalizer
from cotguard.spans import Span

__all__ = ["PIECE_CHARS", "PrivateKeyDetector"]

PIECE_CHARS = 8192
"""Longest span reported, in normalised characters; a block of up to this size is one span."""

_ENTITY = "SECRET_PRIVATE_KEY"
_SCORE = 0.95

_OPEN = rb"(?:-----|---- )"
_CLOSE = rb"(?:-----| ----)"
_HEADER = re.compile(
    _OPEN + rb"BEGIN (?:[0-9A-Z]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?" + _CLOSE,
    re.IGNORECASE,
)
_FOOTER = re.compile(_OPEN + rb"END (?:[0-9A-Z]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?" + _CLOSE, re.IGNORECASE)
_BOUNDARY_CHARS = 128
"""More than the longest header or footer has."""

_MAY_BEGIN = re.compile(r"[^\x00-%'-,./-\[\]-\x7f]")
"""A dash, what may be one once it is normalised, or what may be an escape: anything outside ASCII, and two more."""

# Every proper beginning of a header (and some more: any words may stand after BEGIN).
_HEADER_BEGUN = re.compile(
    rb"-{1,5}|---- |" + _OPEN + rb"(?:B|BE|BEG|BEGI|BEGIN(?: [0-9A-Z ]{0,110}-{0,4})?)", re.IGNORECASE
)


class PrivateKeyDetector:
    """Finds private keys in PEM, OpenSSH, PGP and SSH2 armour."""

    name: Final = "pem"
    entities: Final = frozenset((_ENTITY,))

    def open(self, scope: Scope) -> Session | None:
        return _PrivateKeySession(scope.context)


class _PrivateKeySession:
    """One channel. ``_window`` holds normalised text from ``_base`` on; ``_piece`` is where the open piece began.

    While nothing that may begin a header is in sight, which is nearly always, text is not even normalised.
    """

    __slots__ = ("_base", "_normalizer", "_piece", "_read", "_window")

    def __init__(self, context: str) -> None:
        self._normalizer: Normalizer | None = None
        self._read = -len(context)  # the text's offset up to which nothing is in sight
        self._window = b""
        self._base = 0
        self._piece: int | None = None
        if context:
            self.advance(context, final=False)

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        normalizer = self._normalizer
        if normalizer is None:
            if _MAY_BEGIN.search(text) is None:
                self._read += len(text)
                return (), self._read
            normalizer = self._normalizer = Normalizer(self._read)
            self._base = 0
        self._window += normalizer.feed(text, final)
        end = self._base + len(self._window)
        spans: list[Span] = []
        while True:
            if self._piece is None:
                header = _HEADER.search(self._window)
                if header is None:
                    break
                self._piece = self._base + header.start()
                self._drop(self._base + header.end())
            footer = _FOOTER.search(self._window)
            block_end = end if footer is None else self._base + footer.end()
            while self._piece + PIECE_CHARS <= block_end:
                self._report(normalizer, self._piece, self._piece + PIECE_CHARS, spans)
                self._piece += PIECE_CHARS
            if footer is None:
                break
            self._report(normalizer, self._piece, block_end, spans)
            self._piece = None
            self._drop(block_end)
        return spans, self._settle(normalizer, end, final, spans)

    def _settle(self, normalizer: Normalizer, end: int, final: bool, spans: list[Span]) -> int:
        """Close what is open if this was all, drop what is decided, and say what is stable."""
        if self._piece is not None:
            if final:
                self._report(normalizer, self._piece, end, spans)
                self._piece = end
            self._drop(max(self._base, end - _BOUNDARY_CHARS))
            stable = self._piece
        else:
            stable = end if final else end - _begun(self._window)
            self._drop(stable)
        normalizer.forget(stable)
        settled = normalizer.start(stable)
        if self._piece is None and not self._window and not normalizer.pending:
            self._normalizer, self._read = None, settled
        return settled

    def _drop(self, offset: int) -> None:
        self._window = self._window[offset - self._base :]
        self._base = offset

    def _report(self, normalizer: Normalizer, start: int, end: int, spans: list[Span]) -> None:
        if start < end:
            text_start, text_end = normalizer.start(start), normalizer.end(end)
            if text_end > 0:
                spans.append(Span(text_start, text_end, _ENTITY, _SCORE, f"{PrivateKeyDetector.name}/private-key"))


def _begun(window: bytes) -> int:
    """How many characters at the end of ``window`` may be the beginning of a header."""
    tail = window[-_BOUNDARY_CHARS:]
    at = tail.find(b"-")
    while at >= 0:
        if _HEADER_BEGUN.fullmatch(tail, at):
            return len(tail) - at
        at = tail.find(b"-", at + 1)
    return 0
