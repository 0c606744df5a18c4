"""Admission: the rules of who has a place, and those who wait for one."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cotguard.callers.caller import Priority
from cotguard.callers.document import CallersError, load_callers
from cotguard.dialects.contract import ErrorKind, Refused
from cotguard.gateway.admission import Admission
from cotguard.gateway.places import LONGEST_PAUSE, Place, Places, Standing
from cotguard.telemetry.metrics import Metrics

LIMIT, WAITING = 3, 5
AT_MOST_BETWEEN = {Priority.HIGH: 1, Priority.NORMAL: 5, Priority.LOW: 20}
"""How many others may be admitted before the first of a priority, where it has become the first just now."""


class Admissions(RuleBasedStateMachine):
    """Anybody may come, end and leave at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.places = Places(LIMIT, WAITING)
        self.now = 0.0
        self.anonymous = 0  # exchanges that never had to wait
        self.queue: list[Place] = []  # in the order in which they came
        self.admitted: list[Place] = []

    @rule(priority=st.sampled_from(Priority))
    def come(self, priority: Priority) -> None:
        if self.places.take(self.now):
            assert not self.queue
            self.anonymous += 1
            return
        place, shed = self.places.wait(priority)
        waited = [*self.queue, place]
        assert (shed is None) is (len(waited) <= WAITING)
        if shed is not None:
            several = [each for each, count in Counter(each.priority for each in waited).items() if count > 1]
            lowest = min(several, key=list(Priority).index)
            assert shed is [each for each in waited if each.priority is lowest][-1]
            assert shed.standing is Standing.SHED
            waited.remove(shed)
        self.queue = waited

    @precondition(lambda self: self.anonymous + len(self.admitted))
    @rule(data=st.data(), seconds=st.floats(0, 5))
    def end(self, data: st.DataObject, seconds: float) -> None:
        self.now += seconds
        which = data.draw(st.integers(0, self.anonymous + len(self.admitted) - 1))
        if which < len(self.admitted):
            self.follow(self.places.leave(self.admitted.pop(which), self.now))
        else:
            self.anonymous -= 1
            self.follow(self.places.end(self.now))

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def leave_the_queue(self, data: st.DataObject) -> None:
        place = self.queue.pop(data.draw(st.integers(0, len(self.queue) - 1)))
        assert self.places.leave(place, self.now) is None
        assert self.places.leave(place, self.now) is None  # twice is once

    def follow(self, place: Place | None) -> None:
        assert (place is None) is (not self.queue)
        if place is None:
            return
        assert place.standing is Standing.ADMITTED
        first = next(each for each in self.queue if each.priority is place.priority)
        assert place is first
        self.queue.remove(place)
        self.admitted.append(place)

    @invariant()
    def as_many_as_may_be(self) -> None:
        assert self.places.under_way == self.anonymous + len(self.admitted) <= LIMIT
        assert not self.queue or self.places.under_way == LIMIT  # nobody waits for nothing
        assert len(self.queue) <= WAITING
        assert 1 <= self.places.pause(self.now) <= LONGEST_PAUSE

    @invariant()
    def all_who_wait_are_known(self) -> None:
        waiting = Counter(each.priority for each in self.queue)
        assert all(self.places.waiting(each) == waiting[each] for each in Priority)


TestAdmissions = Admissions.TestCase
TestAdmissions.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("priority", Priority)
def test_none_starves(priority: Priority) -> None:
    """Whatever the others do: here somebody of each of them waits all the time."""
    places = Places(1, 6)
    assert places.take(0)
    others = [each for each in Priority if each is not priority for _ in range(2)]
    for each in others:
        places.wait(each)
    place, _ = places.wait(priority)
    served = Counter[Priority]()
    while place.standing is Standing.WAITING:
        admitted = places.end(0)
        assert admitted is not None
        served[admitted.priority] += 1
        if admitted is not place:
            places.wait(admitted.priority)
    assert place.standing is Standing.ADMITTED
    assert served.total() - 1 <= AT_MOST_BETWEEN[priority]


def test_shares_while_all_wait() -> None:
    places = Places(1, 6)
    assert places.take(0)
    for each in Priority:
        places.wait(each)
        places.wait(each)
    served = Counter[Priority]()
    for _ in range(210):
        admitted = places.end(0)
        assert admitted is not None
        served[admitted.priority] += 1
        places.wait(admitted.priority)
    assert served == {Priority.HIGH: 160, Priority.NORMAL: 40, Priority.LOW: 10}


def test_low_requests_come_in_where_high_ones_fill_the_queue() -> None:
    places = Places(1, 3)
    assert places.take(0)
    high = [places.wait(Priority.HIGH)[0] for _ in range(3)]
    low, shed = places.wait(Priority.LOW)
    assert (low.standing, shed) == (Standing.WAITING, high[2])
    second, shed = places.wait(Priority.LOW)
    assert shed is second
    _, shed = places.wait(Priority.HIGH)
    assert shed is not low


