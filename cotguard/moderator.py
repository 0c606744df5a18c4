"""Moderation in a program of your own: whole texts, streams, and exchanges of several texts.

with Moderator("balanced") as moderator:               # loads policy, rules and classifier: once a process
    moderator.moderate("mail ann.lee@example.com")     # Moderated(text, spans, verdicts, blocked)
    async for text in moderator.stream(chunks): ...    # what is decided, as soon as it is
    exchange = moderator.exchange([("system", "..."), ("user", "...")])
    exchange.feed("reasoning", "a piece")              # pieces of any channel, in the order in which they are written
    exchange.finish()

The guarantees are those of the proxy: what comes out does not depend on how the text was cut (G1), what came out is a
prefix of the whole result (G2), and a fault raises :class:`ModerationFault` and lets nothing undecided out (G5); so
does every later call of the same exchange.

Threads: a moderator may be used by any thread; calls of different threads take turns, since detectors keep buffers. In
an event loop use the coroutines and generators: the classifier then works in threads of the moderator's own, and
streams of the same loop go on meanwhile.
"""

import asyncio
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from cotguard.classifier.bundle import DEFAULT
from cotguard.classifier.handover import Answerers, handed_over, pause
from cotguard.detectors.contract import RequestFacts
from cotguard.detectors.registry import build, classifier_among
from cotguard.moderation.exchange import Exchange, ModerationFault, RequestBlocked, Verdict
from cotguard.moderation.json_view import view_for
from cotguard.moderation.observer import Recorder
from cotguard.moderation.view import PlainView
from cotguard.policy import RequestTexts, load
from cotguard.spans import INBOUND, Action, ChannelKind

if TYPE_CHECKING:  # and with it numpy, which those without a classifier need not load
    from cotguard.classifier.tensors import Answer, Window

__all__ = [
    "Found",
    "Moderated",
    "ModeratedExchange",
    "ModerationFault",
    "Moderator",
    "Piece",
    "Request",
    "RequestBlocked",
    "TextBlocked",
]

_TURN_CHARS = 8192
"""Characters moderated before others have their turn: a few milliseconds."""

_Result = TypeVar("_Result")

Request = Iterable[tuple[str, str]]
"""The texts of a request in their order, each with its kind: ``("system", "You are ...")``."""


class TextBlocked(Exception):  # noqa: N818  # a decision, not an error
    """A policy block ended a stream: what came before it is all there is."""


class Piece(NamedTuple):
    """Text that may be delivered, and the channel that it belongs to."""

    channel: ChannelKind
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """A value that was found, and what the policy does about it. Offsets are code points; there is no text in it."""

    start: int
    end: int
    entity: str
    score: float
    detector: str
    action: Action


@dataclass(frozen=True, slots=True)
class Moderated:
    """A text as the policy lets it out. ``blocked``: a block ended it, and what followed is not in it."""

    text: str = field(repr=False)
    spans: tuple[Found, ...]
    verdicts: Mapping[Verdict, int]
    blocked: bool


