"""How much a caller may ask: requests in any minute, requests under way, tokens in a day.

* *Requests per minute* are those admitted in the last 60 seconds, counted one by one: in no window of 60 seconds are
  more admitted. (A token bucket would let through twice as many in its first minute.)
* *Tokens per day* are those of a day of UTC. What is sent is charged when a request is admitted, what comes back when
  it ends; so a caller's requests under way can exceed the budget by what they bring.
* A request that is refused counts for nothing.

Here the counts of one process are kept, in memory; :mod:`cotguard.callers.shared_limits` keeps those of several.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cotguard.callers.caller import Caller
from cotguard.callers.denied import Denied, Reason

__all__ = ["CHARACTERS_PER_TOKEN", "DAY", "WINDOW", "Lease", "Limiter", "LocalLimiter", "tokens_in"]

WINDOW = 60
DAY = 86_400
CHARACTERS_PER_TOKEN = 4
"""Of English prose, by common estimate; what is charged is an estimate too."""

CONCURRENCY_PAUSE = 1
"""Seconds after which a caller with too many requests under way may try again: nobody knows when one ends."""

_SWEEP_AT = 10_000
"""Accounts that are kept before the idle ones are dropped."""


class Lease(Protocol):
    """A request that was admitted."""

    async def end(self, tokens: int) -> None:
        """The request is over; ``tokens`` came back."""
        ...


class Limiter(Protocol):
    """Counts callers' requests."""

    async def admit(self, caller: Caller, tokens: int) -> Lease:
        """Admit a request that sends ``tokens``. Raises :class:`~cotguard.callers.denied.Denied`."""
        ...

    async def close(self) -> None:
        """Count no more."""
        ...


@dataclass(slots=True)
class _Account:
    """What one caller has used. ``times`` are those of requests admitted in the last minute, the oldest first."""

    times: deque[float] = field(default_factory=deque)
    under_way: int = 0
    day: int = 0
    tokens: int = 0

    def used_on(self, day: int) -> int:
        """Tokens used on ``day``, from which on they are counted anew."""
        if self.day != day:
            self.day, self.tokens = day, 0
        return self.tokens

    def is_idle(self, now: float, day: int) -> bool:
        """Whether nothing of it matters any more."""
        return not self.under_way and self.day != day and (not self.times or self.times[-1] <= now - WINDOW)


class LocalLimiter:
    """A :class:`Limiter` for one process. ``clock`` never goes back, ``wall`` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._accounts: dict[str, _Account] = {}
        self._sweep_at = _SWEEP_AT

    async def admit(self, caller: Caller, tokens: int) -> Lease:
        scope, now, wall = caller.scope, self._clock(), self._wall()
        day = int(wall // DAY)
        if len(self._accounts) >= self._sweep_at:
            self._accounts = {name: each for name, each in self._accounts.items() if not each.is_idle(now, day)}
            self._sweep_at = max(_SWEEP_AT, 2 * len(self._accounts))
        account = self._accounts.setdefault(caller.id, _Account())
        times = account.times
        while times and times[0] <= now - WINDOW:
            times.popleft()
        if scope.concurrency is not None and account.under_way >= scope.concurrency:
            raise Denied(Reason.CONCURRENCY, CONCURRENCY_PAUSE)
        if scope.requests_per_minute is not None and len(times) >= scope.requests_per_minute:
            freed = times[len(times) - scope.requests_per_minute] + WINDOW
            raise Denied(Reason.REQUESTS, max(math.ceil(freed - now), 1))
        if scope.tokens_per_day is not None and account.used_on(day) + tokens > scope.tokens_per_day:
            raise Denied(Reason.TOKENS, math.ceil((day + 1) * DAY - wall))
        account.under_way += 1
        if scope.requests_per_minute is not None:
            times.append(now)
        account.tokens = account.used_on(day) + tokens
        return _LocalLease(self, account)

    def end(self, account: _Account, tokens: int) -> None:
        """A request of ``account`` is over; ``tokens`` came back."""
        account.under_way -= 1
        account.tokens = account.used_on(int(self._wall() // DAY)) + tokens

    async def close(self) -> None:
        self._accounts.clear()


class _LocalLease:
    def __init__(self, limiter: LocalLimiter, account: _Account) -> None:
        self._limiter = limiter
        self._account = account

    async def end(self, tokens: int) -> None:
        self._limiter.end(self._account, tokens)


def tokens_in(characters: int) -> int:
    """An estimate, rounded up."""
    return -(-characters // CHARACTERS_PER_TOKEN)
