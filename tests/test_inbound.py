"""Requests of every dialect: whose each text is, that no value gets past the policy, and what is left alone."""

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import FormData
from conftest import ProxyFactory, Upstream
from conversations import CLIENTS, SIGNATURE, Client, Conversation, Turn, conversation, harmless
from dialect_kit import spellings
from planted import PLANTED, Planted, carried
from scripted import DONE, chunk, finish, streaming

from cotguard.detectors.contract import Detector, RequestFacts, Scope, Session
from cotguard.detectors.registry import build
from cotguard.dialects.catalogue import dialects
from cotguard.dialects.contract import ErrorKind, Prepared, Refused
from cotguard.dialects.inbound import CHECKS, Inbound
from cotguard.dialects.table import Step
from cotguard.framing.json import dumps
from cotguard.gateway.outgoing import Unmoderated, moderate
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.request import Findings
from cotguard.policy import Policy, parse
from cotguard.spans import ChannelKind, Span

Path = tuple[Step, ...]
SYSTEM, USER, ASSISTANT = ChannelKind.SYSTEM, ChannelKind.USER, ChannelKind.ASSISTANT
RESULT, DESCRIPTION = ChannelKind.TOOL_RESULT, ChannelKind.TOOL_DESCRIPTION

each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


def ruled(action: str = "redact", *, mode: str = "enforce", texts: str = "moderate", media: str = "pass") -> Policy:
    request = f"request: {{texts: {texts}, media: {media}}}\n"
    rules = f"rules:\n  - {{entities: [ALL], action: {action}}}\n"
    return parse(f"version: 1\nname: t\nmode: {mode}\nclassifier: false\n{request}{rules}", "t.yaml", None)


REDACTING = ruled()
DETECTORS = build(REDACTING)
FINDINGS = Findings(REDACTING, DETECTORS)
BARE = [each for each in PLANTED if any(span.end == len(each.value) for span in FINDINGS.of(USER, each.value))]
"""Values that are found without their sentence."""


def run(client: Client, prepared: Prepared, policy: Policy = REDACTING, findings: Findings = FINDINGS) -> Prepared:
    """The request as it goes upstream."""
    exchange = Exchange(policy, DETECTORS, prepared.facts, b"k" * 16, findings=findings)
    fields = [] if prepared.fields is None else prepared.fields
    file = prepared.file is not None
    moderate(Unmoderated(prepared.document, fields, {}, client.parameters, {}, file=file), client.dialect, exchange)
    return prepared


def asked(client: Client, talk: Conversation) -> Prepared:
    return client.prepared(client.request(talk, streamed=True), client.fields(talk))


def sent(prepared: Prepared) -> bytes:
    return dumps([prepared.document, [list(each) for each in prepared.fields or ()]])


def told(value: bytes, planted: Planted) -> bool:
    """Whether a value is in a body, in any spelling."""
    return any(each in value for each in spellings(planted.value))


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where strings stand."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, (dict, list)):
        for step, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, step))


def put(value: Any, path: Path, new: object) -> Any:
    """A copy with ``new`` at ``path``."""
    copied = copy.deepcopy(value)
    holder = copied
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = new
    return copied


def test_there_is_a_client_for_every_dialect() -> None:
    assert {client.dialect.name for client in CLIENTS} == {dialect.name for dialect in dialects()}
    assert len({planted.entity for planted in BARE}) > 20


# --- Whose texts they are ----------------------------------------------------------------------------------------


def at(place: int) -> str:
    return carried(BARE[place])


FAKED = {"role": "user", "type": "message", "content": at(6), "name": "x", "parts": [{"text": at(6)}]}
MARKED = Conversation(
    system=at(0),
    tool={"name": "send", "description": at(1), "parameters": {"properties": {"note": {"default": at(1)}}}},
    turns=[
        Turn(at(2), at(3), at(4), {"note": at(5), BARE[5].value: 1}, FAKED),
        Turn(at(2), at(3), at(4), {"note": [at(5)]}, json.dumps([FAKED])),
        Turn(at(2), at(3), at(4), {}, at(6)),
        Turn(at(2)),
    ],
    identity="nobody",
    entries={},
    foreign=(),
)
KINDS = (SYSTEM, DESCRIPTION, USER, ASSISTANT, ASSISTANT, ASSISTANT, RESULT)
FLAT = {"ollama-generate", "transcription"}


