"""Responses of upstreams that somebody recorded, made ready to be moderated as if they came now.

A recording has no request beside it. So one is made up that fits: of the model that the response names, with the tools
that it calls declared, and as many choices as it has. A stream is cut into its events; a whole body is one piece.

Known limit: a server that sends the name of a tool in pieces is taken for one that changes it.
"""

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from cotguard.dialects.catalogue import dialects
from cotguard.dialects.contract import Dialect, Incoming, Prepared, Upload
from cotguard.framing.aws_event_stream import AwsEventStream
from cotguard.framing.bedrock import Chunks, Padded
from cotguard.framing.contract import Event, Framing, FramingError
from cotguard.framing.json import JSONError, dumps, loads
from cotguard.framing.json_array import JSONArray
from cotguard.framing.ndjson import NDJSON
from cotguard.framing.sse import ServerSentEvents

__all__ = ["JSON_TYPE", "SSE_TYPE", "Recorded", "cut", "dialect_named", "read", "readable"]

SSE_TYPE: Final = "text/event-stream"
JSON_TYPE: Final = "application/json"
_NDJSON_TYPE: Final = "application/x-ndjson"
_AWS_TYPE: Final = "application/vnd.amazon.eventstream"

_MAX_CHOICES: Final = 16
_BUILT_IN: Final = frozenset(
    f":{kind}" for kind in ("shell", "local_shell", "apply_patch", "computer", "computer_use_preview", "mcp")
)
"""What stands for tools of the Responses API that have no names."""

_EVENT_END = re.compile(rb"(?>\r\n|\r|\n){2,}")
_SPACES: Final = b" \t\r\n\xef\xbb\xbf"
_FRAME_LENGTH = struct.Struct("!I")
_CHUNK: Final = "chunk"

_BEDROCK_MODELS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "anthropic": ("anthropic.claude", {"messages": []}),
    "nova": ("amazon.nova-lite", {"messages": []}),
    "titan": ("amazon.titan-text-express", {"inputText": "x"}),
    "llama": ("meta.llama", {"prompt": "x"}),
    "mistral": ("mistral.mistral", {"prompt": "x"}),
    "deepseek": ("deepseek.r1", {"prompt": "x"}),
}
_BEDROCK_FORMS: Mapping[str, str] = {
    "messageStart": "nova",
    "contentBlockDelta": "nova",
    "outputText": "titan",
    "results": "titan",
    "generation": "llama",
    "outputs": "mistral",
    "choices": "deepseek",
}
"""What a model's own format is told by: a name in one of its documents."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A response. ``content_type`` is that of a stream; a whole body has none. ``pieces`` are its bytes, in order."""

    dialect: Dialect
    prepared: Prepared
    content_type: str | None
    pieces: Sequence[bytes]


@cache
def _known() -> Mapping[str, Dialect]:
    return {dialect.name: dialect for dialect in dialects()}


def dialect_named(name: object) -> Dialect:
    """The dialect of that name. Raises ``ValueError``."""
    found = _known().get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"source.dialect: write one of: {', '.join(_known())}")
    return found


def read(dialect: Dialect, data: bytes) -> Recorded:
    """A response of ``dialect``, made ready."""
    content_type = _content_type(dialect.name, data)
    events = [Event("", data)] if content_type is None else _events(_FRAMINGS[content_type](), data)
    invoked = any(event.name == _CHUNK for event in events)
    if invoked:
        events = _events(Chunks(), data)
    asked = _Asked(dialect.name, content_type, invoked=invoked)
    for event in events:
        asked.note(_document(event.data))
    return Recorded(dialect, asked.prepared(dialect), content_type, cut(content_type, data))


def cut(content_type: str | None, data: bytes) -> list[bytes]:
    """The bytes of a stream, cut behind each of its events; those of a whole body in one piece."""
    if content_type is None:
        return [data]
    if content_type == _AWS_TYPE:
        ends = _ends_of_frames(data)
    elif content_type == _NDJSON_TYPE:
        ends = (found.end() for found in re.finditer(rb"\n", data))
    elif content_type == SSE_TYPE:
        ends = (found.end() for found in _EVENT_END.finditer(data))
    else:
        ends = _ends_of_elements(data)
    pieces: list[bytes] = []
    at = 0
    for end in ends:
        pieces.append(data[at:end])
        at = end
    return [*pieces, data[at:]] if at < len(data) else pieces


def readable(content_type: str | None, data: bytes) -> str:
    """What a client gets, as text: binary frames are told as events, and what models of Bedrock's own send as such."""
    if content_type != _AWS_TYPE:
        return data.decode("utf-8", "replace")
    events = _events(AwsEventStream(), data)
    if any(event.name == _CHUNK for event in events):
        events = [Event(event.name or _CHUNK, event.data) for event in _events(Chunks(), data)]
    return "".join(f"event: {event.name}\ndata: {event.data.decode('utf-8', 'replace')}\n\n" for event in events)


def _content_type(name: str, data: bytes) -> str | None:
    first = data.lstrip(_SPACES)[:1]
    if first == b"{":
        return _NDJSON_TYPE if name == "ollama" and _document(data) is None else None
    if first == b"[":
        return JSON_TYPE if name == "gemini" else None
    if name == "bedrock":
        return _AWS_TYPE
    return _NDJSON_TYPE if name == "ollama" else SSE_TYPE


def _document(data: bytes) -> Any:
    try:
        return loads(data)
    except JSONError:
        return None


