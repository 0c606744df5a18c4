"""Text as word pieces: what the classifier reads, in training and in the stream alike.

1. The tokenizer of the bundle cuts the text into pieces with offsets in code points. What looks like a special token
   in the text (``[SEP]``) is text.
2. Text is encoded in stretches that end where the tokenizer never joins what stands on either side, so that a text
   that comes piece by piece has the same pieces as the whole. A run of ``LONGEST_RUN`` characters without such a place
   is cut there.
3. The encoder of our own bundles is uncased, so casing is told beside the pieces: the token type of a piece is the
   case of the text it stands for (:class:`Case`).

No special tokens are added here; whoever cuts windows wraps them in ``Tokenizer.cls_id`` and ``Tokenizer.sep_id``.
"""

import re
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import tokenizers
from numpy.typing import NDArray

from cotguard.classifier.bundle import Boundaries

__all__ = ["LONGEST_RUN", "Case", "Integers", "Pieces", "Tokenizer", "case_of"]

Integers = NDArray[np.int64]

LONGEST_RUN = 128

_SPECIAL = ("[CLS]", "[SEP]", "[PAD]")
# Not \s: what tokenizers drop as a control character joins the text on either side.
_PLACES = {
    "word_pieces": re.compile(r"[ \t\r\n!-/:-@\[-`{-~]"),
    "spaces": re.compile(r"(?<=[^ \t\r\n])(?=[ \t\r\n])"),
}
_RUNS = {
    "word_pieces": re.compile(rf"[^ \t\r\n!-/:-@\[-`{{-~]{{{LONGEST_RUN}}}"),
    "spaces": re.compile(rf"[^ \t\r\n]{{{LONGEST_RUN}}}"),
}
_NEAR = 64


class Case(IntEnum):
    """Token types of a bundle that says ``token_types: case``."""

    LOWER = 0
    """Lower case, symbols, scripts without case, special tokens."""
    TITLE = 1
    """An upper-case letter and then, if anything, lower case."""
    UPPER = 2
    """Two upper-case letters or more, and no lower case."""
    MIXED = 3
    """Upper case elsewhere than at the start."""
    DIGITS = 4
    """Digits without letters."""
    ALPHANUMERIC = 5
    """Digits and letters."""


def case_of(piece: str) -> Case:
    """The case of the text of one piece; what is neither letter nor digit does not count."""
    if piece.isascii() and piece.isalpha():
        letters = piece
    else:
        letters = "".join(filter(str.isalpha, piece))
        if any(map(str.isdigit, piece)):
            return Case.ALPHANUMERIC if letters else Case.DIGITS
    lower = letters.lower()
    if letters == lower:
        return Case.LOWER
    if letters[1:] == lower[1:]:
        return Case.TITLE
    return Case.UPPER if letters == letters.upper() else Case.MIXED


class Pieces(NamedTuple):
    """Word pieces of a text; piece ``i`` stands for ``text[starts[i]:ends[i]]``. All arrays are as long."""

    ids: Integers
    starts: Integers
    ends: Integers
    types: Integers


class Tokenizer:
    """A ``tokenizer.json``, without the truncation and padding it may ask for.

    ``special``: the tokens before and after a window, and the one that fills it up.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        boundaries: Boundaries = "word_pieces",
        special: tuple[str, str, str] = _SPECIAL,
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._place = _PLACES[boundaries]
        self._run = _RUNS[boundaries]
        self.cls_id, self.sep_id, self.pad_id = map(self._id, special)

    @classmethod
    def from_file(
        cls,
        path: Path,
        *,
        boundaries: Boundaries = "word_pieces",
        special: tuple[str, str, str] = _SPECIAL,
    ) -> Self:
        return cls(tokenizers.Tokenizer.from_file(str(path)), boundaries=boundaries, special=special)

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no token {token}")
        return int(found)

    @property
    def size(self) -> int:
        """How many pieces the vocabulary has."""
        return int(self._tokenizer.get_vocab_size())

    def save(self, path: Path) -> None:
        """Write the ``tokenizer.json`` in use."""
        path.write_text(self._tokenizer.to_str(), encoding="utf-8")

    def settled(self, text: str) -> int:
        """How much of ``text``, which begins where a stretch begins, has pieces that no continuation changes."""
        runs = [match.end() for match in self._run.finditer(text)]
        start = runs[-1] if runs else 0
        # The last place is mostly near the end.
        for near in (max(start, len(text) - _NEAR), start):
            places = [match.end() for match in self._place.finditer(text, near)]
            if places:
                return places[-1]
        return start

    def __call__(self, text: str) -> Pieces:
        """The pieces of ``text``, without special tokens."""
        cuts = [match.end() for match in self._run.finditer(text)] if len(text) >= LONGEST_RUN else []
        if not cuts:
            return self._encode(text, 0)
        places = [0, *cuts, len(text)]
        stretches = [self._encode(text[at:to], at) for at, to in pairwise(places)]
        return Pieces(*map(np.concatenate, zip(*stretches, strict=True)))

    def _encode(self, text: str, at: int) -> Pieces:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) + at
        types = [case_of(text[start:end]) for start, end in encoding.offsets]
        return Pieces(
            ids=np.array(encoding.ids, dtype=np.int64),
            starts=offsets[:, 0],
            ends=offsets[:, 1],
            types=np.array(types, dtype=np.int64),
        )
