"""Ollama native as the official SDK reads it: recordings, planted values, cuts and faults, the gateway on sockets."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from dialect_checks import CARRIED, LABELLED, check_cuts, leaks, pieces
from dialect_kit import CANARY, ask, body, policy, shadow, spellings, spoil, stream

from cotguard.detectors.contract import Detector
from cotguard.dialects.contract import CUT_NOTICE, Prepared
from cotguard.dialects.ollama import Ollama
from cotguard.policy import Policy

Moderation = tuple[Policy, tuple[Detector, ...]]

DIALECT = Ollama()
FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
NDJSON = "application/x-ndjson"
TIME = "2026-01-01T00:00:00.000000Z"
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "description": "d"}}
COUNTS = {"total_duration": 9, "load_duration": 1, "prompt_eval_count": 2, "eval_count": 7, "eval_duration": 5}
ANSWER = {"chat": "content", "generate": "response"}
ACTIONS = tuple(ANSWER)


def prepared(action: str, **fields: object) -> Prepared:
    asked = {"messages": [{"role": "user", "content": "x"}], "tools": [TOOL]} if action == "chat" else {"prompt": "x"}
    return ask(DIALECT, action, {"model": "m", **asked, **fields})


def line(action: str, *, thinking: str = "", answer: str = "", calls: object = None, **more: object) -> dict[str, Any]:
    """A line of a stream, or a whole response."""
    texts: dict[str, Any] = {ANSWER[action]: answer}
    if thinking:
        texts["thinking"] = thinking
    if calls is not None:
        texts["tool_calls"] = calls
    held = {"message": {"role": "assistant", **texts}} if action == "chat" else texts
    return {"model": "m", "created_at": TIME, **held, "done": False, **more}


def last(action: str, **more: object) -> dict[str, Any]:
    return {**line(action), "done": True, "done_reason": "stop", **COUNTS, **more}


def lines(sent: Sequence[object]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in sent)


def call(name: str, **arguments: object) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}}


def talk(action: str) -> list[dict[str, Any]]:
    made = [line(action, calls=[call("look", to="Lisbon", days=3)])] if action == "chat" else []
    return [
        *(line(action, thinking=each) for each in ("Paris is ", "a town in ", "France. ")),
        *made,
        *(line(action, answer=each) for each in ("It is ", "large.")),
        last(action, context=[1, 2, 3]),
    ]


def whole(action: str, **texts: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"thinking": "Paris is a town.", "answer": "It is large.", **texts}
    return {**line(action, **told), "done": True, "done_reason": "stop", **COUNTS, "context": [1, 2]}


# --- What the SDK sees -------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a user of the SDK has of a response."""

    texts: dict[str, str] = field(default_factory=dict)
    calls: list[Any] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def take(self, each: Any) -> None:
        """Take a line, or a whole response."""
        holder = each.message if isinstance(each, ollama.ChatResponse) else each
        for name in ("thinking", "content", "response"):
            if told := getattr(holder, name, None):
                self.texts[name] = self.texts.get(name, "") + told
        self.calls += [made.model_dump() for made in getattr(holder, "tool_calls", None) or []]
        if each.done:
            names = ("model", "created_at", "done_reason", "prompt_eval_duration", *COUNTS)
            self.end = {name: getattr(each, name) for name in names}
            assert not getattr(each, "context", None)


def view(action: str, data: bytes | None, *, streamed: bool, url: str = "http://upstream") -> Seen:
    """A response as the SDK reads it: from these bytes or from a server."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=data, headers={"content-type": NDJSON if streamed else "application/json"})

    options: Any = {} if data is None else {"transport": httpx.MockTransport(answer)}
    seen = Seen()
    with ollama.Client(url, **options) as client:
        messages = [{"role": "user", "content": "x"}]
        response: Any = (
            client.chat("m", messages, tools=[TOOL], stream=streamed)
            if action == "chat"
            else client.generate("m", "x", stream=streamed)
        )
        try:
            for each in response if streamed else [response]:
                seen.take(each)
        except ollama.ResponseError as error:
            seen.error = error.error
    return seen


def joined(out: bytes) -> dict[str, str]:
    """The texts of a stream, without the SDK, which takes its time."""
    found: dict[str, str] = {}
    for each in map(json.loads, out.splitlines()):
        holder = each.get("message", each)
        for name in ("thinking", "content", "response"):
            if holder.get(name):
                found[name] = found.get(name, "") + holder[name]
    return found


def recorded(action: str) -> bytes:
    """A recording with its last line's token ids, which the SDK would show."""
    kind = "chat" if action == "chat" else "generation"
    return (FIXTURES / f"openllmetry__ollama__test_ollama_streaming_{kind}_legacy.0.ndjson").read_bytes()


