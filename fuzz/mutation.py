"""Mutations that keep a message readable: of its events, and of the JSON in them. Half of all are libFuzzer's own.

What is put in is a canary, which no output may hold, and what parsers stumble over. Copies of keys and values from
elsewhere in the message make texts stand where structure was and structure where texts were.
"""

import json
import random
from collections.abc import Sequence
from typing import Any

from cotguard.framing.contract import Event

__all__ = ["CANARY", "mutated_document", "mutated_events"]

CANARY = "canary!7hq2 word"
"""No check of a table lets a string with these characters through."""

_VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 7, 2**63, 1e308, "", CANARY, "\u2028", "\x00", "\ud83d", "a" * 300, "stop", "text",
    [], {}, [[]], [CANARY], {"text": CANARY}, {"type": "text", "text": CANARY}, {"type": CANARY},
)  # fmt: skip
_KEYS = ("text", "content", "type", "index", "delta", "error", "logprobs", "x_unknown", "reasoning", "id", "name")


def mutated_events(events: list[Event], rng: random.Random) -> list[Event]:
    """Events that were repeated, dropped, swapped, or of which one's JSON was mutated."""
    events = list(events)
    for _ in range(rng.randint(1, 3)):
        if not events:
            break
        at = rng.randrange(len(events))
        match rng.randrange(8):
            case 0:
                events.insert(rng.randrange(len(events) + 1), events[at])
            case 1:
                del events[at]
            case 2:
                other = rng.randrange(len(events))
                events[at], events[other] = events[other], events[at]
            case 3:
                events[at] = Event(rng.choice(events).name, events[at].data)
            case _:
                events[at] = Event(events[at].name, mutated_document(events[at].data, rng))
    return events


def mutated_document(data: bytes, rng: random.Random) -> bytes:
    """A JSON document with some of its nodes changed; what is no JSON as it is."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(rng.randint(1, 3)):
        document = _mutated(document, rng)
    return json.dumps(document, ensure_ascii=rng.random() < 0.5).encode("utf-8", "replace")


def _holders(value: Any) -> list[Any]:
    """The objects and arrays of a document."""
    found, rest = [], [value]
    while rest:
        each = rest.pop()
        if isinstance(each, dict | list):
            found.append(each)
            rest += each.values() if isinstance(each, dict) else each
    return found


def _mutated(document: Any, rng: random.Random) -> Any:
    holders = _holders(document)
    if not holders:
        return rng.choice(_VALUES)
    holder, other = rng.choice(holders), rng.choice(holders)
    names: list[Any] = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if isinstance(holder, dict) and (not names or rng.random() < 0.3):
        name = rng.choice([*_KEYS, *(other if isinstance(other, dict) else ())])
        holder[name] = _value(other, rng)
    elif not names:
        holder.append(_value(other, rng))
    elif rng.random() < 0.2:
        del holder[rng.choice(names)]
    elif isinstance(holder, list) and rng.random() < 0.3:
        holder.insert(rng.choice(names), _copy(rng.choice(holder)))
    else:
        name = rng.choice(names)
        before = holder[name]
        holder[name] = _spliced(before, rng) if isinstance(before, str) and rng.random() < 0.5 else _value(other, rng)
    return document


def _value(holder: Any, rng: random.Random) -> Any:
    """A value from the list, or one that ``holder`` holds."""
    inside = list(holder.values() if isinstance(holder, dict) else holder)
    return _copy(rng.choice(inside if inside and rng.random() < 0.3 else _VALUES))


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _spliced(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice((CANARY, "\u200b", "\ud83d", "\n\n", "<think>", "</think>", '"', "\\")) + text[at:]
