"""llama.cpp's own routes; what is alike in all raw text has tests of its own."""

import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from dialect_kit import CANARY, ask, body, policy, shadow, stream
from raw_text_kit import events, sse

from cotguard.detectors.contract import Detector
from cotguard.dialects.contract import Prepared, Refused, Route
from cotguard.dialects.raw_text.llamacpp import LlamaCpp
from cotguard.policy import Policy

Moderation = tuple[Policy, tuple[Detector, ...]]
DIALECT = LlamaCpp()
TIMINGS = {"cache_n": 0, "prompt_n": 1, "prompt_ms": 7.6, "predicted_n": 3, "predicted_per_second": 129.5}


def prepared(**fields: object) -> Prepared:
    return ask(DIALECT, "complete", {"prompt": "Go on:", "stream": True, **fields})


def piece(content: str, index: int = 0) -> dict[str, Any]:
    told = {"id_slot": -1, "tokens_predicted": 1, "tokens_evaluated": 1}
    return {"index": index, "content": content, "tokens": [29], "stop": False, **told}


def last(content: str = "", index: int = 0, **fields: object) -> dict[str, Any]:
    return {
        "index": index,
        "content": content,
        "tokens": [],
        "id_slot": 0,
        "stop": True,
        "model": "smol.gguf",
        "tokens_predicted": 3,
        "tokens_evaluated": 1,
        "generation_settings": {"seed": 42, "stop": ["END"], "grammar": CANARY},
        "prompt": CANARY,
        "has_new_line": False,
        "truncated": False,
        "stop_type": "limit",
        "stopping_word": "",
        "tokens_cached": 3,
        "timings": TIMINGS,
        **fields,
    }


KEPT = {
    "index": 0,
    "content": "",
    "tokens": [],
    "stop": True,
    "model": "smol.gguf",
    "tokens_predicted": 3,
    "tokens_evaluated": 1,
    "tokens_cached": 3,
    "truncated": False,
    "stop_type": "limit",
    "stopping_word": "",
    "timings": TIMINGS,
}


def test_a_stream_keeps_its_shape(balanced: Moderation) -> None:
    data = sse([piece("She is "), piece("ann.lee@exa"), piece("mple.com. "), last()])
    found = events(stream(DIALECT, prepared(), balanced, data))
    assert found[-1] == KEPT
    assert all(each | {"content": ""} == {**KEPT_PIECE} for each in found[:-1])
    assert "".join(each["content"] for each in found) == "She is [EMAIL_ADDRESS]. "


KEPT_PIECE = {"index": 0, "content": "", "tokens": [], "stop": False}


def test_a_whole_document_keeps_its_shape(balanced: Moderation) -> None:
    data = json.dumps(last("She is ann.lee@example.com")).encode()
    assert json.loads(body(DIALECT, prepared(), balanced, data)) == KEPT | {"content": "She is [EMAIL_ADDRESS]"}


def test_several_prompts_come_one_behind_the_other() -> None:
    data = sse([piece("one"), last(), None, piece("two", 1), last(index=1)])
    found = events(stream(DIALECT, prepared(prompt=["a", "b"]), shadow(), data))
    assert [(each["index"], each["content"], each["stop"]) for each in found] == [
        (0, "one", False),
        (0, "", True),
        (1, "two", False),
        (1, "", True),
    ]
    whole = json.dumps([last("one"), last("two", 1)]).encode()
    assert [each["content"] for each in json.loads(body(DIALECT, prepared(prompt=["a", "b"]), shadow(), whole))] == [
        "one",
        "two",
    ]
    one = json.dumps([last("one")]).encode()
    assert isinstance(json.loads(body(DIALECT, prepared(prompt=["a"]), shadow(), one)), list)


@pytest.mark.parametrize(("word", "expected"), [("END", "END"), (CANARY, ""), (3, ""), (None, "")])
def test_a_stopping_word_is_one_of_the_requests(word: object, expected: str) -> None:
    end = last(stop_type="word", stopping_word=word)
    [found] = events(stream(DIALECT, prepared(stop=["END"]), shadow(), sse([end])))
    assert (found["stop_type"], found["stopping_word"]) == ("word", expected)
    whole = json.loads(body(DIALECT, prepared(stop=["END"]), shadow(), json.dumps(end | {"content": "x"}).encode()))
    assert whole["stopping_word"] == expected


