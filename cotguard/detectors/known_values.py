r"""Known values: strings from a list, found exactly and in the shapes models give them when they pass them on.

A value is found

* as it stands, in any case and with the separators inside it changed: it is compared by its letters and digits, with
  up to ``MAX_GAP`` other characters between any two of them (``Blue-bird``, ``b l u e`` ...);
* reversed, in the same ways;
* in base64 and base64url at each of the three alignments, in hexadecimal (also ``42:6c:75``, ``0x42 0x6c``), in
  percent-encoding, and with HTML, JSON and C escapes.

At either end it must stand at a word border: ``ann`` is not in ``can nobody``.

Algorithm: text is read as folded characters (:mod:`cotguard.detectors.characters`) by up to four scanners, each with
an alphabet (which characters it keeps, skips, or stops at) and an Aho-Corasick automaton over the forms that the
values take in it. An escape can be meant or not (``C:\nora``): from the first one on, scanners run twice, with
escapes as they stand and resolved.

A match is reported with the character that follows it, which tells whether the word goes on; a span so covers the
invisible characters in between. ``stable`` is the earliest beginning of a form that the end of the text may
continue: exact but for base64, where the character before a form is held (and covered) whenever it may carry a
value's first bits. Kept per session: two symbol offsets per character of the longest form, and what is held.

Limits: one encoding at a time (not the base64 of a re-cased value); where a value begins or ends with other characters
than letters or digits, its re-spaced forms are covered without these; bits of a value in a base64 character that a
line break parts from the others are left.
"""

import base64
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from cotguard.detectors.characters import CharacterReader, Characters, fold_text, glues, has_escape, squeeze
from cotguard.detectors.contract import Scope, Session
from cotguard.detectors.trie import ROOT, Automaton, Cursor
from cotguard.spans import Span

__all__ = ["MAX_GAP", "MIN_CHARS", "MIN_LOOSE_BYTES", "KnownValues", "ValueSearch"]

MIN_CHARS = 3
"""Fewest letters and digits of a value: anything shorter is found inside ordinary text."""

MIN_LOOSE_BYTES = 5
"""Fewest UTF-8 bytes of a value's folded letters and digits for any form but the exact one. Of shorter values
re-spaced forms turn up in prose (``the re`` ...) and encoded ones in random data. An ideograph, which tells more than
a letter, has three bytes."""

MAX_GAP = 8
"""Most characters between two letters of a value, so that a long run of separators ends the hold."""

Value = tuple[str, str]
"""``(entity, value)``. Within this module the value is reduced to its letters and digits."""

Match = tuple[int, int, str, Value]
"""``(start, end, rule, value)``."""

Forms = dict[str, dict[Value, None]]
"""Strings of symbols, each with the values, in order, that it is a form of."""

_BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"


class _Alphabet(dict[str, str | None]):
    """What a scanner sees in a character: a symbol, nothing (``""``), or a stop (``None``). Fills itself."""

    def __init__(self, see: Callable[[str], str | None]) -> None:
        self._see = see

    def __missing__(self, character: str) -> str | None:
        symbol = self[character] = self._see(character)
        return symbol


def _see_base64(character: str) -> str | None:
    if character.isspace():
        return ""
    symbol = {"-": "+", "_": "/"}.get(character, character)
    return symbol if symbol in _BASE64 else None


def _see_hex(character: str) -> str | None:
    symbol = character.lower()
    if symbol in "0123456789abcdefx":
        return symbol
    return None if symbol.isalnum() else ""


class _Reading:
    """One way to read text: the forms of all values in one alphabet.

    ``words``: forms begin and end at word borders; ``edges``: symbols that may carry bits of a value before its first
    whole symbol; ``begin``: finds where a form may begin.
    """

    __slots__ = ("alphabet", "automaton", "begin", "edges", "forms", "rule", "words")

    def __init__(
        self, rule: str, alphabet: _Alphabet, forms: Forms, *, words: bool = False, edges: Iterable[str] = ()
    ) -> None:
        self.rule = rule
        self.alphabet = alphabet
        self.forms = forms
        self.automaton = Automaton(forms)
        self.words = words
        self.edges = frozenset(edges)
        first = self.edges.union(self.automaton.expand(ROOT))
        seen_as_first = {c for c in {*first, *map(str.upper, first), "-", "_"} if alphabet[c] in first}
        glued = "".join(c for c in seen_as_first if words and glues(c))
        free = "".join(c for c in seen_as_first if not (words and glues(c)))
        classes = [rf"(?<![0-9A-Za-z])[{re.escape(glued)}]"] * bool(glued) + [f"[{re.escape(free)}]"] * bool(free)
        self.begin = re.compile("|".join(classes))


