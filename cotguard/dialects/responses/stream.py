"""A Responses stream, read and written anew.

1. Whatever way a server takes (deltas, texts only in the events that end them, only the last response), the client
   gets one order of events: an item is announced, then its parts, their texts in deltas, and each of them is ended.
   What the server left out is put in, what it repeats is a copy of what was delivered
   (:mod:`cotguard.dialects.responses.items`).
2. Events that end something wait until its text is decided: they stand behind it in the lane.
3. Events are numbered as they are written, items and parts as they are announced. An item keeps its first id.
4. A whole text that goes on where the deltas stopped brings the rest. Where the two disagree the deltas hold. Where an
   item that ended appears again, it is as it ended.
5. After a block, what is open is ended with what was delivered of it, and the response is ``incomplete``, for the
   reason ``content_filter``. Calls that did not end are not in it: a client might carry out half of one.
6. The last event holds the items of the upstream's last event, in its order, or all if it has none.

7. The encrypted content of reasoning is sealed when its item ends.

Texts that are in no delta of any server (queries, paths, outputs of tools) are moderated one by one as they come.

Source: openai-python ``types/responses/response_stream_event.py``, ``lib/streaming/responses``; vLLM
``entrypoints/openai/responses/protocol.py``.
"""

import hashlib
from collections.abc import Hashable
from typing import Any

from cotguard.dialects.channels import view_of
from cotguard.dialects.chat.format import error_object
from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.responses.format import Format, listed
from cotguard.dialects.responses.items import (
    BY_EVENT,
    LEAVES,
    PART_EVENTS,
    PARTS,
    Item,
    Part,
    Path,
    Streamed,
    open_parts,
    part_lists,
)
from cotguard.dialects.responses.request import tool_of
from cotguard.dialects.responses.sealed import original_of, seal
from cotguard.dialects.stream import EventStream, Fed, Outgoing
from cotguard.dialects.table import CHECKS, HOLE, Document, Text
from cotguard.framing.contract import Event
from cotguard.framing.sse import ServerSentEvents, event, is_done
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import View

__all__ = ["ResponseStream"]

_BEGINNINGS = frozenset({"response.created", "response.queued", "response.in_progress"})
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})

_MALFORMED = "An event of the upstream's stream is not of the expected shape."


class _Numbered(ServerSentEvents):
    """Events, which are objects, with their number in the stream."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    def write(self, event_: Event) -> bytes:
        number, self._number = self._number, self._number + 1
        return event(b'%b,"sequence_number":%d}' % (event_.data[:-1], number), event_.name)


class _Heard:
    """What a text's deltas were, without keeping them."""

    __slots__ = ("_digest", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, text: str) -> None:
        """The next delta."""
        self._size += len(text)
        self._digest.update(text.encode("utf-8", "surrogatepass"))

    def rest(self, whole: str) -> str:
        """What a whole text has behind the deltas; nothing if they are not its beginning."""
        if len(whole) <= self._size:
            return ""
        beginning = whole[: self._size].encode("utf-8", "surrogatepass")
        same = hashlib.blake2b(beginning, digest_size=16).digest() == self._digest.digest()
        return whole[self._size :] if same else ""


