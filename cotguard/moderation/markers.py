"""The view of ``content`` that may hold reasoning between markers, such as ``<think>`` and ``</think>``.

Text and raw text are the same. Markers decide the *kind* of the text around them, and with it the policy's rules;
never whether it is moderated.

1. The markers of ``markers.yaml``, in all their spellings, are compiled into automata that read a marker from where it
   begins. One search for the few characters that markers begin with finds those places.
2. The longest marker counts. Text that may still become a marker waits inside the view, so that the kind of all text
   that detectors see is final.
3. An opening marker begins reasoning, which lasts until a closing marker of its family. Families stand inside one
   another, but none inside itself: clients end a thought at the first closing marker, and so do we. Without an opening
   marker, a closing one ends reasoning that the prompt's template began.

Guarantees: text, kinds and what is written do not depend on how the text was cut. Markers count as reasoning, and stay
where text around them is rewritten. Work is linear; what waits is no longer than the longest spelling of a marker.

Known limits: reasoning that only a closing marker reveals has the kind that the view began with. A marker quoted in an
answer counts as a marker. A marker that ``final`` cuts in two is none.
"""

import fnmatch
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from importlib.resources import files
from typing import NamedTuple, TypedDict

import yaml

from cotguard.moderation.view import Edit, PlainView
from cotguard.spans import ChannelKind

__all__ = ["MarkerView", "initial_kind"]

_MAX_PADDING = 4
_SPACES = " \t\n\r"
_BRACKETS = frozenset("<>[]/|")
_MAX_MODEL_CHARS = 256


class _Role(Enum):
    OPEN = auto()
    CLOSE = auto()
    STRUCTURE = auto()


class _Marker(NamedTuple):
    family: str
    role: _Role


