"""What is written in place of a value.

A replacement depends on the entity, the value and the exchange's key alone: never on arrival order, so that the
same value gets the same label however channels interleave (G1). The texts of a request have one order, so there
placeholders can be numbered (:mod:`cotguard.moderation.placeholders`).
"""

import base64
import hashlib
import hmac
from typing import Protocol

from cotguard.spans import Action

__all__ = ["KeyedPseudonyms", "Pseudonyms", "Replacer", "plain"]

_LABEL_CHARS = 5  # 25 bits: two of fifty values in an exchange share a label once in about 27,000 exchanges
_HASH_CHARS = 16


class Pseudonyms(Protocol):
    """Labels that stand for values within an exchange."""

    def pseudonym(self, entity: str, value: str) -> str:
        """The label of ``value``, with the brackets around it."""
        ...


class KeyedPseudonyms:
    """``[ENTITY_ABCDE]``, derived from the value: the same for the same value, case, spaces and punctuation apart."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def pseudonym(self, entity: str, value: str) -> str:
        label = base64.b32encode(_digest(self._key, plain(value))).decode()[:_LABEL_CHARS]
        return f"[{entity}_{label}]"


class Replacer:
    """Writes replacements. ``hash_key`` keys hashes, which outlive an exchange; ``pseudonyms`` are one exchange's."""

    def __init__(self, hash_key: bytes, pseudonyms: Pseudonyms) -> None:
        self._hash_key = hash_key
        self._pseudonyms = pseudonyms

    def replacement(self, action: Action, entity: str, value: str) -> str:
        """Text for ``value`` under a rewriting ``action`` other than block and withhold.

        * ``redact``: ``[ENTITY]``
        * ``mask``: one ``*`` for each code point
        * ``hash``: ``[ENTITY:16 hex digits]``, HMAC-SHA256 of the value, the same across exchanges
        * ``pseudonymize``: the value's label among the pseudonyms
        """
        if action is Action.MASK:
            return "*" * len(value)
        if action is Action.HASH:
            return f"[{entity}:{_digest(self._hash_key, plain(value)).hex()[:_HASH_CHARS]}]"
        if action is Action.PSEUDONYMIZE:
            return self._pseudonyms.pseudonym(entity, value)
        return f"[{entity}]"


def plain(value: str) -> str:
    """What is the same for all spellings of a value: case, spaces and punctuation make no difference."""
    return "".join(filter(str.isalnum, value.casefold())) or value


def _digest(key: bytes, value: str) -> bytes:
    return hmac.digest(key, value.encode("utf-8", "surrogatepass"), hashlib.sha256)