class ModeratedExchange:
    """A request and what a model writes in return. Made by :meth:`Moderator.exchange`.

    ``request`` are the texts that may go to the model, in their order: rewritten where the policy says so.
    """

    def __init__(
        self,
        exchange: Exchange,
        request: Request = (),
        turn: AbstractContextManager[object] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """Raises :class:`RequestBlocked` and :class:`ModerationFault`, and ``ValueError`` for an unknown kind."""
        self._exchange = exchange
        self._recorder = recorder or Recorder()
        self._turn = turn or nullcontext()
        self._over = False
        self._fault: ModerationFault | None = None
        self.request = self._guarded(partial(self._read, [(_kind(kind, INBOUND), text) for kind, text in request]))

    @property
    def blocked(self) -> bool:
        """Whether a block ended it: nothing follows."""
        return self._exchange.lane(0).cut

    @property
    def held(self) -> int:
        """Characters that are not decided yet."""
        return self._exchange.held

    @property
    def verdicts(self) -> Mapping[Verdict, int]:
        """How often each verdict was reached so far, in the request too."""
        return self._exchange.tally

    @property
    def spans(self) -> tuple[Found, ...]:
        """What was found so far, if it was to be recorded; offsets are those of each channel's text."""
        found = sorted(self._recorder.spans, key=lambda each: (each[0].start, each[0].end))
        return tuple(
            Found(span.start, span.end, span.entity, span.score, span.detector, action) for span, action in found
        )

    def feed(self, channel: str, text: str) -> list[Piece]:
        """Take the next piece of a channel's text; returns what is decided by it. Raises :class:`ModerationFault`."""
        if self._over:
            raise ValueError("the exchange is finished: begin another one")
        return self._guarded(partial(self._feed, _kind(channel), text))

    def finish(self) -> list[Piece]:
        """The model has written all; returns the rest. Raises :class:`ModerationFault`."""
        self._over = True
        return self._guarded(self._finish)

    def _guarded(self, call: Callable[[], _Result]) -> _Result:
        with self._turn:
            if self._fault is not None:
                raise self._fault
            try:
                return call()
            except ModerationFault as fault:
                self._fault = fault
                raise

    def _read(self, texts: Sequence[tuple[ChannelKind, str]]) -> tuple[str, ...]:
        policy = self._exchange.policy
        if policy.request.texts is RequestTexts.IGNORE:
            return tuple(text for _, text in texts)
        if policy.asks_origins:
            for kind, text in texts:
                self._exchange.note(PlainView(kind), text)
        return tuple(self._exchange.read(PlainView(kind), text) for kind, text in texts)

    def _feed(self, kind: ChannelKind, text: str) -> list[Piece]:
        lane = self._exchange.lane(0)
        if not lane.is_open(kind):
            lane.open(kind, view_for(kind))
        for at in range(0, len(text), _TURN_CHARS):
            lane.feed(kind, text[at : at + _TURN_CHARS])
            pause()
        return self._taken()

    def _finish(self) -> list[Piece]:
        self._exchange.lane(0).finish()
        return self._taken()

    def _taken(self) -> list[Piece]:
        return [
            Piece(emission.key, emission.text)
            for emission in self._exchange.lane(0).take()
            if isinstance(emission.key, ChannelKind) and emission.text
        ]


class Moderator:
    """Moderates texts under one policy.

    ``policy`` is a ready policy's name or a file, ``bundle`` the classifier: a ready bundle's name, a directory, or
    ``none``. ``hash_key`` keys the action ``hash`` and is random unless given. In event loops ``threads`` windows are
    judged at the same time, and an answer may take ``deadline`` seconds; later it is a fault.

    Raises :class:`~cotguard.policy.PolicyError` and :class:`~cotguard.classifier.bundle.BundleError`.
    """

    def __init__(
        self,
        policy: str = "balanced",
        *,
        bundle: str = DEFAULT,
        hash_key: bytes = b"",
        threads: int = 1,
        deadline: float = 5,
    ) -> None:
        self.policy = load(policy)
        self.detectors = build(self.policy, bundle)
        self.key = hash_key or secrets.token_bytes(32)
        self._deadline = deadline
        self._turn = RLock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cotguard-moderator")
        classifier = classifier_among(self.detectors)
        self._answerers: Answerers = (
            {} if classifier is None else {classifier.name: partial(self._judged, classifier.engine.run)}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the classifier's threads; streams under way end in a fault."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def moderate(self, text: str, channel: str = "output", *, request: Request = ()) -> Moderated:
        """A whole text, moderated. Blocks the thread; in an event loop use :meth:`amoderate`.

        Raises :class:`ModerationFault` and :class:`RequestBlocked`.
        """
        exchange = self.exchange(request, record=True)
        pieces = exchange.feed(channel, text) + exchange.finish()
        return Moderated(
            "".join(piece.text for piece in pieces), exchange.spans, exchange.verdicts, blocked=exchange.blocked
        )

    async def amoderate(self, text: str, channel: str = "output", *, request: Request = ()) -> Moderated:
        """The same in an event loop, which goes on meanwhile."""
        return await self.carry_out(partial(self.moderate, text, channel, request=request))

    async def stream(
        self, chunks: AsyncIterable[str], channel: str = "output", *, request: Request = ()
    ) -> AsyncIterator[str]:
        """The text of ``chunks``, as far as it is decided, piece by piece.

        Raises what :meth:`stream_channels` does.
        """
        kind = _kind(channel)
        async for piece in self.stream_channels(_paired(kind, chunks), request=request):
            yield piece.text

    async def stream_channels(
        self, chunks: AsyncIterable[tuple[str, str]], *, request: Request = ()
    ) -> AsyncIterator[Piece]:
        """The same for several channels: takes pairs of channel and text, in the order in which they are written.

        Raises :class:`ModerationFault`, :class:`RequestBlocked`, and :class:`TextBlocked` behind the last piece if the
        policy blocks; what ``chunks`` raises passes, and what is on hold then is not delivered.
        """
        exchange = await self.carry_out(partial(self.exchange, request))
        async for channel, text in chunks:
            for piece in await self.carry_out(partial(exchange.feed, channel, text)):
                yield piece
            if exchange.blocked:
                raise TextBlocked("the policy blocked the rest of the text")
        for piece in await self.carry_out(exchange.finish):
            yield piece
        if exchange.blocked:
            raise TextBlocked("the policy blocked the rest of the text")

    def exchange(
        self, request: Request = (), *, record: bool = False, pseudonym_key: bytes | None = None
    ) -> ModeratedExchange:
        """A new exchange, whose request has the texts ``request``. With ``record`` its spans are kept.

        Pseudonyms are derived from ``pseudonym_key``, which is random unless given: with the same key a value has the
        same pseudonym in other exchanges. Raises :class:`RequestBlocked` and :class:`ModerationFault`.
        """
        texts = list(request)
        recorder = Recorder() if record else None
        facts = RequestFacts.of(texts)
        exchange = Exchange(self.policy, self.detectors, facts, self.key, exchange_key=pseudonym_key, observer=recorder)
        return ModeratedExchange(exchange, texts, self._turn, recorder)

    async def carry_out(self, call: Callable[[], _Result]) -> _Result:
        """What ``call`` returns, which uses the detectors: in its turn, and with the loop going on meanwhile."""
        return await handed_over(partial(self._in_turn, call), self._answerers)

    def _in_turn(self, call: Callable[[], _Result]) -> _Result:
        with self._turn:
            return call()

    async def _judged(
        self, run: "Callable[[Sequence[Window]], list[Answer]]", windows: "Sequence[Window]"
    ) -> "list[Answer]":
        async with asyncio.timeout(self._deadline):
            return await asyncio.get_running_loop().run_in_executor(self._pool, run, windows)


def _kind(channel: str, kinds: Collection[ChannelKind] = tuple(ChannelKind)) -> ChannelKind:
    if channel not in kinds:
        raise ValueError(f"a channel is one of: {', '.join(sorted(kinds))}")
    return ChannelKind(channel)


async def _paired(kind: ChannelKind, chunks: AsyncIterable[str]) -> AsyncIterator[tuple[str, str]]:
    async for chunk in chunks:
        yield kind, chunk
