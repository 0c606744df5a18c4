"""The dialect of OpenAI's legacy completions (``POST /v1/completions``), with the extensions of other servers.

1. A chunk or a document holds choices: the next piece of a text, or all of it, and why it ended.
2. With ``n`` above one, or several prompts, choices interleave; the first prompt's come before the second's.
3. A block ends its choice with ``content_filter`` and leaves the others alone. Usage and timings, wherever the upstream
   sends them, are written with the finish reason or behind the last.

Known limit: identifiers, model and time are those of the first chunk that has them.

Source: the OpenAI API reference; ``openai/types/completion.py``, ``completion_choice.py``.
"""

from typing import Any

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.chat.format import as_object, error_object
from cotguard.dialects.chat.request import MAX_CHOICES
from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Incoming, Prepared, UpstreamFault
from cotguard.dialects.raw_text.stream import (
    OPENAI,
    RawStream,
    choices_of,
    invalid,
    opening_kind,
    prompt_text,
    prompts_of,
)
from cotguard.dialects.request import flag, integer, read_body, stops, stream_options, string, without
from cotguard.dialects.stream import Fed, Outgoing
from cotguard.dialects.table import HOLE, Shape
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import moderate, read_object
from cotguard.framing.json import dumps
from cotguard.framing.sse import DoneEvents
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.markers import MarkerView

__all__ = ["Completions"]

_OBJECT = "text_completion"


class Completions(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`."""

    file = "raw_text/completions.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self._choice = self.table.shape("choice")
        self._reasons = self.table.names("enums", "finish_reason")
        self._refused = OPENAI.refused | self.table.names("request", "refuse")

    def prepare(self, request: Incoming) -> Prepared:
        body = without(read_body(request.body), OPENAI.stripped, self._refused)
        stream = flag(body, "stream")
        options = stream_options(body, stream=stream)
        prompt = body.get("prompt")
        each = integer(body, "n", 1, MAX_CHOICES, default=1)
        return Prepared(
            document=body,
            model=string(body, "model"),
            stream=stream,
            facts=RequestFacts((), prompt_text(prompt)),
            stops=stops(body),
            usage_requested=options.get("include_usage") is True,
            choices=choices_of(prompts_of(prompt), each),
        )

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> "_Stream | None":
        return _Stream(self._choice, self._reasons, prepared, exchange) if content_type == "text/event-stream" else None

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        response = read_object(data, prepared.reported)
        if response.get("error"):
            raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)
        items = response.get("choices")
        if not isinstance(items, list) or len(items) > prepared.choices:
            raise invalid()
        kind = opening_kind(prepared)
        choices: dict[int, dict[str, Any]] = {}
        for at, item in enumerate(map(as_object, items)):
            index = item.get("index", at)
            if type(index) is not int or not 0 <= index < prepared.choices or index in choices:
                raise invalid()
            lane = exchange.lane(index)
            written = moderate(item, self._choice, lane, lambda _: MarkerView(kind))
            reason = "content_filter" if lane.cut else _reason(item, self._reasons)
            choices[index] = _choice(index, written.get("text") or "", reason)
        fields = _envelope(OPENAI.envelope.read(response).structure)
        return dumps({**fields, "choices": list(choices.values()), **OPENAI.extras.read(response).structure})

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps(error_object(kind, message))

    def reported(self, error: object, message: str) -> dict[str, object]:
        return OPENAI.upstream_error(error.get("error", error) if isinstance(error, dict) else None, message)


def _envelope(fields: dict[str, Any]) -> dict[str, Any]:
    """What is around the choices; those fields that every client expects are there."""
    return {"id": "", "created": 0, "model": "", **fields, "object": _OBJECT}


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def _reason(item: dict[str, Any], known: frozenset[str]) -> str | None:
    """Why a choice ended: ``stop`` for a reason that clients do not know."""
    reason = item.get("finish_reason")
    if reason is None:
        return None
    return reason if isinstance(reason, str) and reason in known else "stop"


class _Stream(RawStream):
    def __init__(self, shape: Shape, reasons: frozenset[str], prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(DoneEvents(), prepared, exchange)
        self._shape = shape
        self._reasons = reasons
        self._fields: dict[str, Any] = {}
        self._extras: dict[str, Any] = {}

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        error = document.get("error")
        if error or name == "error":
            raise self.upstream_failed(Outgoing("", OPENAI.upstream_error(error, UPSTREAM_REPORTED)))
        self._note_fields(document)
        extras = OPENAI.extras.read(document).structure
        self._extras |= extras
        items = document.get("choices")
        if items is not None and not isinstance(items, list):
            raise invalid("The upstream's choices are not a list.")
        fed = [self._take_choice(at, as_object(item)) for at, item in enumerate(items or ())]
        if self._extras and self.all_over(self.choices):
            self._write_extras()
        return fed[0] if len(fed) == 1 and not extras else None

    def _note_fields(self, document: dict[str, Any]) -> None:
        for name, value in OPENAI.envelope.read(document).structure.items():
            if value and not self._fields.get(name):
                self._fields[name] = value

    def _take_choice(self, at: int, item: dict[str, Any]) -> Fed | None:
        index = self.choice(item)
        if self.is_over(index):
            return None
        texts = self._shape.copy(item).texts
        for text in texts:
            self.feed_text(index, text.text)
        reason = _reason(item, self._reasons)
        if reason is None:
            return Fed(index, index, texts[0].text, ("choices", at, "text")) if texts else None
        if self.finish(index):
            self._close(index, reason)
        return None

    def delta(self, index: int) -> Outgoing:
        return self._chunk([_choice(index, HOLE, None)])

    def _close(self, index: int, reason: str) -> None:
        extras, self._extras = self._extras, {}
        self.write(self._chunk([_choice(index, "", reason)], extras))

    def was_cut(self, lane: int) -> None:
        self._close(lane, "content_filter")
        if self.all_over(range(self.prepared.choices)):
            self.complete()  # the upstream still writes what was cut: its usage is not worth waiting for

    def complete(self) -> None:
        if self._extras and not self.finished:
            self._write_extras()
        super().complete()

    def _write_extras(self) -> None:
        extras, self._extras = self._extras, {}
        self.write(self._chunk([], extras))

    def _chunk(self, choices: list[dict[str, Any]], extras: dict[str, Any] | None = None) -> Outgoing:
        return Outgoing("", {**_envelope(self._fields), "choices": choices, **(extras or {})})

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return Outgoing("", error_object(kind, message))
