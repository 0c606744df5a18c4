"""The store of originals that stay inside: Redis or Valkey, with a time to live."""

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cotguard.sealing.store import Question

__all__ = ["RedisStore"]

_PREFIX = "cotguard:seal:"


class RedisStore:
    """The answerer. ``url`` as redis-py reads it: ``redis[s]://[user:password@]host:port/database``."""

    def __init__(self, url: str, deadline: float) -> None:
        self._client = redis.Redis.from_url(
            url, socket_timeout=deadline, socket_connect_timeout=deadline, retry=Retry(NoBackoff(), 1)
        )

    async def __call__(self, question: Question) -> bytes | None:
        """Keep or fetch."""
        name = _PREFIX + question.handle
        if question.value is not None:
            await self._client.set(name, question.value, px=int(question.seconds * 1000))
            return None
        found = await self._client.get(name)
        return found if isinstance(found, bytes) else None

    async def check(self) -> bool:
        """Whether the store answers."""
        try:
            return bool(await self._client.ping())
        except (RedisError, OSError):
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
