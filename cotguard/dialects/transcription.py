"""The dialect OpenAI audio transcriptions: speech as text or as its translation, as events or as one document.

1. The request is a form. Its fields are checked against the table's lists; the file's bytes pass as they are. Formats
   that are not JSON (text, srt, vtt) are refused.
2. A streamed response is pieces of one text; ``transcript.text.done`` repeats it as it was delivered.
3. Segments repeat stretches of the text with their times. They are moderated on their own, and what one then says is
   written only if it stands in the delivered text, behind the segment before it; else the segment is left without text,
   or, in a stream, left out. A speaker is a letter or a name that the request gave.
4. There is no reason for a cut in a response, so a notice says it in the text.

Source: OpenAI API reference, *Create transcription*; openai-python ``types/audio/transcription_*.py``.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.channels import KINDS, view_of
from cotguard.dialects.chat.format import Format, error_object
from cotguard.dialects.contract import (
    CUT_NOTICE,
    UPSTREAM_REPORTED,
    ErrorKind,
    Incoming,
    Prepared,
    Refused,
    UpstreamFault,
)
from cotguard.dialects.request import bad
from cotguard.dialects.stream import EventStream, Fed, Outgoing
from cotguard.dialects.table import HOLE, Table, Text
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import moderate, read_object
from cotguard.framing.contract import Event
from cotguard.framing.json import dumps
from cotguard.framing.sse import ServerSentEvents, is_done
from cotguard.moderation.exchange import Exchange

__all__ = ["Transcription"]


_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_TEXT = "text"
_DELTA = "transcript.text.delta"
_DONE = "transcript.text.done"
_SEGMENT = "transcript.text.segment"


class Transcription(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`."""

    file = "transcription.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self.text = self.table.shape("text")
        self.delta = self.table.shape("delta")
        self.segment = self.table.shape("segment")
        self._segments = self.table.shape("segments")
        self._single = self.table.names("request", "single")
        self._repeated = self.table.names("request", "repeated")
        self._stripped = self.table.names("request", "strip")
        self._formats = self.table.names("request", "formats")
        self._errors = Format(
            Table.load("chat/chat_completions.yaml", tuple(KINDS))
        )  # errors are those of Chat Completions

    def prepare(self, request: Incoming) -> Prepared:
        if request.file is None:
            raise bad("The form has no file.")
        fields = [(name, value) for name, value in request.fields if _plain(name) not in self._stripped]
        for name, times in Counter(name for name, _ in fields).items():
            if name not in self._single and _plain(name) not in self._repeated:
                raise Refused(400, ErrorKind.UNSUPPORTED, "The form has a field that is not supported here.")
            if times > 1 and name in self._single:
                raise bad(f"The field '{name}' is there more than once.")
        given = dict(fields)
        if given.get("response_format", "json") not in self._formats:
            known = ", ".join(sorted(self._formats))
            raise Refused(400, ErrorKind.UNSUPPORTED, f"Response formats that are moderated: {known}.")
        stream = _FLAGS.get(given.get("stream", "false").lower())
        if stream is None:
            raise bad("The field 'stream' must be true or false.")
        return Prepared(
            document={},
            model=given.get("model", ""),
            stream=stream,
            facts=RequestFacts((), given.get("prompt", "")),
            action=request.route.action,
            fields=[each for each in fields if not _asks_for_words(*each)],
            file=request.file,
        )

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> "_Stream | None":
        return _Stream(self, prepared, exchange) if content_type == "text/event-stream" else None

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        value, lane = read_object(data, prepared.reported), exchange.lane(0)
        if value.get("error") or "text" not in value:
            raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)
        written = moderate(value, self.text, lane)
        if lane.cut:
            written["text"] += CUT_NOTICE
        elif isinstance(value.get("segments"), list):
            sent = moderate({"segments": value["segments"]}, self._segments, exchange.lane(1))
            _keep_said(sent["segments"], written["text"] or "", prepared)
            written |= sent
        return dumps(written)

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps(error_object(kind, message))

    def reported(self, error: object, message: str) -> dict[str, object]:
        sent = error.get("error") if isinstance(error, dict) else None
        return self._errors.upstream_error(sent, message)


def _plain(name: str) -> str:
    """The name of a field that may be repeated, without its brackets."""
    return name.removesuffix("[]")


def _asks_for_words(name: str, value: str) -> bool:
    return _plain(name) == "timestamp_granularities" and value == "word"


def _keep_said(segments: list[dict[str, Any]], said: str, prepared: Prepared) -> None:
    """Leave to segments what was ``said``, in its order."""
    at = 0
    for segment in segments:
        _keep_speaker(segment, prepared)
        text = segment.get("text") or ""
        found = said.find(text.strip(), at)
        if found < 0:
            segment["text"] = ""
        else:
            at = found + len(text.strip())


def _keep_speaker(segment: dict[str, Any], prepared: Prepared) -> None:
    """Drop a speaker who is not a letter or a name of the request's."""
    speaker = segment.pop("speaker", None)
    names = {value for name, value in prepared.fields or () if _plain(name) == "known_speaker_names"}
    if speaker in _LETTERS or speaker in names:
        segment["speaker"] = speaker


class _Stream(EventStream):
    def __init__(self, dialect: Transcription, prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(ServerSentEvents(), prepared, exchange, repeats=True)
        self._dialect = dialect

    def read(self, event: Event) -> dict[str, Any] | None:
        return None if is_done(event.data) else super().read(event)

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        if document.get("error"):
            raise self.upstream_failed(Outgoing("", self._dialect.reported(document, UPSTREAM_REPORTED)))
        kind = document.get("type")
        if name not in ("", kind):
            return None
        if kind == _DELTA:
            copied = self._dialect.delta.copy(document)
            for text in copied.texts:
                self._feed_text(text)
                return Fed(0, _TEXT, text.text, text.origin)
        elif kind == _SEGMENT:
            segment = self._dialect.segment.copy(document)
            written = [self.whole_text(text) for text in segment.texts]
            if None not in written:
                self.mark(partial(self._segment, segment.root, "".join(map(str, written))))
        elif kind == _DONE:
            self._finish(document)
        return None

    def _feed_text(self, text: Text) -> None:
        if not self.is_open(_TEXT):
            self.open(_TEXT, view_of(text.channel), _delta(HOLE))
        self.feed(_TEXT, text.text)

    def _segment(self, segment: dict[str, Any], text: str) -> Outgoing | None:
        if text.strip() not in self.said(_TEXT):
            return None
        _keep_speaker(segment, self.prepared)
        return Outgoing("", {"type": _SEGMENT, **segment, "text": text})

    def _finish(self, document: Mapping[str, Any]) -> None:
        copied = self._dialect.text.copy(document)
        if not self.is_open(_TEXT):
            for text in copied.texts:
                self._feed_text(text)
        if self.finish():
            said = self.said(_TEXT)
            trimmed = all(text.text == text.text.strip() for text in copied.texts)
            self.write(Outgoing("", {**copied.root, "type": _DONE, "text": said.strip() if trimmed else said}))
            self.complete()

    def upstream_ended(self) -> None:
        raise UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, "The upstream ended the stream early.")

    def was_cut(self, lane: int) -> None:
        self.write(_delta(CUT_NOTICE))
        self.write(Outgoing("", {"type": _DONE, "text": self.said(_TEXT) + CUT_NOTICE}))
        self.complete()

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return Outgoing("", error_object(kind, message))


def _delta(text: str) -> Outgoing:
    return Outgoing("", {"type": _DELTA, "delta": text})
