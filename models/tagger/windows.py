"""From labelled texts to batches.

1. A text is cut into word pieces, and each piece gets the tag of the span it overlaps (the first, if several).
2. For training, windows of random length begin anywhere, so that the model meets text cut at both ends, as it does in
   the stream. Tags are those of the whole text: a window may begin inside a span. Long texts give several windows in
   an epoch, half of them around a span. All windows of a text carry its hazards.
3. Windows of about the same length share a batch. Which windows an epoch has, and in which order, follows from the
   seed alone, so any position can be returned to.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cotguard.classifier.tokens import Integers, Pieces, Tokenizer
from models.tagger.examples import Example
from models.tagger.labels import HAZARDS, tag_index

__all__ = ["IGNORED", "MAX_PIECES", "Batch", "Batches", "Window", "align", "collate"]

IGNORED = -100
MAX_PIECES = 126
"""Pieces of a window at most: 128 with the two special tokens."""

_SHORTEST = 40
_CHARACTERS_A_WINDOW = 600
_MOST_WINDOWS = 4
_BATCHES_SORTED_TOGETHER = 50
_PAD_TO = 8

Floats = NDArray[np.float32]


def align(pieces: Pieces, example: Example) -> Integers:
    """The tag of each piece, ``IGNORED`` for pieces that overlap an unlabelled range. Shape (pieces,)."""
    tags = np.zeros(len(pieces.ids), dtype=np.int64)
    for start, end, entity in sorted(example.spans):
        first, last = _overlapping(pieces, start, end)
        while first < last and tags[first]:
            first += 1
        if first == last:
            continue
        tags[first:last] = tag_index("I", entity)
        tags[first] = tag_index("B", entity)
        tags[last - 1] = tag_index("E" if last - first > 1 else "S", entity)
    for start, end in example.unlabelled:
        first, last = _overlapping(pieces, start, end)
        tags[first:last] = IGNORED
    return tags


def _overlapping(pieces: Pieces, start: int, end: int) -> tuple[int, int]:
    """The range of the pieces that share a character with ``[start, end)``."""
    first = bisect_right(pieces.ends, start)
    return first, max(first, bisect_left(pieces.starts, end))


class Window(NamedTuple):
    """A window with its special tokens, shape (pieces + 2,), and its hazards (``len(HAZARDS)``,), NaN if unknown."""

    ids: Integers
    types: Integers
    tags: Integers
    hazards: Floats


class Batch(NamedTuple):
    """Padded windows as tensors: all (windows, pieces), hazards (windows, ``len(HAZARDS)``)."""

    ids: torch.Tensor
    mask: torch.Tensor
    types: torch.Tensor
    tags: torch.Tensor
    hazards: torch.Tensor


def collate(windows: Sequence[Window], pad_id: int) -> Batch:
    """One batch of ``windows``, as long as the longest of them, rounded up."""
    longest = max(len(window.ids) for window in windows)
    shape = (len(windows), -(-longest // _PAD_TO) * _PAD_TO)
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    tags = np.full(shape, IGNORED, dtype=np.int64)
    for row, window in enumerate(windows):
        length = len(window.ids)
        ids[row, :length] = window.ids
        mask[row, :length] = 1
        types[row, :length] = window.types
        tags[row, :length] = window.tags
    hazards = np.stack([window.hazards for window in windows])
    return Batch(*map(torch.from_numpy, (ids, mask, types, tags, hazards)))


@dataclass(frozen=True)
class Batches:
    """Endless batches of training windows, from any step on."""

    examples: Sequence[Example]
    tokenizer: Tokenizer
    size: int
    seed: int

    @cached_property
    def _draws(self) -> Integers:
        """The examples of an epoch, long ones several times."""
        characters = np.array([len(example.text) for example in self.examples])
        times = np.clip(-(-characters // _CHARACTERS_A_WINDOW), 1, _MOST_WINDOWS)
        return np.repeat(np.arange(len(self.examples), dtype=np.int64), times)

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        return -(-len(self._draws) // self.size)

    def after(self, step: int) -> Iterator[Batch]:
        """The batches that follow the first ``step`` ones."""
        while True:
            epoch, done = divmod(step, self.per_epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(self._draws)
            while done < self.per_epoch:
                group = done // _BATCHES_SORTED_TOGETHER
                together = self._group(order, epoch, group)
                for batch in together[done % _BATCHES_SORTED_TOGETHER :]:
                    yield batch
                    done += 1
                    step += 1

    def _group(self, order: Integers, epoch: int, group: int) -> list[Batch]:
        """The batches of one run of examples, sorted by length and then shuffled."""
        draw = np.random.default_rng([self.seed, epoch, group])
        count = _BATCHES_SORTED_TOGETHER * self.size
        chosen = order[group * count : (group + 1) * count]
        windows = [self._window(self.examples[index], draw) for index in chosen]
        windows.sort(key=lambda window: len(window.ids))
        cuts = range(0, len(windows), self.size)
        batches = [windows[cut : cut + self.size] for cut in cuts]
        return [collate(batches[index], self.tokenizer.pad_id) for index in draw.permutation(len(batches))]

    def _window(self, example: Example, draw: np.random.Generator) -> Window:
        pieces = self.tokenizer(example.text)
        tags = align(pieces, example)
        start, end = _place(tags, draw)
        special = np.zeros(1, dtype=np.int64)
        ids = np.concatenate(([self.tokenizer.cls_id], pieces.ids[start:end], [self.tokenizer.sep_id]))
        types = np.concatenate((special, pieces.types[start:end], special))
        return Window(
            ids, types, np.concatenate((special + IGNORED, tags[start:end], special + IGNORED)), _hazards(example)
        )


def _place(tags: Integers, draw: np.random.Generator) -> tuple[int, int]:
    """Where a window lies: half of them as long as can be, half of those that can move around a span."""
    length = MAX_PIECES if draw.random() < 0.5 else int(draw.integers(_SHORTEST, MAX_PIECES + 1))
    slack = len(tags) - length
    if slack <= 0:
        return 0, len(tags)
    labelled = np.flatnonzero(tags > 0)
    if len(labelled) and draw.random() < 0.5:
        inside = int(draw.choice(labelled))
        start = inside - int(draw.integers(length))
    else:
        start = int(draw.integers(-length // 4, slack + length // 4 + 1))
    start = min(max(start, 0), slack)
    return start, start + length


def _hazards(example: Example) -> Floats:
    if example.hazards is None:
        return np.full(len(HAZARDS), np.nan, dtype=np.float32)
    return np.array([code in example.hazards for code in HAZARDS], dtype=np.float32)