_EXACT = _Alphabet(str.lower)
_TEXT = _Alphabet(lambda character: character.lower() if character.isalnum() else "")
_BASE64_ALPHABET = _Alphabet(_see_base64)
_HEX_ALPHABET = _Alphabet(_see_hex)


class KnownValues:
    """Finds ``values`` and reports them as ``entity``. ``ValueError`` says which is too short, not what it is."""

    name: Final = "known-values"

    def __init__(self, values: Sequence[str], entity: str = "KNOWN_VALUE") -> None:
        self.entities = frozenset({entity})
        self._search = ValueSearch(self.name, [(entity, value) for value in values])

    def open(self, scope: Scope) -> Session | None:
        return self._search.open(scope)


class ValueSearch:
    """Sessions that find ``values`` and report each as its entity, for the detector ``name``.

    A span's ``value`` is the one whose form it is, reduced to its letters and digits. ``ValueError`` says which value
    is too short, not what it is.
    """

    __slots__ = ("_name", "_readings")

    def __init__(self, name: str, values: Iterable[Value]) -> None:
        self._name = name
        exact: Forms = {}
        text: Forms = {}
        encoded: Forms = {}
        hexadecimal: Forms = {}
        edges: set[str] = set()
        for number, (entity, written) in enumerate(values, 1):
            value = written.strip()
            folded = fold_text(value).lower().strip()
            core = squeeze(value)
            if len(core) < MIN_CHARS:
                raise ValueError(f"known value {number} needs at least {MIN_CHARS} letters or digits")
            loose = len(core.encode(errors="replace")) >= MIN_LOOSE_BYTES
            bare = folded[0].isalnum() and folded[-1].isalnum()
            meaning = (entity, core)
            if not (loose and bare):
                _add(exact, meaning, folded)
            if loose:
                if not bare:
                    _add(exact, meaning, folded[::-1])
                _add(text, meaning, core, core[::-1])
                data = value.encode(errors="replace")
                for form, edge in _base64_forms(data):
                    _add(encoded, meaning, form)
                    edges.update(edge)
                _add(hexadecimal, meaning, data.hex(), "0x" + data.hex(" ").replace(" ", "0x"))
        self._readings: list[_Reading] = []
        if exact:
            self._readings.append(_Reading("text", _EXACT, exact, words=True))
        if text:
            self._readings.append(_Reading("text", _TEXT, text, words=True))
            self._readings.append(_Reading("base64", _BASE64_ALPHABET, encoded, edges=edges))
            self._readings.append(_Reading("hex", _HEX_ALPHABET, hexadecimal))

    def open(self, scope: Scope) -> Session | None:
        """A new session, or ``None`` where there are no values."""
        return _Session(self._name, self._readings, scope.context) if self._readings else None


def _add(forms: Forms, meaning: Value, *spellings: str) -> None:
    for form in spellings:
        forms.setdefault(form, {})[meaning] = None


