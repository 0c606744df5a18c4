"""A draft in the shadow of live traffic: it counts what a gateway with it would count, and touches nothing else."""

import asyncio
import gc
import json
import random
import weakref
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import FormData, web
from audit_kit import until
from conftest import Handler, Proxy, ProxyFactory, Upstream, _listen
from conversations import CLIENTS, Client, Conversation, Reply, Said, answered, conversation
from dialect_kit import exchange as begun
from hypothesis import given, settings
from hypothesis import strategies as st
from log_kit import lines
from scripted import DONE, chunk, finish, post, streaming, texts
from test_reload import reloading

from cotguard.audit.trail import AuditOptions, Trail
from cotguard.config.settings import Settings
from cotguard.detectors.contract import Detector, Scope, Session
from cotguard.detectors.registry import build
from cotguard.gateway import recording, trial
from cotguard.gateway.app import Gateway, create_app
from cotguard.gateway.moderations import OWN, Moderation, load_moderations
from cotguard.gateway.recording import Recording
from cotguard.gateway.trial import start, state, stop, summed
from cotguard.policy import PolicyError, parse
from cotguard.spans import Span
from cotguard.telemetry.metrics import Metrics

ACTIVE = """
version: 1
name: active
classifier: false
rules:
  - {entities: [SECRET, EMAIL_ADDRESS, SYSTEM_PROMPT], action: redact}
  - {entities: [IBAN_CODE], action: flag}
"""
DRAFT = """
version: 1
name: draft
classifier: false
mode: enforce
request: {texts: moderate}
rules:
  - {entities: [SECRET], channels: [reasoning], action: withhold}
  - {entities: [EMAIL_ADDRESS, PHONE_NUMBER], channels: [system, user, tool_result], action: pseudonymize}
  - {entities: [EMAIL_ADDRESS], unless_origin: [user], action: mask}
  - {entities: [CREDIT_CARD], channels: [tool_call], action: block}
  - {entities: [EMAIL_ADDRESS, PHONE_NUMBER, CREDIT_CARD, IBAN_CODE, SYSTEM_PROMPT], action: hash}
"""
SMALL = "version: 1\nname: small\nclassifier: false\nrules: [{entities: [EMAIL_ADDRESS], action: redact}]\n"
KEY = "AKIA" + "IOSFODNN7EXAMPLQ"
ADDRESS = "ann.lee@example.com"
STREAM = [
    chunk({"reasoning": f"She is {ADDRESS}, as far as I know. "}),
    chunk({"content": f"mail {ADDRESS}"}),
    finish(),
    DONE,
]
REPLY = Reply(
    Said(f"She is {ADDRESS}, pays to DE89370400440532013000, her key is {KEY} for now. Then there is bob@example.org."),
    Said(f"Write to {ADDRESS} or call +49 30 1234567. The card is 4111 1111 1111 1111 and the key {KEY} as ever."),
    Said(json.dumps({"to": [ADDRESS, "carl@example.org"], "card": "4111111111111111", "rest": ADDRESS})),
)
OUTBOUND = frozenset({"reasoning", "output", "tool_call", "other"})
EMPTY = {"too_large": 0, "busy": 0, "failed": 0}


@cache
def moderation(text: str) -> Moderation:
    policy = parse(text, "t.yaml", None)
    return Moderation.of(policy, build(policy))


@pytest.fixture
def active() -> Moderation:
    return moderation(ACTIVE)


@pytest.fixture
def draft() -> Moderation:
    return moderation(DRAFT)


@pytest.fixture
def small() -> Moderation:
    return moderation(SMALL)


def begin(proxy: Proxy, draft: Moderation) -> None:
    gateway = proxy.gateway
    gateway.trial.start(draft, gateway.active.moderations[OWN], 5, gateway.active.settings.max_exchange_bytes)


async def come_to(proxy: Proxy, exchanges: int, **left_out: int) -> dict[str, Any]:
    """The state once so many exchanges were replayed, and left out."""
    expected = exchanges, {**EMPTY, **left_out}
    await until(lambda: (proxy.gateway.trial.state["exchanges"], proxy.gateway.trial.state["left_out"]) == expected)
    return proxy.gateway.trial.state


