"""What a stream translator asks of a framing: bytes to events and back, for one response."""

from typing import NamedTuple, Protocol

__all__ = ["Event", "Framing", "FramingError"]


class FramingError(ValueError):
    """The bytes are not a stream that this proxy accepts. The message is constant text."""


class Event(NamedTuple):
    """One event. ``name`` is empty where the stream gives none; ``data`` is valid UTF-8."""

    name: str
    data: bytes


class Framing(Protocol):
    """Cuts one response's body into blocks of bytes, reads events from blocks, writes events.

    A block is what an event is read from: equal blocks are equal events. ``feed``, ``end`` and ``parse`` raise
    :class:`FramingError`; the framing is of no use afterwards.
    """

    @property
    def content_type(self) -> str:
        """Of what is written, as the header names it."""
        ...

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the body; returns the blocks they complete."""
        ...

    def end(self) -> list[bytes]:
        """The body is over; returns what is left."""
        ...

    def parse(self, block: bytes) -> Event | None:
        """The event of a block, None if it has none. Keeps no state."""
        ...

    def write(self, event: Event) -> bytes:
        """The bytes of an event, in the order of calls."""
        ...

    def close(self) -> bytes:
        """What follows the last event."""
        ...

    def rewind(self) -> None:
        """Nothing of what was written was delivered: what is written next comes first."""
        ...

    def keep_alive(self) -> bytes:
        """Bytes that mean nothing; none where the framing has none."""
        ...
