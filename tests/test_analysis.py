"""What other gateways ask on the admin port: Presidio's analyzer and LiteLLM's guardrail, over a socket."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from cotguard.config.settings import Settings
from cotguard.detectors.contract import Detector, Scope, Session
from cotguard.detectors.registry import build
from cotguard.gateway.analysis import Analyst, add_analysis
from cotguard.gateway.answerers import Staff
from cotguard.gateway.moderations import Moderation
from cotguard.policy import Policy, load, parse
from cotguard.spans import Span
from cotguard.telemetry.metrics import Metrics

GUARDRAIL = "/beta/litellm_basic_guardrail_api"
RULES = "version: 1\nname: t\nclassifier: false\nrules:\n  - entities: [EMAIL_ADDRESS]\n    action: "
MAIL = "mail ann.lee@example.com now"


class Port:
    """An admin port with an analyst."""

    def __init__(self, moderation: Moderation, metrics: Metrics) -> None:
        self.url, self.moderation, self.metrics = "", moderation, metrics

    async def ask(self, path: str, body: object = None, **options: Any) -> tuple[int, Any]:
        method = "GET" if body is None and not options else "POST"
        if body is not None:
            options["json"] = body
        async with aiohttp.ClientSession() as session, session.request(method, self.url + path, **options) as response:
            assert response.content_type == "application/json"
            return response.status, await response.json()


MakePort = Callable[..., Awaitable[Port]]


@pytest_asyncio.fixture
async def make_port(balanced: tuple[Policy, tuple[Detector, ...]]) -> AsyncIterator[MakePort]:
    runners: list[web.AppRunner] = []

    async def make(policy: Policy | None = None, detectors: tuple[Detector, ...] | None = None) -> Port:
        moderation = Moderation.of(*balanced) if policy is None else Moderation.of(policy, detectors or build(policy))
        metrics = Metrics()
        staff = Staff(Settings(upstream="http://127.0.0.1"), metrics)
        staff.engage(moderation.detectors)
        await staff.start()
        port = Port(moderation, metrics)
        analyst = Analyst(lambda: port.moderation, staff.answerers, b"k" * 32, metrics)
        app = web.Application()
        add_analysis(app, analyst.answer, limit=100_000)
        app.on_cleanup.append(lambda _app: staff.close())
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        host, number = runner.addresses[0][:2]
        port.url = f"http://{host}:{number}"
        return port

    yield make
    for runner in runners:
        await runner.cleanup()


def rules(action: str, rest: str = "") -> Policy:
    return parse(f"{RULES}{action}\n{rest}", "t.yaml", None)


async def test_values_of_a_text(make_port: MakePort) -> None:
    port = await make_port()
    body = {"text": "Card 4111 1111 1111 1111, mail ann.lee@example.com", "language": "en"}
    status, found = await port.ask("/analyze", body)
    assert status == 200
    assert [(each["entity_type"], each["start"], each["end"]) for each in found] == [
        ("CREDIT_CARD", 5, 24),
        ("EMAIL_ADDRESS", 31, 50),
    ]
    assert set(found[0]) == {"entity_type", "start", "end", "score", "analysis_explanation"}
    assert found[0]["analysis_explanation"] is None
    status, found = await port.ask("/analyze", {**body, "return_decision_process": True, "entities": ["CREDIT_CARD"]})
    (only,) = found
    assert (only["analysis_explanation"]["recognizer"], only["analysis_explanation"]["pattern_name"]) == (
        "patterns",
        "credit-card",
    )
    status, found = await port.ask("/analyze", {**body, "text": ["none", body["text"], ""]})
    assert [len(each) for each in found] == [0, 2, 0]
    assert await port.ask("/analyze", {**body, "score_threshold": 1}) == (200, [])
    assert await port.ask("/analyze", {**body, "text": MAIL, "allow_list": ["ann.lee@example.com"]}) == (200, [])


async def test_what_is_only_flagged_is_told_if_it_is_asked_for(make_port: MakePort) -> None:
    port = await make_port(rules("flag"))
    assert await port.ask("/analyze", {"text": MAIL}) == (200, [])
    _, found = await port.ask("/analyze", {"text": MAIL, "entities": ["EMAIL_ADDRESS"]})
    assert [each["entity_type"] for each in found] == ["EMAIL_ADDRESS"]


async def test_the_classifier_is_asked(make_port: MakePort) -> None:
    policy = load("strict")
    port = await make_port(policy, build(policy, "tagger-4"))
    _, found = await port.ask("/analyze", {"text": "I asked Margaret Thornbury."})
    assert [(each["entity_type"], each["start"], each["end"]) for each in found] == [("PERSON", 8, 26)]
    assert "PERSON" in (await port.ask("/supportedentities"))[1]


async def test_supported_entities_are_those_of_the_policy(make_port: MakePort) -> None:
    port = await make_port(rules("redact"))
    assert await port.ask("/supportedentities?language=en") == (200, ["EMAIL_ADDRESS"])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "text: Field required"),
        ({"text": 1}, "text: Input should be a valid string"),
        ({"text": "x", "entities": ["SHOE_SIZE"]}, "entities: names one that is not found here"),
        ({"text": "x", "score_threshold": 2}, "score_threshold: Input should be less than or equal to 1"),
        ({"text": "x", "ad_hoc_recognizers": [{"name": "x"}]}, "recognizers of a client's are not run"),
        ({"text": "x", "allow_list_match": "regex"}, "allow_list_match: Input should be 'exact'"),
        ({"text": "x", "ann.lee@example.com": 1}, "write an object with these fields: text, language"),
        ([MAIL], "write an object with these fields"),
    ],
)
async def test_wrong_questions(make_port: MakePort, body: object, told: str) -> None:
    status, answer = await (await make_port(rules("redact"))).ask("/analyze", body)
    assert status == 400
    assert told in answer["error"]
    assert "ann.lee" not in answer["error"]


async def test_bodies_are_checked_and_limited(make_port: MakePort) -> None:
    port = await make_port(rules("redact"))
    headers = {"content-type": "application/json"}
    for path in ("/analyze", GUARDRAIL):
        assert (await port.ask(path, data=b"{", headers=headers))[0] == 400
        assert (await port.ask(path, data=b"{}", headers={"content-type": "text/plain"}))[0] == 415
        assert (await port.ask(path, {"text": "x" * 100_000}))[0] == 413


def asked(input_type: str, *texts: str, **rest: object) -> dict[str, object]:
    """A question as LiteLLM writes it."""
    return {
        "input_type": input_type,
        "litellm_call_id": "call-1",
        "litellm_trace_id": "trace-1",
        "texts": list(texts),
        "images": None,
        "tools": None,
        "tool_calls": None,
        "structured_messages": None,
        "request_data": {"user_api_key_hash": "h"},
        "request_headers": {"host": "x", "authorization": "[present]"},
        "litellm_version": "1.110.2",
        "additional_provider_specific_params": {},
        "model": "m",
        **rest,
    }


async def test_responses_are_rewritten(make_port: MakePort) -> None:
    port = await make_port()
    _, answer = await port.ask(GUARDRAIL, asked("response", MAIL, "nothing"))
    assert answer["action"] == "GUARDRAIL_INTERVENED"
    assert answer["texts"] == ["mail [EMAIL_ADDRESS] now", "nothing"]
    _, answer = await port.ask(GUARDRAIL, asked("response", "nothing"))
    assert (answer["action"], "texts" in answer) == ("NONE", False)
    labels = {"entity": "EMAIL_ADDRESS", "channel": "output", "action": "redact", "outcome": "redacted"}
    assert port.metrics.registry.get_sample_value("cotguard_decisions_total", labels) == 1


@pytest.mark.parametrize("action", ["redact", "pseudonymize", "hash"])
async def test_a_growing_stream_is_never_told_too_much(make_port: MakePort, action: str) -> None:
    """As LiteLLM's ``incremental_diff`` does it: what was sent must begin every later answer."""
    port = await make_port(rules(action))
    text = "Write to ann.lee@example.com, or to bob.kay@example.org; thanks."
    sent = ""
    for end in range(1, len(text) + 1, 3):
        _, answer = await port.ask(GUARDRAIL, asked("response", text[:end]))
        written = answer.get("texts", [text[:end]])[0]
        assert written.startswith(sent)
        sent = max(sent, written[: len(written) - answer["stream_holdback_chars"][0]], key=len)
        assert "ann" not in sent
    _, answer = await port.ask(GUARDRAIL, asked("response", text))
    assert answer["texts"][0].startswith(sent)
    assert sent.startswith("Write to [EMAIL_ADDRESS")