recordings = pytest.mark.skipif(not FIXTURES.is_dir(), reason="no recordings beside the repository")
each_action = pytest.mark.parametrize("action", ACTIONS)
STREAMS = [
    *(pytest.param(action, lines(talk(action)), id=f"{action} made here") for action in ACTIONS),
    *(
        pytest.param(action, recorded(action) if FIXTURES.is_dir() else b"", id=f"{action} recorded", marks=recordings)
        for action in ACTIONS
    ),
]
each_stream = pytest.mark.parametrize(("action", "data"), STREAMS)


@pytest.fixture(params=["no detectors", "every detector"])
def altering_nothing(request: pytest.FixtureRequest, balanced: Moderation) -> Moderation:
    return shadow(balanced[1] if request.param == "every detector" else ())


def without_context(data: bytes) -> bytes:
    return lines(
        [{name: value for name, value in json.loads(each).items() if name != "context"} for each in data.splitlines()]
    )


@each_stream
@pytest.mark.parametrize("size", [1, 97, 10**9])
def test_a_stream_looks_the_same(altering_nothing: Moderation, action: str, data: bytes, size: int) -> None:
    seen = view(action, without_context(data), streamed=True)
    assert seen.texts == joined(data)
    assert seen.end["done_reason"] == "stop"
    out = stream(DIALECT, prepared(action), altering_nothing, data, NDJSON, size)
    assert view(action, out, streamed=True) == seen


@recordings
@each_action
def test_the_recordings_token_ids_stay_here(altering_nothing: Moderation, action: str) -> None:
    data = recorded(action)
    assert (b'"context"' in data) is (action == "generate")
    out = stream(DIALECT, prepared(action), altering_nothing, data, NDJSON)
    assert b"context" not in out
    assert joined(out) == joined(data)


@each_action
def test_a_body_looks_the_same(altering_nothing: Moderation, action: str) -> None:
    calls = {"calls": [call("look", to="Lisbon")]} if action == "chat" else {}
    document = whole(action, **calls)
    expected = view(action, without_context(lines([document])), streamed=False)
    assert len(expected.texts) == 2
    out = body(DIALECT, prepared(action), altering_nothing, json.dumps(document).encode())
    assert view(action, out, streamed=False) == expected


# --- Nothing leaks -----------------------------------------------------------------------------------------------


@each_stream
def test_a_known_word_is_nowhere(action: str, data: bytes) -> None:
    word = max(" ".join(joined(data).values()).replace(".", " ").split(), key=len).strip(",!?'\"()")
    moderation = policy("redact", word)
    for size in (1, 7, 10**9):
        out = stream(DIALECT, prepared(action), moderation, data, NDJSON, size)
        assert not [each for each in spellings(word) if each in out]
    found = check_cuts(DIALECT, prepared(action), moderation, data, joined, NDJSON)
    assert word not in "".join(found.values())
    document = json.dumps(whole(action, thinking=f"so {word} so. ", answer=word)).encode()
    assert not [each for each in spellings(word) if each in body(DIALECT, prepared(action), moderation, document)]


@each_stream
def test_unknown_fields_vanish(altering_nothing: Moderation, action: str, data: bytes) -> None:
    sent = [json.loads(each) for each in data.splitlines()]
    sent = [each for each in sent if "tool_calls" not in each.get("message", {})]  # arguments have any shape
    out = stream(DIALECT, prepared(action), altering_nothing, lines([spoil(each) for each in sent]), NDJSON)
    assert CANARY.encode() not in out
    expected = view(action, without_context(lines(sent)), streamed=True)
    assert view(action, out, streamed=True) == expected
    told = body(DIALECT, prepared(action), altering_nothing, json.dumps(spoil(whole(action))).encode())
    assert told == body(DIALECT, prepared(action), altering_nothing, json.dumps(whole(action)).encode())


MIRRORS: list[dict[str, Any]] = [
    {"logprobs": [{"token": CANARY, "bytes": [1], "top_logprobs": [{"token": CANARY}]}]},
    {"context": [CANARY]},
    {"_debug_info": {"rendered_template": CANARY}},
    {"remote_model": CANARY},
    {"remote_host": CANARY},
    {"image": CANARY},
    {"model": CANARY + "\n"},
    {"created_at": CANARY},
    {"done_reason": CANARY},
    {"total_duration": CANARY},
    {"error_": CANARY},
]
HELD: list[dict[str, Any]] = [
    {"images": [CANARY]},
    {"tool_name": CANARY},
    {"role": CANARY},
    {"tool_calls": [{"function": {"name": CANARY, "arguments": {CANARY: CANARY}}}]},
    {"tool_calls": [{"id": CANARY + " ", "function": {"name": "look", "arguments": {}, "text": CANARY}}]},
    {"reasoning": CANARY},
]


