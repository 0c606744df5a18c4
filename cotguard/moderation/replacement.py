"""What is written in place of a value.

A replacement depends on the entity, the value and the exchange's key alone: never on arrival order, so that the
same value gets the same label however channels interleave (G1).
"""

import base64
import hashlib
import hmac

from cotguard.spans import Action

__all__ = ["Replacer"]

_LABEL_CHARS = 5  # 25 bits: two of fifty values in an exchange share a label once in about 27,000 exchanges
_HASH_CHARS = 16


class Replacer:
    """Writes replacements. ``exchange_key`` keys pseudonyms, ``hash_key`` keys hashes that outlive an exchange."""

    def __init__(self, exchange_key: bytes, hash_key: bytes) -> None:
        self._exchange_key = exchange_key
        self._hash_key = hash_key

    def replacement(self, action: Action, entity: str, value: str) -> str:
        """Text for ``value`` under a rewriting ``action`` other than block and withhold.

        * ``redact``: ``[ENTITY]``
        * ``mask``: one ``*`` for each code point
        * ``hash``: ``[ENTITY:16 hex digits]``, HMAC-SHA256 of the value, the same across exchanges
        * ``pseudonymize``: ``[ENTITY_ABCDE]``, the same for the same value within an exchange, case, spaces and
          punctuation apart
        """
        if action is Action.MASK:
            return "*" * len(value)
        if action is Action.HASH:
            return f"[{entity}:{_digest(self._hash_key, _plain(value)).hex()[:_HASH_CHARS]}]"
        if action is Action.PSEUDONYMIZE:
            label = base64.b32encode(_digest(self._exchange_key, _plain(value))).decode()[:_LABEL_CHARS]
            return f"[{entity}_{label}]"
        return f"[{entity}]"


def _plain(value: str) -> str:
    return "".join(filter(str.isalnum, value.casefold())) or value


def _digest(key: bytes, value: str) -> bytes:
    return hmac.digest(key, value.encode("utf-8", "surrogatepass"), hashlib.sha256)
