"""The audit trail as the gateway uses it: records go in, and it is known when they are kept.

    trail = Trail(options, metrics)      # before any fork
    trail.start()                        # in the process, on its event loop
    await trail.commit([record, ...])    # returns once they are in every sink
    trail.submit([record])               # does not wait
    await trail.close()

1. Records wait in a queue of bounded size for one thread (:mod:`cotguard.audit.writer`), which writes what many streams
   have put there with one call.
2. ``commit`` waits until its records are kept, and first for room in the queue: back-pressure. After ``deadline``
   seconds, or when a sink fails, it raises :class:`AuditError`: what the records tell of may then not happen, unless
   the policy says otherwise.
3. While a sink fails, ``commit`` raises at once. What has found room in the queue stays there, and is kept when the
   sink works again; the rest is counted as lost, by a metric and by an event in the trail itself. So the trail may hold
   records of what was refused; it lacks none of what was acknowledged.
"""

import asyncio
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cotguard.audit.directory import open_directory
from cotguard.audit.key import AuditKey, TrailError
from cotguard.audit.otlp import Collector
from cotguard.audit.records import Event, EventRecord, Record, encode, type_of
from cotguard.audit.sinks import Copy, Journal, ProcessChain, StandardOutput
from cotguard.audit.writer import Batch, Reports, Writer
from cotguard.telemetry.metrics import Metrics

__all__ = ["AuditError", "AuditOptions", "Trail"]

_LOG = logging.getLogger("cotguard.audit")
_QUEUE_BYTES = 8 * 2**20
_BATCH_BYTES = 64 * 1024


class AuditError(Exception):
    """Records are not known to be kept."""

    def __init__(self) -> None:
        super().__init__("the audit trail takes no records")


class AuditOptions(NamedTuple):
    """Where records go, at least one of ``directory``, ``stdout`` and ``otlp``, and how.

    ``key``: signs the trail; that of the directory when empty. ``max_bytes`` of a file, of which the last ``keep`` are
    kept. ``deadline``: longest wait of a commit, in seconds.
    """

    directory: str = ""
    stdout: bool = False
    otlp: str = ""
    key: str = ""
    max_bytes: int = 64 * 2**20
    keep: int = 16
    deadline: float = 2.0


