"""The benchmark's own arithmetic, and one small run of all its parts."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotguard.detectors.contract import Detector
from cotguard.policy import Policy
from loadtest.bench import Options, bench, histogram_quantile
from loadtest.hold import Holds, measure, quantile
from loadtest.load import Arrival, Delay, delays
from loadtest.script import PROSE, Script, split


@given(st.text())
def test_splitting_loses_nothing_of_prose(text: str) -> None:
    assert "".join(split(PROSE)) == PROSE
    assert all(split(text))


def test_a_script_ends_where_its_tokens_do() -> None:
    script = Script(40, planted=False)
    assert script.text == "".join(script.tokens) == "".join("".join(delta.values()) for delta in script.deltas)
    assert script.ends[-1] == len(script.text)
    assert sum("content" in delta for delta in script.deltas) == 10


def test_delays_are_those_of_tokens_not_of_reads() -> None:
    ends, sent = [3, 6, 9], [0.0, 1.0, 2.0]
    arrivals = [Arrival(0.5, 2), Arrival(1.5, 6), Arrival(2.25, 9)]
    assert list(delays(ends, sent, arrivals)) == [Delay(0.0, 1.5, 1), Delay(1.0, 0.5, 0), Delay(2.0, 0.25, 0)]


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 1), (0.51, 4), (0.9, 4), (1, 9)])
def test_quantiles_of_counts(share: float, value: int) -> None:
    assert quantile(Counter({4: 4, 1: 5, 9: 1}), share) == value


def test_quantiles_of_histograms_lie_within_their_bucket() -> None:
    counts = {1.0: 10.0, 2.0: 30.0, float("inf"): 40.0}
    assert histogram_quantile(counts, 0.5) == 1.5
    assert histogram_quantile(counts, 0.25) == 1.0
    assert histogram_quantile(counts, 0.99) == 2.0


def test_what_is_held_and_altered(balanced: tuple[Policy, tuple[Detector, ...]]) -> None:
    holds = Holds()
    text = "Write to ann.lee@example.com, 1 2 3, and wait."
    measure(text, *balanced, holds)
    assert (holds.texts, holds.received, holds.altered) == (1, len(text), len("ann.lee@example.com"))
    assert holds.entities == Counter({"EMAIL_ADDRESS": 1})
    assert holds.characters.total() == len(split(text))
    assert max(holds.characters) >= len("ann.lee@example.com")


async def test_a_small_benchmark() -> None:
    options = Options(streams=2, rate=50, seconds=0.5, repeat=1, policies=("nothing",))
    said: list[str] = []
    report = await bench(options, said.append)
    rows = [line.split(" | ") for line in report.splitlines() if line.startswith("| ")]
    names = [row[0].removeprefix("| ") for row in rows]
    assert names == ["proxy", "direct", "pass-through", "parse-and-write", "cotguard nothing"] * 2
    assert rows[2][2] == "1.00"
    assert any("cotguard nothing" in line for line in said)