def _events(framing: Framing, data: bytes) -> list[Event]:
    """The events of a stream, if they can be read."""
    try:
        blocks = framing.feed(data)
        blocks += framing.end()
        return [event for block in blocks if (event := framing.parse(block)) is not None]
    except FramingError:  # it is told where it is moderated
        return []


_FRAMINGS: Mapping[str, Callable[[], Framing]] = {
    SSE_TYPE: ServerSentEvents,
    _NDJSON_TYPE: NDJSON,
    JSON_TYPE: JSONArray,
    _AWS_TYPE: Padded,
}


def _ends_of_frames(data: bytes) -> Iterator[int]:
    at = 0
    while at + _FRAME_LENGTH.size <= len(data):
        (length,) = _FRAME_LENGTH.unpack_from(data, at)
        at += max(length, _FRAME_LENGTH.size)
        if at > len(data):
            return
        yield at


def _ends_of_elements(data: bytes) -> Iterator[int]:
    """Behind each element of a JSON array, by its braces outside of strings."""
    depth = 0
    for found in re.finditer(rb'"(?:[^"\\]|\\.)*+"|[{}]', data, re.DOTALL):
        if found[0] == b"{":
            depth += 1
        elif found[0] == b"}":
            depth -= 1
            if not depth:
                yield found.end()


class _Asked:
    """What must have been asked for a response. ``invoked``: of a model of Bedrock's, in its own format."""

    def __init__(self, dialect: str, content_type: str | None, *, invoked: bool) -> None:
        self._dialect = dialect
        self._streamed = content_type is not None
        self._array = content_type == JSON_TYPE
        self._invoked = invoked
        self._model = ""
        self._tools: set[str] = set()
        self._choices = 1
        self._keys: set[str] = set()

    def note(self, document: Any) -> None:
        """Take the document of an event, or a whole body."""
        listed = document if isinstance(document, list) else [document]
        self._choices = max(self._choices, len(listed))
        for each in listed:
            if isinstance(each, dict):
                self._keys |= each.keys()
                if each.get("type") in ("message", "message_start"):
                    self._keys.add("anthropic")
                if "meta_info" in each or self._dialect == "llamacpp":
                    self._count(each.get("index"))
        self._walk(document)

    def _walk(self, value: Any) -> None:
        if isinstance(value, list):
            for each in value:
                self._walk(each)
        elif isinstance(value, dict):
            for name, each in value.items():
                if isinstance(each, str):
                    self._note_text(name, each)
                    continue
                if name in ("choices", "candidates") and isinstance(each, list):
                    for item in each:
                        self._count(item.get("index") if isinstance(item, dict) else None)
                self._walk(each)

    def _note_text(self, name: str, text: str) -> None:
        if name in ("name", "namespace"):
            self._tools.add(text)
        elif name in ("model", "modelVersion") and not self._model:
            self._model = text

    def _count(self, index: object) -> None:
        if type(index) is int:
            self._choices = max(self._choices, index + 1)

    def prepared(self, dialect: Dialect) -> Prepared:
        """The request, as its dialect reads it."""
        action, parameters, document = self._request(self._model or "m")
        route = next(route for route in dialect.routes if route.action == action)
        query = {"alt": "sse"} if self._dialect == "gemini" and self._streamed and not self._array else {}
        incoming = Incoming(route, parameters, query, dumps(document))
        if route.multipart:
            fields = [("model", self._model or "m"), ("stream", "true" if self._streamed else "false")]
            incoming = Incoming(route, {}, {}, b"", fields=fields, file=Upload("a.wav", "audio/wav", b""))
        return replace(
            dialect.prepare(incoming),
            tools=frozenset(self._tools) | _BUILT_IN,
            choices=min(self._choices, _MAX_CHOICES),
            usage_requested=True,
        )

    def _request(self, model: str) -> tuple[str, dict[str, str], dict[str, Any]]:
        """The action, what stands in the path, and the document."""
        streamed = {"stream": self._streamed}
        talk: dict[str, Any] = {"model": model, "messages": [], **streamed}
        prompt: dict[str, Any] = {"model": model, "prompt": "x", **streamed}
        match self._dialect:
            case "completions" | "llamacpp":
                return "complete", {}, prompt
            case "responses" | "interactions":
                return "create", {}, {"model": model, "input": "x", **streamed}
            case "anthropic":
                return "messages", {}, talk
            case "gemini":
                return "stream" if self._streamed else "generate", {"model": model}, {"contents": []}
            case "ollama":
                return ("chat", {}, talk) if "message" in self._keys else ("generate", {}, prompt)
            case "bedrock":
                return self._bedrock()
            case "generate":
                if "meta_info" in self._keys:
                    return "generate", {}, {"text": "x", **streamed}
                return "generate_stream" if self._streamed else "generate", {}, {"inputs": "x"}
            case "mistral_conversations":
                return "start", {}, {"model": model, "inputs": "x", **streamed}
            case "transcription":
                return "transcribe", {}, {}
            case _:
                return "chat", {}, talk

    def _bedrock(self) -> tuple[str, dict[str, str], dict[str, Any]]:
        form = next((form for name, form in _BEDROCK_FORMS.items() if name in self._keys), "")
        if "anthropic" in self._keys:
            form = "anthropic"
        if form and (self._invoked or not self._streamed):
            model, document = _BEDROCK_MODELS[form]
            return "invoke-stream" if self._streamed else "invoke", {"model": model}, document
        return "converse-stream" if self._streamed else "converse", {"model": "m"}, {"messages": []}
