"""The dialect Cohere v2: ``/v2/chat``, as server-sent events or as one document.

1. A response is planning text, content blocks (thinking or text), tool calls and citations. The plan is reasoning.
2. Blocks and calls begin and end by events of their own, under indexes that are numbered anew here, in the order of
   their beginnings, so that what is dropped leaves no gap. A piece of a block that was not begun begins one.
3. Calls of tools that the request did not declare are dropped.
4. A citation repeats a stretch of a block. It is written behind that block's text, and only if the stretch says there
   what the upstream says it does: where a redaction moved or altered the text, the citation is dropped. The sources in
   it are moderated as values.
5. ``message-end`` ends the response. There is no reason for a cut in it, so a notice says it in a text block.

Limit: stretches are counted in code points, as Python does.

Source: API reference of ``POST /v2/chat``; cohere-python ``v2/types/v2chat_stream_response.py``.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, TypeGuard

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.channels import view_of
from cotguard.dialects.contract import CUT_NOTICE, UPSTREAM_REPORTED, ErrorKind, Incoming, Prepared, UpstreamFault
from cotguard.dialects.declared import keep_declared, tool_name
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
from cotguard.dialects.table import HOLE, Document, Text
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import moderate, read_object
from cotguard.framing.contract import Event
from cotguard.framing.json import dumps
from cotguard.framing.sse import ServerSentEvents, is_done
from cotguard.moderation.exchange import Exchange

__all__ = ["Cohere"]


_CHANNELS = {"text": "content", "thinking": "reasoning"}
_MEMBERS = {
    "content-start": "content",
    "content-delta": "content",
    "tool-plan-delta": "tool_plan",
    "tool-call-start": "tool_calls",
    "tool-call-delta": "tool_calls",
    "citation-start": "citations",
}
"""Events that bring something, and which member of the message it is."""

_Key = tuple[str, int]
_PLAN: _Key = ("plan", 0)


class Cohere(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`."""

    file = "cohere.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self.event = self.table.shape("event")
        self._chat = self.table.shape("chat")
        self._stripped = self.table.names("request", "strip")
        self._refused = self.table.names("request", "refuse")

    def prepare(self, request: Incoming) -> Prepared:
        body = without(read_body(request.body), self._stripped, self._refused)
        messages = objects(body, "messages")
        system = system_texts(messages)
        return Prepared(
            document=body,
            model=string(body, "model"),
            stream=flag(body, "stream"),
            facts=RequestFacts(tuple(system), last_user_text(messages)),
            tools=function_names(body),
            action=request.route.action,
        )

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> "_Stream | None":
        return _Stream(self, prepared, exchange) if content_type == "text/event-stream" else None

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        value, lane = read_object(data, prepared.reported), exchange.lane(0)
        message = value.get("message")
        if not isinstance(message, dict):
            raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)
        keep_declared(message, prepared.tools)
        written = moderate(value, self._chat, lane)
        said = written["message"]
        if "citations" in said:
            said["citations"] = list(_kept(message, said))
        if lane.cut:
            said["content"] = [*(said.get("content") or ()), {"type": "text", "text": CUT_NOTICE}]
            written["finish_reason"] = "COMPLETE"
        return dumps(written)

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps({"message": message, "code": kind.value})

    def reported(self, error: object, message: str) -> dict[str, object]:
        return {"message": message}


def _has_channel(block: object) -> TypeGuard[dict[str, Any]]:
    kind = block.get("type") if isinstance(block, dict) else None
    return isinstance(kind, str) and kind in _CHANNELS