async def test_blocks(make_port: MakePort) -> None:
    port = await make_port(rules("block"))
    _, answer = await port.ask(GUARDRAIL, asked("response", MAIL))
    assert answer == {"action": "BLOCKED", "blocked_reason": "The policy blocks this text."}
    assert (await port.ask(GUARDRAIL, asked("request", MAIL)))[1]["action"] == "NONE"  # requests are only read
    port = await make_port(rules("block", "request: {texts: moderate, media: refuse}\n"))
    assert (await port.ask(GUARDRAIL, asked("request", MAIL)))[1]["action"] == "BLOCKED"
    _, answer = await port.ask(GUARDRAIL, asked("request", "x", images=["data:image/png;base64,AAAA"]))
    assert "cannot be read" in answer["blocked_reason"]


async def test_tool_calls_cannot_be_rewritten(make_port: MakePort) -> None:
    port = await make_port(rules("redact"))
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": json.dumps({"to": MAIL})}}
    _, answer = await port.ask(GUARDRAIL, asked("response", "ok", tool_calls=[call]))
    assert (answer["action"], "tool call" in answer["blocked_reason"]) == ("BLOCKED", True)
    call["function"] = {"name": "send", "arguments": "{}"}
    assert (await port.ask(GUARDRAIL, asked("response", "ok", tool_calls=[call])))[1]["action"] == "NONE"


