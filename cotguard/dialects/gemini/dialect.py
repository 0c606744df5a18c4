"""The dialect Google Gemini: ``generateContent`` and ``streamGenerateContent`` of the Gemini API and of Vertex AI.

1. A stream is one of server-sent events, or, where the client did not ask for it with ``alt=sse``, one JSON array whose
   elements arrive over time. What is written has the form that came. Every element is a response of its own whose
   parts go on where the last ended; there is no last event but the end of the body.
2. Each candidate is a lane. Its texts are two channels: parts that say ``thought`` are reasoning, others the answer;
   behind a part of another sort they are two others, so that the order of parts stays. Adjacent texts of one kind in a
   whole response are one text, as clients join them.
3. Function calls are written whole, arguments moderated as values. Those whose arguments arrive in pieces are put
   together first. Calls of functions that were not declared are dropped.
4. Code that the model had run, and its output, come and are written as a whole.
5. A policy block ends its candidate with the finish reason ``SPII``.

6. Thought signatures are sealed (:mod:`cotguard.dialects.gemini.sealed`): models of the Gemini 3 family refuse the turn
   after a function call whose signature is missing. In a stream a text's signature stands in an empty part behind it.

Sources: the API reference of ``models.generateContent``; google-genai ``types.py``; recordings of both forms.
"""

from collections.abc import Mapping
from typing import Any, cast

from cotguard.dialects.channels import view_of
from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Incoming, Prepared, UpstreamFault
from cotguard.dialects.gemini.call import PartialCall
from cotguard.dialects.gemini.request import Rules
from cotguard.dialects.gemini.sealed import SIGNATURE, restore, seal_part, seal_text, signature_of
from cotguard.dialects.stream import EventStream, Fed, Outgoing
from cotguard.dialects.table import HOLE, Document, Step, Text
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import moderate, read_object
from cotguard.framing.contract import Framing
from cotguard.framing.json import JSONError, dumps, loads
from cotguard.framing.json_array import JSONArray
from cotguard.framing.sse import ServerSentEvents
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import View
from cotguard.sealing.seals import Seals

__all__ = ["Gemini"]

_CUT = "SPII"
_OTHER = "OTHER"
_UNFINISHED = (None, "", "FINISH_REASON_UNSPECIFIED")
_TEXT = frozenset({"text", "thought"})
_PARTS = ("functionCall", "executableCode", "codeExecutionResult")

_NOT_FORMED = "The upstream's response is not of the expected shape."

_ERRORS: Mapping[ErrorKind, tuple[int, str]] = {
    ErrorKind.BAD_REQUEST: (400, "INVALID_ARGUMENT"),
    ErrorKind.BLOCKED: (400, "INVALID_ARGUMENT"),
    ErrorKind.UNAUTHENTICATED: (401, "UNAUTHENTICATED"),
    ErrorKind.FORBIDDEN: (403, "PERMISSION_DENIED"),
    ErrorKind.RATE_LIMITED: (429, "RESOURCE_EXHAUSTED"),
    ErrorKind.UNSUPPORTED: (400, "INVALID_ARGUMENT"),
    ErrorKind.NOT_FOUND: (404, "NOT_FOUND"),
    ErrorKind.TOO_LARGE: (413, "INVALID_ARGUMENT"),
    ErrorKind.UPSTREAM_TIMEOUT: (504, "DEADLINE_EXCEEDED"),
    ErrorKind.MODERATION_FAILED: (500, "INTERNAL"),
    ErrorKind.OVERLOADED: (503, "UNAVAILABLE"),
    ErrorKind.SHUTTING_DOWN: (503, "UNAVAILABLE"),
}
_UPSTREAM = (502, "UNAVAILABLE")


