"""Origins: in which of a request's texts a value stands.

A value stands in a text if its letters and digits stand there, folded (:mod:`cotguard.detectors.characters`), whatever
their case and with up to ``MAX_GAP`` other characters between any two of them, and with a word border at either end:
``123456`` is not in ``91234567``. The border is the text's: ``123 456`` is in ``no. 123456``, and ``456`` is not.
A value that is only there when two texts are put together is in neither.

Algorithm: when first asked, texts of one kind are squeezed to their letters and digits, with a break where a longer gap
is and between texts, and the places are noted where a run of letters and digits begins. A question is then a search
for a string, in time linear in the texts, and is answered once for each value.

Limits: a value in a text is found as it stands and not encoded, so ``ann%40example.com`` does not make
``ann@example.com`` the user's own (the other way round it does); after ``MAX_INSIDE`` places where a value stands
inside a longer word it is no longer looked for.
"""

import re

from cotguard.detectors.characters import CharacterReader, fold_text, glues, has_escape, squeeze
from cotguard.detectors.known_values import MAX_GAP
from cotguard.spans import ChannelKind

__all__ = ["MAX_INSIDE", "Origins"]

MAX_INSIDE = 1_000
"""Places without word borders that one question looks at, of each kind of text."""

_BREAK = "\n"
_PIECES = re.compile(rf"[^\W_]+|[\W_]{{{MAX_GAP + 1},}}")


class Origins:
    """Built from the texts of one request."""

    __slots__ = ("_answers", "_indexes", "_texts")

    def __init__(self) -> None:
        self._texts: dict[ChannelKind, list[str]] = {}
        self._indexes: dict[ChannelKind, _Index] = {}
        self._answers: dict[str, frozenset[ChannelKind]] = {}

    def add(self, kind: ChannelKind, text: str) -> None:
        """The request has ``text``, of ``kind``."""
        self._texts.setdefault(kind, []).append(text)
        self._indexes.pop(kind, None)
        self._answers.clear()

    def of(self, value: str) -> frozenset[ChannelKind]:
        """The kinds of texts that ``value`` stands in, as it is or with its escapes resolved."""
        answer = self._answers.get(value)
        if answer is None:
            cores = {squeeze(value)}
            if has_escape(value):
                cores.add(squeeze(CharacterReader(0, escapes=True).feed(value, final=True).symbols))
            found = {kind for kind in self._texts for core in cores if core and self._index(kind).holds(core)}
            answer = self._answers[value] = frozenset(found)
        return answer

    def _index(self, kind: ChannelKind) -> "_Index":
        index = self._indexes.get(kind)
        if index is None:
            index = self._indexes[kind] = _Index(self._texts[kind])
        return index


class _Index:
    """``symbols``: letters and digits, and breaks. ``beginnings``: where those after other characters are."""

    __slots__ = ("_beginnings", "_symbols")

    def __init__(self, texts: list[str]) -> None:
        pieces: list[str] = []
        beginnings: set[int] = set()
        at = 0
        for text in texts:
            for piece in _PIECES.findall(fold_text(text).lower()):
                beginnings.add(at)
                pieces.append(piece if piece[0].isalnum() else _BREAK)
                at += len(pieces[-1])
            beginnings.add(at)
            pieces.append(_BREAK)
            at += 1
        self._symbols = "".join(pieces)
        self._beginnings = beginnings

    def holds(self, core: str) -> bool:
        symbols = self._symbols
        at = symbols.find(core)
        for _ in range(MAX_INSIDE):
            if at < 0:
                return False
            if self._is_border(at) and self._is_border(at + len(core)):
                return True
            at = symbols.find(core, at + 1)
        return False

    def _is_border(self, at: int) -> bool:
        symbols = self._symbols
        return at in self._beginnings or not (glues(symbols[at - 1]) and glues(symbols[at]))
