"""The cost of a viewer: ratios of pairs, and one quick run of all parts."""

import pytest

from loadtest.pairs import Ratio
from loadtest.viewer import ROWS, Costs, Options, Pair, measure, report


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(1, 1, 1), (2, 1, 2), (5, 1, 5), (8, 1, 8), (9, 2, 8), (10, 2, 9), (20, 6, 15)],  # as in tables of the sign test
)
def test_the_interval_leaves_out_what_the_sign_test_allows(count: int, low: int, high: int) -> None:
    figures = [float(number) for number in range(count, 0, -1)]
    assert Ratio.of(figures, [1.0] * count) == ((count + 1) / 2, low, high)


def test_ratios_are_those_of_pairs() -> None:
    assert str(Ratio.of([2.0, 30.0, 400.0], [1.0, 10.0, 400.0])) == "2.000 (1.000 to 3.000)"


def test_the_report_names_what_was_compared_with_what() -> None:
    event = dict(zip(ROWS, [[Pair(10, 20), Pair(20, 20)], [Pair(10, 10), Pair(20, 30)], [Pair(1, 4)] * 2], strict=True))
    told = report(Options(turns=2, workers=2), Costs(event, dict.fromkeys(ROWS, Pair(0.25, 0.5))))
    rows = [line.removesuffix(" |").split(" | ")[1:] for line in told.splitlines()[2:5]]
    assert rows == [
        ["0.25", "0.50", "15.0", "20.0", "1.500 (1.000 to 2.000)", ""],
        ["0.25", "0.50", "15.0", "20.0", "1.250 (1.000 to 1.500)", "1.000 (0.500 to 1.500)"],
        ["0.25", "0.50", "1.0", "4.0", "4.000 (4.000 to 4.000)", "3.000 (2.000 to 4.000)"],
    ]
    assert "`balanced`, 2 workers; 32 streams" in told


async def test_a_small_run() -> None:
    options = Options(streams=2, rate=20, seconds=2.5, turns=1, policy="nothing")
    said: list[str] = []
    costs = await measure(options, said.append)
    assert said == ["without requests", "turn 1 of 1"]
    assert tuple(costs.event) == tuple(costs.idle) == ROWS
    pairs = [*costs.idle.values(), *(pair for found in costs.event.values() for pair in found)]
    assert all(figure > 0 for pair in pairs for figure in pair)
