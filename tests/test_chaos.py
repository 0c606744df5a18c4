"""Two scenarios of the chaos suite at a small scale, and that its checks find what they are for."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from chaos.exchange import Asked, End, Seen
from chaos.expected import FIRST, Expectation, leaked
from chaos.growth import growth
from chaos.scenarios import SCENARIOS, play
from chaos.script import FILLER, Script
from chaos.stage import Result, Scale
from chaos.trail import account, quoted

SMALL = Scale(exchanges=20, width=10)


@pytest.fixture(scope="module")
def expectation() -> Expectation:
    return Expectation(FIRST)


@pytest.mark.parametrize("name", ["upstream killed", "worker killed"])
def test_nothing_leaks_and_nothing_hangs(name: str) -> None:
    seen: list[int] = []
    result = play(name, SCENARIOS[name], SMALL, seen.append)
    assert not result.problems
    assert result.ends.total() == 21  # and one afterwards
    assert sum(seen) == 20
    assert result.ends[End.STUCK] == result.leaked == result.lost == 0
    assert result.verifies
    assert result.records > 21
    assert result.ends.total() > result.ends[End.COMPLETE]  # something did break


def test_scripts_are_told_by_their_number(expectation: Expectation) -> None:
    one, other = Script(1), Script(2, filler=3)
    assert one.text("reasoning") == Script(1).text("reasoning")
    assert not set(one.secrets) & set(other.secrets)
    assert other.text("reasoning").startswith(FILLER * 3)
    for script in (one, other):
        whole = script.text("reasoning") + script.text("answer")
        assert all(secret in whole for secret in script.secrets)
        assert not any(secret in expectation.text(script) for secret in script.secrets)


def test_a_leak_of_four_characters_is_found(expectation: Expectation) -> None:
    script = Script(7)
    expected = expectation.text(script)
    key = next(secret for secret in script.secrets if secret.startswith("AKIA"))
    assert leaked(script, expected, expected) == 0
    assert leaked(script, expected + key[8:11], expected) == 0  # three may be anything
    assert leaked(script, expected + key[8:12], expected) == 4
    assert leaked(script, expected + key, expected) == len(key)
    assert quoted(["all is well", f"key={key}"], [6, 7]) == 1


def test_what_is_not_in_order_is_told() -> None:
    result = Result("x")
    result.ends.update([End.COMPLETE, End.STUCK, End.ERROR])
    result.leaked, result.lost, result.verifies = 4, 2, False
    result.judge(frozenset({End.COMPLETE, End.ERROR}))
    assert result.problems == [
        "1 stuck exchanges",
        "4 leaked characters",
        "2 records lost",
        "1 trails that do not verify",
    ]


def test_records_that_a_client_could_expect_are_missed(tmp_path: Path) -> None:
    (tmp_path / "audit-0000000000000001.jsonl").write_text(
        '{"type":"exchange","time":"2026-01-01T00:00:00Z","request_id":"a","policy_digest":"p","outcome":"ok",'
        '"decisions":1}\n'
        '{"type":"decision","time":"2026-01-01T02:00:00Z","request_id":"a","direction":"response",'
        '"entity":"EMAIL_ADDRESS"}\n'
        '{"type":"exch'
    )
    seen = partial(Seen, 1, End.COMPLETE, "a", "p")
    assert account(tmp_path, [seen(text="to [EMAIL_ADDRESS]")]) == (2, 0, 0, 2.0)
    assert account(tmp_path, [seen(text="to [EMAIL_ADDRESS], [EMAIL_ADDRESS]")])[:3] == (2, 0, 1)
    assert account(tmp_path, [replace(seen(), request_id="b")])[:3] == (2, 1, 0)
    assert account(tmp_path, [replace(seen(), policy="q")])[:3] == (2, 1, 0)
    assert account(tmp_path, [replace(seen(), end=End.CLOSED, request_id="b")])[:3] == (2, 0, 0)


def test_exchanges_name_their_fate() -> None:
    asked = Asked(5, 20, fate="reset", filler=2)
    assert asked.body["model"] == "chaos:20:reset"
    assert asked.body["seed"] == 5
    assert asked.script == Script(5, 2)


def test_growth_is_that_of_the_line_after_the_warm_up() -> None:
    times = [float(at) for at in range(100)]
    steady = growth(times, [500.0 if at < 20 else 100.0 + at % 2 for at in range(100)])
    assert steady.within(0.01, 0)
    rising = growth(times, [100.0 + at for at in range(100)])
    assert rising.rise == pytest.approx(79)
    assert not rising.within(0.03, 0)
    assert growth(times, [100.0 - at for at in range(100)]).within(0, 0)
