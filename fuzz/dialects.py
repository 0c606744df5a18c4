"""Dialects: every one's streams and whole bodies, as a broken or a hostile upstream would send them.

Checked: nothing is raised but :class:`UpstreamFault` and :class:`ModerationFault`; what is written is well formed, up
to the error that ends it; no planted value is in it and no canary, which stands where no dialect knows a string; and a
stream says the same when it comes in one piece and in many.
"""

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import atheris

from fuzz.campaign import run
from fuzz.views import agree, said, strings

with atheris.instrument_imports(include=["cotguard.dialects", "cotguard.framing"]):
    from cotguard.dialects.contract import ErrorKind, Prepared, Translator, UpstreamFault
    from cotguard.dialects.stream import EventStream
    from cotguard.framing.bedrock import Chunks
    from cotguard.framing.contract import Event, Framing
    from cotguard.framing.sse import ServerSentEvents
    from cotguard.moderation.exchange import Exchange, ModerationFault
    from fuzz.framing import events_of, pieces
    from fuzz.mutation import mutated_document, mutated_events
    from fuzz.subjects import CLIENTS, EMAIL, FORBIDDEN, KEY, MODERATION, TALK, Client, exchange, reply

_TEXT = f"Write to {EMAIL} , and the record says {KEY} , noted."


class Subject(NamedTuple):
    """A client of a dialect, and its request, read."""

    client: Client
    prepared: Prepared
    streamed: bool

    def exchange(self) -> Exchange:
        return exchange(MODERATION, self.prepared.facts)

    def translator(self) -> Translator:
        translator = self.client.dialect.stream(self.prepared, self.exchange(), self.client.content_type)
        assert translator is not None
        return translator

    def framing(self) -> Framing:
        """One that reads and writes this dialect's streams."""
        translator = self.translator()
        return type(translator._framing)() if isinstance(translator, EventStream) else ServerSentEvents()  # noqa: SLF001  # it is asked for nowhere else


def _subject(client: Client, *, streamed: bool) -> Subject:
    document = client.request(TALK, streamed=streamed)
    return Subject(client, client.prepared(document, client.fields(TALK), streamed=streamed), streamed)


SUBJECTS = [_subject(client, streamed=streamed) for client in CLIENTS for streamed in (True, False)]


def _streamed(subject: Subject, cuts: Sequence[bytes]) -> tuple[bytes, bool]:
    """What the client gets of a body that comes in these pieces, and whether that is a whole response."""
    translator = subject.translator()
    out = b""
    try:
        for cut in cuts:
            out += translator.receive(cut)
            if translator.finished:
                return out, True
        return out + translator.end(), True
    except (UpstreamFault, ModerationFault) as fault:
        kind = fault.kind if isinstance(fault, UpstreamFault) else ErrorKind.MODERATION_FAILED
        return out + translator.fail(kind, "A fault."), False


def _documents(framing: Framing, out: bytes) -> list[tuple[str, Any]]:
    """The documents of what was written, which must be well formed."""
    events: list[Event] = []
    for block in framing.feed(out) + framing.end():
        event = framing.parse(block)
        if event is not None and not (isinstance(framing, ServerSentEvents) and event.data == b"[DONE]"):
            events.append(event)
    return [(event.name, json.loads(event.data)) for event in events]


def _check_secrets(documents: Sequence[tuple[str, Any]]) -> None:
    for text in strings(said(documents)):
        for value in FORBIDDEN:
            assert value not in text, f"{value!r} got through"


def check(data: bytes) -> None:
    """One input: its first byte chooses the client, and whether the body is a stream."""
    if not data:
        return
    subject, body = SUBJECTS[data[0] % len(SUBJECTS)], data[1:]
    if not subject.streamed:
        try:
            out = subject.client.dialect.body(body, subject.prepared, subject.exchange())
        except (UpstreamFault, ModerationFault):
            return
        _check_secrets([("", json.loads(out))])
        return
    whole, complete = _streamed(subject, [body])
    documents = _documents(subject.framing(), whole)
    _check_secrets(documents)
    pieced, as_well = _streamed(subject, list(pieces(body)))
    cut = _documents(subject.framing(), pieced)
    _check_secrets(cut)
    assert as_well is complete, "the cuts make a fault"
    assert agree(said(documents), said(cut), complete=complete), "the cuts show"


def seeds() -> Iterator[bytes]:
    """An answer of each client's model, as a stream and as a body."""
    rng = random.Random(0)  # noqa: S311  # no secrets
    answer = reply(_TEXT)
    for at, subject in enumerate(SUBJECTS):
        client = subject.client
        yield bytes([at]) + (client.stream(answer, rng) if subject.streamed else client.body(answer))


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Half of all inputs stay events with JSON in them."""
    rng = random.Random(seed)  # noqa: S311  # same
    if not data or rng.random() < 0.5:
        return bytes(atheris.Mutate(data, size))
    subject, body = SUBJECTS[data[0] % len(SUBJECTS)], data[1:]
    if not subject.streamed:
        return (data[:1] + mutated_document(body, rng))[:size]
    framing, written = subject.framing(), subject.framing()
    events = events_of(framing, [body])[0]
    out = b""
    for event in mutated_events(events, rng):
        name = "" if isinstance(framing, Chunks) else event.name
        if b"\n" not in event.data and b"\r" not in event.data and "\n" not in name:
            out += written.write(Event(name, event.data))
    return (data[:1] + out + written.close())[:size]


if __name__ == "__main__":
    run("dialects", check, seeds(), mutate)
