"""What the trail tells: exchanges, decisions and events. Names, numbers and keyed hashes, never content (G7).

Some names are what a client wrote (the model's, most of all). They are cut to ``_MAX_CHARS`` characters, and what
cannot be printed is replaced: a record is one line, is no longer than a pipe takes at once, and does nothing to a
terminal.
"""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum

import orjson

__all__ = ["DecisionRecord", "Event", "EventRecord", "ExchangeRecord", "Record", "encode", "timestamp", "type_of"]

_MAX_CHARS = 160
_UNPRINTABLE = "\ufffd"


class Event(StrEnum):
    """What happens beside exchanges."""

    START = "start"
    STOP = "stop"
    CONFIG_APPLIED = "config_applied"
    CONFIG_REFUSED = "config_refused"
    POLICY_WRITTEN = "policy_written"
    PROMPT_TRIED = "prompt_tried"
    AUDIT_RECOVERED = "audit_recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRecord:
    """One client request and its response, written at its end.

    ``seconds`` is its whole time; ``received`` and ``delivered`` are characters of the response's channels;
    ``decisions`` is how many records of decisions belong to it; ``failure`` is the kind of the fault that ended it.
    """

    request_id: str
    caller: str
    role: str
    route: str
    model: str
    dialect: str
    policy: str
    policy_digest: str
    upstream: str
    status: int
    outcome: str
    stream: bool
    seconds: float
    received: int
    delivered: int
    decisions: int
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """What was done about one value, written before what follows from it is delivered.

    ``direction`` is ``request`` or ``response``; ``rule`` is the index of the policy's rule, -1 for its default;
    ``start`` and ``length`` are code points of the channel; ``value`` is what ``Trail.hash`` makes of the value.
    """

    request_id: str
    caller: str
    route: str
    model: str
    dialect: str
    policy_digest: str
    direction: str
    channel: str
    entity: str
    action: str
    outcome: str
    score: float
    detector: str
    rule: int
    start: int
    length: int
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something that concerns no single exchange.

    ``process`` is its id; ``detail`` is a policy's digest or an upstream's name, and who did it where somebody did;
    ``lost`` counts records that could not be kept since the event before.
    """

    event: Event
    process: int
    detail: str = ""
    lost: int = 0


Record = ExchangeRecord | DecisionRecord | EventRecord

_TYPES: dict[type[Record], str] = {ExchangeRecord: "exchange", DecisionRecord: "decision", EventRecord: "event"}
_FIELDS = {record: tuple(field.name for field in fields(record)) for record in _TYPES}


def type_of(record: Record) -> str:
    """What the record's field ``type`` says."""
    return _TYPES[type(record)]


def encode(record: Record, seconds: float) -> bytes:
    """The record, made ``seconds`` after 1970, as fields of a JSON object that is still open at both ends."""
    told = orjson.dumps({name: _clean(getattr(record, name)) for name in _FIELDS[type(record)]})
    return b'"time":"%s","type":"%s",%s' % (timestamp(seconds).encode(), type_of(record).encode(), told[1:-1])


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds: all are equally long, so their order as text is that in time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _clean(value: str | float) -> str | float:
    if not isinstance(value, str) or (value.isprintable() and len(value) <= _MAX_CHARS):
        return value
    return "".join(char if char.isprintable() else _UNPRINTABLE for char in value[:_MAX_CHARS])
