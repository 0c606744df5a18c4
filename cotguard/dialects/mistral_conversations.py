"""The dialect Mistral conversations: starting one, as server-sent events or as one document.

1. A response is a list of outputs: messages, calls of the client's functions, executions of tools at Mistral's and
   handoffs between agents. Their pieces come in events; the texts of one message, thoughts and answers, come as
   strings or as chunks and are joined by the client in the order of their arrival.
2. Calls of functions that the request did not declare are dropped; so are those that an agent was given elsewhere.
3. The arguments of an execution that begins with all of them are moderated as one document, others piece by piece.
   Names, references and what a tool reports are moderated whole.
4. ``conversation.response.done`` ends the response. There is no reason for a cut in it, so a notice says it in a
   message.
5. Nothing is stored: ``store`` is set to false, and what reads or continues a stored conversation is refused.

Source: API reference of ``POST /v1/conversations``; mistralai ``client/models/conversationevents.py``,
``extra/run/result.py`` (how pieces are joined).
"""

from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.channels import view_of
from cotguard.dialects.contract import CUT_NOTICE, UPSTREAM_REPORTED, ErrorKind, Incoming, Prepared, UpstreamFault
from cotguard.dialects.request import (
    flag,
    function_names,
    last_user_text,
    objects,
    read_body,
    string,
)
from cotguard.dialects.stream import EventStream, Fed, Outgoing, Written
from cotguard.dialects.table import HOLE, Document, Shape, Text
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import UNREADABLE, moderate, read_object
from cotguard.framing.contract import Event
from cotguard.framing.json import JSONError, dumps, loads
from cotguard.framing.sse import ServerSentEvents, is_done
from cotguard.moderation.exchange import Exchange

__all__ = ["MistralConversations"]


_SHAPES = {
    "conversation.response.started": "response",
    "conversation.response.done": "response",
    "message.output.delta": "message",
    "function.call.delta": "call",
    "tool.execution.started": "execution",
    "tool.execution.delta": "execution",
    "tool.execution.done": "execution",
    "agent.handoff.started": "handoff",
    "agent.handoff.done": "handoff",
}
_CHUNKS: Mapping[str, object] = {
    "string": HOLE,
    "text": {"type": "text", "text": HOLE},
    "thinking": {"type": "thinking", "thinking": [{"type": "text", "text": HOLE}]},
}
_WHOLE_CHUNKS = ("tool_reference", "tool_file")


