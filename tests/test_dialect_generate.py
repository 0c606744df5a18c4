"""The two servers behind ``/generate``, TGI and SGLang; what is alike in all raw text has tests of its own."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from dialect_kit import CANARY, ask, body, policy, shadow, spellings, spoil, stream
from raw_text_kit import events, sse

from cotguard.detectors.contract import Detector
from cotguard.dialects.contract import CUT_NOTICE, Prepared, Refused, Route, UpstreamFault
from cotguard.dialects.raw_text.generate import Generate
from cotguard.policy import Policy

Moderation = tuple[Policy, tuple[Detector, ...]]
DIALECT = Generate()
SHARED = Path(__file__).resolve().parents[2] / "shared"


def tgi(action: str = "generate_stream", **parameters: object) -> Prepared:
    return ask(DIALECT, action, {"inputs": "Go on:", "parameters": parameters})


def sglang(**fields: object) -> Prepared:
    return ask(DIALECT, "generate", {"text": "Go on:", "stream": True, **fields})


# --- Which of the two --------------------------------------------------------------------------------------------


def test_the_request_tells_which_server_is_meant() -> None:
    assert tgi("generate").action == tgi().action == tgi("root").action == "tgi"
    assert sglang().action == ask(DIALECT, "generate", {"input_ids": [1, 2]}).action == "sglang"


@pytest.mark.parametrize(
    ("action", "document"),
    [
        ("generate", {}),
        ("generate", {"inputs": "a", "text": "a"}),
        ("generate", {"inputs": "a", "input_ids": [1]}),
        ("generate_stream", {"text": "a"}),
        ("root", {"text": "a"}),
        ("generate", {"inputs": ["a"]}),
        ("generate", {"inputs": "a", "parameters": []}),
        ("generate", {"text": "a", "sampling_params": "x"}),
        ("generate", {"text": "a", "sampling_params": [1]}),
        ("generate", {"text": ["a"] * 65}),
    ],
)
def test_requests_that_are_neither(action: str, document: dict[str, object]) -> None:
    with pytest.raises(Refused):
        ask(DIALECT, action, document)


# --- TGI ---------------------------------------------------------------------------------------------------------


def token(text: str, at: int, whole: str | None = None, *, special: bool = False) -> dict[str, Any]:
    details = {"finish_reason": "length", "generated_tokens": at, "input_length": 2, "seed": 7}
    written = {"id": 29, "text": text, "logprob": -0.5, "special": special}
    told = {"generated_text": whole, "details": None if whole is None else details}
    return {"index": at, "token": written, "top_tokens": [{"text": CANARY}], **told}


def test_the_last_event_repeats_what_was_delivered(balanced: Moderation) -> None:
    raw = "She is ann.lee@example.com"
    data = sse([token("She is ann.l", 1), token("ee@exa", 2), token("mple.com", 3, raw)])
    for size in (1, 10**9):
        found = events(stream(DIALECT, tgi(), balanced, data, size=size))
        assert "".join(each["token"]["text"] for each in found) == "She is [EMAIL_ADDRESS]"
        assert found[-1] == {
            "index": 3,
            "token": {"id": 0, "text": "", "logprob": 0, "special": True},
            "generated_text": "She is [EMAIL_ADDRESS]",
            "details": {"finish_reason": "length", "generated_tokens": 3, "input_length": 2, "seed": 7},
        }
        assert all(each["generated_text"] is each["details"] is None for each in found[:-1])


def test_a_seed_beyond_what_parsers_read_is_null() -> None:
    end = token("two", 2, "one two")
    end["details"]["seed"] = 10337522019019826656
    found = events(stream(DIALECT, tgi(), shadow(), sse([token("one ", 1), end])))
    assert found[-1]["details"]["seed"] is None


def test_another_whole_text_than_was_sent_is_not_believed() -> None:
    found = events(stream(DIALECT, tgi(), shadow(), sse([token("one ", 1), token("two", 2, CANARY)])))
    assert found[-1]["generated_text"] == "one two"


def test_special_tokens_are_dropped() -> None:
    data = sse([token(CANARY, 1, special=True), token("one", 2), token(CANARY, 3, "one", special=True)])
    out = stream(DIALECT, tgi(), shadow(), data)
    assert CANARY.encode() not in out
    assert events(out)[-1]["generated_text"] == "one"


def test_a_cut_of_tgi() -> None:
    data = sse([token("so ann.lee@exa", 1), token("mple.com is", 2, "so ann.lee@example.com is")])
    found = events(stream(DIALECT, tgi(), policy("block"), data))
    assert found[-1]["generated_text"] == "so " + CUT_NOTICE
    assert (found[-1]["token"]["text"], found[-1]["token"]["special"]) == (CUT_NOTICE, False)
    assert found[-1]["details"]["finish_reason"] == "stop_sequence"


def test_a_document_of_tgi(balanced: Moderation) -> None:
    tokens = [{"id": 1, "text": CANARY, "logprob": -1, "special": False}]
    details = {"finish_reason": "eos_token", "generated_tokens": 2, "seed": None, "prefill": tokens, "tokens": tokens}
    details["best_of_sequences"] = [{"generated_text": CANARY, "tokens": tokens}]
    document = {"generated_text": "Ask ann.lee@example.com", "details": details}
    kept = {"finish_reason": "eos_token", "generated_tokens": 2, "seed": None, "prefill": [], "tokens": []}
    expected = {"generated_text": "Ask [EMAIL_ADDRESS]", "details": kept}
    for value, written in ((document, expected), ([document], [expected])):
        assert json.loads(body(DIALECT, tgi("root"), balanced, json.dumps(value).encode())) == written
    cut = json.loads(body(DIALECT, tgi("generate"), policy("block"), json.dumps(document).encode()))
    assert cut == {"generated_text": "Ask " + CUT_NOTICE, "details": kept | {"finish_reason": "stop_sequence"}}
    with pytest.raises(UpstreamFault):
        body(DIALECT, tgi("generate"), balanced, json.dumps([document, document]).encode())


def test_requests_to_tgi() -> None:
    request = tgi("generate", details=True, decoder_input_details=True, top_n_tokens=3, best_of=2, stop=["END"])
    sent = {"details": True, "stop": ["END"], "return_full_text": False}
    assert request.document == {"inputs": "Go on:", "parameters": sent}
    assert (request.facts.user, request.stream) == ("Go on:", False)
    assert tgi().stream
    assert ask(DIALECT, "root", {"inputs": "a", "stream": True}).stream
    assert ask(DIALECT, "root", {"inputs": "a"}).document["parameters"] == {"return_full_text": False}
    for refused in ({"return_full_text": True}, {"adapter_id": "a"}):
        with pytest.raises(Refused):
            tgi("generate", **refused)


def test_errors_of_tgi() -> None:
    for kind, expected in (("overloaded", "overloaded"), (CANARY, "upstream_error"), (None, "upstream_error")):
        error = {"error": CANARY, "error_type": kind}
        found = events(stream(DIALECT, tgi(), shadow(), sse([token("a b c ", 1), error])))
        assert found[-1] == {"error": "The upstream reported an error.", "error_type": expected}
        told = {"error": "The upstream answered with status 422.", "error_type": expected}
        assert json.loads(DIALECT.upstream_error(422, json.dumps(error).encode())) == told


# --- SGLang ------------------------------------------------------------------------------------------------------


def event(text: str, reason: object = None, **fields: object) -> dict[str, Any]:
    meta = {"id": "r1", "finish_reason": reason, "prompt_tokens": 2, "completion_tokens": 3, "weight_version": CANARY}
    return {"text": text, "output_ids": [9], "meta_info": meta, **fields}


STOP = {"type": "stop", "matched": "END"}


def shown(out: bytes) -> list[str]:
    return [each["text"] for each in events(out) if "text" in each]


def test_a_repeated_text_is_repeated_as_it_was_delivered(balanced: Moderation) -> None:
    texts = [
        "She ",
        "She is ann.lee@exa",
        "She is ann.lee@exa",
        "She is ann.lee@example.com, yes",
        "She is ann.lee@example.com, yes.",
    ]
    data = sse([*map(event, texts[:-1]), event(texts[-1], STOP)], done=True)
    for size in (1, 50, 10**9):
        found = shown(stream(DIALECT, sglang(), balanced, data, size=size))
        assert found[-1] == "She is [EMAIL_ADDRESS], yes."
        assert all(found[-1].startswith(each) for each in found)
        assert found == sorted(found, key=len)


def test_pieces_are_pieces(balanced: Moderation) -> None:
    for end in ([event("", STOP)], [event("es.", STOP)]):
        last = "" if end[0]["text"] else "es."
        pieces = ["She ", "is ann.lee@exa", "mple.com, y" + last]
        data = sse([*map(event, pieces), *end], done=True)
        for size in (1, 50, 10**9):
            assert (
                "".join(shown(stream(DIALECT, sglang(), balanced, data, size=size))) == "She is [EMAIL_ADDRESS], yes."
            )


def test_a_choice_in_one_event_is_written_in_one(balanced: Moderation) -> None:
    for before in ([], [event("")]):
        data = sse([*before, event("Ask ann.lee@example.com", STOP)], done=True)
        found = events(stream(DIALECT, sglang(), balanced, data))
        assert [each["text"] for each in found] == ["Ask [EMAIL_ADDRESS]"]
        assert found[0]["meta_info"]["finish_reason"] == {"type": "stop"}
    cut = events(stream(DIALECT, sglang(), policy("block"), sse([event("Ask ann.lee@example.com", STOP)])))
    assert [each["text"] for each in cut] == ["Ask "]
    assert cut[0]["meta_info"]["finish_reason"] == {"type": "abort", "message": CUT_NOTICE}


def test_a_repeated_text_that_changes_is_a_fault() -> None:
    for later in ("one twX", "one", "three"):
        found = events(stream(DIALECT, sglang(), shadow(), sse(list(map(event, ("one ", "one two ", later))))))
        assert [each["text"] for each in found[:-1]] == ["one two "]
        assert found[-1]["error"]["code"] == "upstream_invalid"


def test_a_text_that_changes_at_once_is_a_fault_where_ids_are_repeated() -> None:
    later = event("another ", index=0)
    later["output_ids"] = [1, 2, 3]  # as many as there are tokens
    found = events(stream(DIALECT, sglang(), shadow(), sse([event("one "), later])))
    assert found[-1]["error"]["code"] == "upstream_invalid"
    assert "another" not in json.dumps(found)


def test_an_abort_says_nothing_of_how_other_texts_come(balanced: Moderation) -> None:
    abort = {"type": "abort"}
    data = [event("one ", index=0), event("", abort, index=0), event("4111 1111 ", index=1)]
    data += [event("4111 1111 1111 1111 ", index=1), event("4111 1111 1111 1111 x", STOP, index=1)]
    found = events(stream(DIALECT, sglang(text=["a", "b"]), balanced, sse(data, done=True)))
    assert [each["text"] for each in found if each["index"] == 0] == ["one ", ""]
    assert [each["text"] for each in found if each["index"] == 1][-1] == "[CREDIT_CARD] x"


def test_an_aborted_text_need_not_be_repeated() -> None:
    data = sse([event("one "), event("one two "), event("", {"type": "abort", "message": CANARY})], done=True)
    found = events(stream(DIALECT, sglang(), shadow(), data))
    assert (found[-1]["text"], found[-1]["meta_info"]["finish_reason"]) == ("one two ", {"type": "abort"})


def test_pieces_that_look_like_a_repetition_fail_closed() -> None:
    """The known limit: nothing of a value can be lost between the events, and the client is told."""
    found = events(stream(DIALECT, sglang(), shadow(), sse(list(map(event, ("ha", "haha ", "no "))))))
    assert found[-1]["error"]["code"] == "upstream_invalid"


def test_choices_of_sglang(balanced: Moderation) -> None:
    request = sglang(text=["a", "b"])
    texts = [
        ("0 is ann.lee@exa", 0),
        ("1 has 4111 1111", 1),
        ("0 is ann.lee@example.com", 0),
        ("1 has 4111 1111 1111 1111", 1),
    ]
    data = [event(text, index=index) for text, index in texts]
    data += [event("0 is ann.lee@example.com.", STOP, index=0), event("1 has 4111 1111 1111 1111.", STOP, index=1)]
    found = events(stream(DIALECT, request, balanced, sse(data, done=True)))
    last = {each["index"]: each["text"] for each in found}
    assert last == {0: "0 is [EMAIL_ADDRESS].", 1: "1 has [CREDIT_CARD]."}
    unnamed = events(stream(DIALECT, request, balanced, sse([event("a b c ")])))
    assert unnamed[-1]["error"]["code"] == "upstream_invalid"


def test_documents_of_sglang(balanced: Moderation) -> None:
    kept = {"id": "r1", "finish_reason": {"type": "stop"}, "prompt_tokens": 2, "completion_tokens": 3}
    expected = {"text": "Ask [EMAIL_ADDRESS]", "meta_info": kept}
    document = event("Ask ann.lee@example.com", STOP)
    assert json.loads(body(DIALECT, sglang(), balanced, json.dumps(document).encode())) == expected
    both = json.dumps([document, document]).encode()
    assert json.loads(body(DIALECT, sglang(text=["a", "b"]), balanced, both)) == [expected, expected]


def test_a_matched_stop_is_one_of_the_requests() -> None:
    for request, matched, expected in (
        (sglang(sampling_params={"stop": "END"}), "END", {"type": "stop", "matched": "END"}),
        (sglang(sampling_params=[{"stop": ["END"]}]), "END", {"type": "stop", "matched": "END"}),
        (sglang(), "END", {"type": "stop"}),
        (sglang(), 151645, {"type": "stop"}),
    ):
        end = event("one two", {"type": "stop", "matched": matched})
        for data in ([event("one "), end], [end]):
            found = events(stream(DIALECT, request, shadow(), sse(data, done=True)))
            assert found[-1]["meta_info"]["finish_reason"] == expected


def test_requests_to_sglang() -> None:
    sampling = {"n": 2, "stop": "END", "no_stop_trim": True, "skip_special_tokens": False, "temperature": 0}
    request = sglang(sampling_params=sampling, return_logprob=True, return_hidden_states=True, rid="r9")
    kept = {"n": 2, "stop": "END", "temperature": 0}
    assert request.document == {"text": "Go on:", "stream": True, "sampling_params": kept}
    assert (request.facts.user, request.stream, request.choices) == ("Go on:", True, 2)
    assert sglang(text=["a", "b"], sampling_params=[{"n": 2}, {"n": 3}]).choices == 6
    assert ask(DIALECT, "generate", {"input_ids": [[1], [2]]}).choices == 2
    for refused in ({"lora_path": "a"}, {"input_embeds": [[1]]}, {"custom_logit_processor": "x"}):
        with pytest.raises(Refused):
            sglang(**refused)


def test_errors_of_sglang() -> None:
    error = {"error": {"message": CANARY, "code": 400}}
    out = stream(DIALECT, sglang(), shadow(), sse([event("a b c "), error], done=True))
    assert events(out)[-1] == {"error": {"message": "The upstream reported an error."}}
    told = {"error": {"message": "The upstream answered with status 400."}}
    assert json.loads(DIALECT.upstream_error(400, json.dumps(error).encode())) == told


# --- The gateway -------------------------------------------------------------------------------------------------

STREAMS: dict[str, tuple[str, dict[str, object], bytes]] = {
    "tgi": (
        "/generate_stream",
        {"inputs": "Who?"},
        sse([token("She is ann.l", 1), token("ee@example.com.", 2, "She is ann.lee@example.com.")]),
    ),
    "sglang": (
        "/generate",
        {"text": "Who?", "stream": True},
        sse([event("She is ann.l"), event("She is ann.lee@example.com.", STOP)], done=True),
    ),
}
BODIES: dict[str, tuple[str, dict[str, object], object]] = {
    "tgi": ("/generate", {"inputs": "Who?"}, {"generated_text": "She is ann.lee@example.com."}),
    "tgi-root": ("/", {"inputs": "Who?"}, [{"generated_text": "She is ann.lee@example.com."}]),
    "sglang": ("/generate", {"text": "Who?"}, event("She is ann.lee@example.com.", STOP)),
}


async def post(url: str, document: object) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.post(url, json=document) as response:
        return response.status, await response.read()


@pytest.mark.parametrize("name", STREAMS)
async def test_streams_through_the_gateway(upstream: Upstream, make_proxy: ProxyFactory, name: str) -> None:
    path, document, data = STREAMS[name]

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for at in range(0, len(data), 100):
            await response.write(data[at : at + 100])
        return response

    upstream.handler = handler
    status, out = await post((await make_proxy()).url + path, document)
    last = events(out)[-1]
    assert (status, last.get("text", last.get("generated_text"))) == (200, "She is [EMAIL_ADDRESS].")
    assert upstream.paths == [path]


@pytest.mark.parametrize("name", BODIES)
async def test_bodies_through_the_gateway(upstream: Upstream, make_proxy: ProxyFactory, name: str) -> None:
    path, document, answer = BODIES[name]

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response(answer)

    upstream.handler = handler
    status, out = await post((await make_proxy()).url + path, document)
    assert status == 200
    assert b"She is [EMAIL_ADDRESS]." in out
    assert isinstance(json.loads(out), list) is isinstance(answer, list)
    assert upstream.paths == [path]


async def test_an_answer_of_the_other_server_is_none(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response({"generated_text": CANARY})

    upstream.handler = handler
    proxy = await make_proxy()
    status, out = await post(proxy.url + "/generate", {"text": "Who?"})
    assert (status, json.loads(out)["error_type"]) == (502, "upstream_invalid")
    assert CANARY.encode() not in out


@pytest.mark.parametrize("path", ["/tokenize", "/chat_tokenize", "/info", "/encode", "/get_server_info"])
async def test_what_is_not_served(upstream: Upstream, make_proxy: ProxyFactory, path: str) -> None:
    proxy = await make_proxy()
    status, out = await post(proxy.url + path, {"inputs": "a"})
    assert status == 404
    assert b"not served" not in out
    assert upstream.paths == []


def test_routes() -> None:
    assert Route("POST", "/", "root", "/") in DIALECT.routes
    assert Route("POST", "/generate_stream", "generate_stream", "/generate_stream") in DIALECT.routes


# --- Recordings --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="no recordings beside the repository")
def test_a_recorded_document(balanced: Moderation) -> None:
    data = (SHARED / "fixtures" / "openllmetry__hf-inference__test_custom_llm.0.json").read_bytes()
    [original] = json.loads(data)
    for moderation in (shadow(), shadow(balanced[1])):
        [found] = json.loads(body(DIALECT, tgi("root"), moderation, data))
        assert found["generated_text"] == original["generated_text"]
        assert found["details"] == {
            **original["details"],
            "tokens": [],
            "seed": None,
        }  # no number that every parser reads
    assert "scientists" in original["generated_text"]
    out = body(DIALECT, tgi("root"), policy("redact", "scientists"), data)
    assert not [each for each in spellings("scientists") if each in out]
    spoiled = body(DIALECT, tgi("root"), shadow(), json.dumps(spoil(json.loads(data))).encode())
    assert spoiled == body(DIALECT, tgi("root"), shadow(), data)
