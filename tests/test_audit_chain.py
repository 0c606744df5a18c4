"""The chain: what was written verifies, and whatever is done to it shows."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from audit_kit import KEY, append, decision, exchange, kept, verified
from hypothesis import given
from hypothesis import strategies as st

from cotguard.audit.chain import parse
from cotguard.audit.directory import open_directory, trail_files
from cotguard.audit.key import TrailError
from cotguard.audit.records import Record, encode
from cotguard.audit.verify import Anchor, Broken

RECORDS: list[Record] = [each(f"r{number}") for number in range(8) for each in (decision, exchange)]

Lines = list[tuple[str, list[bytes]]]


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    """A trail of several files: their names and lines."""
    path = tmp_path_factory.mktemp("trail")
    append(path, RECORDS, max_bytes=3000)
    files = [(file.path.name, file.path.read_bytes().splitlines(keepends=True)) for file in trail_files(path)]
    assert len(files) > 3
    assert all(len(lines) > 2 for _, lines in files[:-1])
    return files


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Lines of another trail of the same key."""
    path = tmp_path_factory.mktemp("other")
    append(path, RECORDS)
    return trail_files(path)[0].path.read_bytes().splitlines(keepends=True)


@contextmanager
def written(files: Lines) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        for file, lines in files:
            (Path(name) / file).write_bytes(b"".join(lines))
        yield Path(name)


def is_broken(files: Lines, *heads: Anchor) -> bool:
    with written(files) as path:
        try:
            verified(path, *heads)
        except Broken:
            return True
    return False


def places(files: Lines) -> list[tuple[int, int]]:
    """Every line, by its file and its number there."""
    return [(file, line) for file, (_, lines) in enumerate(files) for line in range(len(lines))]


def copied(files: Lines) -> Lines:
    return [(name, list(lines)) for name, lines in files]


def test_a_trail_verifies(trail: Lines) -> None:
    with written(trail) as path:
        found = verified(path)
        assert kept(path) == [record.request_id for record in RECORDS if not hasattr(record, "event")]
    assert found.types == {"decision": 8, "exchange": 8, "segment": len(trail)}
    (head,) = found.chains.values()
    assert head.seq == 16 + len(trail)
    assert found.first is not None
    assert found.first.head.seq == 1


@given(st.data())
def test_a_changed_byte_shows(trail: Lines, data: st.DataObject) -> None:
    files = copied(trail)
    file, number = data.draw(st.sampled_from(places(files)))
    line = bytearray(files[file][1][number])
    # The very last newline is the end: without it, the last record is not there. See below.
    position = data.draw(st.integers(0, len(line) - 1 - ((file, number) == places(files)[-1])))
    line[position] = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[position]))
    files[file][1][number] = bytes(line)
    assert is_broken(files)


@given(st.data())
def test_a_removed_line_shows(trail: Lines, data: st.DataObject) -> None:
    files = copied(trail)
    file, number = data.draw(st.sampled_from(places(files)[:-1]))
    del files[file][1][number]
    assert is_broken(files)


@given(st.data())
def test_swapped_lines_show(trail: Lines, data: st.DataObject) -> None:
    files = copied(trail)
    one, two = data.draw(st.lists(st.sampled_from(places(files)), min_size=2, max_size=2, unique=True))
    first, second = files[one[0]][1], files[two[0]][1]
    first[one[1]], second[two[1]] = second[two[1]], first[one[1]]
    assert is_broken(files)


@given(st.data())
def test_an_inserted_line_shows(trail: Lines, other: list[bytes], data: st.DataObject) -> None:
    files = copied(trail)
    file, number = data.draw(st.sampled_from(places(files)))
    known = [line for _, lines in files for line in lines]
    line = data.draw(st.one_of(st.sampled_from(known), st.sampled_from(other), st.binary(max_size=400)))
    added = line.removesuffix(b"\n") + b"\n"
    files[file][1].insert(number + data.draw(st.booleans()), added)
    assert is_broken(files)


@given(st.data())
def test_bytes_cut_out_show(trail: Lines, data: st.DataObject) -> None:
    files = copied(trail)
    file = data.draw(st.integers(0, len(files) - 1))
    content = b"".join(files[file][1])
    last = file == len(files) - 1
    end = data.draw(st.integers(1, len(content) - last))
    start = data.draw(st.integers(0, end - 1))
    files[file] = (files[file][0], [content[:start] + content[end:]])
    assert is_broken(files)


@pytest.mark.parametrize("file", [0, 1, -2])
def test_a_file_that_is_missing_empty_or_renamed_shows(trail: Lines, file: int) -> None:
    files = copied(trail)
    name, lines = files[file]
    assert not is_broken(files)
    files[file] = (name, [])
    assert is_broken(files)
    files[file] = (f"audit-{int(name[6:22]) + 1:016d}.jsonl", lines)
    assert is_broken(files)
    del files[file]
    assert is_broken(files)


def test_files_of_another_trail_of_the_same_key_show(trail: Lines, other: list[bytes]) -> None:
    assert is_broken([("audit-0000000000000001.jsonl", other), *trail[1:]])
    assert not is_broken([("audit-0000000000000001.jsonl", other)])


def test_an_end_that_is_cut_off_shows_to_who_knows_a_head(trail: Lines) -> None:
    with written(trail) as path:
        (head,) = verified(path).chains.values()
    anchor = Anchor(head.seq, head.mac)
    assert not is_broken(trail, anchor)
    files = copied(trail)
    files[-1][1][-1] = files[-1][1][-1][:-10]
    with written(files) as path:
        assert verified(path).torn == len(files[-1][1][-1])  # as if its writer had died
    assert is_broken(files, anchor)
    files = copied(trail)[:-1]
    assert not is_broken(files)
    with written(files) as path, pytest.raises(Broken, match=f"record {head.seq} is missing, or is not the one"):
        verified(path, anchor)
    assert is_broken(trail, Anchor(3, "0" * 64))


