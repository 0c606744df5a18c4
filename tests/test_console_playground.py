"""The playground: what it tells is what the proxy does, for every cut, every dialect, and every kind of text."""

import asyncio
import base64
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from bedrock_kit import STREAM, chunks
from conftest import ProxyFactory, Upstream
from hypothesis import given, settings
from hypothesis import strategies as st
from test_callers_hidden import ANSWER, LACKING, SAMPLES, THOUGHT, sse
from test_guarantees import POLICIES, TEXTS

from cotguard.config.settings import Settings
from cotguard.console import asking, following, playground
from cotguard.console.playground import tried
from cotguard.console.recorded import cut
from cotguard.detectors.registry import build
from cotguard.dialects.catalogue import dialects
from cotguard.gateway.app import Gateway
from cotguard.gateway.moderations import OWN, Moderation
from cotguard.moderator import Moderator
from cotguard.policy import PolicyError, parse
from cotguard.scan.texts import Contents, Reading
from cotguard.spans import Action, ChannelKind
from cotguard.telemetry.metrics import Metrics

Json = dict[str, Any]

RULES = "version: 1\nname: {name}\nclassifier: false\nrules:\n  - entities: [ALL]\n    action: redact\n"
ANIMALS = RULES.format(name="animals") + 'known_values:\n  values: ["quokka", "wombat"]\n'
MAIL = "So I mail ann.lee@example.com now, or never."
SENT = "So I mail [EMAIL_ADDRESS] now, or never."
SECRET = "zanzibar-7hq2"


class House(NamedTuple):
    """A gateway with policies of every action, a moderator with the same detectors, and a loop for both."""

    gateway: Gateway
    moderator: Moderator
    loop: asyncio.AbstractEventLoop

    def tried(self, source: Json, **about: Any) -> Json:
        return self.loop.run_until_complete(tried(self.gateway, {"source": source, **about}))


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    moderator = Moderator("balanced", bundle="none", hash_key=playground._KEY)
    moderations = {OWN: Moderation.of(moderator.policy, moderator.detectors)}
    for action, policy in POLICIES.items():
        moderations[action] = Moderation.of(replace(policy, name=f"all-{action}"), moderator.detectors)
    animals = parse(ANIMALS, "t.yaml", None)
    moderations["animals"] = Moderation.of(animals, build(animals))
    configured = Settings.model_validate({"upstream": "http://127.0.0.1:1", "bundle": "none"})
    loop = asyncio.new_event_loop()
    yield House(Gateway(configured, moderations, Metrics()), moderator, loop)
    loop.close()


def text_of(text: str, channel: str = "reasoning", **more: str) -> Json:
    return {"kind": "text", "channel": channel, "text": text, **more}


def edited(channel: Json) -> str:
    """The raw text with the edits applied."""
    out, at = "", 0
    for start, end, text in channel["edits"]:
        assert at <= start < end
        out += channel["raw"][at:start] + text
        at = end
    return str(out + channel["raw"][at:])


def check(told: Json) -> Json:
    """Check what holds for all results: steps grow, held text has a reason, edits lead from raw to delivered (G2)."""
    json.dumps(told)
    last: dict[int, Json] = {}
    for step in told["steps"]:
        assert [each["channel"] for each in step] == sorted({each["channel"] for each in step})
        for now in step:
            before = last.get(now["channel"], {"received": 0, "released": 0, "written": 0, "why": []})
            assert all(before[name] <= now[name] for name in ("received", "released", "written"))
            assert now["released"] <= now["received"]
            assert now != before or now["why"]
            if now["released"] < now["received"] and not (told["blocked"] or told["fault"]):
                assert now["why"]
            last[now["channel"]] = now
        for number, channel in last.items():
            assert number in [each["channel"] for each in step] or not channel["why"]
    assert sorted(last) == list(range(len(told["channels"])))
    for number, channel in enumerate(told["channels"]):
        assert edited(channel) == channel["delivered"]
        assert last[number]["written"] == len(channel["delivered"])
        assert last[number]["received"] == len(channel["raw"])
        assert last[number]["why"] == []
        assert all(0 <= span["start"] < span["end"] <= len(channel["raw"]) for span in channel["spans"])
    return told


