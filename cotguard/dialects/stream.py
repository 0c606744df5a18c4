"""A stream of events, read and written anew: what all dialects share that send one JSON document an event.

1. Every event is read through the dialect's table; a subclass says what it means: text for a channel, a mark between
   texts, the end of a channel, the end of the response.
2. Texts feed their lanes. What a lane releases is written at the end of a read: text in the channel's own event, and
   what stands before, between and behind texts in its place among them.
3. Events are written as late as they leave: an event may be given as a function, which is called when everything before
   it has been decided. So it can repeat texts as they were delivered (:meth:`EventStream.said`), or count events.

*The short way* (:mod:`cotguard.dialects.memo`): most events equal one before but for their text.

Guarantees: nothing of an upstream event is written but what a table let through (G3). ``fail`` writes text that was
decided before the fault and never what is on hold (G5). After ``finished`` nothing is read.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from sys import getsizeof
from typing import Any, NamedTuple

from cotguard.dialects.channels import view_of
from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Prepared, Undelivered, UpstreamFault
from cotguard.dialects.memo import Memo, remembered
from cotguard.dialects.table import HOLE, Document, Step, Text
from cotguard.framing.contract import Event, Framing, FramingError
from cotguard.framing.json import JSONError, dumps, loads
from cotguard.moderation.exchange import Exchange, Lane
from cotguard.moderation.view import View

__all__ = ["MAX_KEPT_CHARS", "EventStream", "Fed", "Outgoing", "Written"]

MAX_KEPT_CHARS = 8 * 1024 * 1024
"""Of the texts of a stream that are kept as they came, at a time."""

_HOLE = dumps(HOLE)
_MAX_LIKES = 8
_UNREADABLE = "The upstream's stream could not be read."


class Outgoing(NamedTuple):
    """An event to be written: its name, if events have names, and its document."""

    name: str
    document: dict[str, Any]


Written = Outgoing | Callable[[], Outgoing | None]


class Fed(NamedTuple):
    """That an event brought ``text``, which stood at ``path`` in it, for one channel, and nothing else."""

    lane: int
    key: Hashable
    text: str
    path: tuple[Step, ...]


class _Like(NamedTuple):
    """An event that brought nothing but text, without it: the shape of events to come."""

    memo: Memo
    lane: int
    key: Hashable


class _Template(NamedTuple):
    name: str
    parts: list[bytes]


class EventStream(ABC):
    """A :class:`~cotguard.dialects.contract.Translator`. See the module.

    With ``repeats`` the text delivered in each channel is kept until the stream ends, for :meth:`said`. Without, only
    that of channels named by :meth:`keep`, until :meth:`forget`.
    """

    def __init__(self, framing: Framing, prepared: Prepared, exchange: Exchange, *, repeats: bool = False) -> None:
        self.finished = False
        self.prepared = prepared
        self.content_type = framing.content_type
        self.begun: dict[Hashable, None] = {}
        """Channels whose head, or first text, was written and whose tail was not, in order."""
        self._framing = framing
        self._exchange = exchange
        self._out: list[bytes] = []
        self._over: set[int] = set()  # lanes that were cut or finished
        self._fed_lanes: set[int] = set()  # since they were last drained
        self._templates: dict[Hashable, _Template] = {}
        self._lane_of: dict[Hashable, int] = {}
        self._run: Hashable = None
        self._run_texts: list[str] = []
        self._likes: dict[Hashable, _Like] = {}
        self._unlike = 0  # events in a row that were unlike the ones before
        self._error: Written | None = None
        self._repeats = repeats
        self._said: dict[Hashable, list[str]] = {}
        self._raw: dict[Hashable, list[str]] = {}
        self._raw_chars = 0

    # What a subclass says.

    @abstractmethod
    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        """One event, in the order of the stream. What it does not know it drops. Raises :class:`UpstreamFault`.

        Returns what was fed if that was all there was in the event.
        """

    @abstractmethod
    def upstream_ended(self) -> None:
        """The body is over. Calls :meth:`complete` if the response is; raises :class:`UpstreamFault` if not."""

    @abstractmethod
    def was_cut(self, lane: int) -> None:
        """A policy block ended a lane: write what tells the client, :meth:`complete` if nothing else follows."""

    @abstractmethod
    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        """The error that ends a stream under way."""

    def written(self, key: Hashable, text: str) -> str:
        """What stands in the event for ``text``, just released: more than that where events repeat what was said."""
        return text

    # What a subclass calls.

    def is_open(self, key: Hashable) -> bool:
        """Whether ``open`` was called for ``key``."""
        return key in self._lane_of

    def open(self, key: Hashable, view: View, delta: Outgoing, head: Written | None = None, lane: int = 0) -> None:
        """Add a channel. ``delta`` carries its text, with a hole for it; ``head`` is written before the first."""
        self._feed_run()
        self._lane_of[key] = lane
        self._templates[key] = _Template(delta.name, dumps(delta.document).split(_HOLE))
        self._lane(lane).open(key, view, head)

    def feed(self, key: Hashable, text: str) -> None:
        """Take text of an open channel."""
        if self._run != key:
            self._feed_run()
            self._run = key
        self._run_texts.append(text)

    def close(self, key: Hashable, tail: Written | None = None) -> None:
        """The channel gets no more text; ``tail`` is written behind its last."""
        self._feed_run()
        self._likes.pop(key, None)
        lane = self._lane_of[key]
        self._lane(lane).end(key, tail)
        self._fed_lanes.add(lane)

    def mark(self, event: Written, lane: int = 0) -> None:
        """Write ``event`` when everything that is there now in its lane has been written."""
        self._feed_run()
        self._lane(lane).mark(event)
        self._fed_lanes.add(lane)

    def whole(self, document: Document, lane: int = 0) -> bool:
        """Moderate all texts of a document, each by itself and at once. Returns whether it may be written."""
        self._feed_run()
        moderated = self._lane(lane)
        for text in document.texts:
            written = moderated.whole(view_of(text.channel), text.text)
            if moderated.cut:  # what is left of a JSON document is none
                self._fed_lanes.add(lane)
                return False
            document.put(text, written)
        return True

    def whole_text(self, text: Text, lane: int = 0) -> str | None:
        """Moderate one text of a document by itself and at once; None if it was blocked."""
        self._feed_run()
        moderated = self._lane(lane)
        self._fed_lanes.add(lane)
        written = moderated.whole(view_of(text.channel), text.text)
        return None if moderated.cut else written

    def is_over(self, lane: int = 0) -> bool:
        """Whether nothing of a lane is moderated any more: it was cut or finished."""
        return lane in self._over

    def finish(self, lane: int = 0) -> bool:
        """Decide and write everything that is on hold in a lane. Returns whether it ended uncut."""
        self._feed_run()
        if lane not in self._over:
            self._lane(lane).finish()
            self._drain(lane)
            if lane not in self._over:
                self._over.add(lane)
                return True
        return False

    def write(self, event: Written) -> None:
        """Write an event now."""
        outgoing = event if isinstance(event, Outgoing) else event()
        if outgoing is not None:
            self._out.append(self._framing.write(Event(outgoing.name, dumps(outgoing.document))))

    def complete(self) -> None:
        """The response is written to its end."""
        if not self.finished:
            self.finished = True
            self._out.append(self._framing.close())

    def upstream_failed(self, error: Written) -> UpstreamFault:
        """What to raise where the upstream reports an error; ``error`` is what the client is told, at the end."""
        self._error = error
        return UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)

    def said(self, key: Hashable) -> str:
        """The text delivered in a channel so far."""
        return "".join(self._said.get(key, ()))

    def keep(self, key: Hashable) -> None:
        """Keep a channel's text, as it comes for :meth:`raw` and as it is delivered for :meth:`said`."""
        self._raw[key] = []
        self._said[key] = []

    def raw(self, key: Hashable) -> str:
        """The text that came in a channel that is kept."""
        self._feed_run()
        return "".join(self._raw.get(key, ()))

    def forget(self, key: Hashable) -> None:
        """Keep a channel's text no longer."""
        self._raw_chars -= sum(map(len, self._raw.pop(key, ())))
        self._exchange.keep(-sum(map(getsizeof, self._said.pop(key, ()))))

    # The translator.

    def receive(self, data: bytes) -> bytes:
        if not self.finished:
            self._take_blocks(self._blocks(data))
        return self._flush()

    def end(self) -> bytes:
        if not self.finished:
            self._take_blocks(self._last_blocks())
        if not self.finished:
            self.upstream_ended()
        return self._flush()

    def fail(self, kind: ErrorKind, message: str, undelivered: Undelivered = Undelivered.NOTHING) -> bytes:
        if undelivered is not Undelivered.NOTHING:
            self.finished = False
            self._out.clear()
            if undelivered is Undelivered.ALL:
                self._framing.rewind()
        if not self.finished:
            self.finished = True
            reported = self._error if kind is ErrorKind.UPSTREAM_ERROR else None
            self.write(reported or self.fault(kind, message))
            self._out.append(self._framing.close())
        return self._flush()

    def keep_alive(self) -> bytes:
        return self._framing.keep_alive()

    def _flush(self) -> bytes:
        written = b"".join(self._out)
        self._out.clear()
        return written

    def _blocks(self, data: bytes) -> list[bytes]:
        try:
            return self._framing.feed(data)
        except FramingError:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _UNREADABLE) from None

    def _last_blocks(self) -> list[bytes]:
        try:
            return self._framing.end()
        except FramingError:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _UNREADABLE) from None

    def _take_blocks(self, blocks: list[bytes]) -> None:
        try:
            for block in blocks:
                if not self._take_like(block):
                    self._take_block(block)
                    if self.finished:
                        return
        except UpstreamFault:
            self._settle()  # what was decided before the fault is in `fail`, however the bytes were cut
            raise
        self._settle()

    def _take_like(self, block: bytes) -> bool:
        """The short way: whether the event was like one before."""
        for like in self._likes.values():
            text = like.memo.text(block)
            if text is not None:
                self._unlike = 0
                if like.lane not in self._over:
                    self.feed(like.key, text)
                return True
        return False

    def _take_block(self, block: bytes) -> None:
        try:
            event = self._framing.parse(block)
            document = None if event is None else self.read(event)
        except (FramingError, JSONError):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _UNREADABLE) from None
        if event is None or document is None:
            return
        if self.prepared.reported is not None:
            self.prepared.reported.take(document)
        fed = self.take(event.name, document)
        if fed is not None:
            self._remember(fed, event.name, document, block)

    def read(self, event: Event) -> dict[str, Any] | None:
        """The document of an event; None for an event that means nothing."""
        document = loads(event.data)
        if not isinstance(document, dict):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _UNREADABLE)
        return document

    def _remember(self, fed: Fed, name: str, document: dict[str, Any], block: bytes) -> None:
        self._unlike += 1
        if self._unlike & (self._unlike - 1):
            return  # where every event has something of its own, learning would be in vain: try less and less often
        holder: Any = document
        for step in fed.path[:-1]:
            holder = holder[step]
        holder[fed.path[-1]] = HOLE
        memo = remembered(block, fed.text, name, document, self._framing.parse)
        if memo is not None:
            if len(self._likes) >= _MAX_LIKES:
                self._likes.clear()
            self._likes[fed.key] = _Like(memo, fed.lane, fed.key)

    def _lane(self, index: int) -> Lane:
        return self._exchange.lane(index)

    def _feed_run(self) -> None:
        key = self._run
        if key is not None:
            self._run = None
            text = "".join(self._run_texts)
            self._run_texts.clear()
            lane = self._lane_of[key]
            if lane not in self._over:
                if key in self._raw:
                    self._keep_raw(key, text)
                self._fed_lanes.add(lane)
                self._lane(lane).feed(key, text)

    def _keep_raw(self, key: Hashable, text: str) -> None:
        self._raw_chars += len(text)
        if self._raw_chars > MAX_KEPT_CHARS:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's signed reasoning is too long.")
        self._raw[key].append(text)

    def _settle(self) -> None:
        """Feed the run and write everything that is released."""
        self._feed_run()
        while self._fed_lanes:
            self._drain(self._fed_lanes.pop())

    def _drain(self, index: int) -> None:
        lane = self._lane(index)
        for emission in lane.take():
            key = emission.key
            if emission.head is not None:
                self.write(emission.head)
            if key is None:
                continue
            if emission.head is not None or emission.text:
                self.begun[key] = None
            if emission.text:
                template = self._templates[key]
                text = dumps(self.written(key, emission.text))
                self._out.append(self._framing.write(Event(template.name, text.join(template.parts))))
                if self._repeats or key in self._said:
                    self._said.setdefault(key, []).append(emission.text)
                    self._exchange.keep(getsizeof(emission.text))
            if emission.tail is not None:
                self.begun.pop(key, None)
                self.write(emission.tail)
        if lane.cut and index not in self._over:
            self._over.add(index)
            self.was_cut(index)
