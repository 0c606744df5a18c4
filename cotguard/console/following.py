"""An exchange followed piece by piece: what came in, what was decided of it, what was written, and who holds the rest.

An observer (:mod:`cotguard.moderation.observer`) that keeps text, for as long as somebody looks at it. After each piece
it is told that a *step* is over and notes which channels changed or hold text.

Channels are numbered in the order in which they got text. Offsets are code points: of *raw*, a channel's text as
detectors read it, and of *delivered*, what was written for it. Edits lead from one to the other.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

from cotguard.classifier.handover import pause
from cotguard.detectors.placeholders import PLACEHOLDER
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.observer import REQUEST
from cotguard.moderation.verdict import Outcome
from cotguard.moderation.view import Edit
from cotguard.policy import Policy, rule_sentence
from cotguard.spans import Action, ChannelKind, Span

__all__ = ["MAX_ENTRIES", "Following"]

MAX_ENTRIES = 60_000
"""What all steps tell together: an entry for each channel that changed or holds text."""

_TURN_CHARS: Final = 8192
_TOO_MANY: Final = "source: too many channels hold text for too long to tell it step by step; send a shorter one"
_RESTORED: Final = "A placeholder of this exchange: its value is written again."
_TAKEN_FOR_ONE: Final = "What reads as a placeholder and is none is replaced, whatever the rules say."

_Reason = Callable[[int], str]
"""The sentence for a rule, by its index."""


@dataclass(frozen=True, slots=True)
class _Decided:
    """As the observer was told."""

    span: Span
    kind: ChannelKind
    action: Action
    outcome: Outcome
    rule: int


@dataclass(frozen=True, slots=True)
class _Written:
    """How far a channel was written. ``edits`` and ``pieces`` are how many there were."""

    released: int = 0
    chars: int = 0
    edits: int = 0
    pieces: int = 0
    end_of_block: int | None = None


class _Followed:
    """One channel: the observer of it. ``touched`` gets those that were told something since the last step."""

    def __init__(self, lane: int, key: Hashable, kind: ChannelKind, touched: "dict[_Followed, None]") -> None:
        self.lane = lane
        self.key = key
        self.kind = kind
        self.number = -1
        self._touched = touched
        self._raw: list[str] = []
        self._raw_chars = 0
        self._kinds: list[tuple[int, ChannelKind]] = []
        self._decided: list[_Decided] = []
        self._passed: set[Span] = set()
        self._edits: list[Edit] = []
        self._pieces: list[str] = []
        self._written = _Written()
        self._settled = _Written()  # at the end of the last step
        self._told = (0, 0, 0)

    # The observer.

    def received(self, text: str, kind: ChannelKind) -> None:
        self._touched[self] = None
        if text and (not self._kinds or self._kinds[-1][1] is not kind):
            self._kinds.append((self._raw_chars, kind))
        self._raw.append(text)
        self._raw_chars += len(text)
        if len(text) >= _TURN_CHARS:
            pause()

    def decided(self, span: Span, kind: ChannelKind, action: Action, outcome: Outcome, rule: int) -> None:
        self._decided.append(_Decided(span, kind, action, outcome, rule))

    def passed(self, span: Span) -> None:
        self._passed.add(span)

    def wrote(self, start: int, end: int, edits: Sequence[Edit], text: str) -> None:
        self._touched[self] = None
        self._edits += edits
        self._pieces.append(text)
        chars, block = self._written.chars + len(text), self._written.end_of_block
        self._written = _Written(end, chars, len(self._edits), len(self._pieces), block)

    def blocked(self, end: int) -> None:
        self._touched[self] = None
        now = self._written
        self._written = _Written(now.released, now.chars, now.edits, now.pieces, end)

    # What became of it.

    @property
    def is_cut(self) -> bool:
        """Whether a block ended it."""
        return self._written.end_of_block is not None

    def settle(self) -> None:
        """What was written so far was delivered."""
        self._settled = self._written

    def undo(self) -> None:
        """What was written since then was not."""
        self._written = self._settled
        del self._edits[self._written.edits :], self._pieces[self._written.pieces :]

    def entry(self, why: list[str], *, held: bool) -> dict[str, Any] | None:
        """What a step tells of it, if anything. ``held``: it was told to hold text."""
        told = self._raw_chars, self._written.released, self._written.chars
        if told == self._told and not (why or held):
            return None
        self._told = told
        return {"channel": self.number, "received": told[0], "released": told[1], "written": told[2], "why": why}

    def told(self, label: str, reason: _Reason, *, cut: bool) -> dict[str, Any]:
        """All of it, as JSON. ``cut``: a block ended its lane."""
        return {
            "lane": max(self.lane, 0),
            "kind": self.kind.value,
            "label": label,
            "kinds": [[start, kind.value] for start, kind in self._kinds],
            "raw": "".join(self._raw),
            "delivered": "".join(self._pieces),
            "spans": self._spans(reason, cut=cut),
            "edits": self._all_edits(),
        }

    def _spans(self, reason: _Reason, *, cut: bool) -> list[dict[str, Any]]:
        """What was decided, but for what stands behind a block: how much of that was read depends on the cuts."""
        end = self._written.end_of_block or self._written.released
        found = [each for each in self._decided if not cut or each.span.start < end]
        found.sort(key=lambda each: (each.span.start, each.span.end))
        return [self._span(each, reason) for each in found]

    def _span(self, decided: _Decided, reason: _Reason) -> dict[str, Any]:
        span = decided.span
        outcome = Outcome.ALLOWED if span in self._passed else decided.outcome
        return {
            "start": span.start,
            "end": span.end,
            "entity": span.entity,
            "score": span.score,
            "detector": span.detector,
            "action": decided.action.value,
            "outcome": outcome.value,
            "kind": decided.kind.value,
            "rule": decided.rule,
            "rule_text": _text(decided, reason),
        }

    def _all_edits(self) -> list[list[Any]]:
        """Edits in their order; what is not written in the end is taken out."""
        edits: list[list[Any]] = []
        for start, end, text in [*self._edits, (self._written.released, self._raw_chars, "")]:
            if edits and not text and edits[-1][1] == start:
                edits[-1][1] = end
            elif start < end:
                edits.append([start, end, text])
        return edits


def _text(decided: _Decided, reason: _Reason) -> str:
    if decided.outcome is Outcome.RESTORED:
        return _RESTORED
    if decided.span.entity == PLACEHOLDER:
        return _TAKEN_FOR_ONE
    return reason(decided.rule)


class Following:
    """See the module. Texts of the request are followed if ``requests``."""

    def __init__(self, *, requests: bool = False) -> None:
        self.steps: list[list[dict[str, Any]]] = []
        self._requests = requests
        self._channels: list[_Followed] = []
        self._touched: dict[_Followed, None] = {}
        self._holding: dict[_Followed, None] = {}
        self._entries = 0

    def channel(self, lane: int, key: Hashable, kind: ChannelKind) -> _Followed | None:
        """Who follows a new channel, as an observer is asked."""
        return None if lane == REQUEST and not self._requests else _Followed(lane, key, kind, self._touched)

    @property
    def is_cut(self) -> bool:
        """Whether a block ended anything."""
        return any(channel.is_cut for channel in self._channels)

    def step(self, exchange: Exchange | None) -> None:
        """A piece came in, and what was written because of it was delivered. Without an exchange nothing is held now.

        Raises ``ValueError`` if there is too much to tell.
        """
        entries: list[dict[str, Any]] = []
        holding, self._holding = self._holding, {}
        for channel in {**holding, **self._touched}:
            channel.settle()
            why = [] if exchange is None or channel.key is None else exchange.lane(channel.lane).why(channel.key)
            entry = channel.entry(why, held=channel in holding)
            if entry is None:
                continue
            if channel.number < 0:
                channel.number = entry["channel"] = len(self._channels)
                self._channels.append(channel)
            if why:
                self._holding[channel] = None
            entries.append(entry)
        self._touched.clear()
        self._entries += len(entries)
        if self._entries > MAX_ENTRIES:
            raise ValueError(_TOO_MANY)
        self.steps.append(sorted(entries, key=lambda entry: int(entry["channel"])))

    def undo(self) -> None:
        """What was written in the step under way was not delivered."""
        for channel in self._touched:
            channel.undo()

    def told(self, policy: Policy) -> list[dict[str, Any]]:
        """All channels, as JSON."""
        lanes = {channel.lane for channel in self._channels if channel.lane != REQUEST}
        alike = Counter((channel.lane, channel.kind) for channel in self._channels)
        cut = {channel.lane for channel in self._channels if channel.is_cut}
        reason = cache(partial(rule_sentence, policy))
        seen: Counter[tuple[int, ChannelKind]] = Counter()
        told = []
        for channel in self._channels:
            place = channel.lane, channel.kind
            seen[place] += 1
            label = f"{channel.kind.value} {seen[place]}" if alike[place] > 1 else channel.kind.value
            if len(lanes) > 1 and channel.lane != REQUEST:
                label += f", choice {channel.lane + 1}"
            told.append(channel.told(label, reason, cut=channel.lane in cut))
        return told
