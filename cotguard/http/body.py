"""The upstream's body, handed over as it arrives.

aiohttp gives a body to a task that waits for it: a future, a wake-up and a round of the event loop for every read,
which cost as much as moderating an event does. :class:`Body` takes the bytes where aiohttp's parser puts them down.

There is no public way to do that. aiohttp's ``StreamReader`` is turned into a subclass of equal layout whose
``feed_data`` passes the bytes on, and this object waits in the place of the future that a task would wait for, so that
it learns of the end and of errors too. What is used of aiohttp: ``StreamReader._waiter``, and that the parser calls
``feed_data``, ``begin_http_chunk_receiving`` and ``end_http_chunk_receiving``; tests/test_body.py looks after that.
"""

from collections.abc import Callable
from typing import Self

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

__all__ = ["Body", "interrupted"]


def interrupted(error: BaseException) -> BaseException:
    """The same error, but where the transfer's chunks could not be read that of a body that breaks off, which it does.

    aiohttp's parser in Python raises an error of its own there, which quotes the body.
    """
    return aiohttp.ClientPayloadError("the body breaks off") if isinstance(error, HttpProcessingError) else error


class Body:
    """Hands over a response's body: ``arrived(data)`` for what is read, once ``ended(error)`` with what ended it.

    Both are called from the event loop, neither before ``start`` nor after ``close``, and must not raise.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        arrived: Callable[[bytes], None],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._response = response
        self._paused = False
        self.arrived = arrived
        self.ended = ended

    def start(self) -> Self:
        """Hand over what was read so far, and from now on what is read."""
        content = self._response.content
        if (error := content.exception()) is not None:
            self.ended(interrupted(error))
            return self
        if data := content.read_nowait():
            self.arrived(data)
        if content.at_eof():
            self.ended(None)
        else:
            content.__class__ = _Reader
            content._waiter = self  # type: ignore[assignment]  # noqa: SLF001  # see the module
        return self

    def pause(self) -> None:
        """Read nothing more for now."""
        connection = self._response.connection
        if not self._paused and connection is not None and connection.protocol is not None:
            self._paused = True
            connection.protocol.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            connection = self._response.connection
            if connection is not None and connection.protocol is not None:
                connection.protocol.resume_reading()

    def close(self) -> None:
        """Call nobody any more."""
        self.arrived = _nobody
        self.ended = _nobody

    # What aiohttp calls of the future that it takes this for.

    def done(self) -> bool:
        """It still waits."""
        return False

    def set_result(self, _result: None) -> None:
        """The body is complete."""
        self.ended(None)

    def set_exception(self, error: BaseException) -> None:
        """The body is not complete."""
        self.ended(interrupted(error))


class _Reader(aiohttp.StreamReader):
    """Passes on what it is fed; keeps nothing."""

    __slots__ = ()

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        waiter: object = self._waiter
        if isinstance(waiter, Body) and data:
            waiter.arrived(data)
        return False

    def begin_http_chunk_receiving(self) -> None:
        """The transfer's chunks mean nothing here."""

    def end_http_chunk_receiving(self) -> None:
        """Same."""


def _nobody(_what: object) -> None:
    pass
