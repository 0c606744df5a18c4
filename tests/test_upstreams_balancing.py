"""The choice of a server and its breaker, without sockets and with a clock of the test's own."""

import random

import pytest
from hypothesis import assume
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cotguard.upstreams.balancing import Balancer, Member, Slot
from cotguard.upstreams.breaker import Breaker, State
from cotguard.upstreams.errors import AllDownError, AllFullError

FAILURES, PAUSE = 3, 10.0


def members(count: int) -> list[Member]:
    return [Member(Breaker(FAILURES, PAUSE)) for _ in range(count)]


def shares(balancer: Balancer[Member], among: list[Member], rounds: int, *, at_once: bool) -> list[int]:
    """How often each member is chosen, for requests one by one or all at once."""
    found = [0] * len(among)
    for _ in range(rounds):
        slot = balancer.choose(0.0).begin()
        found[among.index(slot.member)] += 1
        if not at_once:
            slot.succeeded()
            slot.end()
    return found


@pytest.mark.parametrize("at_once", [False, True])
def test_requests_are_shared_by_weight(at_once: bool) -> None:
    found = members(3)
    balancer = Balancer(dict(zip(found, (1, 2, 3), strict=True)), None)
    assert shares(balancer, found, 60, at_once=at_once) == [10, 20, 30]


def test_the_server_with_the_fewest_requests_is_next() -> None:
    found = members(2)
    balancer = Balancer(dict.fromkeys(found, 1), None)
    slots = [balancer.choose(0.0).begin() for _ in range(10)]
    for slot in slots:
        if slot.member is found[0]:
            slot.end()
    assert shares(balancer, found, 5, at_once=True) == [5, 0]


def test_a_server_that_was_out_does_not_catch_up() -> None:
    found = members(2)
    balancer = Balancer(dict.fromkeys(found, 1), None)
    found[0].healthy = False
    assert shares(balancer, found, 10, at_once=False) == [0, 10]
    found[0].healthy = True
    assert shares(balancer, found, 10, at_once=False) == [6, 4]  # its turn is at most one before the other's


def test_one_that_failed_the_request_is_tried_again_only_where_there_is_no_other() -> None:
    found = members(2)
    balancer = Balancer(dict.fromkeys(found, 1), 1)
    assert balancer.choose(0.0, {found[0]}) is found[1]
    slot = found[1].begin()
    with pytest.raises(AllFullError):
        balancer.choose(0.0, {found[0]})  # the other is busy: it is waited for
    slot.end()
    found[1].healthy = False
    assert balancer.choose(0.0, {found[0]}) is found[0]


def state(member: Member) -> State:
    return member.breaker.state


def failing(member: Member, now: float, times: int = FAILURES) -> None:
    for _ in range(times):
        slot = member.begin()
        slot.failed(now)
        slot.end()


def test_a_breaker_opens_tries_once_and_closes() -> None:
    (member,) = members(1)
    balancer = Balancer({member: 1}, None)
    failing(member, 0.0, FAILURES - 1)
    slot = member.begin()
    slot.succeeded()
    slot.end()
    failing(member, 0.0, FAILURES - 1)
    assert balancer.choose(0.0) is member  # the failures were not in a row
    failing(member, 0.0, 1)
    with pytest.raises(AllDownError) as raised:
        balancer.choose(2.5)
    assert raised.value.retry_after == 8
    trial = balancer.choose(PAUSE).begin()
    assert state(member) is State.HALF_OPEN
    with pytest.raises(AllDownError) as raised:
        balancer.choose(PAUSE)
    assert raised.value.retry_after == 1
    trial.failed(PAUSE)
    trial.end()
    with pytest.raises(AllDownError):
        balancer.choose(PAUSE * 2 - 0.1)
    trial = balancer.choose(PAUSE * 2).begin()
    trial.end()  # the client left: the next one is the trial
    trial = balancer.choose(PAUSE * 2).begin()
    trial.succeeded()
    assert state(member) is State.CLOSED  # while its answer is still under way
    assert balancer.choose(PAUSE * 2) is member
    trial.end()
    assert member.outstanding == 0


