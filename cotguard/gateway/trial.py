"""A trial: what a draft would have counted, had it been in force, beside what the policy in force has counted.

1. While a trial runs, exchanges under the policy that the draft is to replace are recorded
   (:mod:`cotguard.gateway.recording`).
2. When one is over, it is replayed under the draft, whose decisions are carried out, and delivered to nobody. What is
   counted does not depend on how a text was cut (G1), so a replay counts what a gateway with the draft would have.
3. Of both sides only counts are kept, of exactly the exchanges that were replayed; a recording is dropped as soon as it
   is. Nothing of a replay is in metrics of exchanges, records, logs, pins, or what is remembered of requests; where a
   model judges, it judges for replays too, and its queue is one.

One task replays, one exchange at a time, and leaves the event loop three times the time that it takes. What finds no
room is left out, and counted as such; so is what the draft fails to moderate. A fault of the draft is the replay's own.

Limits: the upstream answers what it was sent under the policy in force, and is read as far as that one lets it. Whether
tools have changed is known where the policy in force asks.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cotguard.classifier.handover import Answerers, Handover
from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.contract import Prepared, Refused, UpstreamFault
from cotguard.gateway.call import Call
from cotguard.gateway.drafting import asked
from cotguard.gateway.moderations import Moderation
from cotguard.gateway.outgoing import Unmoderated, is_recordable, moderate
from cotguard.gateway.recording import BUSY, TOO_LARGE, Recording
from cotguard.moderation.exchange import Exchange, ModerationFault, Verdict
from cotguard.policy import Mode
from cotguard.taxonomy import label

if TYPE_CHECKING:
    from cotguard.gateway.app import Gateway

__all__ = [
    "MAX_MINUTES",
    "MAX_QUEUED",
    "Trial",
    "counted",
    "start",
    "state",
    "stop",
    "summed",
]

MAX_QUEUED = 1024
"""Exchanges that wait to be replayed."""

MAX_MINUTES = 60
"""The longest trial."""

_MINUTE = 60.0
_PIECE_BYTES = 4096
"""How much of a stream is replayed at a time: some milliseconds where it is all one text, and few windows."""

_REST = 3
"""How many times as long as a replay takes it leaves the event loop to others."""

_LEAST_REST = 0.002
"""Seconds: the loop's timers count milliseconds."""

_FAILED: Final = "failed"
_LEFT_OUT: Final = (TOO_LARGE, BUSY, _FAILED)

_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Counts:
    """What a trial has come to."""

    exchanges: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    active: Counter[Verdict] = field(default_factory=Counter)
    draft: Counter[Verdict] = field(default_factory=Counter)


