"""Tool calls of one choice: their names checked against the request, their arguments fed to channels.

A call is announced to the client once its name is one that the request declared; until then nothing of it leaves. A
call whose arguments begin under any other name is dropped with everything that follows in it. Calls are numbered
anew in the order of their announcement, so that no gap shows. A name is written as the client declared it.

Some servers send several calls under one index: a different id together with a name begins a new call.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cotguard.dialects.chat.sealed import Signed, signature_of, signed_call
from cotguard.dialects.contract import ErrorKind, UpstreamFault
from cotguard.dialects.table import HOLE, Shape, Step
from cotguard.moderation.exchange import Lane
from cotguard.moderation.json_view import JsonView
from cotguard.moderation.view import PlainView
from cotguard.spans import ChannelKind

__all__ = ["Fed", "ToolCalls"]

_MAX_CALLS = 1024
_LEGACY = -1
_TEXT_FIELDS = {"function": "arguments", "custom": "input"}


@dataclass(frozen=True, slots=True)
class Fed:
    """Text of an announced call, with the place where it stood in the call's object."""

    key: Hashable
    text: str = field(repr=False)
    fragment: dict[str, object]
    path: tuple[Step, ...]


@dataclass(slots=True)
class _Call:
    form: str
    id: Any = None  # not `object`, which mypyc cannot look up here
    name: str = field(default="", repr=False)
    index: Any = None  # not `object`, which mypyc cannot look up here
    key: Hashable = None
    dropped: bool = False
    fragment: dict[str, object] = field(default_factory=dict)
    signature: str = field(default="", repr=False)
    signed: Any = None  # beside what its signature stands

    @property
    def pending(self) -> bool:
        return self.key is None and not self.dropped


class ToolCalls:
    """See the module. ``streamed``: calls come in deltas, each with its index, and only the first describes them."""

    def __init__(self, lane: Lane, shape: Shape, declared: frozenset[str], *, streamed: bool) -> None:
        self.opened = 0
        self._lane = lane
        self._shape = shape
        self._declared = declared
        self._streamed = streamed
        self._calls: dict[int, _Call] = {}  # the latest call under each upstream index

    def read(self, item: Mapping[str, object], position: int) -> Fed | None:
        """Take an element of ``tool_calls``. Raises :class:`UpstreamFault`."""
        index = item.get("index")
        return self._read(item, index if type(index) is int and 0 <= index < _MAX_CALLS else position)

    def read_legacy(self, item: Mapping[str, object]) -> Fed | None:
        """Take a ``function_call``. Raises :class:`UpstreamFault`."""
        fed = self._read({"function": item}, _LEGACY)
        return None if fed is None else Fed(fed.key, fed.text, fed.fragment, fed.path[1:])

    def signed(self) -> list[Signed]:
        """The signatures of calls that were announced."""
        announced = [call for call in self._calls.values() if call.signature and call.signed is not None]
        return [signed_call(call.signature, call.key, call.name, call.signed) for call in announced]

    def _read(self, item: Mapping[str, object], index: int) -> Fed | None:
        reading = self._shape.read(item)
        identity = reading.structure.get("id")
        form = "custom" if isinstance(item.get("custom"), dict) else "function"
        body = reading.structure.get(form)
        part = body.get("name") if isinstance(body, dict) else None
        name = part if isinstance(part, str) else ""
        call = self._calls.get(index)
        if call is None or (name and identity and call.id and identity != call.id):
            if len(self._calls) >= _MAX_CALLS or self.opened >= _MAX_CALLS:
                raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's response has too many tool calls.")
            call = self._calls[index] = _Call(form, index=reading.structure.get("index"))
        call.id = call.id or identity
        call.signature = call.signature or signature_of(item)
        place = next((place for place in reading.places if place.path == (call.form, _TEXT_FIELDS[call.form])), None)
        self._name(call, name, legacy=index == _LEGACY)
        if call.key is None:
            call.dropped = call.dropped or place is not None
            return None
        return None if place is None else Fed(call.key, place.text, call.fragment, place.path)

    def _name(self, call: _Call, part: str, *, legacy: bool) -> None:
        if call.pending:
            call.name += part
            if call.name in self._declared:
                self._announce(call, legacy=legacy)
            elif not any(name.startswith(call.name) for name in self._declared):
                call.dropped = True
        elif part and part != call.name and not call.dropped:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream changed the name of a tool call.")

    def _announce(self, call: _Call, *, legacy: bool) -> None:
        text_field = _TEXT_FIELDS[call.form]
        if legacy:
            call.key = ("function",)
            call.fragment = {"function_call": {text_field: HOLE}}
            head: dict[str, object] = {"function_call": {"name": call.name, text_field: HOLE}}
        else:
            call.key = ("tool", self.opened)
            call.signed = {"index": self.opened} if self._streamed else {}
            index = {"index": self.opened} if self._streamed or call.index is not None else {}
            identity = {"id": call.id} if call.id is not None else {}
            call.fragment = {"tool_calls": [{**index, call.form: {text_field: HOLE}}]}
            described = {"type": call.form, call.form: {"name": call.name, text_field: HOLE}}
            head = {"tool_calls": [{**index, **identity, **described}]}
        if not self._streamed:
            call.fragment = head  # one object holds the whole call
        self.opened += 1
        view = JsonView() if call.form == "function" else PlainView(ChannelKind.TOOL_CALL)
        self._lane.open(call.key, view, head)
