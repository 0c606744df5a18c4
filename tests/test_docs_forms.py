"""What the pages on Python, ASGI, other gateways and files show works as shown."""

import ast
import contextlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession, test_utils, web
from starlette.testclient import TestClient

from cotguard.config.settings import Settings
from cotguard.gateway.analysis import Analyst, add_analysis
from cotguard.gateway.answerers import Staff
from cotguard.gateway.moderations import OWN, load_moderations
from cotguard.telemetry.metrics import Metrics

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


async def run(code: str, names: dict[str, Any]) -> None:
    compiled = compile(code, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(compiled, CodeType)
    result = eval(compiled, names)  # the page's own code
    if inspect.isawaitable(result):
        await result


async def test_python() -> None:
    names: dict[str, Any] = {}
    for block in blocks("python.md", "python"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            await run(block, names)
        assert [line.rstrip() for line in printed.getvalue().splitlines()] == re.findall(r"print\(.*\)  # (.*)", block)
    names["moderator"].close()


async def test_asgi() -> None:
    (block,) = blocks("asgi.md", "python")
    names: dict[str, Any] = {}
    await run(block, names)
    with TestClient(names["app"]) as client:
        request = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        answer = client.post("/v1/chat/completions", json=request)
        assert answer.json()["choices"][0]["message"]["content"] == "Write to [EMAIL_ADDRESS]"
        assert client.get("/about").text == "A page of our own."
        assert client.get("/openapi.json").status_code == 404


async def test_other_gateways() -> None:
    question, answer, guarded, decision = (json.loads(block) for block in blocks("other-gateways.md", "json"))
    app = web.Application()
    settings = Settings(upstream="http://127.0.0.1")
    moderation = load_moderations(settings)[OWN]
    staff = Staff(settings, Metrics())
    staff.engage(moderation.detectors)
    await staff.start()
    app.on_cleanup.append(lambda _app: staff.close())
    add_analysis(app, Analyst(lambda: moderation, staff.answerers, b"k" * 32, Metrics()).answer)
    async with test_utils.TestServer(app) as server, ClientSession() as session:
        async with session.post(server.make_url("/analyze"), json=question) as response:
            assert [{**found, "score": 1.0} for found in await response.json()] == answer
        async with session.post(server.make_url("/beta/litellm_basic_guardrail_api"), json=guarded) as response:
            assert await response.json() == decision
    ((guardrail,),) = [yaml.safe_load(block)["guardrails"] for block in blocks("other-gateways.md", "yaml")]
    assert guardrail["litellm_params"]["guardrail"] == "generic_guardrail_api"


@pytest.mark.parametrize("block", blocks("scan.md", "console"))
def test_scan(block: str, tmp_path: Path) -> None:
    commands = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    shown = [line for line in block.splitlines() if not line.startswith("$ ")]
    script = f'cotguard() {{ "{sys.executable}" -m cotguard "$@" 2>&1; }}\n' + "\n".join(commands)
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent)}
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode().splitlines() == shown
