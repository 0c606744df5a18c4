"""Chat Completions requests: checked, rid of switches that open leaks, and read for what the response side needs.

A request is written by the client, so fields without a row in the table pass; the table lists those that would widen
the response by copies of its text (stripped: the response is the same without them) and those that would change who
answers or in which form (refused: an answer without them is not what was asked for).

The body that goes upstream is written by our encoder, so that upstream and proxy read the same thing.
"""

from collections.abc import Iterator, Mapping

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.chat.format import Format
from cotguard.dialects.chat.sealed import restore
from cotguard.dialects.contract import ErrorKind, Incoming, Prepared, Refused
from cotguard.dialects.request import (
    flag,
    integer,
    items,
    last_user_text,
    objects,
    read_body,
    stops,
    stream_options,
    string,
    texts,
    without,
)

__all__ = ["MAX_CHOICES", "prepare"]

MAX_CHOICES = 16
"""Choices one request may ask for: each has its own state here."""

_SYSTEM_ROLES = frozenset({"system", "developer"})


def prepare(request: Incoming, form: Format) -> Prepared:
    """See the module. Raises :class:`Refused`."""
    body = without(read_body(request.body), form.stripped, form.refused)
    model = string(body, "model")
    if request.seals is not None and "messages" in body:
        body["messages"] = restore(objects(body, "messages"), request.seals, model)
    if body.get("modalities") not in (None, [], ["text"]):
        raise Refused(400, ErrorKind.UNSUPPORTED, "Only the modality 'text' is supported here.")
    stream = flag(body, "stream")
    options = stream_options(body, stream=stream)
    return Prepared(
        document=body,
        model=model,
        stream=stream,
        facts=RequestFacts(tuple(_system_prompts(body)), _last_user_message(body)),
        tools=frozenset(_tool_names(body)),
        stops=stops(body),
        usage_requested=options.get("include_usage") is True,
        choices=integer(body, "n", 1, MAX_CHOICES, default=1),
        seals=request.seals,
    )


def _system_prompts(body: Mapping[str, object]) -> Iterator[str]:
    for message in objects(body, "messages"):
        if message.get("role") in _SYSTEM_ROLES:
            yield from texts(message.get("content"))


def _last_user_message(body: Mapping[str, object]) -> str:
    return last_user_text(objects(body, "messages"))


def _tool_names(body: Mapping[str, object]) -> Iterator[str]:
    for tool in objects(body, "tools"):
        for form in ("function", "custom"):
            yield from _name(tool.get(form))
    for function in items(body, "functions"):
        yield from _name(function)


def _name(described: object) -> Iterator[str]:
    name = described.get("name") if isinstance(described, dict) else None
    if isinstance(name, str) and name:
        yield name
