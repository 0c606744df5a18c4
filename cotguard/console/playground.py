"""The playground: what a policy makes of what somebody enters, piece by piece, with who holds what.

What is entered is one text, a response that was recorded, or a question to an upstream. It is moderated as the proxy
would: by the policy in force that is named, or by a draft of one, by the same detectors, in the event loop of the
gateway and in turn with its streams. Nothing of it is logged, counted for exchanges, recorded or remembered, and hashes
and pseudonyms are none of live traffic's.

Channels and steps are those of :mod:`cotguard.console.following`.
"""

import asyncio
import re
import secrets
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from cotguard.audit.records import Event
from cotguard.classifier.handover import handed_over, pause
from cotguard.console.asking import Question, asked
from cotguard.console.following import Following
from cotguard.console.recorded import Recorded, dialect_named, read, readable
from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.contract import Dialect, ErrorKind, Refused, Translator, UpstreamFault
from cotguard.gateway.moderations import OWN, Moderation
from cotguard.gateway.responses import FAULTS
from cotguard.http.answers import failure_of
from cotguard.moderation.exchange import Exchange, ModerationFault, RequestBlocked
from cotguard.moderation.json_view import view_for
from cotguard.moderation.observer import REQUEST
from cotguard.moderation.request import Findings
from cotguard.moderation.view import PlainView
from cotguard.policy import RequestTexts
from cotguard.spans import INBOUND, ChannelKind
from cotguard.upstreams.errors import PoolError

if TYPE_CHECKING:
    from cotguard.gateway.app import Gateway

__all__ = ["CUTS", "MAX_CHARS", "MAX_STEPS", "MAX_STREAM_BYTES", "tried"]

MAX_CHARS = 256 * 1024
"""Characters of what is entered as text."""

MAX_STREAM_BYTES = 2 * 2**20
"""Bytes of a recorded response."""

MAX_PIECE_BYTES = 256 * 1024
"""Bytes of one event of it, and of a whole body: while a text in one piece is read, the event loop waits."""

MAX_STEPS = 20_000

_Result = TypeVar("_Result")

CUTS: Final = ("token", "character", "whole")

_TOKEN: Final = re.compile(r"\s?[^\W\d_]{1,8}|\s?\d{1,3}|\s?[^\w\s]{1,3}|\s+|_+")
_TURN_CHARS: Final = 8192
_KEY: Final = secrets.token_bytes(32)
_EXCHANGE_KEY: Final = secrets.token_bytes(16)
"""Of all that is tried, so that a value looks the same from one try to the next."""

_TOO_MANY: Final = f"source: this makes more than {MAX_STEPS} steps; send less, or cut a text into tokens or not at all"
_TOO_LARGE: Final = f"source: an event, or a whole body, has more than {MAX_PIECE_BYTES} bytes; send a smaller one"
_BLOCKED: Final = "The request was blocked by policy."
_NO_STREAM: Final = "source.body: no stream that this dialect has"


