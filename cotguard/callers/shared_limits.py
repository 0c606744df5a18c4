"""The limits of several processes, counted in Redis or Valkey.

1. A request is admitted by one script, which the server runs alone: it looks at all of a caller's limits, by the
   server's clock, and counts the request or tells why not.
2. Requests under way are leases of ``_LEASE_SECONDS``, renewed as long as they last; those of a process that died
   end by themselves.
3. A server that does not answer within ``_DEADLINE`` seconds means that nobody with a limit is admitted (503): a limit
   that cannot be counted would be none. What comes back cannot be charged then, and is lost.

Names in the database begin with ``cotguard:`` and hold hashes of callers' ids. All names of a caller are in one hash
slot, so that a cluster can hold them.
"""

import asyncio
import secrets
from contextlib import suppress
from hashlib import sha256
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from cotguard.callers.caller import Caller
from cotguard.callers.denied import Denied, Reason
from cotguard.callers.limits import CONCURRENCY_PAUSE, DAY, WINDOW, Lease

__all__ = ["SharedLimiter"]

_DEADLINE = 2.0
_LEASE_SECONDS = 60
_RENEW_SECONDS = 15
_UNAVAILABLE_PAUSE = 5

# Numbers are limits, -1 for none; answers are {0}, or {which, seconds to wait}.
_ADMIT = f"""
local requests, leases, tokens = KEYS[1], KEYS[2], KEYS[3]
local per_minute, concurrency, per_day = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local sent, lease = tonumber(ARGV[4]), ARGV[5]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local day = math.floor(now / {DAY})
if concurrency >= 0 then
    redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
    if redis.call('ZCARD', leases) >= concurrency then return {{2, {CONCURRENCY_PAUSE}}} end
end
if per_minute >= 0 then
    redis.call('ZREMRANGEBYSCORE', requests, '-inf', now - {WINDOW})
    local count = redis.call('ZCARD', requests)
    if count >= per_minute then
        local freeing = redis.call('ZRANGE', requests, count - per_minute, count - per_minute, 'WITHSCORES')
        return {{1, math.max(math.ceil(tonumber(freeing[2]) + {WINDOW} - now), 1)}}
    end
end
local used = redis.call('HMGET', tokens, 'day', 'used')
local spent = tonumber(used[1]) == day and tonumber(used[2]) or 0
if per_day >= 0 and spent + sent > per_day then
    return {{3, math.ceil((day + 1) * {DAY} - now)}}
end
if concurrency >= 0 then
    redis.call('ZADD', leases, now + {_LEASE_SECONDS}, lease)
    redis.call('EXPIRE', leases, {2 * _LEASE_SECONDS})
end
if per_minute >= 0 then
    redis.call('ZADD', requests, now, lease)
    redis.call('EXPIRE', requests, {2 * WINDOW})
end
if per_day >= 0 then
    redis.call('HSET', tokens, 'day', day, 'used', spent + sent)
    redis.call('EXPIRE', tokens, {2 * DAY})
end
return {{0}}
"""
_END = f"""
local leases, tokens = KEYS[1], KEYS[2]
redis.call('ZREM', leases, ARGV[1])
local received = tonumber(ARGV[2])
if received > 0 then
    local day = math.floor(tonumber(redis.call('TIME')[1]) / {DAY})
    local used = redis.call('HMGET', tokens, 'day', 'used')
    local spent = tonumber(used[1]) == day and tonumber(used[2]) or 0
    redis.call('HSET', tokens, 'day', day, 'used', spent + received)
    redis.call('EXPIRE', tokens, {2 * DAY})
end
"""
_RENEW = f"""
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], 'XX', now + {_LEASE_SECONDS}, ARGV[1])
redis.call('EXPIRE', KEYS[1], {2 * _LEASE_SECONDS})
"""
_REASONS = {1: Reason.REQUESTS, 2: Reason.CONCURRENCY, 3: Reason.TOKENS}


class SharedLimiter:
    """A :class:`~cotguard.callers.limits.Limiter` that counts in the database at ``url``, for one event loop."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, socket_timeout=_DEADLINE, socket_connect_timeout=_DEADLINE)
        self._admit = self._redis.register_script(_ADMIT)
        self._end = self._redis.register_script(_END)
        self._renew = self._redis.register_script(_RENEW)
        self._leases: dict[str, str] = {}  # those with a limit on concurrency, and the names of their sets
        self._renewing: asyncio.Task[None] | None = None

    async def admit(self, caller: Caller, tokens: int) -> Lease:
        scope, name = caller.scope, sha256(caller.id.encode()).hexdigest()
        requests, leases, spent = (f"cotguard:{{{name}}}:{what}" for what in ("requests", "leases", "tokens"))
        lease = secrets.token_hex(12)
        limits = (scope.requests_per_minute, scope.concurrency, scope.tokens_per_day)
        arguments: list[str | int] = [*(-1 if limit is None else limit for limit in limits), tokens, lease]
        try:
            answer: Any = await self._admit(keys=[requests, leases, spent], args=arguments)
        except (RedisError, OSError):
            raise Denied(Reason.UNAVAILABLE, _UNAVAILABLE_PAUSE) from None
        if answer[0]:
            raise Denied(_REASONS[answer[0]], answer[1])
        if scope.concurrency is not None:
            self._leases[lease] = leases
            self._renewing = self._renewing or asyncio.create_task(self._renew_all())
        return _SharedLease(self, lease, leases, spent, counts_tokens=scope.tokens_per_day is not None)

    async def end(self, lease: str, leases: str, spent: str, tokens: int) -> None:
        """The request with ``lease`` is over."""
        self._leases.pop(lease, None)
        with suppress(RedisError, OSError):
            await self._end(keys=[leases, spent], args=[lease, tokens])

    async def _renew_all(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            for lease, leases in list(self._leases.items()):
                if lease in self._leases:
                    with suppress(RedisError, OSError):
                        await self._renew(keys=[leases], args=[lease])

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await self._redis.aclose()


class _SharedLease:
    def __init__(self, limiter: SharedLimiter, lease: str, leases: str, spent: str, *, counts_tokens: bool) -> None:
        self._limiter = limiter
        self._lease = lease
        self._leases = leases
        self._spent = spent
        self._counts_tokens = counts_tokens

    async def end(self, tokens: int) -> None:
        await self._limiter.end(self._lease, self._leases, self._spent, tokens if self._counts_tokens else 0)
