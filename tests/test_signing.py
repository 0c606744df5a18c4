"""Requests to Amazon Bedrock through the real gateway: whose signature goes upstream, and that it is valid there."""

import asyncio
import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import anthropic
import pytest
from aiohttp import web
from bedrock_kit import STREAM, chunks, client, frames, see_body, see_stream, told
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from conftest import ProxyFactory, Upstream
from yarl import URL

from cotguard.dialects.contract import Refused
from cotguard.http.signing import Signer, Unsigned

MODEL = "us.anthropic.claude-sonnet-4-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.meta.llama3-3-70b-instruct-v1:0"
ASKED = [{"role": "user", "content": [{"text": "hello"}]}]
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "It is ann.lee@"}}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "example.com."}}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    ("messageStop", {"stopReason": "end_turn"}),
    ("metadata", {"usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}, "metrics": {"latencyMs": 1}}),
]
OWN = {"AWS_ACCESS_KEY_ID": "AKIDPROXY", "AWS_SECRET_ACCESS_KEY": "proxy-secret", "AWS_SESSION_TOKEN": "proxy-session"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials but those that a test gives."""
    for name in (*OWN, "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy's own."""
    for name, value in OWN.items():
        monkeypatch.setenv(name, value)


def verify(method: str, url: str, headers: Mapping[str, str], data: bytes) -> None:
    """Whether a request carries the proxy's signature over what arrived: computed anew."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=AKIDPROXY/\d{8}/eu-west-1/bedrock/aws4_request, "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
        headers["authorization"],
    )
    assert found
    covered = found[1].split(";")
    assert {"host", "content-type", "x-amz-date", "x-amz-security-token"} <= set(covered)
    request = AWSRequest(method, url, {name: headers[name] for name in covered if name != "host"}, data)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials("AKIDPROXY", "proxy-secret", "proxy-session"), "bedrock", "eu-west-1")
    string = auth.string_to_sign(request, auth.canonical_request(request))
    assert auth.signature(string, request) == found[2]


class Answer:
    """An upstream that verifies what it gets, and answers."""

    def __init__(self, data: bytes, content_type: str = "application/json", status: int = 200) -> None:
        self._response = (data, content_type, status)
        self.headers: dict[str, str] = {}
        self.raw_paths: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        self.raw_paths.append(request.rel_url.raw_path)
        assert len(self.headers) == len(request.headers)
        if self.headers.get("authorization", "").startswith("AWS4"):
            url = f"http://{request.headers['Host']}{request.rel_url.raw_path_qs}"
            verify(request.method, url, self.headers, await request.read())
        data, content_type, status = self._response
        return web.Response(
            body=data, status=status, headers={"Content-Type": content_type, "x-amzn-RequestId": "r1", "x-amz-odd": "o"}
        )


async def ask(call: Callable[[], Any]) -> Any:
    """What the official client returns: it blocks."""
    return await asyncio.to_thread(call)


async def test_a_stream_of_converse(upstream: Upstream, make_proxy: ProxyFactory, credentials: None) -> None:
    upstream.handler = answer = Answer(frames(EVENTS), STREAM)
    proxy = await make_proxy()
    sdk = client(proxy.url)
    found = await ask(lambda: see_stream(sdk.converse_stream(modelId=MODEL, messages=ASKED)["stream"]))
    assert (found.text, found.stop, found.usage) == (
        "It is [EMAIL_ADDRESS].",
        "end_turn",
        {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3},
    )
    assert "AKIDCLIENT" not in str(answer.headers)
    assert answer.headers["x-amz-security-token"] == "proxy-session"
    assert answer.raw_paths == ["/model/us.anthropic.claude-sonnet-4-v1%3A0/converse-stream"]
    assert proxy.accounts.requests == {("200", "ok"): 1}


async def test_an_answer_of_converse(upstream: Upstream, make_proxy: ProxyFactory, credentials: None) -> None:
    content = [{"text": "It is ann.lee@example.com."}]
    document = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "end_turn"}
    upstream.handler = Answer(json.dumps(document).encode())
    sdk = client((await make_proxy()).url)
    response = await ask(lambda: sdk.converse(modelId=MODEL, messages=ASKED))
    assert see_body(response).text == "It is [EMAIL_ADDRESS]."
    assert response["ResponseMetadata"]["RequestId"] == "r1"
    assert "x-amz-odd" not in response["ResponseMetadata"]["HTTPHeaders"]


async def test_invocations_by_an_arn(upstream: Upstream, make_proxy: ProxyFactory, credentials: None) -> None:
    data = {"generation": "It is ann.lee@example.com.", "prompt_token_count": 1, "stop_reason": "stop"}
    upstream.handler = answer = Answer(chunks([data]), STREAM)
    sdk = client((await make_proxy()).url)

    def streamed() -> str:
        events = sdk.invoke_model_with_response_stream(modelId=ARN, body=b'{"prompt": "x"}')["body"]
        return "".join(json.loads(event["chunk"]["bytes"])["generation"] for event in events)

    def whole() -> str:
        response = sdk.invoke_model(modelId=ARN, body=b'{"prompt": "x"}', guardrailIdentifier="g1", trace="ENABLED")
        return str(json.loads(response["body"].read())["generation"])

    assert await ask(streamed) == "It is [EMAIL_ADDRESS]."
    upstream.handler = answer = Answer(json.dumps(data).encode())
    assert await ask(whole) == "It is [EMAIL_ADDRESS]."
    assert "inference-profile%2Fus.meta" in answer.raw_paths[0]
    assert answer.headers["x-amzn-bedrock-guardrailidentifier"] == "g1"
    assert "x-amzn-bedrock-guardrailidentifier" in answer.headers["authorization"]
    assert "x-amzn-bedrock-trace" not in answer.headers


async def test_the_official_client_of_claude(upstream: Upstream, make_proxy: ProxyFactory, credentials: None) -> None:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in ("It is ann.lee@", "example.com.")
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    upstream.handler = answer = Answer(chunks(events), STREAM)
    sdk = anthropic.AsyncAnthropicBedrock(
        aws_access_key="AKIDCLIENT",
        aws_secret_key="client-secret",
        aws_region="us-east-1",
        base_url=(await make_proxy()).url,
        max_retries=0,
    )
    async with sdk, sdk.messages.stream(model=MODEL, max_tokens=9, messages=[{"role": "user", "content": "x"}]) as said:
        message = await said.get_final_message()
    assert [block.text for block in message.content if block.type == "text"] == ["It is [EMAIL_ADDRESS]."]
    assert answer.raw_paths == ["/model/us.anthropic.claude-sonnet-4-v1%3A0/invoke-with-response-stream"]


async def test_tokens_are_counted(upstream: Upstream, make_proxy: ProxyFactory, credentials: None) -> None:
    upstream.handler = answer = Answer(b'{"inputTokens": 5, "words": "x"}')
    sdk = client((await make_proxy()).url)
    response = await ask(lambda: sdk.count_tokens(modelId=MODEL, input={"converse": {"messages": ASKED}}))
    assert (response["inputTokens"], answer.headers["authorization"][:4]) == (5, "AWS4")


async def test_an_upstreams_error(upstream: Upstream, make_proxy: ProxyFactory, credentials: None) -> None:
    upstream.handler = Answer(b'{"message": "secret words"}', status=429)
    sdk = client((await make_proxy()).url)
    with pytest.raises(ClientError) as raised:
        await ask(lambda: sdk.converse(modelId=MODEL, messages=ASKED))
    assert told(raised.value) == ("ThrottlingException", "The upstream answered with status 429.")


@pytest.mark.parametrize("operation", ["converse", "count_tokens"])
async def test_without_credentials_of_its_own_the_proxy_says_what_to_do(
    upstream: Upstream, make_proxy: ProxyFactory, operation: str
) -> None:
    sdk = client((await make_proxy()).url)
    asked: dict[str, Any] = {"messages": ASKED} if operation == "converse" else {"input": {"converse": {}}}
    with pytest.raises(ClientError) as raised:
        await ask(lambda: getattr(sdk, operation)(modelId=MODEL, **asked))
    code, message = told(raised.value)
    assert code == "ValidationException"
    assert "AWS_ACCESS_KEY_ID" in message
    assert "AWS_BEARER_TOKEN_BEDROCK" in message
    assert upstream.bodies == []


async def test_credentials_that_cannot_be_had(
    upstream: Upstream, make_proxy: ProxyFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = client((await make_proxy()).url)
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(ClientError, match="cannot get its AWS credentials"):
        await ask(lambda: sdk.converse(modelId=MODEL, messages=ASKED))
    assert upstream.bodies == []


async def test_a_bearer_token_goes_upstream_as_it_came(
    upstream: Upstream, make_proxy: ProxyFactory, credentials: None
) -> None:
    def exchange_signature(request: AWSRequest, **_: object) -> None:
        request.headers["Authorization"] = "Bearer bedrock-api-key-x"

    upstream.handler = answer = Answer(frames(EVENTS), STREAM)
    sdk = client((await make_proxy()).url)
    sdk.meta.events.register("before-send.*.*", exchange_signature)  # the client itself sends tokens over TLS only
    found = await ask(lambda: see_stream(sdk.converse_stream(modelId=MODEL, messages=ASKED)["stream"]))
    assert found.text == "It is [EMAIL_ADDRESS]."
    assert answer.headers["authorization"] == "Bearer bedrock-api-key-x"
    assert not [name for name in answer.headers if name.startswith("x-amz-")]


HOST = "bedrock-runtime.us-west-2.amazonaws.com"
PATH = "/model/m/converse"
SIGNATURE = (
    "AWS4-HMAC-SHA256 Credential=AKIDCLIENT/20260101/us-west-2/bedrock/aws4_request, "
    "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=" + "0" * 64
)
SENT = {
    "host": HOST,
    "content-type": "application/json",
    "authorization": SIGNATURE,
    "x-amz-date": "20260101T000000Z",
    "x-amz-security-token": "client-session",
    "x-amz-odd": "odd",
}


def headers(
    sent: Mapping[str, str], path: str = PATH, url: str = f"https://{HOST}{PATH}", same: bool = True
) -> dict[str, str]:
    ours = {"Content-Type": "application/json", "Authorization": sent.get("authorization", ""), "x-api-key": "k"}
    request = Unsigned("bedrock", "POST", URL(url, encoded=True), ours, b"{}", same)
    return {name.lower(): value for name, value in Signer().headers_of(request, sent, path).items()}


def test_a_signature_over_what_does_not_change_is_kept() -> None:
    found = headers(SENT)
    assert found["authorization"] == SIGNATURE
    assert (found["x-amz-date"], found["x-amz-security-token"]) == ("20260101T000000Z", "client-session")
    assert "x-amz-odd" not in found


@pytest.mark.parametrize(
    "changed",
    [
        {"same": False},
        {"path": "/model/n/converse"},
        {"path": PATH + "?a=b"},
        {"url": f"https://bedrock-runtime.us-east-1.amazonaws.com{PATH}"},
        {"url": f"https://{HOST}:8443{PATH}"},
        {"sent": {**SENT, "content-type": "application/json; charset=utf-8"}},
        {"sent": {**SENT, "authorization": SIGNATURE.replace("host;", "host;x-amz-odd;")}},
        {"sent": {**SENT, "authorization": "AWS4-HMAC-SHA256 words"}},
        {"sent": {name: value for name, value in SENT.items() if name != "authorization"}},
    ],
)
def test_a_signature_over_anything_else_is_replaced(credentials: None, changed: dict[str, Any]) -> None:
    found = headers(**{"sent": SENT, **changed})
    assert "Credential=AKIDPROXY/" in found["authorization"]
    assert found["x-amz-security-token"] == "proxy-session"
    assert "AKIDCLIENT" not in str(found)
    assert "x-api-key" not in found


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("bedrock-runtime.us-west-2.amazonaws.com", "us-west-2"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("vpce-0a1b-2c3d.bedrock-runtime.ap-southeast-2.vpce.amazonaws.com", "ap-southeast-2"),
        ("bedrock.internal", "eu-west-1"),
    ],
)
def test_the_region_is_the_upstreams(credentials: None, host: str, region: str) -> None:
    assert f"/{region}/bedrock/" in headers(SENT, url=f"https://{host}{PATH}")["authorization"]


def test_without_a_region_nothing_is_signed(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(Refused, match="AWS_REGION"):
        headers(SENT, url="https://bedrock.internal" + PATH)


def test_without_botocore_nothing_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    with pytest.raises(Refused, match=re.escape("cotguard[bedrock]")):
        headers(SENT, same=False)


async def test_what_cannot_be_moderated_is_refused(
    upstream: Upstream, make_proxy: ProxyFactory, credentials: None
) -> None:
    sdk = client((await make_proxy()).url)
    calls: list[Callable[[], Any]] = [
        lambda: sdk.start_async_invoke(
            modelId=MODEL, modelInput={}, outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://b/k"}}
        ),
        sdk.list_async_invokes,
        lambda: sdk.apply_guardrail(guardrailIdentifier="g1", guardrailVersion="1", source="OUTPUT", content=[]),
        lambda: sdk.invoke_model(modelId="cohere.command-r-v1:0", body="{}"),
        lambda: sdk.converse(modelId=MODEL, messages=ASKED, guardrailConfig={"trace": "enabled"}),
    ]
    for call in calls:
        with pytest.raises(ClientError) as raised:
            await ask(call)
        code, message = told(raised.value)
        assert code == "ValidationException"
        assert message.endswith(".")
    assert upstream.bodies == []
