"""What was decided, in countable form (G8). Holds no text (G7)."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from cotguard.spans import Action, ChannelKind

__all__ = ["Ledger", "Outcome", "Verdict"]


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


@dataclass(slots=True)
class Ledger:
    """The running account of one exchange. Characters are code points of channel text.

    ``received`` counts what came in, ``decided`` what of it is no longer on hold, ``delivered`` what was written;
    ``kept`` the bytes of what stays until the end: channels, and copies of texts.
    """

    tally: Counter[Verdict] = field(default_factory=Counter)
    received: int = 0
    decided: int = 0
    delivered: int = 0
    kept: int = 0