def scanned(moderator: Moderator, channel: str, text: str) -> list[Json]:
    """What `cotguard scan --jsonl` finds in a text."""
    out: list[str] = []
    reading = Reading(moderator, ChannelKind(channel), Contents.RECORDS, out.append)
    reading.read(io.StringIO(json.dumps({"id": 1, "text": text}) + "\n"))
    found: list[Json] = json.loads(out[0])["spans"]
    return found


def expected(moderator: Moderator, channel: str, text: str) -> str:
    exchange = moderator.exchange(pseudonym_key=playground._EXCHANGE_KEY)
    return "".join(piece.text for piece in exchange.feed(channel, text) + exchange.finish())


FOUND = ("start", "end", "entity", "score", "detector", "action")
CHANNELS = st.sampled_from(["reasoning", "output", "tool_call", "refusal", "other"])


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, action=st.sampled_from(["", *POLICIES]), channel=CHANNELS)
def test_what_is_told_is_what_scan_and_moderator_do_for_every_cut(
    house: House, text: str, action: str, channel: str
) -> None:
    if channel == "tool_call":
        text = json.dumps({"to": [text, 4111111111111111], text[:9]: None})
    house.moderator.policy = house.gateway.active.named(action).policy
    spans = scanned(house.moderator, channel, text)
    delivered = expected(house.moderator, channel, text)
    for way in playground.CUTS:
        told = check(house.tried(text_of(text, channel), policy=action, cut=way))
        assert len(told["steps"]) == 1 + len(playground._pieces(text, way)) or told["blocked"]
        if not text:
            assert told["channels"] == []
            continue
        (found,) = told["channels"]
        assert found["delivered"] == delivered
        assert (found["lane"], found["kind"], found["label"]) == (0, channel, channel)
        assert [{name: each[name] for name in FOUND} for each in found["spans"]] == spans
        if not told["blocked"]:
            assert found["raw"] == text or channel == "tool_call"


def test_a_span_is_told_with_its_rule_and_what_became_of_it(house: House) -> None:
    draft = RULES.format(name="d") + "  - {entities: [ALL], action: flag}\n"
    draft = draft.replace("[ALL]", "[EMAIL_ADDRESS]", 1)
    told = check(house.tried(text_of(f"{MAIL} Ask 203.0.113.77."), draft=draft))
    assert told["policy"]["name"] == "d"
    mail, address = told["channels"][0]["spans"]
    assert (mail["rule"], mail["action"], mail["outcome"], mail["kind"]) == (0, "redact", "redacted", "reasoning")
    assert (address["rule"], address["outcome"]) == (1, "flagged")
    assert "EMAIL_ADDRESS" in mail["rule_text"]
    assert told["channels"][0]["edits"] == [[10, 29, "[EMAIL_ADDRESS]"]]
    shadow = house.tried(text_of(MAIL), draft=draft.replace("classifier", "mode: shadow\nclassifier"))
    assert shadow["channels"][0]["delivered"] == MAIL
    assert shadow["channels"][0]["spans"][0]["outcome"] == "would_have"


def test_who_holds_what_is_told_while_it_is_held(house: House) -> None:
    told = check(house.tried(text_of(MAIL), cut="character"))
    at = MAIL.index("@")
    (held,) = told["steps"][at]
    assert (held["received"], held["released"], held["written"]) == (at + 1, 10, 10)
    assert "patterns" in held["why"]


def test_a_block_and_what_is_withheld_end_at_their_value(house: House) -> None:
    for way in playground.CUTS:
        blocked = check(house.tried(text_of(MAIL), policy="block", cut=way))
        assert blocked["blocked"]
        assert blocked["channels"][0]["delivered"] == "So I mail "
        assert [each["outcome"] for each in blocked["channels"][0]["spans"]] == ["blocked"]
        withheld = check(house.tried(text_of(MAIL), policy="withhold", cut=way))
        assert not withheld["blocked"]
        assert withheld["channels"][0]["edits"] == [[10, len(MAIL), "[withheld]"]]


def test_the_system_prompt_is_known(house: House) -> None:
    prompt = "You are Bert. Never tell anybody that the pass phrase of the vault is marzipan under the seventh stair."
    answer = "I was told: never tell anybody that the pass phrase of the vault is marzipan under the seventh stair."
    alone, known = (house.tried(text_of(answer, system=system)) for system in ("", prompt))
    assert alone["channels"][0]["spans"] == []
    assert {each["entity"] for each in known["channels"][0]["spans"]} == {"SYSTEM_PROMPT"}
    assert len(known["channels"]) == 1


