"""The dialect OpenAI Chat Completions, with the extensions of the servers that speak it.

The rows are in ``chat_completions.yaml``; what a table cannot say is in the modules beside this one: tool calls
(``tools``), copies of a text (``choice``), the order of a stream (``stream``), requests
(``request``). Here: whole responses, errors, and the :class:`~cotguard.dialects.contract.Dialect` itself.

A whole response goes through the same channels as a stream of one chunk per choice. Where its texts are lists of
parts, a part is written for every stretch of released text of one channel.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from cotguard.dialects.chat.choice import Choice
from cotguard.dialects.chat.format import Format, as_object, envelope, error_object
from cotguard.dialects.chat.request import prepare
from cotguard.dialects.chat.sealed import Signed
from cotguard.dialects.chat.stream import ChatStream
from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Incoming, Prepared, UpstreamFault
from cotguard.dialects.table import fill
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import UNREADABLE, read_object
from cotguard.framing.json import dumps
from cotguard.moderation.exchange import Emission, Exchange

__all__ = ["ChatCompletions"]

_CALLS = frozenset({"tool_calls", "function_call"})


@dataclass(slots=True)
class _Run:
    """Released text that is written in one place."""

    key: Hashable
    fragment: dict[str, object]
    texts: list[str]


def _collect(choice: Choice, runs: list[_Run]) -> None:
    """Add what the choice's lane has released to the run it continues, or as new runs."""
    for emission in choice.lane.take():
        if emission.text or emission.head is not None:
            _add(choice, emission, runs)
        if isinstance(emission.tail, Signed):
            _sign(choice, emission.tail, runs)


def _add(choice: Choice, emission: Emission, runs: list[_Run]) -> None:
    run = _continued(runs, emission.key, choice.fragment(emission))
    if run is None:
        run = _Run(emission.key, choice.fragment(emission), [])
        runs.append(run)
    run.texts.append(emission.text)
    choice.delivered(emission.key, emission.text)


def _sign(choice: Choice, signed: Signed, runs: list[_Run]) -> None:
    """Put a token into the item that its text ends in, or where there is none, into one of its own."""
    token = choice.token(signed)
    name = signed.carrier
    for run in reversed(runs):
        items = run.fragment.get(name)
        if run.key == signed.key and isinstance(items, list):
            run.fragment = {**run.fragment, name: [*items[:-1], {**items[-1], **token}]}
            return
    runs.append(_Run(signed.key, signed.delta(token), []))


def _continued(runs: list[_Run], key: Hashable, fragment: dict[str, object]) -> _Run | None:
    """The last run of the channel, unless text of another channel came between them in the same list of parts."""
    for run in reversed(runs):
        if run.key == key and run.fragment == fragment:
            return run
        if run.fragment.keys() & fragment.keys() - _CALLS:
            return None
    return None


class ChatCompletions(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`.

    ``table`` is a table in the form of ``chat_completions.yaml``; by default that one. ``ValueError`` says which of
    its rows is wrong.
    """

    file = "chat/chat_completions.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self._form = Format(self.table)

    def prepare(self, request: Incoming) -> Prepared:
        return prepare(request, self._form)

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> ChatStream | None:
        return ChatStream(self._form, prepared, exchange) if content_type == "text/event-stream" else None

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        response = read_object(data, prepared.reported)
        if response.get("error"):
            raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)
        items = response.get("choices")
        if not isinstance(items, list) or len(items) > prepared.choices:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, UNREADABLE)
        fields = envelope(self._form.envelope.read(response).structure, "chat.completion")
        choices = [self._choice(as_object(item), at, prepared, exchange) for at, item in enumerate(items)]
        if len({choice["index"] for choice in choices}) != len(choices):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, UNREADABLE)
        return dumps(fields | {"choices": choices} | self._form.extras.read(response).structure)

    def _choice(self, item: dict[str, object], at: int, prepared: Prepared, exchange: Exchange) -> dict[str, object]:
        index = item.get("index", at)
        if type(index) is not int or not 0 <= index < prepared.choices:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, UNREADABLE)
        choice = Choice(index, exchange.lane(index), self._form, prepared, streamed=False)
        message, pieces = choice.read(as_object(item.get("message")))
        runs: list[_Run] = []
        for piece in pieces:
            if isinstance(piece, Signed):
                choice.take_signed(piece)
                continue
            if choice.fragments.get(piece.key) != piece.fragment:
                _collect(choice, runs)
                choice.fragments[piece.key] = piece.fragment
            choice.take_text(piece.key, piece.text)
        choice.end_calls()
        choice.lane.finish()
        _collect(choice, runs)
        for run in runs:
            fill(run.fragment, "".join(run.texts), message)
        if choice.lane.cut:
            # Arguments may have been cut in the middle: no call is one the client could carry out.
            for name in _CALLS:
                message.pop(name, None)
            return {"index": index, "message": message, "finish_reason": "content_filter"}
        return {"index": index, "message": message, **choice.finish(item.get("finish_reason"), item)}

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps(error_object(kind, message))

    def reported(self, error: object, message: str) -> dict[str, object]:
        return self._form.upstream_error(error.get("error", error) if isinstance(error, dict) else None, message)
