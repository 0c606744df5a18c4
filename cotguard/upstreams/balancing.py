"""Which server gets the next request, sans IO: weighted least outstanding requests.

1. Servers that are not well, or whose breaker is open, get none. If that is all of them, :class:`AllDownError`.
2. Those that failed this request already get it only where there is no other.
3. Those with as many requests as they may have get none. If that is all of them, :class:`AllFullError`: one that is
   busy is waited for, rather than that another is asked that has just failed.
4. Of the rest the one with the fewest requests for its weight gets it. Of equals, the one whose turn is next: turns
   come as often as the weight says, so that weights hold also where requests come one by one.
"""

import math
from collections.abc import Collection, Mapping
from typing import Generic, Self, TypeVar

from cotguard.upstreams.breaker import Breaker
from cotguard.upstreams.errors import AllDownError, AllFullError

__all__ = ["Balancer", "Member", "Slot"]

_CHECKED_AGAIN = 5
"""Seconds after which a client may ask again where only a health check can tell that a server is well."""


class Member:
    """A server as the choice sees it."""

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.healthy = True
        self.outstanding = 0

    def admits(self, now: float) -> bool:
        """Whether a request may be sent to it, full or not."""
        return self.healthy and self.breaker.admits(now)

    def begin(self) -> "Slot[Self]":
        """A request to it, after it was chosen."""
        self.outstanding += 1
        slot = Slot(self, trial=self.breaker.begin())
        self.changed()
        return slot

    def changed(self) -> None:
        """What to do when anything above changed."""


_M = TypeVar("_M", bound=Member)


class Slot(Generic[_M]):
    """One request to ``member``, from the choice until its answer is over. To be ended once."""

    __slots__ = ("_trial", "member")

    def __init__(self, member: _M, *, trial: bool) -> None:
        self.member = member
        self._trial = trial

    def succeeded(self) -> None:
        """Note that the server answered: the request goes on, but is no trial any more."""
        self.member.breaker.succeeded(trial=self._trial)
        self._trial = False
        self.member.changed()

    def failed(self, now: float) -> None:
        """Note that it did not."""
        self.member.breaker.failed(now, trial=self._trial)
        self._trial = False
        self.member.changed()

    def end(self) -> None:
        """The request is over."""
        if self._trial:
            self.member.breaker.abandoned()
        self.member.outstanding -= 1
        self.member.changed()


class Balancer(Generic[_M]):
    """Chooses among members by their ``weights``; at most ``limit`` requests are under way at each."""

    def __init__(self, weights: Mapping[_M, int], limit: int | None) -> None:
        self._weights = weights
        self._limit = math.inf if limit is None else limit
        self._turns = dict.fromkeys(weights, 0.0)
        self._turn = 0.0  # of the last choice: a server that was left out does not catch up on turns

    def choose(self, now: float, tried: Collection[_M] = ()) -> _M:
        """The next member. Raises :class:`AllDownError` and :class:`AllFullError`."""
        well = [member for member in self._weights if member.admits(now)]
        if not well:
            waits = [member.breaker.wait(now) for member in self._weights if member.healthy]
            raise AllDownError(max(math.ceil(min(waits, default=_CHECKED_AGAIN)), 1))
        fresh = [member for member in well if member not in tried] or well
        free = [member for member in fresh if member.outstanding < self._limit]
        if not free:
            raise AllFullError
        chosen = min(free, key=lambda member: (member.outstanding / self._weights[member], self._next(member)))
        self._turn = self._next(chosen)
        self._turns[chosen] = self._turn + 1 / self._weights[chosen]
        return chosen

    def _next(self, member: _M) -> float:
        return max(self._turns[member], self._turn)