def decisions(gateway: Gateway) -> list[list[Any]]:
    """What the metrics say was decided, as a trial tells it."""
    names = ("entity", "channel", "action", "outcome")
    return sorted(
        [*(sample.labels[name] for name in names), int(sample.value)]
        for family in gateway.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "cotguard_decisions_total"
    )


def metrics(gateway: Gateway) -> dict[str, float]:
    """Counters of all that happened."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in gateway.metrics.registry.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_count")) and "loop_lag" not in sample.name and "process" not in sample.name
    }


# --- What it counts ----------------------------------------------------------------------------------------------


def cutting(data: bytes, rng: random.Random, content_type: str) -> Handler:
    """An upstream that writes ``data`` in pieces, as a network may cut it."""
    pieces, at = [], 0
    while at < len(data):
        size = rng.choice((3, 90, 4000))
        pieces.append(data[at : at + size])
        at += size
    return streaming(pieces, {"Content-Type": content_type})


def whole(body: bytes) -> Handler:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    return handler


async def send(url: str, client: Client, talk: Conversation, *, streamed: bool) -> tuple[int, bytes]:
    action = client.action(streamed=streamed)
    route = next(route for route in client.dialect.routes if route.action == action)
    path = route.path.format(**{name: quote(value, safe="") for name, value in client.parameters.items()})
    data: Any = json.dumps(client.request(talk, streamed=streamed))
    headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}
    if fields := client.fields(talk):
        data = FormData(fields)
        data.add_field("file", b"RIFF", filename="a.wav", content_type="audio/wav")
        del headers["Content-Type"]
    async with aiohttp.ClientSession() as session, session.post(url + path, data=data, headers=headers) as response:
        return response.status, await response.read()


async def test_it_counts_what_a_gateway_with_the_draft_would(
    upstream: Upstream, make_proxy: ProxyFactory, active: Moderation, draft: Moderation
) -> None:
    """In every dialect, of streams and of whole bodies. Clients get the same bytes as without it."""
    # Seals are random, and no two are the same.
    live, untried = [await make_proxy(active.policy, active.detectors, seal=False) for _ in range(2)]
    other = await make_proxy(draft.policy, draft.detectors)
    for client in CLIENTS:
        rng = random.Random(client.name)
        begin(live, draft)
        before = decisions(live.gateway), decisions(other.gateway)
        talk = conversation(rng.randrange(100))
        for streamed in (True, False):
            data = client.stream(REPLY, rng) if streamed else client.body(REPLY)
            upstream.handler = streaming([data], {"Content-Type": client.content_type}) if streamed else whole(data)
            got = await send(live.url, client, talk, streamed=streamed)
            assert got == await send(untried.url, client, talk, streamed=streamed), client.name
            upstream.handler = cutting(data, rng, client.content_type) if streamed else whole(data)
            await send(other.url, client, talk, streamed=streamed)
        told = await come_to(live, 2)
        assert told["active"] == since(before[0], live.gateway), client.name
        assert told["draft"] == since(before[1], other.gateway), client.name
        assert {row[1] for row in told["draft"]} & OUTBOUND, client.name
    assert decisions(live.gateway) == decisions(untried.gateway)


def since(before: Sequence[list[Any]], gateway: Gateway) -> list[list[Any]]:
    """What was decided since then."""
    counts = Counter({tuple(row): number for *row, number in decisions(gateway)})
    counts.subtract({tuple(row): number for *row, number in before})
    return [[*row, number] for row, number in sorted(counts.items()) if number]


async def test_a_draft_in_shadow_mode_is_tried_as_if_it_were_enforced(
    upstream: Upstream, make_proxy: ProxyFactory, small: Moderation
) -> None:
    upstream.handler = streaming(STREAM)
    live = await make_proxy(small.policy, small.detectors)
    begin(live, moderation(SMALL + "mode: shadow\n"))
    await post(live.url, stream=True)
    told = await come_to(live, 1)
    assert told["active"] == told["draft"] != []


@settings(max_examples=40)
@given(st.lists(st.sampled_from([1, 2, 5, 40, 300, 5000]), min_size=1), st.randoms(use_true_random=False))
def test_how_it_is_cut_does_not_change_what_is_counted(sizes: Sequence[int], rng: random.Random) -> None:
    """Of streams in several dialects, between the bytes that arrive and those that are replayed."""
    moderated = moderation(DRAFT)
    client = rng.choice(CLIENTS)
    talk = conversation(rng.randrange(4))
    data = client.stream(answered(talk, {}, rng), rng)
    tallies = []
    for cut in (sizes, [len(data)], [4096]):
        prepared = client.prepared(client.request(talk, streamed=True), client.fields(talk))
        exchange = begun((moderated.policy, moderated.detectors), prepared.facts)
        translator = client.dialect.stream(prepared, exchange, client.content_type)
        assert translator is not None
        at = index = 0
        while at < len(data) and not translator.finished:
            size = cut[index % len(cut)]
            translator.receive(data[at : at + size])
            at, index = at + size, index + 1
        tallies.append(exchange.tally)
    assert tallies[0] == tallies[1] == tallies[2]


async def test_requests_that_get_no_answer_count_as_far_as_they_went(
    upstream: Upstream, make_proxy: ProxyFactory, small: Moderation
) -> None:
    blocking = moderation(SMALL.replace("redact", "block").replace("rules", "request: {texts: moderate}\nrules"))
    live = await make_proxy(small.policy, small.detectors)
    begin(live, blocking)

    async def refuses(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": ADDRESS}}, status=500)

    upstream.handler = streaming(STREAM)
    asking = [{"role": "user", "content": f"write to {ADDRESS}"}]
    assert (await post(live.url, stream=True, messages=asking))[0] == 200  # the draft blocks it
    upstream.handler = refuses
    assert (await post(live.url))[0] == 500
    told = await come_to(live, 2)
    assert told["draft"] == [["EMAIL_ADDRESS", "user", "block", "blocked", 1]]
    assert [row[:4] for row in told["active"]] == [
        ["EMAIL_ADDRESS", "output", "redact", "redacted"],
        ["EMAIL_ADDRESS", "reasoning", "redact", "redacted"],
    ]
    refusing = await make_proxy(blocking.policy, blocking.detectors)
    begin(refusing, small)
    assert (await post(refusing.url, stream=True, messages=asking))[0] == 400  # the policy in force does
    told = await come_to(refusing, 1)
    assert (told["active"], told["draft"]) == ([["EMAIL_ADDRESS", "user", "block", "blocked", 1]], [])


async def test_streams_that_break_count_as_far_as_they_went(
    upstream: Upstream, make_proxy: ProxyFactory, active: Moderation, draft: Moderation
) -> None:
    live = await make_proxy(active.policy, active.detectors)
    other = await make_proxy(draft.policy, draft.detectors)
    begin(live, draft)
    for events in (STREAM[:2], [*STREAM[:1], b"data: {oops\n\n"], []):
        for proxy in (live, other):
            upstream.handler = streaming(events)
            await post(proxy.url, stream=True)
    told = await come_to(live, 3)
    assert told["active"] == decisions(live.gateway)
    assert told["draft"] == decisions(other.gateway) != []


async def test_lookups_count_too(
    upstream: Upstream, make_proxy: ProxyFactory, active: Moderation, draft: Moderation
) -> None:
    upstream.handler = whole(b'{"input_tokens": 3}')
    live = await make_proxy(active.policy, active.detectors)
    other = await make_proxy(draft.policy, draft.detectors)
    begin(live, draft)
    asked = {"model": "m", "messages": [{"role": "user", "content": f"mail {ADDRESS}"}]}
    async with aiohttp.ClientSession() as session:
        for proxy in (live, other):
            url = proxy.url + "/v1/messages/count_tokens"
            async with session.post(url, json=asked, headers={"anthropic-version": "2023-06-01"}) as response:
                assert response.status == 200
    told = await come_to(live, 1)
    assert told["draft"] == decisions(other.gateway) == [["EMAIL_ADDRESS", "user", "pseudonymize", "redacted", 1]]


# --- What it leaves alone ----------------------------------------------------------------------------------------


async def test_nothing_of_it_is_in_metrics_records_or_logs(
    upstream: Upstream,
    tmp_path: Path,
    active: Moderation,
    draft: Moderation,
    caplog: pytest.LogCaptureFixture,
) -> None:
    upstream.handler = streaming(STREAM)
    told: list[tuple[dict[str, float], list[str], list[str]]] = []
    caplog.set_level("DEBUG", "cotguard")  # the trail's thread logs from its start to its end
    caplog.set_level("WARNING", "aiohttp.access")  # of the test's own servers, with the time in them
    for tried in (False, True):
        caplog.clear()
        folder = tmp_path / str(tried)
        settings, counted = Settings(upstream=upstream.url), Metrics()
        trail = Trail(AuditOptions(directory=str(folder)), counted)
        moderations = load_moderations(settings, own=Moderation.of(active.policy, active.detectors))
        gateway = Gateway(settings, moderations, counted, trail=trail)
        runner, url = await _listen(create_app(gateway))
        proxy = Proxy(url, gateway)
        if tried:
            begin(proxy, draft)
        for _ in range(3):
            await post(url, stream=True)
        if tried:
            await come_to(proxy, 3)
            assert gateway.trial.state["draft"] != gateway.trial.state["active"]
        assert not active.findings._memory
        await runner.cleanup()
        records = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
        kinds = [json.loads(line).get("type") or "" for line in records]
        told.append((metrics(gateway), sorted(kinds), sorted(record.getMessage() for record in caplog.records)))
        assert ADDRESS not in lines(caplog)
    assert told[0] == told[1]


class _Failing:
    """A detector that fails, behind the session's first pieces."""

    name = "failing"
    entities = frozenset({"EMAIL_ADDRESS"})

    def open(self, scope: Scope) -> Session:
        return self

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        raise RuntimeError(text)


