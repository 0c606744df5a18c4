"""The accounts of what the gateway does: metrics always, and records where an audit trail is kept.

A decision is recorded before what follows from it is delivered. Where that cannot be, the policy's ``on_audit_error``
says whether the exchange ends or goes on without the record.
"""

import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from cotguard.audit.records import DecisionRecord, Event, EventRecord, ExchangeRecord, Record
from cotguard.audit.trail import AuditError, Trail
from cotguard.dialects.reported import Reported
from cotguard.gateway.call import Call
from cotguard.moderation.exchange import Exchange, ModerationFault
from cotguard.moderation.replacement import plain
from cotguard.moderation.verdict import Decision, Journal
from cotguard.policy import OnError
from cotguard.spans import INBOUND
from cotguard.telemetry.logs import Access, access
from cotguard.telemetry.metrics import Metrics
from cotguard.telemetry.tracing import Ended

__all__ = ["Accounts"]

_UNKEPT: Final = "the audit trail takes no records"
_UNNAMED: Final = "credential:"
"""Begins the ids of callers that nobody has checked: a hash of a credential, which stands in no account."""


class Accounts:
    """See the module."""

    def __init__(self, metrics: Metrics, trail: Trail | None) -> None:
        self._metrics = metrics
        self._trail = trail

    async def start(self, digest: str) -> None:
        """Begin to record, in the running loop; ``digest`` is the policy's."""
        if self._trail is not None:
            self._trail.start()
            self._trail.submit(_noted(Event.START, digest))

    async def end(self) -> None:
        """Record no more."""
        if self._trail is not None:
            self._trail.submit(_noted(Event.STOP))
            await self._trail.close()

    @property
    def failing(self) -> bool:
        """Whether records cannot be kept now."""
        return self._trail is not None and self._trail.failed

    def reloaded(self, digest: str, *, applied: bool) -> None:
        """Account for a reload of the configuration; ``digest`` is that of the policy in force."""
        self._metrics.reloaded(applied=applied)
        if self._trail is not None:
            self._trail.submit(_noted(Event.CONFIG_APPLIED if applied else Event.CONFIG_REFUSED, digest))

    async def done(self, event: Event, detail: str) -> bool:
        """Account for what somebody is about to do. False if that could not be recorded."""
        return self._trail is None or await _kept(self._trail, _noted(event, detail))

    def journal(self) -> Journal | None:
        """Where an exchange that begins now notes its decisions, if they are recorded."""
        trail = self._trail
        return None if trail is None else Journal(lambda value: trail.hash(plain(value)))

    def check(self, exchange: Exchange) -> None:
        """Raise :class:`ModerationFault` where an exchange must not begin, since it could not be recorded."""
        if self.failing and exchange.policy.on_audit_error is OnError.CLOSED:
            raise ModerationFault(_UNKEPT)

    async def record(self, call: Call, *, last: bool = False) -> None:
        """Record what was decided since the last time, and with ``last`` the exchange, whose end is noted.

        Raises :class:`ModerationFault`.
        """
        if self._trail is None or call.journal is None or not (last or call.journal.decisions):
            return
        records = self._last(call) if last else self._decisions(call, call.journal.take())
        kept = await _kept(self._trail, records)
        if last:
            call.recorded = call.outcome
        if not kept and call.moderation.policy.on_audit_error is OnError.CLOSED:
            raise ModerationFault(_UNKEPT)

    async def close(self, call: Call) -> bool:
        """Account for what became of a call, once. False if the policy wants it recorded, and it cannot be."""
        self._count(call)
        if self._trail is None or call.recorded == call.outcome:
            return True
        kept = await _kept(self._trail, self._last(call))
        return kept or call.moderation.policy.on_audit_error is OnError.OPEN

    def close_now(self, call: Call) -> None:
        """The same for a call that is answered, or whose client is gone, without waiting."""
        if not call.closed:
            self._count(call)
            if self._trail is not None and call.recorded != call.outcome:
                self._trail.submit(self._last(call))

    def _count(self, call: Call) -> None:
        call.closed = True
        seconds, exchange = time.monotonic() - call.started, call.exchange
        digest = exchange.policy.digest if exchange else ""
        self._metrics.requests.labels(call.dialect.name, str(call.status), call.outcome).inc()
        self._metrics.exchange_seconds.labels(call.outcome).observe(seconds, call.trace.exemplar)
        if exchange is not None:
            self._metrics.account(exchange)
        reported = call.reported or Reported()
        ended = Ended(
            call.status,
            call.outcome,
            call.failure or "",
            digest,
            call.caller.role,
            exchange.received if exchange else 0,
            exchange.delivered if exchange else 0,
            reported.finish_reasons,
            reported.input_tokens,
            reported.output_tokens,
        )
        call.trace.end(ended, exchange.tally if exchange else Counter())
        access(
            Access(
                dialect=call.dialect.name,
                status=call.status,
                outcome=call.outcome,
                seconds=seconds,
                caller_role=call.caller.role,
                policy=digest,
            )
        )

    def _last(self, call: Call) -> Sequence[Record]:
        """Decisions that are not recorded yet, and the exchange."""
        decisions = self._decisions(call, call.journal.take()) if call.journal else []
        exchange, policy = call.exchange, call.moderation.policy
        return [
            *decisions,
            ExchangeRecord(
                request_id=call.id,
                caller=self._caller(call),
                role=call.caller.role,
                route=call.route.name,
                model=call.model,
                dialect=call.dialect.name,
                policy=policy.name,
                policy_digest=policy.digest,
                upstream=call.server,
                status=call.status,
                outcome=call.outcome,
                stream=call.stream,
                seconds=round(time.monotonic() - call.started, 6),
                received=exchange.received if exchange else 0,
                delivered=exchange.delivered if exchange else 0,
                decisions=call.decisions,
                failure=call.failure or "",
            ),
        ]

    def _decisions(self, call: Call, decisions: Sequence[Decision]) -> list[Record]:
        call.decisions += len(decisions)
        caller, digest = self._caller(call), call.moderation.policy.digest
        return [
            DecisionRecord(
                request_id=call.id,
                caller=caller,
                route=call.route.name,
                model=call.model,
                dialect=call.dialect.name,
                policy_digest=digest,
                direction="request" if each.kind in INBOUND else "response",
                channel=each.kind,
                entity=each.entity,
                action=each.action,
                outcome=each.outcome,
                score=each.score,
                detector=each.detector,
                rule=each.rule,
                start=each.start,
                length=each.length,
                value=each.value,
            )
            for each in decisions
        ]

    def _caller(self, call: Call) -> str:
        name = call.caller.id
        if self._trail is None or not name.startswith(_UNNAMED):
            return name
        return _UNNAMED + self._trail.hash(name)[:16]


def _noted(event: Event, detail: str = "") -> Sequence[Record]:
    return [EventRecord(event=event, process=os.getpid(), detail=detail)]


async def _kept(trail: Trail, records: Sequence[Record]) -> bool:
    """Whether ``records`` could be kept."""
    try:
        await trail.commit(records)
    except AuditError:
        return False
    return True
