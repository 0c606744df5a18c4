"""The classifier as a detector: windows over word pieces, placed by the text alone.

1. Text is encoded as far as its pieces are sure (:meth:`~cotguard.classifier.tokens.Tokenizer.settled`).
2. Pieces are judged in cores of fixed length, counted from the start of the channel. A core's window has the pieces
   before it as left context and waits for as many to its right as the bundle looks ahead.
3. What is judged once stays: a span that touches the end of a core stays open until the next one is judged, and
   ``stable`` waits for it. So the same text has the same spans however it is cut (G1).

Text of another channel that comes before this one's (``Scope.context``) is left context only: values across the seam
are the deterministic detectors' business.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np

from cotguard.classifier.bundle import BundleError, Manifest, load
from cotguard.classifier.handover import ask
from cotguard.classifier.joining import WITH_NUMBER, Joiner, Labels
from cotguard.classifier.remote.address import Served
from cotguard.classifier.remote.model import RemoteModel
from cotguard.classifier.tensors import Answer, InferenceError, Model, Window
from cotguard.classifier.tokens import Case, Pieces, Tokenizer
from cotguard.detectors.contract import Scope
from cotguard.spans import ChannelKind, Span

__all__ = ["Classifier"]


class Classifier:
    """A :class:`~cotguard.detectors.contract.Detector`.

    In a :func:`~cotguard.classifier.handover.handed_over` call windows go to whoever awaits its end; elsewhere they
    are judged on the spot.
    """

    name = "classifier"

    def __init__(self, engine: Model) -> None:
        manifest = engine.bundle.manifest
        self.engine = engine
        spans = {*manifest.entities.values()}
        refined = {WITH_NUMBER[entity] for entity in spans & WITH_NUMBER.keys()}
        self.entities = frozenset(spans | refined | {*manifest.hazard_entities.values()})
        self.labels = Labels(manifest)
        self._hazards = _Hazards(manifest)

    @classmethod
    def load(cls, bundle: str, served: Served | None = None) -> Self:
        """The classifier of a ready bundle or a directory: warmed up, unless its model is ``served`` elsewhere.

        Raises :class:`~cotguard.classifier.bundle.BundleError`.
        """
        if served is not None:
            return cls(RemoteModel(load(bundle), served))
        from cotguard.classifier.engine import Engine  # and with it ONNX Runtime, which others need not load

        classifier = cls(Engine(load(bundle)))
        try:
            classifier.open(Scope(ChannelKind.OTHER)).advance(
                classifier.engine.bundle.manifest.self_test.text, final=True
            )
        except InferenceError as error:
            raise BundleError(f"{classifier.engine.bundle.model}: {error}; restore the bundle") from error
        return classifier

    def open(self, scope: Scope) -> "_Session":
        return _Session(self, scope.context)

    def judge(self, windows: Sequence[Window]) -> Sequence[Answer]:
        """Answers to windows, in their order."""
        return ask(self.name, self.engine.run, windows)

    def hazards(self, start: int, end: int, answer: Answer) -> list[Span]:
        """Hazards of a window, as spans over its core."""
        return self._hazards.read(start, end, answer)


class _Hazards:
    def __init__(self, manifest: Manifest) -> None:
        self._rows = [
            (manifest.hazards.index(name), entity, manifest.hazard_thresholds[name])
            for name, entity in manifest.hazard_entities.items()
        ]
        size = len(manifest.hazards)
        self._least = np.full(size, np.inf, dtype=np.float32)
        for row, _, threshold in self._rows:
            self._least[row] = threshold

    def read(self, start: int, end: int, answer: Answer) -> list[Span]:
        if not (answer.hazards >= self._least).any():
            return []
        return [
            Span(start, end, entity, round(float(answer.hazards[row]), 4), f"classifier/{entity}")
            for row, entity, threshold in self._rows
            if answer.hazards[row] >= threshold
        ]


class _Session:
    """One channel. Pieces are kept from the left context of the next core on."""

    def __init__(self, classifier: Classifier, context: str) -> None:
        bundle = classifier.engine.bundle
        self._classifier = classifier
        self._tokenizer: Tokenizer = bundle.tokenizer
        self._window = bundle.manifest.window
        self._context = context
        self._joiner = Joiner(classifier.labels.entities)
        self._text = ""  # not encoded yet
        self._at = 0  # where that begins
        self._last = ""  # the character before it
        self._pieces = _none()
        self._glued: list[bool] = []  # by piece: goes on with the word of the one before
        self._spaced: list[bool] = []  # by piece: white space before it
        self._worded: list[bool] = []  # by piece: has a letter or a digit
        self._first = 0  # number of the first piece kept
        self._core = 0  # number of the first piece of the next core
        self._stable = 0

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        self._text += text
        if not final and self._count + len(self._text) < self._needed:
            return (), self._stable  # a piece has a character or more: no window can be complete
        self._encode(final=final)
        spans: list[Span] = []
        cores = self._complete(final=final)
        if cores:
            answers = self._classifier.judge([self._window_of(start, end) for start, end in cores])
            for (start, end), answer in zip(cores, answers, strict=True):
                self._read(start, end, answer, spans)
            self._forget()
        if final:
            closed = self._joiner.close()
            if closed is not None:
                spans.append(closed)
            self._stable = self._at
        else:
            self._stable = self._joiner.begin(continues=self._continues, frontier=self._frontier)
        return spans, self._stable

    @property
    def _count(self) -> int:
        """How many pieces there are so far."""
        return self._first + len(self._glued)

    @property
    def _needed(self) -> int:
        """How many pieces complete the next window."""
        return self._core + self._window.core + self._window.right

    @property
    def _continues(self) -> bool:
        """Whether the next piece may go on with a word that was judged in part."""
        index = self._core - self._first
        return self._core > 0 and (index == len(self._glued) or self._glued[index])

    @property
    def _frontier(self) -> int:
        index = self._core - self._first
        return int(self._pieces.starts[index]) if index < len(self._glued) else self._at

    def _encode(self, *, final: bool) -> None:
        settled = len(self._text) if final else self._tokenizer.settled(self._text)
        if not settled:
            return
        text, self._text = self._text[:settled], self._text[settled:]
        fresh = self._tokenizer(text)
        before, last = 0, self._last
        for start, end in zip(fresh.starts.tolist(), fresh.ends.tolist(), strict=True):
            self._glued.append(start == before and last.isalnum() and text[start].isalnum())
            self._spaced.append(start > before or (start == 0 and last.isspace()))
            self._worded.append(any(map(str.isalnum, text[start:end])))
            before, last = end, text[end - 1]
        self._last = text[-1]
        moved = Pieces(fresh.ids, fresh.starts + self._at, fresh.ends + self._at, fresh.types)
        self._pieces = Pieces(*map(np.concatenate, zip(self._pieces, moved, strict=True)))
        self._at += settled

    def _complete(self, *, final: bool) -> list[tuple[int, int]]:
        """The cores that can be judged, as numbers of pieces; they are the next ones."""
        cores = []
        while self._needed <= self._count or (final and self._core < self._count):
            end = min(self._core + self._window.core, self._count)
            cores.append((self._core, end))
            self._core = end
        return cores

    def _window_of(self, start: int, end: int) -> Window:
        left = start - self._window.left
        first = max(left, 0) - self._first
        last = min(end + self._window.right, self._count) - self._first
        ids, types = self._pieces.ids[first:last], self._pieces.types[first:last]
        if left < 0 and self._context:
            before = self._tokenizer(self._context)
            ids = np.concatenate((before.ids[left:], ids))
            types = np.concatenate((before.types[left:], types))
        return Window(ids, types)

    def _read(self, start: int, end: int, answer: Answer, spans: list[Span]) -> None:
        """Take the answer to the core of pieces ``[start, end)``."""
        length = min(end + self._window.right, self._count) - start
        skipped = len(answer.labels) - length if len(answer.labels) else 0
        starts, ends, types = self._pieces.starts, self._pieces.ends, self._pieces.types
        first, last = start - self._first, end - self._first
        if len(self._classifier.labels.names):
            labels = self._classifier.labels.read(answer.labels[skipped : skipped + end - start])
            for index, piece in zip(range(first, last), labels, strict=True):
                closed = self._joiner.take(
                    int(starts[index]),
                    int(ends[index]),
                    piece,
                    glued=self._glued[index],
                    spaced=self._spaced[index],
                    worded=self._worded[index],
                    number=types[index] == Case.DIGITS,
                )
                if closed is not None:
                    spans.append(closed)
        spans += self._classifier.hazards(int(starts[first]), int(ends[last - 1]), answer)

    def _forget(self) -> None:
        """Drop pieces that no window needs any more."""
        done = max(self._core - self._window.left - self._first, 0)
        self._pieces = Pieces(*(array[done:] for array in self._pieces))
        del self._glued[:done], self._spaced[:done], self._worded[:done]
        self._first += done


def _none() -> Pieces:
    nothing = np.zeros(0, dtype=np.int64)
    return Pieces(nothing, nothing, nothing, nothing)