@pytest.mark.parametrize("on_error", ["closed", "open"])
async def test_a_draft_that_fails_disturbs_nothing(
    upstream: Upstream, make_proxy: ProxyFactory, small: Moderation, caplog: pytest.LogCaptureFixture, on_error: str
) -> None:
    upstream.handler = streaming(STREAM)
    live = await make_proxy(small.policy, small.detectors)
    failing: list[Detector] = [_Failing()]
    begin(live, Moderation.of(parse(f"{SMALL}on_error: {on_error}\n", "t.yaml", None), failing))
    for _ in range(2):
        status, body = await post(live.url, stream=True)
        assert (status, texts(body)[0, "content"]) == (200, "mail [EMAIL_ADDRESS]")
    told = await come_to(live, 0, failed=2)
    assert (told["active"], told["draft"]) == ([], [])
    assert live.accounts.closed == live.accounts.opened == {}
    assert "ERROR" not in lines(caplog)
    assert live.gateway.trial.running is not None
    assert live.gateway.trial.running.size == 0


async def test_a_recording_that_cannot_be_made_disturbs_nothing(
    upstream: Upstream, make_proxy: ProxyFactory, small: Moderation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Recording, _request: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Recording, "take_request", broken)
    upstream.handler = streaming(STREAM)
    live = await make_proxy(small.policy, small.detectors)
    begin(live, small)
    assert (await post(live.url, stream=True))[0] == 200
    await come_to(live, 0, failed=1)


