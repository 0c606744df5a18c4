"""How late the event loop wakes a task: what every stream's events wait for, besides their own moderation."""

import asyncio
from typing import NoReturn

from cotguard.telemetry.metrics import Metrics

__all__ = ["observe_loop_lag"]

_PAUSE_SECONDS = 0.5


async def observe_loop_lag(metrics: Metrics) -> NoReturn:
    """Observe until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _PAUSE_SECONDS
        await asyncio.sleep(_PAUSE_SECONDS)
        metrics.loop_lag.observe(max(0.0, loop.time() - due))
