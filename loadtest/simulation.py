"""A queueing model of one worker with a classifier: what tokens wait for, at any load, without running it.

1. Each token of each stream is an event for the event loop, which serves one after the other and takes the same time
   for each.
2. Which tokens complete windows, and how many tokens late text is released when every answer comes at once, is a
   property of the text, the policy and the bundle: the real detectors are fed once, token by token (:func:`replay`).
3. Windows wait in one queue. A worker takes what waits, up to a batch, and judges it in a time that depends on how many
   windows there are (:func:`serve`, which is the rule of :mod:`cotguard.classifier.inference`).
4. What comes on a stream while it waits for an answer is released with the answer at the earliest.

Not in the model: the network, connecting, threads that compete for cores.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cotguard.classifier.detector import Classifier
from cotguard.classifier.engine import Answer, Window
from cotguard.classifier.handover import handed_over
from cotguard.detectors.contract import RequestFacts
from cotguard.detectors.registry import build
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import PlainView
from cotguard.policy import load
from cotguard.spans import ChannelKind
from loadtest.script import Script

__all__ = ["Prediction", "Profile", "Served", "replay", "serve", "simulate"]

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_KINDS = {"reasoning": ChannelKind.REASONING, "answer": ChannelKind.OUTPUT}


@dataclass(frozen=True)
class Served:
    """What became of customers, in the order of their arrival. ``batches``: how many each batch had."""

    waits: Floats
    done: Floats
    batches: Counts
    busy: float


def serve(arrivals: Floats, seconds: Callable[[int], float], *, most: int = 1, servers: int = 1) -> Served:
    """A queue, first come first served. ``arrivals`` ascend.

    A server takes up to ``most`` of those who wait, at least one, and is busy for ``seconds`` of their number.
    """
    waits, done = np.zeros(len(arrivals)), np.zeros(len(arrivals))
    free = [0.0] * servers
    batches, busy, first = [], 0.0, 0
    while first < len(arrivals):
        server = free.index(min(free))
        begin = max(free[server], float(arrivals[first]))
        end = first + 1
        while end - first < most and end < len(arrivals) and arrivals[end] <= begin:
            end += 1
        took = seconds(end - first)
        waits[first:end] = begin - arrivals[first:end]
        done[first:end] = free[server] = begin + took
        busy += took
        batches.append(end - first)
        first = end
    return Served(waits, done, np.array(batches, dtype=np.int64), busy)


@dataclass(frozen=True)
class Profile:
    """Of a text in tokens: ``windows`` each token completes, and the token with which each one is ``released``."""

    windows: Counts
    released: Counts


async def replay(policy_name: str, bundle: str, tokens: int) -> Profile:
    """Feed the mock server's prose, reasoning and answer, to the real detectors. Nothing of it may be altered."""
    policy = load(policy_name)
    detectors = build(policy, bundle)
    lane = Exchange(policy, detectors, RequestFacts(), os.urandom(32)).lane(0)
    text = Script(tokens, planted=False)
    windows, out = np.zeros((2, tokens), dtype=np.int64)

    async def step(number: int, call: Callable[[], None]) -> None:
        async def answer(asked: Sequence[Window]) -> Sequence[Answer]:
            windows[number] += len(asked)
            return judge(asked)

        await handed_over(call, {Classifier.name: answer})
        out[number] += sum(len(emission.text) for emission in lane.take())

    judge = next((each.judge for each in detectors if isinstance(each, Classifier)), _nobody)
    for number, (channel, token) in enumerate(text.deltas):
        if not lane.is_open(channel):
            lane.open(channel, PlainView(_KINDS[channel]))
        await step(number, partial(lane.feed, channel, token))
    await step(tokens - 1, lane.finish)
    return Profile(windows, np.searchsorted(out.cumsum(), text.ends))


def _nobody(windows: Sequence[Window]) -> Sequence[Answer]:
    raise LookupError(f"{len(windows)} windows, and no classifier")


class Prediction(NamedTuple):
    """Seconds; shares of one core for the utilisations. ``loop``: of the event loop, ``judging``: of the classifier."""

    wait_mean: float
    wait50: float
    wait99: float
    batch_mean: float
    loop: float
    judging: float
    delay_mean: float
    delay50: float
    delay99: float


def simulate(
    profile: Profile,
    begins: Sequence[float],
    rate: float,
    *,
    event_seconds: float,
    window_seconds: float,
    at_once: int = 4,
    threads: int = 1,
) -> Prediction:
    """Streams that begin at ``begins`` and bring ``rate`` tokens a second, through one worker.

    Judging a window takes ``window_seconds``, every time.
    """
    count = len(profile.windows)
    sent = np.asarray(begins, dtype=np.float64)[:, None] + np.arange(count) / rate
    order = np.argsort(sent, axis=None, kind="stable")
    loop = serve(sent.ravel()[order], lambda events: events * event_seconds)
    handled = np.zeros(sent.size)
    handled[order] = loop.done
    asked = np.repeat(np.arange(sent.size), np.tile(profile.windows, len(sent)))
    asked = asked[np.argsort(handled[asked], kind="stable")]
    judged = serve(handled[asked], lambda windows: windows * window_seconds, most=at_once, servers=threads)
    answered = handled.copy()
    np.maximum.at(answered, asked, judged.done)
    ready = np.maximum.accumulate(answered.reshape(sent.shape), axis=1)
    delays = ready[:, profile.released] - sent
    lasted = float(ready.max() - sent.min())
    waits = judged.waits if len(asked) else np.zeros(1)
    return Prediction(
        wait_mean=float(waits.mean()),
        wait50=float(np.percentile(waits, 50)),
        wait99=float(np.percentile(waits, 99)),
        batch_mean=float(judged.batches.mean()) if len(asked) else 0.0,
        loop=loop.busy / lasted,
        judging=judged.busy / lasted,
        delay_mean=float(delays.mean()),
        delay50=float(np.percentile(delays, 50)),
        delay99=float(np.percentile(delays, 99)),
    )
