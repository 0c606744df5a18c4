"""Metrics of several processes as one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cotguard.telemetry.histogram import EventHistogram
from cotguard.telemetry.metrics import Metrics
from cotguard.telemetry.totals import Snapshot, Totals, snapshot


class Process:
    """Has one metric of every kind."""

    def __init__(self, *values: float) -> None:
        registry = self.registry = CollectorRegistry()
        self.counter = Counter("c", "Counted.", ["of"], registry=registry)
        self.gauge = Gauge("g", "Now.", registry=registry)
        self.histogram = Histogram("h", "Seen.", buckets=(1, 2), registry=registry)
        self.event = EventHistogram("e", "Seen often.", (1, 2), registry).buckets
        info = Gauge("this_info", "In use.", ["name"], registry=registry)
        info.labels("x").set(1)
        for value in values:
            self.counter.labels(str(value)).inc()
            self.gauge.inc()
            self.histogram.observe(value)
            self.event.observe(value)

    @property
    def said(self) -> Snapshot:
        return snapshot(self.registry)


def lines(exposed: bytes) -> list[str]:
    return [line for line in exposed.decode().splitlines() if not line.startswith("#")]


def test_all_kinds_of_metrics_are_added_up() -> None:
    totals = Totals()
    totals.update(1, Process(1, 3).said)
    totals.update(2, Process(1, 2).said)
    assert lines(totals.expose()) == [
        'c_total{of="1"} 2.0',
        'c_total{of="3"} 1.0',
        'c_total{of="2"} 1.0',
        "g 4.0",
        'h_bucket{le="1.0"} 2.0',
        'h_bucket{le="2.0"} 3.0',
        'h_bucket{le="+Inf"} 4.0',
        "h_count 4.0",
        "h_sum 7.0",
        'e_bucket{le="1.0"} 2.0',
        'e_bucket{le="2.0"} 3.0',
        'e_bucket{le="+Inf"} 4.0',
        "e_count 4.0",
        "e_sum 7.0",
        'this_info{name="x"} 1.0',
        "cotguard_workers 2.0",
    ]


def test_what_an_ended_process_counted_stays_and_its_gauges_go() -> None:
    totals = Totals()
    totals.update(1, Process(1, 3).said)
    totals.end(1)
    assert lines(totals.expose())[:3] == ['c_total{of="1"} 1.0', 'c_total{of="3"} 1.0', 'h_bucket{le="1.0"} 1.0']
    assert lines(totals.expose())[-1] == "cotguard_workers 0.0"
    totals.update(2, Process(1).said)
    totals.update(2, Process(1, 1).said)  # again, not in addition
    assert lines(totals.expose())[:3] == ['c_total{of="1"} 3.0', 'c_total{of="3"} 1.0', "g 2.0"]
    totals.end(7)  # which never said anything


def test_of_times_and_of_yes_or_no_the_least_is_told() -> None:
    totals = Totals()
    for number, value in enumerate((1.0, 0.0, 1.0), 1):
        registry = CollectorRegistry()
        Gauge("last_success", "Whether.", registry=registry).set(value)
        Gauge("loaded_timestamp_seconds", "When.", registry=registry).set(100 - number)
        totals.update(number, snapshot(registry))
    assert lines(totals.expose())[:2] == ["last_success 0.0", "loaded_timestamp_seconds 97.0"]
    totals.end(2)
    assert lines(totals.expose())[:2] == ["last_success 1.0", "loaded_timestamp_seconds 97.0"]


def test_our_own_metrics_are_the_same_from_one_process() -> None:
    metrics = Metrics()
    metrics.requests.labels("chat_completions", "200", "ok").inc()
    metrics.held.observe(3)
    metrics.first_token.labels("delivered").observe(0.2)
    totals = Totals()
    totals.update(1, snapshot(metrics.registry))
    exposed = totals.expose().decode()
    own = [line for line in generate_latest(metrics.registry).decode().splitlines() if "_created" not in line]
    own = own[: next(number for number, line in enumerate(own) if "process_" in line)]  # they change all the time
    assert exposed.splitlines()[: len(own)] == own
    assert "cotguard_requests" in {family.name for family in text_string_to_metric_families(exposed)}


def test_of_times_the_earliest_is_told() -> None:
    totals = Totals()
    for process, expiry in ((1, 200), (2, 100)):
        registry = CollectorRegistry()
        Gauge("a_timestamp_seconds", "When.", registry=registry).set(expiry)
        totals.update(process, snapshot(registry))
    assert lines(totals.expose())[0] == "a_timestamp_seconds 100.0"


def test_the_process_itself_has_metrics_and_is_no_worker() -> None:
    own = Process(1)
    totals = Totals(own.registry)
    totals.update(1, Process(2).said)
    totals.end(1)
    own.gauge.inc(5)
    exposed = lines(totals.expose())
    assert "g 6.0" in exposed
    assert 'c_total{of="1"} 1.0' in exposed
    assert 'c_total{of="2"} 1.0' in exposed
    assert exposed[-1] == "cotguard_workers 0.0"