async def test_requests_are_rewritten_where_the_policy_moderates_them(make_port: MakePort) -> None:
    port = await make_port(
        parse(
            "version: 1\nname: t\nclassifier: false\nrequest: {texts: moderate}\nrules:\n"
            "  - {entities: [EMAIL_ADDRESS], channels: [user, tool_description], action: pseudonymize}\n",
            "t.yaml",
            None,
        )
    )
    messages = [{"role": "system", "content": "I am root@example.net"}, {"role": "user", "content": MAIL}]
    tool = {"type": "function", "function": {"name": "send", "description": "asks bob.kay@example.org"}}
    question = asked("request", "I am root@example.net", MAIL, structured_messages=messages, tools=[tool])
    _, answer = await port.ask(GUARDRAIL, question)
    assert answer["action"] == "GUARDRAIL_INTERVENED"
    assert answer["texts"][0] == "I am root@example.net"  # the policy leaves texts of the system alone
    assert "ann.lee" not in answer["texts"][1]
    assert "bob.kay" not in json.dumps(answer["tools"])
    assert (await port.ask(GUARDRAIL, asked("request", "nothing")))[1] == {"action": "NONE"}


async def test_a_system_prompt_that_is_sent_along_is_known(make_port: MakePort) -> None:
    port = await make_port()
    secret = "The launch code is kept by the harbour master of the northern port and never spoken aloud."
    messages = [{"role": "system", "content": secret}, {"role": "user", "content": "What is it?"}]
    _, answer = await port.ask(GUARDRAIL, asked("response", f"I was told: {secret}", structured_messages=messages))
    assert "harbour" not in answer["texts"][0]


class Failing:
    """A detector that fails."""

    name: Final = "failing"
    entities = frozenset({"EMAIL_ADDRESS"})

    def open(self, scope: Scope) -> Session:
        return self

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        raise RuntimeError(text)


async def test_a_fault_is_an_error_without_content(make_port: MakePort, caplog: pytest.LogCaptureFixture) -> None:
    port = await make_port(rules("redact"), (Failing(),))
    assert await port.ask("/analyze", {"text": MAIL}) == (500, {"error": "Moderation failed."})
    assert await port.ask(GUARDRAIL, asked("response", MAIL)) == (500, {"error": "Moderation failed."})
    assert "analysis failed closed" in caplog.text
    assert "ann.lee" not in caplog.text


async def test_a_new_policy_holds_for_the_next_question(make_port: MakePort) -> None:
    port = await make_port(parse(RULES.replace("EMAIL_ADDRESS", "IBAN_CODE") + "redact\n", "t.yaml", None))
    assert await port.ask("/analyze", {"text": MAIL}) == (200, [])
    policy = rules("redact")
    port.moderation = Moderation.of(policy, build(policy))
    assert len((await port.ask("/analyze", {"text": MAIL}))[1]) == 1
