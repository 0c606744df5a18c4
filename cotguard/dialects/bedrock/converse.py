"""Converse: streams of events that begin, continue and end content blocks, and whole messages.

1. A block of text or reasoning has no start event; its first delta begins it. Blocks of tools have one. A block is
   written with the number it has among those that are written, so that no gap shows.
2. Blocks of tools that the request did not declare are dropped, with all of their deltas.
3. A block may be as short as a token: there are models whose every delta is a block of its own. So that no value spans
   three, blocks of text (or of reasoning) that follow one another are one as long as it is short.
4. Signed reasoning is sealed: its signature stands behind its text, and its block is not one with the next. Redacted
   content is a block of its own, with a token in it.
5. A policy block closes what is open and stops the message with ``content_filtered``. A tool block whose input was cut
   is left open: the client shall not take half of an input for the whole.

Nova models stream the same events by InvokeModel, each of them the one member of a document.

Limit: values in pieces over blocks of different kinds, each piece shorter than the tail that detectors see of a block.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cotguard.dialects.bedrock.sealed import reasoning_signature, redacted_content, seal_redacted, seal_signature
from cotguard.dialects.bedrock.stream import BedrockStream, Exceptions
from cotguard.dialects.channels import view_of
from cotguard.dialects.contract import ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.sealed import joined_blobs
from cotguard.dialects.stream import Fed, Outgoing
from cotguard.dialects.table import HOLE, Document, Shape, Table, Text
from cotguard.dialects.whole import UNREADABLE, moderate
from cotguard.framing.bedrock import Chunks, Padded
from cotguard.framing.contract import Framing
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import View
from cotguard.sealing.seals import Seals

__all__ = ["ConverseShapes", "ConverseStream", "NovaStream", "converse_body"]

_SHORT = 64
"""Characters that a block of prose must have for the next of its kind to be another."""

_PROSE = frozenset({"content", "reasoning"})
_MAX_BLOCKS = 4096
_CUT = "content_filtered"
_EVENTS = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata")


@dataclass(frozen=True, slots=True)
class ConverseShapes:
    """The table's sections for Converse."""

    start: Shape
    block_start: Shape
    delta: Shape
    citation: Shape
    stop: Shape
    metadata: Shape
    whole: Shape
    invocation: Shape

    @classmethod
    def of(cls, table: Table) -> "ConverseShapes":
        """Those of the table."""
        return cls(
            table.shape("message_start"),
            table.shape("block_start"),
            table.shape("block_delta"),
            table.shape("citation_delta"),
            table.shape("message_stop"),
            table.shape("metadata"),
            table.shape("converse"),
            table.shape("invocation"),
        )


def _content_view(channel: str, prepared: Prepared, *, split: bool) -> View:
    """Where the server splits the reasoning off, a model's usual opening inside a thought does not apply."""
    return view_of(channel, "" if split else prepared.model)


# Whole messages.


def converse_body(
    value: dict[str, Any], shapes: ConverseShapes, prepared: Prepared, exchange: Exchange
) -> dict[str, Any]:
    """The moderated answer of Converse, or of a Nova model."""
    output = value.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(content, list):
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, UNREADABLE)
    signed = prepared.seals is not None
    blocks = [cleaned for each in content if (cleaned := _cleaned(each, prepared.tools, signed=signed))]
    message["content"] = merged = _merged(blocks)
    _end_as_answered(value, any("toolUse" in each for each in blocks))
    split = any("reasoningContent" in each for each in blocks)
    lane = exchange.lane(0)
    written = moderate(value, shapes.whole, lane, lambda text: _content_view(text.channel, prepared, split=split))
    if lane.cut:
        written["stopReason"] = _CUT
    if prepared.seals is not None:
        message = written["output"]["message"]
        if lane.cut:
            message["content"] = [block for block in message["content"] if block.get("reasoningContent") != {}]
        else:
            _seal(merged, message["content"], prepared.seals, prepared.model)
    return written


def _seal(blocks: list[dict[str, Any]], written: list[dict[str, Any]], seals: Seals, model: str) -> None:
    """Put tokens into what is ``written`` of the ``blocks``."""
    for block, original in zip(written, blocks, strict=True):
        reasoning = _object(original.get("reasoningContent"))
        if signature := reasoning_signature(reasoning):
            thought = block["reasoningContent"]["reasoningText"]
            text = reasoning["reasoningText"]["text"]
            thought["signature"] = seal_signature(text, signature, seals, model, thought["text"])
        elif content := redacted_content(reasoning):
            block["reasoningContent"] = seal_redacted(content, seals, model)


