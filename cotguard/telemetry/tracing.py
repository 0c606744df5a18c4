"""Traces of exchanges: what is traced, and when. Nothing of it costs anything where traces are off.

1. An exchange has one :class:`Trace`, made before its request is read and ended once. Each of its steps is told to it
   in order: the request is moderated, the upstream is asked, the upstream has answered, all is over.
2. This module's classes do nothing. Those that record are in :mod:`cotguard.telemetry.otel`, which is imported, and
   OpenTelemetry with it, only where there is somewhere to send traces to.
3. Who works for several exchanges at once, as the classifier does, finds the one that asks in :func:`current`.

Guarantees: a span holds names of fixed sets, counts, times, and of the client's strings none but the name of the model,
where the caller of :meth:`Trace.ask` says so (G7).
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from cotguard.moderation.verdict import Verdict

__all__ = ["OFF", "Asked", "Batch", "Ended", "Trace", "Tracing", "current", "tracing", "under"]

Tally = Counter[Verdict]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the upstream is asked: ``model`` is empty where it must not be recorded."""

    dialect: str
    action: str
    model: str = ""
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """How an exchange ended. ``error``: the kind of its fault, if it had one; ``policy`` is a digest.

    ``received`` and ``delivered`` are characters of text. The rest is what the upstream reported, if it did.
    """

    status: int
    outcome: str
    error: str = ""
    policy: str = ""
    role: str = ""
    received: int = 0
    delivered: int = 0
    finish_reasons: Collection[str] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None


class Trace:
    """The trace of an exchange that is not traced."""

    trace_id = ""
    """In hexadecimal, where the exchange is recorded: what exemplars and log lines name."""

    @property
    def exemplar(self) -> dict[str, str] | None:
        """What an observation for this exchange is shown with, as ``prometheus_client`` takes it."""
        return {"trace_id": self.trace_id} if self.trace_id else None

    def moderated(self, tally: Tally) -> None:
        """The request was moderated; ``tally`` is what was decided so far."""

    def ask(self, asked: Asked, headers: Mapping[str, str]) -> dict[str, str]:
        """The upstream is about to be asked. Returns ``headers`` with the context of the span that begins now."""
        return dict(headers)

    def answered(self, status: int, host: str, port: int | None) -> None:
        """The upstream's status line is there, from this server: its response is moderated from now on."""

    def end(self, ended: Ended, tally: Tally) -> None:
        """The exchange is over; so are all its spans. To be called once."""


class Batch:
    """A model's work for several exchanges at once, that is not traced."""

    def end(self, error: str = "") -> None:
        """The work is done, or has failed with ``error``: a kind, no message."""


class Tracing:
    """Where traces begin: here, none does."""

    def exchange(self, headers: Mapping[str, str], method: str, route: str, dialect: str, request_id: str) -> Trace:
        """The trace of a request with ``headers``; ``route`` is the path as the dialect's table has it, with braces."""
        return _UNTRACED

    def batch(self, name: str, traces: Collection[Trace], size: int) -> Batch:
        """Work on ``size`` pieces that ``traces`` asked for, some perhaps several times."""
        return _NO_BATCH

    async def close(self) -> None:
        """Send what is left."""


_UNTRACED = Trace()
_NO_BATCH = Batch()
OFF = Tracing()
_CURRENT: ContextVar[Trace] = ContextVar("trace", default=_UNTRACED)


def current() -> Trace:
    """The trace of the exchange under way here."""
    return _CURRENT.get()


@contextmanager
def under(trace: Trace) -> Iterator[None]:
    """What is done here, and in tasks that begin here, is for the exchange of ``trace``."""
    token = _CURRENT.set(trace)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def tracing(endpoint: str, sample: float) -> Tracing:
    """Traces to ``endpoint`` (OTLP over HTTP), ``sample`` of those (0 to 1) that the client has not decided about.

    Off where the endpoint is empty. Starts a thread: to be called behind a fork, not before.
    """
    if not endpoint:
        return OFF
    from cotguard.telemetry.otel import OpenTelemetry

    return OpenTelemetry(endpoint, sample)
