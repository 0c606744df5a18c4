"""Prometheus metrics. Labels come from fixed sets; nothing a model or a client wrote becomes one."""

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from cotguard import __version__
from cotguard.moderation.exchange import Exchange
from cotguard.taxonomy import label
from cotguard.telemetry.histogram import EventHistogram

__all__ = ["METRICS", "Metrics"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CHARACTERS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 8192, 65536)


class Metrics:
    """All metrics of a process, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "cotguard_requests_total",
            "Requests by what became of them.",
            ["dialect", "status", "outcome"],
            registry=registry,
        )
        self.admitted = Counter(
            "cotguard_callers_admitted_total", "Requests that their caller may make.", ["role"], registry=registry
        )
        self.denied = Counter(
            "cotguard_callers_denied_total", "Requests that their caller may not make.", ["reason"], registry=registry
        )
        self.active = Gauge("cotguard_active_streams", "Streams under way.", registry=registry)
        self.decisions = Counter(
            "cotguard_decisions_total",
            "Decisions about values found.",
            ["entity", "channel", "action", "outcome"],
            registry=registry,
        )
        self.held = EventHistogram(
            "cotguard_held_characters", "Characters on hold after a read.", _CHARACTERS, registry
        ).buckets
        self.held_seconds = Histogram(
            "cotguard_held_seconds",
            "Time from text coming in to nothing being held.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.first_token = Histogram(
            "cotguard_first_token_seconds", "Time to the first text.", ["side"], buckets=_SECONDS, registry=registry
        )
        self.added = EventHistogram(
            "cotguard_event_added_seconds",
            "Time from a read that decides text to its write.",
            (0.00005, 0.0001, 0.0002, *_SECONDS),
            registry,
        ).buckets
        self.failures = Counter(
            "cotguard_failures_total", "Faults, by how they were handled.", ["kind", "mode"], registry=registry
        )
        self.classifier = Gauge(
            "cotguard_classifier_info", "The bundle in use.", ["bundle", "digest", "provider"], registry=registry
        )
        self.classifier_queue = Gauge(
            "cotguard_classifier_queue_windows", "Windows that wait or are being judged.", registry=registry
        )
        self.classifier_batch = Histogram(
            "cotguard_classifier_batch_windows",
            "Windows judged together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.classifier_wait = Histogram(
            "cotguard_classifier_wait_seconds", "Time of windows in the queue.", buckets=_SECONDS, registry=registry
        )
        self.classifier_seconds = Histogram(
            "cotguard_classifier_batch_seconds", "Time of judging a batch.", buckets=_SECONDS, registry=registry
        )
        self.classifier_failures = Counter(
            "cotguard_classifier_failures_total", "Windows without an answer.", ["kind"], registry=registry
        )
        self.classifier_attempts = Counter(
            "cotguard_classifier_failed_attempts_total",
            "Requests to replicas that failed, also where another replica answered.",
            ["replica", "kind"],
            registry=registry,
        )
        self.classifier_replica = Gauge(
            "cotguard_classifier_replica_up", "Whether a replica is asked.", ["replica"], registry=registry
        )
        self.guard_queue = Gauge(
            "cotguard_guard_queue_requests", "Requests to the guard that wait or are under way.", registry=registry
        )
        self.guard_wait = Histogram(
            "cotguard_guard_wait_seconds",
            "Time of requests to the guard until their turn.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.guard_seconds = Histogram(
            "cotguard_guard_request_seconds", "Time of the guard's answers.", buckets=_SECONDS, registry=registry
        )
        self.guard_failures = Counter(
            "cotguard_guard_failures_total", "Questions without a verdict.", ["kind"], registry=registry
        )
        self.policy = Gauge("cotguard_policy_info", "The active policy.", ["name", "digest"], registry=registry)
        self.upstream_requests = Counter(
            "cotguard_upstream_requests_total",
            "Requests to servers, by what became of them until their status line.",
            ["pool", "server", "outcome"],
            registry=registry,
        )
        self.upstream_connect_failures = Counter(
            "cotguard_upstream_connect_failures_total",
            "Connections that could not be made.",
            ["pool", "server", "kind"],
            registry=registry,
        )
        self.upstream_retries = Counter(
            "cotguard_upstream_retries_total",
            "Requests sent to another server, as there was no connection to the one before.",
            ["pool"],
            registry=registry,
        )
        self.upstream_unserved = Counter(
            "cotguard_upstream_unserved_total",
            "Requests that no server could take.",
            ["pool", "reason"],
            registry=registry,
        )
        self.upstream_waiting = Gauge(
            "cotguard_upstream_waiting_requests", "Requests that wait for a server.", ["pool"], registry=registry
        )
        self.upstream_outstanding = Gauge(
            "cotguard_upstream_outstanding_requests",
            "Requests under way at a server.",
            ["pool", "server"],
            registry=registry,
        )
        self.upstream_up = Gauge(
            "cotguard_upstream_up",
            "Whether a server passes its health checks, where it has any.",
            ["pool", "server"],
            registry=registry,
        )
        self.upstream_breaker = Gauge(
            "cotguard_upstream_breaker",
            "Whether a server's breaker is in a state.",
            ["pool", "server", "state"],
            registry=registry,
        )
        self.upstream_first_byte = Histogram(
            "cotguard_upstream_first_byte_seconds",
            "Time from a request to its status line, connecting included.",
            ["pool", "server"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.exchange_seconds = Histogram(
            "cotguard_exchange_seconds",
            "Time from a request's headers to the end of its response.",
            ["outcome"],
            buckets=(*_SECONDS, 120, 300, 600, 1800),
            registry=registry,
        )
        self.loop_lag = Histogram(
            "cotguard_event_loop_lag_seconds",
            "How much later than asked the event loop wakes a task.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.reloads = Counter(
            "cotguard_config_reloads_total", "Reloads of the configuration.", ["result"], registry=registry
        )
        self.reload_success = Gauge(
            "cotguard_config_last_reload_success", "Whether the last reload was taken: 1 or 0.", registry=registry
        )
        self.reload_success.set(1)
        self.certificate_expiry = Gauge(
            "cotguard_tls_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires.",
            ["port"],
            registry=registry,
        )
        self.audit_records = Counter(
            "cotguard_audit_records_total", "Records that are kept.", ["type"], registry=registry
        )
        self.audit_lost = Counter(
            "cotguard_audit_lost_records_total",
            "Records that found no room, or were left at the end.",
            registry=registry,
        )
        self.audit_failures = Counter(
            "cotguard_audit_failures_total",
            "Attempts of a sink that failed, and commits that were not done in time.",
            ["sink"],
            registry=registry,
        )
        self.audit_commit_seconds = Histogram(
            "cotguard_audit_commit_seconds", "Time until records are kept.", buckets=_SECONDS, registry=registry
        )
        self.audit_queue = Gauge("cotguard_audit_queue_records", "Records that wait to be written.", registry=registry)
        self.reload_time = Gauge(
            "cotguard_config_last_reload_timestamp_seconds",
            "When the configuration in use was loaded.",
            registry=registry,
        )
        self.reload_time.set_to_current_time()
        ProcessCollector(registry=registry)
        self.overload_places = Gauge(
            "cotguard_overload_places", "Exchanges that may be under way at the same time.", registry=registry
        )
        self.overload_waiting = Gauge(
            "cotguard_overload_waiting_requests", "Requests that wait for a place.", ["priority"], registry=registry
        )
        self.overload_wait = Histogram(
            "cotguard_overload_wait_seconds",
            "Time of requests in that queue, of those that had to wait.",
            ["priority"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.overload_shed = Counter(
            "cotguard_overload_shed_total",
            "Requests refused because there was too much to do.",
            ["reason", "priority"],
            registry=registry,
        )
        tasks = Gauge("cotguard_event_loop_tasks", "Tasks of the event loop.", registry=registry)
        tasks.set_function(_tasks)
        build = Gauge("cotguard_build_info", "This build.", ["version"], registry=registry)
        build.labels(__version__).set(1)

    def reloaded(self, *, applied: bool) -> None:
        """Count a reload of the configuration."""
        self.reloads.labels("applied" if applied else "refused").inc()
        self.reload_success.set(int(applied))
        if applied:
            self.reload_time.set_to_current_time()

    def account(self, exchange: Exchange) -> None:
        """Count an exchange's verdicts, once, at its end."""
        for verdict, count in exchange.tally.items():
            self.decisions.labels(label(verdict.entity), verdict.kind, verdict.action, verdict.outcome).inc(count)
            if verdict.outcome == "bypassed":
                self.failures.labels("moderation_failed", "open").inc(count)

    def expose(self, accept: str = "") -> bytes:
        """The exposition in the format that an ``Accept`` header asks for, else the text format."""
        return choose_encoder(accept)[0](self.registry)


def _tasks() -> int:
    """How many tasks the running loop has; none where no loop runs."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0


METRICS = Metrics()
