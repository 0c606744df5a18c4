"""One exchange: its lanes and the account of what was decided.

exchange = Exchange(policy, detectors, facts, key)     # one per client request
exchange.read(PlainView(ChannelKind.USER), "a text")   # what goes upstream for a text of the request
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
from cotguard.moderation.channel import MAX_HELD_CHARS, ModerationFault, Terms
from cotguard.moderation.lane import Emission, Lane
from cotguard.moderation.replacement import Replacer
from cotguard.moderation.request import Findings, RequestBlocked, RequestReader
from cotguard.moderation.verdict import Ledger, Outcome, Verdict
from cotguard.moderation.view import PlainView, View
from cotguard.policy import Policy, RequestTexts
from cotguard.spans import Action, ChannelKind, Span

__all__ = ["Emission", "Exchange", "Lane", "ModerationFault", "Outcome", "RequestBlocked", "Verdict"]


class Exchange:
    """Moderates one request and its response under one policy.

    ``key`` (16 bytes or more) keys hashes and stays the same across exchanges; pseudonyms are keyed by
    ``exchange_key``, which is random unless given. With ``record`` every span is kept in ``spans`` with its action.
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
        findings: Findings | None = None,
    ) -> None:
        self.policy = policy
        self.spans: list[tuple[Span, Action]] = []
        self._ledger = Ledger()
        self._lanes: dict[int, Lane] = {}
        replacer = Replacer(exchange_key or secrets.token_bytes(16), key)
        recorded = self.spans if record else None
        self._response = Terms(policy, detectors, facts, replacer, self._ledger, max_held, recorded)
        findings = Findings(policy, detectors) if findings is None else findings
        request = Terms(policy, (findings,), RequestFacts(), replacer, Ledger(self._ledger.tally), max_held)
        self._reader: RequestReader | None = RequestReader(request, findings, self._learn)

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

    def read(self, view: View, raw: str) -> str:
        """What is to go upstream for a text of the request. All of them are read before the first lane is asked for.

        Raises :class:`RequestBlocked` and :class:`ModerationFault`.
        """
        if self._reader is None:
            raise ValueError("the response has begun")
        return self._reader.read(view, raw)

    def _learn(self, kind: ChannelKind, text: str, spans: Sequence[Span]) -> None:
        pass

    def _begin_response(self, reader: RequestReader) -> None:
        """Make the terms of the response: they depend on what was read."""
        if self.policy.request.texts is RequestTexts.MODERATE:
            facts = self._response.facts  # the model knows these texts as they went upstream
            system = [reader.moderated(PlainView(ChannelKind.SYSTEM), text) for text in facts.system_prompts]
            user = reader.moderated(PlainView(ChannelKind.USER), facts.user)
            self._response = replace(self._response, facts=RequestFacts(tuple(system), user))
        self._reader = None

    def lane(self, index: int) -> Lane:
        """The lane of choice ``index``."""
        lane = self._lanes.get(index)
        if lane is None:
            if self._reader is not None:
                self._begin_response(self._reader)
            lane = self._lanes[index] = Lane(self._response)
        return lane
