"""The queueing simulation against formulas, and the arithmetic of capacity."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadtest.capacity import Compared, Costs, compare, compared_table, loop_seconds, need, predict
from loadtest.script import Script
from loadtest.simulation import Profile, replay, serve, simulate


def _poisson(rate: float, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(7).exponential(1 / rate, count).cumsum()


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_waits_of_fixed_service_are_those_of_the_formula(load: float) -> None:
    """M/D/1: the mean wait is ``load / (2 * (1 - load))`` services."""
    arrivals = _poisson(load, 200_000)
    served = serve(arrivals, float)
    assert served.waits.mean() == pytest.approx(load / (2 * (1 - load)), rel=0.1)
    assert served.busy / served.done[-1] == pytest.approx(load, rel=0.02)


def test_waits_of_random_service_are_those_of_the_formula() -> None:
    """M/M/1: the mean wait is ``load / (1 - load)`` services."""
    arrivals, draw = _poisson(0.6, 200_000), np.random.default_rng(3)
    served = serve(arrivals, lambda units: float(draw.exponential(units)))
    assert served.waits.mean() == pytest.approx(1.5, rel=0.1)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 3))
@example([0.0] * 7 + [0.8], 2, 1)
def test_nothing_is_lost_and_nobody_is_served_before_coming(customers: list[float], most: int, servers: int) -> None:
    arrivals = np.array(sorted(customers))
    served = serve(arrivals, lambda units: 0.1 + 0.5 * units, most=most, servers=servers)
    assert served.batches.sum() == len(customers)
    assert served.busy == pytest.approx(0.1 * len(served.batches) + 0.5 * len(customers))
    assert (served.waits >= 0).all()
    begins = arrivals + served.waits
    assert (np.diff(begins) >= -1e-9).all()  # first come, first served
    assert (served.done > begins).all()
    # Those of one batch begin at one time, which adding what was subtracted gives up to rounding.
    under_way = set(zip(begins.round(6).tolist(), served.done.round(6).tolist(), strict=True))
    assert all(sum(begin <= at < end - 1e-5 for begin, end in under_way) <= servers for at, _ in under_way)
    assert max(served.batches) <= most


def test_a_batch_takes_what_waits_and_no_more() -> None:
    served = serve(np.array([0.0, 0.1, 0.2, 0.3, 0.4, 9.0]), float, most=3)
    assert served.batches.tolist() == [1, 3, 1, 1]
    assert served.done.tolist() == [1.0, 4.0, 4.0, 4.0, 5.0, 10.0]


def test_two_servers_take_turns() -> None:
    served = serve(np.zeros(4), float, servers=2)
    assert sorted(served.done.tolist()) == [1.0, 1.0, 2.0, 2.0]


def _profile() -> Profile:
    """Ten tokens; the fourth and the last complete a window; everything is released by these two."""
    windows = np.zeros(10, dtype=np.int64)
    windows[[3, 9]] = 1
    return Profile(windows, np.array([3] * 4 + [9] * 6))


def test_text_waits_for_the_token_that_releases_it_and_for_the_answer() -> None:
    found = simulate(_profile(), [0.0], 10, event_seconds=0.001, window_seconds=0.02)
    held = [0.3, 0.2, 0.1, 0.0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    assert found.delay_mean == pytest.approx(np.mean(held) + 0.021)
    assert found.delay99 == pytest.approx(0.521, rel=0.05)
    assert (found.wait_mean, found.batch_mean) == (0, 1)
    assert found.judging == pytest.approx(0.04 / (0.9 + 0.021))
    assert found.loop == pytest.approx(0.01 / (0.9 + 0.021))


def test_windows_that_come_together_share_a_batch_and_wait() -> None:
    found = simulate(_profile(), [0.0] * 5, 10, event_seconds=0.0, window_seconds=0.02)
    assert found.batch_mean == 2.5  # the first alone, the four behind it together
    assert found.wait_mean == pytest.approx(0.02 * 4 / 5)


def test_without_a_classifier_only_the_loop_is_busy() -> None:
    profile = Profile(np.zeros(10, dtype=np.int64), np.arange(10))
    found = simulate(profile, [0.0, 0.0], 10, event_seconds=0.001, window_seconds=0.02)
    assert (found.judging, found.wait99, found.batch_mean) == (0, 0, 0)
    assert found.delay_mean == pytest.approx(0.0015)  # of two events at once the second waits


async def test_a_replay_releases_every_token_by_itself_or_a_later_one() -> None:
    profile = await replay("patterns-only", "none", 60)
    assert profile.windows.sum() == 0
    assert (profile.released >= np.arange(60)).all()
    assert profile.released[-1] == 59
    assert (np.diff(profile.released) >= 0).all()
    assert len(Script(60, planted=False).tokens) == 60


_COSTS = Costs(loop=100e-6, judging=200e-6, stream_bytes=1e4, worker_bytes=1e8)


@pytest.mark.parametrize("streams", [1, 60, 61, 1000, 10_000_000])
def test_needs_grow_with_streams(streams: int) -> None:
    assert _COSTS.streams(rate=50, utilisation=0.6) == 60  # the judging thread is the busier one
    needed = need(_COSTS, streams, rate=50, utilisation=0.6)
    assert needed.workers == math.ceil(streams / 60)
    assert needed.cores == pytest.approx(streams * 50 * 300e-6 / 0.6)
    assert needed.memory == pytest.approx(needed.workers * 1e8 + streams * 1e4)


def test_the_event_loop_bounds_a_worker_without_a_classifier() -> None:
    assert Costs(loop=100e-6).streams(50, 0.6) == 120
    assert Costs(loop=1.0).streams(50, 0.6) == 1


def test_deviations_are_shares_of_what_was_measured() -> None:
    rows = [Compared("a", 1.2, 1.0), Compared("b", 0.7, 1.0), Compared("c", 1.0, 0.0)]
    assert [row.within for row in rows] == [True, False, False]
    table = compared_table(rows).splitlines()
    assert table[2] == "| a | 1.20 | 1.00 | +20% | yes |"
    assert table[3] == "| b | 0.70 | 1.00 | -30% | no |"


def test_a_point_that_the_simulation_made_up_is_predicted() -> None:
    profile, streams = _profile(), 6
    point: dict[str, Any] = {
        "streams": streams,
        "turns": 2,
        "tokens": 10,
        "rate": 10.0,
        "windows": 24.0,
        "judging": 0.48,
        "cpu": 0.6,
    }
    assert loop_seconds(point) == pytest.approx(0.001)
    found = predict(profile, point)
    point |= {
        "seconds": 0.48 / found.judging,
        "batches": 24 / found.batch_mean,
        "delay_mean": found.delay_mean,
        "delay50": found.delay50,
        "delay99": found.delay99,
        "wait_mean": found.wait_mean,
    }
    rows = compare(found, point)
    assert len(rows) == 6
    assert all(row.within for row in rows if row.measured)
