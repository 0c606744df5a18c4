"""Callers at the gateway, over loopback sockets: who may what, what is told, what goes upstream, what is logged."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from aiohttp import web
from callers_kit import RedisServer, callers_file, issuing, make_key
from conftest import Handler, Proxy, ProxyFactory, Upstream
from google import genai
from scripted import CHAT_PATH, DONE, chunk, finish, streaming, texts
from test_callers_hidden import ANTHROPIC, sse
from test_serve import serving, until

from cotguard.callers.keys import KeyStore
from cotguard.callers.limits import LocalLimiter
from cotguard.callers.reception import Reception
from cotguard.config.settings import Settings
from cotguard.gateway.moderations import load_moderations
from cotguard.http.headers import request_headers
from cotguard.policy import PolicyError

ROLES: dict[str, object] = {
    "reader": {"models": ["m", "small-*"], "reasoning": "hidden"},
    "chatter": {"routes": ["/v1/chat/*", "/v1/models"], "dialects": ["chat_completions"]},
    "single": {"concurrency": 1},
    "slow": {"requests_per_minute": 2},
    "poor": {"tokens_per_day": 30},
}
CARDS = "version: 1\nname: cards\nclassifier: false\nrules: [{entities: [CREDIT_CARD], action: redact}]\n"
STREAM = [chunk({"reasoning_content": "I know ann.lee@example.com well."}), chunk({"content": "ann.lee@example.com"})]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
MakeProxy = Callable[..., Awaitable[Proxy]]


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return str(tmp_path / "keys.db")


@pytest.fixture
def roles(tmp_path: Path) -> str:
    """The callers file."""
    policy = tmp_path / "cards.yaml"
    policy.write_text(CARDS, encoding="utf-8")
    return callers_file(tmp_path, ROLES | {"admin": {"policy": str(policy)}})


@pytest.fixture
def guarded(make_proxy: ProxyFactory, roles: str, keys: str) -> MakeProxy:
    """A gateway that asks for keys."""

    async def make(**settings: object) -> Proxy:
        make_key(keys, "reader")
        return await make_proxy(keys=keys, callers_file=roles, **settings)

    return make


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def ask(
    proxy: Proxy, headers: dict[str, str], path: str = CHAT_PATH, **body: object
) -> tuple[int, str, dict[str, str]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(proxy.url + path, json=CHAT | body, headers=headers) as response,
    ):
        return response.status, await response.text(), {name.lower(): v for name, v in response.headers.items()}


def recording(into: list[dict[str, str]], answer: Handler) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        into.append({name.lower(): value for name, value in request.headers.items()})
        return await answer(request)

    return handler


async def test_two_callers_see_different_things_from_the_same_upstream(
    upstream: Upstream, guarded: MakeProxy, keys: str
) -> None:
    upstream.handler = streaming([*STREAM, finish(), DONE])
    proxy = await guarded()
    reader, admin = make_key(keys, "reader")[1], make_key(keys, "admin")[1]
    _, body, _ = await ask(proxy, bearer(reader))
    assert texts(body) == {(0, "content"): "[EMAIL_ADDRESS]"}
    _, body, _ = await ask(proxy, bearer(admin))
    assert texts(body)[0, "reasoning_content"] == "I know ann.lee@example.com well."
    assert texts(body)[0, "content"] == "ann.lee@example.com"
    exposed = proxy.gateway.metrics.expose().decode()
    for role in ("reader", "admin"):
        assert f'cotguard_callers_admitted_total{{role="{role}"}} 1.0' in exposed


@pytest.mark.parametrize("header", ["Authorization", "x-api-key", "api-key", "X-Goog-Api-Key"])
@pytest.mark.parametrize("own", ["", "sk-upstream"])
async def test_a_callers_key_never_goes_upstream(
    upstream: Upstream, guarded: MakeProxy, keys: str, header: str, own: str
) -> None:
    sent: list[dict[str, str]] = []
    upstream.handler = recording(sent, streaming([*STREAM, finish(), DONE]))
    proxy = await guarded(upstream_key=own)
    key = make_key(keys, "admin")[1]
    value = f"bearer {key}" if header == "Authorization" else key
    others = {"x-api-key": "another", "api-key": "another", "OpenAI-Organization": "org", "X-Goog-User-Project": "p"}
    status, _, _ = await ask(proxy, {**others, header: value, "Authorization": value})
    assert status == 200
    assert key not in str(sent)
    assert "another" not in str(sent)
    assert not {"openai-organization", "x-goog-user-project", "x-api-key", "api-key", "x-goog-api-key"} & set(sent[0])
    assert sent[0].get("authorization", "") == (f"Bearer {own}" if own else "")


async def test_where_the_upstreams_credential_is_sent(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    sent: list[dict[str, str]] = []
    upstream.handler = recording(sent, lambda _: _answer_404())
    proxy = await make_proxy(upstream_key="sk-up")
    for path in ("/v1/messages", "/v1beta/models/m:generateContent", CHAT_PATH):
        await ask(proxy, {"x-api-key": "mine"}, path, contents=[])
    places = ("x-api-key", "x-goog-api-key", "authorization")
    assert [{name: each[name] for name in places if name in each} for each in sent] == [
        {"x-api-key": "sk-up"},
        {"x-goog-api-key": "sk-up"},
        {"authorization": "Bearer sk-up"},
    ]
    sent.clear()
    for header, expected in (("Authorization", "Bearer sk-up"), ("api-key", "sk-up")):
        proxy = await make_proxy(upstream_key="sk-up", upstream_key_header=header)
        await ask(proxy, {}, "/v1/messages")
        assert sent.pop()[header.lower()] == expected


async def _answer_404() -> web.StreamResponse:
    return web.json_response({}, status=404)


async def test_without_authentication_the_clients_credential_passes(
    upstream: Upstream, make_proxy: ProxyFactory
) -> None:
    sent: list[dict[str, str]] = []
    upstream.handler = recording(sent, streaming([*STREAM, finish(), DONE]))
    proxy = await make_proxy()
    await ask(proxy, bearer("sk-mine"))
    assert sent[0]["authorization"] == "Bearer sk-mine"


async def test_callers_without_authentication_are_told_apart_by_their_credentials() -> None:
    reception, replica = (Reception(None, "", LocalLimiter()) for _ in range(2))
    ann, bob = {"authorization": "Bearer sk-ann"}, {"x-api-key": "sk-bob"}
    callers = [await reception.caller(headers) for headers in (ann, bob, {}, ann)]
    assert callers[0] == callers[3]
    assert callers[2].id == "anonymous"
    assert len({caller.id for caller in callers}) == 3
    assert all(caller.id.startswith("credential:") and "sk-" not in caller.id for caller in callers[:2])
    assert (await replica.caller(ann)).id == callers[0].id
    signed = {"authorization": "AWS4-HMAC-SHA256 Credential=AKID/x, Signature=y"}
    assert (await reception.caller(signed)).id == "anonymous"  # nobody has checked it


async def test_headers_that_come_twice_go_upstream_once() -> None:
    sent = {"Authorization": "Bearer a", "authorization": "Bearer b", "Content-Type": "text/plain"}
    passed = request_headers(sent)
    assert [value for name, value in passed.items() if name.lower() == "authorization"] == ["Bearer b"]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "missing"),
        ({"Authorization": "Basic YTpi"}, "missing"),
        ({"Authorization": "Bearer sk-proj-abc"}, "unknown"),
        (bearer(f"cg_{'0' * 16}_{'A' * 43}"), "unknown"),
        (bearer("a.b.c"), "unknown"),  # no issuer is configured
        ({"x-api-key": "\xff"}, "unknown"),
    ],
)
async def test_who_is_not_known_is_refused(
    upstream: Upstream, guarded: MakeProxy, headers: dict[str, str], reason: str
) -> None:
    proxy = await guarded()
    status, body, told = await ask(proxy, headers)
    error = json.loads(body)["error"]
    assert (status, error["type"], error["code"]) == (401, "authentication_error", "unauthenticated")
    assert told["x-should-retry"] == "false"
    assert upstream.paths == []
    assert f'cotguard_callers_denied_total{{reason="{reason}"}} 1.0' in proxy.gateway.metrics.expose().decode()


async def test_unknown_revoked_and_expired_keys_are_answered_alike(guarded: MakeProxy, keys: str) -> None:
    proxy = await guarded()
    identifier, revoked = make_key(keys, "admin")
    with KeyStore(keys) as store:
        store.revoke(identifier)
    expired = make_key(keys, "admin", lifetime=0)[1]
    wrong = f"cg_{identifier}_{'A' * 43}"
    answers = {(await ask(proxy, bearer(key)))[:2] for key in (revoked, expired, wrong, f"cg_{'0' * 16}_{'A' * 43}")}
    assert len(answers) == 1
    exposed = proxy.gateway.metrics.expose().decode()
    for reason, count in (("revoked", 1), ("expired", 1), ("unknown", 2)):
        assert f'cotguard_callers_denied_total{{reason="{reason}"}} {count}.0' in exposed


@pytest.mark.parametrize(
    ("role", "path", "body", "status"),
    [
        ("chatter", CHAT_PATH, {}, 200),
        ("chatter", "//V1/chat//completions/", {}, 200),
        ("chatter", "/v1/messages", {}, 403),
        ("chatter", "/chat/completions", {}, 403),
        ("chatter", "/v1beta/models/m:generateContent", {"contents": []}, 403),
        ("reader", CHAT_PATH, {"model": "small-1"}, 200),
        ("reader", CHAT_PATH, {"model": "big"}, 403),
        ("reader", CHAT_PATH, {"model": ""}, 403),
        ("reader", CHAT_PATH, {"model": "m", "models": ["big"]}, 403),
        ("reader", "/openai/deployments/big/chat/completions", {"model": "m"}, 403),
        ("reader", "/openai/deployments/m/chat/completions", {"model": ""}, 200),
        ("reader", "/v1beta/models/big:generateContent", {"contents": [], "model": "m"}, 403),
        ("reader", "/v1/messages/count_tokens", {"model": "big"}, 403),
        ("nobody", CHAT_PATH, {}, 403),
    ],
)
async def test_scopes(
    upstream: Upstream,
    guarded: MakeProxy,
    keys: str,
    role: str,
    path: str,
    body: dict[str, object],
    status: int,
) -> None:
    upstream.handler = streaming([*STREAM, finish(), DONE])
    proxy = await guarded()
    answer = await ask(proxy, bearer(make_key(keys, role)[1]), path, **body)
    assert answer[0] == status
    assert bool(upstream.paths) is (status == 200)


async def test_a_keys_own_scope_narrows_its_role(upstream: Upstream, guarded: MakeProxy, keys: str) -> None:
    upstream.handler = streaming([*STREAM, finish(), DONE])
    proxy = await guarded()
    key = make_key(keys, "admin", models=["small-*"], reasoning="hidden")[1]
    assert (await ask(proxy, bearer(key)))[0] == 403
    _, body, _ = await ask(proxy, bearer(key), model="small-1")
    assert texts(body) == {(0, "content"): "ann.lee@example.com"}


async def test_requests_per_minute(upstream: Upstream, guarded: MakeProxy, keys: str) -> None:
    upstream.handler = streaming([*STREAM, finish(), DONE])
    proxy = await guarded()
    slow, other = make_key(keys, "slow")[1], make_key(keys, "slow")[1]
    answers = [await ask(proxy, bearer(slow)) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 429]
    _, body, told = answers[2]
    assert 50 <= int(told["retry-after"]) <= 60
    assert told["x-should-retry"] == "true"
    assert json.loads(body)["error"]["type"] == "rate_limit_error"
    assert (await ask(proxy, bearer(other)))[0] == 200
    assert 'cotguard_callers_denied_total{reason="requests"} 1.0' in proxy.gateway.metrics.expose().decode()


async def test_requests_under_way(upstream: Upstream, guarded: MakeProxy, keys: str) -> None:
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "one two "}))
        await go_on.wait()
        await response.write(finish() + DONE)
        return response

    upstream.handler = handler
    proxy = await guarded()
    key = bearer(make_key(keys, "single")[1])
    async with aiohttp.ClientSession() as session:
        first = await session.post(proxy.url + CHAT_PATH, json=CHAT, headers=key)
        status, _, told = await ask(proxy, key)
        assert (status, told["retry-after"]) == (429, "1")
        first.close()  # a client that leaves frees its place

        async def ended() -> bool:
            return bool(proxy.gateway.metrics.active._value.get() == 0)

        await until(ended)
        go_on.set()
        assert (await ask(proxy, key))[0] == 200
        assert (await ask(proxy, key))[0] == 200


async def test_tokens_per_day(upstream: Upstream, guarded: MakeProxy, keys: str) -> None:
    upstream.handler = streaming([chunk({"content": "word " * 10}), finish(), DONE])
    proxy = await guarded()
    key = bearer(make_key(keys, "poor")[1])
    assert (await ask(proxy, key))[0] == 200  # about 20 tokens sent, 13 received
    status, _, told = await ask(proxy, key)
    assert status == 429
    assert int(told["retry-after"]) > 60 or time.time() % 86_400 > 86_000
    assert told["x-should-retry"] == ("true" if int(told["retry-after"]) <= 60 else "false")


async def test_limits_that_are_shared(upstream: Upstream, guarded: MakeProxy, keys: str, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    await redis.start()
    try:
        upstream.handler = streaming([*STREAM, finish(), DONE])
        one, two = await guarded(limits_url=redis.url), await guarded(limits_url=redis.url)
        slow = bearer(make_key(keys, "slow")[1])
        assert [(await ask(proxy, slow))[0] for proxy in (one, two, one, two)] == [200, 200, 429, 429]
        await redis.stop()
        status, body, told = await ask(one, slow)
        assert (status, json.loads(body)["error"]["code"], told["retry-after"]) == (503, "overloaded", "5")
        assert (await ask(one, bearer(make_key(keys, "admin")[1])))[0] == 200  # without limits it does not matter
    finally:
        await redis.stop()


async def test_tokens_of_an_issuer(upstream: Upstream, make_proxy: ProxyFactory, tmp_path: Path) -> None:
    upstream.handler = streaming([*STREAM, finish(), DONE])
    async with issuing() as issuer:
        key = issuer.add("k", "EC")
        oidc: dict[str, object] = {"issuer": issuer.url, "audience": "cotguard", "roles": {"staff": "reader"}}
        proxy = await make_proxy(callers_file=callers_file(tmp_path, ROLES, oidc))
        _, body, _ = await ask(proxy, bearer(issuer.token("k", key, "ES256")))
        assert texts(body) == {(0, "content"): "[EMAIL_ADDRESS]"}
        assert (await ask(proxy, {"x-api-key": issuer.token("k", key, "ES256")}))[0] == 200
        for claims, status in (({"aud": "x"}, 401), ({"exp": 1}, 401), ({"roles": []}, 403)):
            assert (await ask(proxy, bearer(issuer.token("k", key, "ES256", **claims))))[0] == status


# --- As SDKs see it --------------------------------------------------------------------------------------------------


async def test_the_openai_sdk(upstream: Upstream, guarded: MakeProxy, keys: str) -> None:
    upstream.handler = streaming([*STREAM, finish(), DONE])
    proxy = await guarded()

    async def create(key: str, model: str = "m") -> str:
        async with openai.AsyncOpenAI(api_key=key, base_url=proxy.url + "/v1", max_retries=0) as sdk:
            stream = await sdk.chat.completions.create(model=model, messages=[], stream=True)
            return "".join([each.choices[0].delta.content or "" async for each in stream if each.choices])

    reader, slow = make_key(keys, "reader")[1], make_key(keys, "slow")[1]
    assert await create(reader) == "[EMAIL_ADDRESS]"
    with pytest.raises(openai.AuthenticationError):
        await create("sk-unknown")
    with pytest.raises(openai.PermissionDeniedError):
        await create(reader, "big")
    await create(slow)
    await create(slow)
    with pytest.raises(openai.RateLimitError) as raised:
        await create(slow)
    assert raised.value.code == "rate_limited"


async def test_the_anthropic_sdk(upstream: Upstream, guarded: MakeProxy, keys: str) -> None:
    upstream.handler = streaming([sse(*ANTHROPIC, named=True)])
    proxy = await guarded()

    async def create(model: str = "m", **credential: str) -> list[str]:
        async with (
            anthropic.AsyncAnthropic(base_url=proxy.url, max_retries=0, **credential) as sdk,  # type: ignore[arg-type]
            sdk.messages.stream(model=model, max_tokens=9, messages=[]) as stream,
        ):
            message = await stream.get_final_message()
        return [block.type for block in message.content if getattr(block, block.type)]

    reader, slow = make_key(keys, "reader")[1], make_key(keys, "slow")[1]
    assert await create(api_key=reader) == ["text"]
    assert await create(auth_token=reader) == ["text"]
    assert await create(api_key=slow) == ["thinking", "text"]
    await create(api_key=slow)
    for error, kind, arguments in (
        (anthropic.AuthenticationError, "authentication_error", {"api_key": "sk-ant-unknown"}),
        (anthropic.PermissionDeniedError, "permission_error", {"api_key": reader, "model": "big"}),
        (anthropic.RateLimitError, "rate_limit_error", {"api_key": slow}),
    ):
        with pytest.raises(error) as raised:
            await create(**arguments)
        body: Any = raised.value.body
        assert body["error"]["type"] == kind


async def test_the_gemini_sdk(upstream: Upstream, guarded: MakeProxy, keys: str) -> None:
    proxy = await guarded()

    def create(key: str) -> None:
        options = genai.types.HttpOptions(base_url=proxy.url)
        with genai.Client(api_key=key, http_options=options) as sdk:
            sdk.models.generate_content(model="big", contents="x")

    for key, code, status in (
        ("AIza-unknown", 401, "UNAUTHENTICATED"),
        (make_key(keys, "reader")[1], 403, "PERMISSION_DENIED"),
    ):
        with pytest.raises(genai.errors.ClientError) as raised:
            await asyncio.to_thread(create, key)
        assert (raised.value.code, raised.value.status) == (code, status)
    assert upstream.paths == []


# --- Nothing of a key is told; a revoked one is refused --------------------------------------------------------------


async def test_key_material_is_in_no_log_metric_or_error(
    upstream: Upstream, guarded: MakeProxy, keys: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    upstream.handler = streaming([*STREAM, finish(), DONE])
    proxy = await guarded(upstream_key="sk-upstream-4711")
    made = [make_key(keys, role) for role in ("reader", "slow", "poor", "nobody", "chatter")]
    secrets = [text for _, text in made] + [text.split("_", 2)[2] for _, text in made] + ["sk-upstream-4711"]
    told = ""
    for _, text in made:
        for path in (CHAT_PATH, "/v1/messages", "/v1/nothing"):
            for _ in range(3):
                _, body, headers = await ask(proxy, bearer(text), path, model="big")
                told += body + str(headers)
    for spoilt in (made[0][1][:-1] + "!", made[0][1][:-1]):
        _, body, headers = await ask(proxy, bearer(spoilt))
        told += body + str(headers)
    told += caplog.text + proxy.gateway.metrics.expose().decode() + repr(proxy.gateway.active)
    assert not any(secret[:-1] in told for secret in secrets)
    assert not any(identifier in told for identifier, _ in made)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_revoked_key_is_refused_within_a_second(
    upstream: Upstream, tmp_path: Path, roles: str, keys: str, workers: int
) -> None:
    upstream.handler = streaming([*STREAM, finish(), DONE])
    identifier, key = make_key(keys, "reader")
    async with serving(upstream.url, tmp_path, workers, keys=keys, callers_file=roles) as served:
        proxy = Proxy(served.url, None)  # type: ignore[arg-type]  # in a process of its own
        for _ in range(8 * workers):  # each on a connection of its own: all workers have used the key
            assert (await ask(proxy, bearer(key)))[0] == 200
        command = ("-m", "cotguard", "keys", "revoke", "--store", keys, identifier)
        process = await asyncio.create_subprocess_exec(sys.executable, *command)
        assert await process.wait() == 0
        revoked = time.monotonic()
        statuses = [(await ask(proxy, bearer(key)))[0] for _ in range(8 * workers)]
        assert statuses == [401] * 8 * workers
        assert time.monotonic() - revoked < 5  # so many requests; none of them was let through
        assert await served.end() == 0


async def test_policies_of_roles_are_told(guarded: MakeProxy) -> None:
    exposed = (await guarded()).gateway.metrics.expose().decode()
    assert "cotguard_policy_info{digest=" in exposed
    assert 'name="cards"' in exposed
    assert 'name="balanced"' in exposed


def test_a_role_whose_policy_is_not_there(tmp_path: Path) -> None:
    roles = callers_file(tmp_path, {"reader": {"policy": "strct"}})
    settings = Settings.model_validate({"upstream": "http://x", "keys": "keys.db", "callers_file": roles})
    with pytest.raises(PolicyError, match=r"did you mean strict\?"):
        load_moderations(settings)