@each_client
def test_each_text_has_the_kind_of_where_it_stands(client: Client) -> None:
    """A tool's result stays one, whatever it says of itself."""
    inbound: Inbound = client.dialect.inbound  # type: ignore[attr-defined]
    prepared = asked(client, MARKED)
    texts = [*inbound.read(prepared.document).texts, *inbound.read_fields(prepared.fields or ()).texts]
    for place, kind in enumerate(KINDS):
        value = BARE[place].value
        kinds = {text.kind for text in texts if value in text.text or json.dumps(value)[1:-1] in text.text}
        if client.channels == ("answer",) or client.name in FLAT:
            assert kinds <= {USER, SYSTEM} if place == 0 else kinds <= {USER}
            assert kinds or (client.name == "transcription" and place != 2)
        else:
            assert kinds == {kind}


def holds(place: Path, text: Path) -> bool:
    return place[: len(text)] == text


@each_client
@pytest.mark.parametrize("seed", range(4))
def test_every_string_is_a_text_or_structure(client: Client, seed: int) -> None:
    inbound: Inbound = client.dialect.inbound  # type: ignore[attr-defined]
    document = asked(client, conversation(seed)).document
    contents = inbound.read(document)
    words = {word for _, word in contents.words}
    for place in places(document):
        value: Any = document
        for step in place:
            value = value[step]
        texts = [text for text in contents.texts if holds(place, text.path)]
        assert len(texts) <= 1
        assert texts or value in words or value in ("", SIGNATURE)
        assert all(isinstance(step, int) or step in words or texts for step in place)


# --- What gets past ----------------------------------------------------------------------------------------------


SMALL = Conversation(
    system="You help.",
    tool={"name": "send", "description": "It sends.", "parameters": {"type": "object", "title": "Letter"}},
    turns=[Turn("Do it.", "I shall.", "Now.", {"to": "her"}, {"done": "yes"}), Turn("Thanks.")],
    identity="somebody there",
    entries={},
    foreign=(),
)


def spoilt(document: Any, path: Path, planted: Planted) -> Iterator[Any]:
    """The document with a value at a place: alone, in its sentence, and, if an object is there, beside and as a key."""
    yield put(document, path, carried(planted))
    if planted in BARE:
        yield put(document, path, planted.value)
    holder: Any = document
    for step in path[:-1]:
        holder = holder[step]
    if isinstance(holder, dict):
        yield put(document, (*path[:-1], f"x_{len(path)}"), [{"y": carried(planted)}, carried(planted)])
        if planted in BARE:
            yield put(document, (*path[:-1], planted.value), 1)
            yield put(document, (*path[:-1], "x_number"), 4111111111111111)


@each_client
def test_no_place_of_a_document_lets_a_value_pass(client: Client) -> None:
    number = Planted("CREDIT_CARD", "4111111111111111")
    document = client.request(SMALL, streamed=True)
    assert document or client.name == "transcription"
    passed = 0
    for count, path in enumerate(places(document)):
        for planted in (BARE[count % len(BARE)], PLANTED[count % len(PLANTED)]):
            for changed in spoilt(document, path, planted):
                try:
                    out = sent(run(client, client.prepared(changed)))
                except Refused:
                    continue
                assert not told(out, planted)
                assert not told(out, number)
                passed += 1
    assert passed >= count if document else True


@each_client
@pytest.mark.parametrize("planted", PLANTED[::7], ids=lambda planted: planted.entity)
def test_no_value_passes_in_a_conversation(client: Client, planted: Planted) -> None:
    talk = Conversation(
        system=carried(planted),
        tool={"name": "send", "description": carried(planted), "parameters": {"properties": {"a": carried(planted)}}},
        turns=[Turn(carried(planted), carried(planted), carried(planted), {"n": carried(planted)}, carried(planted))]
        * 2,
        identity=carried(planted),
        entries={},
        foreign=(),
    )
    out = sent(run(client, asked(client, talk)))
    assert not told(out, planted)
    assert f"[{planted.entity}]".encode() in out


FIELDS = ("prompt", "hotwords", "keywords", "language", "known_speaker_names[]", "model", "temperature", "to_language")


@pytest.mark.parametrize("name", [*FIELDS, "known_speaker_references[]", "chunking_strategy[type]", "seed"])
def test_no_field_of_a_form_lets_a_value_pass(name: str) -> None:
    (client,) = (each for each in CLIENTS if each.name == "transcription")
    for planted in BARE:
        for value in (planted.value, carried(planted)):
            prepared = client.prepared({}, [("model", "m"), (name, value)][name == "model" :])
            try:
                run(client, prepared)
            except Refused:
                continue
            assert not told(sent(prepared), planted)