def _base64_forms(value: bytes) -> Iterator[tuple[str, str]]:
    """For each alignment: the symbols that depend on ``value`` alone, and what the one before them may be."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value).decode()
        first = -(-8 * before // 6)
        end = 8 * (before + len(value)) // 6
        edge = ""
        if before:
            # The upper bits of the symbol before belong to the neighbour: 2 of 6 at the first alignment, 4 at the
            # second. Here they are zero, so the others differ by multiples of what the lower bits can say.
            edge = _BASE64[_BASE64.index(encoded[first - 1]) :: 16 if before == 1 else 4]
        yield encoded[first:end], edge


class _Scanner:
    """One reading of one channel."""

    __slots__ = ("_adjacent", "_found", "_found_end", "_gap", "_glued", "_reading", "cursor")

    def __init__(self, reading: _Reading) -> None:
        self._reading = reading
        self.cursor = Cursor(reading.automaton)
        self._gap = 0  # characters skipped since the last symbol
        self._glued = False  # whether the last character would glue to one that follows
        self._adjacent: int | None = None  # start of the last character if it may carry a value's first bits
        self._found: Sequence[tuple[int, str]] = ()  # forms that wait for the next character: begin, form
        self._found_end = 0

    def copy(self) -> "_Scanner":
        twin = _Scanner(self._reading)
        twin.cursor = self.cursor.copy()
        twin._gap, twin._glued, twin._adjacent = self._gap, self._glued, self._adjacent
        twin._found, twin._found_end = self._found, self._found_end
        return twin

    @property
    def hold(self) -> int | None:
        """Where the earliest form begins that may be under way."""
        hold = self.cursor.hold
        if self._found and (hold is None or self._found[0][0] < hold):
            hold = self._found[0][0]
        return self._adjacent if hold is None else hold

    def scan(self, characters: Characters, matches: list[Match]) -> None:
        """Read characters and add the matches that they complete."""
        symbols, starts, ends = characters
        begin = self._reading.begin
        at = 0
        while at < len(symbols):
            if self.cursor.node == ROOT and not self._found and self._adjacent is None:
                # Nothing is under way: skip to where something may begin.
                beginning = begin.search(symbols, at)
                following = beginning.start() if beginning else len(symbols)
                if following > at:
                    self._glued = self._reading.words and glues(symbols[following - 1])
                    at = following
                    continue
            self._read(symbols[at], starts[at], ends[at], matches)
            at += 1

    def _read(self, character: str, start: int, end: int, matches: list[Match]) -> None:
        reading, cursor = self._reading, self.cursor
        symbol = reading.alphabet[character]
        glued = reading.words and glues(character)
        inside = glued and self._glued
        self._glued = glued
        if self._found:
            if not inside:
                self._complete(self._end_of_match(symbol, start, end), matches)
            self._found = ()
        if symbol:
            origin = None if inside else start if self._adjacent is None else self._adjacent
            self._found = cursor.step(symbol, origin)
            self._found_end = end
            self._gap = 0
            self._adjacent = start if symbol in reading.edges else None
        else:
            self._adjacent = None
            self._gap += 1
            if symbol is None or self._gap > MAX_GAP:
                cursor.reset()

    def _end_of_match(self, symbol: str | None, start: int, end: int) -> int:
        """The end of the match before the character ``[start, end)``, which may carry a value's last bits."""
        if symbol and self._reading.edges:
            return end
        return max(start, self._found_end)

    def _complete(self, end: int, matches: list[Match]) -> None:
        reading = self._reading
        for begin, form in self._found:
            for value in reading.forms[form]:
                matches.append((begin, end, reading.rule, value))  # noqa: PERF401

    def finish(self, end: int, matches: list[Match]) -> None:
        """Add the match that the end of the text completes."""
        self._complete(end, matches)
        self._found = ()
        self._adjacent = None
        self.cursor.reset()


class _Lane:
    """All scanners of one channel, over text with or without its escapes resolved."""

    __slots__ = ("_reader", "_scanners")

    def __init__(self, reader: CharacterReader, scanners: list[_Scanner]) -> None:
        self._reader = reader
        self._scanners = scanners

    def resolved(self) -> "_Lane":
        """A lane that is where this one is and resolves escapes from now on."""
        reader = CharacterReader(self._reader.settled, escapes=True)
        return _Lane(reader, [scanner.copy() for scanner in self._scanners])

    def advance(self, text: str, final: bool, matches: list[Match]) -> None:
        characters = self._reader.feed(text, final)
        for scanner in self._scanners:
            scanner.scan(characters, matches)
            if final:
                scanner.finish(self._reader.settled, matches)

    @property
    def stable(self) -> int:
        stable = self._reader.settled
        for scanner in self._scanners:
            hold = scanner.hold
            if hold is not None and hold < stable:
                stable = hold
        return stable


class _Session:
    __slots__ = ("_literal", "_name", "_recent", "_resolved")

    def __init__(self, name: str, readings: Sequence[_Reading], context: str) -> None:
        self._name = name
        reader = CharacterReader(-len(context), escapes=False)
        self._literal = _Lane(reader, [_Scanner(reading) for reading in readings])
        self._resolved: _Lane | None = None
        self._recent: set[Match] = set()  # found and not yet stable: the two lanes may both find them
        self._read(context, False)

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        return self._read(text, final)

    def _read(self, text: str, final: bool) -> tuple[list[Span], int]:
        if self._resolved is None and has_escape(text):
            self._resolved = self._literal.resolved()
        matches: list[Match] = []
        self._literal.advance(text, final, matches)
        stable = self._literal.stable
        if self._resolved is not None:
            self._resolved.advance(text, final, matches)
            stable = min(stable, self._resolved.stable)
        return (self._report(matches, stable) if matches else []), stable

    def _report(self, matches: list[Match], stable: int) -> list[Span]:
        new = sorted(set(matches) - self._recent)
        self._recent = {match for match in self._recent.union(new) if match[0] >= stable}
        # What ends in the context was the earlier channel's to report.
        return [
            Span(start, end, entity, 1.0, f"{self._name}/{rule}", value)
            for start, end, rule, (entity, value) in new
            if end > 0
        ]
