"""One choice of a Chat Completions response: which text feeds which channel, and what carries it back.

Streamed and whole responses share this: a delta and a message have the same fields.

1. The table finds the texts of a message. Fields of one channel that hold the same text in the same message are
   copies: the text is fed once, and what is released is written to all of them.
2. A field whose text differs from the channel's first field gets a channel of its own, from then on: moderated apart,
   so that neither version can hide in the other.
3. A signature ends the channel of its text: what follows is another's. Its seal is made of the channel's text as it
   came and as it was delivered, both of which are kept until then.
4. A channel's released text is written in the form of its latest upstream fragment (a string, a part of a list ...).

Limits: a field that stops being a copy midway (no server known does this) misses the text that was on hold at that
moment, and of a value across it the detectors see only what comes after. A list of several parts of one channel is
one text; what is on hold at a part's end is written to the next part.
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from cotguard.dialects.channels import KINDS
from cotguard.dialects.chat.format import Format, as_object
from cotguard.dialects.chat.sealed import CARRIERS, Signed, signature_of, signed_item, signed_message
from cotguard.dialects.chat.tools import ToolCalls
from cotguard.dialects.contract import ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.stream import MAX_KEPT_CHARS
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


class _Kept:
    """The text of a channel that may be signed: as it came, and as it was delivered."""

    __slots__ = ("raw", "said")

    def __init__(self) -> None:
        self.raw: list[str] = []
        self.said: list[str] = []


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
        self._carried: dict[str, Hashable] = {}  # the channel of the texts in each carrier
        self._generations: dict[Hashable, int] = {}  # how many signatures ended a channel
        self._seals = prepared.seals
        self._kept: dict[Hashable, _Kept] = {}
        self._kept_chars = 0
        self._carrier = ""  # of what was signed
        self._without_text = 0

    def read(self, message: Mapping[str, object]) -> tuple[dict[str, object], list[Piece | Signed]]:
        """What of a message is to be written at once, and its texts and signatures in the order in which to take them.

        Opens the channels that are new. Raises :class:`UpstreamFault`.
        """
        reading = self._form.message.read(message)
        opening = self._form.opening.read(message).structure | reading.empties
        fresh = {name: value for name, value in opening.items() if name not in self._said}
        signed = {} if self._seals is None else self._signed(message)
        pieces = self._group(reading.places, signed)
        self._said.update(fresh)
        for piece in pieces:
            if isinstance(piece, Piece):
                self._said.update(piece.fragment)
        if self._seals is not None and (signature := signature_of(message)):
            pieces.append(self._alone(signed_message(signature)))
        pieces.extend(self._read_calls(message))
        return fresh, pieces

    def take_text(self, key: Hashable, text: str) -> None:
        """Feed a channel."""
        kept = self._kept.get(key)
        if kept is not None:
            self._kept_chars += len(text)
            if self._kept_chars > MAX_KEPT_CHARS:
                raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's signed reasoning is too long.")
            kept.raw.append(text)
        self.lane.feed(key, text)

    def take_signed(self, signed: Signed) -> None:
        """End the channel that a signature is of: it stands behind the text, or in place of one."""
        if signed.ended is not None:
            self.lane.end(signed.ended)
        self.lane.end(signed.key, signed)

    def end_calls(self) -> None:
        """The choice's calls are complete."""
        if self._seals is not None:
            for signed in self._calls.signed():
                self.take_signed(signed)

    def delivered(self, key: Hashable, text: str) -> None:
        """Text of a channel goes to the client."""
        kept = self._kept.get(key)
        if kept is not None:
            kept.said.append(text)

    def token(self, signed: Signed) -> dict[str, object]:
        """The object with the token for a signature whose text has been delivered."""
        kept = self._kept.pop(signed.key, None) or _Kept()
        self._kept_chars -= sum(map(len, kept.raw))
        if self._seals is None:
            return {}
        return signed.token("".join(kept.raw), "".join(kept.said), self._seals, self._prepared.model)

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

    def _group(self, places: list[Place], signed: Mapping[str, Mapping[int, Signed]]) -> list[Piece | Signed]:
        """Texts by channel: copies joined to the first field's piece, fields that differ apart.

        ``signed``: signatures by the list and number of their items. They stand behind the items' texts.
        """
        counts = Counter((place.channel, place.path[0]) for place in places)
        leaders: dict[str, Piece] = {}
        pieces: list[Piece | Signed] = []
        due = {carrier: list(items.items()) for carrier, items in signed.items()}
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
                    self._carry(top[1], (place.channel,))
                    continue
                if top != first:
                    self._apart.add(top)
            base: Hashable = top if top in self._apart else (place.channel,)
            self._carry(top[1], base)
            self._sign(pieces, due, top[1], place.path)
            piece = Piece(self._key(base), place.text, dict(place.fragment), [place.path])
            pieces.append(piece)
            if top not in self._apart:
                leaders.setdefault(place.channel, piece)
            if not self.lane.is_open(piece.key):
                self.lane.open(piece.key, self._view(place.channel))
        for carrier in due:
            self._sign(pieces, due, carrier, ())
        return pieces

    def _signed(self, message: Mapping[str, object]) -> dict[str, dict[int, Signed]]:
        """What is signed in a message, by the list and number of the item. Of lists that are copies one is served."""
        found: dict[str, dict[int, Signed]] = {}
        for carrier in (self._carrier,) if self._carrier else CARRIERS:
            items = message.get(carrier)
            for number, item in enumerate(items if isinstance(items, list) else ()):
                if (signed := signed_item(carrier, item)) is not None:
                    found.setdefault(carrier, {})[number] = signed
            if found:
                self._carrier = carrier
                break
        return found

    def _key(self, base: Hashable) -> Hashable:
        """The channel that goes on in the texts of some fields: signatures end the ones before."""
        generation = self._generations.get(base)
        return (base, generation) if generation else base

    def _carry(self, name: Step, base: Hashable) -> None:
        """Keep the texts of a field whose items may be signed."""
        if self._seals is not None and isinstance(name, str) and name in CARRIERS:
            self._carried[name] = base
            self._kept.setdefault(self._key(base), _Kept())

    def _sign(
        self,
        pieces: list[Piece | Signed],
        due: dict[str, list[tuple[int, Signed]]],
        carrier: Step,
        path: tuple[Step, ...],
    ) -> None:
        """Add the signatures of items that stand before the one at ``path``, or all that are left."""
        items = due.get(carrier) if isinstance(carrier, str) else None
        until = path[1] if len(path) > 1 else None
        while items and isinstance(carrier, str) and (not isinstance(until, int) or items[0][0] < until):
            _, signed = items.pop(0)
            base = self._carried.get(carrier)
            key = None if base is None or not self.lane.is_open(self._key(base)) else self._key(base)
            if key is not None:
                self._generations[base] = self._generations.get(base, 0) + 1
            if key is not None and signed.text:
                signed.key = key
                pieces.append(signed)
            else:
                signed.ended = key
                pieces.append(self._alone(signed))

    def _alone(self, signed: Signed) -> Signed:
        """A signature without a text: it has a place among them."""
        signed.key = ("signed", self._without_text)
        self._without_text += 1
        self.lane.open(signed.key, PlainView(ChannelKind.REASONING))
        return signed

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
                if self._seals is not None:
                    self._kept.setdefault(fed.key, _Kept())
        legacy = message.get("function_call")
        if legacy is not None:
            fed = self._calls.read_legacy(as_object(legacy))
            if fed is not None:
                found.append(Piece(fed.key, fed.text, fed.fragment, [("function_call", *fed.path)]))
        return found
