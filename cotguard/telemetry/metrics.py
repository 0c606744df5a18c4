"""Prometheus metrics. Labels come from fixed sets; nothing a model or a client wrote becomes one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cotguard import __version__
from cotguard.moderation.exchange import Exchange
from cotguard.taxonomy import ENTITIES
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
        build = Gauge("cotguard_build_info", "This build.", ["version"], registry=registry)
        build.labels(__version__).set(1)

    def account(self, exchange: Exchange) -> None:
        """Count an exchange's verdicts, once, at its end."""
        for verdict, count in exchange.tally.items():
            entity = verdict.entity if verdict.entity in ENTITIES or not verdict.entity else "OTHER"
            self.decisions.labels(entity, verdict.kind, verdict.action, verdict.outcome).inc(count)
            if verdict.outcome == "bypassed":
                self.failures.labels("moderation_failed", "open").inc(count)

    def expose(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)


METRICS = Metrics()