SENDING = RULES.format(name="d").replace("redact", "pseudonymize")


@pytest.mark.parametrize("channel", ["system", "user", "assistant", "tool_result", "tool_description"])
def test_texts_of_requests_are_told_as_they_go_upstream(house: House, channel: str) -> None:
    for texts in ("ignore", "read"):
        told = check(house.tried(text_of(MAIL, channel), draft=f"{SENDING}request: {{texts: {texts}}}\n"))
        assert told["channels"][0]["delivered"] == MAIL
    moderates = f"{SENDING}request: {{texts: moderate}}\n"
    told = check(house.tried(text_of(MAIL, channel), draft=moderates))
    assert told["channels"][0]["delivered"] == SENT.replace("ADDRESS]", "ADDRESS_1]")
    assert (told["channels"][0]["kind"], len(told["steps"])) == (channel, 1)
    told = check(house.tried(text_of(MAIL, channel), draft=moderates.replace("pseudonymize", "block")))
    assert told["blocked"]
    assert told["channels"][0]["delivered"] == ""  # nothing of it is sent


# --- Recorded responses ----------------------------------------------------------------------------------------------


def recorded(dialect: str, data: bytes) -> Json:
    if b"\xff" in data or b"\0" in data:
        return {"kind": "stream", "dialect": dialect, "body": base64.b64encode(data).decode(), "base64": True}
    return {"kind": "stream", "dialect": dialect, "body": data.decode(), "base64": False}


def animals(told: Json) -> None:
    assert told["fault"] == ""
    assert not any(word in each["delivered"] for each in told["channels"] for word in ("quokka", "wombat"))
    assert "quokka" not in told["wire"]
    assert "wombat" not in told["wire"]
    assert "[KNOWN_VALUE]" in told["wire"]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_recorded_response_of_every_dialect(house: House, name: str) -> None:
    sample = SAMPLES[name]
    told = check(house.tried(recorded(sample.dialect, sample.data), policy="animals"))
    animals(told)
    whole = "whole" in name
    events = 1 if whole else len(cut("text/event-stream" if sample.content_type != STREAM else STREAM, sample.data))
    if sample.content_type == "application/x-ndjson":
        events = sample.data.count(b"\n")
    assert events <= len(told["steps"]) <= events + 1
    assert told["received_bytes"] == len(sample.data)
    raw = "".join(each["raw"] for each in told["channels"])
    assert "quokka" in raw
    assert "wombat" in raw
    kinds = {kind for each in told["channels"] for _, kind in each["kinds"]}
    assert {"reasoning", "output"} <= kinds


def test_the_dialects_without_a_sample_above(house: House) -> None:
    parts = [{"type": "transcript.text.delta", "delta": each} for each in (THOUGHT, ANSWER)]
    done = {"type": "transcript.text.done", "text": THOUGHT + ANSWER}
    told = check(house.tried(recorded("transcription", sse(*parts, done, named=True)), policy="animals"))
    animals(told)
    assert {sample.dialect for sample in SAMPLES.values()} | LACKING == {each.name for each in dialects()}
    animals(house.tried(recorded("transcription", json.dumps({"text": THOUGHT}).encode()), policy="animals"))


def token(text: str, whole: str | None = None) -> Json:
    return {"token": {"id": 1, "text": text, "logprob": -0.1, "special": False}, "generated_text": whole}


def meta(text: str, reason: object = None) -> Json:
    return {"text": text, "meta_info": {"id": "1", "finish_reason": reason}}


