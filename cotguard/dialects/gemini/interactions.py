"""The dialect Gemini Interactions: ``POST /v1beta/interactions``, a stream of events or one document.

1. An interaction is a list of steps. In a stream each begins, brings deltas and stops. Thoughts, the model's output and
   function calls have a channel each. Code that was run and its output are written when their step stops, as a whole.
2. Steps of other types, and calls of functions that were not declared, are dropped; the steps' indexes are made dense.
   In a whole response the texts of a step are one text.
3. A policy block stops the step it is in, unless that is a function call, and completes the interaction with the status
   ``incomplete``.
4. Interactions are never stored upstream: what is read there later is not moderated. So none can go on from another;
   clients send the history instead. Signatures of thoughts are sealed (:mod:`cotguard.dialects.gemini.sealed_steps`).

Sources: google-genai ``types/interactions`` and ``interactions.py`` (revision 2026-05-20); recordings.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.channels import view_of
from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Incoming, Prepared, Refused, UpstreamFault
from cotguard.dialects.gemini.sealed_steps import THOUGHT, restore, seal, seal_steps, signature_of
from cotguard.dialects.request import bad, flag, objects, read_body, string, texts, without
from cotguard.dialects.stream import EventStream, Fed, Outgoing, Written
from cotguard.dialects.table import HOLE, Shape, Text
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import moderate, read_object
from cotguard.framing.contract import Event
from cotguard.framing.json import dumps
from cotguard.framing.sse import ServerSentEvents, is_done
from cotguard.moderation.exchange import Exchange

__all__ = ["MAX_CODE", "Interactions"]

MAX_CODE = 1_048_576
"""Characters of code, or of its output, that one step may hold."""

_CUT = "incomplete"
_SIGNATURE = "thought_signature"
_NOT_FORMED = "The upstream's response is not of the expected shape."


class _Spoken(NamedTuple):
    """A step that is a channel: its name, the delta that carries its text, and what that looks like."""

    channel: str
    delta: str
    written: dict[str, Any]


_SPOKEN: Mapping[str, _Spoken] = {
    "thought": _Spoken("reasoning", "thought_summary", {"content": {"type": "text", "text": HOLE}}),
    "model_output": _Spoken("content", "text", {"text": HOLE}),
    "function_call": _Spoken("arguments", "arguments_delta", {"arguments": HOLE}),
}
_CODES = {ErrorKind.FORBIDDEN: "permission_denied", ErrorKind.RATE_LIMITED: "rate_limit_exceeded"}
_CODE: Mapping[str, str] = {"code_execution_call": "input", "code_execution_result": "other"}


class Interactions(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`."""

    file = "gemini/interactions.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self.event = self.table.shape("event")
        self.step = self.table.shape("step")
        self.code = self.table.shape("code")
        self.deltas: Mapping[str, Shape] = {each.delta: self.table.shape(each.delta) for each in _SPOKEN.values()}
        self.statuses = self.table.names("enums", "status")
        self._interaction = self.table.shape("interaction")
        self._refused = self.table.names("request", "refuse")
        self._modalities = self.table.names("request", "modalities")
        self._codes = self.table.names("errors", "codes")

    def prepare(self, request: Incoming) -> Prepared:
        body = without(_named(read_body(request.body)), frozenset(), self._refused)
        body["store"] = False
        asked = body.get("response_modalities") or []
        if not all(each in self._modalities for each in (asked if isinstance(asked, list) else [asked])):
            raise Refused(400, ErrorKind.UNSUPPORTED, "Only text can be moderated: ask for no other modality.")
        model = string(body, "model")
        if request.seals is not None and "input" in body:
            body["input"] = restore(body["input"], request.seals, model)
        instruction = string(body, "system_instruction")
        names = (tool.get("name") for tool in objects(body, "tools") if tool.get("type") == "function")
        return Prepared(
            document=body,
            model=model,
            stream=flag(body, "stream"),
            facts=RequestFacts((instruction,) if instruction else (), _user(body.get("input"))),
            tools=frozenset(name for name in names if isinstance(name, str)),
            action=request.route.action,
            seals=request.seals,
        )

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> "_Stream | None":
        if content_type != "text/event-stream" or not prepared.stream:
            return None
        return _Stream(self, prepared, exchange)

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        value = read_object(data, prepared.reported)
        if value.get("error"):
            raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)
        steps = value.get("steps")
        served: list[Any] = []
        if steps is not None:
            if not isinstance(steps, list):
                raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _NOT_FORMED)
            served = [each for each in steps if _is_served(each, prepared.tools)]
            value["steps"] = [_joined(each) for each in served]
        lane = exchange.lane(0)
        written = moderate(value, self._interaction, lane)
        if served and prepared.seals is not None and not lane.cut:
            seal_steps(served, written["steps"], prepared.seals, prepared.model)
        if lane.cut or written.get("status") is None:
            written["status"] = _CUT
        return dumps(written)

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps({"error": {"code": _CODES.get(kind, kind.value), "message": message}})

    def reported(self, error: object, message: str) -> dict[str, object]:
        sent = error.get("error") if isinstance(error, dict) else None
        code = sent.get("code") if isinstance(sent, dict) else None
        known = isinstance(code, str) and code in self._codes
        return {"error": {"code": code if known else ErrorKind.UPSTREAM_ERROR.value, "message": message}}