async def test_live_traffic_goes_first(
    upstream: Upstream,
    make_proxy: ProxyFactory,
    small: Moderation,
) -> None:
    """A replay leaves others the most of the time: here the loop is asked how much."""
    long = [chunk({"content": "plain words, many of them. " * 300}) for _ in range(60)]
    upstream.handler = streaming([*long, finish(), DONE])
    live = await make_proxy(small.policy, small.detectors)
    begin(live, small)
    await post(live.url, stream=True)
    running = live.gateway.trial.running
    assert running is not None
    others = 0
    while running.counts.exchanges < 1:
        await asyncio.sleep(0)
        others += 1
    assert others > 100


# --- Limits, and the end -----------------------------------------------------------------------------------------


async def test_what_finds_no_room_is_left_out(
    upstream: Upstream, make_proxy: ProxyFactory, small: Moderation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_EXCHANGE_BYTES", 20_000)
    monkeypatch.setattr(recording, "MAX_BYTES", 24_000)
    live = await make_proxy(small.policy, small.detectors)
    begin(live, small)
    running = live.gateway.trial.running
    assert running is not None
    upstream.handler = streaming([chunk({"content": "a" * 30_000}), *STREAM])
    assert (await post(live.url, stream=True))[0] == 200
    upstream.handler = streaming(STREAM)
    assert (await post(live.url, stream=True, messages=[{"role": "user", "content": "b" * 30_000}]))[0] == 200
    upstream.handler = whole(b'{"choices": [], "x": "' + b"c" * 30_000 + b'"}')
    assert (await post(live.url))[0] == 200
    await come_to(live, 0, too_large=3)
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "d" * 14_000}))
        await go_on.wait()
        await response.write(b"".join([*STREAM[1:]]))
        return response

    upstream.handler = slow
    both = [asyncio.create_task(post(live.url, stream=True)) for _ in range(2)]
    await come_to(live, 0, too_large=3, busy=1)
    assert 14_000 < running.size < 20_000
    go_on.set()
    await asyncio.gather(*both)
    await come_to(live, 1, too_large=3, busy=1)
    assert running.size == 0


