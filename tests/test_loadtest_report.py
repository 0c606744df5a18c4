"""The report: how growth is judged, targets and page from made-up figures, and one quick run of all its parts."""

import copy
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench import ADDED
from loadtest.report.__main__ import main
from loadtest.report.page import PAGE, render, write
from loadtest.report.results import REMOTE, RESULTS, read
from loadtest.report.scaling import growth, slope
from loadtest.report.sections import SECTIONS, schedule
from loadtest.report.targets import TARGETS, table
from loadtest.tables import Column
from loadtest.tables import table as figures_table

_COST = {"direct": 0.0, "pass-through": 10.0, "parse-and-write": 12.0, "cotguard nothing": 13.0}
_COST |= {"cotguard secrets-only": 14.0, "cotguard patterns-only": 14.5}
_PERCENTILES = ("0", "50", "90", "99", "99.9", "100")


def _paced(name: str) -> dict[str, float]:
    figures = dict.fromkeys(("mock", "client", "token50", "token99", *ADDED), 1.0)
    return figures if name == "direct" else {**figures, "cpu": _COST[name], "idle": 50.0, "busy": 60.0}


def _latency(first: float) -> dict[str, Any]:
    curve = dict.fromkeys(_PERCENTILES, first)
    return {
        "requests": 9,
        "failed": 0,
        "first": curve,
        "character": curve,
        "whole": curve,
        "own": {"50": 0.1, "99": 2.0},
    }


def _point(streams: int) -> dict[str, float]:
    return {
        **dict.fromkeys(("wait_mean", "wait50", "wait99", "delay_mean", "delay50", "delay99"), 0.01),
        **dict.fromkeys(("late50", "late99"), 16.0),
        "streams": streams,
        "tokens": 400,
        "rate": 50.0,
        "failed": 0,
        "seconds": 10.0,
        "cpu": 2.0,
        "windows": 288.0,
        "batches": 200.0,
        "judging": 1.0,
        "turns": 3,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    proxies = [name for name in _COST if name != "direct"]
    fast = {name: [{"cpu": cost / 10, "speed": 1e5, "share": 1.0}] * 3 for name, cost in _COST.items()}
    fast["direct"] = [{"speed": 1e5}] * 3
    by_streams = {name: {str(n): {"cpu": _COST[name], "speed": 1e5} for n in (1, 10, 100)} for name in proxies}
    sizes = {"0": 50e6, "10": 50.2e6, "100": 52e6}
    shares = {"10": 0, "50": 3, "90": 8, "99": 20, "100": 30}
    return {
        "plan": {
            "busy": 64,
            "repeat": 3,
            "rate": 50.0,
            "concurrent": 50,
            "most_events": 3200.0,
            "spoken": ["a", "b"],
            "streams": [1, 10, 100],
        },
        "machine": dict.fromkeys(SECTIONS, "2026-01-01 00:00 UTC; CPU, 2 cores, load 0.10 before; Linux, Python"),
        "cost": {"paced": {name: [_paced(name)] * 3 for name in _COST}, "unpaced": fast},
        "dialects": {
            "chat": {each: {"paced": cost, "unpaced": cost / 10} for each, cost in (("a", 40.0), ("b", 80.0))}
        },
        "latency": {name: _latency(1.0 if name == "direct" else 1.2) for name in _COST},
        "concurrency": by_streams,
        "streams": by_streams,
        "length": {name: {"1000": 0.01, "10000": 0.1, "100000": 1.0} for name in proxies},
        "memory": {
            "idle": {"pass-through": sizes, "cotguard patterns-only": sizes},
            "busy": {"pass-through": sizes, "cotguard patterns-only": sizes},
            "fresh": {"none": 55e6, "tagger-4": 200e6, "tagger-3": 190e6},
        },
        "hold": {name: {"characters": shares, "tokens": shares} for name in ("patterns-only", "balanced, tagger-4")},
        "classifier": {
            name: {"unpaced": {"cpu": cost, "speed": 5000.0}, "points": {str(n): _point(n) for n in (16, 64)}}
            for name, cost in {"tagger-4": 140.0, "tagger-3": 90.0}.items()
        },
    }


def _verdicts(results: dict[str, Any]) -> list[str]:
    return [line.split(" | ")[4].removesuffix(" |") for line in table(results).splitlines()[2:]]


def test_every_target_has_a_verdict(results: dict[str, Any]) -> None:
    verdicts = _verdicts(results)
    assert len(verdicts) == len(TARGETS) == 10
    assert verdicts[:6] == ["met"] * 6
    assert verdicts[6].startswith("tagger-3 missed: ")
    assert verdicts[7:9] == ["met", "met"]
    assert verdicts[9] == "not measured"


def test_what_is_missed_says_which_part_and_why(results: dict[str, Any]) -> None:
    worse = copy.deepcopy(results)
    for turn in worse["cost"]["paced"]["cotguard patterns-only"]:
        turn["cpu"] = 21.0
    worse["latency"]["cotguard patterns-only"]["own"]["99"] = 4.0
    worse["latency"]["cotguard secrets-only"]["character"] = dict.fromkeys(_PERCENTILES, 90.0)
    worse["memory"]["fresh"]["none"] = 61e6
    verdicts = _verdicts(worse)
    assert verdicts[0].startswith("missed: without any detector it is 1.30 x")
    assert verdicts[2].startswith("p99 missed: ")
    assert verdicts[4].startswith("missed: ")
    assert verdicts[8].startswith("without missed: ")
    assert "2.10 x" in table(worse)


def test_the_remote_classifier_is_told_where_another_command_measured_it(results: dict[str, Any]) -> None:
    results["remote"] = {"added50_ms": 2.0, "throughput_ratio": 0.9, "baseline": "the client alone"}
    assert _verdicts(results)[9].startswith("throughput missed: ")
    results["remote"]["throughput_ratio"] = 1.1
    assert _verdicts(results)[9] == "met"


def test_the_page_takes_the_remote_classifier_from_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / REMOTE).write_text('{"added50_ms": 2, "throughput_ratio": 1.1, "baseline": "the client alone"}')
    assert "| the client alone | met |" in write({}, tmp_path).read_text(encoding="utf-8")