def _kept(message: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The citations of a whole response that hold for what is ``said`` of the upstream's ``message``."""
    blocks = said.get("content") or []
    sent = [each for each in message.get("content") or () if isinstance(each, dict)]
    places = [at for at, each in enumerate(sent) if _has_channel(each)]
    written = dict(zip(places, range(len(blocks)), strict=False))  # a cut leaves fewer
    for sent_citation, citation in zip(message["citations"], said["citations"], strict=False):
        if citation.get("type") == "PLAN":
            text = said.get("tool_plan") or ""
        else:
            last = max((at for at in places if sent[at]["type"] == "text"), default=-1)
            place = written.get(citation.get("content_index", last), -1)
            if place < 0:
                continue
            block = blocks[place]
            text = block.get(block["type"]) or ""
            if "content_index" in citation:
                citation["content_index"] = place
        if _says(text, citation, sent_citation.get("text")):
            yield {**citation, "text": sent_citation["text"]}


def _says(text: str, citation: Mapping[str, Any], cited: object) -> bool:
    """Whether the stretch of a text that a citation names is ``cited``."""
    start, end = citation.get("start"), citation.get("end")
    return type(start) is int and type(end) is int and 0 <= start < end and text[start:end] == cited


class _Stream(EventStream):
    def __init__(self, dialect: Cohere, prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(ServerSentEvents(), prepared, exchange, repeats=True)
        self._dialect = dialect
        self._started = False
        self._opened = 0  # content blocks
        self._begun_blocks = 0  # those that were written
        self._contents: dict[int, _Key] = {}  # by the upstream's index; those that have ended too, for citations
        self._ended: set[_Key] = set()
        self._opened_calls = 0
        self._calls: dict[int, _Key] = {}
        self._cited: dict[int, int] = {}  # citations that began: the upstream's index and ours
        self._citations = 0

    def read(self, event: Event) -> dict[str, Any] | None:
        return None if is_done(event.data) else super().read(event)

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        kind = document.get("type")
        if not isinstance(kind, str) or name not in ("", kind):
            return None
        if kind == "message-start":
            self._start(document)
            return None
        member = _MEMBERS.get(kind)
        if member is None:
            self._take_end(kind, document)
            return None
        copied = self._dialect.event.copy(document)
        index = copied.root.get("index", 0)
        held = [text for text in copied.texts if text.path[2] == member]
        if kind == "citation-start":
            self._cite(index, Document(copied.root, held), document)
            return None
        if kind == "content-start":
            self._end_block(index)
            block = _message(document).get("content")
            if _has_channel(block):
                self._block(index, block["type"])
        elif kind == "tool-call-start":
            self._start_call(index, _message(copied.root).get("tool_calls"))
        fed = None
        for text in held:
            fed = self._feed_text(index, text) or fed
        return fed if len(held) == 1 and kind.endswith("-delta") else None

    def _take_end(self, kind: str, document: dict[str, Any]) -> None:
        """Take an event that ends something, or one that is not known."""
        copied = self._dialect.event.copy({name: each for name, each in document.items() if name != "delta"})
        index = copied.root.get("index", 0)
        if kind == "content-end":
            self._end_block(index)
        elif kind == "tool-call-end":
            self._end_call(index)
        elif kind == "citation-end":
            self.mark(partial(self._citation_end, index))
        elif kind == "message-end":
            self._finish(document)

    def _start(self, document: dict[str, Any]) -> None:
        if not self._started:
            self._started = True
            identity = self._dialect.event.copy({"id": document.get("id")}).root
            empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
            self.mark(Outgoing("message-start", {**identity, "type": "message-start", "delta": {"message": empty}}))

    def _feed_text(self, index: int, text: Text) -> Fed | None:
        if text.path[2] == "tool_plan":
            key = _PLAN
            if not self.is_open(key):
                self.open(key, view_of("reasoning"), _event("tool-plan-delta", None, tool_plan=HOLE))
        elif text.path[2] == "tool_calls":
            if index not in self._calls:
                return None
            key = self._calls[index]
        else:
            key = self._block(index, str(text.path[3]))
        self.feed(key, text.text)
        return Fed(0, key, text.text, text.origin)

    def _block(self, index: int, kind: str) -> _Key:
        """The block that a piece of ``kind`` belongs to: the one under way, or a new one."""
        key = self._contents.get(index)
        if key is None or key in self._ended or key[0] != kind:
            self._end_block(index)
            key = self._contents[index] = (kind, self._opened)
            self._opened += 1
            delta = _event("content-delta", key[1], content={kind: HOLE})
            self.open(key, view_of(_CHANNELS[kind]), delta, partial(self._begin_block, key))
        return key

    def _begin_block(self, key: _Key) -> Outgoing:
        self._begun_blocks += 1
        return _event("content-start", key[1], content={"type": key[0], key[0]: ""})

    def _end_block(self, index: int) -> None:
        key = self._contents.get(index)
        if key is not None and key not in self._ended:
            self._ended.add(key)
            self.close(key, Outgoing("content-end", {"type": "content-end", "index": key[1]}))

    def _start_call(self, index: int, call: Mapping[str, Any] | None) -> None:
        self._end_call(index)
        name = tool_name(call)
        if call is not None and name in self.prepared.tools:
            key = self._calls[index] = ("call", self._opened_calls)
            self._opened_calls += 1
            about = {each: call[each] for each in ("id", "type") if each in call}
            head = _event("tool-call-start", key[1], tool_calls={**about, "function": {"name": name, "arguments": ""}})
            delta = _event("tool-call-delta", key[1], tool_calls={"function": {"arguments": HOLE}})
            self.open(key, view_of("arguments"), delta, head)

    def _end_call(self, index: int) -> None:
        key = self._calls.pop(index, None)
        if key is not None:
            self.close(key, Outgoing("tool-call-end", {"type": "tool-call-end", "index": key[1]}))

    def _cite(self, index: int, copied: Document, document: Mapping[str, Any]) -> None:
        citation = _message(copied.root).get("citations")
        cited = _message(document).get("citations")
        if isinstance(citation, dict) and isinstance(cited, dict) and self.whole(copied):
            key: _Key | None = _PLAN
            if citation.get("type") != "PLAN":
                at = citation.get("content_index")
                told = [each for each in self._contents.values() if each[0] == "text"]
                key = (told[-1] if told else None) if at is None else self._contents.get(at)
            if key is not None:
                self.mark(partial(self._citation_start, index, key, citation, cited.get("text")))

    def _citation_start(self, index: int, key: _Key, citation: dict[str, Any], cited: object) -> Outgoing | None:
        if not _says(self.said(key), citation, cited):
            return None
        if "content_index" in citation:
            citation["content_index"] = key[1]
        number = self._cited[index] = self._citations
        self._citations += 1
        return _event("citation-start", number, citations={**citation, "text": cited})

    def _citation_end(self, index: int) -> Outgoing | None:
        number = self._cited.pop(index, None)
        return None if number is None else Outgoing("citation-end", {"type": "citation-end", "index": number})

    def _finish(self, document: dict[str, Any]) -> None:
        delta = self._dialect.event.copy({"delta": document.get("delta")}).root.get("delta") or {}
        end = {name: delta[name] for name in ("finish_reason", "usage") if name in delta}
        sent = document.get("delta")
        if end.get("finish_reason") == "ERROR" or (isinstance(sent, dict) and sent.get("error")):
            raise self.upstream_failed(_end({**end, "error": UPSTREAM_REPORTED, "finish_reason": "ERROR"}))
        for index in list(self._contents):
            self._end_block(index)
        for index in list(self._calls):
            self._end_call(index)
        if self.finish():
            self.write(_end({"finish_reason": "COMPLETE", **end}))
            self.complete()

    def upstream_ended(self) -> None:
        raise UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, "The upstream ended the stream early.")

    def was_cut(self, lane: int) -> None:
        blocks = [each for each in self.begun if isinstance(each, tuple) and each[0] in _CHANNELS]
        number = next((each[1] for each in reversed(blocks) if each[0] == "text"), None)
        if number is None:
            number = self._begun_blocks
            self.write(_event("content-start", number, content={"type": "text", "text": ""}))
            blocks.append(("text", number))
        self.write(_event("content-delta", number, content={"text": CUT_NOTICE}))
        for each in blocks:
            self.write(Outgoing("content-end", {"type": "content-end", "index": each[1]}))
        self.write(_end({"finish_reason": "COMPLETE"}))
        self.complete()

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return _end({"finish_reason": "ERROR", "error": message})


def _message(document: Mapping[str, Any]) -> dict[str, Any]:
    """The ``delta.message`` of an event."""
    delta = document.get("delta")
    message = delta.get("message") if isinstance(delta, dict) else None
    return message if isinstance(message, dict) else {}


def _event(kind: str, index: int | None, **member: object) -> Outgoing:
    at = {} if index is None else {"index": index}
    return Outgoing(kind, {"type": kind, **at, "delta": {"message": member}})


def _end(delta: dict[str, Any]) -> Outgoing:
    return Outgoing("message-end", {"type": "message-end", "delta": delta})