CLAUDE: list[Mapping[str, object]] = [
    {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ANSWER}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}},
    {"type": "message_stop"},
]
CONTENT = {"content": {"role": "model", "parts": [{"text": ANSWER}]}, "index": 0, "finishReason": "STOP"}
FORMS: Mapping[str, tuple[str, bytes]] = {
    "TGI": ("generate", sse(token(THOUGHT), token(ANSWER, THOUGHT + ANSWER))),
    "SGLang": ("generate", sse(meta(THOUGHT), meta(THOUGHT + ANSWER, {"type": "stop"}), done=True)),
    "SGLang, whole": ("generate", json.dumps(meta(ANSWER, {"type": "stop"})).encode()),
    "a list of results": ("llamacpp", json.dumps([{"index": at, "content": ANSWER} for at in range(3)]).encode()),
    "an array that grows": ("gemini", b"[" + json.dumps({"candidates": [CONTENT]}, indent=1).encode() + b"\n]"),
    "Claude on Bedrock": ("bedrock", chunks(CLAUDE)),
    "Titan on Bedrock": ("bedrock", chunks([{"outputText": ANSWER, "index": 0, "completionReason": "FINISH"}])),
    "Llama on Bedrock": ("bedrock", chunks([{"generation": ANSWER, "stop_reason": "stop"}])),
    "Mistral on Bedrock": ("bedrock", chunks([{"outputs": [{"text": ANSWER, "stop_reason": "stop"}]}])),
    "DeepSeek on Bedrock": ("bedrock", json.dumps({"choices": [{"text": ANSWER, "stop_reason": "stop"}]}).encode()),
    "Ollama, one prompt": ("ollama", json.dumps({"model": "m", "response": ANSWER, "done": True}).encode()),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_a_dialect_are_told_by_what_was_recorded(house: House, name: str) -> None:
    dialect, data = FORMS[name]
    told = check(house.tried(recorded(dialect, data), policy="animals"))
    animals(told)
    if name == "a list of results":
        assert [(each["lane"], each["label"]) for each in told["channels"]] == [
            (at, f"output, choice {at + 1}") for at in range(3)
        ]


def chat(*choices: Json, done: bool = True) -> bytes:
    return sse(*({"id": "c", "model": "m", "choices": [choice]} for choice in choices), done=done)


def choice(index: int = 0, reason: str | None = None, **delta: Any) -> Json:
    return {"index": index, "delta": delta, "finish_reason": reason}


def test_calls_of_tools_are_told_though_no_request_declares_them(house: House) -> None:
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "send", "arguments": '{"to": "quo'}}
    more = {"index": 0, "function": {"arguments": 'kka\\u0021"}'}}
    data = chat(choice(tool_calls=[call]), choice(tool_calls=[more]), choice(reason="tool_calls"))
    told = check(house.tried(recorded("chat_completions", data), policy="animals"))
    (channel,) = told["channels"]
    assert (channel["kind"], channel["raw"]) == ("tool_call", '{"to": "quokka!"}')
    assert channel["delivered"] == '{"to": "[KNOWN_VALUE]!"}'
    assert '"finish_reason":"tool_calls"' in told["wire"]


def test_a_block_ends_a_stream_and_is_told_in_its_shape(house: House) -> None:
    data = chat(choice(content="So "), choice(content=MAIL), choice(content=" and on"), choice(reason="stop"))
    told = check(house.tried(recorded("chat_completions", data), policy="block"))
    assert told["blocked"]
    assert told["fault"] == ""
    assert told["channels"][0]["delivered"] == "So So I mail "
    assert '"finish_reason":"content_filter"' in told["wire"]
    assert told["received_bytes"] < len(data)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (chat(choice(content=MAIL), done=False), "The upstream ended the stream early."),
        (b"", "early"),
        (chat(choice(content=MAIL), done=False) + b"data: {" + SECRET.encode() + b"\n\n", "could not be read"),
        (sse({"error": {"message": SECRET}}), "The upstream reported an error."),
        (b'{"choices": "' + SECRET.encode() + b'"}', "could not be read"),
        (b"{" + SECRET.encode(), "could not be read"),
        (b"[" * 5000, "could not be read"),
    ],
)
def test_a_fault_of_an_upstream_is_told_in_constant_words(house: House, data: bytes, fault: str) -> None:
    told = check(house.tried(recorded("chat_completions", data)))
    assert told["fault"]
    assert fault.split()[-1].rstrip(".") in told["fault"]
    assert SECRET not in json.dumps(told)
    assert "ann.lee" not in told["wire"]