@each_action
@pytest.mark.parametrize("mirror", [*MIRRORS, *({"held": each} for each in HELD)])
def test_the_canary_in_a_field_stays_here(action: str, mirror: dict[str, Any]) -> None:
    def mirrored(document: dict[str, Any]) -> dict[str, Any]:
        if "held" not in mirror:
            return {**document, **mirror}
        if action == "chat":
            return {**document, "message": {**document["message"], **mirror["held"]}}
        return {**document, **mirror["held"]}

    sent = [mirrored(each) for each in talk(action)]
    out = stream(DIALECT, prepared(action), shadow(), lines(sent), NDJSON)
    assert CANARY.encode() not in out
    assert joined(out) == joined(lines(talk(action)))
    told = body(DIALECT, prepared(action), shadow(), json.dumps(mirrored(whole(action))).encode())
    assert CANARY.encode() not in told
    assert joined(told) == joined(lines([whole(action)]))


@each_action
@pytest.mark.parametrize("channel", ["thinking", "answer"])
def test_planted_values_are_labels(balanced: Moderation, action: str, channel: Any) -> None:
    parts = pieces(CARRIED, random.Random(action + channel))
    data = lines([*(line(action, **{channel: each}) for each in parts), last(action)])
    found = check_cuts(DIALECT, prepared(action), balanced, data, joined, NDJSON)
    assert list(found.values()) == [LABELLED]
    assert leaks(stream(DIALECT, prepared(action), balanced, data, NDJSON)) == []
    out = body(DIALECT, prepared(action), balanced, json.dumps(whole(action, **{channel: CARRIED})).encode())
    assert LABELLED in joined(out).values()
    assert leaks(out) == []


def test_planted_values_of_calls_are_labels(balanced: Moderation) -> None:
    made = call("look", note=CARRIED, deep=[{"ann.lee@example.com": 4111111111111111}])
    expected = {"note": LABELLED, "deep": [{"[EMAIL_ADDRESS]": "[CREDIT_CARD]"}]}
    out = stream(DIALECT, prepared("chat"), balanced, lines([line("chat", calls=[made]), last("chat")]), NDJSON)
    assert [each["function"]["arguments"] for each in view("chat", out, streamed=True).calls] == [expected]
    assert leaks(out) == []
    told = body(DIALECT, prepared("chat"), balanced, json.dumps(whole("chat", calls=[made])).encode())
    assert [each["function"]["arguments"] for each in view("chat", told, streamed=False).calls] == [expected]
    assert leaks(told) == []


@each_action
@pytest.mark.parametrize("at", [1, 6, 12, 18])
def test_a_value_over_the_seam_is_a_label(balanced: Moderation, action: str, at: int) -> None:
    value = "ann.lee@example.com"
    head, tail = "Write to " + value[:at], value[at:] + " about the matter, and then some more words."
    data = lines([line(action, thinking=head), line(action, answer=tail), last(action)])
    told = "".join(joined(stream(DIALECT, prepared(action), balanced, data, NDJSON)).values())
    assert "[EMAIL_ADDRESS]" in told
    assert not any(value[cut : cut + 5] in told for cut in range(len(value) - 4))
    document = json.dumps(whole(action, thinking=head, answer=tail)).encode()
    out = body(DIALECT, prepared(action), balanced, document)
    assert not any(value[cut : cut + 5].encode() in out for cut in range(len(value) - 4))


# --- Cuts and faults ---------------------------------------------------------------------------------------------

MAIL = "so ann.lee@example.com is it"


@each_action
def test_a_block_is_told_in_the_answer(action: str) -> None:
    data = lines([line(action, thinking="hm. "), line(action, answer=MAIL), line(action, answer=CANARY), last(action)])
    out = stream(DIALECT, prepared(action), policy("block"), data, NDJSON)
    seen = view(action, out, streamed=True)
    assert seen.texts[ANSWER[action]] == "so " + CUT_NOTICE
    assert (seen.error, seen.end["done_reason"]) == ("", "stop")
    assert CANARY.encode() not in out
    told = view(
        action,
        body(DIALECT, prepared(action), policy("block"), json.dumps(whole(action, thinking=MAIL)).encode()),
        streamed=False,
    )
    assert told.texts == {"thinking": "so ", ANSWER[action]: CUT_NOTICE}


def test_a_block_in_a_call_leaves_no_half_of_it() -> None:
    made = [call("look", to=MAIL)]
    out = stream(DIALECT, prepared("chat"), policy("block"), lines([line("chat", calls=made), last("chat")]), NDJSON)
    seen = view("chat", out, streamed=True)
    assert (seen.calls, seen.texts, seen.error) == ([], {"content": CUT_NOTICE}, "")
    told = body(DIALECT, prepared("chat"), policy("block"), json.dumps(whole("chat", calls=made)).encode())
    assert view("chat", told, streamed=False).calls == []


