"""One exchange: its request's texts, its lanes and the account of what was decided.

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
from dataclasses import replace

from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.detectors.placeholders import GivenPlaceholders, PlaceholderShapes
from cotguard.moderation.channel import MAX_HELD_CHARS, ModerationFault, Terms
from cotguard.moderation.lane import Emission, Lane
from cotguard.moderation.placeholders import Placeholders
from cotguard.moderation.replacement import KeyedPseudonyms, Replacer
from cotguard.moderation.verdict import Ledger, Outcome, Verdict
from cotguard.policy import Policy, RequestTexts
from cotguard.spans import Action, Span

__all__ = ["Emission", "Exchange", "Lane", "ModerationFault", "Outcome", "Verdict"]


_SHAPES = PlaceholderShapes()


class Exchange:
    """Moderates one request and its response under one policy.

    ``key`` (16 bytes or more) keys hashes and stays the same across exchanges; pseudonyms in the response are keyed by
    ``exchange_key``, which is random unless given. With ``record`` every span is kept in ``spans`` with its action.
    The texts of the request are moderated on ``request_terms``, all of them before the first lane is made: what was
    replaced by ``placeholders`` in them is restored in the lanes.
    """

    def __init__(
        self,
        policy: Policy,
        detectors: Sequence[Detector],
        facts: RequestFacts,
        key: bytes,
        *,
        exchange_key: bytes | None = None,
        max_held: int = MAX_HELD_CHARS,
        record: bool = False,
    ) -> None:
        self.spans: list[tuple[Span, Action]] = []
        self.placeholders = Placeholders()
        self._ledger = Ledger()
        replacer = Replacer(key, KeyedPseudonyms(exchange_key or secrets.token_bytes(16)))
        recorded = self.spans if record else None
        self._terms = Terms(policy, detectors, facts, replacer, self.placeholders, self._ledger, max_held, recorded)
        self.request_terms = self._terms
        if policy.pseudonymizes and policy.request.texts is RequestTexts.MODERATE:
            # What reads as a placeholder gets one too, so that it restores nothing else.
            self.request_terms = replace(
                self._terms, detectors=(*detectors, _SHAPES), replacer=Replacer(key, self.placeholders)
            )
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
            if not self._lanes and self.placeholders.counts:
                given = GivenPlaceholders(self.placeholders.counts)
                self._terms = replace(self._terms, detectors=(*self._terms.detectors, given))
            lane = self._lanes[index] = Lane(self._terms)
        return lane
