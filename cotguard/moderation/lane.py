"""A lane: the channels of one choice, in the order in which a client reads them.

A channel that pauses has not ended. When text of a later channel arrives, the earlier one's tail may still become a
value: together with the later channel's text (*the seam*: a value begun in the reasoning and ended in the answer),
or when the earlier channel resumes. So:

* The later channel's detectors see the earlier one's tail as context, and values across the seam are rewritten on
  both sides.
* The earlier channel keeps its hold until the later one has brought ``PATIENCE`` characters and no value across the
  seam is under way. Then its tail is decided and written, before the later channel's first text, so that the
  order of channels stays. An earlier channel with nothing on hold delays nothing.
* A channel that resumes shows that channels interleave: it is never closed before the lane is, and delays no other.

What is written therefore depends on the order of texts in the exchange, and not on how they were cut (G1).
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from cotguard.moderation.channel import Channel, Terms
from cotguard.moderation.view import View
from cotguard.spans import ChannelKind, Span

__all__ = ["PATIENCE", "Emission", "Lane"]

PATIENCE = 32
"""Characters of a later channel that arrive before a paused channel's tail is decided: about eight tokens, once."""

_PROSE = frozenset({ChannelKind.REASONING, ChannelKind.OUTPUT})
"""Kinds that a reader takes in one after the other, so that values may span the seam."""


@dataclass(slots=True)
class Emission:
    """Text to be written for the channel ``key``; ``head`` is what ``open`` was given, the first time."""

    key: Hashable
    head: Any  # not `object`, which mypyc cannot look up here
    text: str


class Lane:
    """See the module. Raises :class:`~cotguard.moderation.channel.ModerationFault` from ``feed`` and ``finish``."""

    __slots__ = ("_active", "_channels", "_emissions", "_seams", "_terms", "cut", "finished")

    def __init__(self, terms: Terms) -> None:
        self.cut = False
        self.finished = False
        self._terms = terms
        self._channels: dict[Hashable, Channel] = {}
        self._active: Channel | None = None
        self._seams: dict[Hashable, Channel | None] = {}  # the channel whose tail a channel's text came after
        self._emissions: list[Emission] = []

    def is_open(self, key: Hashable) -> bool:
        """Whether ``open`` was called for ``key``."""
        return key in self._channels

    def open(self, key: Hashable, view: View, head: object = None) -> None:
        """Add a channel. Its place in the order is that of this call."""
        self._channels[key] = Channel(key, head, view, self._terms)

    def feed(self, key: Hashable, raw: str) -> None:
        """Take text of an open channel; after a cut it is dropped."""
        if self.cut or not raw:
            return
        channel = self._channels[key]
        if channel is not self._active:
            self._activate(channel)
        early = channel.feed(raw)
        if early:
            self._pass_back(channel, early)
        self._release()

    def finish(self) -> None:
        """Decide everything that is held: the choice is over."""
        if self.finished or self.cut:
            return
        self.finished = True
        for channel in self._channels.values():
            if not channel.closed and (early := channel.feed("", final=True)):
                self._pass_back(channel, early)
        for channel in self._channels.values():
            self._emit(channel, ended=True)

    def take(self) -> list[Emission]:
        """What is to be written since the last call, in order."""
        emissions, self._emissions = self._emissions, []
        return emissions

    def _activate(self, channel: Channel) -> None:
        """The text moves to another channel, new or paused."""
        previous = self._active
        self._active = channel
        if channel.received:
            channel.resumed = True
            if channel.closed:
                channel.open(channel.tail)
            return
        before = previous if previous and {previous.kind, channel.kind} <= _PROSE else None
        self._seams[channel.key] = before
        channel.open(before.tail if before else "")

    def _pass_back(self, channel: Channel, early: list[Span]) -> None:
        """Rewrite the part of a value across the seam that stands in the earlier channel, if it still can be."""
        before = self._seams.get(channel.key)
        if before is None or before.resumed or before.closed:
            return
        end = before.received
        for span in early:
            before.add(Span(max(end + span.start, before.released), end, span.entity, span.score, span.detector))

    def _release(self) -> None:
        paused: list[Channel] = []
        for channel in self._channels.values():
            if self.cut:
                return
            if paused and not channel.resumed:
                if channel.received < PATIENCE or channel.stable < 0:
                    return
                for earlier in paused:
                    earlier.feed("", final=True)
                    self._emit(earlier)
                paused.clear()
            self._emit(channel)
            waits = channel.held and not (channel.resumed or channel.closed or channel is self._active)
            if waits and channel.kind is not ChannelKind.TOOL_CALL:  # half a JSON document cannot be closed
                paused.append(channel)

    def _emit(self, channel: Channel, *, ended: bool = False) -> None:
        if self.cut:
            return
        text = channel.release()
        head, announce = channel.head, ended and channel.head is not None
        if text or announce:
            channel.head = None
            last = self._emissions[-1] if self._emissions else None
            if last is not None and last.key == channel.key and head is None:
                last.text += text
            else:
                self._emissions.append(Emission(channel.key, head, text))
        if channel.blocked:
            self.cut = True
            self._terms.ledger.decided += sum(each.held for each in self._channels.values())
