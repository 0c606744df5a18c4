"""The queue between streams and the model.

1. A stream's windows wait in one queue; ``threads`` workers take them, each as much at once as a batch holds, so that
   batches grow with the load and no window waits for a batch to fill.
2. Inference runs in threads of its own: the event loop goes on.
3. Whoever asks gets an answer within the deadline, or ``TimeoutError``; what nobody waits for any more is skipped, so
   the queue is never longer than a deadline.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cotguard.telemetry.metrics import Metrics

if TYPE_CHECKING:  # and with it ONNX Runtime, which a gateway without a classifier need not load
    from cotguard.classifier.engine import Answer, Engine, Window

__all__ = ["Inference"]

_AT_ONCE = 4
"""Windows a worker takes at least, if they are there: each hand-over to a thread costs a fraction of a window."""


@dataclass(slots=True, eq=False)
class _Order:
    windows: "Sequence[Window]"
    answers: "asyncio.Future[list[Answer]]"
    since: float = field(default_factory=time.monotonic)


class Inference:
    """Answers windows by an engine. Made in the event loop in which it is used; ``deadline`` in seconds."""

    def __init__(self, engine: "Engine", *, threads: int, deadline: float, metrics: Metrics) -> None:
        self._engine = engine
        self._deadline = deadline
        self._metrics = metrics
        self._queue: asyncio.Queue[_Order] = asyncio.Queue()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._workers = [asyncio.create_task(self._work()) for _ in range(threads)]
        self.failing = False
        """Whether the last question went unanswered."""

    async def __call__(self, windows: "Sequence[Window]") -> "Sequence[Answer]":
        """Answers in order. Raises ``TimeoutError`` and what the engine raises."""
        answers: list[Answer] = []
        at_once = max(self._engine.batch, _AT_ONCE)
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

    async def _ask(self, windows: "Sequence[Window]") -> "list[Answer]":
        order = _Order(windows, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(order)
        self._metrics.classifier_queue.inc(len(windows))
        try:
            async with asyncio.timeout(self._deadline):
                return await order.answers
        finally:
            self._metrics.classifier_queue.dec(len(windows))

    async def check(self) -> bool:
        """Whether the model answers now: asked with an empty window if it did not the last time."""
        if self.failing:
            from cotguard.classifier.engine import Window

            nothing = self._engine.bundle.tokenizer("")
            try:
                await self([Window(nothing.ids, nothing.types)])
            except Exception:  # any fault is counted, and means that it does not
                return False
        return True

    async def close(self) -> None:
        """Stop the workers."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop, queue, metrics = asyncio.get_running_loop(), self._queue, self._metrics
        while True:
            orders = [await queue.get()]
            count = len(orders[0].windows)
            while count < max(self._engine.batch, _AT_ONCE) and not queue.empty():
                orders.append(queue.get_nowait())
                count += len(orders[-1].windows)
            orders = [order for order in orders if not order.answers.done()]
            windows = [window for order in orders for window in order.windows]
            if not windows:
                continue
            began = time.monotonic()
            for order in orders:
                metrics.classifier_wait.observe(began - order.since)
            try:
                answers = await loop.run_in_executor(self._pool, self._engine.run, windows)
            except Exception as error:  # raised where it was asked
                for order in orders:
                    if not order.answers.done():
                        order.answers.set_exception(error)
                continue
            metrics.classifier_batch.observe(len(windows))
            metrics.classifier_seconds.observe(time.monotonic() - began)
            rest = iter(answers)
            for order in orders:
                own = [next(rest) for _ in order.windows]
                if not order.answers.done():
                    order.answers.set_result(own)
