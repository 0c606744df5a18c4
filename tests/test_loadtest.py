"""The benchmark's own arithmetic, and one small run of all its parts."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotguard.detectors.contract import Detector
from cotguard.policy import Policy
from loadtest import contenders
from loadtest.bench import Options, added, bench, medians
from loadtest.exposition import Histogram
from loadtest.hold import Holds, measure, quantile
from loadtest.load import Arrival, Delay, delays
from loadtest.script import PROSE, Script, split


@given(st.text())
def test_splitting_loses_nothing_of_prose(text: str) -> None:
    assert "".join(split(PROSE)) == PROSE
    assert all(split(text))


def test_a_script_ends_where_its_tokens_do() -> None:
    script = Script(40, planted=False)
    assert script.text == "".join(script.tokens) == "".join(token for _, token in script.deltas)
    assert script.ends[-1] == len(script.text)
    assert sum(channel == "answer" for channel, _ in script.deltas) == 10


def test_delays_are_those_of_tokens_not_of_reads() -> None:
    ends, sent = [3, 6, 9], [0.0, 1.0, 2.0]
    arrivals = [Arrival(0.5, 2), Arrival(1.5, 6), Arrival(2.25, 9)]
    assert list(delays(ends, sent, arrivals)) == [Delay(0.0, 1.5, 1), Delay(1.0, 0.5, 0), Delay(2.0, 0.25, 0)]


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 1), (0.51, 4), (0.9, 4), (1, 9)])
def test_quantiles_of_counts(share: float, value: int) -> None:
    assert quantile(Counter({4: 4, 1: 5, 9: 1}), share) == value


def test_quantiles_of_histograms_lie_within_their_bucket() -> None:
    histogram = Histogram({1.0: 10.0, 2.0: 30.0, float("inf"): 40.0}, 60.0)
    assert histogram.quantile(0.5) == 1.5
    assert histogram.quantile(0.25) == 1.0
    assert histogram.quantile(0.99) == 2.0
    assert histogram.mean == 1.5


def test_histograms_grow() -> None:
    before, after = Histogram({1.0: 1.0, 2.0: 3.0}, 4.0), Histogram({1.0: 2.0, 2.0: 7.0}, 11.0)
    assert after - before == Histogram({1.0: 1.0, 2.0: 4.0}, 7.0)
    assert (after - after).quantile(0.5) == (after - after).mean == 0


def test_ratios_are_to_copying_and_what_is_added_to_no_proxy() -> None:
    turns = {"direct": [{"first50": 2.0}], "pass-through": [{"cpu": 4.0}] * 2, "x": [{"cpu": 5.0, "first50": 5.0}]}
    turns["x"].append({"cpu": 7.0, "first50": 6.0})
    rows = medians(turns)
    assert rows["x"] == {"cpu": 6.0, "first50": 5.5, "ratio": 1.5}
    assert added(rows) == {"pass-through": {}, "x": {"first50": 3.5}}


def test_what_is_held_and_altered(balanced: tuple[Policy, tuple[Detector, ...]]) -> None:
    holds = Holds()
    text = "Write to ann.lee@example.com, 1 2 3, and wait."
    measure(text, *balanced, holds)
    assert (holds.texts, holds.received, holds.altered) == (1, len(text), len("ann.lee@example.com"))
    assert holds.entities == Counter({"EMAIL_ADDRESS": 1})
    assert holds.characters.total() == len(split(text))
    assert max(holds.characters) >= len("ann.lee@example.com")


async def test_a_small_benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(contenders, "_NATIVE", tmp_path / "none")  # whether the core was compiled here or not
    options = Options(streams=2, rate=50, seconds=0.5, repeat=1, policies=("nothing",))
    said: list[str] = []
    report = await bench(options, said.append)
    rows = [line.split(" | ") for line in report.splitlines() if line.startswith("| ")]
    names = [row[0].removeprefix("| ") for row in rows]
    proxies = ["pass-through", "parse-and-write", "cotguard nothing"]
    assert names == ["proxy", "direct", *proxies, "proxy", *proxies, "proxy", "direct", *proxies]
    assert rows[2][2] == "1.00"
    assert any("cotguard nothing" in line for line in said)
