"""Recordings of exchanges for a trial: what moderates them needs, kept until they are replayed.

Kept are a copy of what is moderated of the request, taken before it is, and what the upstream sent, as its translator
gets it. Credentials are not. Sizes are bytes of memory; a recording that finds no room keeps nothing from then on.
"""

import sys
from collections import Counter
from dataclasses import replace
from typing import Any, Final, Protocol

from cotguard.callers.credentials import CREDENTIALS, PARAMETER
from cotguard.dialects.contract import Dialect, ErrorKind, Prepared, Restored, Translator, Undelivered
from cotguard.gateway.call import Call
from cotguard.gateway.outgoing import Unmoderated
from cotguard.moderation.exchange import Verdict

__all__ = ["BUSY", "MAX_BYTES", "MAX_EXCHANGE_BYTES", "TOO_LARGE", "Recording", "Room"]

MAX_EXCHANGE_BYTES = 2**20
"""The largest recording of one exchange."""

MAX_BYTES = 32 * 2**20
"""What all recordings take, of exchanges under way and of those that wait to be replayed."""

TOO_LARGE: Final = "too_large"
BUSY: Final = "busy"


class Room(Protocol):
    """Where recordings are. ``size`` is that of all."""

    size: int

    def leave_out(self, recording: "Recording", why: str) -> None:
        """Drop a recording, and count why."""
        ...

    def enqueue(self, recording: "Recording", tally: Counter[Verdict]) -> None:
        """Replay an exchange that counted ``tally``."""
        ...


class _TooLargeError(Exception):
    """A request is larger than a recording may be."""


class Recording:
    """One exchange, as far as it went. What it holds takes ``size`` bytes, and nothing once it is dropped.

    Where ``room`` has no more for it, it is left out.
    """

    __slots__ = ("_room", "content_type", "data", "dialect", "ended", "hidden", "named", "prepared", "request", "size")

    def __init__(self, room: "Room", call: Call) -> None:
        self._room = room
        self.dialect: Dialect = call.dialect
        self.hidden = call.caller.scope.hidden
        self.named = call.model if call.trace.trace_id or call.journal else ""
        self.request: Unmoderated | None = None
        self.prepared: Prepared | None = None
        self.content_type: str | None = None
        """Of a stream; a whole body has none."""
        self.data = bytearray()
        self.ended = False
        """Whether the upstream's body is complete."""
        self.size = 0

    @property
    def dropped(self) -> bool:
        """Whether it is of no use any more."""
        return self.request is None

    def take_request(self, request: Unmoderated) -> None:
        """Keep a copy of what is moderated of a request, before it is."""
        copy = _Copy(MAX_EXCHANGE_BYTES)
        try:
            self.request = Unmoderated(
                copy.of(request.document),
                copy.of(request.fields),
                copy.of({name: value for name, value in request.headers.items() if name.lower() not in CREDENTIALS}),
                copy.of(dict(request.parameters)),
                copy.of({name: value for name, value in request.query.items() if name != PARAMETER}),
                [tool._replace(definition={}) for tool in request.changed],
                request.file,
            )
        except _TooLargeError:
            self._room.leave_out(self, TOO_LARGE)
        else:
            self._grow(copy.size)

    def take_stream(self, prepared: Prepared, content_type: str, translator: Translator) -> Translator:
        """``translator``, whose input is kept."""
        self._take_prepared(prepared)
        self.content_type = content_type
        return translator if self.dropped else _Recorded(translator, self)

    def take_body(self, prepared: Prepared, data: bytes) -> None:
        """Keep a whole body."""
        self._take_prepared(prepared)
        self.take(data)

    def take(self, data: bytes) -> None:
        """Keep what the upstream sent."""
        if self._grow(len(data)):
            self.data += data

    def _take_prepared(self, prepared: Prepared) -> None:
        facts, seals = prepared.facts, prepared.seals
        if self._grow(sum(map(sys.getsizeof, (*facts.system_prompts, facts.user)))):
            seals = None if seals is None else replace(seals, stored=False)  # into tokens that go nowhere
            self.prepared = replace(prepared, document={}, fields=None, file=None, reported=None, seals=seals)

    def _grow(self, size: int) -> bool:
        """Whether there is room for ``size`` more bytes. Without it the exchange is left out."""
        if self.dropped:
            return False
        if self.size + size > MAX_EXCHANGE_BYTES:
            self._room.leave_out(self, TOO_LARGE)
        elif self._room.size + size > MAX_BYTES:
            self._room.leave_out(self, BUSY)
        else:
            self.size += size
            self._room.size += size
        return not self.dropped

    def drop(self) -> None:
        """Forget what was kept."""
        self.request = self.prepared = None
        self.data = bytearray()
        self.size = 0

    def over(self, tally: Counter[Verdict]) -> None:
        """The exchange is over, and ``tally`` is what it counted."""
        if not self.dropped:
            self._room.enqueue(self, Counter(tally))


class _Copy:
    """Copies JSON values, as far as they take at most ``limit`` bytes; texts are shared, and count."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit

    def of(self, value: Any) -> Any:
        """A copy. Raises :class:`_TooLargeError`."""
        self.size += sys.getsizeof(value)
        if self.size > self._limit:
            raise _TooLargeError
        if isinstance(value, Restored):
            return value  # nobody writes into it, nor reads it
        if isinstance(value, dict):
            return {name: self.of(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self.of(each) for each in value]
        return value


class _Recorded:
    """A translator whose input is kept."""

    __slots__ = ("_inner", "_recording")

    def __init__(self, inner: Translator, recording: Recording) -> None:
        self._inner = inner
        self._recording = recording

    @property
    def content_type(self) -> str:
        return self._inner.content_type

    @property
    def finished(self) -> bool:
        return self._inner.finished

    def receive(self, data: bytes) -> bytes:
        self._recording.take(data)
        return self._inner.receive(data)

    def end(self) -> bytes:
        self._recording.ended = True
        return self._inner.end()

    def fail(self, kind: ErrorKind, message: str, undelivered: Undelivered = Undelivered.NOTHING) -> bytes:
        return self._inner.fail(kind, message, undelivered)

    def keep_alive(self) -> bytes:
        return self._inner.keep_alive()
