"""The documentation's counts are those of the tables."""

from pathlib import Path

from torture.cases import counted

PAGE = Path(__file__).parents[2] / "docs" / "hardening.md"


def test_the_documented_counts() -> None:
    _, _, behind = PAGE.read_text("utf-8").partition("<!-- counts of tests/torture -->\n")
    assert behind.partition("<!-- end -->")[0] == counted()
