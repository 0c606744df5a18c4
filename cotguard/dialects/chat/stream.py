"""A Chat Completions stream: chunks in, moderated chunks out.

1. Every chunk is read through the table. Roles and empty fields are written at once; texts feed their channels.
2. At the end of a read, and before anything that must come after them, released texts are written: adjacent texts of
   one channel in one chunk, each from a template whose bytes are made once.
3. A finish reason ends its choice: held text is decided and written first. A block writes ``content_filter``.
4. ``[DONE]`` is written once, when the upstream writes it, when it closes after the last finish reason, or when a
   block ended the last choice. Nothing follows it.

*The short way* (:mod:`cotguard.dialects.memo`). Most chunks equal the one before but for their text: it is told by
comparing bytes and joins the run that is fed at the end of the read, as the table said of the chunk before.

Guarantees: nothing of an upstream chunk is written but what the table let through (G3). ``fail`` writes text that
was decided before the fault and never what is on hold (G5).
Known limit: identifiers, model and time are those of the first chunk that has them.
"""

from collections.abc import Hashable
from typing import Any, NamedTuple

from cotguard.dialects.chat.choice import Choice, Piece
from cotguard.dialects.chat.format import Format, as_object, envelope, error_object
from cotguard.dialects.chat.sealed import Signed
from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Prepared, Undelivered, UpstreamFault
from cotguard.dialects.memo import Memo, remembered
from cotguard.dialects.table import HOLE
from cotguard.framing.json import JSONError, dumps, loads
from cotguard.framing.sse import KEEP_ALIVE, FramingError, Reader, ServerSentEvents, event, is_done, parse
from cotguard.moderation.exchange import Exchange

__all__ = ["ChatStream"]

_DONE = event(b"[DONE]")
_HOLE = dumps(HOLE)
_UNREADABLE = "The upstream's stream could not be read."


class _Like(NamedTuple):
    """A chunk that held one text of one channel, without it: the shape of chunks to come."""

    memo: Memo
    choice: Choice
    key: Hashable


def _skeleton(chunk: dict[str, object], piece: Piece) -> object:
    """The chunk of one choice, changed: holes where the piece's text stood."""
    for path in piece.paths:
        holder: Any = chunk["choices"]
        for step in (0, "delta", *path[:-1]):
            holder = holder[step]
        holder[path[-1]] = HOLE
    return chunk