def test_what_was_moved_away_is_told_from_what_was_removed(trail: Lines) -> None:
    with written(trail[:2]) as path:
        (head,) = verified(path).chains.values()
    with written(trail[2:]) as path:
        with pytest.raises(Broken, match="the oldest files are missing: the trail begins with record"):
            verified(path)
        assert verified(path, start=Anchor(head.seq, head.mac)).first is not None
        assert verified(path, Anchor(head.seq, head.mac), start=Anchor(head.seq, head.mac)).first is not None
        with pytest.raises(Broken, match="was changed, or is of another trail"):
            verified(path, start=Anchor(head.seq, "0" * 64))
        with pytest.raises(Broken, match="records are missing, added or moved"):
            verified(path, start=Anchor(head.seq - 1, head.mac))


def test_the_oldest_files_go_and_verification_knows(tmp_path: Path) -> None:
    append(tmp_path, RECORDS, max_bytes=3000, keep=2)
    files = trail_files(tmp_path)
    assert len(files) == 2
    found = verified(tmp_path)
    assert found.first is not None
    assert found.first.head.seq == files[0].first > 1
    files[0].path.unlink()
    with pytest.raises(Broken, match="the oldest files are missing"):
        verified(tmp_path)


def test_files_are_no_larger_than_told(tmp_path: Path) -> None:
    append(tmp_path, RECORDS, max_bytes=3000)
    assert max(file.size for file in trail_files(tmp_path)) <= 3000


def test_a_torn_line_is_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    append(tmp_path, RECORDS[:2])
    (file,) = trail_files(tmp_path)
    for torn in (b'{"v":1,"chain":"', bytes(70_000)):  # a writer that died; zeros of a machine that did
        with file.path.open("ab") as end:
            end.write(torn)
        assert verified(tmp_path).torn == len(torn)
        append(tmp_path, RECORDS[:1])
        assert verified(tmp_path).torn == 0
    assert kept(tmp_path) == ["r0"] * 4


def test_a_file_without_a_record_is_begun_anew(tmp_path: Path) -> None:
    append(tmp_path, RECORDS[:2])
    (tmp_path / "audit-0000000000000004.jsonl").write_bytes(b'{"v":1')
    append(tmp_path, RECORDS[2:3])
    assert len(trail_files(tmp_path)) == 1
    assert verified(tmp_path).types.total() == 4


def test_an_end_removed_under_a_writer_shows(tmp_path: Path) -> None:
    directory = open_directory(tmp_path, KEY, 2**20, 10)
    tails = [encode(record, 0) for record in RECORDS]
    for tail in tails[:4]:
        directory.append([tail])
    (file,) = trail_files(tmp_path)
    lines = file.path.read_bytes().splitlines(keepends=True)
    file.path.write_bytes(b"".join(lines[:-2]))
    directory.append([tails[4]])
    with pytest.raises(Broken, match=r"record 6 follows record 3: records are missing, added or moved"):
        verified(tmp_path)
    for file in trail_files(tmp_path):
        file.path.unlink()
    directory.append([tails[5]])
    with pytest.raises(Broken, match="the oldest files are missing: the trail begins with record 8"):
        verified(tmp_path)
    directory.close()


def test_nothing_is_appended_to_what_does_not_fit_the_key(tmp_path: Path) -> None:
    append(tmp_path, RECORDS[:4])
    with pytest.raises(TrailError, match="the last record does not fit this key"):
        open_directory(tmp_path, "x" * 32, 2**20, 10)
    (file,) = trail_files(tmp_path)
    file.path.write_bytes(file.path.read_bytes().replace(b'"start":3', b'"start":4'))
    append(tmp_path, RECORDS[:1])  # what is wrong farther up is for who verifies
    with pytest.raises(Broken, match=r"audit-0000000000000001\.jsonl:2: record 2 was changed"):
        verified(tmp_path)
    file.path.write_bytes(file.path.read_bytes()[:-3] + b"0}\n")
    with pytest.raises(TrailError, match="look with `cotguard audit verify`"):
        append(tmp_path, RECORDS[:1])


def test_a_directory_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrailError, match="nowhere/x: No such file or directory; name a directory that the gateway may"):
        open_directory(tmp_path / "nowhere" / "x", KEY, 2**20, 10)
    open_directory(tmp_path / "new", "", 2**20, 10)
    (tmp_path / "new" / "key").chmod(0o644)
    with pytest.raises(TrailError, match="new/key: others can read the key; chmod 600 it"):
        open_directory(tmp_path / "new", "", 2**20, 10)


def test_a_copy_verifies(tmp_path: Path) -> None:
    (tmp_path / "trail").mkdir()
    append(tmp_path / "trail", RECORDS)
    shutil.copytree(tmp_path / "trail", tmp_path / "copy", ignore=shutil.ignore_patterns("lock"))
    assert verified(tmp_path / "copy").types.total() == 17


@given(st.text(max_size=400), st.text(max_size=400), st.text(max_size=400))
def test_whatever_a_client_calls_things_is_one_short_line(model: str, caller: str, route: str) -> None:
    tail = encode(decision(model=model, caller=caller, route=route), 0)
    assert b"\n" not in tail
    assert len(tail) < 3500  # with the rest of the line, what a pipe takes at once
    assert tail.decode().isprintable()
    line = b'{"v":1,"chain":"%s","seq":9,%s,"mac":"%s"}\n' % (b"0" * 16, tail, b"0" * 64)
    assert parse(line) is not None
