"""Bounded concurrency: a request gets a place, waits for one until a deadline, or is refused.

Who is next and who is sent away say the rules of :mod:`cotguard.gateway.places`; here are the clock, the deadline and
those who wait. A client that leaves gives up its place at once, waiting or not.

    await admission.admit(caller.scope.priority)
    try:
        ...
    finally:
        admission.end()
"""

import asyncio
import time

from cotguard.callers.caller import Priority
from cotguard.dialects.contract import ErrorKind, Refused
from cotguard.gateway.places import Place, Places, Standing
from cotguard.telemetry.metrics import Metrics

__all__ = ["Admission"]

_BUSY = "The gateway has too many requests under way."


class Admission:
    """``limit`` exchanges at a time, ``waiting`` that wait for ``timeout`` seconds at most. Of one event loop."""

    def __init__(self, limit: int, waiting: int, timeout: float, metrics: Metrics) -> None:
        self._places = Places(limit, waiting)
        self._timeout = timeout
        self._metrics = metrics
        self._woken: dict[Place, asyncio.Future[None]] = {}
        metrics.overload_places.set(limit)

    async def admit(self, priority: Priority) -> None:
        """Take a place, which :meth:`end` gives back. Raises :class:`Refused`."""
        if not self._places.take(time.monotonic()):
            await self._wait(priority)

    def end(self) -> None:
        """Give a place back."""
        self._wake(self._places.end(time.monotonic()))

    async def _wait(self, priority: Priority) -> None:
        place, shed = self._places.wait(priority)
        if shed is place:
            raise self._refused("queue_full", priority)
        began = time.monotonic()
        waiting = self._metrics.overload_waiting.labels(priority)
        waiting.inc()
        woken = self._woken[place] = asyncio.get_running_loop().create_future()
        self._wake(shed)
        try:
            async with asyncio.timeout(self._timeout):
                await woken
        except TimeoutError:
            if place.standing is Standing.WAITING:
                self._leave(place)
                raise self._refused("timeout", priority) from None
        except BaseException:  # the client left; somebody may have made way for it meanwhile
            self._leave(place)
            raise
        finally:
            del self._woken[place]
            waiting.dec()
            self._metrics.overload_wait.labels(priority).observe(time.monotonic() - began)
        if place.standing is Standing.SHED:
            raise self._refused("displaced", priority)

    def _leave(self, place: Place) -> None:
        self._wake(self._places.leave(place, time.monotonic()))

    def _wake(self, place: Place | None) -> None:
        if place is not None and not self._woken[place].done():
            self._woken[place].set_result(None)

    def _refused(self, reason: str, priority: Priority) -> Refused:
        self._metrics.overload_shed.labels(reason, priority).inc()
        return Refused(503, ErrorKind.OVERLOADED, _BUSY, self._places.pause(time.monotonic()))
