"""A draft beside the policy that it is to replace: what each makes of the same texts.

Texts are pasted, or samples that come with cotguard (:mod:`cotguard.console.traces`). Each is an exchange of its own,
moderated as the proxy moderates, under both policies with the same keys: a value has the same label and the same hash
on both sides, and other ones than live traffic has. Nothing of it is counted, recorded or remembered.
"""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cotguard.classifier.handover import Answerers, handed_over, pause
from cotguard.console.traces import Texts, samples
from cotguard.detectors.contract import RequestFacts
from cotguard.gateway.drafting import asked
from cotguard.gateway.moderations import Moderation
from cotguard.gateway.trial import counted
from cotguard.moderation.exchange import Exchange, ModerationFault, RequestBlocked, Verdict
from cotguard.moderation.json_view import view_for
from cotguard.moderation.request import Findings
from cotguard.moderation.verdict import Decision, Journal
from cotguard.moderation.view import PlainView, View
from cotguard.moderator import ModeratedExchange
from cotguard.policy import Policy, rule_sentence
from cotguard.spans import ChannelKind

if TYPE_CHECKING:
    from cotguard.gateway.app import Gateway

__all__ = ["MAX_CHARS", "MAX_TEXTS", "compared"]

MAX_TEXTS = 100
"""Texts of one comparison, samples apart."""

MAX_CHARS = 256 * 1024
"""Characters of all of them together."""

_ACTIVE: Final = "active"
_DRAFT: Final = "draft"
_FAULT: Final = "moderating failed"


class _Case(NamedTuple):
    """An exchange to be moderated: of each kind there is one text."""

    label: str
    request: Texts
    response: Texts


class _Made(NamedTuple):
    """What a policy made of an exchange: of each of its texts what is let out, and what was decided in it."""

    policy: Policy
    written: Mapping[ChannelKind, str]
    decisions: Sequence[Decision]
    blocked: bool
    fault: str
    tally: Counter[Verdict]

    def side(self, kind: ChannelKind) -> dict[str, Any]:
        """One of its texts, as JSON."""
        return {
            "delivered": self.written.get(kind, ""),
            "spans": [_span(each, self.policy) for each in self.decisions if each.kind is kind and each.entity],
            "blocked": self.blocked,
            "fault": self.fault,
        }


async def compared(gateway: "Gateway", about: Mapping[str, Any]) -> dict[str, Any]:
    """What both policies make of the texts that ``about`` names, text by text and in sum.

    In it are the ``draft``, the name of the ``policy`` that it is to replace, ``texts`` (``channel`` and ``text`` of
    each) or none, and whether ``samples`` are wanted.

    A row is one text: ``raw`` is what spans are offsets in (the decoded text of a tool's arguments), ``delivered`` what
    is let out of it. Of requests there are those that either policy rewrites. Raises ``ValueError``, and what
    :func:`~cotguard.gateway.drafting.Drafts.moderation` raises.
    """
    name, text = asked(about)
    cases = _cases(about)
    draft = await gateway.drafts.moderation(name, text)
    active = gateway.active.named(name)
    compare = _Comparison(gateway.staff.answerers, gateway.active.settings.max_exchange_bytes)
    rows: list[dict[str, Any]] = []
    totals: dict[str, Counter[Verdict]] = {_ACTIVE: Counter(), _DRAFT: Counter()}
    for case in cases:
        made = {_ACTIVE: await compare.made(active, case), _DRAFT: await compare.made(draft, case)}
        for side, each in made.items():
            totals[side] += each.tally
        rows += _rows(case, made[_ACTIVE], made[_DRAFT])
    return {"rows": rows, "totals": {side: counted(tally) for side, tally in totals.items()}}


