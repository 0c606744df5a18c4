"""Checks that hold for the streams of every dialect, and the texts of the planted values."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dialect_kit import exchange, stream
from planted import PLANTED, Planted, carried

from cotguard.detectors.contract import Detector
from cotguard.dialects.contract import Dialect, Prepared, UpstreamFault
from cotguard.policy import Policy

__all__ = ["CARRIED", "LABELLED", "check_cuts", "documents", "events", "leaks", "pieces"]

Moderation = tuple[Policy, tuple[Detector, ...]]
Joined = Callable[[bytes], Mapping[str, str]]

CARRIED = " ".join(map(carried, PLANTED)) + "\n"
LABELLED = " ".join(each.carrier.format(f"[{each.entity}]") for each in PLANTED) + "\n"


def leaks(out: bytes) -> list[Planted]:
    """Planted values in a body, as text or as its JSON holds it."""
    spelt = [(each, {each.value.encode(), json.dumps(each.value)[1:-1].encode()}) for each in PLANTED]
    return [each for each, spellings in spelt if any(spelling in out for spelling in spellings)]


def pieces(text: str, rng: random.Random, most: int = 6) -> Iterator[str]:
    """A text in pieces of 1 to ``most`` characters."""
    at = 0
    while at < len(text):
        size = rng.randint(1, most)
        yield text[at : at + size]
        at += size


def events(sent: Sequence[Mapping[str, Any]], *, named: bool = True) -> bytes:
    """Documents as server-sent events, named by their types."""
    return b"".join(
        (b"event: %b\n" % str(each["type"]).encode() if named else b"") + b"data: %b\n\n" % json.dumps(each).encode()
        for each in sent
    )


def documents(out: bytes) -> list[dict[str, Any]]:
    """The documents of server-sent events, each of which is named by its type or not at all."""
    found = []
    for block in out.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append(json.loads(fields["data"]))
            assert fields.get("event") in (None, found[-1].get("type"))
    return found


def check_cuts(
    dialect: Dialect,
    prepared: Prepared,
    moderation: Moderation,
    data: bytes,
    joined: Joined,
    content_type: str = "text/event-stream",
) -> Mapping[str, str]:
    """The texts of a stream, after checking that they are the same for every cut and grow only at their ends."""
    final = joined(stream(dialect, prepared, moderation, data, content_type))
    for size in (1, 7, 61):
        assert joined(stream(dialect, prepared, moderation, data, content_type, size)) == final
    translator = dialect.stream(prepared, exchange(moderation, prepared.facts), content_type)
    assert translator is not None
    out = b""
    step = max(1, len(data) // 12)
    try:
        for at in range(0, len(data), step):
            out += translator.receive(data[at : at + step])
            assert all(final[name].startswith(text) for name, text in joined(out).items())
            if translator.finished:
                return final
        out += translator.end()
    except UpstreamFault:
        pass
    assert all(final[name].startswith(text) for name, text in joined(out).items())
    return final
