"""The circuit breaker of one server, sans IO: a server that fails again and again is left alone for a while.

1. Closed: requests are sent. So many failures in a row, with no success between, open it.
2. Open: nothing is sent for ``pause`` seconds. Then the next request is a trial.
3. Half-open: the trial is under way, and nothing else is sent. If it succeeds the breaker closes, if it fails it opens
   again; if it ends without a verdict, the next request is a trial.

What ends while the breaker is not closed, and is not the trial, was sent before: it decides nothing.
"""

from enum import StrEnum

__all__ = ["Breaker", "State"]


class State(StrEnum):
    """Of a breaker. The value is a metric's label."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """``failures`` in a row open it for ``pause`` seconds; ``now`` is of any clock that does not go back."""

    __slots__ = ("_failed", "_failures", "_pause", "_until", "state")

    def __init__(self, failures: float, pause: float) -> None:
        self._failures = failures
        self._pause = pause
        self._failed = 0
        self._until = 0.0
        self.state = State.CLOSED

    def admits(self, now: float) -> bool:
        """Whether a request may be sent."""
        return self.state is State.CLOSED or (self.state is State.OPEN and now >= self._until)

    def wait(self, now: float) -> float:
        """Seconds until a request may be sent, as far as time decides it."""
        return 0.0 if self.state is State.CLOSED else max(self._until - now, 0.0)

    def begin(self) -> bool:
        """Note a request that was admitted; returns whether it is the trial."""
        if self.state is State.CLOSED:
            return False
        self.state = State.HALF_OPEN
        return True

    def succeeded(self, *, trial: bool) -> None:
        """Note that the server answered."""
        if trial or self.state is State.CLOSED:
            self.state, self._failed = State.CLOSED, 0

    def failed(self, now: float, *, trial: bool) -> None:
        """Note that it did not."""
        if self.state is State.CLOSED:
            self._failed += 1
        if trial or (self.state is State.CLOSED and self._failed >= self._failures):
            self.state, self._until = State.OPEN, now + self._pause

    def abandoned(self) -> None:
        """Note that the trial ended without a verdict."""
        self.state = State.OPEN
