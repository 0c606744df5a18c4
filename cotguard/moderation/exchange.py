"""One exchange: its request's texts, its lanes and the account of what was decided.

exchange = Exchange(policy, detectors, facts, key)     # one per client request
exchange.note(PlainView(ChannelKind.USER), "a text")   # each text of the request, if the policy asks for origins
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
from cotguard.detectors.placeholders import GivenPlaceholders, PlaceholderShapes
from cotguard.moderation.channel import MAX_BYTES, MAX_HELD_CHARS, ExchangeTooLarge, ModerationFault, Terms
from cotguard.moderation.lane import Emission, Lane
from cotguard.moderation.observer import Observer
from cotguard.moderation.placeholders import Placeholders
from cotguard.moderation.provenance import Provenance
from cotguard.moderation.replacement import KeyedPseudonyms, Replacer
from cotguard.moderation.request import Findings, RequestBlocked, RequestReader
from cotguard.moderation.verdict import Journal, Ledger, Outcome, Verdict
from cotguard.moderation.view import PlainView, View
from cotguard.policy import Mode, OnError, Policy, RequestTexts
from cotguard.spans import Action, ChannelKind, Span

__all__ = [
    "Emission",
    "Exchange",
    "ExchangeTooLarge",
    "Lane",
    "ModerationFault",
    "Outcome",
    "RequestBlocked",
    "Verdict",
]


_SHAPES = PlaceholderShapes()


class Exchange:
    """Moderates one request and its response under one policy.

    ``key`` (16 bytes or more) keys hashes and stays the same across exchanges; pseudonyms in the response are keyed by
    ``exchange_key``, which is random unless given. ``observer`` is told what happens, for offline use.
    ``findings``: what is found in texts of requests, for all exchanges with these detectors. What is replaced by
    placeholders in them is restored in the lanes. Text of the kinds in ``hidden`` is moderated and not written.
    ``journal`` gets each decision. ``max_bytes``: the memory that the response may hold.
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
        findings: Findings | None = None,
        hidden: frozenset[ChannelKind] = frozenset(),
        journal: Journal | None = None,
        max_bytes: int = MAX_BYTES,
        observer: Observer | None = None,
    ) -> None:
        self.policy = policy
        self._ledger = Ledger(journal=journal)
        self._lanes: dict[int, Lane] = {}
        self._provenance = Provenance(policy)
        self.placeholders = Placeholders()
        replacer = Replacer(key, KeyedPseudonyms(exchange_key or secrets.token_bytes(16)))
        self._response = Terms(
            policy,
            detectors,
            facts,
            replacer,
            self.placeholders,
            self._ledger,
            max_held,
            observer,
            hidden=hidden,
            max_bytes=max_bytes,
        )
        findings = Findings(policy, detectors) if findings is None else findings
        request = Terms(
            policy,
            (findings, _SHAPES) if policy.pseudonymizes else (findings,),
            RequestFacts(),
            Replacer(key, self.placeholders),
            self.placeholders,
            Ledger(self._ledger.tally, journal=journal),
            max_held,
            observer,
            origins=self._provenance.origins,
        )
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

    def note(self, view: View, raw: str) -> None:
        """Note a text of the request, before any of them is read. Needed where the policy asks for origins."""
        self._provenance.origins.add(view.kind_at(0), self._request.decoded(view, raw))

    def read(self, view: View, raw: str) -> str:
        """What is to go upstream for a text of the request. All of them are read before the first lane is asked for.

        Raises :class:`RequestBlocked` and :class:`ModerationFault`.
        """
        return self._request.read(view, raw)

    def judge(self, entity: str, kind: ChannelKind) -> Action:
        """What is to be done about something in the request that is of ``entity`` as a whole; counted."""
        action = self.policy.decide(entity, kind, 1.0)
        carried_out = self.policy.mode is Mode.ENFORCE and self.policy.request.texts is RequestTexts.MODERATE
        if action is not Action.ALLOW:
            outcome = Outcome.of(action) if carried_out or action is Action.FLAG else Outcome.WOULD_HAVE
            self._ledger.count(Verdict(entity, kind, action, outcome), rule=self.policy.rule(entity, kind, 1.0))
        return action if carried_out else Action.ALLOW

    def is_plain(self, kind: ChannelKind, text: str) -> bool:
        """Whether the policy takes nothing that has a form of its own out of a word of the request.

        For names, ids, keys and numbers, which cannot be rewritten. Raises what :meth:`read` does.
        """
        return self._request.is_plain(kind, text)

    @property
    def _request(self) -> RequestReader:
        if self._reader is None:
            raise ValueError("the response has begun")
        return self._reader

    def _learn(self, kind: ChannelKind, text: str, spans: Sequence[Span]) -> None:
        try:
            self._provenance.learn(kind, text, spans)
        except ModerationFault:
            if self.policy.on_error is not OnError.OPEN:
                self._ledger.count(Verdict("", kind, Action.BLOCK, Outcome.FAILED_CLOSED))
                raise
            self._ledger.count(Verdict("", kind, Action.ALLOW, Outcome.BYPASSED))

    def _begin_response(self, reader: RequestReader) -> None:
        """Make the terms of the response: they depend on what was read."""
        terms = self._response
        facts, recalled = terms.facts, self._provenance.detector()
        if self.policy.request.texts is RequestTexts.MODERATE:  # the model knows texts as they went upstream
            system = [reader.moderated(PlainView(ChannelKind.SYSTEM), text) for text in facts.system_prompts]
            facts = RequestFacts(tuple(system), reader.moderated(PlainView(ChannelKind.USER), facts.user))
        detectors = list(terms.detectors)
        if recalled is not None:
            detectors.append(recalled)
        if self.placeholders.counts:
            detectors.append(GivenPlaceholders(self.placeholders.counts))
        self._response = replace(terms, detectors=detectors, facts=facts, origins=self._provenance.origins)
        self._reader = None

    def keep(self, size: int) -> None:
        """Account for ``size`` more bytes that a dialect keeps of the response. Raises :class:`ExchangeTooLarge`."""
        self._response.keep(size)

    def lane(self, index: int) -> Lane:
        """The lane of choice ``index``."""
        lane = self._lanes.get(index)
        if lane is None:
            if self._reader is not None:
                self._begin_response(self._reader)
            lane = self._lanes[index] = Lane(self._response, index)
        return lane
