"""Values across the markers of one text.

Detectors read a text with its markers in it, so that what stands before a marker and what stands behind it stay
apart. A *bridge* is opened at every marker: it reads the text around the marker as if no marker were there, and reports
the values that begin before its marker and end behind it. What lies on one side only is not its concern.

A bridge sees ``REACH`` characters on either side, other markers left out. It closes as soon as no value across its
marker is under way, which is mostly within a word. What it reports does not depend on when it closes (G1).
"""

from collections.abc import Callable, Sequence

from cotguard.detectors.contract import Detector, RequestFacts, Scope, Session
from cotguard.spans import ChannelKind, Span

__all__ = ["REACH", "Bridges"]

REACH = 256
"""Characters that a bridge reads before its marker, and behind it."""

_Range = tuple[int, int]


class _Bridge:
    """Offsets of its own are those of the joined text; 0 is where the marker stood."""

    __slots__ = ("_marker", "_markers", "_read", "_sessions", "_stables", "done")

    def __init__(self, marker: int, markers: list[_Range], sessions: list[Session], context: int) -> None:
        self.done = False
        self._marker = marker
        self._markers = markers  # offset and length of each marker left out, its own at 0 among them
        self._sessions = sessions
        self._stables = [-context] * len(sessions)
        self._read = 0

    @property
    def stable(self) -> int:
        """The channel's text before this offset gets no more spans from here."""
        return self._place(min(self._stables))

    def leave_out(self, length: int) -> None:
        """A marker of ``length`` characters follows."""
        self._markers.append((self._read, length))

    def feed(self, text: str, final: bool) -> list[Span]:
        """Take text behind the marker. Returns values across it, with the channel's offsets."""
        text = text[: REACH - self._read]
        self._read += len(text)
        final = final or self._read == REACH
        spans: list[Span] = []
        for index, session in enumerate(self._sessions):
            found, self._stables[index] = session.advance(text, final)
            across = [span for span in found if span.start < 0 < span.end]
            spans += [span.part(self._place(span.start), self._place(span.end - 1) + 1) for span in across]
        self.done = final or min(self._stables) >= 0
        return spans

    def _place(self, offset: int) -> int:
        """Where in the channel the joined text's character ``offset`` stands."""
        if offset < 0:
            return self._marker + offset - sum(length for at, length in self._markers if offset < at < 0)
        return self._marker + offset + sum(length for at, length in self._markers if 0 <= at <= offset)


class Bridges:
    """The bridges of one channel."""

    __slots__ = ("_detectors", "_facts", "_markers", "open")

    def __init__(self, detectors: Sequence[Detector], facts: RequestFacts) -> None:
        self._detectors = detectors
        self._facts = facts
        self._markers: list[_Range] = []  # those that the next bridge's context may hold
        self.open: list[_Bridge] = []

    @property
    def stable(self) -> int:
        """The channel's text before this offset is decided as far as the bridges go, of which one must be open."""
        return min(bridge.stable for bridge in self.open)

    def feed(
        self, before: str, text: str, end: int, markers: Sequence[_Range], kind_at: Callable[[int], ChannelKind]
    ) -> list[Span]:
        """Take ``text``, which ends at the offset ``end`` and holds ``markers``. Returns values across markers.

        ``before``: the text before it, at least ``REACH`` characters or all. ``kind_at``: the kind at an offset.
        """
        around = before + text
        origin, at = end - len(around), end - len(text)
        spans: list[Span] = []
        for start, stop in markers:
            spans += self._advance(around[at - origin : start - origin])
            for bridge in self.open:
                bridge.leave_out(stop - start)
            self._markers = [marker for marker in self._markers if marker[1] > start - REACH]
            # Behind an adjacent marker is the same place of the joined text: the bridge there reads on.
            if not (self._markers and self._markers[-1][1] == start):
                self._build(around[: start - origin][-REACH:], start, stop, kind_at(stop))
            self._markers.append((start, stop))
            at = stop
        return spans + self._advance(around[at - origin :])

    def finish(self) -> list[Span]:
        """The channel's text ends here, or pauses for good."""
        return self._advance("", final=True)

    def _advance(self, text: str, *, final: bool = False) -> list[Span]:
        if not self.open or not (text or final):
            return []
        spans = [span for bridge in self.open for span in bridge.feed(text, final)]
        self.open = [bridge for bridge in self.open if not bridge.done]
        return spans

    def _build(self, before: str, start: int, stop: int, kind: ChannelKind) -> None:
        """Open a bridge at the marker ``[start, stop)``, which comes after ``before``."""
        origin = start - len(before)
        left_out = [(0, stop - start)]
        context, at = "", start
        for marker_start, marker_stop in reversed(self._markers):
            context = before[max(marker_stop - origin, 0) : at - origin] + context
            left_out.append((-len(context), marker_stop - marker_start))
            at = max(marker_start, origin)
        context = before[: at - origin] + context
        if not context:
            return
        scope = Scope(kind, context, self._facts)
        sessions = [session for detector in self._detectors if (session := detector.open(scope)) is not None]
        if sessions:
            self.open.append(_Bridge(start, left_out, sessions, len(context)))