async def test_a_full_queue_takes_no_more(
    upstream: Upstream, make_proxy: ProxyFactory, small: Moderation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "MAX_QUEUED", 2)
    upstream.handler = streaming(STREAM)
    live = await make_proxy(small.policy, small.detectors)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def held(*_: object) -> Any:
        asked.set()
        await answer.wait()
        raise RuntimeError

    begin(live, small)
    running = live.gateway.trial.running
    assert running is not None
    monkeypatch.setattr(running, "_replay", held)
    await post(live.url, stream=True)
    await asked.wait()
    for _ in range(3):
        await post(live.url, stream=True)
    await come_to(live, 0, busy=1)
    answer.set()
    await come_to(live, 0, busy=1, failed=3)


async def test_nothing_is_kept_of_what_was_replayed_or_dropped(
    upstream: Upstream, make_proxy: ProxyFactory, small: Moderation, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[Any]] = []

    class _Watched(bytearray):
        pass

    monkeypatch.setattr(recording, "bytearray", lambda: _watched(kept, _Watched()), raising=False)
    upstream.handler = streaming(STREAM)
    live = await make_proxy(small.policy, small.detectors)
    begin(live, small)
    for _ in range(3):
        await post(live.url, stream=True)
    await come_to(live, 3)
    await until(lambda: gone(kept))
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(STREAM[0])
        await go_on.wait()
        await response.write(b"".join(STREAM[1:]))
        return response

    upstream.handler = slow
    under_way = asyncio.create_task(post(live.url, stream=True))
    running = live.gateway.trial.running
    assert running is not None
    await until(lambda: running.size > 0)
    live.gateway.trial.end()
    assert running.size == 0
    await until(lambda: gone(kept))  # while the stream goes on
    go_on.set()
    assert (await under_way)[0] == 200
    assert live.gateway.trial.state["exchanges"] == 3


def _watched(kept: list[weakref.ref[Any]], data: bytearray) -> bytearray:
    kept.append(weakref.ref(data))
    return data


def gone(kept: Sequence["weakref.ref[Any]"]) -> bool:
    """Whether nothing holds what was recorded, but the empty buffer of a recording that is dropped."""
    gc.collect()
    return not any(each() for each in kept)


