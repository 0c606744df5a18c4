"""Work that the synchronous core hands to the event loop.

The core is a plain function of its input: it knows no event loop, and its detectors return when they are sure. A
model's work belongs elsewhere: another thread, another machine. So the shell runs a call of the core as a *greenlet*:
where a detector asks, the call stops, the shell awaits the answer - other streams run meanwhile, and what the upstream
sends is buffered -, and the call goes on where it stopped. Texts are decided in order, and their cuts and the answers'
time change nothing (G1).

A question names who is to answer it: the detector's name. The shell has one *answerer* by that name for each detector
that asks.

A call that takes long *pauses* now and then, so that the loop has its turn.

A fault of what is asked is raised where it was asked, in the detector: so the policy decides what becomes of it (G5).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

__all__ = ["Answerers", "Handover", "Overloaded", "ask", "handed_over", "pause"]

Answerers = Mapping[str, Callable[[Any], Awaitable[Any]]]
"""Who answers, by name."""

_NOBODY = ""


class Overloaded(Exception):  # noqa: N818  # named beside the answer that the client gets
    """Who is to answer has so much to do that the answer would come too late."""


_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")
_Result = TypeVar("_Result")


class _Call(greenlet):  # type: ignore[misc]  # greenlet ships no types
    """A call of the core that may be waiting for an answer."""


class _Asked(NamedTuple):
    who: str
    question: Any


def ask(who: str, answer: Callable[[_Question], _Answer], question: _Question) -> _Answer:
    """The answer: from the answerer ``who`` of the call under way, and where no call is awaited from ``answer``."""
    here = getcurrent()
    if isinstance(here, _Call) and here.parent is not None:
        return here.parent.switch(_Asked(who, question))  # type: ignore[no-any-return]  # what `handed_over` sends back
    return answer(question)


def pause() -> None:
    """Let the loop have its turn, if the call under way is awaited."""
    ask(_NOBODY, lambda _: None, None)


class Handover(Generic[_Result]):
    """A call that is run up to where it asks, if it does. Raises what the call raises."""

    __slots__ = ("_running", "_said")

    def __init__(self, call: Callable[[], _Result]) -> None:
        self._running = _Call(call)
        self._said = self._running.switch()

    @property
    def waits(self) -> bool:
        """Whether the call waits for an answer."""
        return not self._running.dead

    @property
    def result(self) -> _Result:
        """What the call returned, once it waits for nothing."""
        return self._said  # type: ignore[no-any-return]  # dead: what the call returned

    async def finish(self, answerers: Answerers) -> _Result:
        """Run the call to its end; what it asks is answered by ``answerers``. Whom they lack has no answer: a fault."""
        running = self._running
        try:
            while not running.dead:
                try:
                    asked: _Asked = self._said
                    given = await (asyncio.sleep(0) if asked.who == _NOBODY else answerers[asked.who](asked.question))
                except Exception as error:
                    self._said = running.throw(error)
                else:
                    self._said = running.switch(given)
        finally:
            self.close()
        return self.result

    def close(self) -> None:
        """End the call where it waits, if it does: nobody will answer."""
        if not self._running.dead:
            self._running.throw(GreenletExit)


async def handed_over(call: Callable[[], _Result], answerers: Answerers) -> _Result:
    """What ``call`` returns; what it asks meanwhile is answered by ``answerers``."""
    return await Handover(call).finish(answerers)