@each_client
@pytest.mark.parametrize("seed", range(8))
def test_a_request_without_values_goes_as_it_came(client: Client, seed: int) -> None:
    prepared = asked(client, harmless(conversation(seed)))
    before = sent(prepared)
    assert sent(run(client, prepared)) == before
    assert sent(run(client, prepared, ruled("block"))) == before


@each_client
def test_what_observes_alters_nothing(client: Client) -> None:
    talk = conversation(5)
    for policy in (ruled(mode="shadow"), ruled("flag"), ruled(texts="read"), ruled(texts="ignore")):
        prepared = asked(client, talk)
        before = sent(prepared)
        assert any(told(before, planted) for planted in talk.planted)
        assert sent(run(client, prepared, policy)) == before


@each_client
def test_a_block_is_the_requests_end(client: Client) -> None:
    with pytest.raises(Refused) as refused:
        run(client, asked(client, conversation(5)), ruled("block"))
    assert (refused.value.status, refused.value.kind) == (400, ErrorKind.BLOCKED)


KEY = "AKIAIOSFODNN7EXAMPLE"


@pytest.mark.parametrize("unwritable", [{"model": KEY}, {"max_tokens": 4111111111111111}, {"a": {"id": KEY}}, {KEY: 1}])
def test_what_cannot_be_rewritten_is_refused(unwritable: dict[str, Any]) -> None:
    document = {"model": "m", "messages": [], **unwritable}
    with pytest.raises(Refused, match="holds a value") as refused:
        run(CLIENTS[0], CLIENTS[0].prepared(document))
    assert (refused.value.status, refused.value.kind) == (400, ErrorKind.BAD_REQUEST)
    with pytest.raises(Refused) as refused:
        run(CLIENTS[0], CLIENTS[0].prepared(document), ruled("block"))
    assert refused.value.kind is ErrorKind.BLOCKED


IDS = (
    "call_abc123DEF456ghi789JKL012",
    "toolu_01A09q90qw90lq917835lq9",
    "chatcmpl-tool-6f1ed002ab5595859014ebf0951522d9",
    "fc_68af4030baa48193b0b43b4c2a176a1a0e6967589f081e78",
    "02519470-9592-2b6a-3639-1d878a30e7f7",  # read as a telephone number it would be one
    "call_03280838-1093-9b14-b0a0-863314f98bbc",
    "9",
)


@pytest.mark.parametrize("identity", IDS)
def test_ids_pass(identity: str) -> None:
    result = {"role": "tool", "tool_call_id": identity, "content": "x"}
    prepared = CLIENTS[0].prepared({"model": "m", "messages": [result]})
    assert run(CLIENTS[0], prepared).document["messages"] == [result]


# --- Media -------------------------------------------------------------------------------------------------------

PNG = "iVBORw0KGgo" + "A" * 400
URI = f"data:image/png;base64,{PNG}"


def _said(part: Any) -> Any:
    return {"model": "m", "messages": [{"role": "user", "content": [part]}]}


PICTURES: dict[str, Sequence[Any]] = {
    "chat": [
        _said({"type": "image_url", "image_url": {"url": URI}}),
        _said({"type": "image_url", "image_url": {"url": "gs://pictures/a.png"}}),
        _said({"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}),
        _said({"type": "file", "file": {"file_data": URI, "filename": "a.png"}}),
    ],
    "completions": [{"model": "m", "prompt": [1, 2, 3]}, {"model": "m", "prompt": [[1, 2], [3]]}],
    "llamacpp": [{"prompt": [1, "two"]}, {"prompt": {"prompt_string": "x", "multimodal_data": [PNG]}}],
    "sglang": [{"input_ids": [1, 2]}, {"text": "x", "image_data": [PNG]}],
    "responses": [
        {"model": "m", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": URI}]}]},
        {"model": "m", "input": [{"role": "user", "content": [{"type": "input_file", "file_data": URI}]}]},
    ],
    "anthropic": [_said({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}})],
    "gemini": [
        {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}]},
        {"contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": PNG}}]}]},
        {"contents": [{"parts": [{"fileData": {"mimeType": "image/png", "fileUri": "gs://pictures/a.png"}}]}]},
    ],
    "interactions": [{"model": "m", "input": [{"type": "image", "mime_type": "image/png", "data": PNG}]}],
    "ollama-chat": [{"model": "m", "messages": [{"role": "user", "content": "x", "images": [PNG]}]}],
    "ollama-generate": [{"model": "m", "prompt": "x", "context": [1, 2]}],
    "converse": [{"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": PNG}}}]}]}],
    "bedrock-claude": [_said({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}})],
    "cohere": [_said({"type": "image_url", "image_url": {"url": URI}})],
    "mistral-conversations": [
        {"model": "m", "inputs": [{"role": "user", "content": [{"type": "image_url", "image_url": URI}]}]},
        {"model": "m", "inputs": [{"role": "user", "content": [{"type": "document_url", "document_url": URI}]}]},
    ],
    "transcription": [{}],
}
PICTURED = [(client, each) for client in CLIENTS for each in PICTURES.get(client.name, ())]


