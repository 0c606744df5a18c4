"""What fuzzing has found, kept as properties of all dialects: a value of another type is a fault or is dropped.

The targets are in ``fuzz/``; ``make fuzz`` runs them.
"""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from conversations import CLIENTS, Client, Reply, Said, conversation
from dialect_kit import exchange, shadow

from cotguard.dialects.contract import ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.stream import EventStream
from cotguard.framing.bedrock import Chunks
from cotguard.framing.contract import Event, Framing
from cotguard.framing.sse import ServerSentEvents

TALK = conversation(1)
REPLY = Reply(Said("So"), Said("So"), Said('{"a": "So"}'))
MODERATION = shadow()
OTHERS: tuple[Any, ...] = ({}, [], {"type": {}})
Path = tuple[str | int, ...]


def prepared_for(client: Client, *, streamed: bool) -> Prepared:
    document = client.request(TALK, streamed=streamed)
    return client.prepared(document, client.fields(TALK), streamed=streamed)


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(value, dict | list):
        for step, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(each, (*path, step))


def replaced(document: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    copy = holder = json.loads(json.dumps(document))
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return copy


def retyped(document: Any) -> Iterator[bytes]:
    for path in paths(document):
        for other in OTHERS:
            yield json.dumps(replaced(document, path, other)).encode()


CASES = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


@CASES
def test_a_body_with_a_value_of_another_type(client: Client) -> None:
    prepared = prepared_for(client, streamed=False)
    for data in retyped(json.loads(client.body(REPLY))):
        try:
            out = client.dialect.body(data, prepared, exchange(MODERATION))
        except UpstreamFault:
            continue
        json.loads(out)


def framing_of(client: Client, prepared: Prepared) -> Framing:
    translator = client.dialect.stream(prepared, exchange(MODERATION), client.content_type)
    return type(translator._framing)() if isinstance(translator, EventStream) else ServerSentEvents()


def events_of(client: Client, framing: Framing) -> list[Event]:
    blocks = framing.feed(client.stream(REPLY, random.Random(0))) + framing.end()
    return [event for block in blocks if (event := framing.parse(block)) is not None]


@CASES
def test_a_stream_with_a_value_of_another_type(client: Client) -> None:
    prepared = prepared_for(client, streamed=True)
    events = events_of(client, framing_of(client, prepared))
    seen = set()
    for at, event in enumerate(events):
        document = json.loads(event.data) if event.data.startswith(b"{") else None
        shape = (event.name, str(list(paths(document))))
        if document is None or shape in seen:
            continue
        seen.add(shape)
        for data in retyped(document):
            framing = framing_of(client, prepared)
            changed = [*events[:at], Event(event.name, data), *events[at + 1 :]]
            sent = [each._replace(name="") if isinstance(framing, Chunks) else each for each in changed]
            translator = client.dialect.stream(prepared, exchange(MODERATION), client.content_type)
            assert translator is not None
            try:
                translator.receive(b"".join(map(framing.write, sent)) + framing.close())
                translator.end()
            except UpstreamFault:
                assert translator.fail(ErrorKind.UPSTREAM_INVALID, "A fault.")
