"""The texts of a request: read for what the response may not recall, or moderated before they go upstream.

Every text is there at once. What was found in it is remembered, since clients send a conversation again with every
turn: offsets and entities by a keyed hash of the text, never the text (G7).
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from cotguard.detectors.contract import Detector, Scope, Session
from cotguard.moderation.channel import Channel, Terms, detector_fault
from cotguard.moderation.observer import REQUEST, ChannelObserver, RecordedChannel
from cotguard.moderation.provenance import SOURCES
from cotguard.moderation.verdict import Ledger, Outcome, Verdict
from cotguard.moderation.view import PlainView, View
from cotguard.policy import OnError, Policy, RequestTexts
from cotguard.spans import Action, ChannelKind, Span
from cotguard.taxonomy import GROUPS

__all__ = ["MEMORY_TEXTS", "Findings", "RequestBlocked", "RequestReader"]

MEMORY_TEXTS = 8192
"""Texts whose findings are remembered, the latest used: about 200 bytes each, and 150 for every finding."""

_HAZARDS = frozenset(GROUPS["HAZARD"])
_LEARNED = frozenset({"classifier", "guard"})


class RequestBlocked(Exception):  # noqa: N818  # a decision, not an error
    """A policy block stands in the request: it may not go upstream."""


_TURN_CHARS = 8192
"""Characters read at a time: a few milliseconds."""


class Findings:
    """What the detectors of one policy find in whole texts, remembered; a detector that decides at the end of a text.

    ``pause`` is called when a good many characters were read: others may have their turn. ``texts``: how many are
    remembered.
    """

    name: Final = "request"

    def __init__(
        self,
        policy: Policy,
        detectors: Sequence[Detector],
        pause: Callable[[], None] | None = None,
        texts: int = MEMORY_TEXTS,
    ) -> None:
        learned = policy.request.classifier
        self._detectors = [each for each in detectors if learned or each.name not in _LEARNED]
        self.entities = frozenset(entity for each in self._detectors for entity in each.entities)
        self._pause = pause
        self._read = 0  # characters since the last pause
        self._texts = texts
        self._key = secrets.token_bytes(32)
        self._memory: OrderedDict[bytes, tuple[Span, ...]] = OrderedDict()
        patterns = [each for each in self._detectors if each.name not in _LEARNED]
        models = len(self._detectors) - len(patterns)
        self._patterns = Findings(policy, patterns, pause, texts) if models else None

    @property
    def patterns(self) -> "Findings":
        """The same without models, which take names and ids for anything."""
        # Not kept where it is itself: in a cycle, a policy's automata would outlive it until all garbage is collected.
        return self if self._patterns is None else self._patterns

    def of(self, kind: ChannelKind, text: str) -> tuple[Span, ...]:
        """The spans in a text of ``kind``."""
        data = f"{kind}\n{text}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(data, key=self._key, digest_size=32).digest()
        found = self._memory.get(digest)
        if found is None:
            found = self._memory[digest] = tuple(self._find(kind, text))
            if len(self._memory) > self._texts:
                self._memory.popitem(last=False)
        else:
            self._memory.move_to_end(digest)
        return found

    def _find(self, kind: ChannelKind, text: str) -> Iterator[Span]:
        scope = Scope(kind)
        opened = [each.open(scope) for each in self._detectors]
        sessions = [each for each in opened if each is not None]
        for at in range(0, len(text), _TURN_CHARS):
            piece, final = text[at : at + _TURN_CHARS], at + _TURN_CHARS >= len(text)
            for session in sessions:
                for span in session.advance(piece, final)[0]:
                    yield span if span.value is None else replace(span, value=None)  # it is text
            self.took(len(piece))

    def took(self, characters: int) -> None:
        """So many were read: others may have their turn."""
        self._read += characters
        if self._read >= _TURN_CHARS and self._pause is not None:
            self._read = 0
            self._pause()

    def open(self, scope: Scope) -> Session:
        return _Whole(self, scope.kind)


class _Whole:
    """A session that decides nothing before it has all its text."""

    __slots__ = ("_findings", "_kind", "_pieces")

    def __init__(self, findings: Findings, kind: ChannelKind) -> None:
        self._findings = findings
        self._kind = kind
        self._pieces: list[str] = []

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        self._pieces.append(text)
        if not final:
            return (), 0
        whole = "".join(self._pieces)
        return self._findings.of(self._kind, whole), len(whole)


class RequestReader:
    """Reads the texts of one exchange's request.

    ``terms`` are those of requests, with ``findings`` among their detectors; ``learn`` is
    told of every text, with its kind, and of the spans in it that go upstream as they stand.
    """

    def __init__(
        self, terms: Terms, findings: Findings, learn: Callable[[ChannelKind, str, Sequence[Span]], None]
    ) -> None:
        self._terms = terms
        self._findings = findings
        self._learn = learn

    def read(self, view: View, raw: str) -> str:
        """What is to go upstream for ``raw``. Raises :class:`RequestBlocked` and :class:`ModerationFault`."""
        if self._terms.policy.request.texts is RequestTexts.MODERATE:
            return self._moderate(view, raw)
        kind = view.kind_at(0)
        if kind in SOURCES:
            text = self.decoded(view, raw)
            spans = self._find(kind, text)
            self._flag(kind, text, spans)
            self._learn(kind, text, spans)
        return raw

    def _flag(self, kind: ChannelKind, text: str, spans: Sequence[Span]) -> None:
        """Count what is flagged, and hazards that more would be done about if the text were moderated."""
        policy, ledger = self._terms.policy, self._terms.ledger
        for span in spans:
            action = policy.decide(span.entity, kind, span.score)
            if action is Action.FLAG:
                outcome = Outcome.FLAGGED
            elif action is not Action.ALLOW and span.entity in _HAZARDS:
                outcome = Outcome.WOULD_HAVE
            else:
                continue
            rule = policy.rule(span.entity, kind, span.score)
            ledger.count(Verdict(span.entity, kind, action, outcome), span, rule, text[span.start : span.end])

    def decoded(self, view: View, raw: str) -> str:
        """The text of ``raw``."""
        return "".join(view.feed(piece, final) for piece, final in self._pieces(raw))

    def moderated(self, view: View, raw: str) -> str:
        """The same, of a text that is counted elsewhere and not to be learnt from; what is blocked is cut."""
        channel, _ = self._opened(view, raw, replace(self._terms, ledger=Ledger()))
        return channel.release()

    def is_plain(self, kind: ChannelKind, text: str) -> bool:
        """Whether the policy takes nothing that has a form of its own out of ``text``. Raises the same."""
        terms = self._terms
        patterns = [self._findings.patterns if each is self._findings else each for each in terms.detectors]
        channel, _ = self._opened(PlainView(kind), text, replace(terms, detectors=patterns))
        written = channel.release()
        if channel.blocked:
            raise RequestBlocked
        return written == text

    def _moderate(self, view: View, raw: str) -> str:
        kind, observer = view.kind_at(0), self._terms.observer
        recorder = RecordedChannel(None if observer is None else observer.channel(REQUEST, None, kind))
        channel, text = self._opened(view, raw, self._terms, recorder)
        self._learn(kind, text, [span for span, action in recorder.spans if not action.rewrites])
        written = channel.release()
        if channel.blocked:
            raise RequestBlocked
        return written

    def _opened(
        self, view: View, raw: str, terms: Terms, observer: ChannelObserver | None = None
    ) -> tuple[Channel, str]:
        """A channel that has taken ``raw``, and its text."""
        channel = Channel(None, None, view, terms, observer)
        channel.open("")
        for piece, final in self._pieces(raw):
            channel.feed(piece, final=final)
        return channel, view.slice(0, channel.received)

    def _pieces(self, raw: str) -> Iterator[tuple[str, bool]]:
        """``raw`` as much at a time as takes a few milliseconds; whether nothing follows."""
        for at in range(0, max(len(raw), 1), _TURN_CHARS):
            piece = raw[at : at + _TURN_CHARS]
            yield piece, at + _TURN_CHARS >= len(raw)
            self._findings.took(len(piece))

    def _find(self, kind: ChannelKind, text: str) -> Sequence[Span]:
        try:
            return self._findings.of(kind, text)
        except Exception as error:
            if self._terms.policy.on_error is OnError.OPEN:
                self._terms.ledger.count(Verdict("", kind, Action.ALLOW, Outcome.BYPASSED))
                return ()
            self._terms.ledger.count(Verdict("", kind, Action.BLOCK, Outcome.FAILED_CLOSED))
            raise detector_fault(error) from error