class _Running:
    """A trial under way. ``replaced`` is the digest of the policy that the draft is to replace."""

    def __init__(self, moderation: Moderation, replaced: str, answerers: Answerers, max_bytes: int) -> None:
        self.replaced = replaced
        self.counts = _Counts()
        self.size = 0
        policy = replace(moderation.policy, mode=Mode.ENFORCE)
        self._moderation = Moderation.of(policy, moderation.detectors)
        self._answerers = answerers
        self._max_bytes = max_bytes
        self._key = secrets.token_bytes(32)
        self._recordings: set[Recording] = set()
        self._queue: asyncio.Queue[tuple[Recording, Counter[Verdict]]] = asyncio.Queue(MAX_QUEUED)
        self._owed = 0.0  # seconds that others have not had yet
        self._task = asyncio.create_task(self._replay_all())

    def begin(self, call: Call, request: Unmoderated) -> Recording:
        """Record an exchange, of which ``request`` is about to be moderated."""
        recording = Recording(self, call)
        self._recordings.add(recording)
        try:
            recording.take_request(request)
        except Exception:  # whatever it is, it must not touch the exchange
            self.leave_out(recording, _FAILED)
        return recording

    def enqueue(self, recording: Recording, tally: Counter[Verdict]) -> None:
        """Replay an exchange that counted ``tally``."""
        try:
            self._queue.put_nowait((recording, tally))
        except asyncio.QueueFull:
            self.leave_out(recording, BUSY)

    def leave_out(self, recording: Recording, why: str) -> None:
        """Drop a recording, and count why."""
        self.counts.left_out[why] += 1
        self._drop(recording)

    def end(self) -> None:
        """Record and replay no more; all recordings are dropped."""
        self._task.cancel()
        for recording in list(self._recordings):
            self._drop(recording)

    def _drop(self, recording: Recording) -> None:
        self.size -= recording.size
        recording.drop()
        self._recordings.discard(recording)

    async def _replay_all(self) -> None:
        counts = self.counts
        while True:
            recording, tally = await self._queue.get()
            try:
                replayed = await self._replay(recording)
            except Exception:  # a fault in moderating, or of ours: its message may quote what it was about
                self.leave_out(recording, _FAILED)
            else:
                self._drop(recording)
                counts.exchanges += 1
                counts.active += tally
                counts.draft += replayed
            del recording  # nothing is kept while there is nothing to do

    async def _replay(self, recording: Recording) -> Counter[Verdict]:
        """What the draft counts. Raises :class:`ModerationFault`."""
        moderation, prepared = self._moderation, recording.prepared
        exchange = Exchange(
            moderation.policy,
            moderation.detectors,
            prepared.facts if prepared else RequestFacts(),
            self._key,
            findings=moderation.findings,
            hidden=recording.hidden,
            max_bytes=self._max_bytes,
        )
        with suppress(Refused, UpstreamFault):  # the draft, or the upstream, lets it go no further
            await self._read(recording, exchange)
            if prepared is not None:
                await self._answer(recording, prepared, exchange)
        if exchange.bypassed:
            raise ModerationFault("a detector failed")
        return exchange.tally

    async def _read(self, recording: Recording, exchange: Exchange) -> None:
        request, dialect = recording.request, recording.dialect
        assert request is not None  # noqa: S101  # it is not dropped
        try:
            await self._carried_out(partial(moderate, request, dialect, exchange))
        finally:
            if recording.named:
                is_recordable(recording.named, exchange)

    async def _answer(self, recording: Recording, prepared: Prepared, exchange: Exchange) -> None:
        dialect, data = recording.dialect, recording.data
        if recording.content_type is None:
            await self._carried_out(partial(dialect.body, bytes(data), prepared, exchange))
            return
        translator = dialect.stream(prepared, exchange, recording.content_type)
        assert translator is not None  # noqa: S101  # it is of a stream
        for at in range(0, len(data), _PIECE_BYTES):
            await self._carried_out(partial(translator.receive, bytes(data[at : at + _PIECE_BYTES])))
            if translator.finished:
                return
        if recording.ended:
            await self._carried_out(translator.end)

    async def _carried_out(self, call: Callable[[], _Result]) -> _Result:
        """What ``call`` returns, once others had their time."""
        began = time.perf_counter()
        running = Handover(call)
        self._owed += _REST * (time.perf_counter() - began)
        result = await running.finish(self._answerers)
        if self._owed >= _LEAST_REST:
            owed, self._owed = self._owed, 0.0
            await asyncio.sleep(owed)
        else:
            await asyncio.sleep(0)
        return result


