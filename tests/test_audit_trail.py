"""The trail in processes: what is acknowledged is kept, whatever dies, fills up or stands still."""

import asyncio
import fcntl
import io
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from audit_kit import KEY, MOUNTING, decision, ends_well, exchange, kept, queued, running, started, until, verified
from google.protobuf import json_format
from log_kit import lines

from cotguard.audit.directory import trail_files
from cotguard.audit.key import AuditKey, TrailError
from cotguard.audit.records import Event, EventRecord
from cotguard.audit.sinks import StandardOutput
from cotguard.audit.trail import AuditError, AuditOptions, Trail
from cotguard.audit.verify import Anchor, Verification
from cotguard.telemetry.metrics import Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


async def test_what_is_committed_is_there(tmp_path: Path) -> None:
    metrics = Metrics()
    trail = started(tmp_path / "trail", metrics)
    await trail.commit([EventRecord(event=Event.START, process=1)])
    await trail.commit([decision(), exchange()])
    assert verified(tmp_path / "trail").types == {"segment": 1, "event": 1, "decision": 1, "exchange": 1}
    await trail.commit([])
    assert not trail.failed
    assert trail.submit([exchange("gone")])
    await trail.close()
    assert kept(tmp_path / "trail") == ["r", "r", "gone"]
    assert value(metrics, "cotguard_audit_records_total", type="exchange") == 2
    assert value(metrics, "cotguard_audit_commit_seconds_count") == 2
    assert queued(metrics) == 0
    assert not trail.submit([exchange()])
    with pytest.raises(AuditError):
        await trail.commit([exchange()])
    assert value(metrics, "cotguard_audit_lost_records_total") == 2
    await trail.close()


async def test_what_was_written_while_the_loop_was_busy_is_kept(tmp_path: Path) -> None:
    metrics = Metrics()
    trail = started(tmp_path, metrics, deadline=0.2)
    commit = asyncio.create_task(trail.commit([exchange()]))
    await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251  # the loop is busy beyond the deadline, the writer is not
    await commit
    assert not trail.failed
    assert value(metrics, "cotguard_audit_failures_total", sink="deadline") == 0
    await trail.close()


async def test_hashes_recur_within_a_trail_and_not_beyond(tmp_path: Path) -> None:
    trail, again, other = (started(tmp_path / name) for name in ("one", "one", "two"))
    assert trail.hash("ann@example.com") == again.hash("ann@example.com")
    assert len({trail.hash("a"), trail.hash("b"), other.hash("a"), trail.hash("\ud800")}) == 4
    assert len(trail.hash("a")) == 32
    for each in (trail, again, other):
        await each.close()
    assert (tmp_path / "one" / "key").stat().st_mode & 0o777 == 0o600


async def test_many_records_in_one_commit(tmp_path: Path) -> None:
    trail = started(tmp_path, max_bytes=2**20, deadline=30.0)
    await trail.commit([decision(str(number)) for number in range(20_000)])  # more than the queue holds
    await trail.close()
    assert kept(tmp_path) == [str(number) for number in range(20_000)]
    verified(tmp_path)


async def test_a_clock_that_goes_back_changes_no_order(tmp_path: Path) -> None:
    times = iter(range(1_800_000_000, 0, -86_400))
    trail = Trail(AuditOptions(directory=str(tmp_path)), Metrics(), clock=lambda: float(next(times)))
    trail.start()
    for number in range(5):
        await trail.commit([decision(str(number))])
    await trail.close()
    verified(tmp_path)
    assert kept(tmp_path) == ["0", "1", "2", "3", "4"]
    _, *times_of_decisions = kept(tmp_path, "time")
    assert times_of_decisions == sorted(times_of_decisions, reverse=True)


def test_processes_share_a_chain_and_one_is_killed(tmp_path: Path) -> None:
    trail = tmp_path / "trail"
    names = ["a", "b", "c"]

    def writing(name: str, count: int) -> AbstractContextManager["subprocess.Popen[bytes]"]:
        return running(f"write_many({str(trail)!r}, {name!r}, {count}, {str(tmp_path / name)!r})")

    with ExitStack() as stack:
        victim = stack.enter_context(writing("v", 100_000))
        others = [stack.enter_context(writing(name, 40)) for name in names]
        wanted, deadline = random.randint(1, 300), time.monotonic() + 30
        while time.monotonic() < deadline and len(acknowledged(tmp_path / "v")) < wanted:
            time.sleep(0.005)
        victim.send_signal(signal.SIGKILL)
        victim.wait(10)
        for process in others:
            ends_well(process)
    told = [each for name in names for each in acknowledged(tmp_path / name)]
    assert len(told) == len(names) * 8 * 40
    there = kept(trail)
    assert len(set(there)) == len(there)
    assert {*told, *acknowledged(tmp_path / "v")} <= {*there}
    assert verified(trail).types["segment"] == len(trail_files(trail)) > 3