def test_when_to_come_again() -> None:
    places = Places(2, 10)
    assert places.take(0)
    assert places.take(100)  # the time before does not count: nobody would have waited
    for _ in range(10):
        places.wait(Priority.NORMAL)
    assert places.pause(100) == 1
    assert places.pause(103) == 33  # nothing has ended so far: at best, one each three seconds
    for second in range(1, 6):
        assert places.end(100 + second)
    assert places.pause(105) == 6  # one a second, five who wait
    assert places.pause(1000) == LONGEST_PAUSE


def test_quiet_times_do_not_count() -> None:
    places = Places(1, 1)
    for hour in range(100):
        assert places.take(hour * 3600)
        places.end(hour * 3600 + 2)
    assert places.take(400_000)
    assert places.pause(400_000) == 2


# --- Those who wait ----------------------------------------------------------------------------------------------


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name and sample.value
    }


async def test_a_place_goes_from_hand_to_hand() -> None:
    metrics = Metrics()
    admission = Admission(1, 5, 5, metrics)
    await admission.admit(Priority.NORMAL)
    order: list[str] = []

    async def ask(name: str, priority: Priority) -> None:
        await admission.admit(priority)
        order.append(name)
        await asyncio.sleep(0)
        admission.end()

    async with asyncio.TaskGroup() as tasks:
        for name, priority in (("a", Priority.LOW), ("b", Priority.NORMAL), ("c", Priority.NORMAL)):
            tasks.create_task(ask(name, priority))
        await settled()
        assert samples(metrics, "cotguard_overload_waiting_requests") == {("low",): 1, ("normal",): 2}
        admission.end()
    assert order == ["b", "c", "a"]
    assert samples(metrics, "cotguard_overload_waiting_requests") == {}
    assert samples(metrics, "cotguard_overload_wait_seconds_count") == {("low",): 1, ("normal",): 2}
    await admission.admit(Priority.LOW)  # it is free again


async def test_refusals() -> None:
    metrics = Metrics()
    admission = Admission(1, 2, 0.05, metrics)
    await admission.admit(Priority.NORMAL)
    low = [asyncio.create_task(admission.admit(Priority.LOW)) for _ in range(2)]
    await settled()
    high = asyncio.create_task(admission.admit(Priority.HIGH))
    with pytest.raises(Refused) as displaced:
        await low[1]
    with pytest.raises(Refused):
        await admission.admit(Priority.LOW)
    with pytest.raises(Refused):
        await high
    with pytest.raises(Refused):
        await low[0]
    refused = displaced.value
    assert (refused.status, refused.kind, refused.retry_after) == (503, ErrorKind.OVERLOADED, 1)
    assert samples(metrics, "cotguard_overload_shed_total") == {
        ("displaced", "low"): 1,
        ("queue_full", "low"): 1,
        ("timeout", "high"): 1,
        ("timeout", "low"): 1,
    }
    admission.end()
    await admission.admit(Priority.LOW)


@pytest.mark.parametrize("admitted", [True, False])
async def test_a_client_that_leaves_frees_its_place(admitted: bool) -> None:
    admission = Admission(1, 2, 5, Metrics())
    await admission.admit(Priority.NORMAL)
    leaving = asyncio.create_task(admission.admit(Priority.NORMAL))
    await settled()
    staying = asyncio.create_task(admission.admit(Priority.NORMAL))
    await settled()
    if admitted:
        admission.end()  # it has the place now, and is told too late
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    if not admitted:
        admission.end()
    await asyncio.wait_for(staying, 5)


async def test_nobody_is_forgotten() -> None:
    """Many come, end, give up and leave at once; in the end all places are free."""
    admission = Admission(3, 50, 0.02, Metrics())
    outcomes = Counter[str]()

    async def ask(number: int) -> None:
        try:
            await admission.admit(list(Priority)[number % 3])
        except Refused:
            outcomes["refused"] += 1
            return
        try:
            await asyncio.sleep(0.001 * (number % 4))
            outcomes["served"] += 1
        finally:
            admission.end()

    tasks = [asyncio.create_task(ask(number)) for number in range(300)]
    await asyncio.sleep(0.005)
    for task in tasks[::7]:
        outcomes["left"] += task.cancel()
    await asyncio.wait(tasks)
    assert outcomes.total() == 300
    assert min(outcomes["served"], outcomes["refused"], outcomes["left"]) > 0
    for _ in range(3):
        await asyncio.wait_for(admission.admit(Priority.LOW), 5)


# --- The callers file --------------------------------------------------------------------------------------------


def role_of(tmp_path: Path) -> Callable[[str], str]:
    path = tmp_path / "callers.yaml"

    def written(priority: str) -> str:
        path.write_text(f"roles:\n  batch:\n    priority: {priority}\n", encoding="utf-8")
        return str(path)

    return written


def test_a_role_has_a_priority(tmp_path: Path) -> None:
    role = load_callers(role_of(tmp_path)("low")).roles["batch"]
    scope = role.scope()
    assert scope.priority is Priority.LOW
    assert scope.narrowed(load_callers(role_of(tmp_path)("high")).roles["batch"].scope()).priority is Priority.LOW


def test_an_unknown_priority(tmp_path: Path) -> None:
    with pytest.raises(CallersError, match=r"callers\.yaml:3:.*'low', 'normal' or 'high'.*\"priority: high\""):
        load_callers(role_of(tmp_path)("urgent"))
