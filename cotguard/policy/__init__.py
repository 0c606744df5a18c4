"""The policy language: what happens to a value that was found, by entity, channel and score."""

from cotguard.policy.compiled import Policy
from cotguard.policy.document import Links, Media, Mode, OnError, RequestTexts
from cotguard.policy.errors import PolicyError, Problem
from cotguard.policy.loading import is_ready, lists_values, load, parse, parse_draft, ready_policies
from cotguard.policy.sentences import rule_sentence, sentences

__all__ = [
    "Links",
    "Media",
    "Mode",
    "OnError",
    "Policy",
    "PolicyError",
    "Problem",
    "RequestTexts",
    "is_ready",
    "lists_values",
    "load",
    "parse",
    "parse_draft",
    "ready_policies",
    "rule_sentence",
    "sentences",
]
