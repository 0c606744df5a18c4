"""The accounts of exchanges: metrics, and later records."""

from cotguard.gateway.call import Call
from cotguard.moderation.verdict import Journal
from cotguard.telemetry.metrics import Metrics

__all__ = ["Accounts"]


class Accounts:
    """See the module."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def journal(self) -> Journal | None:
        """Where an exchange that begins now notes its decisions."""
        return None

    async def record(self, call: Call) -> None:
        """Record what was decided since the last call."""

    async def close(self, call: Call) -> None:
        """Account for what became of a call, once."""
        self.close_now(call)

    def close_now(self, call: Call) -> None:
        """The same, without waiting."""
        self._metrics.requests.labels(call.dialect.name, str(call.status), call.outcome).inc()
        if call.exchange is not None:
            self._metrics.account(call.exchange)