def _end_as_answered(holder: dict[str, Any], called: bool) -> None:
    """A message whose every call was dropped does not end for a tool's result."""
    if holder.get("stopReason") == "tool_use" and not called:
        holder["stopReason"] = "end_turn"


def _cleaned(block: object, tools: frozenset[str], *, signed: bool) -> dict[str, Any] | None:
    """A block with the member that a client would read of it; None for one that is dropped.

    ``signed``: signatures and redacted content are kept, to be sealed.

    A union without a member is an error to clients, so none may become empty by what is dropped.
    """
    if not isinstance(block, dict):
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, UNREADABLE)
    if block.get("text") is not None:
        return {"text": block["text"]}
    reasoning, use, result, cited = (
        _object(block.get(name)) for name in ("reasoningContent", "toolUse", "toolResult", "citationsContent")
    )
    if "text" in (thought := _object(reasoning.get("reasoningText"))):
        signature = reasoning_signature(reasoning) if signed else ""
        kept = {"signature": signature} if signature and isinstance(thought["text"], str) else {}
        return {"reasoningContent": {"reasoningText": {"text": thought["text"], **kept}}}
    if signed and (content := redacted_content(reasoning)):
        return {"reasoningContent": {"redactedContent": content}}
    if isinstance(name := use.get("name"), str) and name in tools:
        return {"toolUse": use}
    if result:
        return {"toolResult": {**result, "content": _with(result.get("content"), "text", "json")}}
    if cited:
        return {
            "citationsContent": {
                "content": _joined(_with(cited.get("content"), "text")),
                "citations": [_cleaned_citation(each) for each in _with(cited.get("citations"))],
            }
        }
    return None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _with(items: object, *names: str) -> list[dict[str, Any]]:
    """The objects of a list, those with one of the names if there are any."""
    found = items if isinstance(items, list) else []
    return [each for each in found if isinstance(each, dict) and (not names or any(name in each for name in names))]


def _cleaned_citation(citation: dict[str, Any]) -> dict[str, Any]:
    cleaned: dict[str, Any] = {name: citation[name] for name in ("title", "source") if name in citation}
    if sources := _with(citation.get("sourceContent"), "text"):
        cleaned["sourceContent"] = sources
    location = _object(citation.get("location"))
    named = [name for name in _LOCATIONS if isinstance(location.get(name), dict)]
    if named:
        cleaned["location"] = {named[0]: location[named[0]]}
    return cleaned


_LOCATIONS = ("web", "documentChar", "documentPage", "documentChunk", "searchResultLocation")


