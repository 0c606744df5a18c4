"""The pattern detector: all rules in two native automata.

Per piece of text:

1. Normalise it (:mod:`cotguard.detectors.normalize`) and append it to the window.
2. Run the *hold* automaton backwards from the end: where may a value be under way? Everything before is *stable*:
   any value that starts there is complete. Nothing before the previous stable offset is looked at again, context
   apart.
3. If the stable offset moved, run the *find* automata over what became stable: one over the rules' values, one, which
   looks back as far as a context reaches, over the contexts of rules that have one. They name the rules that match;
   in ordinary prose none does, and that is all.
4. For a rule that matches: every possible start in the newly stable part is tried, the longest value at that start
   is taken and checked. A candidate is a function of the text around it alone, so the result cannot depend on the
   cuts (G1); it is reported before anything from its start on becomes stable (G2).

The automata are Hyperscan databases, linear in the text. Values are cut out with RE2, also linear. Memory: the
window keeps what is held and twice ``BEFORE_CHARS``.

Known limit: for a rule with context the hold is counted from the start of the context when the context arrives in
the same piece as the value.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import re2

from cotguard.detectors.automaton import canonical, max_width, reversed_prefixes, reversed_source
from cotguard.detectors.contract import Scope, Session
from cotguard.detectors.databases import database
from cotguard.detectors.normalize import Normalizer
from cotguard.detectors.rule import BEFORE_CHARS, Candidate, Found, Rule
from cotguard.spans import Span

__all__ = ["PatternDetector"]

_EDGE = b"\n"
"""Stands before the first and behind the last character of a channel."""

_KEPT = 2 * BEFORE_CHARS


class PatternDetector:
    """Finds the values of ``rules``. ``ValueError`` names a rule that cannot be compiled."""

    name: Final = "patterns"

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = [_CompiledRule(rule) for rule in rules]
        self.entities = frozenset(entity for compiled in self._rules for entity in compiled.entities)
        bare = [rule for rule in self._rules if not rule.has_context]
        introduced = [rule for rule in self._rules if rule.has_context]
        self._automata = _Automata(
            values=_Matcher([(rule.find, rule) for rule in bare]),
            contexts=_Matcher([(rule.find, rule) for rule in introduced]),
            # Only how far a value may reach back counts, not whose: matches of one name at one place are one.
            hold=_Matcher([(rule.hold, None) for rule in self._rules]),
        )

    def open(self, scope: Scope) -> Session | None:
        return _PatternSession(self._automata, scope.context) if self._rules else None


class _CompiledRule:
    """A rule with its derived expressions."""

    def __init__(self, rule: Rule) -> None:
        flag = "(?i)" if rule.ignore_case else ""
        self.rule = rule
        self.label = f"{PatternDetector.name}/{rule.name}"
        self.entities = rule.also | {rule.entity}
        value, before, after = canonical(rule.value), canonical(rule.before), canonical(rule.after)
        self.has_context = bool(rule.context)
        if max_width(rule.context) >= BEFORE_CHARS:
            raise ValueError(f"rule {rule.name}: context must be bounded, below {BEFORE_CHARS} characters")
        if max_width(rule.before) != 1 or max_width(rule.after) != 1:
            raise ValueError(f"rule {rule.name}: before and after are classes of one character")
        # A rule with context is found by the ends of its contexts, any other by its values.
        self.find = flag + before + (canonical(rule.context) if self.has_context else value + after)
        self.hold = flag + "^" + reversed_prefixes(rule.value) + reversed_source(rule.context) + before
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.longest_match = True
        options.log_errors = False
        self._value = re2.compile(f"{flag}({value}){after}".encode("latin-1"), options)
        self._search = re2.compile(f"{flag}{before}({value}){after}".encode("latin-1"), options)
        if not re2.compile(after.encode("latin-1"), options).fullmatch(_EDGE):
            raise ValueError(f"rule {rule.name}: after must admit a newline, which stands for the end of the text")

    def ranges(self, window: bytes, low: int, high: int, context_ends: Iterable[int]) -> Iterable[tuple[int, int]]:
        """Longest values that start in ``[low, high)`` of the window."""
        if self.has_context:
            for start in sorted(context_ends):
                if low <= start < high and (match := self._value.match(window, start)):
                    yield match.span(1)
            return
        at = low - 1
        while match := self._search.search(window, at):
            start, end = match.span(1)
            if start >= high:
                return
            yield start, end
            at = start

    def check(self, window: bytes, start: int, end: int) -> Iterable[Found]:
        rule = self.rule
        if rule.check is None:
            return (Found(0, end - start, rule.entity, rule.score),)
        before = window[max(0, start - BEFORE_CHARS) : start]
        return rule.check(Candidate(window[start:end].decode("latin-1"), before.decode("latin-1")))


Owner = TypeVar("Owner")


class _Matcher(Generic[Owner]):
    """A Hyperscan block database over Latin-1 bytes that collects ``(owner, end offset)`` of every match.

    Expressions of one owner share their name in the database, which reports a name once for each offset.
    """

    def __init__(self, expressions: Sequence[tuple[str, Owner]]) -> None:
        owners = list(dict.fromkeys(owner for _, owner in expressions))
        numbers = {owner: number for number, owner in enumerate(owners)}
        self._empty = not expressions
        named = [(expression.encode("latin-1"), numbers[owner]) for expression, owner in expressions]
        self._database = database(named)
        matches: list[tuple[Owner, int]] = []

        def collect(number: int, _start: int, end: int, _flags: int, _context: object) -> None:
            matches.append((owners[number], end))

        self._matches = matches
        self._collect = collect

    def scan(self, data: bytes) -> list[tuple[Owner, int]]:
        """All matches. The list is used again by the next call."""
        matches = self._matches
        matches.clear()
        if not self._empty:
            self._database.scan(data, match_event_handler=self._collect)
        return matches

    def last(self, data: bytes) -> int:
        """The largest end of a match, at least 1."""
        last = 1
        for _, end in self.scan(data):
            last = max(last, end)
        return last


class _Automata(NamedTuple):
    """See the module. Those that find name rules."""

    values: _Matcher[_CompiledRule]
    contexts: _Matcher[_CompiledRule]
    hold: _Matcher[None]


class _PatternSession:
    """One channel. ``_window`` holds normalised text from ``_base`` on; the edge before the text is at -1."""

    __slots__ = ("_automata", "_base", "_normalizer", "_stable", "_window")

    def __init__(self, automata: _Automata, context: str) -> None:
        self._automata = automata
        self._normalizer = Normalizer(-len(context))
        self._window = _EDGE
        self._base = -1
        self._stable = 0
        if context:
            self.advance(context, final=False)

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        added = self._normalizer.feed(text, final)
        window = self._window = self._window + added
        base = self._base
        low = self._stable - base
        if final:
            high = len(window)
            window += _EDGE
        else:
            high = max(len(window) + 1 - self._automata.hold.last(window[::-1]), low)
        spans: list[Span] = []
        if high > low:
            self._find(window, low, high, spans)
            self._stable = base + high
            if high > 2 * _KEPT:
                cut = high - _KEPT
                self._window = self._window[cut:]
                self._base = base + cut
                self._normalizer.forget(self._base)
        return spans, self._normalizer.start(self._stable)

    def _find(self, window: bytes, low: int, high: int, spans: list[Span]) -> None:
        """Report the values that start in ``[low, high)`` of the window."""
        found = self._automata.values.scan(window[low - 1 :])
        if found:
            for rule in dict.fromkeys([rule for rule, _ in found]):
                self._report(rule, window, low, high, (), spans)
        first = max(0, low - BEFORE_CHARS)
        starts: dict[_CompiledRule, set[int]] = {}
        for rule, end in self._automata.contexts.scan(window[first:high]):
            if first + end >= low:
                starts.setdefault(rule, set()).add(first + end)
        for rule, ends in starts.items():
            self._report(rule, window, low, high, ends, spans)

    def _report(
        self, rule: _CompiledRule, window: bytes, low: int, high: int, ends: Iterable[int], spans: list[Span]
    ) -> None:
        for start, end in rule.ranges(window, low, high, ends):
            for found in rule.check(window, start, end):
                text_start = self._normalizer.start(self._base + start + found.start)
                text_end = self._normalizer.end(self._base + start + found.end)
                if text_end > 0:
                    spans.append(Span(text_start, text_end, found.entity, found.score, rule.label))
