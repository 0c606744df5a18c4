"""A policy as people read it: English sentences, in the order in which they take effect.

Guarantee: of known values there is a count and nothing else.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from cotguard.policy.compiled import Policy
from cotguard.policy.document import EVERYTHING, Links, Media, Mode, OnError, RequestTexts, RuleDocument
from cotguard.spans import INBOUND, Action, ChannelKind
from cotguard.taxonomy import GROUPS

__all__ = ["rule_sentence", "sentences"]


class _Deed(NamedTuple):
    """What an action does to values: ``now`` where it is carried out, ``would`` where it is only counted.

    ``seen`` is what the reader of the stream sees; braces are holes for an entity's name, and for the policy's notice.
    """

    now: str
    would: str
    seen: str


_DEEDS: Final = {
    Action.ALLOW: _Deed("pass", "pass", "{reader} sees them as they stand"),
    Action.FLAG: _Deed("are counted and pass", "are counted and pass", "{reader} sees them as they stand"),
    Action.MASK: _Deed("are masked", "would be masked", "{reader} sees one * for each of their characters"),
    Action.PSEUDONYMIZE: _Deed(
        "are pseudonymized",
        "would be pseudonymized",
        "{reader} sees a label such as [{entity}_XXXXX], the same for the same value within an exchange",
    ),
    Action.HASH: _Deed(
        "are hashed",
        "would be hashed",
        "{reader} sees a hash such as [{entity}:0123456789abcdef], the same for the same value in every exchange",
    ),
    Action.REDACT: _Deed("are redacted", "would be redacted", "{reader} sees the name of each, such as [{entity}]"),
    Action.WITHHOLD: _Deed(
        "are withheld with the rest of their channel",
        "would be withheld with the rest of their channel",
        '{reader} sees "{notice}" instead, and the other channels go on',
    ),
    Action.BLOCK: _Deed(
        "end the exchange",
        "would end the exchange",
        "{reader} sees what was written before them, and that a content filter ended it",
    ),
}

_PLACEHOLDERS: Final = (
    "in requests they become placeholders such as [{entity}_1], which the reader of the stream sees as the values again"
)
_MODES: Final = {
    Mode.ENFORCE: "Decisions are carried out (enforce).",
    Mode.SHADOW: "Nothing is altered, and what would have happened is counted (shadow).",
}
_TEXTS: Final = {
    RequestTexts.IGNORE: "The texts of requests are not looked at (ignore): no rule is carried out on them.",
    RequestTexts.READ: (
        "The texts of requests are read and not altered (read): values in them are known when the model repeats them, "
        "what is flagged there is counted, and no other rule is carried out on them."
    ),
    RequestTexts.MODERATE: (
        "The texts of requests are moderated (moderate): the rules for their channels are carried out before the "
        "model gets them."
    ),
}
_MODELS: Final = {
    True: "Models (the classifier, a guard) read requests too.",
    False: "Models (the classifier, a guard) do not read requests.",
}
_MEDIA: Final = {
    Media.PASS: "Images, sound and files in requests, which nothing reads, go to the model (pass).",
    Media.REFUSE: "Requests with images, sound or files, which nothing reads, are refused (refuse).",
}
_FAULTS: Final = {
    OnError.CLOSED: "When moderating fails, the exchange ends and nothing undecided is delivered (closed).",
    OnError.OPEN: "When moderating fails, the text passes unmoderated and is counted as such (open).",
}
_UNRECORDED: Final = {
    OnError.CLOSED: (
        "Where an audit trail is kept and a decision cannot be recorded, the exchange ends before it is delivered "
        "(closed)."
    ),
    OnError.OPEN: "Where an audit trail is kept and a decision cannot be recorded, the exchange goes on (open).",
}
_CLASSIFIER: Final = {
    True: "The classifier looks for values beside the patterns, checksums and lists.",
    False: "The classifier is not used: values are found by patterns, checksums and lists alone.",
}
_LINKS: Final = {
    Links.WIDEN: "Where a value stands in the target of a link, the whole target is rewritten with it (widen).",
    Links.KEEP: "Where a value stands in the target of a link, the rest of the target stays (keep).",
}
_EXAMPLE: Final = "EMAIL_ADDRESS"


def sentences(policy: Policy) -> list[str]:
    """What ``policy`` does: its mode, each rule, what no rule fits, requests, known values, faults, and the rest."""
    return [
        _MODES[policy.mode],
        *(f"Rule {index + 1}: {rule_sentence(policy, index)}" for index in range(len(policy.rules))),
        rule_sentence(policy, -1),
        _TEXTS[policy.request.texts],
        _MODELS[policy.request.classifier],
        _MEDIA[policy.request.media],
        _known(len(policy.known_values)),
        _FAULTS[policy.on_error],
        _UNRECORDED[policy.on_audit_error],
        _CLASSIFIER[policy.uses_classifier],
        f'The notice in place of what is withheld is "{policy.notice}".',
        _LINKS[policy.links],
    ]


def rule_sentence(policy: Policy, index: int) -> str:
    """What the rule of that index does (from 0, as :meth:`~cotguard.policy.Policy.rule` tells it); -1: the default."""
    if index < 0:
        return _sentence(policy, "Values that no rule fits", policy.default, (EVERYTHING,), tuple(ChannelKind))
    rule = policy.rules[index]
    return _sentence(policy, _subject(rule), rule.action, rule.entities, rule.channels)


def _sentence(
    policy: Policy, subject: str, action: Action, entities: Sequence[str], channels: Collection[ChannelKind]
) -> str:
    deed, shadow = _DEEDS[action], policy.mode is Mode.SHADOW
    told = [_DEEDS[Action.ALLOW].seen if shadow else deed.seen]
    moderates = policy.request.texts is RequestTexts.MODERATE
    if action is Action.PSEUDONYMIZE and moderates and not shadow and not frozenset(INBOUND).isdisjoint(channels):
        told = [_PLACEHOLDERS] if frozenset(INBOUND).issuperset(channels) else [*told, _PLACEHOLDERS]
    reader = "the model" if frozenset(INBOUND).issuperset(channels) else "the reader"
    words = {"{reader}": reader, "{entity}": _example(entities[0]), "{notice}": policy.notice}
    seen = re.sub(r"\{\w+\}", lambda hole: words[hole[0]], "; ".join(told))
    return f"{subject} {deed.would if shadow else deed.now}: {seen}."


def _subject(rule: RuleDocument) -> str:
    told = f"{_entities(rule.entities)} {_channels(rule.channels)}"
    if rule.min_score:
        told += f" with a score of at least {rule.min_score}"
    if rule.unless_origin:
        origins = _joined(dict.fromkeys(rule.unless_origin), "or")
        told += f", unless they stand in the request's {origins} texts (the next rules decide of those),"
    return told


def _entities(words: Iterable[str]) -> str:
    words = dict.fromkeys(words)
    if EVERYTHING in words:
        return f"Values of every entity ({EVERYTHING})"
    return f"Values of {_joined([_entity(word) for word in words], 'or')}"


def _entity(word: str) -> str:
    return f"{word} (a group of {len(GROUPS[word])} entities)" if word in GROUPS else word


def _channels(channels: Iterable[ChannelKind]) -> str:
    named = dict.fromkeys(channels)
    if named.keys() == frozenset(ChannelKind):
        return "in every channel"
    return f"in {_joined(named, 'or')}"


def _joined(words: Iterable[str], conjunction: str) -> str:
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def _example(word: str) -> str:
    """An entity that ``word`` names, as a reader may see it."""
    if word == EVERYTHING:
        return _EXAMPLE
    return next(name for name in GROUPS[word] if name != word) if word in GROUPS else word


def _known(count: int) -> str:
    if not count:
        return "There are no known values of the operator's own."
    if count == 1:
        return "1 known value of the operator's own is found as KNOWN_VALUE."
    return f"{count} known values of the operator's own are found as KNOWN_VALUE."
