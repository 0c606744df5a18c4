"""The queue between streams and the model.

1. A judge's *lanes* take windows, each as many at once as a batch holds, so that batches grow with the load and no
   window waits for a batch to fill.
2. Exchanges take turns: a lane takes one window of each that waits before a second one of any. So what an exchange
   waits for a window is at most what is being judged and one window of each other exchange, however long their texts
   are and however fast they come. (An exchange asks one question at a time.)
3. The event loop goes on: a model of this process runs in threads, another is awaited.
4. Whoever asks gets an answer within the deadline, or ``TimeoutError``; what nobody waits for any more leaves the
   queue. Where the windows that wait take longer than the deadline, by the pace of late, more are refused at once with
   :class:`~cotguard.classifier.handover.Overloaded`: so the queue does not grow, and what is judged is of use.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from cotguard.classifier.handover import Overloaded
from cotguard.classifier.tensors import Answer, Judge, Model, Window
from cotguard.telemetry.metrics import Metrics
from cotguard.telemetry.tracing import OFF, Trace, Tracing, current

__all__ = ["EMPTY", "Inference", "Threads"]

EMPTY = Window(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
"""What is asked only to see whether there is an answer."""

_AT_ONCE = 4
"""Windows a thread takes at least, if they are there: each hand-over to it costs a fraction of a window."""


_LAST_WEIGHT = 0.1
"""Weight of the last batch in the pace."""


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


@dataclass(slots=True, eq=False)
class _Call:
    """What waits of one question."""

    orders: deque[_Order]


class _Turns(asyncio.Queue[_Call]):
    """Calls by whose turn it is. One that nobody waits for any more has none."""

    def _init(self, maxsize: int) -> None:
        self._queue: OrderedDict[_Call, None] = OrderedDict()

    def _put(self, item: _Call) -> None:
        self._queue[item] = None

    def _get(self) -> _Call:
        return self._queue.popitem(last=False)[0]

    def discard(self, call: _Call) -> None:
        self._queue.pop(call, None)


class Inference:
    """Answers windows by a judge. Made in the event loop in which it is used; ``deadline`` in seconds."""

    def __init__(self, judge: Judge, *, deadline: float, metrics: Metrics, tracing: Tracing = OFF) -> None:
        self._judge = judge
        self._deadline = deadline
        self._metrics = metrics
        self._tracing = tracing
        self._turns = _Turns()
        self._waiting = 0  # windows
        self._pace = 0.0  # seconds a window takes one lane
        self._workers = [asyncio.create_task(self._work()) for _ in range(judge.lanes)]
        self.failing = False
        """Whether the last question went unanswered."""

    async def __call__(self, windows: Sequence[Window]) -> Sequence[Answer]:
        """Answers in order. Raises ``TimeoutError``, :class:`Overloaded` and what the judge raises."""
        answers: list[Answer] = []
        at_once = self._judge.batch * self._judge.lanes
        try:
            for at in range(0, len(windows), at_once):
                answers += await self._ask(windows[at : at + at_once])
        except Overloaded:
            self._metrics.classifier_failures.labels("overloaded").inc()
            raise
        except Exception as error:
            self.failing = True
            kind = "timeout" if isinstance(error, TimeoutError) else "error"
            self._metrics.classifier_failures.labels(kind).inc()
            raise
        self.failing = False
        return answers

    async def _ask(self, windows: Sequence[Window]) -> list[Answer]:
        if self._waiting * self._pace > self._deadline * self._judge.lanes:
            raise Overloaded
        loop = asyncio.get_running_loop()
        orders = [_Order(window, loop.create_future()) for window in windows]
        call = _Call(deque(orders))
        self._waiting += len(orders)
        self._turns.put_nowait(call)
        self._metrics.classifier_queue.inc(len(orders))
        try:
            async with asyncio.timeout(self._deadline):
                return [await order.answer for order in orders]
        finally:
            self._metrics.classifier_queue.dec(len(orders))
            self._waiting -= len(call.orders)
            self._turns.discard(call)
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
        turns, metrics, judge = self._turns, self._metrics, self._judge
        while True:
            orders = [self._next_of(await turns.get())]
            while len(orders) < judge.batch and not turns.empty():
                orders.append(self._next_of(turns.get_nowait()))
            began = time.monotonic()
            for order in orders:
                metrics.classifier_wait.observe(began - order.since, order.trace.exemplar)
            batch = self._tracing.batch("classifier", [order.trace for order in orders], len(orders))
            try:
                until = max(order.since for order in orders) + self._deadline
                answers = await judge([order.window for order in orders], until)
            except Exception as error:  # raised where it was asked
                batch.end("timeout" if isinstance(error, TimeoutError) else "error")
                for order in orders:
                    if not order.answer.done():
                        order.answer.set_exception(error)
                continue
            batch.end()
            metrics.classifier_batch.observe(len(orders))
            seconds = time.monotonic() - began
            metrics.classifier_seconds.observe(seconds)
            self._pace += _LAST_WEIGHT * (seconds / len(orders) - self._pace)
            for order, answer in zip(orders, answers, strict=True):
                if not order.answer.done():
                    order.answer.set_result(answer)

    def _next_of(self, call: _Call) -> _Order:
        """A window of the call whose turn it is; its others have to wait for their turns."""
        order = call.orders.popleft()
        self._waiting -= 1
        if call.orders:
            self._turns.put_nowait(call)
        return order
