"""``cotguard scan`` in processes and over real files: one text, trees, logs, compressed and broken files."""

import gzip
import io
import json
import os
import pty
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotguard.cli import main
from cotguard.moderator import Moderator
from cotguard.scan.texts import Contents, Reading
from cotguard.spans import ChannelKind

MAIL = "mail ann.lee@example.com now\n"
CLEAN = "mail [EMAIL_ADDRESS] now\n"
POLICY = (
    "version: 1\nname: t\nclassifier: false\nrules:\n"
    "  - {entities: [EMAIL_ADDRESS, CREDIT_CARD], action: redact}\n"
    "  - {entities: [IP_ADDRESS], action: flag}\n"
    "  - {entities: [IBAN_CODE], action: block}\n"
    "  - {entities: [US_SSN], action: pseudonymize}\n"
    "  - {entities: [SECRET_PRIVATE_KEY], action: redact}\n"
)

Scan = Callable[..., tuple[int, str, str]]


@pytest.fixture
def scan(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> Scan:
    """The command; returns status, output and errors."""
    policy = tmp_path_factory.mktemp("policy") / "p.yaml"
    policy.write_text(POLICY, encoding="utf-8")

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main(["scan", "--policy", str(policy), *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder of all kinds of files."""
    folder = tmp_path / "logs"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b.log").write_text(MAIL, encoding="utf-8")
    (folder / "a" / "c.log.gz").write_bytes(gzip.compress(MAIL.encode()))
    (folder / "clean.txt").write_text("nothing\r\nhere", encoding="utf-8", newline="")
    (folder / "x.bin").write_bytes(b"ann.lee@example.com\0")
    (folder / "loop").symlink_to(folder)
    (folder / "link.log").symlink_to(folder / "a" / "b.log")
    os.mkfifo(folder / "pipe")
    return folder


def reported(output: str) -> dict[str, Any]:
    lines = [json.loads(line) for line in output.splitlines()]
    return {Path(line["path"]).name: line for line in lines}


def test_standard_input_and_one_file(tmp_path: Path, scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "t.txt"
    file.write_text(MAIL, encoding="utf-8")
    assert scan(file) == (0, CLEAN, "")
    monkeypatch.setattr(sys, "stdin", io.StringIO(MAIL))
    assert scan() == (0, CLEAN, "")
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"id": 7, "text": "ann.lee@example.com"}\n'))
    status, output, _ = scan("--jsonl", "-")
    (span,) = json.loads(output)["spans"]
    assert (status, json.loads(output)["id"], json.loads(output)["redacted"]) == (0, 7, "[EMAIL_ADDRESS]")
    assert {**span, "score": 0} == {
        "start": 0,
        "end": 19,
        "entity": "EMAIL_ADDRESS",
        "score": 0,
        "detector": "patterns/email",
        "action": "redact",
    }


@pytest.mark.parametrize("line", ["", "{", "[]", '{"id": 1}', '{"id": 1, "text": 2}'])
def test_a_line_that_is_no_record(tmp_path: Path, scan: Scan, line: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text(f'{{"id": 1, "text": "x"}}\n{line}\n', encoding="utf-8")
    status, _, errors = scan("--jsonl", file)
    assert (status, errors) == (2, 'line 2: write a JSON object with "id" and "text"\n')


def test_what_one_file_may_be(tmp_path: Path, scan: Scan) -> None:
    assert scan(tmp_path / "missing")[0] == 2
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    assert scan(tmp_path / "latin") == (1, "", "scan stopped: not UTF-8 text\n")
    status, _, errors = scan(tmp_path)
    assert (status, "--out DIR" in errors) == (2, True)


def test_a_tree_is_copied(logs: Path, tmp_path: Path, scan: Scan) -> None:
    (logs / "a" / "b.log").chmod(0o640)
    out = tmp_path / "out"
    status, output, errors = scan(logs, "--out", out)
    assert (status, output) == (0, "")
    assert errors == "1 binary, 2 link, 3 scanned, 1 special; 71 characters, 2 values that the policy rewrites\n"
    copies = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert set(copies) == {"logs/a/b.log", "logs/a/c.log.gz", "logs/clean.txt"}
    assert copies["logs/a/b.log"].read_text() == CLEAN
    assert copies["logs/a/b.log"].stat().st_mode & 0o777 == 0o640
    assert gzip.decompress(copies["logs/a/c.log.gz"].read_bytes()).decode() == CLEAN
    assert copies["logs/clean.txt"].read_bytes() == b"nothing\r\nhere"


def test_a_tree_is_reported(logs: Path, scan: Scan) -> None:
    (logs / "hosts").write_text("seen 203.0.113.77 today", encoding="utf-8")
    status, output, _ = scan(logs, "--report")
    files = reported(output)
    assert status == 0
    assert files["b.log"]["findings"] == {"EMAIL_ADDRESS": {"redact": 1}}
    assert files["hosts"]["findings"] == {"IP_ADDRESS": {"flag": 1}}
    statuses = {name: file["status"] for name, file in files.items()}
    assert statuses == {
        "b.log": "scanned",
        "c.log.gz": "scanned",
        "clean.txt": "scanned",
        "hosts": "scanned",
        "link.log": "link",
        "loop": "link",
        "pipe": "special",
        "x.bin": "binary",
    }
    assert "ann.lee" not in output


def test_globs_choose_among_the_files_of_folders(logs: Path, scan: Scan) -> None:
    _, output, _ = scan(logs, "--report", "--glob", "*.log", "--glob", "a/*.gz")
    assert set(reported(output)) == {"b.log", "c.log.gz", "link.log"}


def test_findings_may_be_a_failure(logs: Path, scan: Scan) -> None:
    assert scan(logs, "--report", "--fail-on-findings")[0] == 1
    assert scan(logs, "--report", "--fail-on-findings", "--glob", "*.txt")[0] == 0
    assert scan(logs / "a" / "b.log", "--fail-on-findings") == (1, CLEAN, "")
    (logs / "hosts").write_text("seen 203.0.113.77 today", encoding="utf-8")
    assert scan(logs / "hosts", "--fail-on-findings")[0] == 0  # flagged, not rewritten


def test_what_cannot_be_read_is_told_and_the_others_are_scanned(logs: Path, tmp_path: Path, scan: Scan) -> None:
    (logs / "a" / "bad.gz").write_bytes(b"\x1f\x8bnothing of the kind")
    cut = gzip.compress(MAIL.encode() * 1000)
    (logs / "a" / "cut.gz").write_bytes(cut[: len(cut) // 2])
    out = tmp_path / "out"
    status, output, errors = scan(logs, tmp_path / "missing", "--report", "--out", out)
    files = reported(output)
    assert status == 1
    assert {name for name, file in files.items() if file["status"] == "unreadable"} == {"bad.gz", "cut.gz", "missing"}
    assert f"{tmp_path / 'missing'}: No such file or directory" in errors
    assert sorted(path.name for path in (out / "logs" / "a").iterdir()) == ["b.log", "c.log.gz"]  # nothing half done


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(logs: Path, scan: Scan) -> None:
    (logs / "a").chmod(0)
    (logs / "clean.txt").chmod(0)
    status, output, _ = scan(logs, "--report")
    (logs / "a").chmod(0o700)
    files = reported(output)
    assert (status, files["a"]["status"], files["clean.txt"]["status"]) == (1, "unreadable", "unreadable")


def test_a_block_ends_a_copy(tmp_path: Path, scan: Scan) -> None:
    (tmp_path / "t.txt").write_text("pay to DE89 3704 0044 0532 0130 00 and more", encoding="utf-8")
    _, output, _ = scan(tmp_path / "t.txt", "--report", "--out", tmp_path / "out")
    assert reported(output)["t.txt"]["status"] == "blocked"
    assert (tmp_path / "out" / "t.txt").read_text() == "pay to "


def test_lines_are_texts_of_their_own(tmp_path: Path, scan: Scan) -> None:
    file = tmp_path / "t.log"
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----\n"
    file.write_text(key, encoding="utf-8")
    assert scan(file)[1] == "[SECRET_PRIVATE_KEY]\n"
    assert "MIIEvQ" in scan(file, "--lines")[1].splitlines()
    file.write_bytes(b"ssn 536-22-8145\r\n\nssn 536-22-8145")
    scan(file, "--lines", "--out", tmp_path / "out")
    first, second, third = (tmp_path / "out" / "t.log").read_bytes().split(b"\n")
    assert (first, second) == (third + b"\r", b"")
    assert third.startswith(b"ssn [US_SSN_")  # the same value, the same pseudonym


def test_lines_of_json_stay_json(tmp_path: Path, scan: Scan) -> None:
    file = tmp_path / "t.log"
    rows = [{"card": 4111111111111111, "to": "ann.lee@example.com"}, {"n": 4}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _, output, _ = scan(file, "--lines", "--channel", "tool_call")
    assert [json.loads(line) for line in output.splitlines()] == [
        {"card": "[CREDIT_CARD]", "to": "[EMAIL_ADDRESS]"},
        {"n": 4},
    ]


def test_bytes_that_are_no_text_do_not_stop_a_tree(tmp_path: Path, scan: Scan) -> None:
    (tmp_path / "t.log").write_bytes(b"caf\xe9 ann.lee@example.com")
    scan(tmp_path / "t.log", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "t.log").read_text() == "caf\ufffd [EMAIL_ADDRESS]"


def test_copies_replace_no_original(logs: Path, tmp_path: Path, scan: Scan) -> None:
    for arguments in (
        (logs, "--out", tmp_path),
        (logs, tmp_path / "other" / "logs", "--out", tmp_path / "out"),
        ("-", "--report"),
    ):
        assert scan(*arguments)[0] == 2
    assert (logs / "a" / "b.log").read_text() == MAIL
    assert scan(logs, "--out", logs / "out")[0] == 0
    assert scan(logs, "--out", logs / "out")[0] == 0  # what it wrote is not scanned again
    assert not (logs / "out" / "logs" / "out").exists()


def test_a_huge_file_takes_little_memory(tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text(POLICY, encoding="utf-8")

    class Endless(io.StringIO):
        left = 24

        def readline(self, size: int | None = -1) -> str:  # type: ignore[override]  # it is always given one
            self.left -= 1
            return "x" * 65_500 + " ann.lee@example.com " if self.left >= 0 else ""

    written = 0

    def write(text: str) -> None:
        nonlocal written
        written += len(text)

    with Moderator(str(policy)) as moderator:
        reading = Reading(moderator, ChannelKind.OUTPUT, Contents.TEXT, write)
        tracemalloc.start()
        reading.read(Endless())
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert sum(reading.verdicts.values()) == 24
    assert written > 24 * 65_000
    assert most < 8 * 2**20


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    (tmp_path / "t.log").write_text(MAIL, encoding="utf-8")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cotguard", "scan", "--policy", str(policy), "--report", str(tmp_path / "t.log")]
    output = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=theirs, check=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "scanning" in shown
    assert reported(output.stdout.decode())["t.log"]["status"] == "scanned"
