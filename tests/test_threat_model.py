"""The security papers say what is so: the tests they name are there, and what they list as not found is not found."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from conftest import ProxyFactory, Upstream
from scripted import DONE, chunk, finish, post, streaming

from cotguard.detectors.conformance import find
from cotguard.detectors.known_values import KnownValues

ROOT = Path(__file__).parents[1]
MODEL = (ROOT / "THREAT_MODEL.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", MODEL)))
VALUE = "Project Bluebird"


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_is_named_is_there() -> None:
    assert len(NAMED) > 50
    assert [f"{path}::{name}" for path, name in NAMED if name not in functions_of(path)] == []


def test_every_claim_names_a_test() -> None:
    rows = [line for line in MODEL.splitlines() if line.startswith("| ")]
    tables = MODEL.split("| holds | shown by |")[1:]
    claims = [row for table in tables for row in table.split("\n\n")[0].splitlines()[2:]]
    assert len(claims) > 40
    assert len(rows) > len(claims)
    assert [claim for claim in claims if "`tests/" not in claim.rpartition(" | ")[2]] == []


async def test_nothing_that_was_written_becomes_a_label(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    upstream.handler = streaming([chunk({"content": "canary4711", "canary4711": 1}), finish(reason="canary4711"), DONE])
    proxy = await make_proxy()
    said = {"model": "canary4711", "user": "canary4711", "messages": [{"role": "canary4711", "content": "canary4711"}]}
    await post(proxy.url, stream=True, **said)
    await post(proxy.url + "/canary4711")
    exposed = proxy.gateway.metrics.expose().decode()
    assert 'cotguard_requests_total{dialect="chat_completions",outcome="ok",status="200"} 1.0' in exposed
    assert "canary" not in exposed


def forms() -> list[str]:
    """The second column of what is not found."""
    table = MODEL.partition("| form | example |\n|---|---|\n")[2].partition("\n\n")[0]
    return [row.partition(" | ")[2].removesuffix(" |").strip("`") for row in table.splitlines()]


@pytest.mark.parametrize("form", forms())
def test_what_is_listed_as_not_found_is_not_found(form: str) -> None:
    detector = KnownValues([VALUE])
    assert find(detector, f"It is {VALUE} now.")
    assert find(detector, f"It is {form} now.") == []


def test_links_within_the_papers_lead_somewhere() -> None:
    for paper in (MODEL, SECURITY):
        for target in re.findall(r"\]\(([^)#]+)", paper):
            assert (ROOT / target).exists(), target
    for anchor in re.findall(r"#([a-z-]+)\)", MODEL + SECURITY):
        papers = [MODEL, SECURITY, (ROOT / "README.md").read_text(encoding="utf-8")]
        headings = [heading for paper in papers for heading in re.findall(r"^#+ (.+)$", paper, re.MULTILINE)]
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}
