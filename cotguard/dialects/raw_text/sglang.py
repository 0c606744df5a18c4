"""The form of SGLang's own route, ``/generate``.

1. An event of a stream holds a text of one choice. It is *all of the text so far*, unless the server was started with
   ``--incremental-streaming-output``: then it is the next piece. Nothing in an event says which.
2. A choice's second event tells: where the whole text is repeated it begins with the first one's text, and so does
   every later one. What does not is the next piece, or a fault once texts are known to be repeated. It is a fault too
   where the token ids beside it are all there are: then the text was one of those that repeat, and has changed.
3. Events are written the way they come: where they repeat the text, with all of it as it was delivered so far.
4. A choice that comes in a single event is written in one, which is right either way.
5. A block ends a choice with the reason ``abort`` and a notice for its message.

Known limits: where an incremental stream's second piece begins with all of its first (``ha``, ``haha``), the stream is
taken for one that repeats and ends in a fault at the next piece. Numbers are in the last event of a choice only.

Source: ``python/sglang/srt/managers/io_struct.py`` and ``tokenizer_manager.py`` of sgl-project/sglang.
"""

from collections.abc import Hashable
from typing import Any

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.chat.request import MAX_CHOICES
from cotguard.dialects.contract import CUT_NOTICE, UPSTREAM_REPORTED, ErrorKind, Prepared
from cotguard.dialects.raw_text.stream import RawStream, choices_of, invalid, opening_kind, prompt_text, prompts_of
from cotguard.dialects.request import bad, flag, integer, stops, string, without
from cotguard.dialects.stream import Outgoing
from cotguard.dialects.table import HOLE, Table
from cotguard.dialects.whole import moderate
from cotguard.framing.sse import DoneEvents
from cotguard.moderation.exchange import Exchange, Lane
from cotguard.moderation.markers import MarkerView
from cotguard.spans import ChannelKind

__all__ = ["Sglang", "SglangStream"]

_ABORT = {"type": "abort", "message": CUT_NOTICE}
_NOTHING: frozenset[str] = frozenset()


class Sglang:
    """Requests and whole responses of the form."""

    name = "sglang"

    def __init__(self, table: Table) -> None:
        self._shape = table.shape("sglang")
        self._stripped = table.names("sglang_request", "strip")
        self._refused = table.names("sglang_request", "refuse")
        self._sampling = table.names("sglang_request", "sampling")

    def prepare(self, body: dict[str, Any]) -> Prepared:
        sent = without(body, self._stripped, self._refused)
        prompt = sent.get("text") if sent.get("text") is not None else sent.get("input_ids")
        sampling = sent.get("sampling_params")
        listed = sampling if isinstance(sampling, list) else [{} if sampling is None else sampling]
        if not all(isinstance(each, dict) for each in listed):
            raise bad("The field 'sampling_params' must be an object, or an array of them.")
        kept = [without(each, self._sampling, _NOTHING) for each in listed]
        if sampling is not None:
            sent["sampling_params"] = kept if isinstance(sampling, list) else kept[0]
        each = max((integer(each, "n", 1, MAX_CHOICES, default=1) for each in kept), default=1)
        return Prepared(
            document=sent,
            model=string(sent, "model"),
            stream=flag(sent, "stream"),
            facts=RequestFacts((), prompt_text(prompt)),
            stops=_NOTHING.union(*map(stops, kept)),
            choices=choices_of(prompts_of(prompt), each),
            action=self.name,
        )

    def stream(self, prepared: Prepared, exchange: Exchange) -> "SglangStream":
        return SglangStream(self, prepared, exchange)

    def results(self, results: list[dict[str, Any]], prepared: Prepared, exchange: Exchange) -> list[dict[str, Any]]:
        if len(results) > prepared.choices:
            raise invalid()
        kind = opening_kind(prepared)
        return [self.result(each, exchange.lane(at), kind, prepared) for at, each in enumerate(results)]

    def result(self, document: dict[str, Any], lane: Lane, kind: ChannelKind, prepared: Prepared) -> dict[str, Any]:
        """A choice that comes whole, moderated."""
        self.check(document)
        written = moderate(document, self._shape, lane, lambda _: MarkerView(kind))
        return self.ended(document, written, written["text"], prepared, cut=lane.cut)

    def check(self, document: dict[str, Any]) -> None:
        """Raises :class:`~cotguard.dialects.contract.UpstreamFault` for what is not of the form."""
        if not isinstance(document.get("text"), str) or not isinstance(document.get("meta_info"), dict):
            raise invalid()

    def copy(self, document: dict[str, Any]) -> dict[str, Any]:
        """What the table lets through, without its text."""
        return self._shape.copy(document).root

    def ended(
        self, document: dict[str, Any], copied: dict[str, Any], text: str, prepared: Prepared, *, cut: bool
    ) -> dict[str, Any]:
        """The last event of a choice, or a whole result: ``copied`` with ``text``, and why it ended."""
        reason = document["meta_info"].get("finish_reason")
        written = {"type": "stop", **(copied["meta_info"].get("finish_reason") or {})}
        matched = reason.get("matched") if isinstance(reason, dict) else None
        if isinstance(matched, str) and matched in prepared.stops:
            written["matched"] = matched
        return {
            **copied,
            "text": text,
            "meta_info": {**copied["meta_info"], "finish_reason": _ABORT if cut else written},
        }

    def reported(self, message: str) -> dict[str, object]:
        """The upstream's error document with ``message`` for its text."""
        return {"error": {"message": message}}