def acknowledged(path: Path) -> list[str]:
    return path.read_text("ascii").splitlines() if path.exists() else []


def test_a_full_disk(tmp_path: Path) -> None:
    with running(f"fill_disk({str(tmp_path)!r}, 30_000)") as process:
        ends_well(process)


def test_a_full_file_system(tmp_path: Path) -> None:
    if shutil.which(MOUNTING[0]) is None or subprocess.run([*MOUNTING, "true"], check=False).returncode:
        pytest.skip("needs name spaces of its own")
    with running(f"fill_disk({str(tmp_path)!r}, 0)", within=MOUNTING) as process:
        ends_well(process)


async def test_a_directory_that_is_gone_and_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, away = tmp_path / "trail", tmp_path / "away"
    metrics = Metrics()
    trail = started(path, metrics)
    await trail.commit([decision("before")])
    path.rename(away)
    with pytest.raises(AuditError):
        await trail.commit([decision("meanwhile")])
    assert trail.failed
    assert value(metrics, "cotguard_audit_failures_total", sink="journal") >= 1
    path.mkdir()
    await until(lambda: not trail.failed)
    await trail.close()
    assert kept(path) == ["meanwhile"]
    assert kept(path, "event") == ["audit_recovered"]
    (head,) = verified(away).chains.values()
    verified(path, start=Anchor(head.seq, head.mac))  # it goes on from what this process knew
    assert 'event="audit sink failed" problem="No such file or directory" sink=journal' in lines(caplog)


async def test_a_writer_that_stands_still_holds_commits_up_and_loses_nothing(tmp_path: Path) -> None:
    metrics = Metrics()
    trail = started(tmp_path, metrics, deadline=0.1)
    trail.submit([decision("before")])
    await until(lambda: queued(metrics) == 0)
    with (tmp_path / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AuditError):
            await trail.commit([decision("late")])
        assert trail.failed
        with pytest.raises(AuditError):  # at once
            await trail.commit([decision("later")])
        assert trail.submit([decision("submitted")])
        waiting = asyncio.create_task(trail.commit([decision("cancelled")]))
        await asyncio.sleep(0)
        waiting.cancel()
    await until(lambda: not trail.failed)
    trail.submit([decision("after")])
    await until(lambda: queued(metrics) == 0)
    await trail.close()
    assert kept(tmp_path) == ["before", "late", "later", "submitted", "cancelled", "after"]
    verified(tmp_path)


