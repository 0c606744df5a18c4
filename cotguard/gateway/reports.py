"""What workers tell the process that serves the admin port: one stream socket for each, JSON lines.

A question is ``[number, what, about]``, its answer ``[number, value]``. A worker says ``[0, snapshot]`` unasked when it
begins to serve and when it ends: so nothing that it counted is lost unless it is killed, and then what it counted since
it was last asked.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from orjson import dumps, loads

__all__ = ["Reporter", "Reports"]

_LINE_BYTES = 2**24
_UNASKED = 0


class Reporter:
    """The worker's end. ``answers``: by question, what computes the answer, given what it is about.

    ``unasked`` is the question of a report, which is about nothing (None).
    """

    def __init__(self, answers: Mapping[str, Callable[[Any], Awaitable[Any]]], unasked: str) -> None:
        self._answers = answers
        self._unasked = unasked
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, channel: socket.socket) -> None:
        """Report, and answer from now on."""
        reader, self._writer = await asyncio.open_unix_connection(sock=channel, limit=_LINE_BYTES)
        self._listening = asyncio.create_task(self._listen(reader))
        await self._answer(_UNASKED, self._unasked)

    async def end(self) -> None:
        """Report for the last time."""
        self._listening.cancel()
        for task in self._tasks:
            task.cancel()
        await self._answer(_UNASKED, self._unasked)
        self._writer.close()
        with suppress(ConnectionError):  # nobody may be there to read it
            await self._writer.wait_closed()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        async for line in reader:
            number, what, about = loads(line)
            task = asyncio.create_task(self._answer(number, what, about))  # one that takes long keeps no other waiting
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, what: str, about: Any = None) -> None:
        self._writer.write(dumps([number, await self._answers[what](about)]) + b"\n")


class Reports:
    """The other end, of one worker. ``unasked`` gets what it says unasked."""

    def __init__(self, channel: socket.socket, unasked: Callable[[Any], None]) -> None:
        self._channel = channel
        self._unasked = unasked
        self._numbers = count(_UNASKED + 1)
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None

    async def listen(self) -> None:
        """Take what the worker says until it ends."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._channel, limit=_LINE_BYTES)
        with suppress(ConnectionError):  # it was killed with a question unread
            async for line in reader:
                if line.endswith(b"\n"):  # what a killed worker was about to say is left out
                    self._take(*loads(line))
        self._writer.close()
        for question in self._questions.values():
            question.cancel()

    def _take(self, number: int, value: Any) -> None:
        if number == _UNASKED:
            self._unasked(value)
        elif (question := self._questions.get(number)) is not None and not question.done():
            question.set_result(value)

    async def ask(self, what: str, about: Any = None, *, within: float) -> Any:
        """The worker's answer. Raises ``TimeoutError`` also where it has ended meanwhile."""
        number = next(self._numbers)
        question = self._questions[number] = asyncio.get_running_loop().create_future()
        try:
            if self._writer is None or self._writer.is_closing():
                raise TimeoutError
            self._writer.write(dumps([number, what, about]) + b"\n")
            done, _ = await asyncio.wait([question], timeout=within)
            if not done or question.cancelled():
                raise TimeoutError
            return question.result()
        finally:
            del self._questions[number]
