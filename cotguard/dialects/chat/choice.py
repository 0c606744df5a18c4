"""One choice of a Chat Completions response: which text feeds which channel, and what carries it back.

Streamed and whole responses share this: a delta and a message have the same fields.

1. The table finds the texts of a message. Fields of one channel that hold the same text in the same message are
   copies: the text is fed once, and what is released is written to all of them.
2. A field whose text differs from the channel's first field gets a channel of its own, from then on: moderated apart,
   so that neither version can hide in the other.
3. A channel's released text is written in the form of its latest upstream fragment (a string, a part of a list ...).

Limits: a field that stops being a copy midway (no server known does this) misses the text that was on hold at that
moment, and of a value across it the detectors see only what comes after. A list of several parts of one channel is
one text; what is on hold at a part's end is written to the next part.
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from cotguard.dialects.channels import KINDS
from cotguard.dialects.chat.format import Format, as_object
from cotguard.dialects.chat.tools import ToolCalls
from cotguard.dialects.contract import ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.table import Place, Step
from cotguard.moderation.exchange import Emission, Lane
from cotguard.moderation.markers import MarkerView, initial_kind
from cotguard.moderation.view import PlainView, View
from cotguard.spans import ChannelKind

__all__ = ["Choice", "Piece"]

_STOP_FIELDS = ("stop_reason", "matched_stop")
_CALLING = frozenset({"tool_calls", "function_call"})


@dataclass(slots=True)
class Piece:
    """Text for a channel, the fragment that carries it, and every place in the message where it stands."""

    key: Hashable
    text: str = field(repr=False)
    fragment: dict[str, object]
    paths: list[tuple[Step, ...]]


class Choice:
    """See the module. ``over`` is set by the owner once a finish reason was written."""

    def __init__(self, index: int, lane: Lane, form: Format, prepared: Prepared, *, streamed: bool) -> None:
        self.index = index
        self.lane = lane
        self.over = False
        self.fragments: dict[Hashable, dict[str, object]] = {}
        self._form = form
        self._prepared = prepared
        self._calls = ToolCalls(lane, form.tool_call, prepared.tools, streamed=streamed)
        self._said: set[str] = set()
        self._apart: set[tuple[str, Step]] = set()

    def read(self, message: Mapping[str, object]) -> tuple[dict[str, object], list[Piece]]:
        """What of a message is to be written at once, and its texts in the order in which to feed them.

        Opens the channels that are new. Raises :class:`UpstreamFault`.
        """
        reading = self._form.message.read(message)
        opening = self._form.opening.read(message).structure | reading.empties
        fresh = {name: value for name, value in opening.items() if name not in self._said}
        pieces = self._group(reading.places)
        self._said.update(fresh)
        for piece in pieces:
            self._said.update(piece.fragment)
        pieces.extend(self._read_calls(message))
        return fresh, pieces

    def fragment(self, emission: Emission) -> dict[str, object]:
        """The object that carries an emission, with a hole for its text."""
        return emission.head if isinstance(emission.head, dict) else self.fragments[emission.key]

    def finish(self, reason: object, item: Mapping[str, object]) -> dict[str, object]:
        """The finish reason to write, with the stop string if the client had asked for it."""
        known = reason if isinstance(reason, str) and reason in self._form.finish_reasons else "stop"
        if known in _CALLING and not self._calls.opened:
            known = "stop"
        found: dict[str, object] = {"finish_reason": known}
        for name in _STOP_FIELDS:
            value = item.get(name)
            if isinstance(value, str) and value in self._prepared.stops:
                found[name] = value
        return found

    def _group(self, places: list[Place]) -> list[Piece]:
        """Texts by channel: copies joined to the first field's piece, fields that differ apart."""
        counts = Counter((place.channel, place.path[0]) for place in places)
        leaders: dict[str, Piece] = {}
        pieces: list[Piece] = []
        for place in places:
            top = (place.channel, place.path[0])
            leader = leaders.get(place.channel)
            if place.channel == "other":
                self._apart.add(top)
            elif leader is not None and top not in self._apart:
                first = (place.channel, leader.paths[0][0])
                if top != first and counts[top] == counts[first] == 1 and place.text == leader.text:
                    leader.fragment |= place.fragment
                    leader.paths.append(place.path)
                    continue
                if top != first:
                    self._apart.add(top)
            apart = top in self._apart
            piece = Piece(top if apart else (place.channel,), place.text, dict(place.fragment), [place.path])
            pieces.append(piece)
            if not apart:
                leaders.setdefault(place.channel, piece)
            if not self.lane.is_open(piece.key):
                self.lane.open(piece.key, self._view(place.channel))
        return pieces

    def _view(self, channel: str) -> View:
        if channel != "content":
            return PlainView(KINDS[channel])
        # Where the server splits reasoning off by itself, a model's usual opening inside a thought does not apply.
        split = self.lane.is_open(("reasoning",))
        return MarkerView(ChannelKind.OUTPUT if split else initial_kind(self._prepared.model))

    def _read_calls(self, message: Mapping[str, object]) -> list[Piece]:
        calls = message.get("tool_calls")
        if calls is not None and not isinstance(calls, list):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's tool calls are not a list.")
        found: list[Piece] = []
        for position, item in enumerate(calls or ()):
            fed = self._calls.read(as_object(item), position)
            if fed is not None:
                found.append(Piece(fed.key, fed.text, fed.fragment, [("tool_calls", position, *fed.path)]))
        legacy = message.get("function_call")
        if legacy is not None:
            fed = self._calls.read_legacy(as_object(legacy))
            if fed is not None:
                found.append(Piece(fed.key, fed.text, fed.fragment, [("function_call", *fed.path)]))
        return found