class MistralConversations(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`."""

    file = "mistral_conversations.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self.shapes: Mapping[str, Shape] = {kind: self.table.shape(name) for kind, name in _SHAPES.items()}
        self._conversation = self.table.shape("conversation")
        self._error_types = self.table.names("errors", "types")

    def prepare(self, request: Incoming) -> Prepared:
        body = read_body(request.body)
        inputs = body.get("inputs")
        asked = inputs if isinstance(inputs, str) else last_user_text(objects(body, "inputs"))
        instructions = string(body, "instructions")
        return Prepared(
            document={**body, "store": False},
            model=string(body, "model"),
            stream=flag(body, "stream"),
            facts=RequestFacts((instructions,) if instructions else (), asked),
            tools=function_names(body),
            action=request.route.action,
        )

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> "_Stream | None":
        return _Stream(self, prepared, exchange) if content_type == "text/event-stream" else None

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        value, lane = read_object(data, prepared.reported), exchange.lane(0)
        outputs = value.get("outputs")
        if not isinstance(outputs, list):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, UNREADABLE)
        value["outputs"] = [each for each in outputs if _is_declared(each, prepared.tools)]
        written = moderate(value, self._conversation, lane)
        if lane.cut:
            notice = {"object": "entry", "type": "message.output", "role": "assistant", "content": CUT_NOTICE}
            written["outputs"].append(notice)
        return dumps({"usage": {}, **written})

    def error(self, kind: ErrorKind, message: str) -> bytes:
        family = "authentication_error" if kind is ErrorKind.UNAUTHENTICATED else kind.value
        return dumps({"object": "error", "message": message, "type": family, "param": None, "code": kind.value})

    def reported(self, error: object, message: str) -> dict[str, object]:
        kind = error.get("type") if isinstance(error, dict) else None
        known = kind if isinstance(kind, str) and kind in self._error_types else "upstream_error"
        return {"object": "error", "message": message, "type": known, "param": None, "code": None}


def _is_declared(output: object, tools: frozenset[str]) -> bool:
    """Whether an output is none of a function that was not declared."""
    if not isinstance(output, dict) or output.get("type") != "function.call":
        return True
    name = output.get("name")
    return isinstance(name, str) and name in tools


def _is_complete(text: str) -> bool:
    """Whether a text is a whole JSON document."""
    try:
        loads(text.encode("utf-8", "surrogatepass"))
    except JSONError:
        return False
    return True


class _Stream(EventStream):
    def __init__(self, dialect: MistralConversations, prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(ServerSentEvents(), prepared, exchange)
        self._dialect = dialect
        self._about: Mapping[str, Any] = {}  # the fields of the last thing that was written
        self._form = ""  # of its content, if it is a message
        self._thought = False
        self._told: set[Hashable] = set()  # executions whose arguments are all there

    def read(self, event: Event) -> dict[str, Any] | None:
        return None if is_done(event.data) else super().read(event)

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        kind = document.get("type")
        if not isinstance(kind, str) or name not in ("", kind):
            return None
        if kind == "conversation.response.error":
            code = document.get("code")
            known = code if type(code) is int and 400 <= code < 600 else 500
            raise self.upstream_failed(_error(UPSTREAM_REPORTED, known))
        shape = self._dialect.shapes.get(kind)
        if shape is None:
            return None
        copied = shape.copy(document)
        if kind == "message.output.delta":
            return self._take_message(kind, copied)
        if kind == "function.call.delta":
            return self._take_call(kind, copied)
        if kind == "conversation.response.done":
            if self.finish():
                self.write(_event(kind, {"usage": {}, **copied.root}))
                self.complete()
        elif kind.startswith("tool.execution."):
            return self._take_execution(kind, copied)
        elif self.whole(copied):
            self._mark(kind, copied.root)
        return None

    def _mark(self, kind: str, fields: Mapping[str, Any], form: str = "") -> None:
        self.mark(self._noted(fields, form, _event(kind, fields)))

    def _noted(self, about: Mapping[str, Any], form: str = "", event: Outgoing | None = None) -> Written:
        """``event``, or nothing; a cut that comes when it has been written knows what it follows."""
        return partial(self._note, about, form, event)

    def _note(self, about: Mapping[str, Any], form: str, event: Outgoing | None) -> Outgoing | None:
        self._about, self._form = about, form
        return event

    def _take_message(self, kind: str, copied: Document) -> Fed | None:
        content = copied.root.pop("content", None)
        if "id" not in copied.root:
            return None
        if isinstance(content, dict) and content.get("type") in _WHOLE_CHUNKS:
            copied.root["content"] = content
            if "tool" in content and self.whole(copied):
                self._mark(kind, copied.root, "text")
            return None
        fed = None
        for text in copied.texts:
            if text.channel == "other":
                continue
            form = "string" if len(text.path) == 1 else "thinking" if text.channel == "reasoning" else "text"
            key = self._message_channel(kind, form, copied.root)
            self.feed(key, text.text)
            fed = Fed(0, key, text.text, text.origin)
        return fed if len(copied.texts) == 1 else None

    def _message_channel(self, kind: str, form: str, about: dict[str, Any]) -> Hashable:
        key = (form, about.get("output_index", 0), about.get("content_index", 0))
        if not self.is_open(key):
            self._thought = self._thought or form == "thinking"
            model = "" if self._thought else self.prepared.model
            view = view_of("reasoning") if form == "thinking" else view_of("content", model)
            self.open(key, view, _event(kind, {**about, "content": _CHUNKS[form]}), self._noted(about, form))
        return key

    def _take_call(self, kind: str, copied: Document) -> Fed | None:
        about = copied.root
        if about.get("name") not in self.prepared.tools or not {"id", "tool_call_id"} <= about.keys():
            return None
        key = ("call", about.get("output_index", 0), about["tool_call_id"])
        if not self.is_open(key):
            # A call without arguments is a call too.
            head = None if copied.texts else _event(kind, {**about, "arguments": ""})
            delta = _event(kind, {**about, "arguments": HOLE})
            self.open(key, view_of("arguments"), delta, self._noted(about, event=head))
        return self._feed_arguments(key, copied.texts)

    def _feed_arguments(self, key: Hashable, found: list[Text]) -> Fed | None:
        for text in found:
            self.feed(key, text.text)
            return Fed(0, key, text.text, text.origin)
        return None

    def _take_execution(self, kind: str, copied: Document) -> Fed | None:
        about = copied.root
        if not {"id", "name"} <= about.keys():
            return None
        key = ("execution", about.get("output_index", 0), about["id"])
        arguments = [text for text in copied.texts if text.path == ("arguments",) and not text.structured]
        if kind == "tool.execution.done":
            self._told.add(key)
            about.pop("arguments", None)
            if self.whole(Document(about, [text for text in copied.texts if text.path == ("info",)])):
                if self.is_open(key):
                    self.close(key, _event(kind, about))
                else:
                    self._mark(kind, about)
            return None
        about.pop("info", None)
        if key in self._told:
            return None
        if not self.is_open(key):
            if kind == "tool.execution.started" and arguments and _is_complete(arguments[0].text):
                self._told.add(key)
                written = self.whole_text(arguments[0])
                if written is not None:
                    self._mark(kind, {**about, "arguments": written})
                return None
            head = _event(kind, {**about, "arguments": ""}) if kind == "tool.execution.started" else None
            delta = _event("tool.execution.delta", {**about, "arguments": HOLE})
            self.open(key, view_of("arguments"), delta, self._noted(about, event=head))
        return self._feed_arguments(key, arguments)

    def upstream_ended(self) -> None:
        raise UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, "The upstream ended the stream early.")

    def was_cut(self, lane: int) -> None:
        about = self._about
        if not self._form:
            about = {"id": "notice", "output_index": about.get("output_index", -1) + 1, "role": "assistant"}
        content = {"type": "text", "text": CUT_NOTICE} if self._form in ("text", "thinking") else CUT_NOTICE
        self.write(_event("message.output.delta", {**about, "content": content}))
        self.write(_event("conversation.response.done", {"usage": {}}))
        self.complete()

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return _error(message, 500)


def _event(kind: str, fields: Mapping[str, Any]) -> Outgoing:
    return Outgoing(kind, {"type": kind, **fields})


def _error(message: str, code: int) -> Outgoing:
    return _event("conversation.response.error", {"message": message, "code": code})
