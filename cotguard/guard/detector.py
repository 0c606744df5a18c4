"""A guard model as a detector: segments of a channel, placed by the text alone, judged with what stands before them.

1. Text is cut into segments (:mod:`~cotguard.guard.segments`).
2. All segments that are complete are asked about together, each with the user's last message and the text before it.
   A text is judged in its context, so a hazard can be told of the segments right behind it too.
3. ``stable`` is the start of the first segment without a verdict. A hazard is a span over its whole segment.

So the same text has the same spans however it is cut, as far as the guard gives one question one answer (it is asked at
temperature 0). What of an earlier channel comes before this one's text is not shown to the guard: an answer is not
judged by the reasoning.
"""

from collections.abc import Callable, Collection, Sequence

from cotguard.classifier.handover import ask
from cotguard.detectors.contract import Scope, Session
from cotguard.guard.format import GuardFormat, Hazard, Passage
from cotguard.guard.segments import Splitter
from cotguard.spans import ChannelKind, Span

__all__ = ["Guard", "Judge"]

Judge = Callable[[Sequence[Passage]], Sequence[Sequence[Hazard]]]
"""Finds the hazards of each passage."""

_PROSE = frozenset({ChannelKind.REASONING, ChannelKind.OUTPUT})
"""Kinds between which a channel may change within its text, at a marker."""


class Guard:
    """A :class:`~cotguard.detectors.contract.Detector` for channels of ``kinds``.

    In a :func:`~cotguard.classifier.handover.handed_over` call passages go to whoever awaits its end, by the name
    ``answerer``, which those share that ask for the same hazards; elsewhere to ``judge``.
    """

    name = "guard"

    def __init__(self, form: GuardFormat, kinds: Collection[ChannelKind], judge: Judge | None = None) -> None:
        self.form = form
        self.entities = form.hazards
        self.answerer = ":".join((self.name, *sorted(form.hazards)))
        self._judge = judge or _nobody
        self._kinds = frozenset(kinds) | (_PROSE if not _PROSE.isdisjoint(kinds) else frozenset())

    def open(self, scope: Scope) -> Session | None:
        if scope.kind not in self._kinds:
            return None
        return _Session(self, scope.request.user)

    def judge(self, passages: Sequence[Passage]) -> Sequence[Sequence[Hazard]]:
        """The hazards of each passage."""
        return ask(self.answerer, self._judge, passages)


def _nobody(_passages: Sequence[Passage]) -> Sequence[Sequence[Hazard]]:
    raise LookupError("a guard is asked by the gateway only")


class _Session:
    """One channel. Text is kept from the context of the next segment on."""

    def __init__(self, guard: Guard, user: str) -> None:
        form = guard.form
        self._guard = guard
        self._context = form.context.before
        self._user = user[-form.context.user :] if form.context.user else ""
        self._splitter = Splitter(form.segment.least, form.segment.most)
        self._text = ""
        self._base = 0  # offset of the text that is kept
        self._start = 0  # of the next segment, in that text

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        self._text += text
        places: list[tuple[int, int]] = []
        start = self._start
        while (end := self._splitter.end(self._text, start, final=final)) is not None:
            if not self._text[start:end].isspace():
                places.append((start, end))
            start = end
        spans: list[Span] = []
        if places:
            answers = self._guard.judge([self._passage(*place) for place in places])
            for (first, last), hazards in zip(places, answers, strict=True):
                spans += self._spans(first, last, hazards)
        done = max(start - self._context, 0)
        self._text, self._base, self._start = self._text[done:], self._base + done, start - done
        return spans, self._base + self._start

    def _passage(self, start: int, end: int) -> Passage:
        return Passage(self._user, self._text[max(start - self._context, 0) : start], self._text[start:end])

    def _spans(self, start: int, end: int, hazards: Sequence[Hazard]) -> list[Span]:
        """The hazards as spans over the segment, without the white space around it."""
        segment = self._text[start:end]
        first = self._base + end - len(segment.lstrip())
        last = self._base + start + len(segment.rstrip())
        best: dict[str, float] = {}
        for entity, score in hazards:
            best[entity] = max(score, best.get(entity, 0))
        return [
            Span(first, last, entity, score, f"{self._guard.name}/{entity}") for entity, score in sorted(best.items())
        ]
