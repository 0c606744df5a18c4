"""Amazon Bedrock's wire for tests: what an upstream sends, and what the official client makes of what it gets."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.awsrequest import AWSResponse  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError, EventStreamError  # type: ignore[import-untyped]

from cotguard.framing.aws_event_stream import EXCEPTION, AwsEventStream
from cotguard.framing.bedrock import Chunks
from cotguard.framing.contract import Event

__all__ = ["STREAM", "Seen", "answered", "chunks", "client", "frames", "see_body", "see_stream", "told"]

STREAM = "application/vnd.amazon.eventstream"
PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
Document = Mapping[str, Any]


def frames(events: Iterable[tuple[str, Document]], padded: bool = True) -> bytes:
    """Frames as Converse streams them: with padding of any length behind the rest of the payload."""
    out = b""
    for at, (name, document) in enumerate(events):
        padding = {"p": PADDING[: at * 7 % 62]} if padded and not name.startswith(EXCEPTION) else {}
        out += AwsEventStream().write(Event(name, json.dumps({**document, **padding}, separators=(",", ":")).encode()))
    return out


def chunks(documents: Iterable[Document]) -> bytes:
    """Frames as InvokeModel streams them."""
    return b"".join(Chunks().write(Event("", json.dumps(each).encode())) for each in documents)


class _Raw:
    """An HTTP body."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self, **_: object) -> Iterator[bytes]:
        data, self._data = self._data, b""
        for at in range(0, len(data), 999):
            yield data[at : at + 999]

    def read(self, *_: object) -> bytes:
        data, self._data = self._data, b""
        return data

    def close(self) -> None:
        pass


def client(url: str = "http://127.0.0.1:1") -> Any:
    """The official client, which signs."""
    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="AKIDCLIENT",
        aws_secret_access_key="client-secret",
        aws_session_token="client-session",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=20),
    )


_ANSWER = {"status": 200, "headers": {}, "data": b""}
_CLIENTS: list[Any] = []


def _answer(request: Any, **_: object) -> AWSResponse:
    return AWSResponse(request.url, _ANSWER["status"], _ANSWER["headers"], _Raw(_ANSWER["data"]))  # type: ignore[arg-type]


def answered(data: bytes, content_type: str, status: int = 200) -> Any:
    """The official client, whose next answer is ``data``: nothing is sent."""
    if not _CLIENTS:  # one for all: reading the service's description takes a while
        _CLIENTS.append(client())
        _CLIENTS[0].meta.events.register("before-send.*.*", _answer)
    _ANSWER.update(status=status, headers={"Content-Type": content_type}, data=data)
    return _CLIENTS[0]


@dataclass
class Seen:
    """What a user of the client has of a response. ``order``: kinds of blocks, each run once."""

    text: str = ""
    reasoning: str = ""
    order: list[str] = field(default_factory=list)
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    citations: list[Any] = field(default_factory=list)
    role: str = ""
    stop: str = ""
    usage: object = None
    metrics: object = None
    error: str = ""
    indexes: list[int] = field(default_factory=list)

    def run(self, kind: str) -> None:
        """A piece of a block of this kind."""
        if self.order[-1:] != [kind]:
            self.order.append(kind)


def see_stream(stream: Iterable[Mapping[str, Any]]) -> Seen:
    """The events of ConverseStream, put together."""
    seen = Seen()
    inputs: dict[int, list[str]] = {}
    starts: dict[int, Mapping[str, str]] = {}
    ended: set[int] = set()
    try:
        for event in stream:
            ((name, value),) = event.items()
            index = value.get("contentBlockIndex", -1)
            assert index not in ended or name == "contentBlockStop"
            if index >= 0 and index not in seen.indexes:
                seen.indexes.append(index)
            if name == "messageStart":
                seen.role = value["role"]
            elif name == "contentBlockStart":
                (kind,) = value["start"]
                seen.run(kind)
                if kind == "toolUse":
                    starts[index], inputs[index] = value["start"]["toolUse"], []
            elif name == "contentBlockDelta":
                _take(seen, value["delta"], inputs.get(index, []))
            elif name == "contentBlockStop":
                assert index not in ended
                ended.add(index)
                if index in starts:
                    use = starts[index]
                    seen.calls.append((use["name"], use["toolUseId"], json.loads("".join(inputs[index]) or "{}")))
            elif name == "messageStop":
                seen.stop = value.get("stopReason", "")
            else:
                assert name == "metadata"
                seen.usage, seen.metrics = value.get("usage"), value.get("metrics")
    except EventStreamError as error:
        seen.error = f"{error.response['Error']['Code']}: {error.response['Error']['Message']}"
    assert seen.indexes == list(range(len(seen.indexes)))
    return seen


def _take(seen: Seen, delta: Mapping[str, Any], into: list[str]) -> None:
    ((kind, value),) = delta.items()
    if kind == "text":
        if value:
            seen.run("text")
        seen.text += value
    elif kind == "reasoningContent":
        if value.get("text"):
            seen.run("reasoningContent")
        seen.reasoning += value.get("text", "")
    elif kind == "toolUse":
        into.append(value["input"])
    elif kind == "toolResult":
        seen.results += value
    elif kind == "citation":
        seen.citations.append(value)


def see_body(response: Mapping[str, Any]) -> Seen:
    """The answer of Converse."""
    message = response["output"]["message"]
    seen = Seen(role=message["role"], stop=response.get("stopReason", ""), usage=response.get("usage"))
    seen.metrics = response.get("metrics")
    for block in message["content"]:
        ((kind, value),) = block.items()
        if kind == "text":
            seen.run("text")
            seen.text += value
        elif kind == "reasoningContent" and "reasoningText" in value:
            seen.run(kind)
            seen.reasoning += value["reasoningText"]["text"]
        elif kind == "toolUse":
            seen.run(kind)
            seen.calls.append((value["name"], value["toolUseId"], value["input"]))
        elif kind == "toolResult":
            seen.run(kind)
            seen.results.append(value)
        elif kind == "citationsContent":
            seen.run(kind)
            seen.text += "".join(each["text"] for each in value["content"])
            seen.citations += value["citations"]
    return seen


def told(error: ClientError) -> tuple[str, str]:
    """The code and the message that the client shows."""
    return error.response["Error"]["Code"], error.response["Error"]["Message"]