async def test_it_ends_by_itself(
    upstream: Upstream, make_proxy: ProxyFactory, small: Moderation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_MINUTE", 0.02)
    live = await make_proxy(small.policy, small.detectors)
    begin(live, small)
    assert live.gateway.trial.state["running"]
    (task,) = [each for each in asyncio.all_tasks() if "_replay_all" in repr(each)]
    await until(lambda: not live.gateway.trial.state["running"])
    told = live.gateway.trial.state
    assert told["ends"] - told["started"] == pytest.approx(0.1, abs=0.05)
    upstream.handler = streaming(STREAM)
    await post(live.url, stream=True)
    await until(task.done)
    assert live.gateway.trial.state == told


async def test_a_reload_of_the_policy_that_it_is_about_ends_it(upstream: Upstream, tmp_path: Path) -> None:
    upstream.handler = streaming(STREAM)
    config, file = tmp_path / "cotguard.yaml", tmp_path / "small.yaml"
    config.write_text(f"upstream: {upstream.url}\npolicy: {file}\nbundle: none\n")
    file.write_text(SMALL)
    async with reloading(config) as (url, gateway, reloader):
        await start(gateway, {"policy": "small", "draft": SMALL.replace("redact", "mask"), "minutes": 1})
        await post(url, stream=True)
        assert await reloader.reload() == ""  # nothing has changed
        assert gateway.trial.state["running"]
        await come_to(Proxy(url, gateway), 1)
        file.write_text(SMALL.replace("redact", "hash"))
        assert await reloader.reload() == ""
        assert not gateway.trial.state["running"]
        await post(url, stream=True)
        assert gateway.trial.state["exchanges"] == 1
        assert gateway.trial.state["draft"] == [
            ["EMAIL_ADDRESS", "output", "mask", "redacted", 1],
            ["EMAIL_ADDRESS", "reasoning", "mask", "redacted", 1],
        ]


async def test_only_exchanges_under_the_policy_that_it_would_replace_count(
    upstream: Upstream, tmp_path: Path, small: Moderation
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(SMALL.replace("small", "other"))
    upstream.handler = streaming(STREAM)
    settings = Settings.model_validate(
        {"upstream": upstream.url, "routes": [{"models": ["m2"], "policy": str(other), "name": "r"}], "bundle": "none"}
    )
    gateway = Gateway(settings, load_moderations(settings, own=small), Metrics())
    runner, url = await _listen(create_app(gateway))
    try:
        await check_that_only_one_policy_counts(url, gateway)
    finally:
        await runner.cleanup()


async def check_that_only_one_policy_counts(url: str, gateway: Gateway) -> None:
    told = await start(gateway, {"policy": "other", "draft": SMALL.replace("redact", "flag"), "minutes": 60})
    assert (told["policy"], told["name"], told["running"]) == ("other", "small", True)
    for model in ("m", "m2", "m"):
        await post(url, stream=True, model=model)
    told = await come_to(Proxy(url, gateway), 1)
    assert [row[4] for row in told["draft"]] == [1, 1]
    again = await start(gateway, {"policy": "small", "draft": SMALL.replace("redact", "mask"), "minutes": 60})
    assert (again["policy"], again["exchanges"], again["draft"]) == ("small", 0, [])
    for model in ("m", "m2", "m"):
        await post(url, stream=True, model=model)
    await come_to(Proxy(url, gateway), 2)
    ended = await stop(gateway)
    assert (ended["running"], ended["exchanges"]) == (False, 2)
    assert await state(gateway) == ended


async def test_what_cannot_be_tried_is_told(make_proxy: ProxyFactory, small: Moderation) -> None:
    live = await make_proxy(small.policy, small.detectors, bundle="none")
    nothing = await state(live.gateway)
    assert nothing == {
        "running": False,
        **dict.fromkeys(("policy", "name", "digest"), ""),
        **dict.fromkeys(("started", "ends"), 0.0),
        "exchanges": 0,
        "left_out": EMPTY,
        "active": [],
        "draft": [],
    }
    for minutes in (0, 61, 1.5, True, "5", None):
        with pytest.raises(ValueError, match="minutes: write a whole number from 1 to 60"):
            await start(live.gateway, {"policy": "small", "draft": SMALL, "minutes": minutes})
    with pytest.raises(ValueError, match="draft: write"):
        await start(live.gateway, {"policy": "small", "minutes": 1})
    with pytest.raises(ValueError, match="policy: none of this name"):
        await start(live.gateway, {"policy": "none", "draft": SMALL, "minutes": 1})
    with pytest.raises(PolicyError, match="draft:1:1"):
        await start(live.gateway, {"policy": "small", "draft": "rules: []", "minutes": 1})
    assert await state(live.gateway) == nothing
    assert summed([nothing, nothing]) == nothing


async def test_workers_sum(upstream: Upstream, make_proxy: ProxyFactory, active: Moderation, draft: Moderation) -> None:
    upstream.handler = streaming(STREAM)
    workers = [await make_proxy(active.policy, active.detectors) for _ in range(3)]
    alone = await make_proxy(active.policy, active.detectors)
    for proxy in (*workers[:2], alone):
        begin(proxy, draft)
    for proxy in (workers[0], workers[1], workers[1], *[alone] * 3):
        await post(proxy.url, stream=True)
    told = [await come_to(proxy, number) for proxy, number in zip(workers, (1, 2, 0), strict=True)]
    expected = await come_to(alone, 3)
    sums = summed(json.loads(json.dumps(told)))
    for name in ("running", "policy", "name", "digest", "exchanges", "left_out", "active", "draft"):
        assert sums[name] == expected[name]
    assert sums["started"] == min(each["started"] for each in told[:2])
    assert sums["ends"] == max(each["ends"] for each in told[:2])
    former = {**told[0], "digest": "of another", "running": False, "started": 1.0}
    assert summed([former, *told]) == sums