def test_what_was_sent_before_a_breaker_opened_decides_nothing() -> None:
    (member,) = members(1)
    late = [member.begin() for _ in range(3)]
    failing(member, 0.0)
    late[0].succeeded()
    assert not member.admits(1.0)
    assert member.admits(PAUSE)
    trial = member.begin()
    late[1].failed(PAUSE)
    late[2].succeeded()
    assert state(member) is State.HALF_OPEN
    trial.succeeded()
    assert state(member) is State.CLOSED


def test_none_is_well_and_no_time_is_known() -> None:
    found = members(2)
    for member in found:
        member.healthy = False
    with pytest.raises(AllDownError) as raised:
        Balancer(dict.fromkeys(found, 1), None).choose(0.0)
    assert raised.value.retry_after == 5


class Balancing(RuleBasedStateMachine):
    """Any order of requests, verdicts, ends, health and time, against what a few counters say must hold."""

    @initialize(
        weights=st.lists(st.integers(1, 4), min_size=1, max_size=4), limit=st.one_of(st.none(), st.integers(1, 3))
    )
    def begin(self, weights: list[int], limit: int | None) -> None:
        self.now = 0.0
        self.limit = limit
        self.weights = dict(zip(members(len(weights)), weights, strict=True))
        self.balancer = Balancer(self.weights, limit)
        self.open: list[Slot[Member]] = []  # slots without a verdict
        self.judged: list[Slot[Member]] = []
        self.trials: dict[Member, Slot[Member]] = {}
        self.shut: dict[Member, float] = {}  # when the breaker may try again
        self.failed = dict.fromkeys(self.weights, 0)

    def takes(self, member: Member) -> bool:
        shut = member in self.shut and (self.now < self.shut[member] or member in self.trials)
        return member.healthy and not shut

    @rule(tried=st.integers(0, 15))
    def choose(self, tried: int) -> None:
        failed = {member for place, member in enumerate(self.weights) if tried >> place & 1}
        well = [member for member in self.weights if self.takes(member)]
        among = [member for member in well if member not in failed] or well
        free = [member for member in among if self.limit is None or member.outstanding < self.limit]
        if not free:
            with pytest.raises(AllFullError if well else AllDownError):
                self.balancer.choose(self.now, failed)
            return
        chosen = self.balancer.choose(self.now, failed)
        assert chosen in free
        load = {member: member.outstanding / self.weights[member] for member in free}
        assert load[chosen] == min(load.values())
        slot = chosen.begin()
        self.open.append(slot)
        if chosen in self.shut:
            self.trials[chosen] = slot

    @precondition(lambda self: self.open)
    @rule(seed=st.integers(0, 2**16), verdict=st.sampled_from(["succeeded", "failed", "left"]))
    def judge(self, seed: int, verdict: str) -> None:
        slot = self.open.pop(random.Random(seed).randrange(len(self.open)))
        member = slot.member
        trial = self.trials.get(member) is slot
        if verdict == "left":
            slot.end()
        else:
            self.judged.append(slot)
        if verdict == "succeeded":
            slot.succeeded()
            if trial:
                del self.shut[member]
            if member not in self.shut:
                self.failed[member] = 0
        elif verdict == "failed":
            slot.failed(self.now)
            if member not in self.shut:
                self.failed[member] += 1
            if trial or (member not in self.shut and self.failed[member] == FAILURES):
                self.shut[member] = self.now + PAUSE
        if trial:
            del self.trials[member]

    @precondition(lambda self: self.judged)
    @rule(seed=st.integers(0, 2**16))
    def end(self, seed: int) -> None:
        self.judged.pop(random.Random(seed).randrange(len(self.judged))).end()

    @rule(place=st.integers(0, 3), healthy=st.booleans())
    def check(self, place: int, healthy: bool) -> None:
        assume(place < len(self.weights))
        list(self.weights)[place].healthy = healthy

    @rule(seconds=st.sampled_from([0.1, 4.0, PAUSE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def counts(self) -> None:
        for member in getattr(self, "weights", ()):
            under_way = [slot for slot in (*self.open, *self.judged) if slot.member is member]
            assert member.outstanding == len(under_way)
            assert (member.breaker.state is State.CLOSED) == (member not in self.shut)
            assert (member.breaker.state is State.HALF_OPEN) == (member in self.trials)


Balancing.TestCase.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBalancing = Balancing.TestCase
