"""What was compiled is kept, and used only where nobody else can have written it."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hyperscan
import pytest

from cotguard import cache
from cotguard.detectors.conformance import find
from cotguard.detectors.patterns import PatternDetector
from cotguard.detectors.registry import RULES
from cotguard.detectors.rule import Rule
from cotguard.spans import Span


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

LARGE = next(rule for rule in RULES if rule.name == "swift")
OTHER = next(rule for rule in RULES if rule.name == "mac-address")
TEXT = "SWIFT/BIC: DEUTDEFF500"


@dataclass
class Made:
    """How many databases were kept when compiled, and how many were loaded instead."""

    kept: int = 0
    loaded: int = 0


@pytest.fixture
def made(place: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    counts = Made()
    dump, load = hyperscan.dumpb, hyperscan.loadb

    def dumpb(compiled: hyperscan.Database) -> bytes:
        counts.kept += 1
        return dump(compiled)

    def loadb(data: bytes, mode: int) -> hyperscan.Database:
        loaded = load(data, mode)
        counts.loaded += 1
        return loaded

    monkeypatch.setattr(hyperscan, "dumpb", dumpb)
    monkeypatch.setattr(hyperscan, "loadb", loadb)
    return counts


def found(*others: Rule) -> list[Span]:
    return find(PatternDetector([LARGE, *others]), TEXT)


def test_databases_are_compiled_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    first = found()
    assert [span.entity for span in first] == ["SWIFT_CODE"]
    assert made == Made(kept=1)
    assert found() == first
    assert made == Made(kept=1, loaded=1)
    assert found(OTHER) == first  # which is another database
    assert made == Made(kept=2, loaded=1)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("", "", "", "", "another")))
    assert found() == first
    assert made == Made(kept=3, loaded=1)


def test_what_is_no_database_is_compiled_anew(made: Made, place: Path) -> None:
    first = found()
    cache.write(only_file(place).stem, b"no database")  # whole, and trusted
    assert found() == first
    assert made == Made(kept=2)
    assert found() == first
    assert made == Made(kept=2, loaded=1)


def test_small_databases_are_not_kept(made: Made, place: Path) -> None:
    rule = Rule(name="key", entity="SECRET_API_KEY", value="acme_[0-9a-f]{8}")
    for _ in range(2):
        assert len(find(PatternDetector([rule]), "key acme_01234567 and")) == 1
    assert made == Made()
    assert not place.exists()


def test_a_folder_that_cannot_be_used_changes_nothing(made: Made, place: Path) -> None:
    place.parent.write_bytes(b"")
    assert found() == found()
    assert made == Made(kept=2)


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