# --- What cannot be used, and what is left behind ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"source": SECRET},
        {"source": {"kind": SECRET}},
        {"source": {"kind": [SECRET]}},
        {"source": text_of(SECRET, SECRET)},
        {"source": {"kind": "text", "channel": "output", "text": [SECRET]}},
        {"source": text_of("x" * (playground.MAX_CHARS + 1))},
        {"source": text_of("x" * playground.MAX_CHARS, system="x")},
        {"source": text_of(SECRET), "cut": SECRET},
        {"source": text_of("x" * playground.MAX_STEPS), "cut": "character"},
        {"source": text_of(SECRET), "policy": SECRET},
        {"source": text_of(SECRET), "policy": [SECRET]},
        {"source": text_of(SECRET), "draft": [SECRET]},
        {"source": recorded(SECRET, b"")},
        {"source": recorded("ollama", b"{}\n{}\n" * playground.MAX_STEPS)},
        {"source": recorded("ollama", b"x" * (playground.MAX_STREAM_BYTES + 1))},
        {"source": recorded("ollama", b"x" * (playground.MAX_PIECE_BYTES + 1))},
        {"source": {"kind": "stream", "dialect": "bedrock", "body": SECRET, "base64": True}},
        {"source": {"kind": "prompt", "upstream": SECRET, "model": "m", "prompt": SECRET}},
        {"source": {"kind": "prompt", "upstream": "default", "model": "m", "prompt": "x" * 300_000}},
    ],
)
def test_what_cannot_be_used_is_refused_and_not_quoted(house: House, about: Json) -> None:
    with pytest.raises(ValueError, match=r"\w+") as caught:
        house.loop.run_until_complete(tried(house.gateway, about))
    assert SECRET not in str(caught.value)


def test_more_channels_that_hold_text_than_can_be_told_are_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MAX_ENTRIES", 30)
    held = [choice(index, content="ann.lee@exam") for index in range(8)]
    with pytest.raises(ValueError, match="too many channels"):
        house.tried(recorded("chat_completions", chat(*held)))


@pytest.mark.parametrize(
    "draft",
    [
        f"version: 1\nname: d\nrules: {SECRET}\n",
        RULES.format(name="d") + f"known_values:\n  values: [{SECRET}, x]\n",
        RULES.format(name="d") + "known_values:\n  file: /etc/passwd\n",
        f"{SECRET}: [",
    ],
)
def test_a_draft_that_cannot_be_used_is_told_by_its_lines(house: House, draft: str) -> None:
    with pytest.raises(PolicyError) as caught:
        house.tried(text_of(MAIL), draft=draft)
    assert all(problem.line for problem in caught.value.problems)
    assert SECRET not in str(caught.value)


def test_a_fault_in_moderating_lets_nothing_out_that_was_not_before(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        name = "broken"
        entities = frozenset({"EMAIL_ADDRESS"})

        def open(self, _scope: object) -> "Broken":
            self.read = 0
            return self

        def advance(self, text: str, final: bool) -> tuple[Sequence[Any], int]:
            self.read += len(text)
            if self.read > 20:
                raise RuntimeError(SECRET)
            return (), self.read

    moderation = Moderation.of(POLICIES[Action.REDACT], [Broken()])
    active = replace(house.gateway.active, moderations={"broken": moderation})
    monkeypatch.setattr(house.gateway, "_active", active)
    told = check(house.tried(text_of(MAIL), policy="broken", cut="character"))
    assert told["channels"][0]["delivered"] == MAIL[:20]
    assert told["fault"].startswith("Moderation failed")
    told = check(
        house.tried(recorded("chat_completions", chat(choice(content="So "), choice(content=MAIL))), policy="broken")
    )
    assert told["channels"][0]["delivered"] == "So "
    assert "I mail" not in told["wire"]
    assert SECRET not in json.dumps(told)


def test_nothing_is_left_behind(house: House, caplog: pytest.LogCaptureFixture) -> None:
    def counted() -> list[Any]:
        metrics = house.gateway.metrics.registry.collect()
        return [
            (each.name, each.labels, each.value)
            for family in metrics
            for each in family.samples
            if "cotguard" in each.name
        ]

    before = counted()
    findings = house.gateway.active.moderations[OWN].findings
    with caplog.at_level(logging.DEBUG, logger="cotguard"):
        house.tried(text_of(f"{MAIL} {SECRET}", system=f"mail bo@example.com, {SECRET}"))
        house.tried(text_of(f"{MAIL} {SECRET}", "user"), draft=f"{SENDING}request: {{texts: moderate}}\n")
        house.tried(recorded("chat_completions", chat(choice(content=f"{MAIL} {SECRET}"))))
    assert counted() == before
    assert not findings._memory
    assert caplog.records == []


async def test_live_streams_go_on_meanwhile(house: House) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.ensure_future(count())
    await tried(house.gateway, {"source": text_of(MAIL * 2000), "cut": "whole"})
    counting.cancel()
    assert turns > 5


# --- Questions to an upstream ----------------------------------------------------------------------------------------


def prompt(text: str = MAIL, upstream: str = "default") -> Json:
    return {"kind": "prompt", "upstream": upstream, "model": "m", "system": "You are Bert.", "prompt": text}


def answering(body: bytes, content_type: str = "text/event-stream", status: int = 200) -> Any:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, status=status, content_type=content_type)

    return answer


