"""One exchange: its lanes and the account of what was decided.

exchange = Exchange(policy, detectors, facts, key)     # one per client request
lane = exchange.lane(0)                                # one per choice, made on first use
lane.open(("reasoning",), PlainView(ChannelKind.REASONING))
lane.feed(("reasoning",), "some raw text")
lane.finish()                                          # the choice is over: everything held is decided
for emission in lane.take():                           # in the order in which they must be written
    ...
lane.cut                                               # a policy block ended the lane: nothing follows
"""

import secrets
from collections import Counter
from collections.abc import Sequence

from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.moderation.channel import MAX_HELD_CHARS, ModerationFault, Terms
from cotguard.moderation.lane import Emission, Lane
from cotguard.moderation.origins import Origins
from cotguard.moderation.replacement import Replacer
from cotguard.moderation.verdict import Ledger, Outcome, Verdict
from cotguard.policy import Policy
from cotguard.spans import Action, Span

__all__ = ["Emission", "Exchange", "Lane", "ModerationFault", "Outcome", "Verdict"]


class Exchange:
    """Moderates one response under one policy.

    ``key`` (16 bytes or more) keys hashes and stays the same across exchanges; pseudonyms are keyed by
    ``exchange_key``, which is random unless given. ``origins`` tells where in the request a value stands: nowhere, if
    it is not given. With ``record`` every span is kept in ``spans`` with its action.
    """

    def __init__(
        self,
        policy: Policy,
        detectors: Sequence[Detector],
        facts: RequestFacts,
        key: bytes,
        *,
        exchange_key: bytes | None = None,
        origins: Origins | None = None,
        max_held: int = MAX_HELD_CHARS,
        record: bool = False,
    ) -> None:
        self.spans: list[tuple[Span, Action]] = []
        self._ledger = Ledger()
        replacer = Replacer(exchange_key or secrets.token_bytes(16), key)
        recorded = self.spans if record else None
        known = origins or Origins()
        self._terms = Terms(policy, detectors, facts, replacer, self._ledger, max_held, recorded, known)
        self._lanes: dict[int, Lane] = {}

    @property
    def tally(self) -> Counter[Verdict]:
        """How often each verdict was reached."""
        return self._ledger.tally

    @property
    def received(self) -> int:
        """Characters taken in."""
        return self._ledger.received

    @property
    def delivered(self) -> int:
        """Characters written out, replacements included."""
        return self._ledger.delivered

    @property
    def held(self) -> int:
        """Characters on hold now."""
        return self._ledger.received - self._ledger.decided

    @property
    def bypassed(self) -> bool:
        """Whether text went unmoderated because a detector failed and the policy fails open."""
        return any(verdict.outcome is Outcome.BYPASSED for verdict in self._ledger.tally)

    def lane(self, index: int) -> Lane:
        """The lane of choice ``index``."""
        lane = self._lanes.get(index)
        if lane is None:
            lane = self._lanes[index] = Lane(self._terms)
        return lane
