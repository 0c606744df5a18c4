"""The pattern detector: all rules in two native automata.

Per piece of text:

1. Normalise it (:mod:`cotguard.detectors.normalize`) and append it to the window.
2. Run the *hold* automaton backwards from the end: where may a value be under way? Everything before is *stable*:
   any value that starts there is complete. Nothing before the previous stable offset is looked at again, context
   apart.
3. If the stable offset moved, run the *find* automaton over what became stable. It names the rules that match; in
   ordinary prose none does, and that is all.
4. For a rule that matches: every possible start in the newly stable part is tried, the longest value at that start
   is taken and checked. A candidate is a function of the text around it alone, so the result cannot depend on the
   cuts (G1); it is reported before anything from its start on becomes stable (G2).

Both automata are Hyperscan databases, linear in the text. Values are cut out with RE2, also linear. Memory: the
window keeps what is held and twice ``BEFORE_CHARS``.

Known limit: for a rule with context the hold is counted from the start of the context when the context arrives in
the same piece as the value.
"""

from collections.abc import Iterable, Sequence

import hyperscan
import re2

from cotguard.detectors.automaton import canonical, max_width, reversed_prefixes, reversed_source
from cotguard.detectors.contract import Scope, Session
from cotguard.detectors.normalize import Normalizer
from cotguard.detectors.rule import BEFORE_CHARS, Candidate, Found, Rule
from cotguard.spans import Span

__all__ = ["PatternDetector"]

_EDGE = b"\n"
"""Stands before the first and behind the last character of a channel."""

_KEPT = 2 * BEFORE_CHARS


class PatternDetector:
    """Finds the values of ``rules``. ``ValueError`` names a rule that cannot be compiled."""

    name = "patterns"

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = [_CompiledRule(rule) for rule in rules]
        self.entities = frozenset(entity for compiled in self._rules for entity in compiled.entities)
        self._find = _Matcher([compiled.find for compiled in self._rules])
        self._hold = _Matcher([compiled.hold for compiled in self._rules])

    def open(self, scope: Scope) -> Session | None:
        return _PatternSession(self._rules, self._find, self._hold, scope.context) if self._rules else None


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

    def ranges(self, window: bytes, low: int, high: int, context_ends: set[int]) -> Iterable[tuple[int, int]]:
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


class _Matcher:
    """A Hyperscan block database over Latin-1 bytes that collects ``(expression id, end offset)``."""

    def __init__(self, expressions: Sequence[str]) -> None:
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        if expressions:
            self._database.compile(
                expressions=[expression.encode("latin-1") for expression in expressions],
                ids=list(range(len(expressions))),
                flags=[0] * len(expressions),
            )
        self._matches: list[tuple[int, int]] = []

    def scan(self, data: bytes) -> list[tuple[int, int]]:
        matches = self._matches
        matches.clear()
        self._database.scan(data, match_event_handler=self._collect)
        return matches

    def _collect(self, identity: int, _start: int, end: int, _flags: int, _context: object) -> None:
        self._matches.append((identity, end))


class _PatternSession:
    """One channel. ``_window`` holds normalised text from ``_base`` on; the edge before the text is at -1."""

    __slots__ = ("_base", "_find", "_hold", "_normalizer", "_rules", "_stable", "_window")

    def __init__(self, rules: Sequence[_CompiledRule], find: _Matcher, hold: _Matcher, context: str) -> None:
        self._rules = rules
        self._find = find
        self._hold = hold
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
        if final:
            stable = base + len(window)
            window += _EDGE
        else:
            held = max((end for _, end in self._hold.scan(window[::-1])), default=1) - 1
            stable = max(base + len(window) - held, self._stable)
        spans: list[Span] = []
        if stable > self._stable:
            low, high = self._stable - base, stable - base
            ends: dict[int, set[int]] = {}
            for identity, end in self._find.scan(window):
                if end >= low:
                    ends.setdefault(identity, set()).add(end)
            for identity in ends:
                self._report(self._rules[identity], window, low, high, ends[identity], spans)
            self._stable = stable
            if high > 2 * _KEPT:
                cut = high - _KEPT
                self._window = self._window[cut:]
                self._base = base + cut
                self._normalizer.forget(self._base)
        return spans, self._normalizer.start(stable)

    def _report(
        self, rule: _CompiledRule, window: bytes, low: int, high: int, ends: set[int], spans: list[Span]
    ) -> None:
        for start, end in rule.ranges(window, low, high, ends):
            for found in rule.check(window, start, end):
                text_start = self._normalizer.start(self._base + start + found.start)
                text_end = self._normalizer.end(self._base + start + found.end)
                if text_end > 0:
                    spans.append(Span(text_start, text_end, found.entity, found.score, rule.label))
