import re

import pytest

from cotguard.demo import run
from cotguard.demo.server import ANSWER, PLANTED, REASONING
from cotguard.demo.session import NEXT, planted_in


def _part(output: str, title: str) -> str:
    """The text below a title, up to the next title or the table."""
    found = re.search(rf"^--- {title}\n(.*?)(?=^--- |^What cotguard found)", output, re.DOTALL | re.MULTILINE)
    assert found, f"no part {title!r} in the output"
    return found[1]


def test_every_planted_value_is_in_the_script_and_is_counted() -> None:
    assert all(planted_in(value) == 1 for value in PLANTED.values())
    assert all(value in REASONING for value in PLANTED.values())
    assert planted_in(ANSWER) == 5
    assert len(PLANTED["system prompt"].split()) >= 10


def test_counting_is_not_fooled_by_case_and_separators() -> None:
    assert planted_in("4111-1111-1111-1111, ANN.LEE@EXAMPLE.COM") == 2
    assert planted_in("[CREDIT_CARD], [EMAIL_ADDRESS]") == 0


def test_the_demo_delivers_no_planted_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fast=True) == 0
    output = capsys.readouterr().out
    assert _part(output, "raw reasoning").strip() == REASONING
    assert _part(output, "raw answer").strip() == ANSWER
    moderated = _part(output, "moderated reasoning"), _part(output, "moderated answer")
    for text in moderated:
        assert planted_in(text) == 0
        assert not any(value in text for value in PLANTED.values())
        assert "[EMAIL_ADDRESS]" in text
    assert "[SYSTEM_PROMPT]" in moderated[0]
    assert "13 in the raw text, 0 in what cotguard delivered" in output
    assert NEXT in output
