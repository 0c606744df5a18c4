"""Keys that seal, with their names: AES-256-GCM with random nonces of 96 bits.

The first key seals, all open. To rotate, put a new key in front; drop the old one when what it sealed has expired.

Limit: random nonces allow 2**32 seals for each key (NIST SP 800-38D, 8.3). At 100 a second that is more than a year:
change keys once a year, or more often where more is sealed.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KeyRing", "Unsealable"]

_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_STANDARD = str.maketrans("-_", "+/")
_HOW = "write NAME:KEY, each key 32 bytes in base64 (openssl rand -base64 32), several with commas"


class Unsealable(Exception):  # noqa: N818  # not an error of ours: a finding about what a client sent
    """A seal does not open. ``expired``: it is one of ours and in its place, but too old. Says nothing else."""

    def __init__(self, *, expired: bool = False) -> None:
        super().__init__("the seal has expired" if expired else "the seal is not valid")
        self.expired = expired


class KeyRing:
    """Keys of 32 bytes by name, the sealing one first. ``ValueError`` says what is wrong, never with a key."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise ValueError(_HOW)
        for name, key in keys.items():
            if _NAME.fullmatch(name) is None or len(key) != _KEY_BYTES:
                raise ValueError(_HOW)
        self._keys = {name.encode(): AESGCM(key) for name, key in keys.items()}
        self._first = next(iter(self._keys))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The keys of a setting: ``name:base64key``, with commas between."""
        keys: dict[str, bytes] = {}
        for each in text.split(","):
            name, _, encoded = each.strip().partition(":")
            if name in keys:
                raise ValueError("two keys have the same name")
            try:
                keys[name] = base64.b64decode(encoded.translate(_STANDARD), validate=True)
            except binascii.Error:
                raise ValueError(_HOW) from None
        return cls(keys)

    @classmethod
    def random(cls) -> Self:
        """One key that nobody knows: what it seals does not outlive the process and its forks."""
        return cls({"random": secrets.token_bytes(_KEY_BYTES)})

    @property
    def overhead(self) -> int:
        """Bytes that sealing adds."""
        return 1 + len(self._first) + _NONCE_BYTES + _TAG_BYTES

    def seal(self, data: bytes, binding: bytes) -> bytes:
        """``data``, encrypted; it opens only with the same ``binding``, which is not in it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._keys[self._first].encrypt(nonce, data, binding)
        return bytes([len(self._first)]) + self._first + nonce + sealed

    def open(self, sealed: bytes, binding: bytes) -> bytes:
        """What was sealed. Raises :class:`Unsealable`."""
        start = 1 + sealed[0] if sealed else 0
        key = self._keys.get(sealed[1:start])
        nonce, encrypted = sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]
        if key is None or len(encrypted) < _TAG_BYTES:
            raise Unsealable
        try:
            return key.decrypt(nonce, encrypted, binding)
        except InvalidTag:
            pass
        raise Unsealable
