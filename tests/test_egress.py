"""Conversations under the policy `egress`: no value reaches the model, what it says with placeholders comes back."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from conversations import CLIENTS, Client, Conversation, Reply, Turn, answered, conversation, placeholders
from dialect_kit import spellings
from planted import Planted, carried
from test_inbound import path_of, post

from cotguard.detectors.registry import build
from cotguard.dialects.contract import ErrorKind, Prepared, Refused
from cotguard.framing.json import dumps
from cotguard.gateway.outgoing import Unmoderated, moderate
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.request import Findings
from cotguard.policy import Policy, load, parse

EGRESS = load("egress")
DETECTORS = build(EGRESS)
FINDINGS = Findings(EGRESS, DETECTORS)
_TEXT = files("cotguard.policy").joinpath("ready/egress.yaml").read_text()
WITH_SOUND = parse(_TEXT.replace("media: refuse", "media: pass"), "egress.yaml", None)
"""For transcriptions, of which `egress` refuses the sound."""

LABEL = re.compile(r"\[[A-Z_]+\]")
PLACEHOLDER = re.compile(r"\[[A-Z_]+_[1-9][0-9]*\]")
Figures = Counter[str]


def policy_of(client: Client) -> Policy:
    return WITH_SOUND if client.name == "transcription" else EGRESS


def told(value: bytes, planted: Planted) -> bool:
    """Whether a value is in a body, in any spelling."""
    return any(each in value for each in spellings(planted.value))


def opened(client: Client, talk: Conversation, *, streamed: bool) -> tuple[Prepared, Exchange]:
    """A request that may go upstream."""
    prepared = client.prepared(client.request(talk, streamed=streamed), client.fields(talk), streamed=streamed)
    exchange = Exchange(policy_of(client), DETECTORS, prepared.facts, b"k" * 16, findings=FINDINGS)
    fields = [] if prepared.fields is None else prepared.fields
    file = prepared.file is not None
    moderate(Unmoderated(prepared.document, fields, {}, client.parameters, {}, file=file), client.dialect, exchange)
    return prepared, exchange


def sent(prepared: Prepared) -> list[Any]:
    """What goes upstream."""
    return [prepared.document, [list(each) for each in prepared.fields or ()]]


def given(talk: Conversation, request: object) -> dict[str, str]:
    """The placeholders in a request, with their values: one for each value."""
    found = placeholders(talk, request)
    values: dict[str, str] = {}
    for planted, names in found.items():
        (name,) = names
        assert PLACEHOLDER.fullmatch(name)
        values[name] = planted.value
    assert len(values) == len(found)
    return values


def cuts(data: bytes, rng: random.Random) -> Sequence[bytes]:
    """Bytes in pieces as a network may cut them."""
    most = rng.choice((3, 60, 4000))
    found = []
    at = 0
    while at < len(data):
        size = rng.randint(1, most)
        found.append(data[at : at + size])
        at += size
    return found


def received(client: Client, reply: Reply, prepared: Prepared, exchange: Exchange, rng: random.Random) -> bytes:
    """What the client gets of a stream."""
    translator = client.dialect.stream(prepared, exchange, client.content_type)
    assert translator is not None
    out = []
    for piece in cuts(client.stream(reply, rng), rng):
        out.append(translator.receive(piece))
        if translator.finished:
            return b"".join(out)
    return b"".join([*out, translator.end()])


def unlabelled(text: str) -> str:
    """A text without the names of entities: values beside one another are taken for each other's kind."""
    return LABEL.sub("[]", text)


def check(client: Client, talk: Conversation, reply: Reply, out: bytes, *, streamed: bool) -> Figures:
    """Every placeholder is restored, every foreign value is redacted, and all else is as it was said."""
    found = (client.read_stream if streamed else client.read_body)(out)
    figures: Figures = Counter()
    for channel in client.channels:
        said = getattr(reply, channel)
        read = json.loads if channel == "arguments" else str
        assert read(unlabelled(found[channel])) == read(unlabelled(said.expected))
        figures += Counter(restored=said.used, foreign=said.foreign)
    leaked = [planted for planted in talk.foreign if told(out, planted)]
    assert leaked == []
    return figures


