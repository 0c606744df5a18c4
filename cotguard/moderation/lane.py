"""A lane: the channels of one choice and the marks between them, in the order in which a client reads them.

A channel that pauses has not ended. When text of a later channel arrives, the earlier one's tail may still become a
value: together with the later channel's text (*the seam*: a value begun in the reasoning and ended in the answer),
or when the earlier channel resumes. So:

* The later channel's detectors see the earlier one's tail as context, and values across the seam are rewritten on
  both sides. The later channel's beginning is read alone, too: it is a text of its own.
* The earlier channel keeps its hold until the later one has brought ``PATIENCE`` characters and no value across the
  seam is under way. Then its tail is decided and written, before the later channel's first text, so that the
  order of channels stays. An earlier channel with nothing on hold delays nothing.
* A channel that resumes shows that channels interleave: it is never closed before the lane is, and delays no other.
* A mark is something of the wire format that stands between texts. It is written when what stands before it is.

What is written therefore depends on the order of texts in the exchange, and not on how they were cut (G1).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from cotguard.moderation.channel import CHANNEL_BYTES, TAIL_CHARS, Channel, Terms
from cotguard.moderation.observer import ChannelObserver
from cotguard.moderation.view import View
from cotguard.spans import ChannelKind, Span

__all__ = ["PATIENCE", "Emission", "Lane"]

PATIENCE = 32
"""Characters of a later channel that arrive before a paused channel's tail is decided: about eight tokens, once."""

_PROSE = frozenset({ChannelKind.REASONING, ChannelKind.OUTPUT})
"""Kinds that a reader takes in one after the other, so that values may span the seam."""


@dataclass(slots=True)
class Emission:
    """Text to be written for the channel ``key``, or a mark: its ``key`` is None and its ``head`` is what was given.

    ``head`` is what ``open`` was given, the first time; ``tail`` what ``end`` was given, the last time.
    """

    key: Hashable
    head: Any  # not `object`, which mypyc cannot look up here
    text: str
    tail: Any = None


class _Mark:
    """A place in the order that no text stands at."""

    __slots__ = ("what",)

    def __init__(self, what: object) -> None:
        self.what: Any = what


