"""One channel: text in, decided and rewritten text out.

The frontier is the smallest ``stable`` of the detectors, moved left so that it cuts no sensitive value, no group of
overlapping values, no target of a link and no token of the view. Text before it is written, with the values in it
replaced, and with them the whole target of a link that they stand in; text behind it is on hold. The frontier only
moves right, and what it has passed is never looked at again.

A placeholder that was given out in the exchange is written as its value, whatever else is found there. A value found
around it is replaced on either side of it; one found in it alone is none. Only what is blocked or withheld takes the
placeholders in it along.
"""

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from cotguard.detectors.contract import Detector, RequestFacts, Scope, Session
from cotguard.detectors.links import LINK
from cotguard.detectors.placeholders import PLACEHOLDER
from cotguard.moderation.bridges import REACH, Bridges
from cotguard.moderation.findings import Finding, Group, Range, around
from cotguard.moderation.observer import ChannelObserver, Observer
from cotguard.moderation.origins import Origins
from cotguard.moderation.placeholders import Placeholders
from cotguard.moderation.replacement import Replacer
from cotguard.moderation.verdict import Ledger, Outcome, Verdict
from cotguard.moderation.view import Edit, View
from cotguard.policy import Mode, OnError, Policy
from cotguard.spans import Action, ChannelKind, Span

__all__ = [
    "CHANNEL_BYTES",
    "MAX_BYTES",
    "MAX_HELD_CHARS",
    "Channel",
    "ExchangeTooLarge",
    "ModerationFault",
    "Terms",
    "detector_fault",
]

MAX_HELD_CHARS = 65_536
"""Characters one channel may hold before its exchange fails closed: several times the longest value known."""

MAX_BYTES = 64 * 1024 * 1024
"""Memory that one exchange may hold before it fails closed: its channels and what is on hold in all of them."""

CHANNEL_BYTES = 8 * 1024
"""What a channel takes, with its detectors' sessions and the dialect's state, by measurement: 4 to 8 KiB."""
_HELD_BYTES = 32
"""What a character on hold takes, with where it came from and what was found there, by measurement: 6 to 22."""

_FEW_CHARS = 1024
"""What one channel may have on hold without a look at what all of them have."""

_ALONE_CHARS = 32
"""Where a text follows another channel's, values that begin this early are looked for without it, too."""

TAIL_CHARS = REACH
"""How much of a channel's end the next channel's detectors see as context."""


class ModerationFault(Exception):  # noqa: N818  # a fault in the sense of the guarantees (G5)
    """A detector failed or a limit was exceeded. The message holds no moderated text."""


class ExchangeTooLarge(ModerationFault):
    """The exchange holds more memory than it may."""


def detector_fault(cause: Exception) -> ModerationFault:
    """The fault of a detector that raised ``cause``."""
    # The cause's text may quote what it choked on; its type does not.
    fault = ModerationFault(f"a detector raised {type(cause).__name__}")
    fault.__cause__ = cause  # where this is compiled, `raise` ... `from` does not keep it
    return fault


@dataclass(frozen=True, slots=True)
class Terms:
    """What is the same for all channels of one direction of an exchange.

    ``placeholders`` are those that the detectors find as given.
    """

    policy: Policy
    detectors: Sequence[Detector]
    facts: RequestFacts
    replacer: Replacer
    placeholders: Placeholders
    ledger: Ledger
    max_held: int = MAX_HELD_CHARS
    observer: Observer | None = None
    """Who follows what happens (offline use only: it is told the text)."""
    origins: Origins = field(default_factory=Origins)
    hidden: frozenset[ChannelKind] = frozenset()
    """Kinds whose text is moderated and then not written: only the view's structure is left of it."""
    max_bytes: int = MAX_BYTES

    def keep(self, size: int) -> None:
        """Account for ``size`` more bytes that stay. Raises :class:`ExchangeTooLarge`, whatever the policy says."""
        ledger = self.ledger
        ledger.kept += size
        if ledger.kept + _HELD_BYTES * (ledger.received - ledger.decided) > self.max_bytes:
            raise ExchangeTooLarge(f"more than {self.max_bytes} bytes held for one exchange")


def _order(finding: Finding) -> tuple[int, int, bool, float, str, str]:
    span = finding.span
    return span.start, -span.end, span.learned, -span.score, span.detector, span.entity


