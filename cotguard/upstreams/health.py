"""Active health checks: a server that does not pass two in a row gets no requests until it passes one."""

import asyncio
import random
from collections.abc import Awaitable, Callable

__all__ = ["watch"]

_FAILURES = 2
_JITTER = 0.2  # of the pause: gateways that were started together do not go on asking together


async def watch(check: Callable[[], Awaitable[str]], verdict: Callable[[str], None], every: float) -> None:
    """For ever ``check``, which says what is wrong, and tell ``verdict``: an empty text if all is well."""
    failed = 0
    while True:
        wrong = await check()
        failed = failed + 1 if wrong else 0
        if failed in (0, _FAILURES):
            verdict(wrong)
        await asyncio.sleep(every * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311  # no secret