class Lane:
    """See the module. Raises :class:`~cotguard.moderation.channel.ModerationFault` from ``feed`` and ``finish``."""

    __slots__ = (
        "_active",
        "_channels",
        "_emissions",
        "_ended",
        "_index",
        "_pending",
        "_seams",
        "_terms",
        "cut",
        "finished",
    )

    def __init__(self, terms: Terms, index: int = 0) -> None:
        self._index = index
        self.cut = False
        self.finished = False
        self._terms = terms
        self._channels: dict[Hashable, Channel] = {}
        self._pending: list[Channel | _Mark] = []  # in order, those that are not written to their end
        self._ended: dict[Hashable, Any] = {}  # channels that get no more text, with what follows it
        self._active: Channel | None = None
        self._seams: dict[Hashable, Channel | None] = {}  # the channel whose tail a channel's text came after
        self._emissions: list[Emission] = []

    def is_open(self, key: Hashable) -> bool:
        """Whether ``open`` was called for ``key``."""
        return key in self._channels

    def open(self, key: Hashable, view: View, head: object = None) -> None:
        """Add a channel. Its place in the order is that of this call."""
        self._terms.keep(CHANNEL_BYTES)
        channel = self._channels[key] = Channel(key, head, view, self._terms, self._observer(key, view))
        self._pending.append(channel)

    def _observer(self, key: Hashable, view: View) -> ChannelObserver | None:
        observer = self._terms.observer
        return None if observer is None else observer.channel(self._index, key, view.kind_at(0))

    def why(self, key: Hashable) -> list[str]:
        """What holds the text of an open channel; nothing where none is on hold. See :meth:`Channel.why`."""
        return [] if self.cut else self._channels[key].why()

    def mark(self, what: object) -> None:
        """Put ``what`` behind everything there is now; after a cut it is dropped."""
        if not self.cut:
            self._pending.append(_Mark(what))
            self._release()

    def end(self, key: Hashable, tail: object = None) -> None:
        """The channel gets no more text: none may be fed. ``tail``, if any, is written behind its last."""
        if self.cut or key in self._ended:
            return
        channel = self._channels[key]
        self._ended[key] = tail
        # Nothing but prose has a seam behind it.
        decided = not channel.held or channel.kind not in _PROSE
        if decided and not channel.closed and (early := channel.feed("", final=True)):
            self._pass_back(channel, early)
        self._release()

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

    def whole(self, view: View, raw: str) -> str:
        """Moderate a text by itself and at once; a block in it cuts the lane.

        It is the caller's to write it in its place, behind what the lane holds.
        """
        channel = Channel(None, None, view, self._terms, self._observer(None, view))
        channel.open("")
        channel.feed(raw, final=True)
        text = channel.release()
        if channel.blocked and not self.cut:
            self._cut()
            self._terms.ledger.decided += channel.held
        return text

    def finish(self) -> None:
        """Decide everything that is held: the choice is over."""
        if self.finished or self.cut:
            return
        self.finished = True
        self._decide(list(self._channels.values()))
        for entry in self._pending:
            if isinstance(entry, Channel):
                self._ended.setdefault(entry.key, None)
            self._emit(entry)
        self._pending.clear()

    def take(self) -> list[Emission]:
        """What is to be written since the last call, in order."""
        emissions, self._emissions = self._emissions, []
        return emissions

    def _activate(self, channel: Channel) -> None:
        """The text moves to another channel, new or paused."""
        self._terms.keep(0)  # the one before goes on to hold what it has
        previous = self._active
        self._active = channel
        if channel.received:
            channel.resumed = True
            if channel.closed:
                channel.open(channel.tail)
            return
        before = previous if previous and {previous.kind, channel.kind} <= _PROSE else None
        self._seams[channel.key] = before
        channel.open(self._context(before) if before else "", seam=True)

    def _context(self, before: Channel) -> str:
        """The end of the text before a seam, over as many short channels as it takes."""
        context = before.tail
        while len(context) < TAIL_CHARS and len(before.tail) == before.received:
            earlier = self._seams.get(before.key)
            if earlier is None:
                break
            before = earlier
            context = before.tail + context
        return context

    def _pass_back(self, channel: Channel, early: list[Span]) -> None:
        """Rewrite the parts of values across the seam that stand in earlier channels, where they still can be."""
        for span in early:
            end = 0  # of the earlier channel's text, in the span's offsets
            before = self._seams.get(channel.key)
            while before is not None and span.start < end:
                if before.resumed:
                    break
                start = max(before.received + span.start - end, before.released)
                if start < before.received:
                    before.add(span.part(start, before.received))
                end -= before.received
                before = self._seams.get(before.key)

    def _decide(self, entries: Sequence[Channel | _Mark]) -> None:
        """Close channels, the last first: what it finds across a seam is passed back to those that are not written."""
        for entry in reversed(entries):
            if isinstance(entry, Channel) and not entry.closed and (early := entry.feed("", final=True)):
                self._pass_back(entry, early)

    def _release(self) -> None:
        paused: list[Channel | _Mark] = []  # channels whose tails wait for a decision, and what is behind them
        behind = 0  # characters behind the first of them
        waits = False  # whether a mark would be written before text that stands before it
        done = False
        for entry in self._pending:
            if self.cut:
                return
            if isinstance(entry, _Mark):
                if paused:
                    paused.append(entry)
                elif not waits:
                    self._emit(entry)
                    done = True
                continue
            if paused and not entry.resumed:
                behind += entry.received
                if behind < PATIENCE or entry.stable < 0:
                    if not entry.closed and entry.key not in self._ended and (entry is self._active or not entry.held):
                        break
                    paused.append(entry)
                    continue
                self._decide(paused)
                for earlier in paused:
                    self._emit(earlier)
                paused.clear()
                behind = 0
                waits, done = False, True
            self._emit(entry)
            if entry.key in self._ended and entry.closed:
                done = True
            # Half a JSON document cannot be closed.
            elif entry.held and not entry.resumed and not entry.closed and entry.kind is not ChannelKind.TOOL_CALL:
                waits = True
                if entry is not self._active or entry.key in self._ended:
                    paused.append(entry)
        if done and not self.cut:
            self._pending = [entry for entry in self._pending if not self._is_over(entry)]

    def _is_over(self, entry: Channel | _Mark) -> bool:
        if isinstance(entry, _Mark):
            return entry.what is None
        return entry.key in self._ended and entry.closed

    def _emit(self, entry: Channel | _Mark) -> None:
        if self.cut:
            return
        if isinstance(entry, _Mark):
            if entry.what is not None:
                self._emissions.append(Emission(None, entry.what, ""))
                entry.what = None
            return
        text = entry.release()
        head, over = entry.head, entry.closed and entry.key in self._ended
        tail = self._ended[entry.key] if over and not entry.blocked else None
        if text or (over and (head is not None or tail is not None)):
            entry.head = None
            if over:
                self._ended[entry.key] = None
            last = self._emissions[-1] if self._emissions else None
            if last is not None and last.key == entry.key and head is None:
                last.text += text
                last.tail = tail
            else:
                self._emissions.append(Emission(entry.key, head, text, tail))
        if entry.blocked:
            self._cut()

    def _cut(self) -> None:
        self.cut = True
        self._terms.ledger.decided += sum(each.held for each in self._channels.values())
