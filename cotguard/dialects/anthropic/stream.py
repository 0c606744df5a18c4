"""Streams of Anthropic Messages: blocks that begin, grow and end, one after the other.

``message_start``; for each block ``content_block_start``, ``content_block_delta`` ..., ``content_block_stop``; then
``message_delta``, ``message_stop``. ``ping`` and ``error`` may come anywhere.

1. Texts and thinking are written as they are decided. Text in the start of a block is fed like a delta's.
2. Calls of tools and summaries are held until their block ends, since half of one is of no use; so are citations, which
   follow their block's text. Blocks without deltas, results of a server's tools, are moderated whole.
3. Blocks are numbered anew, since clients count them: a dropped one leaves no gap.
4. A signature is sealed with its block's text when that has been written; until then both texts are kept.
5. A later ``message_start``, which some servers send, begins no second message: blocks under way end, an unfinished
   call is dropped, and what follows goes on in the first message. Nothing is read behind ``message_stop``.

Events are known by the ``type`` in their documents; an event with another name is dropped, one without a name is not.
So any framing will do.

Source: anthropic-sdk-python ``types/raw_*.py``, ``lib/streaming/_messages.py``.
"""

from collections.abc import Callable
from typing import Any

from cotguard.dialects.anthropic.format import Format, error_object
from cotguard.dialects.anthropic.sealed import REDACTED, THINKING, sealed_data, signature_of
from cotguard.dialects.channels import STRUCTURED, view_of
from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.stream import EventStream, Fed, Outgoing
from cotguard.dialects.table import HOLE, Document, Text
from cotguard.framing.contract import Event, Framing
from cotguard.framing.json import JSONError, loads
from cotguard.framing.sse import is_done
from cotguard.moderation.exchange import Exchange

__all__ = ["MAX_BLOCKS", "MAX_PENDING_CHARS", "MessagesStream"]

MAX_PENDING_CHARS = 8 * 1024 * 1024
"""Arguments and summaries that are held at a time."""

MAX_BLOCKS = 4096
"""Blocks of a message: each has its own state here."""

_CHANNELS = {"text": "content", "thinking": "reasoning"}
_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_SUMMARY = "compaction"
_MISPLACED = "The upstream's events are not in the order of a message."


class _Block:
    """A block under way. ``at`` is its number for the client; -1 until it has one, and if it gets none."""

    __slots__ = ("at", "citations", "delta", "document", "kind", "pieces", "signature")

    def __init__(self, kind: str, delta: str, document: Document, at: int = -1) -> None:
        self.kind = kind
        self.delta = delta  # the type of deltas that bring its text
        self.document = document
        self.at = at
        self.pieces: list[str] = []
        self.citations: list[dict[str, Any]] = []
        self.signature = ""