@each_action
def test_withheld_text_leaves_the_rest(action: str) -> None:
    data = lines([line(action, thinking=MAIL), line(action, answer="All is well."), last(action)])
    out = stream(DIALECT, prepared(action), policy("withhold"), data, NDJSON)
    seen = view(action, out, streamed=True)
    assert b"example" not in out
    assert seen.texts[ANSWER[action]] == "All is well."
    assert seen.end["eval_count"] == COUNTS["eval_count"]


@each_action
@pytest.mark.parametrize(
    ("rest", "error"),
    [
        (b"{nonsense\n", "could not be read"),
        (b'{"message": {"content": 7}, "response": 7}\n', "wrong type"),
        (b'{"error": "%b"}\n' % CANARY.encode(), "reported an error"),
        (b"", "ended the stream early"),
    ],
)
def test_a_fault_is_raised_by_the_sdk(balanced: Moderation, action: str, rest: bytes, error: str) -> None:
    data = lines([line(action, answer="so it goes on and on. "), line(action, answer="4111")]) + rest
    for size in (1, 10**9):
        out = stream(DIALECT, prepared(action), balanced, data, NDJSON, size)
        seen = view(action, out, streamed=True)
        assert error in seen.error
        assert seen.texts == {ANSWER[action]: "so it goes on and on. "}
        assert CANARY.encode() not in out


# --- The gateway -------------------------------------------------------------------------------------------------


@each_action
async def test_the_sdk_through_the_gateway(upstream: Upstream, make_proxy: ProxyFactory, action: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if json.loads(upstream.bodies[-1])["stream"]:
            told = ("Ask ann.lee", "@example.com", " first. ")
            sent = [line(action, thinking=each) for each in told]
            sent.append(line(action, answer="Card 4111 1111 1111 1111"))
            return web.Response(body=lines([*sent, last(action)]), content_type=NDJSON)
        return web.json_response(whole(action, thinking="Ask ann.lee@example.com first. ", answer="Well."))

    upstream.handler = handler
    url = (await make_proxy()).url
    seen = await asyncio.to_thread(view, action, None, streamed=True, url=url)
    assert seen.texts == {"thinking": "Ask [EMAIL_ADDRESS] first. ", ANSWER[action]: "Card [CREDIT_CARD]"}
    assert seen.end["eval_count"] == COUNTS["eval_count"]
    told = await asyncio.to_thread(view, action, None, streamed=False, url=url)
    assert told.texts == {"thinking": "Ask [EMAIL_ADDRESS] first. ", ANSWER[action]: "Well."}
    assert set(upstream.paths) == {f"/api/{action}"}


async def test_models_are_listed_and_not_managed(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    about = {"format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "8B"}
    model = {"name": "llama3:8b", "model": "llama3:8b", "modified_at": TIME, "size": 7, "digest": "ab12"}

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/api/version":
            return web.json_response({"version": "0.12.3", "build": CANARY})
        return web.json_response({"models": [{**model, "details": {**about, "system": CANARY}, "template": CANARY}]})

    upstream.handler = handler
    url = (await make_proxy()).url

    def use() -> dict[str, Any]:
        with ollama.Client(url) as client:
            managed = {
                "show": lambda: client.show("m"),
                "pull": lambda: client.pull("m"),
                "push": lambda: client.push("m"),
                "create": lambda: client.create("m", from_="n"),
                "copy": lambda: client.copy("m", "n"),
                "delete": lambda: client.delete("m"),
                "ps": client.ps,
            }
            for name, ask_for in managed.items():
                with pytest.raises(ollama.ResponseError) as refused:
                    ask_for()
                assert (name, refused.value.status_code) == (name, 404)
            with httpx.Client() as plain:
                assert plain.get(url + "/api/version").json() == {"version": "0.12.3"}
            return dict(client.list().model_dump(exclude_none=True))

    listed = await asyncio.to_thread(use)
    [found] = listed["models"]
    assert (found["model"], found["size"], found["digest"]) == ("llama3:8b", 7, "ab12")
    assert found["details"] == about
    assert upstream.paths == ["/api/version", "/api/tags"]


async def test_an_upstreams_error_reaches_the_sdk_without_its_text(
    upstream: Upstream, make_proxy: ProxyFactory
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": CANARY}, status=404)

    upstream.handler = handler
    url = (await make_proxy()).url
    with pytest.raises(ollama.ResponseError, match="The upstream answered with status 404") as raised:
        await asyncio.to_thread(view, "chat", None, streamed=False, url=url)
    assert CANARY not in str(raised.value)
