"""The dialect of llama.cpp's own routes: ``/completion``, and ``/infill`` for the text between two others.

1. An event holds the next piece of a choice's text. The last one of a choice has ``stop`` and everything else there is
   to say; its text is empty. Nothing follows the last choice's.
2. A whole document is the last event with all of the text in it; several choices are a list.
3. No ``stop_type`` says that the text was cut, so a notice says it in the text.

Known limit: of the numbers only those of the last event are written, as all others change with every token.

Source: ggml-org/llama.cpp ``tools/server/README.md``, and what a server answers.
"""

from typing import Any

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.chat.format import error_object
from cotguard.dialects.chat.request import MAX_CHOICES
from cotguard.dialects.contract import CUT_NOTICE, UPSTREAM_REPORTED, ErrorKind, Incoming, Prepared
from cotguard.dialects.raw_text.stream import (
    OPENAI,
    RawStream,
    choices_of,
    invalid,
    opening_kind,
    prompt_text,
    prompts_of,
    read_results,
)
from cotguard.dialects.request import flag, integer, objects, read_body, stops, string, without
from cotguard.dialects.stream import Outgoing
from cotguard.dialects.table import HOLE, Shape
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import moderate
from cotguard.framing.json import dumps
from cotguard.framing.sse import ServerSentEvents
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.markers import MarkerView

__all__ = ["LlamaCpp"]

_CUT = {"stop": True, "stop_type": "none"}


class LlamaCpp(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`."""

    file = "raw_text/llamacpp.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self._result = self.table.shape("result")
        self._stripped = OPENAI.stripped | self.table.names("request", "strip")
        self._refused = OPENAI.refused | self.table.names("request", "refuse")

    def prepare(self, request: Incoming) -> Prepared:
        body = without(read_body(request.body), self._stripped, self._refused)
        prompt = body.get("prompt")
        each = max(integer(body, name, 1, MAX_CHOICES, default=1) for name in ("n", "n_cmpl"))
        return Prepared(
            document=body,
            model=string(body, "model"),
            stream=flag(body, "stream"),
            facts=RequestFacts((), "\n".join(filter(None, (*_around(body), prompt_text(prompt))))),
            stops=stops(body),
            choices=choices_of(prompts_of(prompt), each),
        )

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> "_Stream | None":
        return _Stream(self._result, prepared, exchange) if content_type == "text/event-stream" else None

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        results, listed = read_results(data, prepared.reported)
        kind = opening_kind(prepared)
        written: list[dict[str, Any]] = []
        for at, result in enumerate(results):
            index = result.get("index", at)
            if index != at or at >= prepared.choices or not isinstance(result.get("content"), str):
                raise invalid()
            lane = exchange.lane(at)
            copied = moderate(result, self._result, lane, lambda _: MarkerView(kind))
            if lane.cut:
                copied |= {**_CUT, "content": copied["content"] + CUT_NOTICE}
            written.append({**copied, "tokens": [], **_stopping_word(result, prepared)})
        return dumps(written if listed else written[0])

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps(error_object(kind, message))

    def reported(self, error: object, message: str) -> dict[str, object]:
        return OPENAI.upstream_error(error.get("error", error) if isinstance(error, dict) else None, message)


def _around(body: dict[str, Any]) -> list[str]:
    """The texts that are filled in between, and files beside them."""
    extra = [string(each, "text") for each in objects(body, "input_extra")]
    return [*extra, string(body, "input_suffix"), string(body, "input_prefix")]


def _stopping_word(result: dict[str, Any], prepared: Prepared) -> dict[str, str]:
    """The stop string that ended the text, if it is one of the request's."""
    word = result.get("stopping_word")
    return {"stopping_word": word if isinstance(word, str) and word in prepared.stops else ""}


class _Stream(RawStream):
    def __init__(self, shape: Shape, prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(ServerSentEvents(), prepared, exchange)
        self._shape = shape

    def take(self, name: str, document: dict[str, Any]) -> None:
        error = document.get("error")
        if error or name == "error":
            raise self.upstream_failed(Outgoing("", OPENAI.upstream_error(error, UPSTREAM_REPORTED)))
        if not isinstance(document.get("content"), str):
            raise invalid()
        index = self.choice(document)
        if self.is_over(index):
            return
        copied = self._shape.copy(document)
        for text in copied.texts:
            self.feed_text(index, text.text)
        if copied.root.get("stop") is True and self.finish(index):
            last = {**copied.root, "content": "", "tokens": []}
            self.write(Outgoing("", {**last, **_stopping_word(document, self.prepared)}))
            self._note_over()

    def _note_over(self) -> None:
        if self.all_over(range(self.prepared.choices)):
            self.complete()

    def delta(self, index: int) -> Outgoing:
        return Outgoing("", {"index": index, "content": HOLE, "tokens": [], "stop": False})

    def was_cut(self, lane: int) -> None:
        self.write(Outgoing("", {"index": lane, "content": CUT_NOTICE, "tokens": [], **_CUT, "stopping_word": ""}))
        self._note_over()

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return Outgoing("", error_object(kind, message))
