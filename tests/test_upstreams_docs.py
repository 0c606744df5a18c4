"""docs/upstreams.md says what the code does: its example, its keys, its errors and its metrics."""

import re
from pathlib import Path

import yaml
from pydantic import BaseModel

from cotguard.telemetry.metrics import Metrics
from cotguard.upstreams.breaker import State
from cotguard.upstreams.document import BreakerDocument, HealthDocument, PoolDocument, TlsDocument
from cotguard.upstreams.errors import (
    AllDownError,
    AllFullError,
    NoAnswerError,
    NotConnectedError,
    TooSlowError,
)
from cotguard.upstreams.pool import Outcome

TEXT = (Path(__file__).parents[1] / "docs" / "upstreams.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def words(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_example_is_one() -> None:
    example = TEXT.partition("```yaml\n")[2].partition("```")[0]
    documents = {name: PoolDocument.model_validate(pool) for name, pool in yaml.safe_load(example)["upstreams"].items()}
    assert [server.weight for server in documents["local"].servers] == [1, 2, 1]
    assert documents["local"].health == HealthDocument()
    assert documents["local"].breaker == BreakerDocument()


def test_every_key_and_its_default() -> None:
    told = {name: row for row in rows("What a pool says") for name in words(row[0])}
    assert set(told) == set(PoolDocument.model_fields)
    for name in ("retries", "connect_timeout", "first_byte_timeout", "idle_timeout"):
        assert told[name][2].split()[-1] == str(PoolDocument.model_fields[name].default)
    both = ("max_waiting", "queue_timeout")
    assert told["max_waiting"][2] == ", ".join(str(PoolDocument.model_fields[name].default) for name in both)
    models: dict[str, type[BaseModel]] = {"health": HealthDocument, "breaker": BreakerDocument, "tls": TlsDocument}
    for name, model in models.items():
        for key, field in model.model_fields.items():
            assert f"`{key}`" in told[name][1]
            if field.default:
                assert f"({field.default})".replace("(/health)", "(`/health`)") in told[name][1]


def test_every_error() -> None:
    errors = (AllDownError, AllFullError, NotConnectedError, NoAnswerError, TooSlowError)
    told = [(row[1], row[2]) for row in rows("What is tried again")]
    assert told == [(str(error.status), f"`{error.kind}`") for error in errors]


def test_every_metric_and_its_labels() -> None:
    told = {words(row[0])[0]: (words(row[1]), words(row[2])) for row in rows("What is logged and counted")}
    metrics = Metrics()
    found = {
        f"{metric._name}{'_total' if metric._type == 'counter' else ''}": list(metric._labelnames)
        for name, metric in vars(metrics).items()
        if name.startswith("upstream_")
    }
    assert {name: labels for name, (labels, _) in told.items()} == found
    assert told["cotguard_upstream_requests_total"][1] == list(Outcome)
    assert told["cotguard_upstream_breaker"][1] == list(State)
