"""``cotguard audit``, and the index behind it."""

import io
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson
import pytest
from audit_kit import KEY, append, decision, exchange

from cotguard.audit.directory import last_head, trail_files
from cotguard.audit.index import COUNTED, AuditIndex, Filters
from cotguard.audit.key import TrailError
from cotguard.audit.records import DecisionRecord, Event, EventRecord, ExchangeRecord, Record, timestamp
from cotguard.cli import main
from cotguard.telemetry.metrics import Metrics

DOCS = Path(__file__).parent.parent / "docs" / "audit.md"


def some_records(count: int = 120) -> list[Record]:
    rng = random.Random(7)
    records: list[Record] = []
    for number in range(count):
        common = {
            "caller": rng.choice(["ann", "bob", ""]),
            "model": rng.choice(["m", 'a "model"', "x'y"]),
            "route": rng.choice(["/v1/messages", "/v1/chat/completions"]),
        }
        found = {
            "entity": rng.choice(["PERSON", "EMAIL_ADDRESS"]),
            "action": rng.choice(["redact", "flag"]),
            "value": rng.choice("ab") * 32,
        }
        made = rng.random()
        if made < 0.1:
            records.append(EventRecord(event=Event.CONFIG_APPLIED, process=number))
        elif made < 0.4:
            records.append(exchange(f"r{number % 9}", outcome=rng.choice(["ok", "failed"]), **common))
        else:
            records.append(decision(f"r{number % 9}", **common, **found))
    return records


def everything(path: Path) -> list[dict[str, Any]]:
    """All records of a trail, the latest first."""
    lines = [line for file in trail_files(path) for line in file.path.read_bytes().splitlines()]
    return [orjson.loads(line) for line in reversed(lines)]


def is_asked_for(record: dict[str, Any], filters: Filters) -> bool:
    wanted = {field.name: getattr(filters, field.name) for field in fields(Filters)}
    since, until = wanted.pop("since"), wanted.pop("until")
    return (
        (since is None or record["time"] >= since)
        and (until is None or record["time"] < until)
        and all(value is None or record.get(name) == value for name, value in wanted.items())
    )


def random_filters(rng: random.Random, records: list[dict[str, Any]]) -> Filters:
    """One to three fields as some record has them, and a span of time now and then."""
    record = rng.choice([each for each in records if each["type"] != "segment"])
    names = [field.name for field in fields(Filters) if field.name in record]
    asked = {name: record[name] for name in rng.sample(names, min(len(names), rng.randint(0, 3)))}
    if rng.random() < 0.5:
        asked["since"] = rng.choice(records)["time"]
    if rng.random() < 0.5:
        asked["until"] = rng.choice(records)["time"]
    return Filters(**asked)


def test_a_search_finds_what_reading_everything_finds(tmp_path: Path) -> None:
    append(tmp_path, some_records(), max_bytes=20_000)
    records = everything(tmp_path)
    rng = random.Random(3)
    hits = 0
    with AuditIndex(tmp_path) as index:
        index.update()
        assert index.search(Filters(), 1000) == records
        for _ in range(200):
            filters = random_filters(rng, records)
            expected = [record for record in records if is_asked_for(record, filters)]
            assert index.search(filters, 1000) == expected
            assert index.search(filters, 2) == expected[:2]
            by = rng.choice(COUNTED)
            counts: dict[str, int] = {}
            for record in expected:
                if record.get(by):
                    counts[record[by]] = counts.get(record[by], 0) + 1
            assert index.count(filters, by, 1000) == sorted(counts.items(), key=lambda each: (-each[1], each[0]))
            hits += len(expected)
        with pytest.raises(TrailError, match="length: records are not counted by it; write one of type, request_id"):
            index.count(Filters(), "length", 1)
    assert hits > 500


def test_an_index_goes_on_and_forgets_with_the_trail(tmp_path: Path) -> None:
    read: list[int] = []
    with AuditIndex(tmp_path / "trail", tmp_path / "elsewhere.sqlite") as index:
        for round_ in range(6):
            append(tmp_path / "trail", some_records(20), max_bytes=9_000, keep=3)
            index.update(read.append)
            assert index.search(Filters(), 10_000) == everything(tmp_path / "trail"), round_
        before = sum(read)
        index.update(read.append)
        assert sum(read) == before  # nothing is read twice
        last = trail_files(tmp_path / "trail")[-1].path
        shutil.copy(last, tmp_path / "copy")
        (tmp_path / "copy").rename(last)  # another file by that name
        index.update(read.append)
        assert sum(read) == before + last.stat().st_size
        assert index.search(Filters(), 10_000) == everything(tmp_path / "trail")


