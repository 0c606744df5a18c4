"""The dashboard, the alerts and the documents name what the gateway exports, and nothing else."""

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import promql_parser as promql
import pytest
import pytest_asyncio
import yaml
from aiohttp.test_utils import TestServer
from conftest import Proxy, ProxyFactory, Upstream, nothing_new
from prometheus_client.parser import text_string_to_metric_families
from scripted import DONE, chunk, finish, post, streaming

from cotguard.gateway.admin import GatewayState, create_admin_app
from cotguard.policy import parse
from cotguard.telemetry import reference

ROOT = Path(__file__).parent.parent
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/cotguard.json").read_text(encoding="utf-8"))
ALERTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text(encoding="utf-8"))[
    "groups"
][0]["rules"]
POLICY = parse(
    "version: 1\nname: t\nclassifier: false\nrules: [{entities: [EMAIL_ADDRESS], action: redact}]", "t", None
)
TARGET = frozenset({"job", "instance"})
"""Labels that Prometheus adds to what it scrapes."""
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Labels = Mapping[str, frozenset[str]]


@pytest_asyncio.fixture
async def proxy(upstream: Upstream, make_proxy: ProxyFactory) -> Proxy:
    upstream.handler = streaming([chunk({"content": "x"}), finish(), DONE])
    proxy = await make_proxy(POLICY, ())
    await post(proxy.url, stream=True)
    return proxy


@pytest_asyncio.fixture
async def admin(proxy: Proxy) -> AsyncIterator[str]:
    async with TestServer(create_admin_app(GatewayState(proxy.gateway, nothing_new))) as server:
        yield str(server.make_url("/metrics"))


@pytest_asyncio.fixture
async def exported(proxy: Proxy, admin: str) -> Labels:
    """The labels of every series, by its name in queries."""
    async with aiohttp.ClientSession() as session, session.get(admin) as response:
        families = list(text_string_to_metric_families(await response.text()))
    labelled = reference.labels(proxy.gateway.metrics)
    found = {"up": TARGET, "cotguard_workers": TARGET}
    for family in families:
        of = frozenset(labelled.get(family.name, ())) | TARGET
        if family.type == "histogram":
            found |= {f"{family.name}_bucket": of | {"le"}, f"{family.name}_sum": of, f"{family.name}_count": of}
        else:
            found[f"{family.name}_total" if family.type == "counter" else family.name] = of
    return found


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries() -> Iterator[tuple[str, str]]:
    """Every query, and the labels that its legend names."""
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["expr"], annotation["textFormat"]
    for rule in ALERTS:
        legend = rule["annotations"]["summary"]
        yield rule["expr"], legend


def parsed(query: str) -> promql.Expr:
    return promql.parse(query.replace("$__rate_interval", "5m"))


def parts(node: Any) -> Iterator[Any]:
    """An expression and all in it."""
    yield node
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        inner = getattr(node, name, None)
        if inner is not None:
            yield from parts(inner)
    for inner in getattr(node, "args", None) or ():
        yield from parts(inner)


def used(query: str) -> tuple[set[str], list[tuple[str, set[str]]]]:
    """The labels that a query groups and joins by, and its series with the labels that select them."""
    grouping: set[str] = set()
    series = []
    for node in parts(parsed(query)):
        if isinstance(node, promql.VectorSelector):
            series.append((str(node.name), {matcher.name for matcher in node.matchers.matchers}))
        elif isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            grouping |= set(node.modifier.labels)
        elif isinstance(node, promql.BinaryExpr) and node.modifier is not None and node.modifier.matching is not None:
            grouping |= set(node.modifier.matching.labels)
    return grouping, series


async def test_every_query_is_one_of_what_is_exported(exported: Labels) -> None:
    for query, legend in queries():
        grouping, series = used(query)
        assert series or "vector" in query, query
        named = grouping | set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", legend))
        for name, selected in series:
            assert name in exported, f"{name}: no such series, in {query}"
            assert selected <= exported[name], f"{name} has no {selected - exported[name]}, in {query}"
        assert named <= frozenset().union(*(exported[name] for name, _ in series)), f"{named} in {query}, {legend}"


def test_queries_with_labels_and_series_of_their_own_would_be_seen() -> None:
    grouping, series = used(
        'sum by (a, le) (rate(x_bucket{b="1"}[5m])) / on (c) group_left (d) (y offset 5m) or vector(0)'
    )
    assert grouping == {"a", "le", "c"}
    assert series == [("x_bucket", {"b"}), ("y", set())]


def test_panels_have_a_place_of_their_own_and_say_their_unit() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identities) == len(set(identities))
    assert all(panel["type"] == "table" or panel["fieldConfig"]["defaults"]["unit"] for panel in panels())


async def test_every_metric_that_matters_is_on_the_dashboard(exported: Labels) -> None:
    shown = {name for query, _ in queries() for name, _ in used(query)[1]}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    own = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported if name.startswith("cotguard_")}
    assert {name for name in own - families if not name.endswith("_created")} == set()


def test_each_alert_has_its_section_in_the_runbook() -> None:
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == [rule["alert"] for rule in ALERTS]
    for rule in ALERTS:
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_reference_is_as_the_code_says() -> None:
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == reference.render()


NAME = re.compile(r"(?<![\w.])(?:cotguard|process)_[a-z_]*[a-z]\b(?![*(/.])")


async def test_documents_name_what_there_is(exported: Labels) -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported} | set(exported)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        named = set(NAME.findall(path.read_text(encoding="utf-8")))
        assert named <= families, f"{path.name}: {named - families}"


async def test_metrics_come_in_the_format_that_is_asked_for(proxy: Proxy, admin: str) -> None:
    proxy.gateway.metrics.added.observe(0.3, "ab" * 16)
    proxy.gateway.metrics.held_seconds.observe(0.3, {"trace_id": "cd" * 16})
    async with aiohttp.ClientSession() as session:
        async with session.get(admin) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert "trace_id" not in await response.text()
        async with session.get(admin, headers={"Accept": OPENMETRICS}) as response:
            assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
            exposed = await response.text()
    assert exposed.endswith("# EOF\n")
    assert f'cotguard_event_added_seconds_bucket{{le="0.5"}} 2.0 # {{trace_id="{"ab" * 16}"}} 0.3' in exposed
    assert f'cotguard_held_seconds_bucket{{le="0.5"}} 1.0 # {{trace_id="{"cd" * 16}"}} 0.3' in exposed


def promtool(*arguments: str, given: bytes = b"") -> str:
    command = shutil.which("promtool")
    if command is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run([command, *arguments], input=given, capture_output=True, check=False)
    told = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, told
    return told


def test_alerts_fire_where_they_should() -> None:
    promtool("check", "rules", str(ROOT / "deploy/prometheus/alerts.yaml"))
    promtool("test", "rules", str(ROOT / "deploy/prometheus/alerts_test.yaml"))


async def test_names_follow_the_rules(proxy: Proxy) -> None:
    assert promtool("check", "metrics", given=proxy.gateway.metrics.expose()) == ""


def test_every_alert_is_tested() -> None:
    tested = (ROOT / "deploy/prometheus/alerts_test.yaml").read_text(encoding="utf-8")
    missing: Collection[str] = [rule["alert"] for rule in ALERTS if rule["alert"] not in tested]
    assert not missing
