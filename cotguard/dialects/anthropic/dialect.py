"""The dialect Anthropic Messages: ``/v1/messages`` of Anthropic and of the servers that speak it, Claude on Vertex AI.

1. A message is a list of blocks, each of one type. In a stream a block has events of its own: see
   :mod:`cotguard.dialects.anthropic.stream`.
2. Signatures, and redacted thinking, are the thinking in ciphertext, whatever was redacted in the text: they are sealed
   (:mod:`cotguard.dialects.anthropic.sealed`), or left out.
3. Calls of tools that the request did not declare are dropped; what a server's own tools answer is moderated whole.
4. A cut message ends with the stop reason ``refusal``.

Source: anthropic-sdk-python ``types/``, ``types/beta/``; the API reference, "Messages".
"""

from collections.abc import Iterator, Mapping
from typing import Any

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.anthropic.format import Format, error_object
from cotguard.dialects.anthropic.sealed import REDACTED, restore, seal_message, sealed_data
from cotguard.dialects.anthropic.stream import MessagesStream
from cotguard.dialects.channels import view_of
from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Incoming, Prepared, UpstreamFault
from cotguard.dialects.request import (
    flag,
    items,
    last_user_text,
    objects,
    read_body,
    string,
    system_texts,
    texts,
    without,
)
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import UNREADABLE, moderate, read_object
from cotguard.framing.json import dumps
from cotguard.framing.sse import ServerSentEvents
from cotguard.moderation.exchange import Exchange

__all__ = ["Anthropic", "moderated", "prepare"]


class Anthropic(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`. ``form`` is what its streams are read by."""

    file = "anthropic/anthropic.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self.form = Format(self.table)

    def prepare(self, request: Incoming) -> Prepared:
        return prepare(request, self.form)

    def question(self, request: Incoming) -> dict[str, Any]:
        body = super().question(request)
        if request.seals is not None and "messages" in body:
            body["messages"] = restore(objects(body, "messages"), request.seals, string(body, "model"))
        return body

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> MessagesStream | None:
        if content_type != "text/event-stream":
            return None
        return MessagesStream(ServerSentEvents(), self.form, prepared, exchange)

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        return dumps(moderated(read_object(data, prepared.reported), self.form, prepared, exchange))

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps(error_object(kind, message))

    def reported(self, error: object, message: str) -> dict[str, object]:
        return self.form.reported(error, message)


def prepare(request: Incoming, form: Format, model: str = "") -> Prepared:
    """A request for a message. Its model, if not given, is in the body or in the path. Raises :class:`Refused`."""
    body = without(read_body(request.body), form.stripped, form.refused)
    messages = objects(body, "messages")
    model = model or string(body, "model") or request.parameters.get("model", "")
    if request.seals is not None and messages:
        body["messages"] = messages = restore(messages, request.seals, model)
    system = list(texts(body.get("system")))
    system += system_texts(messages)
    return Prepared(
        document=body,
        model=model,
        stream=flag(body, "stream"),
        facts=RequestFacts(tuple(system), last_user_text(messages)),
        tools=frozenset(name for tool in _tools(body, messages) for name in form.tool_names(tool)),
        stops=frozenset(stop for stop in items(body, "stop_sequences") if isinstance(stop, str) and stop),
        action=request.route.action,
        seals=request.seals,
    )


def _tools(body: Mapping[str, object], messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Tools declared by the request, or from one of its messages on."""
    yield from objects(body, "tools")
    for message in messages:
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            tool = block.get("tool") if isinstance(block, dict) and block.get("type") == "tool_addition" else None
            definition = tool.get("definition") if isinstance(tool, dict) else None
            if isinstance(definition, dict):
                yield definition


def moderated(message: dict[str, Any], form: Format, prepared: Prepared, exchange: Exchange) -> dict[str, Any]:
    """A whole message as it may go to the client. Raises :class:`UpstreamFault`."""
    if message.get("error"):
        raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)
    content = message.get("content")
    if not isinstance(content, list):
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, UNREADABLE)
    lane = exchange.lane(0)
    # Where the server splits the thinking off, a model's usual opening inside a thought does not apply.
    split = any(isinstance(block, dict) and block.get("type") == "thinking" for block in content)
    model = "" if split else prepared.model
    blocks = _sealed(form.declared(content, prepared.tools), prepared)
    written = moderate({**message, "content": blocks}, form.message, lane, lambda text: view_of(text.channel, model))
    for block in written["content"]:
        if block["type"] == "thinking":
            block["signature"] = ""  # clients read it
    if lane.cut:
        written["content"] = [block for block in written["content"] if block["type"] != REDACTED]
    elif prepared.seals is not None:
        seal_message(blocks, written["content"], prepared.seals, prepared.model)
    called = any(block["type"] == "tool_use" for block in written["content"])
    written["usage"] = {"input_tokens": 0, "output_tokens": 0, **(written.get("usage") or {})}
    stop = form.cut() if lane.cut else form.stop(message, prepared, called=called)
    return {"id": "", "type": "message", "role": "assistant", "model": prepared.model, **written, **stop}


def _sealed(blocks: list[dict[str, Any]], prepared: Prepared) -> list[dict[str, Any]]:
    """Blocks with redacted thinking sealed, or without it."""
    kept = []
    for block in blocks:
        if block.get("type") != REDACTED:
            kept.append(block)
        elif prepared.seals is not None and (sealed := sealed_data(block, prepared.seals, prepared.model)) is not None:
            kept.append(sealed)
    return kept
