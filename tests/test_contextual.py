"""The policy `contextual` in every dialect: the user's own values come back, values of a tool and of nobody do not."""

import base64
import json
import random

import pytest
from conversations import CLIENTS, Client, Conversation, Reply, Said, Turn
from test_egress import received, sent

from cotguard.detectors.registry import build
from cotguard.gateway.outgoing import Unmoderated, moderate
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.request import Findings
from cotguard.policy import load
from cotguard.spans import ChannelKind

CONTEXTUAL = load("contextual")
DETECTORS = build(CONTEXTUAL)
FINDINGS = Findings(CONTEXTUAL, DETECTORS)

OWN = "ann.lee@example.com"
OWN_CARD = "4111 1111 1111 1111"
OTHERS = "bob.ray@example.org"
OTHERS_CARD = "5555 5555 5555 4444"
NOBODYS = "cat.fox@example.net"
ENCODED = base64.b64encode(OTHERS.encode()).decode().rstrip("=")

SYSTEM = "You help customers. Be short."
TOOL = {"name": "send", "description": "Sends a question.", "parameters": {"type": "object", "properties": {}}}
TURNS = (
    Turn(
        f"I am {OWN}, my card is {OWN_CARD} .",
        "I look it up.",
        "One moment.",
        {"all": True},
        {"rows": [{"mail": OTHERS, "card": OTHERS_CARD}]},
    ),
    Turn("And now?"),
)
TALK = Conversation(SYSTEM, TOOL, TURNS, "client-1", {}, ())


def said() -> Said:
    found = Said()
    found.add(*[f"You are {OWN.upper()}, with {OWN_CARD.replace(' ', '-')} ."] * 2)
    found.add(f"There is {OTHERS} with {OTHERS_CARD} .", "There is [] with [] .")
    found.add(f"In base64 {ENCODED} it is.", "In base64 [] it is.")
    found.add(f"Nobody knows {NOBODYS} here.", "Nobody knows [] here.")
    return found


def arguments() -> Said:
    text = said()
    return Said(json.dumps({"note": text.said}), json.dumps({"note": text.expected}))


def unlabelled(text: str) -> str:
    for entity in ("EMAIL_ADDRESS", "CREDIT_CARD"):
        text = text.replace(f"[{entity}]", "[]")
    return text


def tells_tools_apart(client: Client) -> bool:
    """Whether the dialect has results of tools: to others a conversation is one text of the user's."""
    document = client.request(TALK, streamed=True)
    texts = client.dialect.inbound.read(document).texts  # type: ignore[attr-defined]
    return any(OTHERS in text.text and text.kind is ChannelKind.TOOL_RESULT for text in texts)


APART = [client for client in CLIENTS if tells_tools_apart(client)]


def test_dialects_with_tools_tell_their_results_apart() -> None:
    assert len(APART) >= 10
    assert {"chat", "responses", "anthropic", "gemini", "converse", "ollama-chat", "cohere"} <= {
        client.name for client in APART
    }


@pytest.mark.parametrize("client", APART, ids=lambda client: client.name)
@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("seed", range(3))
def test_own_values_pass_and_others_do_not(client: Client, streamed: bool, seed: int) -> None:
    prepared = client.prepared(client.request(TALK, streamed=streamed), client.fields(TALK), streamed=streamed)
    before = json.dumps(sent(prepared))
    exchange = Exchange(CONTEXTUAL, DETECTORS, prepared.facts, b"k" * 16, findings=FINDINGS)
    moderate(Unmoderated(prepared.document, [], {}, client.parameters, {}), client.dialect, exchange)
    assert json.dumps(sent(prepared)) == before
    reply = Reply(said(), said(), arguments())
    if streamed:
        out = client.read_stream(received(client, reply, prepared, exchange, random.Random(seed)))
    else:
        out = client.read_body(client.dialect.body(client.body(reply), prepared, exchange))
    for channel in client.channels:
        read = json.loads if channel == "arguments" else str
        assert read(unlabelled(out[channel])) == read(getattr(reply, channel).expected)
