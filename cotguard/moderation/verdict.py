"""What was decided, in countable form (G8), and one by one where somebody keeps records. Holds no text (G7)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from cotguard.spans import Action, ChannelKind, Span

__all__ = ["Decision", "Journal", "Ledger", "Outcome", "Verdict"]


class Outcome(StrEnum):
    """What happened to a span, or to a channel's rest when moderating failed."""

    ALLOWED = "allowed"
    FLAGGED = "flagged"
    REDACTED = "redacted"
    BLOCKED = "blocked"
    WITHHELD = "withheld"
    RESTORED = "restored"
    FAILED_CLOSED = "failed_closed"
    BYPASSED = "bypassed"
    WOULD_HAVE = "would_have"

    @classmethod
    def of(cls, action: Action) -> "Outcome":
        """What carrying out ``action`` is counted as."""
        return _OUTCOMES.get(action, cls.REDACTED)


_OUTCOMES = {
    Action.ALLOW: Outcome.ALLOWED,
    Action.FLAG: Outcome.FLAGGED,
    Action.BLOCK: Outcome.BLOCKED,
    Action.WITHHOLD: Outcome.WITHHELD,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision's label set. ``entity`` is empty for faults, which concern a channel and not a span."""

    entity: str
    kind: ChannelKind
    action: Action
    outcome: Outcome


class Decision(NamedTuple):
    """One decision, as a record of it is kept. ``rule`` is its index in the policy, -1 for the default.

    ``start`` and ``length`` are code points of the channel's text; ``value`` is what the journal makes of the value,
    empty where there is none. Of a fault, the entity and the detector are empty.
    """

    entity: str
    kind: ChannelKind
    action: Action
    outcome: Outcome
    score: float
    detector: str
    rule: int
    start: int
    length: int
    value: str


class Journal:
    """The decisions of one exchange since they were taken last. ``hashed``: what may be kept of a value."""

    def __init__(self, hashed: Callable[[str], str]) -> None:
        self.hashed = hashed
        self.decisions: list[Decision] = []

    def take(self) -> list[Decision]:
        """Those since the last call, in the order in which they were reached."""
        taken, self.decisions = self.decisions, []
        return taken


@dataclass(slots=True)
class Ledger:
    """The running account of one exchange. Characters are code points of channel text.

    ``received`` counts what came in, ``decided`` what of it is no longer on hold, ``delivered`` what was written;
    ``kept`` the bytes of what stays until the end: channels, and copies of texts. ``journal`` is there where each
    decision is recorded.
    """

    tally: Counter[Verdict] = field(default_factory=Counter)
    received: int = 0
    decided: int = 0
    delivered: int = 0
    kept: int = 0
    journal: Journal | None = None

    def count(self, verdict: Verdict, span: Span | None = None, rule: int = -1, value: str = "") -> None:
        """Count a verdict, and record it. ``value``: the text that ``span`` stands for."""
        self.tally[verdict] += 1
        journal = self.journal
        if journal is None:
            return
        score, detector, start, length = (
            (0.0, "", 0, 0) if span is None else (span.score, span.detector, span.start, span.end - span.start)
        )
        hashed = journal.hashed(value) if value else ""
        journal.decisions.append(Decision(*_labels(verdict), score, detector, rule, start, length, hashed))


def _labels(verdict: Verdict) -> tuple[str, ChannelKind, Action, Outcome]:
    return verdict.entity, verdict.kind, verdict.action, verdict.outcome