async def test_a_full_queue_makes_commits_wait_and_counts_what_is_lost(tmp_path: Path) -> None:
    metrics = Metrics()
    trail = started(tmp_path, metrics, deadline=0.3)
    much = [decision()] * 10_000
    trail.submit([decision("before")])
    await until(lambda: queued(metrics) == 0)
    with (tmp_path / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        accepted = 0
        while trail.submit(much):
            accepted += 1
        with pytest.raises(AuditError):
            await trail.commit(much)
        lost = value(metrics, "cotguard_audit_lost_records_total")
        assert lost > 10_000
        assert queued(metrics) == 20_000 + accepted * 10_000 - lost
    await until(lambda: queued(metrics) == 0)
    await trail.close()
    verified(tmp_path)
    assert len(kept(tmp_path)) == 1 + 20_000 + accepted * 10_000 - lost
    assert kept(tmp_path, "event") == ["audit_recovered"]
    assert f'"lost":{lost:.0f}' in trail_files(tmp_path)[-1].path.read_text("ascii")


async def test_what_is_not_kept_at_the_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    trail = started(tmp_path, metrics, deadline=0.1)
    with (tmp_path / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert trail.submit([decision("late")])
        await trail.close()
    assert value(metrics, "cotguard_audit_lost_records_total") == 1
    assert 'event="audit records were not kept at the end" records=1' in lines(caplog)


async def test_the_head_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cotguard.audit")
    trail = started(tmp_path)
    await trail.commit([decision()])
    await trail.close()
    (head,) = verified(tmp_path).chains.values()
    assert f'event="audit head" chain={head.chain} head={head}' in lines(caplog)


def test_a_trail_that_nobody_could_verify_is_refused() -> None:
    with pytest.raises(TrailError, match="audit_key: set it where there is no audit_dir"):
        Trail(AuditOptions(stdout=True), Metrics())


def test_standard_output_takes_more_than_a_pipe_holds() -> None:
    with running("copy_to_stdout(2000)", stdout=subprocess.PIPE) as process:
        until_refused(process)  # nobody reads
        copied = ends_well(process)
    assert verified_lines(copied).types == {"segment": 1, "decision": 2000, "event": 2}
    assert b'"event":"audit_recovered"' in copied


def test_standard_output_that_is_full_refuses() -> None:
    with Path("/dev/full").open("wb") as full, running("copy_to_stdout(1)", stdout=full.fileno()) as process:
        until_refused(process)


def until_refused(process: "subprocess.Popen[bytes]") -> None:
    assert process.stderr is not None
    while (line := process.stderr.readline()) != b"refused\n":
        assert line == b"audit sink failed\n", line


def verified_lines(copied: bytes) -> Verification:
    verification = Verification(AuditKey(KEY))
    verification.lines("copy", io.BytesIO(copied))
    return verification


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    lines = [b"%d %s\n" % (number, b"x" * 300) for number in range(500)]
    copy = threading.Thread(target=StandardOutput(writer).write, args=(lines,))
    copy.start()
    copied = b""
    while len(copied) < sum(map(len, lines)):
        copied += os.read(reader, 50_000)
    copy.join()
    os.close(reader)
    os.close(writer)
    assert copied == b"".join(lines)


Answers = list[web.Response]


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[tuple[str, Answers, list[bytes]]]:
    """A collector's address, what it is to answer before it takes everything, and what it was sent."""
    answers: Answers = []
    bodies: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        assert request.path == "/v1/logs"
        assert request.content_type == "application/json"
        bodies.append(await request.read())
        return answers.pop(0) if answers else web.json_response({})

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}", answers, bodies
    await runner.cleanup()


def bodies_of(sent: bytes) -> list[str]:
    (resource,) = json.loads(sent)["resourceLogs"]
    return [record["body"]["stringValue"] for record in resource["scopeLogs"][0]["logRecords"]]


async def test_a_collector_gets_what_the_directory_has(
    tmp_path: Path, collector: tuple[str, Answers, list[bytes]]
) -> None:
    url, answers, bodies = collector
    answers += [web.Response(status=503), web.json_response({"partialSuccess": {"rejectedLogRecords": "1"}})]
    trail = started(tmp_path, otlp=url)
    with pytest.raises(AuditError):
        await trail.commit([decision("a"), exchange("a")])
    await until(lambda: not trail.failed)
    await trail.commit([decision("b")])
    await trail.close()
    assert bodies[0] == bodies[1] == bodies[2]
    copied = "".join(f"{line}\n" for sent in bodies[2:] for line in bodies_of(sent))
    assert copied == trail_files(tmp_path)[0].path.read_text("ascii")
    verified(tmp_path)


async def test_a_collector_alone(collector: tuple[str, Answers, list[bytes]]) -> None:
    url, _, bodies = collector
    trail = started("", otlp=url, key=KEY)
    await trail.commit([decision("a")])
    await trail.commit([decision("b")])
    await trail.close()
    copied = "".join(f"{line}\n" for sent in bodies for line in bodies_of(sent))
    assert verified_lines(copied.encode()).types == {"segment": 1, "decision": 2}


async def test_what_is_sent_is_otlp(tmp_path: Path, collector: tuple[str, Answers, list[bytes]]) -> None:
    service = pytest.importorskip("opentelemetry.proto.collector.logs.v1.logs_service_pb2", reason="needs the schema")
    url, _, bodies = collector
    trail = Trail(AuditOptions(otlp=url, key=KEY), Metrics(), clock=lambda: 1_800_000_000.5)
    trail.start()
    await trail.commit([decision()])
    await trail.close()
    request = json_format.Parse(bodies[0], service.ExportLogsServiceRequest())
    _, record = request.resource_logs[0].scope_logs[0].log_records
    assert record.time_unix_nano == 1_800_000_000_500_000_000
    assert record.event_name == "cotguard.audit.decision"
    assert json.loads(record.body.string_value)["entity"] == "EMAIL_ADDRESS"
    assert {each.key for each in record.attributes} == {"chain", "seq"}


@pytest.mark.parametrize("url", ["collector:4318", "ftp://collector", "http:///v1/logs"])
def test_a_collector_has_an_address(url: str) -> None:
    with pytest.raises(ValueError, match="write it as http://HOST:4318"):
        Trail(AuditOptions(otlp=url, key=KEY), Metrics())
