"""What the tests of all dialects need: requests, exchanges, streams in pieces, spoiled documents."""

import base64
import json
from collections.abc import Mapping

from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.detectors.registry import build
from cotguard.dialects.contract import Dialect, Incoming, Prepared, UpstreamFault
from cotguard.moderation.exchange import Exchange
from cotguard.policy import Policy, parse

__all__ = ["CANARY", "ask", "body", "exchange", "policy", "shadow", "spellings", "spoil", "stream"]

CANARY = "canary-7hq2-word"
SHADOW = "version: 1\nname: t\nmode: shadow\nrules:\n  - entities: [ALL]\n    action: redact\n"
Moderation = tuple[Policy, tuple[Detector, ...]]


def ask(
    dialect: Dialect,
    action: str,
    document: object,
    parameters: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> Prepared:
    """The prepared request with ``document`` for its body, on the dialect's first route for ``action``."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    route = next(route for route in dialect.routes if route.action == action)
    return dialect.prepare(Incoming(route, parameters or {}, query or {}, data))


def policy(action: str, *values: str, entity: str = "ALL") -> Moderation:
    """A policy that does ``action`` about everything, or about ``entity``, and knows ``values``."""
    known = f"known_values:\n  values: {json.dumps(values)}\n" if values else ""
    text = f"version: 1\nname: t\nclassifier: false\nrules:\n  - entities: [{entity}]\n    action: {action}\n{known}"
    parsed = parse(text, "t.yaml", None)
    return parsed, build(parsed)


def shadow(detectors: tuple[Detector, ...] = ()) -> Moderation:
    """A policy that alters nothing, with these detectors at work."""
    return parse(SHADOW, "t.yaml", None), detectors


def exchange(moderation: Moderation, facts: RequestFacts | None = None) -> Exchange:
    """An exchange whose hashes and pseudonyms are the same every time."""
    return Exchange(*moderation, facts or RequestFacts(), b"k" * 16, exchange_key=b"e" * 16)


def stream(
    dialect: Dialect,
    prepared: Prepared,
    moderation: Moderation,
    data: bytes,
    content_type: str = "text/event-stream",
    size: int = 10**9,
) -> bytes:
    """What the client gets of a streamed body that is read in pieces of ``size`` bytes."""
    translator = dialect.stream(prepared, exchange(moderation, prepared.facts), content_type)
    assert translator is not None
    out = b""
    try:
        for at in range(0, len(data), size):
            out += translator.receive(data[at : at + size])
            if translator.finished:
                return out
        out += translator.end()
    except UpstreamFault as fault:
        out += translator.fail(fault.kind, fault.message)
    return out


def body(dialect: Dialect, prepared: Prepared, moderation: Moderation, data: bytes) -> bytes:
    """What the client gets of a whole body."""
    return dialect.body(data, prepared, exchange(moderation, prepared.facts))


def spoil(value: object, depth: int = 0) -> object:
    """The same JSON with the canary under unknown keys, and under keys of copies, in every object."""
    if isinstance(value, dict):
        spoiled = {name: spoil(each, depth + 1) for name, each in value.items()}
        extra = {f"x_{depth}": CANARY, "logprobs": {"content": [{"token": CANARY}]}, "text_": [CANARY]}
        return {**extra, **spoiled}
    if isinstance(value, list):
        return [spoil(each, depth + 1) for each in value]
    return value


def spellings(value: str) -> list[bytes]:
    """A value as a body could hold it: raw, escaped, in base64, as a list of bytes."""
    data = value.encode()
    return [
        data,
        json.dumps(value)[1:-1].encode(),
        base64.b64encode(data).rstrip(b"=")[:-2],
        data.hex().encode(),
        ", ".join(map(str, data)).encode(),
        ",".join(map(str, data)).encode(),
    ]