def play(client: Client, seed: int, *, streamed: bool) -> Figures:
    """One conversation, one answer."""
    talk, rng = conversation(seed), random.Random(seed)
    prepared, exchange = opened(client, talk, streamed=streamed)
    request = dumps(sent(prepared))
    leaked = [planted for planted in talk.planted if told(request, planted)]
    assert leaked == []
    reply = answered(talk, given(talk, sent(prepared)), rng)
    if streamed:
        out = received(client, reply, prepared, exchange, rng)
    else:
        out = client.dialect.body(client.body(reply), prepared, exchange)
    figures = check(client, talk, reply, out, streamed=streamed)
    return figures + Counter(conversations=1, values=len(talk.planted))


each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


@each_client
@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "body"])
def test_values_go_as_placeholders_and_come_back(client: Client, streamed: bool) -> None:
    figures: Figures = Counter()
    for seed in range(10):
        figures += play(client, 100 * CLIENTS.index(client) + seed, streamed=streamed)
    assert figures["conversations"] == 10
    assert min(figures[name] for name in ("values", "restored", "foreign")) > 4


@pytest.mark.long
def test_a_thousand_conversations() -> None:
    figures: Figures = Counter()
    for seed in range(1000):
        figures += play(CLIENTS[seed % len(CLIENTS)], 10_000 + seed, streamed=seed // len(CLIENTS) % 5 < 4)
    print(dict(figures))
    assert figures["conversations"] == 1000


def shares_an_entity(talk: Conversation) -> bool:
    """Whether two values are of one entity, and so may change numbers."""
    return len({planted.entity for planted in talk.planted}) < len(talk.planted)


LONG = [seed for seed in range(300) if len(conversation(seed).turns) > 3 and shares_an_entity(conversation(seed))][:8]


@each_client
@pytest.mark.parametrize("seed", LONG)
def test_a_value_keeps_its_placeholder_as_the_conversation_grows(client: Client, seed: int) -> None:
    talk = conversation(seed)
    before: dict[Planted, set[str]] = {}
    for count in range(len(talk.turns)):
        shorter = replace(talk, turns=[*talk.turns[:count], Turn(talk.turns[count].user)])
        prepared, _ = opened(client, shorter, streamed=True)
        now = placeholders(talk, sent(prepared))
        assert all(names <= now[planted] for planted, names in before.items())
        assert all(len(names) < 2 for names in now.values())
        before = now
    assert all(before.values())


def test_sound_is_refused() -> None:
    (client,) = (each for each in CLIENTS if each.name == "transcription")
    prepared = client.prepared({}, [("model", "m")])
    exchange = Exchange(EGRESS, DETECTORS, prepared.facts, b"k" * 16)
    with pytest.raises(Refused) as refused:
        moderate(Unmoderated({}, [], {}, {}, {}, file=True), client.dialect, exchange)
    assert refused.value.kind is ErrorKind.UNSUPPORTED


# --- Through the gateway -----------------------------------------------------------------------------------------

OVER_SOCKETS = [client for client in CLIENTS if client.dialect.name != "bedrock"]  # whose requests are signed


@pytest.mark.parametrize("client", OVER_SOCKETS, ids=lambda client: client.name)
async def test_values_stay_here_over_sockets(upstream: Upstream, make_proxy: ProxyFactory, client: Client) -> None:
    talk, rng = conversation(7), random.Random(7)
    replies: list[Reply] = []
    seen: list[bytes] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        seen.append(repr((request.raw_headers, request.raw_path)).encode() + body)
        try:
            document: object = json.loads(body)
        except ValueError:
            document = body.decode("latin-1").encode("latin-1").decode("utf-8", "replace")  # a form
        replies.append(answered(talk, given(talk, document), rng))
        response = web.StreamResponse(headers={"Content-Type": client.content_type})
        await response.prepare(request)
        for piece in cuts(client.stream(replies[0], rng), rng):
            await response.write(piece)
        await response.write_eof()
        return response

    upstream.handler = handler
    proxy = await make_proxy(policy_of(client), DETECTORS)
    headers = {"User-Agent": carried(talk.planted[0]).encode("ascii", "ignore").decode(), "X-Request-Id": "r-1"}
    status, out, _ = await post(proxy.url + path_of(client), client, talk, headers=headers)
    assert (status, len(seen)) == (200, 1)
    assert not any(told(seen[0], planted) for planted in talk.planted)
    check(client, talk, replies[0], out, streamed=True)
    exposed = proxy.gateway.metrics.expose()
    assert not any(told(exposed, planted) for planted in (*talk.planted, *talk.foreign))
