"""A policy made ready for use: one look-up for each value found.

For every entity and channel the rules that name both are kept in order, each as the lowest score it takes and its
action, up to the first that takes every score; where there is none, the default ends the row. Detectors may report
entities the taxonomy does not know; these share a row that only rules for ``ALL`` fill.

Known limit: the digest is not keyed. Who sees it, and knows the rest of the policy, can test guesses at known values.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cotguard.policy.document import EVERYTHING, Links, Mode, OnError, PolicyDocument, RequestDocument
from cotguard.spans import Action, ChannelKind
from cotguard.taxonomy import ENTITIES, expand

__all__ = ["Policy", "compile_policy", "idle_rules"]

_UNKNOWN = ""
"""Stands for every entity that the taxonomy does not know."""

_DIGEST_CHARS = 16

Place = tuple[str, ChannelKind]


@dataclass(frozen=True, slots=True)
class _Row:
    """Decisions for one entity in one channel: the action of the first step whose score is reached, or ``rest``."""

    steps: tuple[tuple[float, Action], ...]
    rest: Action

    @property
    def acts(self) -> bool:
        return self.rest is not Action.ALLOW or any(action is not Action.ALLOW for _, action in self.steps)


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """What happens to values found. Immutable; made by :func:`cotguard.policy.load` or :func:`cotguard.policy.parse`.

    ``digest`` names the content, known values included and description apart: 16 hex digits of a SHA-256.
    ``acts_on`` are the entities of the taxonomy that get another action than ``allow`` in some channel.
    """

    name: str
    mode: Mode
    on_error: OnError
    uses_classifier: bool
    notice: str
    links: Links
    request: RequestDocument
    digest: str
    known_values: tuple[str, ...] = field(repr=False)
    acts_on: frozenset[str] = field(repr=False)
    _table: Mapping[Place, _Row] = field(repr=False)

    def decide(self, entity: str, kind: ChannelKind, score: float) -> Action:
        """The action for a value of ``entity`` with ``score`` (0 to 1) in a channel of ``kind``."""
        row = self._table.get((entity, kind)) or self._table[_UNKNOWN, kind]
        for lowest, action in row.steps:
            # Not ">=": a score that is not a number must meet a rule, and is below none.
            if not score < lowest:
                return action
        return row.rest

    def entities_for(self, kind: ChannelKind) -> frozenset[str]:
        """Entities of the taxonomy that get another action than ``allow`` in a channel of ``kind``."""
        return frozenset(entity for entity in self.acts_on if self._table[entity, kind].acts)

    def acts(self, entity: str) -> bool:
        """Whether ``entity``, known to the taxonomy or not, gets another action than ``allow`` in some channel."""
        known = entity if entity in ENTITIES else _UNKNOWN
        return any(self._table[known, kind].acts for kind in ChannelKind)


def compile_policy(document: PolicyDocument, known_values: Sequence[str]) -> Policy:
    """The policy of ``document``. ``known_values``: all of them, those of the document's file included."""
    table = {place: _row(document, rules) for place, rules in _deciding_rules(document).items()}
    return Policy(
        name=document.name,
        mode=document.mode,
        on_error=document.on_error,
        uses_classifier=document.classifier,
        notice=document.notice,
        links=document.links,
        request=document.request,
        digest=_digest(document, known_values),
        known_values=tuple(known_values),
        acts_on=frozenset(entity for (entity, _), row in table.items() if row.acts) - {_UNKNOWN},
        _table=table,
    )


def idle_rules(document: PolicyDocument) -> list[int]:
    """Indexes of rules that never decide, because rules before them take every value they name."""
    deciding = set(itertools.chain.from_iterable(_deciding_rules(document).values()))
    return [index for index in range(len(document.rules)) if index not in deciding]


def _deciding_rules(document: PolicyDocument) -> dict[Place, list[int]]:
    """For every place the indexes of the rules that take some score there, in order.

    A rule with ``unless_origin`` leaves some values to the rules behind it.
    """
    deciding: dict[Place, list[int]] = {place: [] for place in itertools.product((*ENTITIES, _UNKNOWN), ChannelKind)}
    left_below = dict.fromkeys(deciding, math.inf)
    for index, rule in enumerate(document.rules):
        entities = expand(rule.entities) | ({_UNKNOWN} if EVERYTHING in rule.entities else set())
        for place in itertools.product(entities, frozenset(rule.channels)):
            if rule.min_score < left_below[place]:
                deciding[place].append(index)
                if not rule.unless_origin:
                    left_below[place] = rule.min_score
    return deciding


def _row(document: PolicyDocument, rules: Sequence[int]) -> _Row:
    steps: list[tuple[float, Action]] = []
    for rule in (document.rules[index] for index in rules):
        if rule.min_score == 0:
            return _Row(tuple(steps), rule.action)
        if not steps or rule.min_score < steps[-1][0]:  # else no score is left to it
            steps.append((rule.min_score, rule.action))
    return _Row(tuple(steps), document.default)


def _digest(document: PolicyDocument, known_values: Sequence[str]) -> str:
    content = document.model_dump(mode="json", exclude={"description", "known_values"})
    canonical = json.dumps({**content, "known_values": list(known_values)}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_CHARS]