def _end(link: tuple[int, int]) -> int:
    return link[1]


class Channel:
    """See the module. ``key`` and ``head`` are the caller's; ``blocked`` is set once a block decision is reached."""

    __slots__ = (
        "_alone",
        "_alone_stables",
        "_bridges",
        "_findings",
        "_links",
        "_names",
        "_observer",
        "_offset",
        "_owned",
        "_passing",
        "_passing_ends",
        "_seen",
        "_sessions",
        "_stables",
        "_tail",
        "_terms",
        "_view",
        "_withheld",
        "blocked",
        "closed",
        "head",
        "key",
        "received",
        "released",
        "resumed",
        "stable",
    )

    def __init__(
        self, key: Hashable, head: object, view: View, terms: Terms, observer: ChannelObserver | None = None
    ) -> None:
        self.key = key
        self.head = head
        self.received = 0
        self.released = 0
        self.stable = 0
        self.blocked = False
        self.closed = False
        self.resumed = False
        self._view = view
        self._terms = terms
        self._observer = observer
        self._names: list[list[str]] = []  # of the detectors of sessions, and of those alone, where somebody may ask
        self._sessions: list[Session] = []
        self._stables: list[int] = []
        self._alone: list[Session] = []
        self._alone_stables: list[int] = []
        self._seen: set[Span] = set()  # early ones, which may be found with and without what is before
        self._bridges = Bridges(terms.detectors, terms.facts)
        self._offset = 0  # where the open sessions' offset 0 is
        self._findings: list[Finding] = []
        self._passing: list[Finding] = []  # what stays as it is, in text that is not released
        self._passing_ends: dict[Verdict, int] = {}  # of the last value counted
        self._owned: list[tuple[int, int, frozenset[ChannelKind]]] = []  # values that pass for where they come from
        self._links: list[tuple[int, int]] = []  # targets not released to their end, in order; none overlap
        self._withheld: ChannelKind | None = None
        self._tail = ""

    @property
    def held(self) -> int:
        """Characters received and not released."""
        return self.received - self.released

    @property
    def kind(self) -> ChannelKind:
        """The kind of the text that comes next."""
        return self._view.kind_at(self.received)

    @property
    def tail(self) -> str:
        """The last characters received, released or not."""
        held = self.held
        return self._view.slice(self.released, self.received) if held > len(self._tail) else self._tail

    def open(self, context: str, *, seam: bool = False) -> None:
        """Open the detectors' sessions at the current end of the text, which ``context`` precedes.

        ``seam``: the context is another channel's. Read together, its last word may hide a value that begins here, so
        the text is read alone as well, as far as ``_ALONE_CHARS``.
        """
        self.closed = False
        self._offset = self.received
        self._names.clear()
        self._sessions = self._opened(context)
        self._stables = [-len(context)] * len(self._sessions)
        self._alone = self._opened("") if seam and context else []
        self._alone_stables = [0] * len(self._alone)
        self.stable = self.received - len(context) if self._sessions else self.received

    def _opened(self, context: str) -> list[Session]:
        scope = Scope(self._view.kind_at(self.received), context, self._terms.facts)
        detectors = self._terms.detectors
        opened = [detector.open(scope) for detector in detectors]
        if self._observer is not None:
            names = [each.name for each, session in zip(detectors, opened, strict=True) if session is not None]
            self._names.append(names)
        return [session for session in opened if session is not None]

    def feed(self, raw: str, *, final: bool = False) -> list[Span]:
        """Take raw text. Returns spans that begin before this channel's text, with their (negative) offsets.

        Raises :class:`ModerationFault`; the policy may say that the rest of the channel goes unmoderated instead.
        """
        text = self._view.feed(raw, final)
        if text:
            self.received += len(text)
            self._terms.ledger.received += len(text)
        if self._observer is not None:
            self._tell_received(self._observer, text)
        tail = self._tail
        if text:
            self._tail = (tail + text)[-TAIL_CHARS:]
        self.closed = final
        early: list[Span] = []
        try:
            for index, session in enumerate(self._sessions):
                spans, self._stables[index] = session.advance(text, final)
                for span in spans:
                    if not self._alone or self._is_new(span):
                        self._take(span, early)
            if self._alone:
                self._read_alone(text, early, final=final)
            if self._view.markers or self._bridges.open:
                self._bridge(tail, text, final=final)
        except Exception as error:
            self._fail(error)
        self.stable = self._offset + min(self._stables) if self._stables else self.received
        if self._alone:
            self.stable = min(self.stable, self._offset + min(self._alone_stables))
        if self._bridges.open:
            self.stable = min(self.stable, self._bridges.stable)
        return early

    def _tell_received(self, observer: ChannelObserver, text: str) -> None:
        """Tell of the text that came last, by its kinds."""
        end, view = self.received, self._view
        begin = at = end - len(text)
        while at < end:
            until = view.kind_until(at, end)
            observer.received(text[at - begin : until - begin], view.kind_at(at))
            at = until
        if not text:
            observer.received("", view.kind_at(end))

    def _read_alone(self, text: str, early: list[Span], *, final: bool) -> None:
        for index, session in enumerate(self._alone):
            spans, self._alone_stables[index] = session.advance(text, final)
            for span in spans:
                if span.start < _ALONE_CHARS and self._is_new(span):
                    self._take(span, early)
        if final or min(*self._stables, *self._alone_stables) >= _ALONE_CHARS:
            self._alone = []
            self._seen.clear()

    def _is_new(self, span: Span) -> bool:
        if span.start >= _ALONE_CHARS:
            return True
        new = span not in self._seen
        self._seen.add(span)
        return new

    def _bridge(self, tail: str, text: str, *, final: bool) -> None:
        """Look for values across markers in ``text``, which ``tail`` precedes."""
        view, bridges = self._view, self._bridges
        spans = bridges.feed(tail, text, self.received, view.markers, view.kind_at)
        if final:
            spans += bridges.finish()
        for span in spans:
            self.add(span.part(max(span.start, self.released), span.end))

    def _fail(self, error: Exception) -> None:
        kind = self._view.kind_at(self.released)
        if self._terms.policy.on_error is not OnError.OPEN:
            raise self._closed(detector_fault(error)) from error
        self._terms.ledger.count(Verdict("", kind, Action.ALLOW, Outcome.BYPASSED))
        self._sessions = []
        self._stables = []
        self._alone = []
        self._bridges = Bridges((), self._terms.facts)

    def _closed(self, fault: ModerationFault) -> ModerationFault:
        """``fault``, counted."""
        kind = self._view.kind_at(self.released)
        self._terms.ledger.count(Verdict("", kind, Action.BLOCK, Outcome.FAILED_CLOSED))
        return fault

    def _take(self, span: Span, early: list[Span]) -> None:
        if span.start < 0 and self._offset == 0:
            early.append(span)
        start, end = span.start + self._offset, span.end + self._offset
        self.add(span.part(self._offset, end) if span.start < 0 else span.moved(start, end))

    def add(self, span: Span) -> None:
        """Decide a span of this channel's text. It must not begin before what was released."""
        if span.start < self.released:
            raise self._closed(ModerationFault(f"{span.detector} decided a span after its text was released"))
        if span.entity == LINK:
            self._add_link(span.start, span.end)
            return
        kind = self._view.kind_at(span.start)
        last_kind = self._view.kind_at(span.end - 1)
        origins = self._origins(span, kind) or self._origins(span, last_kind)
        action = self._decide(span, kind, origins)
        if last_kind is not kind:
            last_action = self._decide(span, last_kind, origins)
            if last_action.severity > action.severity:
                kind, action = last_kind, last_action
        if self._observer is not None:
            self._tell_decided(self._observer, span, kind, action, origins)
        if action.rewrites or span.given:
            self._findings.append(Finding(span, kind, action))
            return
        self._passing.append(Finding(span, kind, action))
        if origins and not span.learned:
            self._owned = [owned for owned in self._owned if owned[1] > self.released]
            self._owned.append((span.start, span.end, origins))

    def _tell_decided(
        self, observer: ChannelObserver, span: Span, kind: ChannelKind, action: Action, origins: frozenset[ChannelKind]
    ) -> None:
        policy = self._terms.policy
        if span.given:
            observer.decided(span, kind, action, Outcome.RESTORED, -1)
            return
        outcome = Outcome.WOULD_HAVE if action.rewrites and policy.mode is Mode.SHADOW else Outcome.of(action)
        rule = -1 if span.entity == PLACEHOLDER else policy.rule(span.entity, kind, span.score, origins)
        observer.decided(span, kind, action, outcome, rule)

    def _note(self, verdict: Verdict, span: Span) -> None:
        """Count a verdict about a value of this channel's text."""
        terms = self._terms
        if terms.ledger.journal is None:
            terms.ledger.tally[verdict] += 1
            return
        rule = terms.policy.rule(span.entity, verdict.kind, span.score, self._origins(span, verdict.kind))
        value = self._view.slice(span.start, span.end) if span.value is None else span.value
        terms.ledger.count(verdict, span, rule, value)

    def _origins(self, span: Span, kind: ChannelKind) -> frozenset[ChannelKind]:
        """Where in the request the value stands, if the policy asks."""
        terms = self._terms
        if not terms.policy.needs_origins(span.entity, kind):
            return frozenset()
        return terms.origins.of(self._view.slice(span.start, span.end) if span.value is None else span.value)

    def _is_owned(self, finding: Finding) -> bool:
        """Whether the classifier found it in a value that a pattern found whole, and whose origins let it pass."""
        span, kind = finding.span, finding.kind
        if not span.learned:
            return False
        decide = self._terms.policy.decide
        return any(
            start <= span.start and span.end <= end and not decide(span.entity, kind, span.score, origins).rewrites
            for start, end, origins in self._owned
        )

    def _decide(self, span: Span, kind: ChannelKind, origins: frozenset[ChannelKind]) -> Action:
        if span.given:
            return Action.ALLOW
        if span.entity == PLACEHOLDER:  # for no policy to decide: what reads as a placeholder must not be one
            return Action.PSEUDONYMIZE
        return self._terms.policy.decide(span.entity, kind, span.score, origins)

    def _add_link(self, start: int, end: int) -> None:
        links = self._links
        if not links or links[-1][1] <= start:
            links.append((start, end))
            return
        # It overlaps with others where it stands across a marker or a seam, and was found from either side.
        start, end = self._with_links(start, end)
        self._links = sorted([(start, end), *(link for link in links if link[1] <= start or end <= link[0])])

    def release(self) -> str:
        """Text that is decided since the last call, rewritten. Sets ``blocked`` when a block decision is reached."""
        frontier = min(self.stable, self._view.settled)
        if self._links:
            frontier = self._before_link(frontier)
        groups: list[Group] = []
        if self._findings:
            frontier, groups = self._groups_before(frontier)
        frontier = self._before_token(frontier)
        written = "" if frontier <= self.released or self.blocked else self._write(frontier, groups)
        held = self.received - self.released
        if held > _FEW_CHARS and not self.blocked:
            if held > self._terms.max_held:
                raise self._closed(ModerationFault(f"more than {self._terms.max_held} characters on hold"))
            self._terms.keep(0)
        return written

    def why(self) -> list[str]:
        """What holds the text that is on hold, of a channel that has an observer.

        These are names of detectors, and

        * ``marker``: a value across a marker may be under way;
        * ``token``: a number or the like, or what the view cannot read yet, is not complete;
        * ``link`` and ``value``: the target of a link, or a group of overlapping values, goes on behind what is sure;
        * ``seam``: it could be released, and the lane waits with it for what comes from another channel.
        """
        if self.blocked or not (self.held or self._view.waits):
            return []
        end, offset = self.received, self._offset
        names: dict[str, None] = {}
        alone = self._alone_stables if self._alone else []
        for detectors, stables in zip(self._names, (self._stables, alone), strict=False):
            for name, stable in zip(detectors, stables, strict=False):  # none are left where a fault let text pass
                if offset + stable < end:
                    names[name] = None
        if self._bridges.open and self._bridges.stable < end:
            names["marker"] = None
        if self._view.settled < end or self._view.waits:
            names["token"] = None
        findings = self._findings
        frontier = min(self.stable, self._view.settled)
        for name, limit in (
            ("link", self._before_link),
            ("value", lambda at: self._groups_before(at)[0]),
            ("token", self._before_token),
        ):
            before = limit(frontier)
            if before < frontier:
                names[name] = None
            frontier = before
        self._findings = findings
        if frontier > self.released:
            names["seam"] = None
        return list(names)

    def _before_token(self, offset: int) -> int:
        """``offset``, or where the token of the view that it cuts begins."""
        if offset > self.released:
            start, end = self._view.widen(offset - 1, offset)
            if end > offset:
                return start
        return offset

    def _groups_before(self, frontier: int) -> tuple[int, list[Group]]:
        """Complete groups before the frontier, and the frontier moved left so that it cuts none."""
        if self._owned:
            self._drop_owned()
        ranges = [(*self._view.widen(f.span.start, f.span.end), f) for f in self._findings]
        ranges.sort(key=lambda entry: entry[:2])
        groups: list[Group] = []
        for value_start, value_end, finding in ranges:
            start, end = self._with_links(value_start, value_end)
            if groups and start < groups[-1].end:
                group = groups[-1]
                group.end = max(group.end, end)
                group.value_end = max(group.value_end, value_end)
                group.findings.append(finding)
            else:
                groups.append(Group(start, end, value_start, value_end, [finding]))
        while groups and groups[-1].end > frontier:
            frontier = min(frontier, groups.pop().start)
        done = len(groups)
        self._findings = [finding for _, _, finding in ranges[sum(len(g.findings) for g in groups[:done]) :]]
        return frontier, groups

    def _drop_owned(self) -> None:
        kept: list[Finding] = []
        for finding in self._findings:
            if not self._is_owned(finding):
                kept.append(finding)
            elif self._observer is not None:
                self._observer.passed(finding.span)
        self._findings = kept

    def _before_link(self, offset: int) -> int:
        """``offset``, or where the target that it cuts begins."""
        index = bisect_right(self._links, offset, key=_end)
        return min(offset, self._links[index][0]) if index < len(self._links) else offset

    def _with_links(self, start: int, end: int) -> tuple[int, int]:
        """A range and the targets of links that it overlaps."""
        links = self._links
        index = bisect_right(links, start, key=_end)
        while index < len(links) and links[index][0] < end:
            start, end = min(start, links[index][0]), max(end, links[index][1])
            index += 1
        return start, end

    def _write(self, frontier: int, groups: list[Group]) -> str:
        """Render up to ``frontier``, in stretches that end where a decision blocks or withholds what follows."""
        pieces: list[str] = []
        edits: list[Edit] = []
        shadow = self._terms.policy.mode is Mode.SHADOW
        for group in groups:
            given = [finding.span for finding in group.findings if finding.span.given]
            if given:
                self._leave_given(group, given)
            self._count_passing(group.start)
            self._count(group)
            if shadow or not group.findings:
                edits += self._restored(given)
                continue
            decisive = group.decisive
            if decisive.action is Action.BLOCK:
                self.blocked = True
                pieces.append(self._render(group.start, edits))
                if self._observer is not None:
                    self._observer.blocked(group.end)
                return "".join(pieces)
            if decisive.action is Action.WITHHOLD:
                # What is withheld may have ended before this group: rendering up to it finds out.
                pieces.append(self._render(group.start, edits))
                edits = [(group.start, group.end, self._terms.policy.notice)]
                if self._withheld is not self._view.kind_at(group.start):
                    self._withheld = None
                    pieces.append(self._render(group.end, edits))
                    edits = []
                    self._withheld = decisive.kind
                continue
            replaced = around(self._view, group.start, group.end, given) if given else [(group.start, group.end)]
            edits += sorted(self._replaced(replaced, group) + self._restored(given))
        self._count_passing(frontier)
        pieces.append(self._render(frontier, edits))
        return "".join(pieces)

    def _leave_given(self, group: Group, given: Sequence[Span]) -> None:
        """Leave in a group what stands around the placeholders that are given, at least in part."""
        findings, group.findings = group.findings, []
        for finding in findings:
            span = finding.span
            if span.given:
                continue
            if around(self._view, span.start, span.end, given):
                group.findings.append(finding)
            elif self._observer is not None:
                self._observer.passed(span)

    def _replaced(self, ranges: Sequence[Range], group: Group) -> list[Edit]:
        """Edits that replace ``ranges``, each part of the view by itself: so placeholders stand for what was there.

        In the target of a link all is replaced by what stands for the value in it.
        """
        decisive = group.decisive
        replacer, action, entity = self._terms.replacer, decisive.action, decisive.span.entity
        in_link = (group.start, group.end) != (group.value_start, group.value_end)
        value = self._view.slice(group.value_start, group.value_end) if in_link else ""
        return [
            (first, last, replacer.replacement(action, entity, value or self._view.slice(first, last)))
            for start, end in ranges
            for first, last in self._view.parts(start, end)
        ]

    def _restored(self, given: Sequence[Span]) -> list[Edit]:
        """Edits that put values in the place of placeholders, counted where they are not withheld."""
        edits: list[Edit] = []
        for span in given:
            value = self._terms.placeholders.restored(self._view.slice(span.start, span.end))
            edits.append((span.start, span.end, value))
            kind = self._view.kind_at(span.start)
            if kind is not self._withheld:
                verdict = Verdict(span.entity, kind, Action.ALLOW, Outcome.RESTORED)
                self._terms.ledger.count(verdict, span, value=value)
        return edits

    def _render(self, end: int, edits: list[Edit]) -> str:
        """Render ``[released, end)``; of a kind that is withheld only the view's structure is left."""
        if self._withheld is not None:
            return self._render_withheld(end, edits)
        hidden = self._terms.hidden
        written = self._render_hiding(end, edits, hidden) if hidden else self._rendered(self.released, end, edits)
        self._account(end, written)
        return written

    def _rendered(self, start: int, end: int, edits: list[Edit]) -> str:
        observer = self._observer
        if observer is None:
            return self._view.render(start, end, edits)
        spelt = self._view.spelt(start, end, edits)
        written = self._view.render(start, end, edits)
        observer.wrote(start, end, spelt, written)
        return written

    def _render_hiding(self, end: int, edits: list[Edit], hidden: frozenset[ChannelKind]) -> str:
        """Render ``[released, end)`` in stretches of one kind; an edit over several is carried out in each."""
        view, start, pieces = self._view, self.released, [""]
        while start < end:
            until = view.kind_until(start, end)
            if view.kind_at(start) in hidden:
                inside: list[Edit] = [(start, until, "")]
            else:
                inside = [(max(at, start), min(to, until), text) for at, to, text in edits if at < until and to > start]
            pieces.append(self._rendered(start, until, inside))
            start = until
        return "".join(pieces)

    def _account(self, released: int, written: str) -> None:
        ledger = self._terms.ledger
        ledger.decided += released - self.released
        ledger.delivered += len(written)
        self.released = released
        if self._links and self._links[0][1] <= released:
            self._links = [link for link in self._links if link[1] > released]

    def _render_withheld(self, end: int, edits: list[Edit]) -> str:
        withheld, start = self._withheld, self.released
        resumes = start
        while resumes < end and self._view.kind_at(resumes) is withheld:
            resumes = self._view.kind_until(resumes, end)
        written = self._rendered(start, resumes, [(start, resumes, "")]) if resumes > start else ""
        self._account(resumes, written)
        if resumes < end:
            self._withheld = None
            rest = [(max(at, resumes), until, text) for at, until, text in edits if until > resumes]
            written += self._render(end, rest)
        return written

    def _count_passing(self, end: int) -> None:
        """Count values before ``end`` that stay as they are: what overlaps with another one of its entity is the same.

        All that begin there are known now, so it does not matter in which order they were found.
        """
        if not self._passing:
            return
        passing = [finding for finding in self._passing if finding.span.start < end]
        self._passing = [finding for finding in self._passing if finding.span.start >= end]
        for finding in sorted(passing, key=_order):
            span, action = finding.span, finding.action
            verdict = Verdict(span.entity, finding.kind, action, Outcome.of(action))
            last = self._passing_ends.get(verdict, 0)
            self._passing_ends[verdict] = max(last, span.end)
            if span.start >= last:
                self._note(verdict, span)

    def _count(self, group: Group) -> None:
        """Count a group once for each entity: two rules that find the same value are one finding."""
        shadow = self._terms.policy.mode is Mode.SHADOW
        verdicts = {
            Verdict(f.span.entity, f.kind, f.action, Outcome.WOULD_HAVE if shadow else Outcome.of(f.action)): f.span
            for f in group.counted
        }
        for verdict, span in verdicts.items():
            self._note(verdict, span)
