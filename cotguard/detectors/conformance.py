"""The conformance kit: checks any detector, ours or a third party's, against the detector contract.

    from cotguard.detectors.conformance import check_every_cut, find

    def test_contract():
        check_every_cut(MyDetector(), "a text with something in it, and something that nearly is")

``find`` runs a whole text. ``check_cuts`` feeds a text in the given pieces and asserts, against the whole text:

* the same set of spans (G1);
* ``stable`` never decreases, never passes what was received, and is the text's length in the end;
* every span was reported before ``stable`` passed its start, and starts in the text or its context (G2).
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from cotguard.detectors.contract import Detector, Scope
from cotguard.spans import ChannelKind, Span

__all__ = ["check_cuts", "check_every_cut", "find"]


def find(detector: Detector, text: str, scope: Scope | None = None) -> list[Span]:
    """All spans of ``text`` fed at once, by start."""
    session = detector.open(scope or Scope(ChannelKind.OUTPUT))
    if session is None:
        return []
    spans, stable = session.advance(text, final=True)
    assert stable == len(text), "after the final piece everything must be stable"
    return sorted(spans, key=_order)


def check_cuts(detector: Detector, text: str, cuts: Iterable[int], scope: Scope | None = None) -> None:
    """Feed ``text`` cut at the offsets ``cuts`` and compare with the whole; ``AssertionError`` says what is broken."""
    scope = scope or Scope(ChannelKind.OUTPUT)
    expected = find(detector, text, scope)
    session = detector.open(scope)
    if session is None:
        return
    offsets = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(offsets)]
    got: list[Span] = []
    stable = -len(scope.context)
    for index, piece in enumerate(pieces):
        final = index == len(pieces) - 1
        spans, now_stable = session.advance(piece, final)
        _check_step(spans, stable, now_stable, offsets[index + 1], scope)
        got.extend(spans)
        stable = now_stable
    assert stable == len(text), "after the final piece everything must be stable"
    got.sort(key=_order)
    assert got == expected, f"pieces {pieces!r}: {got} instead of {expected}"


def _order(span: Span) -> tuple[int, int, str, str, str]:
    return span.start, span.end, span.entity, span.detector, span.value or ""


def _check_step(spans: Sequence[Span], stable: int, now_stable: int, received: int, scope: Scope) -> None:
    assert stable <= now_stable <= received, f"stable went from {stable} to {now_stable} of {received} received"
    for span in spans:
        assert span.start >= stable, f"{span} was reported after everything up to {stable} was called stable"
        assert -len(scope.context) <= span.start < span.end <= received, f"{span} is outside the text"
        assert span.end > 0, f"{span} ends inside the context"


def check_every_cut(detector: Detector, text: str, scope: Scope | None = None) -> None:
    """``check_cuts`` for every single cut, for one character at a time, and with empty pieces in between."""
    for cut in range(len(text) + 1):
        check_cuts(detector, text, [cut], scope)
    every = range(1, len(text))
    check_cuts(detector, text, every, scope)
    check_cuts(detector, text, [*every, *every], scope)
