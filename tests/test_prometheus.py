"""A real Prometheus scrapes the gateway, loads the alerts and answers every query of the dashboard."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.test_utils
import pytest
import yaml
from aiohttp.test_utils import TestServer
from conftest import ProxyFactory, Upstream, nothing_new
from scripted import DONE, chunk, finish, post, streaming

from cotguard.gateway.admin import GatewayState, create_admin_app
from cotguard.policy import parse

ROOT = Path(__file__).parent.parent
POLICY = parse("version: 1\nname: t\nclassifier: false\nrules: [{entities: [URL], action: redact}]", "t", None)
TRACE = "ab" * 16


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer; an ``AssertionError`` tells what was wrong."""
        url = f"{self._url}/api/v1/{path}"
        async with aiohttp.ClientSession() as session, session.get(url, params=parameters) as response:
            answer = await response.json()
            assert answer["status"] == "success", (parameters, answer)
            return answer["data"]

    async def query(self, query: str) -> list[Any]:
        """The samples."""
        data = await self.get("query", query=query)
        return data["result"] if data["resultType"] == "vector" else [data["result"]]


@asynccontextmanager
async def scraping(target: str, folder: Path) -> AsyncIterator[Prometheus]:
    """Prometheus, once it has scraped ``target`` twice: rates need two samples."""
    command = shutil.which("prometheus")
    if command is None:
        pytest.skip("Prometheus is not installed (Debian: prometheus)")
    job = {"job_name": "cotguard", "static_configs": [{"targets": [target]}]}
    config = {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(ROOT / "deploy/prometheus/alerts.yaml")],
        "scrape_configs": [job],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    url = f"127.0.0.1:{aiohttp.test_utils.unused_port()}"
    process = await asyncio.create_subprocess_exec(
        command,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url}",
        "--enable-feature=exemplar-storage",
        "--log.level=error",
    )
    prometheus = Prometheus(f"http://{url}")
    try:
        await _scraped(prometheus)
        yield prometheus
    finally:
        process.kill()
        await process.wait()


async def _scraped(prometheus: Prometheus) -> None:
    async with asyncio.timeout(30):
        while True:
            with suppress(aiohttp.ClientError):  # it does not listen yet
                counted = await prometheus.query("count_over_time(up[1m])")
                rules = await rules_of(prometheus)
                if counted and int(counted[0]["value"][1]) >= 2 and all(rule["health"] != "unknown" for rule in rules):
                    return
            await asyncio.sleep(0.1)


async def rules_of(prometheus: Prometheus) -> list[dict[str, Any]]:
    return [rule for group in (await prometheus.get("rules"))["groups"] for rule in group["rules"]]


def dashboard_queries() -> list[str]:
    dashboard = json.loads((ROOT / "deploy/grafana/cotguard.json").read_text(encoding="utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    found += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    return [query.replace("$job", ".*").replace("$instance", ".*").replace("$__rate_interval", "1m") for query in found]


async def test_it_takes_metrics_exemplars_and_alerts_and_answers_the_dashboard(
    upstream: Upstream, make_proxy: ProxyFactory, tmp_path: Path
) -> None:
    upstream.handler = streaming([chunk({"content": "x"}), finish(), DONE])
    proxy = await make_proxy(POLICY, ())
    await post(proxy.url, stream=True)
    proxy.gateway.metrics.added.observe(0.3, TRACE)
    async with (
        TestServer(create_admin_app(GatewayState(proxy.gateway, nothing_new))) as server,
        scraping(f"127.0.0.1:{server.port}", tmp_path) as prometheus,
    ):
        (up,) = await prometheus.query("up")
        assert up["value"][1] == "1"
        rules = await rules_of(prometheus)
        assert {rule["health"] for rule in rules} == {"ok"}
        assert not [rule["name"] for rule in rules if rule["state"] == "firing"]
        answers = {query: await prometheus.query(query) for query in dashboard_queries()}
        assert any("cotguard_event_added_seconds" in query and answer for query, answer in answers.items())
        window = {"start": "0", "end": "9999999999"}
        (found,) = await prometheus.get("query_exemplars", query="cotguard_event_added_seconds_bucket", **window)
        assert found["exemplars"][0]["labels"] == {"trace_id": TRACE}