class Gemini(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`."""

    file = "gemini/gemini.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self.response = self.table.shape("response")
        self.candidate = self.table.shape("candidate")
        self._rules = Rules(self.table)
        self._statuses = self.table.names("errors", "statuses")

    def prepare(self, request: Incoming) -> Prepared:
        asked = self._rules.read(request)
        model = request.parameters.get("model", "")
        if request.seals is not None and "contents" in asked.body:
            asked.body["contents"] = restore(asked.body["contents"], request.seals, model)
        return Prepared(
            document=asked.body,
            model=model,
            stream=request.route.action == "stream",
            facts=asked.facts,
            tools=asked.tools,
            choices=asked.choices,
            action=request.route.action,
            seals=request.seals,
        )

    def question(self, request: Incoming) -> dict[str, Any]:
        body = super().question(request)
        if request.seals is not None and "contents" in body:
            body["contents"] = restore(body["contents"], request.seals, request.parameters.get("model", ""))
        return body

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> "_Stream | None":
        framings: Mapping[str, type[ServerSentEvents | JSONArray]] = {
            "text/event-stream": ServerSentEvents,
            "application/json": JSONArray,
        }
        framing = framings.get(content_type) if prepared.stream else None
        return None if framing is None else _Stream(self, framing(), prepared, exchange)

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        value = read_object(data, prepared.reported)
        if value.get("error"):
            raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)
        root = self.response.copy(value).root
        _keep_block_reason(value, root)
        written: dict[int, dict[str, Any]] = {}
        for item in _candidates(value):
            index = _index(item, prepared)
            if index in written:
                raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _NOT_FORMED)
            written[index] = self._whole(item, prepared, exchange, index)
        if written or "candidates" in value:
            root["candidates"] = list(written.values())
        return dumps(root)

    def _whole(self, item: dict[str, Any], prepared: Prepared, exchange: Exchange, index: int) -> dict[str, Any]:
        parts = _parts(item)
        originals: list[list[dict[str, Any]]] = []
        if parts:
            parts, originals = _joined([part for part in parts if _is_declared(part, prepared.tools)])
            content = item["content"]  # the parts themselves, or what holds them
            item = {**item, "content": {**(content if isinstance(content, dict) else {}), "parts": parts}}
        lane = exchange.lane(index)
        written = moderate(item, self.candidate, lane, lambda text: _view(text, parts))
        reason = _reason(item, written)
        if lane.cut or reason is not None:
            written["finishReason"] = _CUT if lane.cut else reason
        if prepared.seals is not None and parts and not lane.cut:
            for part, sent in zip(written["content"]["parts"], originals, strict=True):
                _seal(part, sent, prepared.seals, prepared.model)
        if parts:
            dropped = {"thought", "functionCall"} if lane.cut else {"thought"}  # behind a block no function is called
            written["content"]["parts"] = [part for part in written["content"]["parts"] if part.keys() - dropped]
        return written

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps(self.error_document(kind, message))

    def error_document(self, kind: ErrorKind, message: str) -> dict[str, object]:
        """Our own error."""
        code, status = _ERRORS.get(kind, _UPSTREAM)
        reason = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": kind.value.upper(),
            "domain": "cotguard",
        }
        return {"error": {"code": code, "message": message, "status": status, "details": [reason]}}

    def reported(self, error: object, message: str) -> dict[str, object]:
        sent = error.get("error") if isinstance(error, dict) else None
        code, status = (sent.get("code"), sent.get("status")) if isinstance(sent, dict) else (None, None)
        return {
            "error": {
                "code": code if type(code) is int and 400 <= code < 600 else _UPSTREAM[0],
                "message": message,
                "status": status if isinstance(status, str) and status in self._statuses else "UNKNOWN",
            }
        }

    def upstream_error(self, status: int, data: bytes) -> bytes:
        """The array form has its errors in an array."""
        try:
            sent = loads(data)
        except JSONError:
            sent = None
        listed = isinstance(sent, list)
        first = (sent[0] if sent else None) if isinstance(sent, list) else sent
        document = self.reported(first, f"The upstream answered with status {status}.")
        return dumps([document] if listed else document)


def _candidates(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    items = document.get("candidates")
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _NOT_FORMED)
    return items


def _index(item: Mapping[str, Any], prepared: Prepared) -> int:
    index = item.get("index") or 0
    if type(index) is not int or not 0 <= index < prepared.choices:
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream sent a candidate that was not asked for.")
    return index


def _parts(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = item.get("content")
    parts = content.get("parts") if isinstance(content, dict) else content
    if parts is None:
        return []
    if not isinstance(parts, list) or not all(isinstance(each, dict) for each in parts):
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _NOT_FORMED)
    return parts


def _is_declared(part: Mapping[str, Any], tools: frozenset[str]) -> bool:
    """Whether a part calls no function, or one that was declared."""
    call = part.get("functionCall")
    if not isinstance(call, dict):
        return True
    name = call.get("name")
    return isinstance(name, str) and name in tools


def _joined(parts: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Parts with adjacent texts of one kind as one: a value may stand on both sides of where they meet.

    Beside them the parts that each was made of.
    """
    joined: list[dict[str, Any]] = []
    originals: list[list[dict[str, Any]]] = []
    pieces: list[str] = []
    for part in parts:
        text, thought = part.get("text"), part.get("thought") is True
        if isinstance(text, str) and not any(name in part for name in _PARTS):
            if pieces and joined[-1]["thought"] is thought:
                pieces.append(text)
                originals[-1].append(part)
                continue
            _end_text(joined, pieces)
            joined.append({"thought": thought, "text": ""})
            pieces = [text]
        else:
            _end_text(joined, pieces)
            pieces = []
            joined.append(part)
        originals.append([part])
    _end_text(joined, pieces)
    return joined, originals


def _end_text(joined: list[dict[str, Any]], pieces: list[str]) -> None:
    if pieces:
        last = joined[-1]
        joined[-1] = {"text": "".join(pieces), **({"thought": True} if last["thought"] else {})}


def _seal(written: dict[str, Any], originals: list[dict[str, Any]], seals: Seals, model: str) -> None:
    """Give a part of a whole response the token for the last signature of the parts it was made of."""
    signatures = [signature for part in originals if (signature := signature_of(part))]
    if not signatures:
        return
    if any(name in written for name in _PARTS):
        written[SIGNATURE] = seal_part(originals[0], written, seals, model)
    elif "text" in written:
        written[SIGNATURE] = seal_text(signatures[-1], originals, written["text"], seals, model)


def _view(text: Text, parts: list[dict[str, Any]]) -> View:
    if text.channel != "content":
        return view_of(text.channel)
    return view_of(_kind(parts[cast("int", text.origin[2])]))


def _kind(part: Mapping[str, Any]) -> str:
    return "reasoning" if part.get("thought") is True else "content"


def _reason(item: Mapping[str, Any], copied: Mapping[str, Any]) -> str | None:
    """Why a candidate ended; None if it did not."""
    if item.get("finishReason") in _UNFINISHED:
        return None
    return cast("str", copied.get("finishReason", _OTHER))


def _keep_block_reason(document: Mapping[str, Any], copied: dict[str, Any]) -> None:
    """A reason that is not known is still a reason."""
    feedback = document.get("promptFeedback")
    if isinstance(feedback, dict) and feedback.get("blockReason"):
        copied["promptFeedback"].setdefault("blockReason", _OTHER)


class _Stream(EventStream):
    def __init__(self, dialect: Gemini, framing: Framing, prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(framing, prepared, exchange)
        self._dialect = dialect
        self._first: dict[str, Any] = {}  # what is said of the response as a whole
        self._calls: dict[int, PartialCall] = {}  # by candidate
        self._signatures: dict[int, str] = {}  # of those calls
        self._texts: dict[tuple[int, str], int] = {}  # the channel of a candidate's text of a kind
        self._opened = 0
        self._seen: set[int] = set()
        self._blocked = False

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        if document.get("error"):
            raise self.upstream_failed(Outgoing("", self._dialect.reported(document, UPSTREAM_REPORTED)))
        copied = self._dialect.response.copy(document).root
        _keep_block_reason(document, copied)
        usage, feedback = copied.pop("usageMetadata", None), copied.pop("promptFeedback", None)
        self._first = self._first or copied
        if feedback:
            self._blocked = self._blocked or "blockReason" in feedback
            self.mark(Outgoing("", {"promptFeedback": feedback, **_usage(usage), **self._first}))
        candidates = _candidates(document)
        fed = None
        for position, item in enumerate(candidates):
            fed = self._take_candidate(item, position, _usage(usage))
        if usage and not candidates and not feedback and self._is_over():
            self.write(Outgoing("", {**_usage(usage), **self._first}))
        return fed if len(candidates) == 1 and not feedback else None

    def _take_candidate(self, item: dict[str, Any], position: int, usage: dict[str, Any]) -> Fed | None:
        index = _index(item, self.prepared)
        self._seen.add(index)
        if self.is_over(index):
            return None
        originals = _parts(item)
        copied = self._dialect.candidate.copy(item)
        parts = _split(copied)
        for part, original in zip(parts, originals, strict=True):
            self._take_part(index, part, original)
        reason = _reason(item, copied.root)
        if reason is not None:
            self._calls.pop(index, None)  # a call that did not end is none
            if self.finish(index):
                self._write_end(index, reason, copied.root, usage)
        elif (
            len(parts) == 1
            and len(parts[0].texts) == 1
            and parts[0].root.keys() <= _TEXT
            and not signature_of(originals[0])
        ):
            text = parts[0].texts[0]
            path: tuple[Step, ...] = ("candidates", position, *text.origin)
            return Fed(index, self._texts[index, _kind(parts[0].root)], text.text, path)
        return None

    def _take_part(self, index: int, part: Document, original: dict[str, Any]) -> None:
        for text in part.texts:
            if text.channel == "content":
                self._feed_text(index, _kind(part.root), text.text)
        if isinstance(original.get("functionCall"), dict):
            self._take_call(index, part, original)
        for name in ("executableCode", "codeExecutionResult"):
            if isinstance(part.root.get(name), dict):
                self._write_part(index, Document({name: part.root[name]}, _within(part, name)), original)
        if "text" in original and not any(name in original for name in _PARTS):
            self._sign_text(index, original)

    def _sign_text(self, index: int, original: Mapping[str, Any]) -> None:
        """Write the seal of a text's signature behind the text."""
        signature, seals = signature_of(original), self.prepared.seals
        if signature and seals is not None:
            self._end_texts(index)
            sealed: dict[str, Any] = {"text": "", SIGNATURE: seal_text(signature, (), "", seals, self.prepared.model)}
            if _kind(original) == "reasoning":
                sealed["thought"] = True
            self.mark(self._event(index, [sealed]), index)

    def _feed_text(self, index: int, kind: str, text: str) -> None:
        key = self._texts.get((index, kind))
        if key is None:
            key = self._texts[index, kind] = self._opened
            self._opened += 1
            part = {"text": HOLE, "thought": True} if kind == "reasoning" else {"text": HOLE}
            self.open(key, view_of(kind), self._event(index, [part]), lane=index)
        self.feed(key, text)

    def _take_call(self, index: int, part: Document, original: dict[str, Any]) -> None:
        call = original["functionCall"]
        document = Document({"functionCall": part.root["functionCall"]}, _within(part, "functionCall"))
        pending = self._calls.get(index)
        if pending is not None or call.get("willContinue") is True or call.get("partialArgs") is not None:
            pending = self._calls.setdefault(index, PartialCall())
            fields = {name: each for name, each in part.root["functionCall"].items() if name != "args"}
            pending.take(fields, call.get("args"), call.get("partialArgs"))
            if signature := signature_of(original):
                self._signatures[index] = signature
            if call.get("willContinue") is True:
                return
            del self._calls[index]
            original = {"functionCall": pending.put_together()}
            if signature := self._signatures.pop(index, ""):
                original[SIGNATURE] = signature
            document = self._whole_call(original)
        if document.root["functionCall"].get("name") in self.prepared.tools:
            self._write_part(index, document, original)

    def _whole_call(self, original: dict[str, Any]) -> Document:
        return _split(self._dialect.candidate.copy({"content": {"parts": [original]}}))[0]

    def _write_part(self, index: int, part: Document, original: dict[str, Any]) -> None:
        self._end_texts(index)
        if self.whole(part, index):
            if signature_of(original) and self.prepared.seals is not None:
                part.root[SIGNATURE] = seal_part(original, part.root, self.prepared.seals, self.prepared.model)
            self.mark(self._event(index, [part.root]), index)

    def _end_texts(self, index: int) -> None:
        """What text follows is another."""
        for kind in ("reasoning", "content"):
            key = self._texts.pop((index, kind), None)
            if key is not None:
                self.close(key)

    def _event(self, index: int, parts: list[dict[str, Any]], **fields: object) -> Outgoing:
        candidate = {"content": {"parts": parts, "role": "model"}, **fields, "index": index}
        return Outgoing("", {"candidates": [candidate], **self._first})

    def _write_end(self, index: int, reason: str, copied: Mapping[str, Any], usage: dict[str, Any]) -> None:
        fields = {name: copied[name] for name in ("safetyRatings", "tokenCount") if name in copied}
        end = self._event(index, [{"text": ""}], finishReason=reason, **fields)
        self.write(Outgoing("", {**end.document, **usage}))

    def _is_over(self) -> bool:
        return bool(self._seen) and all(self.is_over(index) for index in self._seen)

    def upstream_ended(self) -> None:
        if not self._is_over() and (self._seen or not self._blocked):
            raise UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, "The upstream ended the stream early.")
        self.complete()

    def was_cut(self, lane: int) -> None:
        self.write(self._event(lane, [{"text": ""}], finishReason=_CUT))
        if all(self.is_over(index) for index in range(self.prepared.choices)):
            self.complete()

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return Outgoing("", self._dialect.error_document(kind, message))


def _usage(usage: object) -> dict[str, Any]:
    return {"usageMetadata": usage} if usage else {}


def _split(candidate: Document) -> list[Document]:
    """The parts of a candidate's copy, each a document."""
    content = candidate.root.get("content")
    found = [Document(part, []) for part in (content.get("parts") if content else None) or ()]
    for text in candidate.texts:
        at = cast("int", text.path[2])
        found[at].texts.append(Text(text.channel, text.origin, text.path[3:], text.text, text.structured))
    return found


def _within(part: Document, name: str) -> list[Text]:
    return [text for text in part.texts if text.path[0] == name]
