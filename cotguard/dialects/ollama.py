"""The dialect Ollama native: ``/api/chat`` and ``/api/generate``, as lines of JSON or as one document.

1. Every line holds the next piece of the thinking or of the answer; both are strings beside each other.
2. Tool calls come whole, their arguments as an object. Calls of tools that the request did not declare are dropped.
3. A line with ``done`` ends the response. There is no reason for a cut in it, so a notice says it in the answer.

Source: ollama/ollama ``api/types.go`` and ``server/routes.go``.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.channels import KINDS, view_of
from cotguard.dialects.contract import CUT_NOTICE, UPSTREAM_REPORTED, ErrorKind, Incoming, Prepared, UpstreamFault
from cotguard.dialects.declared import keep_declared
from cotguard.dialects.request import (
    flag,
    function_names,
    last_user_text,
    objects,
    read_body,
    string,
    system_texts,
    without,
)
from cotguard.dialects.stream import EventStream, Fed, Outgoing
from cotguard.dialects.table import HOLE, Document, Shape, Text
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import moderate, read_object
from cotguard.framing.json import dumps
from cotguard.framing.ndjson import NDJSON
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import View
from cotguard.spans import ChannelKind

__all__ = ["Ollama"]


_STREAMED = "application/x-ndjson"


class _Form(NamedTuple):
    """How one route writes a response. ``within``: the object that holds the texts; empty for the top level."""

    shape: Shape
    within: str
    answer: str

    def holder(self, document: dict[str, Any]) -> dict[str, Any]:
        """The object of a document that holds the texts."""
        held = document.get(self.within) if self.within else document
        return held if isinstance(held, dict) else {}

    def around(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A document with these fields where the texts are."""
        return (
            {self.within: {"role": "assistant", self.answer: "", **fields}}
            if self.within
            else {self.answer: "", **fields}
        )


class Ollama(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`."""

    file = "ollama.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self._forms: Mapping[str, _Form] = {
            "chat": _Form(self.table.shape("chat"), "message", "content"),
            "generate": _Form(self.table.shape("generate"), "", "response"),
        }
        self._stripped = self.table.names("request", "strip")
        self._refused = self.table.names("request", "refuse")

    def prepare(self, request: Incoming) -> Prepared:
        body = without(read_body(request.body), self._stripped, self._refused)
        messages = objects(body, "messages")
        system = [string(body, "system")] if body.get("system") else []
        system += system_texts(messages)
        user = last_user_text(messages, default=string(body, "prompt"))
        return Prepared(
            document=body,
            model=string(body, "model"),
            stream=flag(body, "stream", default=True),
            facts=RequestFacts(tuple(system), user),
            tools=function_names(body),
            action=request.route.action,
        )

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> "_Stream | None":
        if content_type != _STREAMED:
            return None
        return _Stream(self, self._forms[prepared.action], prepared, exchange)

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        value, form, lane = read_object(data, prepared.reported), self._forms[prepared.action], exchange.lane(0)
        if value.get("error"):
            raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)
        keep_declared(form.holder(value), prepared.tools)
        written = moderate(value, form.shape, lane, lambda text: _view(text.channel, form.holder(value), prepared))
        if lane.cut:
            holder = form.holder(written)
            holder[form.answer] = (holder.get(form.answer) or "") + CUT_NOTICE
        return dumps(written)

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps({"error": message, "code": kind.value})

    def reported(self, error: object, message: str) -> dict[str, object]:
        return {"error": message}


def _view(channel: str, holder: Mapping[str, Any], prepared: Prepared) -> View:
    """Where the server splits the thinking off, a model's usual opening inside a thought does not apply."""
    return view_of(channel, "" if holder.get("thinking") else prepared.model)


class _Stream(EventStream):
    def __init__(self, dialect: Ollama, form: _Form, prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(NDJSON(), prepared, exchange)
        self._dialect = dialect
        self._form = form
        self._first: dict[str, Any] = {}

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        form = self._form
        if document.get("error"):
            raise self.upstream_failed(Outgoing("", self._dialect.reported(document, UPSTREAM_REPORTED)))
        keep_declared(form.holder(document), self.prepared.tools)
        copied = form.shape.copy(document)
        self._first = self._first or {
            each: copied.root[each] for each in ("model", "created_at") if each in copied.root
        }
        prose = [text for text in copied.texts if KINDS[text.channel] is not ChannelKind.TOOL_CALL]
        calls = [text for text in copied.texts if KINDS[text.channel] is ChannelKind.TOOL_CALL]
        for text in prose:
            self._feed_text(text, form.holder(document))
        if calls:
            self._write_calls(copied, calls)
        if copied.root.get("done") is True:
            if self.finish():
                self._write_done({name: value for name, value in copied.root.items() if name != form.within}, "")
            return None
        return (
            Fed(0, prose[0].channel, prose[0].text, prose[0].origin) if len(copied.texts) == len(prose) == 1 else None
        )

    def _feed_text(self, text: Text, holder: Mapping[str, Any]) -> None:
        key = text.channel
        if not self.is_open(key):
            split = {"thinking": True} if self.is_open("reasoning") else holder
            self.open(key, _view(key, split, self.prepared), self._line({str(text.path[-1]): HOLE}))
        self.feed(key, text.text)

    def _write_calls(self, copied: Document, calls: list[Text]) -> None:
        if self.whole(Document(copied.root, calls)):
            self.mark(self._line({"tool_calls": self._form.holder(copied.root)["tool_calls"]}))

    def _line(self, fields: dict[str, Any]) -> Outgoing:
        return Outgoing("", {**self._first, **self._form.around(fields), "done": False})

    def _write_done(self, last: dict[str, Any], notice: str) -> None:
        texts = ("thinking", self._form.answer, "tool_calls")
        rest = {name: value for name, value in last.items() if name not in texts}
        self.write(
            Outgoing("", {**self._first, **rest, **self._form.around({self._form.answer: notice}), "done": True})
        )
        self.complete()

    def upstream_ended(self) -> None:
        raise UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, "The upstream ended the stream early.")

    def was_cut(self, lane: int) -> None:
        self._write_done({"done_reason": "stop"}, CUT_NOTICE)

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return Outgoing("", {"error": message, "code": kind.value})
