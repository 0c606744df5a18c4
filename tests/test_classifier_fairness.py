"""The queue of windows: exchanges take turns, what nobody waits for is not judged, too long a queue is not joined."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest_asyncio

from cotguard.classifier.handover import Overloaded
from cotguard.classifier.inference import Inference
from cotguard.classifier.tensors import Answer, Window
from cotguard.telemetry.metrics import Metrics


class SlowJudge:
    """Judges a batch when it is told to, and notes whose windows were in it."""

    ready = True

    def __init__(self, batch: int = 1, lanes: int = 1) -> None:
        self.batch, self.lanes = batch, lanes
        self.batches: list[list[int]] = []
        self.steps = asyncio.Semaphore(0)

    async def __call__(self, windows: Sequence[Window], until: float) -> list[Answer]:
        self.batches.append([int(window.ids[0]) for window in windows])
        await self.steps.acquire()
        nothing = np.zeros(0, dtype=np.float32)
        return [Answer(nothing, window.ids.astype(np.float32)) for window in windows]

    async def close(self) -> None:
        """Nothing runs."""


def windows(exchange: int, count: int = 1) -> list[Window]:
    ids = np.full(1, exchange, dtype=np.int64)
    return [Window(ids, ids)] * count


class Asking:
    """Inference by a slow judge, and those who ask it."""

    def __init__(self, judge: SlowJudge) -> None:
        self.judge = judge
        self.inference = Inference(judge, deadline=20, metrics=Metrics())
        self.tasks: list[asyncio.Task[Sequence[Answer]]] = []

    async def ask(self, exchange: int, count: int = 1) -> asyncio.Task[Sequence[Answer]]:
        async def answers() -> Sequence[Answer]:
            return await self.inference(windows(exchange, count))

        self.tasks.append(asyncio.create_task(answers()))
        await settled()
        return self.tasks[-1]

    async def judged(self, batches: int = 1) -> None:
        for _ in range(batches):
            self.judge.steps.release()
            await settled()

    @property
    def failures(self) -> dict[str, float]:
        return {
            sample.labels["kind"]: sample.value
            for family in self.inference._metrics.classifier_failures.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[list[Asking]]:
    made: list[Asking] = []
    yield made
    for each in made:
        for task in each.tasks:
            task.cancel()
        await asyncio.gather(*each.tasks, return_exceptions=True)
        await each.inference.close()


async def test_long_prompts_delay_a_stream_by_one_window_each(opened: list[Asking]) -> None:
    asking = Asking(SlowJudge(batch=4))
    opened.append(asking)
    prompts = [await asking.ask(number, count=100) for number in range(10)]
    for stream in range(100, 105):
        task = await asking.ask(stream)
        before = len(asking.judge.batches)
        await asking.judged(4)  # what is being judged, and three with a window of each prompt and the stream's own
        assert task.done()
        assert any(stream in batch for batch in asking.judge.batches[before : before + 3])
    assert not any(prompt.done() for prompt in prompts)


async def test_many_exchanges_take_turns(opened: list[Asking]) -> None:
    asking = Asking(SlowJudge(batch=3))
    opened.append(asking)
    for exchange, count in ((1, 3), (2, 3), (3, 1), (4, 2)):
        _ = await asking.ask(exchange, count)
    await asking.judged(4)
    assert asking.judge.batches == [[1, 1, 1], [2, 3, 4], [2, 4, 2]]
    assert [len(await task) for task in asking.tasks] == [3, 3, 1, 2]
    assert [int(answer.hazards[0]) for answer in await asking.tasks[3]] == [4, 4]


async def test_a_fast_stream_delays_another_by_one_window(opened: list[Asking]) -> None:
    """It asks again as soon as it is answered."""
    asking = Asking(SlowJudge())
    opened.append(asking)

    async def ask_on() -> Sequence[Answer]:
        while True:
            await asking.inference(windows(1))

    asking.tasks.append(asyncio.create_task(ask_on()))
    await settled()
    task = await asking.ask(2)
    await asking.judged(2)
    assert task.done()


async def test_lanes_share_a_question(opened: list[Asking]) -> None:
    asking = Asking(SlowJudge(lanes=3))
    opened.append(asking)
    task = await asking.ask(1, count=5)
    assert asking.judge.batches == [[1], [1], [1]]
    await asking.judged(5)
    assert len(await task) == 5


async def test_what_nobody_waits_for_is_not_judged(opened: list[Asking]) -> None:
    asking = Asking(SlowJudge(batch=2))
    opened.append(asking)
    _ = await asking.ask(1, count=2)
    gone = await asking.ask(2, count=2)
    stays = await asking.ask(3)
    gone.cancel()
    await settled()
    assert asking.inference._turns.qsize() == 1
    await asking.judged(2)
    assert stays.done()
    assert asking.judge.batches == [[1, 1], [3]]
    assert asking.inference._waiting == 0


async def test_a_queue_that_takes_longer_than_the_deadline_is_not_joined(opened: list[Asking]) -> None:
    asking = Asking(SlowJudge())
    opened.append(asking)
    first = await asking.ask(0)
    await asking.judged()
    assert asking.inference._pace > 0
    asking.inference._pace = 2.0
    for exchange in range(20):
        _ = await asking.ask(exchange)
    refused = [task for task in asking.tasks[1:] if task.done()]
    assert len(refused) == 20 - 1 - 11  # one is being judged; more than ten that wait take longer than 20 seconds
    assert {type(task.exception()) for task in refused} == {Overloaded}
    assert asking.failures == {"overloaded": len(refused)}
    assert not asking.inference.failing  # it answers
    await asking.judged(12)
    assert first.done()
    assert all(task.done() for task in asking.tasks)