def test_an_index_survives_what_is_no_record(tmp_path: Path) -> None:
    append(tmp_path, some_records(20))
    (file,) = trail_files(tmp_path)
    whole = everything(tmp_path)
    with file.path.open("ab") as end:
        end.write(b'{"v":1}\n[]\n\xff\n' + b"x" * 70_000 + b"\n" + b'{"v":1,"torn')
    with AuditIndex(tmp_path) as index:
        index.update()
        assert index.skipped == 5  # the long one is read in two pieces
        assert index.search(Filters(), 1000) == whole


def test_files_that_are_no_index(tmp_path: Path) -> None:
    append(tmp_path, some_records(2))
    other = tmp_path / "other"
    other.write_text("no database, but long enough to be taken for one" * 20, encoding="utf-8")
    with pytest.raises(TrailError, match="name another file with --index"):
        AuditIndex(tmp_path, other)
    with AuditIndex(tmp_path) as index:
        index._database.execute("PRAGMA user_version = 9")
    with pytest.raises(TrailError, match="no index of this release; remove it"):
        AuditIndex(tmp_path)


Audit = Callable[..., tuple[int, str, str]]
"""Runs ``cotguard audit`` with its arguments: the status, and what it writes to standard output and error."""


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Audit:
    monkeypatch.setenv("COTGUARD_AUDIT_KEY", KEY)

    def ran(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(["audit", *arguments])
        except SystemExit as stopped:
            status = int(str(stopped.code))
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return ran


def test_verify_and_head(tmp_path: Path, audit: Audit) -> None:
    path = str(tmp_path)
    append(tmp_path, some_records(30), max_bytes=9_000)
    head = str(last_head(tmp_path))
    status, told, _ = audit("verify", path)
    assert status == 0
    number = len(trail_files(tmp_path))
    assert f": ok, {30 + number} records in {number} files (" in told
    assert "2027-01-15T08:00:29.000000Z" in told
    assert told.endswith(f"head {head}\n")
    assert audit("head", path) == (0, head + "\n", "")
    assert audit("verify", path, "--head", head)[0] == 0
    assert audit("verify", path, "--head", "4:" + "0" * 64) == (
        1,
        "",
        f"{path}: record 4 is missing, or is not the one that was known\n",
    )
    file = trail_files(tmp_path)[1].path
    file.write_bytes(file.read_bytes().replace(b'"process":', b'"process": ').replace(b'"start":3', b'"start":4'))
    status, told, problem = audit("verify", path)
    assert (status, told) == (1, "")
    assert re.match(rf"{file.name}:\d+: record \d+ was changed, or is of another trail, or the key is another", problem)


def test_verify_lines(tmp_path: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path / "trail", some_records(9))
    append(tmp_path / "other", some_records(4))
    both = b"".join(trail_files(tmp_path / name)[0].path.read_bytes() for name in ("trail", "other"))
    (tmp_path / "copy").write_bytes(both)
    status, told, _ = audit("verify", str(tmp_path / "copy"))
    assert status == 0
    assert "15 records (" in told
    assert told.count("\nchain ") == 2
    rest = both.split(b"\n", 3)[3]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rest)))
    status, _, problem = audit("verify", "-")
    assert status == 1
    assert "standard input:1: what comes before record 4 is not here; give it with --from SEQ:HASH" in problem
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rest[: rest.index(b'{"v":1,"chain":"', 1)])))
    before = both.split(b"\n")[2].rpartition(b'"mac":"')[2][:64].decode()
    assert audit("verify", "-", "--from", f"3:{before}")[0] == 0


def test_query(tmp_path: Path, audit: Audit) -> None:
    path = str(tmp_path)
    append(tmp_path, [decision("a", entity="PERSON", model='say "hi"'), exchange("a"), decision("b")])
    assert audit("query", path, "--request", "a", "--type", "decision") == (
        0,
        "2027-01-15T08:00:00.000000Z decision seq=2 request_id=a caller=ann route=/v1/chat/completions "
        'model="say \\"hi\\"" dialect=chat_completions policy_digest=0123456789abcdef direction=response '
        "channel=reasoning entity=PERSON action=redact outcome=redacted score=1.0 detector=patterns/email rule=0 "
        f"start=3 length=19 value={'0' * 32}\n",
        "",
    )
    _, told, _ = audit("query", path, "--jsonl", "--limit", "2")
    assert told.encode() == b"".join(reversed(trail_files(tmp_path)[0].path.read_bytes().splitlines(True)[-2:]))
    _, told, _ = audit("query", path, "--count-by", "entity", "--index", str(tmp_path / "x"))
    assert told.split() == ["1", "EMAIL_ADDRESS", "1", "PERSON"]
    assert audit("query", path, "--since", "2027-01-15T09:00:01+01:00", "--type", "decision")[1].count("\n") == 1
    assert audit("query", path, "--until", "2h", "--type", "decision") == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "DIR", "--since", "yesterday"], "write a time such as 2026-01-31T08:00Z (UTC if it says none), or"),
        (["query", "DIR", "--limit", "0"], "write a number above 0"),
        (["query", "DIR", "--count-by", "text"], "invalid choice: 'text'"),
        (["verify", "DIR", "--head", "12"], "write it as `cotguard audit head` prints it, SEQ:HASH"),
        (["verify", "nowhere"], "nowhere: No such file or directory"),
        (["query", "nowhere"], "nowhere/index.sqlite: "),
        (["head", "nowhere"], "nowhere: No such file or directory"),
        (["head", "DIR"], "there is no record here"),
    ],
)
def test_wrong_usage(tmp_path: Path, audit: Audit, arguments: list[str], message: str) -> None:
    status, told, problem = audit(*(str(tmp_path) if each == "DIR" else each for each in arguments))
    assert (status, told) == (2, "")
    assert message in problem


