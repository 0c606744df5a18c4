"""Seals: an original, encrypted into a token that stands in its place with a client.

seals = Seals(keys, caller="c1", upstream=lambda model: "https://models.example", now=time.time(), max_age=86400)
token = seals.seal("thinking", {"thinking": original, "signature": signature}, model, issued)
seals.open("thinking", token, model, issued)          # the mapping again, or Unsealable

A token is base64url without padding: a mark, the key's name, a nonce and a ciphertext, the mark again. It is told by
either mark, so that one with a damaged end is not taken for a model server's own signature. It opens for the caller,
upstream, kind of place, model and issued text it was made for, all of which are authenticated and none of which is in
it. The ciphertext is the time of issue and the original, compressed; a text that was issued unchanged is left out,
since the client brings it back.

With a *store* (:mod:`cotguard.sealing.store`) the original stays inside, encrypted all the same, and the token holds
the random handle it is kept under, bound in the same way.

Guarantees: sans-IO; errors say whether a token expired, and otherwise nothing of why it does not open.
"""

import base64
import hashlib
import secrets
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cotguard.framing.json import JSONError, dumps, loads
from cotguard.sealing.keyring import KeyRing, Unsealable
from cotguard.sealing.store import fetched, kept

__all__ = ["MARK", "Seals", "is_token"]

MARK = "cotguard"
"""Every token begins and ends so."""

_MARK = base64.b64decode(MARK)
_VERSION = b"\x01"
_ALIGNED = 3  # bytes that base64 writes without padding: no character of a token has spare bits
_HANDLE_BYTES = 16


def is_token(value: object) -> bool:
    """Whether ``value`` is a token, or what is left of one."""
    return isinstance(value, str) and (value.startswith(MARK) or value.endswith(MARK))


@dataclass(frozen=True, slots=True)
class Seals:
    """The seals of one exchange. ``now`` is its time and ``max_age`` how long its seals hold, in seconds.

    ``upstream`` tells of a model which upstream it is asked of, in a word; ``caller`` tells callers apart. ``stored``:
    originals are kept in the store.
    """

    keys: KeyRing
    caller: str
    upstream: Callable[[str], str]
    now: float
    max_age: float
    stored: bool = False

    def seal(self, kind: str, original: Mapping[str, Any], model: str, issued: str) -> str:
        """A token for ``original``, which goes to the client with the text ``issued`` in a place of this kind.

        Values of ``original`` are what JSON can say. Raises :class:`~cotguard.sealing.store.StoreFault`.
        """
        same = [name for name, value in original.items() if isinstance(value, str) and value == issued]
        rest = {name: value for name, value in original.items() if name not in same}
        payload = {"time": int(self.now), "original": rest, "issued": same}
        binding = self._binding(kind, model, issued)
        if self.stored:
            handle = secrets.token_hex(_HANDLE_BYTES)
            kept(handle, self.keys.seal(zlib.compress(dumps(payload)), binding + handle.encode()), self.max_age)
            payload = {"time": int(self.now), "handle": handle}
        data = zlib.compress(dumps(payload))
        spare = -(len(_VERSION) + self.keys.overhead + len(data)) % _ALIGNED
        sealed = self.keys.seal(data + bytes(spare), binding)
        return base64.urlsafe_b64encode(_MARK + _VERSION + sealed + _MARK).decode()

    def open(self, kind: str, token: str, model: str, issued: str) -> dict[str, Any]:
        """What was sealed. Raises :class:`Unsealable`, and :class:`~cotguard.sealing.store.StoreFault`."""
        data = _decoded(token)
        binding = self._binding(kind, model, issued)
        payload = _payload(self.keys.open(data, binding))
        if self.now - payload["time"] > self.max_age:
            raise Unsealable(expired=True)
        if (handle := payload.get("handle")) is not None:
            stored = fetched(handle) if self.stored else None
            if stored is None:
                raise Unsealable(expired=self.stored)
            payload = _payload(self.keys.open(stored, binding + handle.encode()))
        return {**payload["original"], **dict.fromkeys(payload["issued"], issued)}

    def _binding(self, kind: str, model: str, issued: str) -> bytes:
        text = hashlib.sha256(_joined(issued).encode("utf-8", "surrogatepass")).hexdigest()
        return dumps([kind, self.caller, self.upstream(model), model, text])


def _decoded(token: str) -> bytes:
    """The sealed bytes of a token. Raises :class:`Unsealable` for all but the one way to write them."""
    try:
        data = base64.b64decode(token, altchars=b"-_", validate=True)
    except ValueError:
        data = b""
    head = _MARK + _VERSION
    if not (data.startswith(head) and data.endswith(_MARK)) or base64.urlsafe_b64encode(data).decode() != token:
        raise Unsealable
    return data[len(head) : -len(_MARK)]


def _payload(data: bytes) -> dict[str, Any]:
    try:
        payload = loads(zlib.decompressobj().decompress(data))
    except (zlib.error, JSONError):
        payload = None
    if not isinstance(payload, dict):  # a later version's
        raise Unsealable
    return payload


def _joined(text: str) -> str:
    """A text with halves of surrogate pairs joined, as a client reads them from two deltas."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
