"""What a model says of whole texts, read through windows as the stream reads them.

The pieces of a text are cut into cores of fixed length; each core is judged in a window with context on both sides.
So every piece is judged once, and by its text's first pieces on, wherever the text is cut. Hazards are judged per
window; a text has the highest probability of its windows.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from cotguard.classifier.tokens import Integers, Pieces, Tokenizer
from models.tagger.examples import Example
from models.tagger.labels import ENTITIES, HAZARDS
from models.tagger.model import Tagger
from models.tagger.windows import align

__all__ = ["DEFAULT_GEOMETRY", "Answers", "Geometry", "Judged", "Runner", "TorchRunner", "judge"]

Floats = NDArray[np.float32]


class Geometry(NamedTuple):
    """Pieces of a window: judged ones (``core``) and context before and after them."""

    left: int
    core: int
    right: int


DEFAULT_GEOMETRY = Geometry(24, 24, 8)
"""On development texts no worse than windows with twice the context, and decided sooner."""


class Answers(NamedTuple):
    """Probabilities: ``tags`` (windows, pieces, ``len(TAGS)``), ``hazards`` (windows, ``len(HAZARDS)``)."""

    tags: Floats
    hazards: Floats


class Runner(Protocol):
    """A model in whatever form; ids, mask and types are (windows, pieces).

    ``windows`` is how many it is given at once. Dynamic int8 takes the scale of activations from all of its input,
    so that an answer would depend on the other windows: such a model gets them one by one, as in the stream.
    """

    @property
    def windows(self) -> int: ...

    def __call__(self, ids: Integers, mask: Integers, types: Integers, /) -> Answers: ...


class Judged(NamedTuple):
    """A text's pieces with their true tags, and what the model says of them.

    ``outside`` (pieces,) is the probability of ``O``; ``entities`` (pieces, ``len(ENTITIES)``) the sum of the other
    tags of each entity; ``hazards`` (``len(HAZARDS)``,).
    """

    example: Example
    pieces: Pieces
    tags: Integers
    outside: Floats
    entities: Floats
    hazards: Floats


class _Window(NamedTuple):
    text: int
    start: int
    end: int
    core: slice


def judge(
    runner: Runner, tokenizer: Tokenizer, examples: Sequence[Example], geometry: Geometry, *, title: str | None = None
) -> list[Judged]:
    """Judge every example; a bar with ``title`` tells how far it is."""
    judged = []
    for example in examples:
        pieces = tokenizer(example.text)
        count = len(pieces.ids)
        outside = np.ones(count, dtype=np.float32)
        entities = np.zeros((count, len(ENTITIES)), dtype=np.float32)
        hazards = np.zeros(len(HAZARDS), dtype=np.float32)
        judged.append(Judged(example, pieces, align(pieces, example), outside, entities, hazards))
    windows = sorted(_windows(judged, geometry), key=lambda window: window.end - window.start)
    with tqdm(total=len(windows), desc=title, disable=title is None, mininterval=5, leave=False) as bar:
        rest = iter(windows)
        while some := list(islice(rest, runner.windows)):
            _run(runner, tokenizer, judged, some)
            bar.update(len(some))
    return judged


def _windows(judged: Sequence[Judged], geometry: Geometry) -> Iterator[_Window]:
    for index, text in enumerate(judged):
        count = len(text.pieces.ids)
        for core in range(0, count, geometry.core):
            start = max(core - geometry.left, 0)
            end = min(core + geometry.core + geometry.right, count)
            yield _Window(index, start, end, slice(core, min(core + geometry.core, count)))


def _run(runner: Runner, tokenizer: Tokenizer, judged: Sequence[Judged], windows: Sequence[_Window]) -> None:
    longest = max(window.end - window.start for window in windows)
    ids = np.full((len(windows), longest + 2), tokenizer.pad_id, dtype=np.int64)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for row, window in enumerate(windows):
        length = window.end - window.start
        pieces = judged[window.text].pieces
        ids[row, 0], ids[row, length + 1] = tokenizer.cls_id, tokenizer.sep_id
        ids[row, 1 : length + 1] = pieces.ids[window.start : window.end]
        types[row, 1 : length + 1] = pieces.types[window.start : window.end]
        mask[row, : length + 2] = 1
    answers = runner(ids, mask, types)
    for row, window in enumerate(windows):
        text = judged[window.text]
        inside = slice(window.core.start - window.start + 1, window.core.stop - window.start + 1)
        tags = answers.tags[row, inside]
        text.outside[window.core] = tags[:, 0]
        text.entities[window.core] = tags[:, 1:].reshape(len(tags), len(ENTITIES), 4).sum(-1)
        np.maximum(text.hazards, answers.hazards[row], out=text.hazards)


class TorchRunner:
    """``model`` as it stands, its mode included, on the device it is on; in bfloat16 or exactly."""

    windows = 32

    def __init__(self, model: Tagger, *, exact: bool = False) -> None:
        self._model = model
        self._exact = exact

    def __call__(self, ids: Integers, mask: Integers, types: Integers, /) -> Answers:
        device = next(self._model.parameters()).device
        inputs = [torch.from_numpy(array).to(device) for array in (ids, mask, types)]
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=not self._exact):
            logits = self._model(*inputs)
        tags = logits.tags.float().softmax(-1).cpu().numpy()
        return Answers(tags, logits.hazards.float().sigmoid().cpu().numpy())
