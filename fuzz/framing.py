"""Framing: event streams of every kind, cut anywhere.

Checked: nothing is raised but :class:`FramingError`; blocks and their events are the same for the whole input and for
its cuts; an event that is written is read again as it was.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

import atheris

from fuzz.campaign import run

with atheris.instrument_imports(include=["cotguard.framing"]):
    from cotguard.framing.aws_event_stream import AwsEventStream
    from cotguard.framing.bedrock import Chunks, Padded
    from cotguard.framing.contract import Event, Framing, FramingError
    from cotguard.framing.json_array import JSONArray
    from cotguard.framing.ndjson import NDJSON
    from cotguard.framing.sse import ServerSentEvents
    from fuzz.mutation import CANARY, mutated_events

FRAMINGS: Sequence[Callable[[], Framing]] = (ServerSentEvents, NDJSON, JSONArray, AwsEventStream, Padded, Chunks)

_DOCUMENTS = (b'{"text":"a, [\\"b\\"] {c}"}', f'{{"text":"{CANARY}","p":"abc"}}'.encode(), '{"é":"\u2028"}'.encode())


def pieces(data: bytes) -> Iterator[bytes]:
    """``data`` in pieces that depend on it alone."""
    rng = random.Random(crc32(data))  # noqa: S311  # cuts, no secrets
    most = len(data) // rng.choice((4, 32, 256)) + 1
    at = 0
    while at < len(data):
        size = rng.randint(1, most)
        yield data[at : at + size]
        at += size


def events_of(framing: Framing, cuts: Sequence[bytes]) -> tuple[list[Event], bool]:
    """The events of a body that comes in these pieces, and whether it could be read to its end."""
    found: list[Event] = []
    try:
        found.extend(_read(framing, cuts))  # those before an error stay
    except FramingError:
        return found, False
    return found, True


def _read(framing: Framing, cuts: Sequence[bytes]) -> Iterator[Event]:
    for cut in cuts:
        yield from _parsed(framing, framing.feed(cut))
    yield from _parsed(framing, framing.end())


def _parsed(framing: Framing, blocks: Sequence[bytes]) -> Iterator[Event]:
    for block in blocks:
        if (event := framing.parse(block)) is not None:
            yield event


def _is_line(event: Event) -> bool:
    """Whether an event is one that is written: on one line."""
    return not any(byte in event.data + event.name.encode() for byte in b"\r\n")


def check(data: bytes) -> None:
    """One input: its first byte chooses the framing."""
    if not data:
        return
    new = FRAMINGS[data[0] % len(FRAMINGS)]
    body = data[1:]
    events, complete = events_of(new(), [body])
    assert events_of(new(), list(pieces(body))) == (events, complete), "the cuts show"
    if new is JSONArray or new is NDJSON or not complete:
        return  # what is written there is JSON, which an event that was read need not be
    written = [event for event in events if _is_line(event)]
    writer = new()
    out = b"".join(map(writer.write, written)) + writer.close()
    assert events_of(new(), [out]) == (written, True), "what is written is not what was read"


def seeds() -> Iterator[bytes]:
    """A stream of each framing."""
    for at, new in enumerate(FRAMINGS):
        framing = new()
        name = "" if new in (NDJSON, JSONArray, Chunks) else "delta"
        yield bytes([at]) + b"".join(framing.write(Event(name, each)) for each in _DOCUMENTS) + framing.close()


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Half of all inputs are framed anew: checksums and lengths would stop the others."""
    rng = random.Random(seed)  # noqa: S311  # same
    if not data or rng.random() < 0.5:
        return bytes(atheris.Mutate(data, size))
    new = FRAMINGS[data[0] % len(FRAMINGS)]
    events = mutated_events(events_of(new(), [data[1:]])[0], rng)
    framing = new()
    out = b"".join(framing.write(each) for each in events if _is_line(each)) + framing.close()
    return (data[:1] + out)[:size]


if __name__ == "__main__":
    run("framing", check, seeds(), mutate)