class Trial:
    """The trial of one gateway, if one runs, and else what the last one came to. ``answerers`` answer detectors."""

    def __init__(self, answerers: Answerers) -> None:
        self._answerers = answerers
        self._timer: asyncio.TimerHandle | None = None
        self._told: dict[str, Any] = {"policy": "", "name": "", "digest": "", "started": 0.0, "ends": 0.0}
        self._counts = _Counts()
        self.running: _Running | None = None
        """The trial that exchanges are recorded for."""

    def start(self, draft: Moderation, replaced: Moderation, minutes: int, max_bytes: int) -> None:
        """Try ``draft`` in the place of ``replaced``; exchanges hold ``max_bytes``. A trial under way ends."""
        self.end()
        now, seconds = time.time(), minutes * _MINUTE
        name, digest = draft.policy.name, draft.policy.digest
        self._told = {
            "policy": replaced.policy.name,
            "name": name,
            "digest": digest,
            "started": now,
            "ends": now + seconds,
        }
        self.running = _Running(draft, replaced.policy.digest, self._answerers, max_bytes)
        self._counts = self.running.counts
        self._timer = asyncio.get_running_loop().call_later(seconds, self.end)

    def end(self) -> None:
        """End the trial, if one runs; what it counted stays."""
        running, self.running = self.running, None
        if running is None:
            return
        running.end()
        self._told["ends"] = min(self._told["ends"], time.time())
        if self._timer is not None:
            self._timer.cancel()

    def follow(self, moderations: Mapping[str, Moderation]) -> None:
        """These are in force now: the trial ends if the policy that it is about is not among them."""
        if self.running is not None and all(
            each.policy.digest != self.running.replaced for each in moderations.values()
        ):
            self.end()

    def begin(self, call: Call, request: Unmoderated) -> Recording | None:
        """The recording of an exchange that a trial is about; ``request`` is not moderated yet."""
        running = self.running
        if running is None or call.exchange is None or call.exchange.policy.digest != running.replaced:
            return None
        return running.begin(call, request)

    @property
    def state(self) -> dict[str, Any]:
        """How it stands, as JSON; times are seconds of the epoch."""
        counts = self._counts
        return {
            "running": self.running is not None,
            **self._told,
            "exchanges": counts.exchanges,
            "left_out": {why: counts.left_out[why] for why in _LEFT_OUT},
            "active": counted(counts.active),
            "draft": counted(counts.draft),
        }


def counted(tally: Mapping[Verdict, int]) -> list[list[Any]]:
    """A tally as rows of entity, channel, action, outcome and number; entities are named as metrics name them."""
    rows: Counter[tuple[str, ...]] = Counter()
    for verdict, number in tally.items():
        rows[label(verdict.entity), verdict.kind, verdict.action, verdict.outcome] += number
    return _written(rows)


def _written(rows: Mapping[tuple[str, ...], int]) -> list[list[Any]]:
    return [[*map(str, row), number] for row, number in sorted(rows.items())]


async def start(gateway: "Gateway", about: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a trial: ``about`` has the ``draft``, the name of the ``policy`` that it is to replace, and ``minutes``.

    Raises ``ValueError``, and what :func:`~cotguard.gateway.drafting.Drafts.moderation` raises.
    """
    name, text = asked(about)
    minutes = about.get("minutes")
    if type(minutes) is not int or not 1 <= minutes <= MAX_MINUTES:
        raise ValueError(f"minutes: write a whole number from 1 to {MAX_MINUTES}")
    draft = await gateway.drafts.moderation(name, text)
    active = gateway.active
    gateway.trial.start(draft, active.named(name), minutes, active.settings.max_exchange_bytes)
    return gateway.trial.state


async def stop(gateway: "Gateway", _about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """End the trial."""
    gateway.trial.end()
    return gateway.trial.state


async def state(gateway: "Gateway", _about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """How the trial stands."""
    return gateway.trial.state


def summed(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of several workers' trials as one. Those of another trial than the latest, or of none, add nothing."""
    latest = max(states, key=lambda each: (each["running"], each["started"]))
    same = [each for each in states if (each["policy"], each["digest"]) == (latest["policy"], latest["digest"])]

    def rows(side: str) -> list[list[Any]]:
        found: Counter[tuple[str, ...]] = Counter()
        for each in same:
            for *row, number in each[side]:
                found[tuple(row)] += number
        return _written(found)

    return {
        "running": latest["running"],
        **{name: latest[name] for name in ("policy", "name", "digest")},
        "started": min(each["started"] for each in same),
        "ends": max(each["ends"] for each in same),
        "exchanges": sum(each["exchanges"] for each in same),
        "left_out": {why: sum(each["left_out"][why] for each in same) for why in _LEFT_OUT},
        "active": rows("active"),
        "draft": rows("draft"),
    }
