"""The thread that writes: takes what waits together, and insists on what a sink does not take.

A group is written to one sink after the other. Where one fails, the thread says so and tries that step again every
``_RETRY_SECONDS``, until it succeeds or is told to give up. So nothing that was taken is dropped while the process
lives, no sink gets a record without those before it, and trying again is how a recovery is noticed.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from cotguard.audit.sinks import Copy, Journal

__all__ = ["Batch", "Reports", "Writer"]

_LOG = logging.getLogger("cotguard.audit")
_GROUP_BYTES = 256 * 1024
_RETRY_SECONDS = 0.5
_HEAD_SECONDS = 600
"""How often the head of the chain is logged: logs are often kept elsewhere, and tell of an end that was removed."""

_Result = TypeVar("_Result")


class _GivenUpError(Exception):
    """A sink failed, and it shall not be tried again."""


class Batch(NamedTuple):
    """Records, as ``encode`` made them, that are written together; ``kept`` is for whoever waits for them."""

    tails: Sequence[bytes]
    types: Counter[str]
    size: int
    kept: "asyncio.Future[bool] | None"


class Reports(NamedTuple):
    """Whom the thread tells; all are called in it."""

    written: Callable[[Sequence[Batch]], None]
    failed: Callable[[str], None]
    """A sink, by its name, did not take what it was given."""
    ended: Callable[[], None]


class Writer:
    """See the module. Whatever is put before ``stop`` is written before it ends."""

    def __init__(self, journal: Journal, copies: Sequence[Copy], reports: Reports) -> None:
        self._journal = journal
        self._copies = copies
        self._reports = reports
        self._inbox: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._given_up = threading.Event()
        self._ending = False
        self._head_due = 0.0
        # A daemon: a sink that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="cotguard-audit", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, batch: Batch) -> None:
        """Have a batch written."""
        self._inbox.put(batch)

    def stop(self) -> None:
        """Put nothing more; the thread ends when all is written."""
        self._inbox.put(None)

    def give_up(self) -> None:
        """Try nothing again."""
        self._given_up.set()

    def _run(self) -> None:
        try:
            while not self._ending:
                if group := self._next_group():
                    self._write(group)
                    self._reports.written(group)
        except _GivenUpError:
            pass
        except Exception:  # a fault of ours: the trail says that it takes nothing any more
            _LOG.exception("audit writer failed")
        finally:
            self._log_head()
            self._journal.close()
            for copy in self._copies:
                copy.close()
            self._reports.ended()

    def _next_group(self) -> list[Batch]:
        """What waits, once something does."""
        group: list[Batch] = []
        size = 0
        while size < _GROUP_BYTES and not (group and self._inbox.empty()):
            batch = self._inbox.get()
            if batch is None:
                self._ending = True
                break
            group.append(batch)
            size += batch.size
        return group

    def _write(self, group: Sequence[Batch]) -> None:
        tails = [tail for batch in group for tail in batch.tails]
        lines = self._insist("journal", partial(self._journal.append, tails))
        for copy in self._copies:
            self._insist(copy.name, partial(copy.write, lines))
        if time.monotonic() >= self._head_due:
            self._log_head()

    def _insist(self, sink: str, step: Callable[[], _Result]) -> _Result:
        """What ``step`` returns, once it succeeds."""
        failing = False
        while True:
            try:
                result = step()
            except OSError as error:
                if not failing:
                    problem = error.strerror or type(error).__name__
                    _LOG.error("audit sink failed", extra={"sink": sink, "problem": problem})
                failing = True
                self._reports.failed(sink)
            else:
                if failing:
                    _LOG.info("audit sink works again", extra={"sink": sink})
                return result
            if self._given_up.wait(_RETRY_SECONDS):
                raise _GivenUpError

    def _log_head(self) -> None:
        self._head_due = time.monotonic() + _HEAD_SECONDS
        if (head := self._journal.head) is not None:
            _LOG.info("audit head", extra={"chain": head.chain, "head": str(head)})
