"""What stands in front of the gateway, or starts it: Envoy, nginx, systemd. Their own programs read the files."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import aiohttp.test_utils
import yaml
from aiohttp import web
from conftest import Upstream
from deploy_kit import DEPLOY, run, tool

ENVOY = DEPLOY / "examples" / "envoy" / "envoy.yaml"
NGINX = DEPLOY / "examples" / "nginx" / "cotguard.conf"
UNIT = DEPLOY / "systemd" / "cotguard.service"


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
        assert process.returncode is None
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def streams_through(url: str, upstream: Upstream) -> None:
    """Assert that each event arrives before the next is sent."""
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/readyz":
            return web.Response()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(3):
            go_on.clear()
            await response.write(f"data: {number}\n\n".encode())
            await go_on.wait()
        return response

    upstream.handler = handler
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        while True:  # until it listens, and knows that the gateway is ready
            try:
                response = await session.post(url + "/v1/chat/completions", json={})
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.02)
                continue
            if response.status == 200:
                break
            await asyncio.sleep(0.02)
        for number in range(3):
            assert await response.content.readuntil(b"\n\n") == f"data: {number}\n\n".encode()
            go_on.set()
        assert await response.content.read() == b""


async def test_envoy_holds_no_event_back(upstream: Upstream, tmp_path: Path) -> None:
    envoy = tool("envoy")
    port, there = aiohttp.test_utils.unused_port(), int(upstream.url.rpartition(":")[2])
    text = ENVOY.read_text(encoding="utf-8").replace("port_value: 10000", f"port_value: {port}")
    text = re.sub(r"address: cotguard-[ab], port_value: 8080", f"address: 127.0.0.1, port_value: {there}", text)
    text = text.replace("port_value: 9090", f"port_value: {there}").replace("port_value: 9901", "port_value: 0")
    config = tmp_path / "envoy.yaml"
    config.write_text(text, encoding="utf-8")
    options = ("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "off")
    async with running(envoy, "-c", str(config), *options):
        await streams_through(f"http://127.0.0.1:{port}", upstream)


def test_envoy_takes_the_file() -> None:
    checked = run("envoy", "--mode", "validate", "-c", ENVOY)
    assert checked.returncode == 0, checked.stderr
    assert "warning" not in checked.stderr  # nothing deprecated


def test_envoy_ends_no_stream_by_its_length_and_tries_nothing_again_that_was_sent() -> None:
    resources = yaml.safe_load(ENVOY.read_text(encoding="utf-8"))["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    (route,) = (each["route"] for each in host["routes"])
    assert (route["timeout"], manager["request_timeout"]) == ("0s", "0s")
    assert set(route["retry_policy"]["retry_on"].split(",")) == {"connect-failure", "refused-stream"}
    assert [each["name"] for each in manager["http_filters"]] == ["envoy.filters.http.router"]


async def test_nginx_holds_no_event_back(upstream: Upstream, tmp_path: Path) -> None:
    nginx = tool("nginx")
    port = aiohttp.test_utils.unused_port()
    text = NGINX.read_text(encoding="utf-8").replace("listen 10000", f"listen 127.0.0.1:{port}")
    (tmp_path / "cotguard.conf").write_text(text.replace("127.0.0.1:8080", upstream.url.removeprefix("http://")))
    paths = " ".join(
        f"{name}_temp_path {tmp_path / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths} include {tmp_path}/cotguard.conf; }}\n"
    )
    async with running(nginx, "-e", "stderr", "-c", str(tmp_path / "nginx.conf")):
        await streams_through(f"http://127.0.0.1:{port}", upstream)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "cotguard.service"
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/cotguard/bin/cotguard", "/bin/true"))
    checked = run("systemd-analyze", "verify", unit)
    assert (checked.returncode, checked.stderr) == (0, "")
    rated = run("systemd-analyze", "security", "--offline=true", "--threshold=15", unit)  # of 100; 96 is no hardening
    assert rated.returncode == 0, rated.stdout


def test_the_unit_starts_reloads_and_ends_it_as_the_command_does() -> None:
    unit = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE))
    assert unit["ExecStart"] == "/opt/cotguard/bin/cotguard serve --config /etc/cotguard/cotguard.yaml"
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert (unit["Type"], unit["KillMode"]) == ("notify", "mixed")
    assert unit["DynamicUser"] == unit["NoNewPrivileges"] == unit["MemoryDenyWriteExecute"] == "yes"
    assert unit["CapabilityBoundingSet"] == ""
    assert int(unit["TimeoutStopSec"]) >= 30 + 10  # the default drain_timeout