async def test_a_question_is_moderated_both_ways(make_proxy: ProxyFactory, upstream: Upstream) -> None:
    policy = parse(f"{SENDING}request: {{texts: moderate}}\n", "t.yaml", None)
    gateway = (await make_proxy(policy)).gateway
    answer = "You are [EMAIL_ADDRESS_1], I am bo@example.org. "
    upstream.handler = answering(
        chat(*(choice(content=each) for each in (answer[:9], answer[9:])), choice(reason="stop"))
    )
    told = check(await tried(gateway, {"source": prompt()}))
    (sent,) = upstream.bodies
    assert b"ann.lee" not in sent
    document = json.loads(sent)
    assert document["messages"][1]["content"] == SENT.replace("ADDRESS]", "ADDRESS_1]")
    assert (document["model"], document["stream"], upstream.paths) == ("m", True, ["/v1/chat/completions"])
    system, user, output = told["channels"]
    assert (system["kind"], user["kind"], output["kind"]) == ("system", "user", "output")
    assert user["delivered"] == SENT.replace("ADDRESS]", "ADDRESS_1]")
    assert output["raw"] == answer
    assert output["delivered"].startswith("You are ann.lee@example.com, I am [EMAIL_ADDRESS_")
    assert [each["outcome"] for each in output["spans"]] == ["restored", "redacted"]
    assert "bo@example.org" not in told["wire"]
    assert told["fault"] == ""


async def test_an_answer_that_is_not_streamed(make_proxy: ProxyFactory, upstream: Upstream) -> None:
    message = {"role": "assistant", "content": MAIL}
    body = {
        "id": "c",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    upstream.handler = answering(json.dumps(body).encode(), "application/json")
    told = check(await tried((await make_proxy()).gateway, {"source": prompt("Go on.")}))
    assert told["channels"][-1]["delivered"] == SENT
    assert SENT in told["wire"]


async def test_a_question_that_is_blocked_is_not_asked(make_proxy: ProxyFactory, upstream: Upstream) -> None:
    policy = parse(f"{SENDING}request: {{texts: moderate}}\n".replace("pseudonymize", "block"), "t.yaml", None)
    told = check(await tried((await make_proxy(policy)).gateway, {"source": prompt()}))
    assert told["blocked"]
    assert told["fault"] == ""
    assert upstream.bodies == []
    assert "blocked_by_policy" in told["wire"]
    assert all(each["delivered"] == "" for each in told["channels"])


async def test_faults_of_an_upstream_that_is_asked(
    make_proxy: ProxyFactory, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = (await make_proxy()).gateway

    async def faulty(handler: Any) -> str:
        upstream.handler = handler
        told = check(await tried(gateway, {"source": prompt(SECRET)}))
        assert SECRET not in told["fault"] + told["wire"]
        assert told["received_bytes"] == 0
        return str(told["fault"])

    assert await faulty(answering(SECRET.encode(), status=401)) == "The upstream answered with status 401."
    assert "content type" in await faulty(answering(SECRET.encode(), "text/html"))
    monkeypatch.setattr(asking, "MAX_ANSWER_BYTES", 100)
    assert "larger than" in await faulty(answering(SECRET.encode() * 100))
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.05)

    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.sleep(5)
        return response

    assert "seconds" in await faulty(silent)
    unreachable = (await make_proxy(upstream="http://127.0.0.1:1")).gateway
    told = await tried(unreachable, {"source": prompt(SECRET)})
    assert told["fault"] == "The upstream cannot be reached."
