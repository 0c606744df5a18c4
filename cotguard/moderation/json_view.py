"""The view of tool arguments: a JSON document that is cut at arbitrary places.

The *text* is the document with the escapes inside its strings, keys included, decoded (RFC 8259, section 7):
punctuation, whitespace, numbers and literals are there as they came. So detectors see
``{"mail": "a@b.example", "card": 4111111111111111}`` however the model spelt it.

1. Characters are read by the grammar into *leaves*: the content of a string, a number, or, from the first character
   that the grammar does not allow, the plain rest. What is between leaves is structure.
2. An edit applies to the leaves it covers, one by one: string content is replaced by the escaped replacement, a number
   as a whole by the replacement as a JSON string, the plain rest by the replacement as it is. Structure stays.
3. Strings are written anew from their decoded content, everything else as it came.

Guarantees: valid JSON in, valid JSON of the same structure out, whatever the edits are; without edits it parses to the
same value. Text, kinds and what is written do not depend on how the document was cut. No input raises. Work is linear.

Known limits: a half of a surrogate pair without its partner becomes U+FFFD. Control characters in strings, which the
grammar forbids and models write, are taken as content and written escaped. Nesting beyond ``MAX_DEPTH`` is taken as
plain text. Keys that become equal by being rewritten are not told apart. A document that goes on after ``final`` in the
middle of a number or of an escape is plain text from there.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from enum import Enum, IntEnum, auto
from sys import maxsize
from typing import NamedTuple

from cotguard.framing.json import dumps
from cotguard.moderation.view import Edit, PlainView, View
from cotguard.spans import ChannelKind

__all__ = ["MAX_DEPTH", "JsonView", "view_for"]

MAX_DEPTH = 1000
"""Arrays and objects inside one another."""

_SPACES = " \t\n\r"
_AFTER_SPACE = re.compile(r"[^ \t\n\r]")
_SCALAR_RUN = re.compile(r"[-+.0-9A-Za-z]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_STRING_STOP = re.compile(r'["\\]')
_ESCAPE = re.compile(
    r"""\\(?:(?P<short>["\\/bfnrt])"""
    r"|u(?P<high>[Dd][89ABab][0-9A-Fa-f]{2})\\u(?P<low>[Dd][C-Fc-f][0-9A-Fa-f]{2})"
    r"|u(?P<unit>[0-9A-Fa-f]{4}))"
)
_ESCAPE_BEGUN = re.compile(
    r"\\(?:u(?:[0-9A-Fa-f]{0,3}"
    r"|[Dd][89ABab][0-9A-Fa-f]{2}(?:\\(?:u(?:[Dd](?:[C-Fc-f][0-9A-Fa-f]?)?)?)?)?))?"
)
"""What may become an escape, or an escaped pair, when more text comes."""

_LITERALS = ("true", "false", "null")
_SHORT_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class _Reading(IntEnum):
    """What the grammar expects next, or the token it is inside."""

    VALUE = auto()
    VALUE_OR_END = auto()
    KEY = auto()
    KEY_OR_END = auto()
    COLON = auto()
    COMMA_IN_OBJECT = auto()
    COMMA_IN_ARRAY = auto()
    NOTHING = auto()
    IN_KEY = auto()
    IN_STRING = auto()
    IN_SCALAR = auto()
    PLAIN = auto()


class _Form(Enum):
    STRING = auto()
    NUMBER = auto()
    PLAIN = auto()


class _Leaf(NamedTuple):
    """``[start, end)`` in text offsets; ``end`` is ``maxsize`` while the leaf may go on."""

    start: int
    end: int
    form: _Form


_BEFORE_VALUE = (_Reading.VALUE, _Reading.VALUE_OR_END)
_BEFORE_KEY = (_Reading.KEY, _Reading.KEY_OR_END)
_GRAMMAR: dict[tuple[_Reading, str], _Reading | None] = {
    **{(reading, '"'): _Reading.IN_STRING for reading in _BEFORE_VALUE},
    **{(reading, '"'): _Reading.IN_KEY for reading in _BEFORE_KEY},
    **{(reading, "{"): _Reading.KEY_OR_END for reading in _BEFORE_VALUE},
    **{(reading, "["): _Reading.VALUE_OR_END for reading in _BEFORE_VALUE},
    **{(reading, char): _Reading.IN_SCALAR for reading in _BEFORE_VALUE for char in "-0123456789tfn"},
    (_Reading.COLON, ":"): _Reading.VALUE,
    (_Reading.COMMA_IN_OBJECT, ","): _Reading.KEY,
    (_Reading.COMMA_IN_ARRAY, ","): _Reading.VALUE,
    (_Reading.KEY_OR_END, "}"): None,
    (_Reading.COMMA_IN_OBJECT, "}"): None,
    (_Reading.VALUE_OR_END, "]"): None,
    (_Reading.COMMA_IN_ARRAY, "]"): None,
}
"""What a character leads to, white space apart; None where it ends an array or object."""


class JsonView(PlainView):
    """See the module."""

    __slots__ = ("_containers", "_leaves", "_reading", "_scalar", "_scalar_start", "_unread")

    def __init__(self, kind: ChannelKind = ChannelKind.TOOL_CALL) -> None:
        super().__init__(kind)
        self._reading = _Reading.VALUE
        self._containers: list[_Reading] = []  # what is expected after a value in each
        self._leaves: list[_Leaf] = []  # those not rendered to their end
        self._unread = ""  # the beginning of an escape
        self._scalar: list[str] = []  # the pieces of a number or literal that may go on, which starts at:
        self._scalar_start = 0

    @property
    def settled(self) -> int:
        return self._scalar_start if self._reading is _Reading.IN_SCALAR else self._base + len(self._buffer)

    @property
    def waits(self) -> bool:
        return bool(self._unread or self._pending)

    def feed(self, raw: str, final: bool) -> str:
        if self._pending or not raw.isascii():
            raw = self._pair_surrogates(raw, final)
        raw = self._unread + raw
        self._unread = ""
        pieces: list[str] = []
        size = len(raw)
        at = 0
        offset = self._base + len(self._buffer)
        while at < size:
            piece, end = self._read(raw, at, offset, final)
            if end == at and self._unread:
                break
            pieces.append(piece)
            offset += len(piece)
            at = end
        if final and self._reading is _Reading.IN_SCALAR:
            self._end_scalar(offset)
        text = "".join(pieces)
        self._buffer += text
        return text

    def _read(self, raw: str, at: int, offset: int, final: bool) -> tuple[str, int]:
        """Read one token or a part of one from ``raw[at:]``. Returns its text and where the next begins.

        ``offset`` is that of the text. The text may be empty: then only what is expected has changed.
        """
        reading = self._reading
        if reading is _Reading.IN_STRING or reading is _Reading.IN_KEY:
            return self._read_string(raw, at, offset, final)
        if reading is _Reading.IN_SCALAR:
            return self._read_scalar(raw, at, offset)
        if reading is _Reading.PLAIN:
            return raw[at:], len(raw)
        if raw[at] in _SPACES:
            end = _AFTER_SPACE.search(raw, at)
            return (raw[at:], len(raw)) if end is None else (raw[at : end.start()], end.start())
        return self._read_structure(raw[at], at, offset)

    def _read_structure(self, char: str, at: int, offset: int) -> tuple[str, int]:
        following = _GRAMMAR.get((self._reading, char), _Reading.PLAIN)
        if following is None:
            self._containers.pop()
            self._end_value()
        elif following is _Reading.IN_SCALAR:
            self._reading = following
            self._scalar_start = offset
            return "", at
        elif following is _Reading.PLAIN or (char in "{[" and len(self._containers) == MAX_DEPTH):
            self._open(_Reading.PLAIN, _Form.PLAIN, offset)
            return "", at
        elif char == '"':
            self._open(following, _Form.STRING, offset + 1)
        else:
            self._reading = following
            if char in "{[":
                self._containers.append(_Reading.COMMA_IN_OBJECT if char == "{" else _Reading.COMMA_IN_ARRAY)
        return char, at + 1

    def _open(self, reading: _Reading, form: _Form, offset: int) -> None:
        self._reading = reading
        self._leaves.append(_Leaf(offset, maxsize, form))

    def _end_value(self) -> None:
        self._reading = self._containers[-1] if self._containers else _Reading.NOTHING

    def _close(self, offset: int) -> None:
        self._leaves[-1] = self._leaves[-1]._replace(end=offset)

    def _read_string(self, raw: str, at: int, offset: int, final: bool) -> tuple[str, int]:
        stop = _STRING_STOP.search(raw, at)
        if stop is None:
            return raw[at:], len(raw)
        if stop.start() > at:
            return raw[at : stop.start()], stop.start()
        if stop[0] == "\\":
            return self._read_escape(raw, at, offset, final)
        self._close(offset)
        if self._reading is _Reading.IN_KEY:
            self._reading = _Reading.COLON
        else:
            self._end_value()
        return '"', at + 1

    def _read_escape(self, raw: str, at: int, offset: int, final: bool) -> tuple[str, int]:
        if not final and _ESCAPE_BEGUN.fullmatch(raw, at):
            self._unread = raw[at:]
            return "", at
        escape = _ESCAPE.match(raw, at)
        if escape is None:
            self._close(offset)
            self._open(_Reading.PLAIN, _Form.PLAIN, offset)
            return "", at
        return _decoded(escape), escape.end()

    def _read_scalar(self, raw: str, at: int, offset: int) -> tuple[str, int]:
        run = _SCALAR_RUN.match(raw, at)
        piece = run[0] if run is not None else ""
        self._scalar.append(piece)
        end = at + len(piece)
        if end < len(raw):
            self._end_scalar(offset + len(piece))
        return piece, end

    def _end_scalar(self, offset: int) -> None:
        token = "".join(self._scalar)
        self._scalar.clear()
        if token in _LITERALS:
            self._end_value()
        elif _NUMBER.fullmatch(token):
            self._leaves.append(_Leaf(self._scalar_start, offset, _Form.NUMBER))
            self._end_value()
        else:
            self._open(_Reading.PLAIN, _Form.PLAIN, self._scalar_start)

    def widen(self, start: int, end: int) -> tuple[int, int]:
        first, last = self._number_at(start), self._number_at(end - 1)
        return first.start if first is not None else start, last.end if last is not None else end

    def parts(self, start: int, end: int) -> Sequence[tuple[int, int]]:
        first = max(bisect_right(self._leaves, start, key=lambda leaf: leaf.start) - 1, 0)
        found: list[tuple[int, int]] = []
        for index in range(first, len(self._leaves)):
            leaf = self._leaves[index]
            if leaf.start >= end:
                break
            part = max(leaf.start, start), min(leaf.end, end)
            if part[0] < part[1]:
                found.append(part)
        return found

    def _number_at(self, offset: int) -> _Leaf | None:
        index = bisect_right(self._leaves, offset, key=lambda leaf: leaf.start) - 1
        if index < 0:
            return None
        leaf = self._leaves[index]
        return leaf if leaf.form is _Form.NUMBER and offset < leaf.end else None

    def render(self, start: int, end: int, edits: Sequence[Edit]) -> str:
        written: list[str] = []
        at = start
        passed = 0  # leaves
        for leaf, first, last, inside in self._leaves_with(start, end, edits):
            written += (self.slice(at, first), self._render_leaf(leaf.form, first, last, inside))
            at = last
            passed += leaf.end <= end
        written.append(self.slice(at, end))
        del self._leaves[:passed]
        self._buffer = self._buffer[end - self._base :]
        self._base = end
        return "".join(written)

    def _leaves_with(self, start: int, end: int, edits: Sequence[Edit]) -> list[tuple[_Leaf, int, int, list[Edit]]]:
        """The leaves in ``[start, end)``, each with its part of that range and what the edits are in there."""
        found: list[tuple[_Leaf, int, int, list[Edit]]] = []
        done = 0  # edits
        for leaf in self._leaves:
            if leaf.start >= end:
                break
            first, last = max(leaf.start, start), min(leaf.end, end)
            inside: list[Edit] = []
            while done < len(edits) and edits[done][0] < last:
                edit_start, edit_end, replacement = edits[done]
                if first < min(edit_end, last):
                    inside.append((max(edit_start, first), min(edit_end, last), replacement))
                if edit_end > last:
                    break  # it goes on in the next leaf
                done += 1
            found.append((leaf, first, last, inside))
        return found

    def spelt(self, start: int, end: int, edits: Sequence[Edit]) -> list[Edit]:
        spelt: list[Edit] = []
        for leaf, first, last, inside in self._leaves_with(start, end, edits):
            if leaf.form is _Form.NUMBER and inside:
                spelt.append((first, last, f'"{_escaped(inside[0][2])}"'))
                continue
            is_string = leaf.form is _Form.STRING
            at = first
            for edit_start, edit_end, replacement in inside:
                if is_string:
                    spelt += self._escapes(at, edit_start)
                spelt.append((edit_start, edit_end, _escaped(replacement) if is_string else replacement))
                at = edit_end
            if is_string:
                spelt += self._escapes(at, last)
        return spelt

    def _escapes(self, start: int, end: int) -> list[Edit]:
        """What of a string's content is written as an escape."""
        text = self.slice(start, end)
        if len(_escaped(text)) == len(text):  # no escape is as short as what it stands for
            return []
        return [
            (start + at, start + at + 1, written) for at, char in enumerate(text) if (written := _escaped(char)) != char
        ]

    def _render_leaf(self, form: _Form, start: int, end: int, edits: Sequence[Edit]) -> str:
        if form is _Form.NUMBER and edits:
            return f'"{_escaped(edits[0][2])}"'
        encode = _escaped if form is _Form.STRING else str
        written: list[str] = []
        at = start
        for edit_start, edit_end, replacement in edits:
            written += (encode(self.slice(at, edit_start)), encode(replacement))
            at = edit_end
        written.append(encode(self.slice(at, end)))
        return "".join(written)


def view_for(kind: ChannelKind) -> View:
    """How a text of ``kind`` is read: arguments of tools are JSON and stay JSON."""
    return JsonView() if kind is ChannelKind.TOOL_CALL else PlainView(kind)


def _decoded(escape: re.Match[str]) -> str:
    short, high, low, unit = escape.groups()
    if short:
        return _SHORT_ESCAPES[short]
    if high:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    return "\ufffd" if 0xD800 <= int(unit, 16) < 0xE000 else chr(int(unit, 16))


def _escaped(text: str) -> str:
    return dumps(text)[1:-1].decode()