class _Automaton:
    """Reads one marker from where it begins. States are numbers; 0 is the first."""

    def __init__(self, markers: Mapping[str, _Marker], spellings: Mapping[str, Sequence[str]]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._accepted: list[_Marker | None] = [None]
        reached = {"": [0]}  # states after a prefix: the first, then those after white space that may follow it
        for text, marker in ((text.lower(), marker) for text, marker in markers.items()):
            for length in range(1, len(text) + 1):
                prefix, char = text[: length - 1], text[length - 1]
                if text[:length] not in reached:
                    reached[text[:length]] = [self._new_state()]
                sources = reached[prefix]
                if prefix and not _BRACKETS.isdisjoint(text[length - 2 : length]):
                    self._pad(sources)
                else:
                    sources = sources[:1]
                for source in sources:
                    for spelling in (char, *spellings.get(char, ())):
                        self._link(source, spelling, reached[text[:length]][0])
            self._accepted[reached[text][0]] = marker

    @property
    def first_chars(self) -> str:
        """Characters that markers begin with."""
        return "".join(sorted(self._next[0]))

    def _new_state(self) -> int:
        self._next.append({})
        self._accepted.append(None)
        return len(self._next) - 1

    def _pad(self, states: list[int]) -> None:
        while len(states) <= _MAX_PADDING:
            state = self._new_state()
            self._next[states[-1]].update(dict.fromkeys(_SPACES, state))
            states.append(state)

    def _link(self, state: int, spelling: str, target: int) -> None:
        """Lead from ``state`` to ``target`` by ``spelling``, which is in lower case, in any case."""
        for char in spelling[:-1]:
            following = self._next[state].get(char)
            if following is None:
                following = self._new_state()
                self._next[state].update({char: following, char.upper(): following})
            state = following
        if self._next[state].setdefault(spelling[-1], target) != target:
            raise ValueError("two spellings of marker characters are alike")
        self._next[state][spelling[-1].upper()] = target

    def match(self, text: str, at: int) -> tuple[_Marker | None, int, bool]:
        """The longest marker at ``at``, its end, and whether more text could make it longer or make one at all."""
        state, found, end = 0, None, at
        for index in range(at, len(text)):
            following = self._next[state].get(text[index])
            if following is None:
                return found, end, False
            state = following
            if self._accepted[state] is not None:
                found, end = self._accepted[state], index + 1
        return found, end, bool(self._next[state])


class _Data(TypedDict):
    """``markers.yaml``, described there."""

    families: dict[str, dict[str, list[str]]]
    tags: list[str]
    structure: list[str]
    spellings: dict[str, list[str]]
    opened_by_template: list[str]


def _load() -> _Data:
    data: _Data = yaml.safe_load((files("cotguard.moderation") / "markers.yaml").read_text("utf-8"))
    return data


def _markers(data: _Data) -> dict[str, _Marker]:
    """The markers that count anywhere."""
    markers = _family_markers(data, "")
    for tag in data["tags"]:
        markers[f"<{tag}>"] = _Marker(tag, _Role.OPEN)
        markers[f"</{tag}>"] = _Marker(tag, _Role.CLOSE)
    return markers | dict.fromkeys(data["structure"], _Marker("", _Role.STRUCTURE))


def _family_markers(data: _Data, suffix: str) -> dict[str, _Marker]:
    markers: dict[str, _Marker] = {}
    for name, family in data["families"].items():
        markers |= dict.fromkeys(family.get("open" + suffix, ()), _Marker(name, _Role.OPEN))
        markers |= dict.fromkeys(family.get("close" + suffix, ()), _Marker(name, _Role.CLOSE))
    return markers


_DATA = _load()
_TAGS = frozenset(_DATA["tags"])
_ANYWHERE = _Automaton(_markers(_DATA), _DATA["spellings"])
_AT_LINE_START = _Automaton(_family_markers(_DATA, "_at_line"), _DATA["spellings"])
_TRIGGER = re.compile(f"[{re.escape(_ANYWHERE.first_chars)}\n]")
_OPENED_BY_TEMPLATE = re.compile("|".join(fnmatch.translate(pattern) for pattern in _DATA["opened_by_template"]))

_TEMPLATE = ""
"""The family of reasoning that the template began: not known before it ends."""


def initial_kind(model: str) -> ChannelKind:
    """The kind that ``content`` of ``model`` begins with, where the server leaves reasoning in it."""
    name = model[-_MAX_MODEL_CHARS:].rpartition("/")[2].lower()
    return ChannelKind.REASONING if _OPENED_BY_TEMPLATE.match(name) else ChannelKind.OUTPUT


class MarkerView(PlainView):
    """See the module. ``initial`` is the kind of text before the first marker."""

    __slots__ = ("_families", "_kinds", "_line_start", "_markers", "_turns", "_waiting")

    def __init__(self, initial: ChannelKind) -> None:
        super().__init__(initial)
        self._families = [_TEMPLATE] if initial is ChannelKind.REASONING else []  # those the text is inside of
        self._turns = [0]  # where kinds begin, and which
        self._kinds = [initial]
        self._markers: list[tuple[int, int]] = []  # those not yet rendered
        self._line_start = True  # the next character begins a line
        self._waiting = ""  # what may become a marker

    @property
    def waits(self) -> bool:
        return bool(self._waiting or self._pending)

    def feed(self, raw: str, final: bool) -> str:
        if self._pending or not raw.isascii():
            raw = self._pair_surrogates(raw, final)
        if self.markers:
            self.markers = []
        if self._waiting or self._line_start or _TRIGGER.search(raw) is not None:
            raw = self._recognise(self._waiting + raw, final)
        self._buffer += raw
        return raw

    def _recognise(self, text: str, final: bool) -> str:
        """Note the markers in ``text``, which begins where the buffer ends. Returns what need not wait."""
        offset = self._base + len(self._buffer)
        self._waiting = ""
        line_start, self._line_start = self._line_start, False
        at = 0
        while True:
            if not line_start:
                trigger = _TRIGGER.search(text, at)
                if trigger is None:
                    return text
                at = trigger.start()
                if text[at] == "\n":
                    at += 1
                    line_start = True
            marker, end, unfinished = (_AT_LINE_START if line_start else _ANYWHERE).match(text, at)
            if unfinished and not final:
                self._line_start = line_start
                self._waiting = text[at:]
                return text[:at]
            if marker is not None:
                self._pass(marker, offset + at, offset + end)
                at = end
            elif not line_start:
                at += 1
            line_start = False

    def _pass(self, marker: _Marker, start: int, end: int) -> None:
        self._markers.append((start, end))
        self.markers.append((start, end))
        if marker.role is _Role.STRUCTURE:
            return
        families = self._families
        if marker.role is _Role.OPEN:
            if marker.family not in families:
                families.append(marker.family)
        elif marker.family in families and not (families[0] == _TEMPLATE and marker.family not in _TAGS):
            del families[families.index(marker.family) :]
        elif families[:1] == [_TEMPLATE]:
            families.clear()
        self._turn(start, ChannelKind.REASONING)
        self._turn(end, ChannelKind.REASONING if families else ChannelKind.OUTPUT)

    def _turn(self, offset: int, kind: ChannelKind) -> None:
        if self._turns[-1] == offset:
            self._kinds[-1] = kind
        elif self._kinds[-1] is not kind:
            self._turns.append(offset)
            self._kinds.append(kind)

    def kind_at(self, offset: int) -> ChannelKind:
        return self._kinds[bisect_right(self._turns, offset) - 1]

    def parts(self, start: int, end: int) -> Sequence[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        at = start
        for index in range(bisect_right(self._markers, start, key=lambda marker: marker[1]), len(self._markers)):
            marker_start, marker_end = self._markers[index]
            if marker_start >= end:
                break
            if at < marker_start:
                found.append((at, marker_start))
            at = marker_end
        if at < end:
            found.append((at, end))
        return found

    def kind_until(self, offset: int, end: int) -> int:
        following = bisect_right(self._turns, offset)
        return min(self._turns[following], end) if following < len(self._turns) else end

    def spelt(self, start: int, end: int, edits: Sequence[Edit]) -> list[Edit]:
        return [
            (first, last, replacement)
            for edit_start, edit_end, replacement in edits
            for first, last in self.parts(edit_start, edit_end)
        ]

    def render(self, start: int, end: int, edits: Sequence[Edit]) -> str:
        if len(self._turns) > 1:
            passed = bisect_right(self._turns, end) - 1
            del self._turns[:passed], self._kinds[:passed]
        if self._markers:
            edits = self.spelt(start, end, edits)
            gone = bisect_right(self._markers, end, key=lambda marker: marker[1])
            del self._markers[:gone]
        return super().render(start, end, edits)