@pytest.mark.parametrize(("client", "document"), PICTURED, ids=lambda value: getattr(value, "name", ""))
def test_media_pass_or_are_refused(client: Client, document: Any) -> None:
    fields = [("model", "m")] if client.name == "transcription" else []
    prepared = client.prepared(document, fields)
    before = sent(prepared)
    assert sent(run(client, prepared)) == before
    for policy in (ruled(media="refuse"), ruled(media="refuse", texts="ignore")):
        with pytest.raises(Refused) as refused:
            run(client, prepared, policy)
        assert (refused.value.status, refused.value.kind) == (400, ErrorKind.UNSUPPORTED)


MAIL = "ann.lee@example.com"


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("https://pictures.example/a.png", "https://pictures.example/a.png"),
        (f"https://pictures.example/{MAIL}.png", None),
        (f"x:{MAIL}", "x:[EMAIL_ADDRESS]"),
        (f"data:text/plain,{MAIL}", "data:text/plain,[EMAIL_ADDRESS]"),
        (f"gs://pictures/{MAIL}", "gs://pictures/[EMAIL_ADDRESS]"),
    ],
)
def test_what_stands_for_media_is_read_where_it_can_be(url: str, written: str | None) -> None:
    document = _said({"type": "image_url", "image_url": {"url": url}})
    out = run(CLIENTS[0], CLIENTS[0].prepared(document)).document["messages"][0]["content"][0]["image_url"]["url"]
    assert MAIL not in out
    assert out == written or written is None


def test_a_document_of_words_is_no_media() -> None:
    (client,) = (each for each in CLIENTS if each.name == "anthropic")
    words = "so it goes on and on " * 20 + "with AKIAIOSFODNN7EXAMPLE in it"
    document = _said({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": words}})
    out = sent(run(client, client.prepared(document), ruled(media="refuse")))
    assert b"with [SECRET_API_KEY] in it" in out


def test_redacted_thinking_is_no_media() -> None:
    (client,) = (each for each in CLIENTS if each.name == "anthropic")
    content = [{"type": "redacted_thinking", "data": SIGNATURE * 3}]
    document = {"model": "m", "max_tokens": 9, "messages": [{"role": "assistant", "content": content}]}
    prepared = client.prepared(document)
    assert run(client, prepared, ruled(media="refuse")).document["messages"][0]["content"] == content


# --- JSON --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["user", "system", "tool"])
def test_a_text_that_is_a_json_document_is_read_as_one(kind: str) -> None:
    content = '{"to": "ann.lee\\u0040example.com", "card": 4111111111111111, "ann\\u002elee@example.com": 1, "n": 1.50}'
    prepared = CLIENTS[0].prepared({"model": "m", "messages": [{"role": kind, "content": content}]})
    assert run(CLIENTS[0], prepared).document["messages"][0]["content"] == (
        '{"to": "[EMAIL_ADDRESS]", "card": "[CREDIT_CARD]", "[EMAIL_ADDRESS]": 1, "n": 1.50}'
    )


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"a": "words"}, "a: 'words' is neither"),
        ({"a": "user words"}, "a: 'user words' is neither"),
        ({"a=b": "json"}, "a=b: 'json' is no kind of text"),
        ({"a=b": "user json"}, "a=b: 'user json' is no kind of text"),
    ],
)
def test_rows_that_cannot_be_read_are_named(row: dict[str, str], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Inbound(row, CHECKS)


# --- What is remembered ------------------------------------------------------------------------------------------


class Counting:
    """A detector that counts the texts it is given."""

    name = "counting"
    entities = frozenset({"SECRET"})

    def __init__(self) -> None:
        self.calls = 0

    def open(self, scope: Scope) -> Session:
        return self

    def advance(self, text: str, final: bool) -> tuple[list[Span], int]:
        self.calls += 1
        return [], len(text)


@each_client
def test_a_conversation_that_comes_again_is_not_read_again(client: Client) -> None:
    detector = Counting()
    detectors: Sequence[Detector] = (detector,)
    findings = Findings(REDACTING, detectors)
    talk = conversation(2)
    run(client, asked(client, talk), findings=findings)
    first = detector.calls
    assert first > 0
    run(client, asked(client, talk), findings=findings)
    assert detector.calls == first


# --- Through the gateway -----------------------------------------------------------------------------------------


def path_of(client: Client) -> str:
    action = client.action(streamed=True)
    route = next(route for route in client.dialect.routes if route.action == action)
    return route.path.format(**{name: quote(value, safe="") for name, value in client.parameters.items()})


async def post(url: str, client: Client, talk: Conversation, **options: Any) -> tuple[int, bytes, str]:
    document, fields = client.request(talk, streamed=True), client.fields(talk)
    data: Any = json.dumps(document)
    headers = {"Content-Type": "application/json", **options.pop("headers", {})}
    if fields:
        data = FormData(fields)
        data.add_field("file", b"RIFF", filename="a.wav", content_type="audio/wav")
        del headers["Content-Type"]
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=data, headers=headers, **options) as response,
    ):
        return response.status, await response.read(), response.headers.get("x-should-retry", "")


