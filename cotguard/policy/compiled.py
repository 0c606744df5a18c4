"""A policy made ready for use: one look-up for each value found.

For every entity and channel the rules that name both are kept in order, each as the lowest score it takes, the origins
it leaves alone and its action, up to the first that takes every value; where there is none, the default ends the row.
Detectors may report entities the taxonomy does not know; these share a row that only rules for ``ALL`` fill.

Known limit: clients see the digest. Who knows the rest of the policy can test guesses at known values, all of them at
once, at the price of one slow hash (16 MiB, some 50 ms) for each guess.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cotguard.policy.document import EVERYTHING, Links, Mode, OnError, PolicyDocument, RequestDocument, RuleDocument
from cotguard.spans import Action, ChannelKind
from cotguard.taxonomy import ENTITIES, expand

__all__ = ["Policy", "compile_policy", "idle_rules"]

_UNKNOWN = ""
"""Stands for every entity that the taxonomy does not know."""

_DIGEST_CHARS = 16

Place = tuple[str, ChannelKind]


class _Step(NamedTuple):
    lowest: float
    unless: frozenset[ChannelKind]
    action: Action
    rule: int


@dataclass(frozen=True, slots=True)
class _Row:
    """Decisions for one entity in one channel: the action of the first step that takes the value, or ``rest``."""

    steps: tuple[_Step, ...]
    rest: Action
    last: int
    """Which rule ``rest`` is from; -1 for the default."""

    @property
    def acts(self) -> bool:
        return self.rest is not Action.ALLOW or any(step.action is not Action.ALLOW for step in self.steps)

    @property
    def needs_origins(self) -> bool:
        return any(step.unless for step in self.steps)

    def may_act(self, score: float) -> bool:
        passed: list[frozenset[ChannelKind]] = []  # what earlier steps leave alone; some of each must be met
        for lowest, unless, action, _ in self.steps:
            if not score < lowest:
                if action is not Action.ALLOW and all(each - unless for each in passed):
                    return True
                if not unless:
                    return False
                passed.append(unless)
        return self.rest is not Action.ALLOW

    def takes(self, action: Action) -> bool:
        """Whether some score gets ``action``."""
        return self.rest is action or any(step.action is action for step in self.steps)


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """What happens to values found. Immutable; made by :func:`cotguard.policy.load` or :func:`cotguard.policy.parse`.

    ``digest`` names the content, known values included and description apart: 16 hex digits of a SHA-256.
    ``acts_on`` are the entities of the taxonomy that get another action than ``allow`` in some channel;
    ``pseudonymizes``: whether some value is pseudonymized in some channel; ``asks_origins``: whether some rule asks
    where a value comes from.
    """

    name: str
    mode: Mode
    on_error: OnError
    on_audit_error: OnError
    uses_classifier: bool
    notice: str
    links: Links
    request: RequestDocument
    digest: str
    known_values: tuple[str, ...] = field(repr=False)
    acts_on: frozenset[str] = field(repr=False)
    pseudonymizes: bool
    _table: Mapping[Place, _Row] = field(repr=False)
    asks_origins: bool = field(repr=False)
    rules: tuple[RuleDocument, ...] = field(default=(), repr=False)
    """As they are written, by the index that ``rule`` tells."""
    default: Action = Action.ALLOW
    file: str = field(default="", repr=False)
    """What it was read from, if that is a file."""
    values_file: str = field(default="", repr=False)
    """The file of known values that it names, if it does."""

    @property
    def files(self) -> tuple[str, ...]:
        """All that it was read from."""
        return tuple(name for name in (self.file, self.values_file) if name)

    def decide(
        self, entity: str, kind: ChannelKind, score: float, origins: frozenset[ChannelKind] = frozenset()
    ) -> Action:
        """The action for a value of ``entity`` with ``score`` (0 to 1) in a channel of ``kind``.

        ``origins``: the kinds of the request's texts that the value stands in.
        """
        row = self._row(entity, kind)
        for lowest, unless, action, _ in row.steps:
            # Not ">=": a score that is not a number must meet a rule, and is below none.
            if not score < lowest and not unless & origins:
                return action
        return row.rest

    def rule(self, entity: str, kind: ChannelKind, score: float, origins: frozenset[ChannelKind] = frozenset()) -> int:
        """The index of the rule that ``decide`` goes by; -1 for the default."""
        row = self._row(entity, kind)
        for lowest, unless, _, rule in row.steps:
            if not score < lowest and not unless & origins:
                return rule
        return row.last

    def needs_origins(self, entity: str, kind: ChannelKind) -> bool:
        """Whether ``decide`` asks where a value of ``entity`` comes from in a channel of ``kind``."""
        return self.asks_origins and self._row(entity, kind).needs_origins

    def may_act(self, entity: str, kinds: Iterable[ChannelKind], score: float) -> bool:
        """Whether a value with this score, wherever it comes from, may get another action than ``allow`` somewhere."""
        return any(self._row(entity, kind).may_act(score) for kind in kinds)

    def _row(self, entity: str, kind: ChannelKind) -> _Row:
        return self._table.get((entity, kind)) or self._table[_UNKNOWN, kind]

    def entities_for(self, kind: ChannelKind) -> frozenset[str]:
        """Entities of the taxonomy that get another action than ``allow`` in a channel of ``kind``."""
        return frozenset(entity for entity in self.acts_on if self._table[entity, kind].acts)

    def acts(self, entity: str) -> bool:
        """Whether ``entity``, known to the taxonomy or not, gets another action than ``allow`` in some channel."""
        known = entity if entity in ENTITIES else _UNKNOWN
        return any(self._table[known, kind].acts for kind in ChannelKind)


def compile_policy(
    document: PolicyDocument, known_values: Sequence[str], file: str = "", values_file: str = ""
) -> Policy:
    """The policy of ``document``. ``known_values``: all of them, those of the document's file included.

    ``file`` and ``values_file``: what it was read from.
    """
    table = {place: _row(document, rules) for place, rules in _deciding_rules(document).items()}
    return Policy(
        name=document.name,
        mode=document.mode,
        on_error=document.on_error,
        on_audit_error=document.on_audit_error,
        uses_classifier=document.classifier,
        notice=document.notice,
        links=document.links,
        request=document.request,
        digest=_digest(document, known_values),
        known_values=tuple(known_values),
        acts_on=frozenset(entity for (entity, _), row in table.items() if row.acts) - {_UNKNOWN},
        pseudonymizes=any(row.takes(Action.PSEUDONYMIZE) for row in table.values()),
        _table=table,
        asks_origins=any(rule.unless_origin for rule in document.rules),
        rules=document.rules,
        default=document.default,
        file=file,
        values_file=values_file,
    )


def idle_rules(document: PolicyDocument) -> list[int]:
    """Indexes of rules that never decide, because rules before them take every value they name."""
    deciding = set(itertools.chain.from_iterable(_deciding_rules(document).values()))
    return [index for index in range(len(document.rules)) if index not in deciding]


def _deciding_rules(document: PolicyDocument) -> dict[Place, list[int]]:
    """For every place the indexes of the rules that take some value there, in order.

    A rule with ``unless_origin`` leaves some values to the rules behind it.
    """
    deciding: dict[Place, list[int]] = {place: [] for place in itertools.product((*ENTITIES, _UNKNOWN), ChannelKind)}
    for index, rule in enumerate(document.rules):
        entities = expand(rule.entities) | ({_UNKNOWN} if EVERYTHING in rule.entities else set())
        # A rule before it takes all its values if it takes their scores and leaves no other origins alone.
        before = [
            earlier
            for earlier, other in enumerate(document.rules[:index])
            if other.min_score <= rule.min_score and set(other.unless_origin) <= set(rule.unless_origin)
        ]
        for place in itertools.product(entities, frozenset(rule.channels)):
            if not any(earlier in deciding[place] for earlier in before):
                deciding[place].append(index)
    return deciding


def _row(document: PolicyDocument, rules: Sequence[int]) -> _Row:
    steps: list[_Step] = []
    for index in rules:
        rule = document.rules[index]
        if rule.min_score == 0 and not rule.unless_origin:
            return _Row(tuple(steps), rule.action, index)
        steps.append(_Step(rule.min_score, frozenset(rule.unless_origin), rule.action, index))
    return _Row(tuple(steps), document.default, -1)


def _digest(document: PolicyDocument, known_values: Sequence[str]) -> str:
    content = document.model_dump(mode="json", exclude={"description", "known_values"})
    values = json.dumps(list(known_values)).encode() if known_values else b""
    slow = hashlib.scrypt(values, salt=b"known values", n=2**14, r=8, p=1).hex() if values else ""
    canonical = json.dumps({**content, "known_values": slow}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_CHARS]