async def tried(gateway: "Gateway", about: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of ``about["source"]`` under a policy, as JSON.

    ``about`` names the ``policy`` in force, and may hold a ``draft`` that takes its place; ``cut`` says in which pieces
    a text comes. A source is

    * ``{"kind": "text", "channel", "text", "system"}``: a text of any kind. One that is sent to the model is read as a
      part of a request, all at once; others are written by it, after the system prompt if there is one;
    * ``{"kind": "stream", "dialect", "body", "base64"}``: a response of an upstream, streamed or whole;
    * ``{"kind": "prompt", "upstream", "model", "system", "prompt"}``: a question whose answer is moderated.

    The last step of a text, and of a stream that its upstream ends, is its end. Faults are told in ``fault``. Raises
    ``ValueError`` for what cannot be used, and :class:`~cotguard.policy.PolicyError` for drafts.
    """
    source = about.get("source")
    kind = source.get("kind") if isinstance(source, dict) else None
    if not isinstance(source, dict) or not isinstance(kind, str) or kind not in _SOURCES:
        raise ValueError(f"source: write an object, in it a kind that is one of: {', '.join(_SOURCES)}")
    entered = _SOURCES[kind](gateway, source, _one_of(about, "cut", CUTS, default=CUTS[0]))
    name = _string(about, "policy", MAX_CHARS, default=OWN)
    if about.get("draft") is None:
        moderation = gateway.active.named(name)
    else:
        moderation = await gateway.drafts.moderation(name, _string(about, "draft", MAX_CHARS))
    run = _Run(gateway, moderation, entered.facts, requests=entered.requests, by=str(about.get("by", "")))
    await entered.moderate(run)
    return run.told()


class _Run:
    """One exchange under ``moderation``, followed; and what is to be told beside its channels and steps."""

    def __init__(
        self, gateway: "Gateway", moderation: Moderation, facts: RequestFacts, *, requests: bool, by: str
    ) -> None:
        self.gateway = gateway
        self.by = by
        self.policy = moderation.policy
        self.following = Following(requests=requests)
        self.blocked = False
        self.fault = ""
        self.beside: dict[str, Any] = {}
        self.exchange = Exchange(
            moderation.policy,
            moderation.detectors,
            facts,
            _KEY,
            exchange_key=_EXCHANGE_KEY,
            findings=Findings(moderation.policy, moderation.detectors, pause),  # what others enter is none of this
            max_bytes=gateway.active.settings.max_exchange_bytes,
            observer=self.following,
        )

    async def carry_out(self, call: Callable[[], _Result]) -> _Result:
        """What ``call`` returns, which moderates, in turn with the gateway's streams."""
        return await handed_over(call, self.gateway.staff.answerers)

    def step(self) -> None:
        """A piece came in; others have their turn."""
        self.following.step(self.exchange)
        pause()

    def end(self, fault: str = "", *, undo: bool = False) -> None:
        """It ended in a fault or a block. ``undo``: what the last piece led to was not delivered."""
        self.fault = fault
        if undo:
            self.following.undo()
        self.following.step(None)

    def told(self) -> dict[str, Any]:
        """The result."""
        return {
            "policy": {"name": self.policy.name, "digest": self.policy.digest},
            "channels": self.following.told(self.policy),
            "steps": self.following.steps,
            "blocked": self.blocked or self.following.is_cut,
            "fault": self.fault,
            **self.beside,
        }


class _Source(Protocol):
    """What was entered. ``requests``: texts that are sent to the model are told, too."""

    requests: bool

    @property
    def facts(self) -> RequestFacts: ...

    async def moderate(self, run: _Run) -> None:
        """Moderate it, step by step."""
        ...


class _Text:
    """One text."""

    def __init__(self, _gateway: "Gateway", source: Mapping[str, Any], cut: str) -> None:
        self._kind = ChannelKind(_one_of(source, "channel", list(ChannelKind)))
        self._text = _string(source, "text", MAX_CHARS)
        self._system = _string(source, "system", MAX_CHARS, default="")
        self.requests = self._kind in INBOUND
        self._pieces = [self._text] if self.requests else _pieces(self._text, cut)
        if len(self._text) + len(self._system) > MAX_CHARS:
            raise ValueError(f"source: at most {MAX_CHARS} characters")
        if len(self._pieces) >= MAX_STEPS:
            raise ValueError(_TOO_MANY)

    @property
    def facts(self) -> RequestFacts:
        return RequestFacts((self._system,) if self._system and not self.requests else ())

    async def moderate(self, run: _Run) -> None:
        try:
            if self.requests:
                await run.carry_out(partial(self._send, run))
            else:
                await run.carry_out(partial(self._write, run))
        except RequestBlocked:
            run.blocked = True
            run.end(undo=True)
        except ModerationFault as fault:
            run.end(failure_of(fault).message, undo=True)

    def _send(self, run: _Run) -> None:
        """The text as it goes to the model."""
        if run.policy.request.texts is RequestTexts.MODERATE:
            self._read(run, self._kind, self._text)
        elif (channel := run.following.channel(REQUEST, None, self._kind)) is not None:
            channel.received(self._text, self._kind)
            channel.wrote(0, len(self._text), (), self._text)
        run.step()

    def _write(self, run: _Run) -> None:
        """The text as the model writes it."""
        if self._system and run.policy.request.texts is not RequestTexts.IGNORE:
            self._read(run, ChannelKind.SYSTEM, self._system)
        lane = run.exchange.lane(0)
        lane.open(self._kind, view_for(self._kind))
        for piece in self._pieces:
            for at in range(0, len(piece), _TURN_CHARS):
                lane.feed(self._kind, piece[at : at + _TURN_CHARS])
                pause()
            lane.take()
            run.step()
            if lane.cut:
                return
        lane.finish()
        run.step()

    def _read(self, run: _Run, kind: ChannelKind, text: str) -> None:
        if run.policy.asks_origins:
            run.exchange.note(PlainView(kind), text)
        run.exchange.read(PlainView(kind), text)


class _Stream:
    """A response that was recorded."""

    facts = RequestFacts()
    requests = False

    def __init__(self, _gateway: "Gateway", source: Mapping[str, Any], _cut: str) -> None:
        self._dialect = dialect_named(source.get("dialect"))
        body = _string(source, "body", MAX_STREAM_BYTES * 2)
        self._data = _decoded(body) if source.get("base64") is True else body.encode("utf-8", "replace")
        if len(self._data) > MAX_STREAM_BYTES:
            raise ValueError(f"source.body: at most {MAX_STREAM_BYTES} bytes")

    async def moderate(self, run: _Run) -> None:
        await _moderate_recorded(run, await asyncio.to_thread(read, self._dialect, self._data))


class _Prompt:
    """A question to an upstream, and its answer."""

    requests = True

    def __init__(self, gateway: "Gateway", source: Mapping[str, Any], _cut: str) -> None:
        pools = gateway.active.pools
        self._upstream = _one_of(source, "upstream", list(pools))
        words = {name: _string(source, name, MAX_CHARS, default="") for name in ("model", "system", "prompt")}
        if sum(map(len, words.values())) > MAX_CHARS:
            raise ValueError(f"source: at most {MAX_CHARS} characters")
        self._question = Question.of(pools[self._upstream], **words)

    @property
    def facts(self) -> RequestFacts:
        return self._question.prepared.facts

    async def moderate(self, run: _Run) -> None:
        if not await run.gateway.record(Event.PROMPT_TRIED, f"{self._upstream} by {run.by}"):
            raise ValueError("source: the audit trail takes no records, so no upstream is asked")
        dialect = self._question.match.dialect
        try:
            recorded = await asked(run.gateway, self._question, run.exchange, run.step)
        except (Refused, PoolError) as error:
            run.blocked = error.kind is ErrorKind.BLOCKED
            _end_without_answer(run, dialect, error.kind, "" if run.blocked else error.message)
        except FAULTS as error:
            failure = failure_of(error)
            _end_without_answer(run, dialect, failure.kind, failure.message)
        else:
            await _moderate_recorded(run, recorded)


_SOURCES: Mapping[str, Callable[["Gateway", Mapping[str, Any], str], _Source]] = {
    "text": _Text,
    "stream": _Stream,
    "prompt": _Prompt,
}


def _end_without_answer(run: _Run, dialect: Dialect, kind: ErrorKind, message: str) -> None:
    run.end(message, undo=True)
    run.beside = {"received_bytes": 0, "wire": readable(None, dialect.error(kind, message or _BLOCKED))}


async def _moderate_recorded(run: _Run, recorded: Recorded) -> None:
    """Moderate a response as the proxy does, an event at a time. Raises ``ValueError``."""
    if len(recorded.pieces) >= MAX_STEPS:
        raise ValueError(_TOO_MANY)
    if any(len(piece) > MAX_PIECE_BYTES for piece in recorded.pieces):
        raise ValueError(_TOO_LARGE)
    content_type = recorded.content_type
    if content_type is None:
        carried_out: Callable[[], tuple[int, bytes]] = partial(_whole, run, recorded)
    else:
        translator = recorded.dialect.stream(recorded.prepared, run.exchange, content_type)
        if translator is None:
            raise ValueError(_NO_STREAM)
        carried_out = partial(_streamed, run, translator, recorded.pieces)
    received, written = await run.carry_out(carried_out)
    run.beside = {"received_bytes": received, "wire": readable(content_type, written)}


def _whole(run: _Run, recorded: Recorded) -> tuple[int, bytes]:
    """Moderate a whole body: one step. How many bytes came in, and what the client gets."""
    data = b"".join(recorded.pieces)
    try:
        written = recorded.dialect.body(data, recorded.prepared, run.exchange)
    except (UpstreamFault, ModerationFault) as error:
        failure = failure_of(error)
        run.end(failure.message, undo=True)
        return len(data), recorded.dialect.error(failure.kind, failure.message)
    run.step()
    return len(data), written


def _streamed(run: _Run, translator: Translator, pieces: Sequence[bytes]) -> tuple[int, bytes]:
    """Moderate a stream. How many bytes were read of it, and what the client gets."""
    received, written = 0, bytearray()
    try:
        for piece in pieces:
            received += len(piece)
            written += translator.receive(piece)
            run.step()
            if translator.finished:
                return received, bytes(written)
        written += translator.end()
        run.step()
    except (UpstreamFault, ModerationFault) as error:
        failure = failure_of(error)
        # What was decided before a fault of the upstream's is still delivered.
        written += translator.fail(failure.kind, failure.message)
        run.end(failure.message, undo=isinstance(error, ModerationFault))
    return received, bytes(written)


def _pieces(text: str, cut: str) -> list[str]:
    if cut == "whole":
        return [text] if text else []
    return list(text) if cut == "character" else _TOKEN.findall(text)


def _decoded(body: str) -> bytes:
    try:
        return b64decode("".join(body.split()), validate=True)
    except ValueError:
        raise ValueError("source.body: not base64") from None


def _string(about: Mapping[str, Any], name: str, most: int, default: str | None = None) -> str:
    """A string of what was entered. Raises ``ValueError``, which holds nothing of it."""
    value = about.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"{name}: write a string")  # noqa: TRY004  # whoever asks is told
    if len(value) > most:
        raise ValueError(f"{name}: at most {most} characters")
    return value


def _one_of(about: Mapping[str, Any], name: str, words: Sequence[str], default: str | None = None) -> str:
    value = about.get(name, default)
    if value not in words:
        raise ValueError(f"{name}: write one of: {', '.join(words)}")
    return str(value)