@each_client
async def test_a_blocked_request_reaches_no_upstream(
    upstream: Upstream, make_proxy: ProxyFactory, client: Client
) -> None:
    proxy = await make_proxy(ruled("block"), DETECTORS)
    talk = conversation(5)
    status, body, retry = await post(proxy.url + path_of(client), client, talk)
    assert body == client.dialect.error(ErrorKind.BLOCKED, "The request was blocked by policy.")
    assert (status, upstream.paths, upstream.bodies) == (400, [], [])
    assert retry in ("", "false")
    exposed = proxy.gateway.metrics.expose()
    assert not any(told(body + exposed, planted) for planted in talk.planted)


async def test_headers_that_hold_a_value_are_left_out(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    seen: dict[str, str] = {}
    answer = streaming([chunk({"content": "so"}), finish(), DONE])

    async def handler(request: Any) -> Any:
        seen.update({name.lower(): value for name, value in request.headers.items()})
        return await answer(request)

    upstream.handler = handler
    proxy = await make_proxy(REDACTING, DETECTORS)
    headers = {
        "Authorization": "Bearer sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "User-Agent": f"reader ({MAIL})",
        "X-Request-Id": "4111-1111-1111-1111",
        "OpenAI-Project": "proj_1",
    }
    status, _, _ = await post(proxy.url + path_of(CLIENTS[0]), CLIENTS[0], SMALL, headers=headers)
    assert status == 200
    assert seen["authorization"] == headers["Authorization"]
    assert seen["openai-project"] == "proj_1"
    assert not any(MAIL in value or "4111" in value for value in seen.values())


@pytest.mark.parametrize(
    "path",
    [
        f"/v1beta/models/{MAIL}:generateContent",
        "/v1beta/models/4111111111111111:generateContent",
        f"/v1beta/models/m:generateContent?key={MAIL}",
        "/v1beta/models/m:generateContent?key=ann.lee%40example.com",
        "/v1beta/models/ann.lee%40example.com:streamGenerateContent?alt=sse",
        f"/v1beta/models/{MAIL}",
        f"/v1beta/models?pageToken={MAIL}",
        f"/model/{MAIL}/converse",
        f"/openai/deployments/{MAIL}/chat/completions",
    ],
)
async def test_a_url_that_holds_a_value_is_refused(upstream: Upstream, make_proxy: ProxyFactory, path: str) -> None:
    proxy = await make_proxy(REDACTING, DETECTORS)
    document: dict[str, Any] = {"contents": [], "messages": []}
    method = "GET" if path.startswith("/v1beta/models") and ":" not in path else "POST"
    body = {"json": document} if method == "POST" else {}
    async with aiohttp.ClientSession() as session, session.request(method, proxy.url + path, **body) as response:  # type: ignore[arg-type]
        text = await response.text()
    assert response.status == 400
    assert upstream.paths == []
    assert MAIL not in text


async def test_the_facts_of_a_request_are_those_that_the_model_has() -> None:
    talk = conversation(5)
    prepared = asked(CLIENTS[0], talk)
    exchange = Exchange(REDACTING, DETECTORS, prepared.facts, b"k" * 16, findings=FINDINGS)
    CLIENTS[0].dialect.read_request(prepared.document, [], exchange)
    exchange.lane(0)
    facts: RequestFacts = exchange._response.facts
    assert not any(planted.value in text for text in (*facts.system_prompts, facts.user) for planted in talk.planted)