def test_the_end_is_that_of_the_last_choice() -> None:
    request = prepared(prompt=["a", "b"])
    early = events(stream(DIALECT, request, shadow(), sse([piece("one"), last(), None, piece("two ", 1)])))
    assert early[-1]["error"]["code"] == "upstream_interrupted"
    fewer = events(stream(DIALECT, request, shadow(), sse([piece("one"), last()])))
    assert fewer[-1]["stop"] is True


def test_errors_keep_their_code() -> None:
    error = {"error": {"code": 500, "message": CANARY, "type": "server_error", "n_ctx": 5}}
    found = events(stream(DIALECT, prepared(), shadow(), sse([piece("a b c "), error])))
    told = {"message": "The upstream reported an error.", "type": "server_error", "param": None, "code": 500}
    assert found[-1] == {"error": told}
    rebuilt = json.loads(DIALECT.upstream_error(400, json.dumps(error).encode()))
    assert rebuilt == {"error": {**told, "message": "The upstream answered with status 400."}}


def test_requests() -> None:
    request = prepared(stop=["END"], n_probs=3, return_tokens=True, timings_per_token=True, id_slot=2, grammar="root")
    assert request.document == {"prompt": "Go on:", "stream": True, "stop": ["END"], "grammar": "root"}
    assert (request.facts.user, request.stops, request.choices) == ("Go on:", frozenset({"END"}), 1)
    assert prepared(prompt=["a", 1, "b"]).choices == 1
    assert prepared(prompt=["a", {"prompt_string": "b"}, [1, 2]], n_cmpl=2).choices == 6
    assert prepared(prompt={"prompt_string": "b", "multimodal_data": []}).facts.user == "b"
    extra = [{"filename": "f", "text": "file"}]
    around = ask(DIALECT, "complete", {"input_prefix": "a", "input_suffix": "c", "input_extra": extra})
    assert (around.facts.user, around.stream) == ("file\nc\na", False)
    for fields in ({"response_fields": ["content"]}, {"lora": [{"id": 1}]}, {"n": 17}, {"input_extra": 1}):
        with pytest.raises(Refused):
            prepared(**fields)


def test_a_block_leaves_no_piece_behind() -> None:
    data = sse([piece("so ann.lee@exa"), piece("mple.com is"), piece(" at home"), last()])
    found = events(stream(DIALECT, prepared(), policy("block"), data))
    assert [each["stop"] for each in found] == [False, True]
    assert found[-1]["stop_type"] == "none"


# --- The gateway -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/completion", "/infill"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_through_the_gateway(upstream: Upstream, make_proxy: ProxyFactory, path: str, streamed: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if not streamed:
            return web.json_response(last("She is ann.lee@example.com."))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for each in (piece("She is ann.l"), piece("ee@example.com."), last()):
            await response.write(sse([each]))
        return response

    upstream.handler = handler
    proxy = await make_proxy()
    request = {"prompt": "Who?", "stream": streamed, "return_tokens": True}
    async with aiohttp.ClientSession() as session, session.post(proxy.url + path, json=request) as response:
        assert response.status == 200
        data = await response.read()
    found = events(data) if streamed else [json.loads(data)]
    assert "".join(each["content"] for each in found) == "She is [EMAIL_ADDRESS]."
    assert found[-1]["stop_type"] == "limit"
    assert upstream.paths == [path]
    assert json.loads(upstream.bodies[0]) == {"prompt": "Who?", "stream": streamed}


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
async def test_health_is_looked_up(upstream: Upstream, make_proxy: ProxyFactory, path: str) -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok", "slots": [CANARY]})

    upstream.handler = handler
    proxy = await make_proxy()
    async with aiohttp.ClientSession() as session, session.get(proxy.url + path) as response:
        assert await response.json() == {"status": "ok"}


REFUSED = ("/slots", "/slots/0", "/props", "/apply-template", "/tokenize", "/detokenize", "/lora-adapters", "/tools")


@pytest.mark.parametrize("path", [*REFUSED, "/v1/chat/completions/control"])
async def test_what_is_not_served(upstream: Upstream, make_proxy: ProxyFactory, path: str) -> None:
    proxy = await make_proxy()
    for method in ("GET", "POST"):
        async with aiohttp.ClientSession() as session, session.request(method, proxy.url + path) as response:
            assert response.status == 404
            assert (await response.json())["error"]
    assert upstream.paths == []
    assert any(route.path == path or route.path == "/slots/**" for route in DIALECT.routes if route.refused)


def test_routes() -> None:
    assert Route("POST", "/completion", "complete", "/completion") in DIALECT.routes
    assert Route("GET", "/v1/health", "health", "/v1/health", lookup=True) in DIALECT.routes
