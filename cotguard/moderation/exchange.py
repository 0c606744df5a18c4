"""One exchange: its lanes, their channels, and the account of what was decided.

INTERFACE SKETCH - being implemented.

    exchange = Exchange(policy, detectors, facts, key)     # one per client request
    lane = exchange.lane(0)                                # one per choice / candidate; created on first use
    lane.open(("reasoning",), PlainView(ChannelKind.REASONING), head=None)   # once per channel, before feed
    lane.feed(("reasoning",), "some raw text")
    lane.finish()                                          # the choice is over: everything held is decided
    for emission in lane.take():                           # in the order in which they must be written
        Emission(key, head, text)                          # head: the object given to open(), first emission only
    lane.cut                                               # True once a policy block ended the lane: nothing follows
    exchange.tally          Counter[Verdict]               # Verdict(entity, kind, action, outcome)
    exchange.received, exchange.delivered, exchange.held   # characters
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.moderation.view import View
from cotguard.spans import Action, ChannelKind

__all__ = ["Emission", "Exchange", "Lane", "ModerationFault", "Outcome", "Verdict"]


class ModerationFault(Exception):
    """A detector failed or a limit was exceeded. The message holds no moderated text."""


class Outcome(StrEnum):
    ALLOWED = "allowed"
    FLAGGED = "flagged"
    REDACTED = "redacted"
    BLOCKED = "blocked"
    WITHHELD = "withheld"
    FAILED_CLOSED = "failed_closed"
    BYPASSED = "bypassed"
    WOULD_HAVE = "would_have"


@dataclass(frozen=True, slots=True)
class Verdict:
    entity: str
    kind: ChannelKind
    action: Action
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Emission:
    key: Hashable
    head: object
    text: str


class Lane:
    cut: bool

    def open(self, key: Hashable, view: View, head: object = None) -> None: ...
    def is_open(self, key: Hashable) -> bool: ...
    def feed(self, key: Hashable, raw: str) -> None: ...
    def finish(self) -> None: ...
    def take(self) -> list[Emission]: ...


class Exchange:
    tally: Counter[Verdict]
    received: int
    delivered: int
    held: int

    def __init__(self, policy: object, detectors: Sequence[Detector], facts: RequestFacts, key: bytes) -> None: ...
    def lane(self, index: int) -> Lane: ...
