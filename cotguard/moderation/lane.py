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
    """Text to be written for the channel ``key``; ``head`` is what ``open`` was given, in a channel's first emission."""

    key: Hashable
    head: object
    text: str


class Lane:
    """See the module. Raises :class:`~cotguard.moderation.channel.ModerationFault` from ``feed`` and ``finish``."""

    __slots__ = ("_active", "_channels", "_emissions", "_previous", "_terms", "_views", "cut", "finished")

    def __init__(self, terms: Terms) -> None:
        self.cut = False
        self.finished = False
        self._terms = terms
        self._channels: dict[Hashable, Channel] = {}
        self._views: dict[Hashable, View] = {}
        self._active: Channel | None = None
        self._previous: Channel | None = None  # what the active channel's first text came after
        self._emissions: list[Emission] = []

    @property
    def held(self) -> int:
        """Characters on hold."""
        return sum(channel.held for channel in self._channels.values())

    def is_open(self, key: Hashable) -> bool:
        """Whether ``open`` was called for ``key``."""
        return key in self._channels

    def open(self, key: Hashable, view: View, head: object = None) -> None:
        """Add a channel. Its place in the order is that of this call."""
        self._channels[key] = Channel(key, head, view, self._terms)
        self._views[key] = view

    def feed(self, key: Hashable, raw: str) -> None:
        """Take text of an open channel; after a cut it is dropped."""
        if self.cut or not raw:
            return
        channel = self._channels[key]
        if channel is not self._active:
            self._activate(channel)
        self._pass_back(channel, channel.feed(raw))
        self._release()
