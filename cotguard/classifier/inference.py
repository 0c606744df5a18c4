"""The queue between streams and the model.

1. The windows of all streams wait in one queue; a judge's *lanes* take them, each as many at once as a batch holds, so
   that batches grow with the load and no window waits for a batch to fill.
2. The event loop goes on: a model of this process runs in threads, another is awaited.
3. Whoever asks gets an answer within the deadline, or ``TimeoutError``; what nobody waits for any more is skipped, so
   the queue is never longer than a deadline.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from cotguard.classifier.tensors import Answer, Judge, Model, Window
from cotguard.telemetry.metrics import Metrics
from cotguard.telemetry.tracing import OFF, Trace, Tracing, current

__all__ = ["EMPTY", "Inference", "Threads"]

EMPTY = Window(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
"""What is asked only to see whether there is an answer."""

_AT_ONCE = 4
"""Windows a thread takes at least, if they are there: each hand-over to it costs a fraction of a window."""


class Threads:
    """A :class:`~cotguard.classifier.tensors.Judge` that runs ``model`` in ``threads`` threads, which it owns."""

    ready = True

    def __init__(self, model: Model, threads: int) -> None:
        self.batch, self.lanes = max(model.batch, _AT_ONCE), threads
        self._model = model
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")

    async def __call__(self, windows: Sequence[Window], until: float) -> list[Answer]:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._model.run, windows)

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True, eq=False)
class _Order:
    window: Window
    answer: asyncio.Future[Answer]
    since: float = field(default_factory=time.monotonic)
    trace: Trace = field(default_factory=current)


class Inference:
    """Answers windows by a judge. Made in the event loop in which it is used; ``deadline`` in seconds."""

    def __init__(self, judge: Judge, *, deadline: float, metrics: Metrics, tracing: Tracing = OFF) -> None:
        self._judge = judge
        self._deadline = deadline
        self._metrics = metrics
        self._tracing = tracing
        self._queue: asyncio.Queue[_Order] = asyncio.Queue()
        self._workers = [asyncio.create_task(self._work()) for _ in range(judge.lanes)]
        self.failing = False
        """Whether the last question went unanswered."""

    async def __call__(self, windows: Sequence[Window]) -> Sequence[Answer]:
        """Answers in order. Raises ``TimeoutError`` and what the judge raises."""
        answers: list[Answer] = []
        at_once = self._judge.batch * self._judge.lanes
        try:
            for at in range(0, len(windows), at_once):
                answers += await self._ask(windows[at : at + at_once])
        except Exception as error:
            self.failing = True
            kind = "timeout" if isinstance(error, TimeoutError) else "error"
            self._metrics.classifier_failures.labels(kind).inc()
            raise
        self.failing = False
        return answers

    async def _ask(self, windows: Sequence[Window]) -> list[Answer]:
        loop = asyncio.get_running_loop()
        orders = [_Order(window, loop.create_future()) for window in windows]
        for order in orders:
            self._queue.put_nowait(order)
        self._metrics.classifier_queue.inc(len(orders))
        try:
            async with asyncio.timeout(self._deadline):
                return [await order.answer for order in orders]
        finally:
            self._metrics.classifier_queue.dec(len(orders))
            for order in orders:
                if not order.answer.cancel() and not order.answer.cancelled():
                    order.answer.exception()  # one fault is told for all of them

    async def check(self) -> bool:
        """Whether the model answers now: asked with an empty window if it did not the last time."""
        if not self._judge.ready:
            return False
        if self.failing:
            try:
                await self([EMPTY])
            except Exception:  # any fault is counted, and means that it does not
                return False
        return True

    async def close(self) -> None:
        """Stop the workers."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self._judge.close()

    async def _work(self) -> None:
        queue, metrics, judge = self._queue, self._metrics, self._judge
        while True:
            orders = [await queue.get()]
            while len(orders) < judge.batch and not queue.empty():
                orders.append(queue.get_nowait())
            orders = [order for order in orders if not order.answer.done()]
            if not orders:
                continue
            began = time.monotonic()
            for order in orders:
                metrics.classifier_wait.observe(began - order.since, order.trace.exemplar)
            batch = self._tracing.batch("classifier", [order.trace for order in orders], len(orders))
            try:
                answers = await judge([order.window for order in orders], orders[-1].since + self._deadline)
            except Exception as error:  # raised where it was asked
                batch.end("timeout" if isinstance(error, TimeoutError) else "error")
                for order in orders:
                    if not order.answer.done():
                        order.answer.set_exception(error)
                continue
            batch.end()
            metrics.classifier_batch.observe(len(orders))
            metrics.classifier_seconds.observe(time.monotonic() - began)
            for order, answer in zip(orders, answers, strict=True):
                if not order.answer.done():
                    order.answer.set_result(answer)