class ChatStream:
    """A :class:`~cotguard.dialects.contract.Translator`."""

    def __init__(self, form: Format, prepared: Prepared, exchange: Exchange) -> None:
        self.content_type = ServerSentEvents().content_type
        self._form = form
        self._prepared = prepared
        self._exchange = exchange
        self._reader = Reader()
        self._out: list[bytes] = []
        self._finished = False
        self._choices: dict[int, Choice] = {}
        self._unwritten: dict[int, Choice] = {}  # fed since their last drain
        self._run: tuple[Choice, Hashable] | None = None
        self._run_texts: list[str] = []
        self._likes: dict[int, _Like] = {}  # by choice
        self._unlike = 0  # chunks in a row that were unlike the one before
        self._envelope: dict[str, object] = {}
        self._extras: dict[str, object] = {}
        self._templates: dict[tuple[int, Hashable], list[bytes]] = {}
        self._cut = False
        self._error: dict[str, object] | None = None

    @property
    def finished(self) -> bool:
        return self._finished

    def receive(self, data: bytes) -> bytes:
        if not self._finished:
            self._take(self._blocks(data))
        return self._flush()

    def end(self) -> bytes:
        if not self._finished:
            self._take(self._reader.end())
        if not self._finished:
            if not self._choices or not all(choice.over for choice in self._choices.values()):
                raise UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, "The upstream ended the stream early.")
            self._complete()
        return self._flush()

    def fail(self, kind: ErrorKind, message: str, undelivered: Undelivered = Undelivered.NOTHING) -> bytes:
        if undelivered is not Undelivered.NOTHING:
            self._finished = False
            self._out.clear()
        if self._finished:
            return self._flush()
        self._finished = True
        error = self._error if self._error and kind is ErrorKind.UPSTREAM_ERROR else error_object(kind, message)
        self._out.append(event(dumps(error)))
        return self._flush()

    def keep_alive(self) -> bytes:
        return KEEP_ALIVE

    def _flush(self) -> bytes:
        written = b"".join(self._out)
        self._out.clear()
        return written

    def _blocks(self, data: bytes) -> list[bytes]:
        try:
            return self._reader.feed(data)
        except FramingError:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _UNREADABLE) from None

    def _take(self, blocks: list[bytes]) -> None:
        try:
            for block in blocks:
                if not self._take_like(block):
                    self._take_block(block)
                    if self._finished:
                        return
        except UpstreamFault:
            self._settle()  # what was decided before the fault is in `fail`, however the bytes were cut
            raise
        self._settle()

    def _take_like(self, block: bytes) -> bool:
        """The short way: whether the chunk was like one before."""
        for like in self._likes.values():
            text = like.memo.text(block)
            if text is not None:
                self._unlike = 0
                self._feed(like.choice, like.key, text)
                return True
        return False

    def _take_block(self, block: bytes) -> None:
        try:
            each = parse(block)
        except FramingError:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _UNREADABLE) from None
        if each is None:
            return
        if is_done(each.data):
            self._end_choices()
            self._complete()
            return
        if each.name and each.name not in ("message", "error"):
            return  # a named event is no chunk: copies in disguise (token ids), or nothing
        try:
            chunk = loads(each.data)
        except JSONError:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _UNREADABLE) from None
        if not isinstance(chunk, dict):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _UNREADABLE)
        for name in self._form.padding:
            chunk.pop(name, None)
        self._take_chunk(chunk, block, failed=each.name == "error")

    def _take_chunk(self, chunk: dict[str, object], block: bytes, *, failed: bool) -> None:
        error = chunk.get("error")
        if error or failed:
            self._error = self._form.upstream_error(error, UPSTREAM_REPORTED)
            raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)
        if self._prepared.reported is not None:
            self._prepared.reported.take(chunk)
        self._note_envelope(chunk)
        extras = self._form.extras.read(chunk).structure
        self._extras |= extras
        items = chunk.get("choices")
        if items is not None and not isinstance(items, list):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's choices are not a list.")
        for item in items or ():
            memorable = self._take_choice(as_object(item))
            if memorable is not None and len(items or ()) == 1 and not extras:
                self._remember(chunk, block, *memorable)
        if extras and all(choice.over for choice in self._choices.values()):
            self._settle()
            self._write_extras()

    def _remember(self, chunk: dict[str, object], block: bytes, choice: Choice, piece: Piece) -> None:
        self._unlike += 1
        if self._unlike & (self._unlike - 1):
            return  # where every chunk has something of its own, learning would be in vain: try less and less often
        memo = remembered(block, piece.text, "", _skeleton(chunk, piece), parse)
        if memo is not None:
            self._likes[choice.index] = _Like(memo, choice, piece.key)

    def _note_envelope(self, chunk: dict[str, object]) -> None:
        for name, value in self._form.envelope.read(chunk).structure.items():
            if value and not self._envelope.get(name):
                self._envelope[name] = value
                self._templates.clear()

    def _take_choice(self, item: dict[str, object]) -> tuple[Choice, Piece] | None:
        """Returns the choice's only text if there was nothing else to do: the next chunk may be like it."""
        choice = self._choice(item.get("index", 0))
        self._likes.pop(choice.index, None)
        if choice.over:
            return None
        delta = item.get("delta")
        fresh, pieces = choice.read(as_object(delta)) if delta is not None else ({}, [])
        if fresh:
            self._settle()
            self._write(choice.index, {"delta": fresh, "finish_reason": None})
        for piece in pieces:
            if isinstance(piece, Signed):
                self._feed_run()
                choice.take_signed(piece)
                continue
            if choice.fragments.get(piece.key) != piece.fragment:
                self._settle()
                choice.fragments[piece.key] = piece.fragment
                self._templates.pop((choice.index, piece.key), None)
            self._feed(choice, piece.key, piece.text)
        self._unwritten[choice.index] = choice
        reason = item.get("finish_reason")
        if reason is not None:
            self._finish(choice, choice.finish(reason, item))
            return None
        only = pieces[0] if len(pieces) == 1 else None
        return (choice, only) if isinstance(only, Piece) else None

    def _choice(self, index: object) -> Choice:
        if type(index) is not int or not 0 <= index < self._prepared.choices:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream sent a choice that was not asked for.")
        choice = self._choices.get(index)
        if choice is None:
            lane = self._exchange.lane(index)
            choice = self._choices[index] = Choice(index, lane, self._form, self._prepared, streamed=True)
        return choice

    def _feed(self, choice: Choice, key: Hashable, text: str) -> None:
        """Add to the run: text of one channel that goes to its detectors in one piece."""
        run = self._run
        if run is None or run[0] is not choice or run[1] != key:
            if run is not None:
                self._feed_run()
            self._run = (choice, key)
        self._run_texts.append(text)

    def _feed_run(self) -> None:
        if self._run is not None:
            choice, key = self._run
            self._run = None
            text = "".join(self._run_texts)
            self._run_texts.clear()
            self._unwritten[choice.index] = choice
            if not choice.over:
                choice.take_text(key, text)

    def _settle(self) -> None:
        """Feed the run and write everything that is released."""
        if self._run is not None:
            self._feed_run()
        for choice in tuple(self._unwritten.values()):
            self._drain(choice)
        self._unwritten.clear()

    def _drain(self, choice: Choice) -> None:
        for emission in choice.lane.take():
            if emission.text or emission.head is not None:
                first = emission.head is not None
                template = self._template(choice, emission.key, choice.fragment(emission), first=first)
                self._out.append(dumps(emission.text).join(template))
                choice.delivered(emission.key, emission.text)
            if isinstance(emission.tail, Signed):
                signed = emission.tail
                self._write(choice.index, {"delta": signed.delta(choice.token(signed)), "finish_reason": None})
        if choice.lane.cut and not choice.over:
            self._cut = True
            self._close(choice, {"finish_reason": "content_filter"})

    def _template(self, choice: Choice, key: Hashable, fragment: dict[str, object], *, first: bool) -> list[bytes]:
        template = None if first else self._templates.get((choice.index, key))
        if template is None:
            template = self._chunk([{"index": choice.index, "delta": fragment, "finish_reason": None}]).split(_HOLE)
            if not first:
                self._templates[choice.index, key] = template
        return template

    def _finish(self, choice: Choice, reason: dict[str, object]) -> None:
        self._feed_run()
        choice.end_calls()
        choice.lane.finish()
        self._settle()
        if not choice.over:
            self._close(choice, reason)

    def _close(self, choice: Choice, reason: dict[str, object]) -> None:
        choice.over = True
        self._likes.pop(choice.index, None)
        extras, self._extras = self._extras, {}
        self._write(choice.index, {"delta": {}, **reason}, extras)
        # The upstream still writes a choice that was cut: its usage is not worth waiting for.
        over = sum(each.over for each in self._choices.values())
        if self._cut and over == self._prepared.choices:
            self._complete()

    def _end_choices(self) -> None:
        """The upstream says that all is written: a choice without a finish reason ends without one."""
        self._feed_run()
        for choice in self._choices.values():
            if not choice.over:
                choice.end_calls()
                choice.lane.finish()
                self._unwritten[choice.index] = choice
        self._settle()

    def _complete(self) -> None:
        if not self._finished:
            self._finished = True
            self._write_extras()
            self._out.append(_DONE)

    def _write_extras(self) -> None:
        if self._extras:
            extras, self._extras = self._extras, {}
            self._out.append(self._chunk([], extras))

    def _write(self, index: int, choice: dict[str, object], extras: dict[str, object] | None = None) -> None:
        self._out.append(self._chunk([{"index": index, **choice}], extras))

    def _chunk(self, choices: list[dict[str, object]], extras: dict[str, object] | None = None) -> bytes:
        chunk = envelope(self._envelope, "chat.completion.chunk")
        return event(dumps(chunk | {"choices": choices} | (extras or {})))