class MessagesStream(EventStream):
    """See the module."""

    def __init__(self, framing: Framing, form: Format, prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(framing, prepared, exchange)
        self._form = form
        self._started = False
        self._stopped = False  # whether a stop reason came
        self._called = False  # whether a call of a client's tool was passed on
        self._thought = False
        self._open: dict[int, _Block] = {}  # under way, by the upstream's number
        self._count = 0  # blocks that have a number
        self._written = -1  # the block whose start was written and whose stop was not
        self._pending = 0  # characters in blocks that are held
        self._output_tokens: Any = 0  # as the message began: what a cut message cost is not known yet

    def read(self, event: Event) -> dict[str, Any] | None:
        return None if is_done(event.data) else super().read(event)

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        kind = document.get("type")
        if "error" in (name, kind) or (kind is None and document.get("error")):
            raise self.upstream_failed(Outgoing("error", self._form.reported(document, UPSTREAM_REPORTED)))
        if name and name != kind:
            return None
        if kind == "message_start":
            self._start_message(document)
        elif kind == "content_block_delta":
            return self._take_delta(document)
        elif kind == "content_block_start":
            self._start_block(document)
        elif kind == "content_block_stop":
            self._end_block(self._index(document))
        elif kind == "message_delta":
            self._take_ending(document)
        elif kind == "message_stop":
            self._end_message()
        return None

    # Messages.

    def _start_message(self, document: dict[str, Any]) -> None:
        message = document.get("message")
        if not isinstance(message, dict):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _MISPLACED)
        if self._started:
            self._end_blocks()
            return
        self._started = True
        content = message.get("content")
        blocks = self._form.declared(content, self.prepared.tools) if isinstance(content, list) else []
        called = any(block.get("type") == "tool_use" for block in blocks)
        copied = self._form.message.copy({**message, "content": [], "stop_details": None}).root
        copied["usage"] = usage = {"input_tokens": 0, "output_tokens": 0, **(copied.get("usage") or {})}
        self._output_tokens = usage["output_tokens"]
        stop = self._form.stop(message, self.prepared, called=called)
        self._stopped = stop["stop_reason"] is not None
        root = {"id": "", "type": "message", "role": "assistant", "model": self.prepared.model, **copied, **stop}
        self.mark(Outgoing("message_start", {"type": "message_start", "message": root}))
        for number, block in enumerate(blocks):
            self._begin(number, block)
            self._end_block(number)

    def _take_ending(self, document: dict[str, Any]) -> None:
        """``message_delta``: why the message stopped, and what it cost."""
        self._must_have_started()
        self._end_blocks()
        sent = document.get("delta")
        if not isinstance(sent, dict):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _MISPLACED)
        known: dict[str, Any] = {name: sent[name] for name in ("stop_details", "container") if name in sent}
        beside: dict[str, Any] = {name: document[name] for name in ("usage", "context_management") if name in document}
        copied = self._form.message.copy({**known, **beside})
        if not self.whole(copied):
            return
        root = copied.root
        stop = self._form.stop(sent, self.prepared, called=self._called)
        self._stopped = self._stopped or stop["stop_reason"] is not None
        delta = {**stop, **{name: root[name] for name in known if name in root}}
        outer: dict[str, Any] = {name: root[name] for name in beside if name in root}
        self.mark(self._ending(delta, outer))

    def _ending(self, delta: dict[str, Any], outer: dict[str, Any]) -> Outgoing:
        usage = {"output_tokens": self._output_tokens, **(outer.pop("usage", None) or {})}
        return Outgoing("message_delta", {"type": "message_delta", "delta": delta, "usage": usage, **outer})

    def _end_message(self) -> None:
        self._must_have_started()
        self._end_blocks()
        if self.finish():
            self._complete_message()

    def _complete_message(self) -> None:
        self.write(Outgoing("message_stop", {"type": "message_stop"}))
        self.complete()

    def _must_have_started(self) -> None:
        if not self._started:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _MISPLACED)

    # Blocks.

    def _index(self, document: dict[str, Any]) -> int:
        self._must_have_started()
        index: object = document.get("index")
        if type(index) is not int or index < 0:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _MISPLACED)
        return index

    def _start_block(self, document: dict[str, Any]) -> None:
        index, block = self._index(document), document.get("content_block")
        for each in [each for each, open_ in self._open.items() if each == index or open_.kind in _CHANNELS]:
            self._end_unfinished(each)
        self._begin(index, block)

    def _begin(self, index: int, sent: Any) -> None:
        if isinstance(sent, dict) and sent.get("type") == REDACTED:
            seals = self.prepared.seals
            sent = (sealed_data(sent, seals, self.prepared.model) if seals is not None else None) or {}
        copied = self._form.message.copy({"content": self._form.declared([sent], self.prepared.tools)})
        kept = copied.root["content"]
        kind: str = kept[0]["type"] if kept else ""
        if kind in _CHANNELS:
            self._open[index] = self._begin_prose(kind, sent, copied)
        elif kind in _CALLS:
            self._open[index] = _Block(kind, "input_json_delta", copied)
        elif kind == _SUMMARY:
            self._open[index] = block = _Block(kind, "compaction_delta", copied)
            for text in copied.texts:
                self._hold(block, text.text)
        else:
            self._open[index] = _Block(kind, "", copied)
            if kept and self.whole(copied):
                self._write_block(kept[0], None)

    def _begin_prose(self, kind: str, sent: dict[str, Any], copied: Document) -> _Block:
        block = _Block(kind, f"{kind}_delta", copied, self._number())
        at, citations = block.at, sent.get("citations")
        start: dict[str, Any] = {"type": kind, kind: ""}
        if kind == "thinking":
            self._thought = True
            start["signature"] = ""  # clients read it
        elif "citations" in sent:
            start["citations"] = [] if isinstance(citations, list) else None
        self.mark(self._begun(at, start))
        # Where the server splits the thinking off, a model's usual opening inside a thought does not apply.
        view = view_of(_CHANNELS[kind], "" if self._thought else self.prepared.model)
        self.open(at, view, _delta(at, {"type": block.delta, kind: HOLE}))
        if kind == THINKING and self.prepared.seals is not None:
            self.keep(at)
            block.signature = signature_of(sent)
        for text in copied.texts:
            if text.path[-1] == kind:
                self.feed(at, text.text)
        for citation in citations if isinstance(citations, list) else ():
            self._cite(block, citation)
        return block

    def _take_delta(self, document: dict[str, Any]) -> Fed | None:
        block = self._open.get(self._index(document))
        if block is None:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _MISPLACED)
        sent = document.get("delta")
        kind = sent.get("type") if isinstance(sent, dict) else None
        if kind == "citations_delta" and block.kind == "text" and isinstance(sent, dict):
            self._cite(block, sent.get("citation"))
        if kind == "signature_delta" and block.kind == THINKING and isinstance(sent, dict):
            block.signature = signature_of(sent)
        if kind != block.delta:
            return None
        for text in self._form.delta.copy(document).texts:
            if block.kind not in _CHANNELS:
                self._hold(block, text.text)
            else:
                self.feed(block.at, text.text)
                return Fed(0, block.at, text.text, text.origin)
        return None

    def _cite(self, block: _Block, citation: object) -> None:
        """Citations quote others' texts: each is moderated as it is, by itself."""
        copied = self._form.message.copy({"content": [{"type": "text", "citations": [citation]}]})
        kept = copied.root["content"][0]["citations"]
        if kept and self.whole(copied):
            block.citations.append(kept[0])

    def _hold(self, block: _Block, text: str) -> None:
        self._pending += len(text)
        if self._pending > MAX_PENDING_CHARS:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's tool calls are too long.")
        block.pieces.append(text)

    def _end_blocks(self) -> None:
        for index in list(self._open):
            self._end_unfinished(index)

    def _end_unfinished(self, index: int) -> None:
        """End a block that the upstream did not end. A call may be whole nevertheless."""
        block = self._open[index]
        if block.kind in _CALLS and not _is_whole(_arguments(block)):
            block.kind = ""
        self._end_block(index)

    def _end_block(self, index: int) -> None:
        block = self._open.pop(index, None)
        if block is None:
            return
        self._pending -= sum(map(len, block.pieces))
        if block.kind in _CHANNELS:
            self.close(block.at)
            if block.kind == THINKING:
                self._sign(block)
            for citation in block.citations:
                self.mark(_delta(block.at, {"type": "citations_delta", "citation": citation}))
            self.mark(self._ended(block.at))
        elif block.kind == _SUMMARY:
            self._write_held(block, {"type": _SUMMARY, "content": None}, Text("other", (), (), "".join(block.pieces)))
        elif block.kind in _CALLS:
            self._write_call(block)

    def _sign(self, block: _Block) -> None:
        """Write the seal of a block that ended, if it was signed, behind its text."""
        seals, model, at = self.prepared.seals, self.prepared.model, block.at
        if seals is None:
            return
        original = {"thinking": self.raw(at), "signature": block.signature}

        def signed() -> Outgoing | None:
            said = self.said(at)
            self.forget(at)
            if not original["signature"]:
                return None
            token = seals.seal(THINKING, original, model, said)
            return _delta(at, {"type": "signature_delta", "signature": token})

        self.mark(signed)

    def _write_call(self, block: _Block) -> None:
        call = block.document.root["content"][0]
        names = [text for text in block.document.texts if text.path[-1] != "input"]
        if self.whole(Document(block.document.root, names)):
            self._called = self._called or block.kind == "tool_use"
            self._write_held(block, {**call, "input": {}}, Text(STRUCTURED, (), (), _arguments(block)))

    def _write_held(self, block: _Block, start: dict[str, Any], held: Text) -> None:
        text = self.whole_text(held)
        if text is not None:
            name = "content" if block.kind == _SUMMARY else "partial_json"
            self._write_block(start, {"type": block.delta, name: text} if text else None)

    def _write_block(self, start: dict[str, Any], delta: dict[str, Any] | None) -> None:
        at = self._number()
        self.mark(self._begun(at, start))
        if delta is not None:
            self.mark(_delta(at, delta))
        self.mark(self._ended(at))

    def _number(self) -> int:
        if self._count == MAX_BLOCKS:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's message has too many blocks.")
        self._count += 1
        return self._count - 1

    def _begun(self, at: int, block: dict[str, Any]) -> Callable[[], Outgoing]:
        def begun() -> Outgoing:
            self._written = at
            return Outgoing("content_block_start", {"type": "content_block_start", "index": at, "content_block": block})

        return begun

    def _ended(self, at: int) -> Callable[[], Outgoing]:
        def ended() -> Outgoing:
            self._written = -1
            return Outgoing("content_block_stop", {"type": "content_block_stop", "index": at})

        return ended

    # Ends.

    def upstream_ended(self) -> None:
        if not self._stopped:
            raise UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, "The upstream ended the stream early.")
        self._end_message()  # all that is missing is the event that says so

    def was_cut(self, lane: int) -> None:
        if self._written >= 0:
            self.write(self._ended(self._written))
        self.write(self._ending(self._form.cut(), {}))
        self._complete_message()

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return Outgoing("error", error_object(kind, message))


def _delta(at: int, delta: dict[str, Any]) -> Outgoing:
    return Outgoing("content_block_delta", {"type": "content_block_delta", "index": at, "delta": delta})


def _arguments(block: _Block) -> str:
    """A call's arguments: those of its deltas or, where there are none, of its start."""
    if block.pieces:
        return "".join(block.pieces)
    given = [text.text for text in block.document.texts if text.path[-1] == "input"]
    return "" if given in ([], ["{}"]) else given[0]


def _is_whole(arguments: str) -> bool:
    try:
        return isinstance(loads(arguments.encode("utf-8", "surrogatepass")), dict)
    except JSONError:
        return False