def test_a_report_of_nothing_says_so() -> None:
    assert _verdicts({}) == ["not measured"] * len(TARGETS)
    assert render({}, []).count("Not measured.") == 9


def test_the_page_has_every_table_and_the_plots_that_were_drawn(results: dict[str, Any]) -> None:
    page = render(results, ["cpu"])
    assert "Not measured." not in page
    assert page.count(".png)") == 1
    assert "![Cost against streams](cpu.png)" in page
    assert "latency.png" not in page
    assert "| pass-through | 10.0 | 1.00 |" in page
    assert "CPU, 2 cores; Linux, Python" in page
    assert "cost 2026-01-01 00:00 UTC (load 0.10 before)" in page
    assert "\n\n\n" not in page


def test_plots_are_drawn_of_what_was_measured(results: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from loadtest.report.plots import PLOTS, draw

    assert draw(results, tmp_path) == list(PLOTS)
    assert {file.name for file in tmp_path.iterdir()} == {f"{name}.png" for name in PLOTS}
    assert draw({}, tmp_path) == []


def test_linear_growth_is_told_from_quadratic_growth() -> None:
    sizes = [1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6]
    straight = growth({size: 50 + 0.02 * size for size in sizes})
    assert straight.power == pytest.approx(1, abs=0.05)
    assert straight.ratio == pytest.approx(1)
    assert straight.square == pytest.approx(0, abs=1e-6)
    bent = growth({size: 50 + 0.02 * size + 1e-7 * size**2 for size in sizes})
    assert bent.power > 1.3
    assert bent.ratio > 2
    assert bent.square == pytest.approx(1e5 / (50 + 2e4 + 1e5))


def test_a_slope_is_that_of_the_line() -> None:
    assert slope({0: 5.0, 10: 25.0, 20: 45.0}) == pytest.approx(2)


def test_a_missing_figure_is_no_zero() -> None:
    rows = {"a": {"x": 1.0, "y": 2000.0}, "b": {"x": 2.0}}
    lines = figures_table("proxy", [Column("x", "X", 2), Column("y", "Y", 0)], rows).splitlines()
    assert lines == ["| proxy | X | Y |", "|---|---:|---:|", "| a | 1.00 | 2,000 |", "| b | 2.00 | – |"]


def test_the_schedule_of_streams_is_the_same_every_time() -> None:
    assert schedule(20) == schedule(20) == sorted(schedule(20))
    assert len(schedule(20)) == 20


def test_a_quick_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--folder", str(tmp_path)]) == 0
    assert str(tmp_path / PAGE) in capsys.readouterr().out
    page, measured = (tmp_path / PAGE).read_text(encoding="utf-8"), read(tmp_path)
    assert {*measured} == {*SECTIONS, "machine", "plan"} - {"hold", "classifier"}
    assert measured["cost"]["paced"]["pass-through"][0]["cpu"] > 0
    assert all(each["failed"] == 0 for each in measured["latency"].values())
    assert "| pass-through |" in page
    before = (tmp_path / RESULTS).read_bytes()
    assert main(["--only", "--folder", str(tmp_path)]) == 0
    assert (tmp_path / PAGE).read_text(encoding="utf-8") == page
    assert (tmp_path / RESULTS).read_bytes() == before
