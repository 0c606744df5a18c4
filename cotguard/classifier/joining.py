"""From labels of pieces to spans.

1. A piece is labelled with its likeliest entity if the probability that it is any entity reaches that entity's
   threshold.
2. Pieces of one entity that follow each other are one span; so are those with up to two other pieces between them and
   no white space (``ann`` ``.`` ``lee``).
3. A span has whole words: letters and digits that follow each other are in it or not.
4. What has neither letter nor digit (an emoji beside a value) is none.
5. A place with a number in it is an address (``12 Harbour Lane``): policies let places pass.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cotguard.classifier.bundle import Manifest
from cotguard.spans import Span

__all__ = ["WITH_NUMBER", "Joiner", "Labelled", "Labels"]

Floats = NDArray[np.float32]

_GAP = 2
WITH_NUMBER = {"LOCATION": "STREET_ADDRESS"}
"""What a span with a number in it is instead."""
_LONGEST = 1024
"""Characters after which a span ends, and another begins: what is on hold stays bounded."""


class Labelled(NamedTuple):
    """A judged piece. ``entity`` is an index or -1; ``begins``: as far as the model knows a value begins here."""

    entity: int
    score: float
    begins: bool


class Labels:
    """Reads the outputs per piece of a model as its manifest says."""

    def __init__(self, manifest: Manifest) -> None:
        self.names = tuple(manifest.entities)
        self.entities = tuple(manifest.entities.values())
        thresholds = [manifest.thresholds[name] for name in self.names]
        self._thresholds = np.array(thresholds, dtype=np.float32)
        self._of_entity = np.zeros((len(manifest.labels), len(self.names)), dtype=np.float32)
        self._begins = np.zeros(len(manifest.labels), dtype=bool)
        for row, label in enumerate(manifest.labels):
            prefixed = label[1:2] == "-"
            name = label[2:] if prefixed else label
            if name in self.names:
                self._of_entity[row, self.names.index(name)] = 1
                self._begins[row] = prefixed and label[0] in "BS"

    def read(self, probabilities: Floats) -> Iterator[Labelled]:
        """The pieces of ``probabilities`` (pieces, labels)."""
        by_entity = probabilities @ self._of_entity
        likeliest = by_entity.argmax(-1)
        mass = by_entity.sum(-1)
        likeliest[mass < self._thresholds[likeliest]] = -1
        begins = self._begins[probabilities.argmax(-1)]
        return map(Labelled, likeliest.tolist(), np.minimum(mass, 1).tolist(), begins.tolist())


class Joiner:
    """Joins the pieces of one text. Offsets are the text's."""

    __slots__ = ("_end", "_entities", "_entity", "_gap", "_number", "_score", "_start", "_word", "_worded")

    def __init__(self, entities: tuple[str, ...]) -> None:
        self._entities = entities
        self._entity = -1  # of the open span
        self._start = self._end = self._word = 0
        self._score = 0.0
        self._gap = 0
        self._number = self._worded = False

    def begin(self, *, continues: bool, frontier: int) -> int:
        """Where the text begins that the next piece may still change.

        The next piece may go on with a word (``continues``), or stands at ``frontier``.
        """
        if self._entity >= 0:
            return self._start
        return self._word if continues else frontier

    def take(
        self,
        start: int,
        end: int,
        piece: Labelled,
        *,
        glued: bool,
        spaced: bool,
        worded: bool = True,
        number: bool = False,
    ) -> Span | None:
        """Add a piece; returns the span that it ends.

        ``glued``: it goes on with the word of the piece before; ``spaced``: there is white space before it;
        ``worded``: it has a letter or a digit; ``number``: it is digits.
        """
        if end <= start:  # what normalising made of nothing
            return None
        if not glued:
            self._word = start
        closed = None
        if self._entity >= 0:
            if end - self._start <= _LONGEST and self._joins(piece, glued=glued, spaced=spaced):
                if (glued and self._gap == 0) or piece.entity == self._entity:
                    self._end, self._gap = end, 0
                    self._score = max(self._score, piece.score if piece.entity == self._entity else 0.0)
                    self._number |= number
                    self._worded |= worded
                return None
            closed = self.close()
        if piece.entity >= 0:
            self._entity, self._score, self._gap = piece.entity, piece.score, 0
            self._number, self._worded = number, worded or glued
            self._start, self._end = (self._word if glued else start), end
            if closed is not None:
                self._start = max(self._start, closed.end)
        return closed

    def _joins(self, piece: Labelled, *, glued: bool, spaced: bool) -> bool:
        """Whether the open span stays open; counts what is between its pieces."""
        if glued and self._gap == 0:
            return True
        if piece.entity == self._entity:
            return not spaced or (self._gap == 0 and not piece.begins)
        if piece.entity >= 0 or spaced or self._gap == _GAP:
            return False
        self._gap += 1
        return True

    def close(self) -> Span | None:
        """The open span, if there is one: nothing joins it any more."""
        if self._entity < 0:
            return None
        entity, self._entity = self._entities[self._entity], -1
        if not self._worded:
            return None
        if self._number:
            entity = WITH_NUMBER.get(entity, entity)
        return Span(self._start, self._end, entity, round(self._score, 4), f"classifier/{entity}")