class SglangStream(RawStream):
    """A :class:`~cotguard.dialects.contract.Translator`."""

    def __init__(self, form: Sglang, prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(DoneEvents(), prepared, exchange, repeats=True)
        self._form = form
        self._repeating: bool | None = None  # whether events repeat the text; None: not known yet
        self._received: dict[int, str] = {}  # texts as far as they came, where events repeat them; else the first
        self._heads: dict[int, dict[str, Any]] = {}  # what is the same in all events of a choice

    def take(self, name: str, document: dict[str, Any]) -> None:
        if document.get("error") or name == "error":
            raise self.upstream_failed(Outgoing("", self._form.reported(UPSTREAM_REPORTED)))
        self._form.check(document)
        index = self.choice(document, 0 if self.prepared.choices == 1 else None)
        if self.is_over(index):
            return
        copied = self._form.copy(document)
        self._note_head(index, copied)
        over = document["meta_info"].get("finish_reason") is not None
        if over and index not in self._received:
            self._write_only(index, document)
            return
        piece = self._piece(index, document, over=over)
        if piece:
            self.feed_text(index, piece)
        if over and self.finish(index):
            text = self.said(index) if self._repeating else ""
            self.write(Outgoing("", self._form.ended(document, copied, text, self.prepared, cut=False)))

    def _note_head(self, index: int, copied: dict[str, Any]) -> None:
        if index not in self._heads:
            meta = {name: value for name, value in copied["meta_info"].items() if name in ("id", "prompt_tokens")}
            self._heads[index] = {**copied, "meta_info": meta}

    def _write_only(self, index: int, document: dict[str, Any]) -> None:
        """A choice's first event with text is its last."""
        lane = self._exchange.lane(index)
        written = self._form.result(document, lane, self.kind, self.prepared)
        self._over.add(index)
        self.write(Outgoing("", written))
        if lane.cut:
            self._note_over()

    def _piece(self, index: int, document: dict[str, Any], *, over: bool) -> str:
        """What an event adds to its choice's text."""
        text: str = document["text"]
        received = self._received.get(index)
        if received is None:
            if text:
                self._received[index] = text
            return text
        if not text and over:
            return ""  # an abort does not repeat the text, and says nothing of how others come
        if self._repeating is None:
            self._repeating = text.startswith(received) or _repeats_ids(document)
        if not self._repeating:
            return text
        if not text.startswith(received):
            raise invalid("The upstream changed a text that it had sent.")
        self._received[index] = text
        return text[len(received) :]

    def written(self, key: Hashable, text: str) -> str:
        return self.said(key) + text if self._repeating else text

    def delta(self, index: int) -> Outgoing:
        head = self._heads[index]
        return Outgoing("", {**head, "text": HOLE, "meta_info": {**head["meta_info"], "finish_reason": None}})

    def was_cut(self, lane: int) -> None:
        head = self._heads[lane]
        text = "" if self._repeating is False else self.said(lane)  # by default a server repeats
        self.write(Outgoing("", {**head, "text": text, "meta_info": {**head["meta_info"], "finish_reason": _ABORT}}))
        self._note_over()

    def _note_over(self) -> None:
        if self.all_over(range(self.prepared.choices)):
            self.complete()

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return Outgoing("", {"error": {"message": message, "code": kind.value}})


def _repeats_ids(document: dict[str, Any]) -> bool:
    """Whether an event that is not the first holds the ids of all tokens so far."""
    ids, tokens = document.get("output_ids"), document["meta_info"].get("completion_tokens")
    return isinstance(ids, list) and len(ids) == tokens