class _Comparison:
    """Moderates exchanges with the same keys."""

    def __init__(self, answerers: Answerers, max_bytes: int) -> None:
        self._answerers = answerers
        self._max_bytes = max_bytes
        self._key = secrets.token_bytes(32)
        self._exchange_key = secrets.token_bytes(16)

    async def made(self, moderation: Moderation, case: _Case) -> _Made:
        """What ``moderation`` makes of an exchange."""
        journal = Journal(lambda _value: "")
        exchange = Exchange(
            moderation.policy,
            moderation.detectors,
            RequestFacts.of(case.request),
            self._key,
            exchange_key=self._exchange_key,
            findings=Findings(moderation.policy, moderation.detectors, pause),
            journal=journal,
            max_bytes=self._max_bytes,
        )
        written: dict[ChannelKind, str] = {}
        blocked, fault = False, ""
        try:
            blocked = await handed_over(partial(_moderated, exchange, case, written), self._answerers)
        except RequestBlocked:
            blocked = True
        except ModerationFault:
            written, fault = {}, _FAULT
        return _Made(moderation.policy, written, journal.take(), blocked, fault, exchange.tally)


def _moderated(exchange: Exchange, case: _Case, written: dict[ChannelKind, str]) -> bool:
    """Put into ``written`` what is let out of each text. Returns whether a block ended it."""
    moderated = ModeratedExchange(exchange, case.request)
    written.update(zip((kind for kind, _ in case.request), moderated.request, strict=True))
    pieces = [piece for kind, text in case.response for piece in moderated.feed(kind, text)]
    for piece in (*pieces, *moderated.finish()):
        written[piece.channel] = written.get(piece.channel, "") + piece.text
    return moderated.blocked


def _rows(case: _Case, active: _Made, draft: _Made) -> list[dict[str, Any]]:
    rows = []
    for kind, text in case.request:
        row = _row(case.label, PlainView(kind), text, active, draft)
        if any(row[side]["delivered"] != row["raw"] for side in (_ACTIVE, _DRAFT)):
            rows.append(row)
    for kind, text in case.response:
        rows.append(_row(case.label, view_for(kind), text, active, draft))
    return rows


def _row(label: str, view: View, text: str, active: _Made, draft: _Made) -> dict[str, Any]:
    kind = view.kind_at(0)
    sides = {_ACTIVE: active.side(kind), _DRAFT: draft.side(kind)}
    same = _seen(sides[_ACTIVE]) == _seen(sides[_DRAFT])
    return {"label": label, "channel": kind.value, "raw": view.feed(text, True), **sides, "same": same}


def _seen(side: Mapping[str, Any]) -> object:
    """What of a side makes a difference: which of a policy's rules it was does not."""
    spans = [(each["start"], each["end"], each["entity"], each["action"], each["outcome"]) for each in side["spans"]]
    return side["delivered"], side["blocked"], side["fault"], spans


def _span(decision: Decision, policy: Policy) -> dict[str, Any]:
    return {
        "start": decision.start,
        "end": decision.start + decision.length,
        "entity": decision.entity,
        "score": decision.score,
        "detector": decision.detector,
        "action": decision.action.value,
        "outcome": decision.outcome.value,
        "rule": decision.rule,
        "rule_text": rule_sentence(policy, decision.rule),
    }


def _cases(about: Mapping[str, Any]) -> list[_Case]:
    """The exchanges that are asked for. Raises ``ValueError``, which quotes nothing of them."""
    given = about.get("texts") or []
    if not isinstance(given, list) or len(given) > MAX_TEXTS:
        raise ValueError(f"texts: write a list of at most {MAX_TEXTS} texts")
    cases = []
    for number, each in enumerate(given, start=1):
        kind, text = (each.get("channel"), each.get("text")) if isinstance(each, dict) else (None, None)
        if not isinstance(text, str) or kind not in tuple(ChannelKind):
            known = ", ".join(ChannelKind)
            raise ValueError(f"texts: text {number}: write its text, and its channel, which is one of: {known}")
        cases.append(_Case(f"text {number}", (), ((ChannelKind(kind), text),)))
    if sum(len(text) for case in cases for _, text in case.response) > MAX_CHARS:
        raise ValueError(f"texts: write at most {MAX_CHARS} characters in all")
    if about.get("samples"):
        cases += [_Case(each.title, each.request, each.response) for each in samples()]
    if not cases:
        raise ValueError("texts: write some, or ask for the samples")
    return cases
