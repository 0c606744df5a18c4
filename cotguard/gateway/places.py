"""Who has a place, who waits for one and who is sent away: the rules of admission, without a clock or an event loop.

1. ``limit`` exchanges are under way at most; while one of that many places is free, nobody waits.
2. A place that is freed goes to the priorities in turn, by weight: of 21 places that are freed while all priorities
   wait, 16 go to the high, 4 to the normal and one to the low. Within a priority, first come, first served. So none
   starves: whoever is first of his priority is served after at most 20 others.
3. ``waiting`` wait at most. When one more comes, the newest of the lowest priority of which several wait is sent away,
   which may be the one who comes. The first of each priority keeps his turn, so that rule 2 holds for him.

*When to come again.* Ends are timed on a clock that runs only while all places are taken, so that quiet times do not
count; who is refused is told how long the queue and he take at the rate of the last ends.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from enum import Enum, auto

from cotguard.callers.caller import Priority

__all__ = ["LONGEST_PAUSE", "Place", "Places", "Standing"]

LONGEST_PAUSE = 60
"""Seconds after which a refused client is told to come again, at most."""

_LAST_ENDS = 64
"""Ends of which the rate is measured."""

_STRIDES = {Priority.HIGH: 1, Priority.NORMAL: 4, Priority.LOW: 16}
"""How many turns it takes until a priority is due again, from the highest on: the reciprocal of its weight."""


class Standing(Enum):
    """How it stands with somebody who had to wait."""

    WAITING = auto()
    ADMITTED = auto()
    SHED = auto()


class Place:
    """Somebody who waits, or waited, for a place."""

    __slots__ = ("priority", "standing")

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self.standing = Standing.WAITING


class _Line:
    """Those of one priority who wait, the first to come first."""

    __slots__ = ("due", "stride", "waiting")

    def __init__(self, stride: int) -> None:
        self.waiting: OrderedDict[Place, None] = OrderedDict()
        self.stride = stride
        self.due = 0


class Places:
    """See the module. Times are seconds on a clock that never goes back."""

    def __init__(self, limit: int, waiting: int) -> None:
        self.under_way = 0
        self._limit = limit
        self._most_waiting = waiting
        self._lines = {priority: _Line(stride) for priority, stride in _STRIDES.items()}
        self._waiting = 0
        self._turn = 0
        self._ends: deque[float] = deque(maxlen=_LAST_ENDS)  # on the clock that runs while all places are taken
        self._full_for = 0.0  # that clock, at the last moment when a place became free
        self._full_since = 0.0

    def waiting(self, priority: Priority) -> int:
        """How many of ``priority`` wait."""
        return len(self._lines[priority].waiting)

    def take(self, now: float) -> bool:
        """Take a place, if one is free."""
        if self.under_way == self._limit:
            return False
        self.under_way += 1
        if self.under_way == self._limit:
            self._full_since = now
        return True

    def wait(self, priority: Priority) -> tuple[Place, Place | None]:
        """Wait for a place, as none is free. Returns him who waits, and who is sent away for it, if anybody is."""
        place = Place(priority)
        line = self._lines[priority]
        if not line.waiting:
            line.due = self._turn + line.stride
        line.waiting[place] = None
        self._waiting += 1
        return place, self._shed() if self._waiting > self._most_waiting else None

    def leave(self, place: Place, now: float) -> Place | None:
        """Somebody gives up his place, or waits no longer. Returns who is admitted for it, if anybody is."""
        if place.standing is Standing.ADMITTED:
            return self.end(now)
        if place.standing is Standing.WAITING:
            place.standing = Standing.SHED
            del self._lines[place.priority].waiting[place]
            self._waiting -= 1
        return None

    def end(self, now: float) -> Place | None:
        """An exchange has ended. Returns who is admitted in its place, if anybody is."""
        if self.under_way == self._limit:
            full_for = self._full_for + now - self._full_since
            self._ends.append(full_for)
            if self._waiting:
                return self._next()
            self._full_for = full_for
        self.under_way -= 1
        return None

    def pause(self, now: float) -> int:
        """The seconds after which somebody who is refused now may come again."""
        full_for = self._full_for + (now - self._full_since if self.under_way == self._limit else 0.0)
        measured = full_for - (self._ends[0] if len(self._ends) == _LAST_ENDS else 0.0)
        needed = (self._waiting + 1) * measured / max(len(self._ends), 1)
        return min(max(math.ceil(needed), 1), LONGEST_PAUSE)

    def _next(self) -> Place:
        line = min(self._occupied(), key=_due)
        self._turn = line.due
        line.due += line.stride
        place, _ = line.waiting.popitem(last=False)
        self._waiting -= 1
        place.standing = Standing.ADMITTED
        return place

    def _shed(self) -> Place:
        lowest_first = list(self._occupied())[::-1]
        line = next((line for line in lowest_first if len(line.waiting) > 1), lowest_first[0])
        place, _ = line.waiting.popitem()
        self._waiting -= 1
        place.standing = Standing.SHED
        return place

    def _occupied(self) -> Iterator[_Line]:
        return (line for line in self._lines.values() if line.waiting)


def _due(line: _Line) -> int:
    return line.due