def _named(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object with its fields under the names of the API, which takes them in camel case too."""
    named = {re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name): each for name, each in value.items()}
    if len(named) != len(value):
        raise bad("A field of the request is there twice, under two names.")
    return named


def _user(asked: object) -> str:
    """The user's last message: the input itself, its parts, or the last step or turn of the user's."""
    if isinstance(asked, dict):
        asked = [asked]
    if not isinstance(asked, list):
        return asked if isinstance(asked, str) else ""
    said = [each.get("content") for each in asked if isinstance(each, dict) and _is_user(each)]
    if said:
        return "".join(texts(said[-1] if isinstance(said[-1], (str, list)) else [said[-1]]))
    return "".join(texts(asked))


def _is_user(item: Mapping[str, Any]) -> bool:
    return item.get("type") == "user_input" or item.get("role") == "user"


def _is_served(step: object, tools: frozenset[str]) -> bool:
    """Whether a step is no call of a function, or of one that was declared."""
    if not isinstance(step, dict) or step.get("type") != "function_call":
        return True
    name = step.get("name")
    return isinstance(name, str) and name in tools


def _joined(step: object) -> object:
    """A step of a whole response with each list of texts as one text: clients join them, and values may span them."""
    if not isinstance(step, dict):
        return step
    return {name: _one(each) if name in ("summary", "content", "result") else each for name, each in step.items()}


def _one(contents: object) -> object:
    if not isinstance(contents, list):
        return contents
    found = [each.get("text") for each in contents if isinstance(each, dict) and each.get("type") == "text"]
    said = [each for each in found if isinstance(each, str)]
    return [{"type": "text", "text": "".join(said)}] if said and len(said) == len(found) else contents


class _Code:
    """A step of code or output under way: how it is written, and its text so far."""

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        self.kind = kind
        self.fields = fields
        self.language: dict[str, Any] = {}
        self.pieces: list[str] = []
        self.size = 0


class _Stream(EventStream):
    def __init__(self, dialect: Interactions, prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(ServerSentEvents(), prepared, exchange)
        self._dialect = dialect
        self._interaction: dict[str, Any] = {}
        self._steps: dict[int, int | None] = {}  # the upstream's indexes to ours, None if dropped
        self._served = 0
        self._kinds: dict[int, str] = {}  # types of the steps that are channels
        self._going: set[int] = set()  # of those, the ones that did not stop
        self._codes: dict[int, _Code] = {}
        self._signatures: dict[int, str] = {}

    def read(self, event: Event) -> dict[str, Any] | None:
        return None if is_done(event.data) else super().read(event)

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        kind = document.get("event_type")
        if name and name not in (kind, "message"):
            return None
        if kind == "error" or document.get("error"):
            reported = {"event_type": "error", **self._dialect.reported(document, UPSTREAM_REPORTED)}
            raise self.upstream_failed(Outgoing("error", reported))
        if kind == "step.start":
            self._begin(document)
        elif kind == "step.delta":
            return self._delta(document)
        elif kind == "step.stop":
            self._stop(document)
        elif kind in ("interaction.created", "interaction.status_update"):
            self._tell(str(kind), document)
        elif kind == "interaction.completed":
            self._complete(document)
        return None

    def _tell(self, kind: str, document: dict[str, Any]) -> None:
        copied = self._dialect.event.copy(document).root
        if kind == "interaction.created":
            self._interaction = copied.get("interaction") or {}
        self.mark(Outgoing(kind, {**copied, "event_type": kind}))

    def _complete(self, document: dict[str, Any]) -> None:
        if self.finish():
            copied = self._dialect.event.copy(document).root
            interaction = {"status": _CUT, **(copied.get("interaction") or {})}
            self.write(Outgoing("interaction.completed", _completed(interaction)))
            self.complete()

    def _begin(self, document: dict[str, Any]) -> None:
        index, step = document.get("index"), document.get("step")
        if type(index) is not int or index in self._steps or not isinstance(step, dict):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _NOT_FORMED)
        kind = step.get("type")
        if not isinstance(kind, str) or kind not in {*_SPOKEN, *_CODE} or not _is_served(step, self.prepared.tools):
            self._steps[index] = None
            return
        own = self._steps[index] = self._served
        self._served += 1
        if kind in _CODE:
            fields = self._dialect.step.copy({name: each for name, each in step.items() if name != "arguments"}).root
            self._codes[own] = _Code(kind, {name: fields[name] for name in ("id", "call_id") if name in fields})
            self._take_code(own, step)
            return
        copied = self._dialect.step.copy(step)
        spoken = _SPOKEN[kind]
        fields = {name: copied.root[name] for name in ("id", "name") if name in copied.root}
        if kind == "function_call":
            fields["arguments"] = {}
        self._kinds[own] = kind
        self._going.add(own)
        self.open(
            own,
            view_of(spoken.channel),
            _event("step.delta", own, delta={**spoken.written, "type": spoken.delta}),
            head=_event("step.start", own, step={**fields, "type": kind}),
        )
        if kind == THOUGHT and self.prepared.seals is not None:
            self.keep(own)
            self._signatures[own] = signature_of(step)
        for text in copied.texts:
            if text.channel == spoken.channel and not (text.structured and text.text == "{}"):
                self.feed(own, text.text)

    def _own(self, document: Mapping[str, Any]) -> int | None:
        """Our index of the step that an event is about; None for one that is dropped."""
        index = document.get("index")
        if type(index) is not int or index not in self._steps:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _NOT_FORMED)
        own = self._steps[index]
        if own is not None and own not in self._going and own not in self._codes:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream goes on with a step that stopped.")
        return own

    def _delta(self, document: dict[str, Any]) -> Fed | None:
        own, delta = self._own(document), document.get("delta")
        if not isinstance(delta, dict):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _NOT_FORMED)
        if own is None:
            return None
        if own in self._codes:
            if delta.get("type") == self._codes[own].kind:
                self._take_code(own, delta)
            return None
        spoken = _SPOKEN[self._kinds[own]]
        if delta.get("type") == _SIGNATURE and own in self._signatures:
            self._signatures[own] = signature_of(delta)
        if delta.get("type") != spoken.delta:
            return None
        found = self._dialect.deltas[spoken.delta].copy(delta).texts
        for text in found:
            self.feed(own, text.text)
        if len(found) == 1 and not found[0].structured:
            return Fed(0, own, found[0].text, ("delta", *found[0].origin))
        return None

    def _take_code(self, own: int, value: dict[str, Any]) -> None:
        """Code or output, in a step that begins or in a delta."""
        code, copied = self._codes[own], self._dialect.code.copy(value)
        if "is_error" in copied.root:
            code.fields["is_error"] = copied.root["is_error"]
        arguments = copied.root.get("arguments")
        if arguments and "language" in arguments:
            code.language = {"language": arguments["language"]}
        for text in copied.texts:
            if text.channel == _CODE[code.kind]:
                code.pieces.append(text.text)
                code.size += len(text.text)
        if code.size > MAX_CODE:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's code is too long.")

    def _stop(self, document: dict[str, Any]) -> None:
        own = self._own(document)
        if own is None:
            return
        stop = _event("step.stop", own)
        if own in self._going:
            self._going.remove(own)
            self.close(own, self._signed(own, stop))
            return
        code = self._codes.pop(own)
        written = self.whole_text(Text(_CODE[code.kind], (), (), "".join(code.pieces)))
        if written is None:
            return
        empty: dict[str, object] = {"result": ""}
        filled: dict[str, object] = {"result": written}
        if code.kind == "code_execution_call":
            empty, filled = {"arguments": {}}, {"arguments": {"code": written, **code.language}}
        elif "is_error" in code.fields:
            filled["is_error"] = code.fields["is_error"]
        self.mark(_event("step.start", own, step={**code.fields, **empty, "type": code.kind}))
        self.mark(_event("step.delta", own, delta={**filled, "type": code.kind}))
        self.mark(stop)

    def _signed(self, own: int, stop: Outgoing) -> Written:
        """What ends a step: behind the seal of its thought, if that was signed."""
        signature, seals, model = self._signatures.pop(own, ""), self.prepared.seals, self.prepared.model
        if not signature or seals is None:
            self.forget(own)
            return stop
        raw = self.raw(own)
        summary = [{"type": "text", "text": raw}] if raw else []

        def end() -> Outgoing:
            token = seal(signature, summary, self.said(own), seals, model)
            self.forget(own)
            self.write(_event("step.delta", own, delta={"type": _SIGNATURE, "signature": token}))
            return stop

        return end

    def upstream_ended(self) -> None:
        raise UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, "The upstream ended the stream early.")

    def was_cut(self, lane: int) -> None:
        for own in tuple(self.begun):
            if isinstance(own, int) and self._kinds[own] != "function_call":
                self.write(_event("step.stop", own))
        self.write(Outgoing("interaction.completed", _completed({**self._interaction, "status": _CUT})))
        self.complete()

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return Outgoing("error", {"event_type": "error", "error": {"code": kind.value, "message": message}})


def _event(kind: str, index: int, **fields: object) -> Outgoing:
    return Outgoing(kind, {"index": index, **fields, "event_type": kind})


def _completed(interaction: dict[str, Any]) -> dict[str, Any]:
    return {"interaction": interaction, "event_type": "interaction.completed"}