class Trail:
    """See the module. For one event loop; may be forked before ``start`` only.

    Raises :class:`~cotguard.audit.key.TrailError` if the directory cannot be used.
    """

    def __init__(self, options: AuditOptions, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._metrics = metrics
        self._clock = clock
        self._deadline = options.deadline
        self._journal = _journal(options, clock)
        copies: list[Copy] = [StandardOutput()] if options.stdout else []
        copies += [Collector(options.otlp, options.deadline)] if options.otlp else []
        self._copies = copies
        self._writer: Writer | None = None
        self._ended: asyncio.Future[None] | None = None
        self._commits: set[asyncio.Future[bool]] = set()
        self._room = asyncio.Event()
        self._queued = 0  # bytes
        self._queued_records = 0
        self._lost = 0
        self._failed = False
        self._closing = False

    @property
    def failed(self) -> bool:
        """Whether a sink takes no records now. It is tried again by itself."""
        return self._failed

    def hash(self, value: str) -> str:
        """What stands for a value in records: its keyed hash, 32 hexadecimal digits."""
        return self._journal.key.hash(value)

    def start(self) -> None:
        """Start the thread that writes, for the event loop that runs."""
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()

        def tell(what: Callable[..., None], *arguments: object) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waited for the end
                loop.call_soon_threadsafe(what, *arguments)

        reports = Reports(partial(tell, self._written), partial(tell, self._fail), partial(tell, self._end))
        self._writer = Writer(self._journal, self._copies, reports)
        self._writer.start()

    async def commit(self, records: Sequence[Record]) -> None:
        """Return once ``records`` are kept. Raises :class:`AuditError`.

        When it raises or is cancelled, records that have found room in the queue are kept nevertheless if they can be;
        the others are lost.
        """
        if not records:
            return
        started = time.perf_counter()
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        batches = self._batches(records, kept)
        self._commits.add(kept)
        try:
            async with asyncio.timeout(self._deadline):
                while batches:
                    await self._have_room(batches[0])
                    self._put(batches.popleft())
                if self._failed or not await asyncio.shield(kept):
                    raise AuditError
        except TimeoutError:
            await asyncio.sleep(0)  # a loop that was busy for so long has not yet heard what the writer told it
            if not (kept.done() and kept.result()):
                self._failed = self._failed or self._queued > 0  # until the writer tells of what is queued
                self._metrics.audit_failures.labels("deadline").inc()
                raise AuditError from None
        finally:
            self._commits.discard(kept)
            self._lose(sum(len(batch.tails) for batch in batches))
        self._metrics.audit_commit_seconds.observe(time.perf_counter() - started)

    def submit(self, records: Sequence[Record]) -> bool:
        """Have ``records`` kept without waiting, if there is room in the queue; False if there is none: they are lost.

        For the end of an exchange whose client is gone: there is nobody whom a failure could be told.
        """
        batches = self._batches(records, None)
        if self._closing or self._queued + sum(batch.size for batch in batches) > _QUEUE_BYTES:
            self._lose(len(records))
            return False
        for batch in batches:
            self._put(batch)
        return True

    async def close(self) -> None:
        """Wait until what is queued is kept, for at most the deadline; what is not by then is lost."""
        if self._writer is None or self._ended is None or self._closing:
            return
        self._closing = True
        self._writer.stop()
        await asyncio.wait([self._ended], timeout=self._deadline)
        self._writer.give_up()
        if self._queued:
            self._lose(self._queued_records)
            _LOG.error("audit records were not kept at the end", extra={"records": self._queued_records})

    def _batches(self, records: Sequence[Record], kept: "asyncio.Future[bool] | None") -> deque[Batch]:
        """The records, encoded, in pieces of some ``_BATCH_BYTES``; ``kept`` belongs to the last."""
        now = self._clock()
        batches: deque[Batch] = deque()
        tails: list[bytes] = []
        types: Counter[str] = Counter()
        size = 0
        for left, record in zip(range(len(records) - 1, -1, -1), records, strict=True):
            tails.append(encode(record, now))
            types[type_of(record)] += 1
            size += len(tails[-1])
            if size >= _BATCH_BYTES or not left:
                batches.append(Batch(tails, types, size, None if left else kept))
                tails, types, size = [], Counter(), 0
        return batches

    async def _have_room(self, batch: Batch) -> None:
        while self._closing or (self._queued and self._queued + batch.size > _QUEUE_BYTES):
            if self._failed or self._closing:
                raise AuditError
            self._room.clear()
            await self._room.wait()

    def _put(self, batch: Batch) -> None:
        if self._writer is None:
            raise RuntimeError("the trail is not started")
        self._writer.put(batch)
        self._count_queued(batch, 1)

    def _count_queued(self, batch: Batch, sign: int) -> None:
        self._queued += sign * batch.size
        self._queued_records += sign * len(batch.tails)
        self._metrics.audit_queue.set(self._queued_records)

    def _lose(self, count: int) -> None:
        self._lost += count
        self._metrics.audit_lost.inc(count)

    # What the writer tells.

    def _written(self, group: Sequence[Batch]) -> None:
        for batch in group:
            self._count_queued(batch, -1)
            for name, count in batch.types.items():
                self._metrics.audit_records.labels(name).inc(count)
            if batch.kept is not None and not batch.kept.done():
                batch.kept.set_result(True)
        self._room.set()
        recovered, self._failed = self._failed or bool(self._lost), False
        if recovered and not self._closing:
            lost, self._lost = self._lost, 0
            self.submit([EventRecord(event=Event.AUDIT_RECOVERED, process=os.getpid(), lost=lost)])

    def _fail(self, sink: str) -> None:
        self._metrics.audit_failures.labels(sink).inc()
        self._fail_all()

    def _end(self) -> None:
        self._fail_all()
        if self._ended is not None:
            self._ended.set_result(None)

    def _fail_all(self) -> None:
        self._failed = True
        for kept in self._commits:
            if not kept.done():
                kept.set_result(False)
        self._room.set()


def _journal(options: AuditOptions, clock: Callable[[], float]) -> Journal:
    if options.directory:
        return open_directory(Path(options.directory), options.key, options.max_bytes, options.keep, clock)
    if not options.key:
        raise TrailError("audit_key: set it where there is no audit_dir: what a random key signed, nobody can verify")
    return ProcessChain(AuditKey(options.key), clock)