class ResponseStream(EventStream):
    """See the module."""

    def __init__(self, form: Format, prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(_Numbered(), prepared, exchange, repeats=True)
        self._form = form
        self._items: dict[int, Item | None] = {}  # by the upstream's index; None: dropped
        self._response = form.envelope({})
        self._identity: str | None = None  # of the response: the first
        self._ended: set[Hashable] = set()  # texts that get no more
        self._heard: dict[Hashable, _Heard] = {}  # texts that may get more
        self._parts_ended: set[Hashable] = set()

    def read(self, event: Event) -> dict[str, Any] | None:
        return None if is_done(event.data) else super().read(event)

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        kind = document.get("type")
        if not isinstance(kind, str) or name not in ("", kind):
            return None
        if kind == "error":
            raise self.upstream_failed(_error(self._form.reported(document, UPSTREAM_REPORTED)))
        if kind in _BEGINNINGS:
            self._take_response(document)
            self.mark(Outgoing(kind, {"type": kind, "response": {**self._response, "output": []}}))
        elif kind in _ENDS:
            self._take_end(kind, document)
        else:
            self._take_about_item(kind, document)
        return None

    # Responses.

    def _take_response(self, document: dict[str, Any]) -> dict[str, Any]:
        response = _object(document.get("response"))
        self._response = self._form.envelope(response)
        if self._identity is None:
            self._identity = self._response["id"]
        self._response["id"] = self._identity
        return response

    def _take_end(self, kind: str, document: dict[str, Any]) -> None:
        response = self._take_response(document)
        if kind == "response.failed":
            error = self._form.failure(response.get("error"))
            raise self.upstream_failed(lambda: self._last(kind, {"error": error}, self._delivered()))
        repeated = self._match(listed(response.get("output")))
        for item in self._known():
            self._finish_item(item, None)
        if self.finish():
            self.write(self._last(kind, {}, repeated or self._known()))
            self.complete()

    def _last(self, kind: str, fields: dict[str, Any], items: list[Item]) -> Outgoing:
        output = [item.document(self.said) for item in items]
        status = kind.removeprefix("response.")
        return Outgoing(
            kind, {"type": kind, "response": {**self._response, "status": status, **fields, "output": output}}
        )

    def _match(self, output: list[Any]) -> list[Item]:
        """The items that a last response repeats; those that are new there are taken."""
        left = self._known()
        repeated: list[Item] = []
        for raw in output:
            item = _find(raw, left)
            if item is not None:
                left.remove(item)
                self._finish_item(item, raw)
            else:
                item = self._take_item(max(self._items, default=-1) + 1, raw)
                if item is not None:
                    self._finish_item(item, raw)
            if item is not None:
                repeated.append(item)
        return repeated

    def _known(self) -> list[Item]:
        return [item for item in self._items.values() if item is not None]

    def _delivered(self) -> list[Item]:
        return [item for item in self._known() if item.closed]

    # Items.

    def _take_about_item(self, kind: str, document: dict[str, Any]) -> None:
        base, _, verb = kind.rpartition(".")
        if kind not in self._form.progress and verb not in _verbs(base):
            return
        number = _index(document.get("output_index"))
        if base == "response.output_item":
            if document.get("item") is None:
                return
            if number not in self._items:
                self._take_item(number, document.get("item"))
            item = self._items[number]
            if item is not None and verb == "done":
                self._finish_item(item, document.get("item"))
            return
        item = self._items.get(number)
        if item is None or item.done:
            return
        if base in BY_EVENT:
            self._take_streamed(item, BY_EVENT[base], verb, document)
        elif base in PART_EVENTS:
            self._take_part_event(item, base, verb, document)
        else:
            self.mark(Outgoing(kind, {"type": kind, "item_id": item.id, "output_index": item.index}))

    def _take_item(self, number: int, raw: object) -> Item | None:
        """An item that was not there before. Returns None if it is dropped."""
        copied = self._form.item(raw)
        if copied is None or not tool_of(_object(raw), self.prepared.tools):
            self._items[number] = None
            return None
        index = len(self._known())
        identity = copied.root.get("id")
        item = Item(copied.root["type"], number, index, identity if isinstance(identity, str) else f"item_{index}")
        item.original = original_of(_object(raw))
        self._items[number] = item
        self._take_fields(item, copied)
        opening = item.opening()

        def announce() -> Outgoing:
            item.shown = True
            return self._event("response.output_item.added", item, {"item": opening})

        self.mark(announce)
        self._take_texts(item, copied, _object(raw))
        return item

    def _finish_item(self, item: Item, raw: object) -> None:
        """An item ends, as ``raw`` repeats it, or as it is."""
        if item.done:
            return
        if raw is not None:
            copied = self._form.item(raw)
            if copied is None or copied.root["type"] != item.kind or not tool_of(_object(raw), self.prepared.tools):
                raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _MALFORMED)
            self._take_fields(item, copied)
            self._take_texts(item, copied, _object(raw))
            item.original = original_of(_object(raw)) or item.original
        for part in item.parts.values():
            self._end_part(item, part)
        for path, streamed in item.leaves.items():
            self._end_leaf(item, streamed, path)
        item.done = True
        item.fixed.clear()

        def end() -> Outgoing:
            item.closed = True
            self._seal(item)
            return self._event("response.output_item.done", item, {"item": item.document(self.said)})

        self.mark(end)

    def _seal(self, item: Item) -> None:
        """Give an item that ends the seal of what is encrypted in it."""
        original, item.original = item.original, {}
        seals = self.prepared.seals
        if original and seals is not None:
            token = seal(original, item.document(self.said), seals, self.prepared.model)
            item.fields["encrypted_content"] = token

    def _take_fields(self, item: Item, copied: Document) -> None:
        for text in copied.texts:
            if text.origin[0] not in part_lists(item.kind) and _leaf(item, text) is None:
                written = self._written(item, text)
                if written is None:
                    return  # blocked: nothing of it will be written
                copied.put(text, written)
        item.take(copied.root)

    def _written(self, item: Item, text: Text) -> str | None:
        known = item.fixed.get(text.origin)
        if known is not None and known[0] == text.text:
            return known[1]
        written = self.whole_text(text)
        if written is not None:
            item.fixed[text.origin] = (text.text, written)
        return written

    def _take_texts(self, item: Item, copied: Document, raw: dict[str, Any]) -> None:
        """The streamed texts of an item that appear in it for the first time."""
        for name in part_lists(item.kind):
            for number, part in enumerate(listed(raw.get(name))):
                self._take_part(item, (name, number), part, "")
        for text in copied.texts:
            streamed = _leaf(item, text)
            if streamed is not None:
                self._take_whole(item, streamed, text.origin, text.text)

    # Parts.

    def _take_part_event(self, item: Item, base: str, verb: str, document: dict[str, Any]) -> None:
        name, index = PART_EVENTS[base]
        raw = document.get("part")
        if name not in part_lists(item.kind) or self._form.item({"type": item.kind, name: [raw]}) is None:
            return
        part = self._take_part(item, (name, _index(document.get(index))), _object(raw), base)
        if part is not None and verb == "done":
            self._end_part(item, part)

    def _take_part(self, item: Item, at: tuple[str, int], raw: dict[str, Any], event: str) -> Part | None:
        streamed = PARTS.get((item.kind, at[0], str(raw.get("type"))))
        part = self._part(item, at, streamed, event) if streamed is not None else None
        if part is not None and part.streamed is streamed:
            text = raw.get(part.streamed.field)
            if isinstance(text, str):
                self._take_whole(item, part.streamed, (*at, part.streamed.field), text)
        return part

    def _part(self, item: Item, at: tuple[str, int], streamed: Streamed, event: str = "") -> Part:
        """The part at a place, announced if it is new."""
        known = item.parts.get(at)
        if known is not None:
            return known
        part = item.add_part(streamed, at, event)

        def announce() -> Outgoing:
            part.shown = True
            return self._part_event("added", item, part, "")

        self.mark(announce)
        return part

    def _end_part(self, item: Item, part: Part) -> None:
        if part.key in self._parts_ended:
            return
        self._end_text(part.key, lambda: self._part_text_done(item, part))
        self._parts_ended.add(part.key)
        self.mark(lambda: self._part_done(item, part))

    # Texts.

    def _take_streamed(self, item: Item, streamed: Streamed, verb: str, document: dict[str, Any]) -> None:
        if item.kind != streamed.item:
            return
        number = _index(document.get(streamed.counter)) if streamed.counter else 0
        path: Path
        if streamed.part:
            part = self._part(item, (streamed.place[0], number), streamed)
            if part.streamed is not streamed:
                return
            path = part.path
        else:
            path = (*streamed.place, number) if streamed.counter else streamed.place
        text = document.get("delta" if verb == "delta" else streamed.field)
        if text is not None and not isinstance(text, str):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _MALFORMED)
        if verb == "delta":
            self._feed(item, streamed, path, text or "")
            return
        if verb == "added":
            self.mark(self._text_event(item, streamed, path, "added", {streamed.field: ""}))
        self._take_whole(item, streamed, path, text or "")
        if verb == "done":
            if streamed.part:
                ended = item.parts[streamed.place[0], number]
                self._end_text(ended.key, lambda: self._part_text_done(item, ended))
            else:
                self._end_leaf(item, streamed, path)

    def _take_whole(self, item: Item, streamed: Streamed, path: Path, text: str) -> None:
        """A whole text: what is new in it."""
        heard = self._heard.get(item.key(path))
        self._feed(item, streamed, path, text if heard is None else heard.rest(text))

    def _feed(self, item: Item, streamed: Streamed, path: Path, text: str) -> None:
        key = item.key(path)
        if not text or key in self._ended:
            return
        if not self.is_open(key):
            if not streamed.part:
                item.leaves[path] = streamed
            document = self._text_event(item, streamed, path, "delta", {"delta": HOLE})
            self.open(key, self._view(streamed.channel), document)
            self._heard[key] = _Heard()
        self._heard[key].add(text)
        self.feed(key, text)

    def _view(self, channel: str) -> View:
        """Where the server splits the thinking off, a model's usual opening inside a thought does not apply."""
        split = any(item.kind == "reasoning" for item in self._known())
        return view_of(channel, "" if split else self.prepared.model)

    def _end_leaf(self, item: Item, streamed: Streamed, path: Path) -> None:
        key = item.key(path)
        self._end_text(key, lambda: self._text_event(item, streamed, path, "done", {streamed.field: self.said(key)}))

    def _end_text(self, key: Hashable, event: Any) -> None:
        if key not in self._ended:
            self._ended.add(key)
            self._heard.pop(key, None)
            if self.is_open(key):
                self.close(key)
            self.mark(event)

    # Events.

    def _event(self, kind: str, item: Item, fields: dict[str, Any]) -> Outgoing:
        return Outgoing(kind, {"type": kind, "output_index": item.index, **fields})

    def _text_event(self, item: Item, streamed: Streamed, path: Path, verb: str, fields: dict[str, Any]) -> Outgoing:
        place: dict[str, Any] = {"item_id": item.id}
        if streamed.part:
            place[streamed.counter] = item.parts[str(path[0]), int(path[1])].position
        elif streamed.counter:
            place[streamed.counter] = path[-1]
        if streamed.part == "output_text":
            fields = {**fields, "logprobs": []}
        return self._event(f"{streamed.event}.{verb}", item, {**place, **fields})

    def _part_text_done(self, item: Item, part: Part) -> Outgoing:
        part.text_closed = True
        return self._text_event(item, part.streamed, part.path, "done", {part.streamed.field: self.said(part.key)})

    def _part_event(self, verb: str, item: Item, part: Part, text: str) -> Outgoing:
        place = {"item_id": item.id, part.streamed.counter: part.position, "part": part.document(text)}
        return self._event(f"{part.event}.{verb}", item, place)

    def _part_done(self, item: Item, part: Part) -> Outgoing:
        part.closed = True
        return self._part_event("done", item, part, self.said(part.key))

    # Ends.

    def upstream_ended(self) -> None:
        raise UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, "The upstream ended the stream early.")

    def was_cut(self, lane: int) -> None:
        for item in self._known():
            if item.prose and item.shown and not item.closed:
                self._cut_item(item)
        details = {"incomplete_details": {"reason": "content_filter"}}
        self.write(self._last("response.incomplete", details, self._delivered()))
        self.complete()

    def _cut_item(self, item: Item) -> None:
        item.parts = {at: part for at, part in item.parts.items() if part.shown}
        for part in open_parts(item):
            if not part.text_closed:
                self.write(self._part_text_done(item, part))
            self.write(self._part_done(item, part))
        item.fields["status"] = "incomplete"
        item.closed = True
        self.write(self._event("response.output_item.done", item, {"item": item.document(self.said)}))

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return _error(error_object(kind, message))


def _error(error: dict[str, Any]) -> Outgoing:
    return Outgoing("error", {"type": "error", **error})


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _MALFORMED)
    return value


def _index(value: object) -> int:
    if not CHECKS["index"](value) or not isinstance(value, int):  # in this order: compiled code reads True as 1
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _MALFORMED)
    return value


def _verbs(base: str) -> tuple[str, ...]:
    """How the events go on whose names begin so."""
    if base == "response.output_item" or base in PART_EVENTS:
        return ("added", "done")
    streamed = BY_EVENT.get(base)
    if streamed is None:
        return ()
    return ("added", "delta", "done") if streamed.counter and not streamed.part else ("delta", "done")


def _leaf(item: Item, text: Text) -> Streamed | None:
    names = tuple(step for step in text.origin if isinstance(step, str))
    return LEAVES.get((item.kind, names))


def _find(raw: object, items: list[Item]) -> Item | None:
    """Which of ``items`` a copy is of: the one of its type and id, or else the first of its type."""
    if not isinstance(raw, dict):
        return None
    alike = [item for item in items if item.kind == raw.get("type")]
    return next((item for item in alike if item.id == raw.get("id")), alike[0] if alike else None)