def test_verification_needs_the_key(tmp_path: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path, some_records(2))
    monkeypatch.delenv("COTGUARD_AUDIT_KEY")
    status, _, problem = audit("verify", str(tmp_path))
    assert status == 2
    assert "set COTGUARD_AUDIT_KEY to that of the gateway" in problem
    assert audit("verify", str(trail_files(tmp_path)[0].path))[0] == 2


def test_the_directory_may_come_from_the_environment(
    tmp_path: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(tmp_path, some_records(2))
    monkeypatch.setenv("COTGUARD_AUDIT_DIR", str(tmp_path))
    assert audit("verify")[0] == 0
    assert audit("query", "--limit", "1")[0] == 0


def test_the_commands_in_the_docs_work(tmp_path: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path / "trail", some_records(60))
    monkeypatch.chdir(tmp_path)
    head = str(last_head(tmp_path / "trail"))
    shown = [line.strip() for line in DOCS.read_text("utf-8").splitlines() if line.startswith("    cotguard audit ")]
    assert len(shown) >= 6
    for line in shown:
        command = line.partition("#")[0].replace("SEQ:HASH", head).replace("HASH", "a" * 32)
        status, told, problem = audit(*shlex.split(command)[2:])
        assert (status, problem) == (0, ""), line
        assert told, line


def test_the_python_in_the_docs_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path / "trail", some_records(60))
    monkeypatch.chdir(tmp_path)
    text = DOCS.read_text("utf-8")
    shown = text[text.index("    from pathlib import Path") : text.index("\n## Metrics")]
    names: dict[str, Any] = {}
    exec(textwrap.dedent(shown), names)
    assert {record["entity"] for record in names["records"]} == {"EMAIL_ADDRESS"}


def test_copies_in_any_order_are_sorted_as_the_docs_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path / "one", some_records(30))
    append(tmp_path / "two", some_records(12))
    lines = [
        line for name in ("one", "two") for line in trail_files(tmp_path / name)[0].path.read_bytes().splitlines(True)
    ]
    random.Random(1).shuffle(lines)
    (tmp_path / "captured.log").write_bytes(b"cotguard listens\n" + b"".join(lines) + b"time=1 level=INFO\n")
    (shown,) = [line for line in DOCS.read_text("utf-8").splitlines() if line.startswith("    grep ")]
    command = shown.replace("cotguard audit", f"{sys.executable} -m cotguard audit")
    environment = {**os.environ, "COTGUARD_AUDIT_KEY": KEY, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("-: ok, 44 records")


def test_the_docs_tell_every_metric() -> None:
    told = set(re.findall(r"^\| `(cotguard_audit_\w+)`", DOCS.read_text("utf-8"), re.MULTILINE))
    families = [family for family in Metrics().registry.collect() if family.name.startswith("cotguard_audit_")]
    assert told == {family.name + "_total" * (family.type == "counter") for family in families}


@pytest.mark.parametrize(
    ("title", "record"), [("exchange", ExchangeRecord), ("decision", DecisionRecord), ("event", EventRecord)]
)
def test_the_docs_tell_every_field(title: str, record: type[Record]) -> None:
    (row,) = [line for line in DOCS.read_text("utf-8").splitlines() if line.startswith(f"| `{title}` |")]
    assert re.findall(r"`(\w+)`", row)[1:] == [field.name for field in fields(record)]


def test_times_sort_as_text() -> None:
    times = [0.0, 1.5, 1_700_000_000.000001, 1_700_000_000.9, 4_000_000_000.0]
    assert [timestamp(each) for each in times] == sorted(map(timestamp, times))
