"""Records to keep, and processes that keep them."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from cotguard.audit.directory import Directory, open_directory, trail_files
from cotguard.audit.key import read_key
from cotguard.audit.records import DecisionRecord, Event, EventRecord, ExchangeRecord, Record, encode
from cotguard.audit.trail import AuditError, AuditOptions, Trail
from cotguard.audit.verify import Anchor, Verification
from cotguard.telemetry.metrics import Metrics

__all__ = [
    "KEY",
    "MOUNTING",
    "append",
    "decision",
    "ends_well",
    "exchange",
    "kept",
    "queued",
    "running",
    "started",
    "until",
    "verified",
]

KEY = "0123456789abcdef" * 4


def decision(request: str = "r", **fields: object) -> DecisionRecord:
    given: dict[str, object] = {
        "request_id": request,
        "caller": "ann",
        "route": "/v1/chat/completions",
        "model": "m",
        "dialect": "chat_completions",
        "policy_digest": "0123456789abcdef",
        "direction": "response",
        "channel": "reasoning",
        "entity": "EMAIL_ADDRESS",
        "action": "redact",
        "outcome": "redacted",
        "score": 1.0,
        "detector": "patterns/email",
        "rule": 0,
        "start": 3,
        "length": 19,
        "value": "0" * 32,
        **fields,
    }
    return DecisionRecord(**given)  # type: ignore[arg-type]  # as the table above says


def exchange(request: str = "r", **fields: object) -> ExchangeRecord:
    given: dict[str, object] = {
        "request_id": request,
        "caller": "ann",
        "role": "reader",
        "route": "/v1/chat/completions",
        "model": "m",
        "dialect": "chat_completions",
        "policy": "balanced",
        "policy_digest": "0123456789abcdef",
        "upstream": "http://127.0.0.1:8000",
        "status": 200,
        "outcome": "ok",
        "stream": True,
        "seconds": 1.25,
        "received": 100,
        "delivered": 90,
        "decisions": 1,
        **fields,
    }
    return ExchangeRecord(**given)  # type: ignore[arg-type]  # as the table above says


def started(path: Path | str, metrics: Metrics | None = None, **options: object) -> Trail:
    """A trail in the directory, in this process."""
    given = AuditOptions(directory=str(path))._replace(**options)  # type: ignore[arg-type]  # names of options
    trail = Trail(given, metrics or Metrics())
    trail.start()
    return trail


def append(path: Path, records: list[Record], *, max_bytes: int = 2**20, keep: int = 1000) -> Directory:
    """Records in the directory, each with a call of its own."""
    directory = open_directory(path, KEY, max_bytes, keep)
    for number, record in enumerate(records):
        directory.append([encode(record, 1_800_000_000 + number)])
    directory.close()
    return directory


def verified(path: Path, *heads: Anchor, start: Anchor | None = None) -> Verification:
    """What verifying finds. Raises ``Broken``."""
    verification = Verification(read_key(path, "" if (path / "key").exists() else KEY), heads, start)
    verification.directory(path, trail_files(path))
    return verification


def kept(path: Path, name: str = "request_id") -> list[str]:
    """A field of all records that have it, in order."""
    mark = f'"{name}":"'
    text = "".join(file.path.read_text("utf-8") for file in trail_files(path))
    return [line.split(mark, 1)[1].split('"', 1)[0] for line in text.splitlines() if mark in line]


def queued(metrics: Metrics) -> float | None:
    """Records that wait to be written."""
    return metrics.registry.get_sample_value("cotguard_audit_queue_records")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)


MOUNTING = ("unshare", "--user", "--map-root-user", "--mount")
"""Begins a command that may mount, for itself."""


@contextmanager
def running(
    call: str, *, within: Sequence[str] = (), stdout: int = subprocess.DEVNULL
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that runs a function of this module; killed at the end if it is still there."""
    code = f"import sys; sys.path[:0] = {sys.path!r}; import audit_kit; audit_kit.{call}"
    command = [*within, sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def ends_well(process: "subprocess.Popen[bytes]") -> bytes:
    """What it wrote to standard output, once it has ended without a fault."""
    copied, told = process.communicate(timeout=60)
    assert process.returncode == 0, told.decode()
    return copied


def write_many(path: str, name: str, count: int, acknowledged: str) -> None:
    """Keep records of several streams; the id of each goes to a file once it is acknowledged."""

    async def main() -> None:
        trail = started(path, max_bytes=40_000, keep=10_000, deadline=30.0)
        told = os.open(acknowledged, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        async def stream(number: int) -> None:
            for each in range(count):
                request = f"{name}-{number}-{each}"
                await trail.commit([decision(request)])
                os.write(told, request.encode() + b"\n")

        await asyncio.gather(*map(stream, range(8)))
        await trail.close()

    uvloop.run(main())


def fill_disk(path: str, limit: int) -> None:
    """Keep records until the disk is full, at ``limit`` bytes a file if that is not 0; go on when it is not."""
    if not limit:  # a file system of 64 KiB
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], check=True)
    ballast = Path(path) / "ballast"
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    else:
        ballast.write_bytes(bytes(20_000))

    async def main() -> None:
        metrics = Metrics()
        trail = started(path, metrics)
        acknowledged = []
        try:
            for number in range(1000):
                await trail.commit([decision(f"r{number}"), exchange(f"r{number}")])
                acknowledged.append(f"r{number}")
        except AuditError:
            assert trail.failed
        with pytest.raises(AuditError, match="the audit trail takes no records"):
            await trail.commit([decision("refused")])
        assert verified(Path(path)).torn == 0
        assert sorted({*kept(Path(path))}) == sorted(acknowledged)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        ballast.unlink(missing_ok=True)
        await until(lambda: not trail.failed)
        await trail.commit([decision("later")])
        await trail.close()
        assert metrics.registry.get_sample_value("cotguard_audit_lost_records_total") == 0
        assert verified(Path(path)).torn == 0
        assert [*dict.fromkeys(kept(Path(path)))] == [*acknowledged, f"r{len(acknowledged)}", "refused", "later"]
        assert kept(Path(path), "event") == [Event.AUDIT_RECOVERED]

    uvloop.run(main())


def copy_to_stdout(count: int) -> None:
    """Commit to standard output; says on standard error when that is refused, and goes on when it is not."""

    async def main() -> None:
        metrics = Metrics()
        trail = started("", metrics, stdout=True, key=KEY, deadline=0.2)
        try:
            await trail.commit([decision(f"r{number}") for number in range(count)])
        except AuditError:
            os.write(2, b"refused\n")
            await until(lambda: not trail.failed)
        trail.submit([EventRecord(event=Event.STOP, process=os.getpid())])
        await until(lambda: queued(metrics) == 0)
        await trail.close()

    uvloop.run(main())
