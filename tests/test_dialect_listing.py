"""The list of dialects: on the command line, and the same in the README."""

from pathlib import Path

import pytest

from cotguard.cli import main
from cotguard.dialects.catalogue import dialects
from cotguard.dialects.listing import markdown

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- cotguard dialects --markdown -->\n", "<!-- end -->"


def test_the_readme_has_the_table_of_the_tables() -> None:
    _, found, rest = README.read_text("utf-8").partition(BEGIN)
    assert found
    assert rest.partition(END)[0] == markdown(dialects()), "put the output of `cotguard dialects --markdown` there"


def test_every_path_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dialects"]) == 0
    listed = capsys.readouterr().out
    for dialect in dialects():
        assert f"{dialect.title} ({dialect.name})" in listed
        for route in dialect.routes:
            assert route.path in listed
            assert route.refused in listed


def test_names_are_distinct() -> None:
    names = [dialect.name for dialect in dialects()]
    assert len(set(names)) == len(names)
