"""Who follows an exchange text by text: for programs that explain what happens, and for tests. Nobody in the proxy.

An observer is told of every channel that is opened, and may want to follow it. What it is told is text, so it must keep
within the guarantees by itself (G7): where there is none, nothing of this is made.

Offsets are code points of a channel's text, as everywhere; the text of tool arguments is their JSON document with its
escapes decoded.
"""

from collections.abc import Hashable, Sequence
from typing import Protocol

from cotguard.moderation.verdict import Outcome
from cotguard.moderation.view import Edit
from cotguard.spans import Action, ChannelKind, Span

__all__ = ["REQUEST", "ChannelObserver", "Observer", "RecordedChannel", "Recorder"]

REQUEST = -1
"""Stands for the lane of texts of the request, which are in none."""


class ChannelObserver(Protocol):
    """Follows one channel. What a fault interrupts may have been told of and is not delivered."""

    def received(self, text: str, kind: ChannelKind) -> None:
        """The next text came in, all of one kind; empty where what came cannot be read yet (half an escape)."""
        ...

    def decided(self, span: Span, kind: ChannelKind, action: Action, outcome: Outcome, rule: int) -> None:
        """A value was found and decided, by the policy's rule of that index (-1: its default, or no rule at all).

        What was found together with another value, or stands in one, may be written as that one is.
        """
        ...

    def passed(self, span: Span) -> None:
        """A value that was decided stays as it is all the same: it is a part of one that may pass."""
        ...

    def wrote(self, start: int, end: int, edits: Sequence[Edit], text: str) -> None:
        """``text`` stands for ``[start, end)``: the edits, in their order, made of the text there. Without gaps."""
        ...

    def blocked(self, end: int) -> None:
        """A block ended the channel. The value that is blocked ends at ``end``."""
        ...


class Observer(Protocol):
    """Follows one exchange."""

    def channel(self, lane: int, key: Hashable, kind: ChannelKind) -> ChannelObserver | None:
        """Who follows a new channel, if anybody does; ``lane`` is ``REQUEST`` for a text of the request.

        ``key`` is None for a text that is moderated by itself and at once.
        """
        ...


class RecordedChannel:
    """Keeps the spans of one channel with their actions. What ``further`` wants to know it is told, too."""

    def __init__(self, further: ChannelObserver | None = None, lane: int = REQUEST) -> None:
        self.lane = lane
        self.spans: list[tuple[Span, Action]] = []
        self.is_cut = False
        self._further = further
        self._reached = 0

    def before(self) -> list[tuple[Span, Action]]:
        """Those of what was written, and of what is blocked if that is in this channel."""
        return [(span, action) for span, action in self.spans if span.start < self._reached]

    def received(self, text: str, kind: ChannelKind) -> None:
        if self._further is not None:
            self._further.received(text, kind)

    def decided(self, span: Span, kind: ChannelKind, action: Action, outcome: Outcome, rule: int) -> None:
        self.spans.append((span, action))
        if self._further is not None:
            self._further.decided(span, kind, action, outcome, rule)

    def passed(self, span: Span) -> None:
        if self._further is not None:
            self._further.passed(span)

    def wrote(self, start: int, end: int, edits: Sequence[Edit], text: str) -> None:
        self._reached = end
        if self._further is not None:
            self._further.wrote(start, end, edits, text)

    def blocked(self, end: int) -> None:
        self.is_cut, self._reached = True, end
        if self._further is not None:
            self._further.blocked(end)


class Recorder:
    """Keeps the spans of what is written in return, with their actions: an observer."""

    def __init__(self) -> None:
        self._channels: list[RecordedChannel] = []

    def channel(self, lane: int, key: Hashable, kind: ChannelKind) -> RecordedChannel | None:
        if lane == REQUEST:
            return None
        self._channels.append(RecordedChannel(lane=lane))
        return self._channels[-1]

    @property
    def found(self) -> list[tuple[Span, Action]]:
        """All that was found; behind a block that is as much as was read of it, which depends on the cuts."""
        return [each for channel in self._channels for each in channel.spans]

    @property
    def spans(self) -> list[tuple[Span, Action]]:
        """The same without what stands behind a block."""
        cut = {channel.lane for channel in self._channels if channel.is_cut}
        spans = []
        for channel in self._channels:
            spans += channel.before() if channel.lane in cut else channel.spans
        return spans
