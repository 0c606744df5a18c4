"""What was compiled is kept, and used only where nobody else can have written it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import hyperscan
import pytest

from cotguard import cache
from cotguard.detectors import databases
from cotguard.detectors.conformance import find
from cotguard.detectors.databases import database
from cotguard.detectors.patterns import PatternDetector
from cotguard.detectors.rule import Rule


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache will be."""
    monkeypatch.setenv("COTGUARD_CACHE", str(tmp_path / "own" / "cache"))
    return tmp_path / "own" / "cache"


def only_file(place: Path) -> Path:
    (file,) = place.iterdir()
    return file


def test_what_was_written_is_read(place: Path) -> None:
    assert cache.read("a") is None
    cache.write("a", b"text")
    assert (cache.read("a"), cache.read("b")) == (b"text", None)
    cache.write("a", b"")
    assert cache.read("a") == b""
    assert place.stat().st_mode & 0o777 == 0o700
    assert only_file(place).stat().st_mode & 0o777 == 0o600


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:10])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def give_away(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can")
    os.chown(path, 12345, -1)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".other"))
    path.symlink_to(path.with_suffix(".other"))


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


FAULTS: dict[str, Callable[[Path], None]] = {
    "damaged": damage,
    "cut off": cut,
    "empty": empty,
    "written by the group": lambda file: file.chmod(0o660),
    "written by all": lambda file: file.chmod(0o606),
    "of another user": give_away,
    "a link": link,
    "a folder": folder_instead,
    "in a folder that all can write to": lambda file: file.parent.chmod(0o777),
    "in a folder of another user": lambda file: give_away(file.parent),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_trusted_is_not_there(place: Path, fault: str) -> None:
    cache.write("a", b"text")
    FAULTS[fault](only_file(place))
    assert cache.read("a") is None
    cache.write("a", b"other")
    assert cache.read("a") in (b"other", None)


@pytest.mark.parametrize("value", ["", "/dev/null", "/dev/null/x", "/proc/x"])
def test_a_place_that_is_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("COTGUARD_CACHE", value)
    cache.write("a", b"text")
    assert cache.read("a") is None


def test_the_usual_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COTGUARD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.folder() == Path("/x/cotguard")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ann")
    assert cache.folder() == Path("/home/ann/.cache/cotguard")

    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    assert cache.folder() is None
    cache.write("a", b"text")
    assert cache.read("a") is None


def test_the_oldest_files_go(place: Path) -> None:
    for number in range(cache.MAX_FILES):
        cache.write(f"n{number}", b"x")
        os.utime(place / f"n{number}.bin", (number, number))
    assert cache.read("n0") == b"x"  # and so it is the youngest
    cache.write("more", b"x")
    assert len(list(place.iterdir())) == cache.MAX_FILES
    assert (cache.read("n0"), cache.read("n1"), cache.read("n2")) == (b"x", None, b"x")


# --- Databases ----------------------------------------------------------------------------------------------------

EXPRESSIONS = [(b"ab+c", 3), (b"x[0-9]{2}", 5)]


def matches(compiled: hyperscan.Database) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    compiled.scan(b"abbc x12 abc", match_event_handler=lambda number, _start, end, *_: found.append((number, end)))
    return found


@pytest.fixture
def compiled(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many expressions each database had that was compiled; all are worth keeping."""
    monkeypatch.setattr(databases, "WORTH_KEEPING_BYTES", 0)
    counts: list[int] = []
    compile_ = databases._compile

    def counted(expressions: list[tuple[bytes, int]]) -> hyperscan.Database:
        if expressions != [(b"a", 0)]:
            counts.append(len(expressions))
        return compile_(expressions)

    monkeypatch.setattr(databases, "_compile", counted)
    return counts


def test_a_database_is_compiled_once(compiled: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert [matches(database(EXPRESSIONS)) for _ in range(3)] == [[(3, 4), (5, 8), (3, 12)]] * 3
    assert compiled == [2]
    assert matches(database(EXPRESSIONS[:1])) == [(3, 4), (3, 12)]
    assert matches(database([(b"ab+c", 4)])) == [(4, 4), (4, 12)]
    assert compiled == [2, 1, 1]
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="another"))
    assert matches(database(EXPRESSIONS)) == [(3, 4), (5, 8), (3, 12)]
    assert compiled == [2, 1, 1, 2]


def test_what_is_no_database_is_compiled_anew(compiled: list[int], place: Path) -> None:
    database(EXPRESSIONS)
    cache.write(only_file(place).stem, b"no database")  # whole, and trusted
    assert matches(database(EXPRESSIONS)) == [(3, 4), (5, 8), (3, 12)]
    assert matches(database(EXPRESSIONS)) == [(3, 4), (5, 8), (3, 12)]
    assert compiled == [2, 2]


def test_a_small_database_is_not_kept(place: Path) -> None:
    assert matches(database(EXPRESSIONS)) == [(3, 4), (5, 8), (3, 12)]
    assert not place.exists()


def test_a_detector_from_the_cache_finds_the_same(compiled: list[int]) -> None:
    rules = [
        Rule(name="key", entity="SECRET_API_KEY", value="acme_[0-9a-f]{8}"),
        Rule(name="pin", entity="SECRET_PASSWORD", value="[0-9]{4}", context="pin: "),
    ]
    text = "key acme_01234567 and pin: 1234, 5678"
    first, second = (find(PatternDetector(rules), text) for _ in range(2))
    assert first == second
    assert len(first) == 2
    assert len(compiled) == 3


def test_processes_that_start_together_do_not_disturb_each_other(place: Path) -> None:
    script = """
from cotguard import cache
for number in range(200):
    cache.write("a", bytes([number]) * 100_000)
    assert len(set(cache.read("a"))) == 1
"""
    started = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(4)]
    assert [each.wait() for each in started] == [0] * 4
    assert only_file(place).name == "a.bin"
