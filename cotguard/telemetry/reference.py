"""The reference of what can be observed: metrics, labels, log fields, attributes of spans, from the code.

``python -m cotguard.telemetry.reference >docs/metrics.md`` writes it anew; it must not be edited.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from cotguard.telemetry.attributes import ATTRIBUTES
from cotguard.telemetry.logs import ALWAYS, FIELDS
from cotguard.telemetry.metrics import Metrics
from cotguard.telemetry.totals import Totals

__all__ = ["LABELS", "labels", "render"]

LABELS = {
    "action": "what the policy says of it",
    "bundle": "name of a classifier's bundle",
    "channel": "where a value stood, as in policies",
    "dialect": "as `cotguard dialects` names it",
    "digest": "of a policy, of a bundle",
    "entity": "what was found, as in policies; empty for a fault, `OTHER` for a detector's own",
    "kind": "of a fault: the `code` that clients see, or `timeout`, `connection` and the like",
    "mode": "`closed`: the exchange ended; `open`: it went on unmoderated",
    "name": "of a policy",
    "outcome": "of a request: `ok`, `failed`, `failed_open`, `refused`, `upstream_error`, `client_gone`, "
    "`client_slow`; "
    "of a decision: `allowed`, `flagged`, `redacted`, `blocked`, `withheld`, `restored`, `failed_closed`, `bypassed`, "
    "`would_have`",
    "pool": "of upstreams, from the configuration",
    "port": "`data` or `admin`",
    "priority": "of the caller",
    "provider": "what the classifier runs on",
    "reason": "why a request was refused",
    "replica": "address, from the settings",
    "result": "`applied` or `refused`",
    "role": "of a caller, from the callers file",
    "server": "of a pool, from the configuration",
    "side": "`upstream`: as it came; `delivered`: as it was written",
    "sink": "where the audit is written to",
    "state": "of a breaker: `closed`, `open`, `half_open`",
    "status": "HTTP status; 499 where the client left",
    "type": "of a record",
    "version": "of cotguard",
}

_HEAD = """\
# Metrics, log fields, span attributes

Made from the code by `python -m cotguard.telemetry.reference >docs/metrics.md`; do not edit.

## Metrics

Histograms have `_bucket`, `_sum` and `_count`. Over several workers all are sums, but for gauges that end in
`_timestamp_seconds`, `_start_time_seconds`, `_success` or `_up`, of which the least is told, and in `_info`, which are
1 where any worker says so. `process_*` are of the workers, not of the process with the admin port.

"""


def labels(metrics: Metrics) -> dict[str, Sequence[str]]:
    """The labels of every family, without ``le``. An exposition has them only where something was counted."""
    found = metrics.registry._collector_to_names  # noqa: SLF001  # the library tells labels of nothing without samples
    return {names[0]: getattr(collector, "_labelnames", ()) for collector, names in found.items() if names}


def _families(registry: CollectorRegistry) -> Iterator[Metric]:
    totals = Totals()
    yield from registry.collect()
    yield from (family for family in totals.collect() if family.name == "cotguard_workers")


def _metrics() -> Iterator[tuple[str, ...]]:
    metrics = Metrics()
    labelled = labels(metrics)
    for family in sorted(_families(metrics.registry), key=lambda family: family.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        of = ", ".join(f"`{label}`" for label in labelled.get(family.name, ()))
        yield f"`{name}`", family.type, of, family.documentation


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def render() -> str:
    """The text of ``docs/metrics.md``."""
    used = sorted({label for found in labels(Metrics()).values() for label in found})
    return "\n".join(
        (
            _HEAD + _table(("metric", "type", "labels", ""), _metrics()),
            "## Labels\n",
            _table(("label", "values"), ((f"`{label}`", LABELS[label]) for label in used)),
            "## Log fields\n\nOf every line:\n",
            _table(("field", ""), ((f"`{name}`", meaning) for name, meaning in ALWAYS.items())),
            "Of events that have something to say of it:\n",
            _table(("field", ""), ((f"`{name}`", meaning) for name, meaning in FIELDS.items())),
            "## Attributes of spans\n",
            _table(("attribute", "spans", ""), ((f"`{name}`", *each) for name, each in ATTRIBUTES.items())),
        )
    )


if __name__ == "__main__":
    sys.stdout.write(render())
