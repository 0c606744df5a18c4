"""The seals of exchanges: with which keys, for whom, and where originals are kept."""

import hashlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import hdrs

from cotguard.gateway.settings import Settings
from cotguard.sealing.keyring import KeyRing
from cotguard.sealing.seals import Seals

if TYPE_CHECKING:  # and with it redis, which a gateway without a store need not have
    from cotguard.sealing.redis_store import RedisStore

__all__ = ["caller_of", "key_ring", "seals_for", "store_of"]

_CREDENTIALS = (hdrs.AUTHORIZATION, "x-api-key", "api-key", "x-goog-api-key")
_AWS_KEY = "Credential="


def key_ring(settings: Settings) -> KeyRing | None:
    """The keys that the settings name, or a random one; None where nothing is sealed."""
    if not settings.seal:
        return None
    return KeyRing.parse(settings.seal_keys) if settings.seal_keys else KeyRing.random()


def store_of(settings: Settings) -> "RedisStore | None":
    """Where originals are kept, if not with the clients."""
    if not settings.seal or not settings.seal_store:
        return None
    from cotguard.sealing.redis_store import RedisStore

    return RedisStore(settings.seal_store, settings.seal_deadline)


def seals_for(keys: KeyRing, caller: str, settings: Settings) -> Seals:
    """The seals of an exchange that begins now."""
    stored = bool(settings.seal_store)
    return Seals(keys, caller, settings.upstream, time.time(), settings.seal_max_age, stored)


def caller_of(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """Who asks, told by the credential that is sent along, as a hash. It is part of what seals are bound to only."""
    for name in _CREDENTIALS:
        if value := headers.get(name):
            if _AWS_KEY in value:  # the rest of it signs one request
                value = value.partition(_AWS_KEY)[2].partition("/")[0]
            return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
    if key := query.get("key"):
        return hashlib.sha256(key.encode()).hexdigest()
    return "anonymous"