def _joined(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts that follow one another; short ones are one with the next."""
    joined: list[dict[str, Any]] = []
    for each in items:
        before = joined[-1]["text"] if joined else None
        if isinstance(before, str) and len(before) < _SHORT and isinstance(each["text"], str):
            joined[-1] = {"text": before + each["text"]}
        else:
            joined.append({"text": each["text"]})
    return joined


def _merged(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Blocks of text, or of reasoning, that follow one another; short ones are one with the next."""
    merged: list[dict[str, Any]] = []
    for each in blocks:
        before = _prose(merged[-1]) if merged else None
        after = _prose(each)
        if before and after and before[0] == after[0] and len(before[1]) < _SHORT:
            text = before[1] + after[1]
            merged[-1] = (
                {"text": text} if after[0] == "text" else {"reasoningContent": {"reasoningText": {"text": text}}}
            )
        else:
            merged.append(each)
    return merged


def _prose(block: dict[str, Any]) -> tuple[str, str] | None:
    """The kind and text of a block that may be one with the next: what is signed stays by itself."""
    kind = "text" if "text" in block else "reasoningContent"
    thought = _object(_object(block.get("reasoningContent")).get("reasoningText"))
    text = block.get("text") if kind == "text" else None if "signature" in thought else thought.get("text")
    return (kind, text) if isinstance(text, str) else None


# Streams.


class _Block(NamedTuple):
    """A block under way: its number and its channel."""

    number: int
    channel: str


class ConverseStream(BedrockStream):
    """See the module."""

    def __init__(
        self,
        shapes: ConverseShapes,
        prepared: Prepared,
        exchange: Exchange,
        exceptions: Exceptions,
        framing: Framing | None = None,
    ) -> None:
        super().__init__(framing or Padded(), prepared, exchange, exceptions)
        self._shapes = shapes
        self._under_way: dict[int, _Block] = {}  # by the upstream's numbers
        self._last: _Block | None = None  # of prose, ended by the upstream and not by us
        self._received: list[int] = []  # characters, by the numbers of blocks
        self._tools: set[int] = set()
        self._signatures: dict[int, str] = {}  # by the numbers of blocks
        self._joined: set[int] = set()  # numbers of several of the upstream's blocks: a signature is of the last only
        self._redacted: dict[int, list[str]] = {}  # content in pieces, by the upstream's numbers
        self._reasoned = False
        self._started = False
        self._stopped = False

    def event(self, name: str, document: dict[str, Any]) -> Outgoing:
        """An event as it is written."""
        return Outgoing(name, document)

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        if self._stopped:
            if name == "metadata":
                self.write(self.event("metadata", self._shapes.metadata.copy(document).root))
                self.complete()
        elif name == "contentBlockDelta":
            return self._take_delta(document)
        elif name == "contentBlockStart":
            self._take_start(document)
        elif name == "contentBlockStop":
            self._take_stop(_index(document))
        elif name == "messageStop":
            self._take_end(document)
        elif name == "messageStart" and not self._started:
            self._started = True
            self.mark(self.event("messageStart", self._shapes.start.copy(document).root))
        return None

    def _take_start(self, document: dict[str, Any]) -> None:
        index = _index(document)
        start = self._shapes.block_start.copy(document).root.get("start") or {}
        use, result = start.get("toolUse"), start.get("toolResult")
        if use:
            if use.get("name") not in self.prepared.tools:
                return
            self._tools.add(self._begin(index, "arguments", {"start": {"toolUse": use}}).number)
        elif result:
            self._begin(index, "other", {"start": {"toolResult": result}})

    def _take_delta(self, document: dict[str, Any]) -> Fed | None:
        index = _index(document)
        delta = document.get("delta")
        if isinstance(delta, dict) and delta.get("citation") is not None:
            self._take_citation(index, document)
            return None
        if self.prepared.seals is not None and isinstance(delta, dict):
            self._take_signed(index, _object(delta.get("reasoningContent")))
        texts = self._shapes.delta.copy(document).texts
        for text in texts:
            if text.path[-1] == "json":
                self._write_value(index, text)
            elif (block := self._block(index, text)) is not None:
                if text.structured:
                    raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, UNREADABLE)
                self.feed(block.number, text.text)
                if len(texts) == 1:
                    return Fed(0, block.number, text.text, text.origin)
        return None

    def _take_signed(self, index: int, reasoning: dict[str, Any]) -> None:
        """A signature, for the end of its block, or redacted content."""
        if signature := reasoning_signature(reasoning):
            block = self._under_way.get(index)
            if block is None or block.channel != "reasoning":
                block = self._begin(index, "reasoning")
            if block.number not in self._joined:
                self._signatures[block.number] = signature
        elif content := redacted_content(reasoning):
            self._redacted.setdefault(index, []).append(content)

    def _block(self, index: int, text: Text) -> _Block | None:
        """The block that a text is for: one under way, or a new one if it is prose."""
        block = self._under_way.get(index)
        if block is not None and block.channel == text.channel:
            return block
        if text.channel not in _PROSE:
            return None
        return self._prose(index, text.channel)

    def feed(self, key: Hashable, text: str) -> None:
        if isinstance(key, int):
            self._received[key] += len(text)
        super().feed(key, text)

    def _prose(self, index: int, channel: str) -> _Block:
        last = self._last
        if last is not None and last.channel == channel and index not in self._under_way:
            self._last = None
            self._joined.add(last.number)
            self._under_way[index] = last
            return last
        return self._begin(index, channel)

    def _begin(self, index: int, channel: str, start: dict[str, Any] | None = None) -> _Block:
        before = self._under_way.get(index)
        if before is not None and not {before.channel, channel} <= _PROSE:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's response has a block within another.")
        self._take_stop(index)
        self._end_last()
        number = self._number()
        block = self._under_way[index] = _Block(number, channel)
        self._reasoned = self._reasoned or channel == "reasoning"
        head = None if start is None else self.event("contentBlockStart", {"contentBlockIndex": number, **start})
        view = _content_view(channel, self.prepared, split=self._reasoned)
        self.open(number, view, self._delta(number, _DELTAS[channel]), head)
        if channel == "reasoning" and self.prepared.seals is not None:
            self.keep(number)
        return block

    def _number(self) -> int:
        number = len(self._received)
        if number >= _MAX_BLOCKS:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's response has too many content blocks.")
        self._received.append(0)
        return number

    def _delta(self, number: int, delta: dict[str, Any]) -> Outgoing:
        return self.event("contentBlockDelta", {"contentBlockIndex": number, "delta": delta})

    def _write_value(self, index: int, text: Text) -> None:
        """A tool's result that is a JSON value."""
        block = self._under_way.get(index)
        if block is None or block.channel != "other":
            return
        value = Document({"json": ""}, [Text(text.channel, ("json",), ("json",), text.text, text.structured)])
        if self.whole(value):
            self.mark(self._delta(block.number, {"toolResult": [value.root]}))

    def _take_citation(self, index: int, document: dict[str, Any]) -> None:
        delta = document["delta"]
        citation = {"delta": {"citation": _cleaned_citation(_object(delta["citation"]))}}
        copied = self._shapes.citation.copy(citation)
        block = self._under_way.get(index)
        if block is None or block.channel != "content":
            block = self._prose(index, "content")
        if self.whole(copied):
            self.mark(self._delta(block.number, copied.root["delta"]))

    def _take_stop(self, index: int) -> None:
        if index in self._redacted:
            self._write_redacted(self._redacted.pop(index))
        block = self._under_way.pop(index, None)
        if block is None:
            return
        short = self._received[block.number] < _SHORT
        if block.channel in _PROSE and short and block.number not in self._signatures:
            self._end_last()
            self._last = block
        else:
            self._end(block)

    def _end_last(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            self._end(last)

    def _write_redacted(self, pieces: list[str]) -> None:
        if self.prepared.seals is None:
            return
        self._end_last()
        number = self._number()
        sealed = seal_redacted(joined_blobs(pieces), self.prepared.seals, self.prepared.model)
        self.mark(self._delta(number, {"reasoningContent": sealed}))
        self.mark(self.event("contentBlockStop", {"contentBlockIndex": number}))

    def _sign(self, number: int) -> None:
        """Write the seal of a block that ended, if it was signed, behind its text."""
        seals, model = self.prepared.seals, self.prepared.model
        text, signature = self.raw(number), self._signatures.pop(number, "")
        if seals is None:
            return

        def signed() -> Outgoing | None:
            said = self.said(number)
            self.forget(number)
            if not signature:
                return None
            token = seal_signature(text, signature, seals, model, said)
            return self._delta(number, {"reasoningContent": {"signature": token}})

        self.mark(signed)

    def _end(self, block: _Block) -> None:
        self.close(block.number)
        if block.channel == "reasoning":
            self._sign(block.number)
        self.mark(lambda: self._ended(block.number))  # no tail: citations stand between the text and the end

    def _ended(self, number: int) -> Outgoing:
        self.begun.pop(number, None)
        return self.event("contentBlockStop", {"contentBlockIndex": number})

    def _take_end(self, document: dict[str, Any]) -> None:
        for index in [*self._under_way, *self._redacted]:
            self._take_stop(index)
        self._end_last()
        stop = self._shapes.stop.copy(document).root
        _end_as_answered(stop, bool(self._tools))
        if self.finish():
            self._stopped = True
            self.write(self.event("messageStop", stop))

    def upstream_ended(self) -> None:
        if not self._stopped:
            raise self.interrupted()
        self.complete()

    def was_cut(self, lane: int) -> None:
        for number in self.begun:
            if isinstance(number, int) and number not in self._tools:
                self.write(self.event("contentBlockStop", {"contentBlockIndex": number}))
        self.write(self.event("messageStop", {"stopReason": _CUT}))
        self.complete()


_DELTAS: Mapping[str, dict[str, Any]] = {
    "content": {"text": HOLE},
    "reasoning": {"reasoningContent": {"text": HOLE}},
    "arguments": {"toolUse": {"input": HOLE}},
    "other": {"toolResult": [{"text": HOLE}]},
}


def _index(document: Mapping[str, Any]) -> int:
    index = document.get("contentBlockIndex")
    if type(index) is not int or index < 0:
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's stream has a content block without a number.")
    return index


class NovaStream(ConverseStream):
    """The same events, each of them the one member of a chunk's document."""

    def __init__(self, shapes: ConverseShapes, prepared: Prepared, exchange: Exchange, exceptions: Exceptions) -> None:
        super().__init__(shapes, prepared, exchange, exceptions, Chunks())
        self._metrics: dict[str, Any] = {}

    def event(self, name: str, document: dict[str, Any]) -> Outgoing:
        return Outgoing("", {name: document, **(self._metrics if name == "metadata" else {})})

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        for each in _EVENTS:
            inner = document.get(each)
            if isinstance(inner, dict):
                self._metrics = self._shapes.invocation.copy(document).root
                fed = super().take(each, inner)
                return None if fed is None else Fed(fed.lane, fed.key, fed.text, (each, *fed.path))
        return None
