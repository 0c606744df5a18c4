"""The seals of exchanges: with which keys, for whom, and where originals are kept."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cotguard.config.settings import Settings
from cotguard.sealing.keyring import KeyRing
from cotguard.sealing.seals import Seals

if TYPE_CHECKING:  # and with it redis, which a gateway without a store need not have
    from cotguard.sealing.redis_store import RedisStore

__all__ = ["key_ring", "seals_for", "store_of"]


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


def seals_for(keys: KeyRing, caller: str, upstream: Callable[[str], str], settings: Settings) -> Seals:
    """The seals of an exchange that begins now; ``upstream`` tells which one a model is asked of."""
    return Seals(keys, caller, upstream, time.time(), settings.seal_max_age, stored=bool(settings.seal_store))
