"""What the tests of the Responses dialect need: streams as servers write them, and what the official SDK sees."""

import copy
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai

__all__ = [
    "BUILT_IN",
    "FIXED",
    "STREAMED",
    "Field",
    "Seen",
    "coherent",
    "documents",
    "item_of",
    "sdk",
    "see",
    "server",
    "sse",
    "whole_response",
]

BUILT_IN = [{"type": kind} for kind in ("shell", "local_shell", "apply_patch", "mcp", "computer")]
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Field:
    """A text in an item: where it stands, and the name and index of the events that stream it, if any do."""

    item: Mapping[str, Any]
    path: Path
    event: str = ""
    done: str = "text"
    index: str = ""
    form: str = "text"  # or `json`: a JSON document as text, or `value`: a JSON value

    @property
    def name(self) -> str:
        return f"{self.item['type']}.{'.'.join(map(str, self.path))}"


def _message(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}


def _text(**fields: object) -> dict[str, Any]:
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": [], **fields}


def _call(kind: str, **fields: object) -> dict[str, Any]:
    return {"type": kind, "id": f"{kind}_1", "call_id": "call_1", "status": "completed", **fields}


_REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "content": []}
STREAMED = (
    Field(_message(_text()), ("content", 0, "text"), "response.output_text", index="content_index"),
    Field(
        _message({"type": "refusal", "refusal": ""}),
        ("content", 0, "refusal"),
        "response.refusal",
        "refusal",
        "content_index",
    ),
    Field(
        {**_REASONING, "content": [{"type": "reasoning_text", "text": ""}]},
        ("content", 0, "text"),
        "response.reasoning_text",
        index="content_index",
    ),
    Field(
        {**_REASONING, "summary": [{"type": "summary_text", "text": ""}]},
        ("summary", 0, "text"),
        "response.reasoning_summary_text",
        index="summary_index",
    ),
    Field(
        _call("function_call", name="send", arguments=""),
        ("arguments",),
        "response.function_call_arguments",
        "arguments",
        form="json",
    ),
    Field(_call("custom_tool_call", name="send", input=""), ("input",), "response.custom_tool_call_input", "input"),
    Field(
        {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "send", "arguments": "", "output": None},
        ("arguments",),
        "response.mcp_call_arguments",
        "arguments",
        form="json",
    ),
    Field(
        {"type": "code_interpreter_call", "id": "ci_1", "status": "completed", "code": "", "container_id": "c_1"},
        ("code",),
        "response.code_interpreter_call_code",
        "code",
    ),
    Field(
        _call("shell_call", action={"commands": [""], "timeout_ms": None}),
        ("action", "commands", 0),
        "response.shell_call_command",
        "command",
        "command_index",
    ),
    Field(
        _call("apply_patch_call", operation={"type": "update_file", "path": "a.md", "diff": ""}),
        ("operation", "diff"),
        "response.apply_patch_call_operation_diff",
        "diff",
    ),
)
_SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
_FILES = {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": []}
_TOOLS = {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s"}
FIXED = (
    Field({**_SEARCH, "action": {"type": "search", "query": ""}}, ("action", "query")),
    Field({**_SEARCH, "action": {"type": "search", "query": "x", "queries": [""]}}, ("action", "queries", 0)),
    Field({**_SEARCH, "action": {"type": "open_page", "url": ""}}, ("action", "url")),
    Field({**_SEARCH, "action": {"type": "find_in_page", "url": "x", "pattern": ""}}, ("action", "pattern")),
    Field({**_FILES, "queries": [""]}, ("queries", 0)),
    Field({**_FILES, "results": [{"file_id": "f", "score": 0.5, "text": ""}]}, ("results", 0, "text")),
    Field({**_FILES, "results": [{"file_id": "f", "filename": ""}]}, ("results", 0, "filename")),
    Field(
        {"type": "code_interpreter_call", "id": "ci_1", "code": "", "outputs": [{"type": "logs", "logs": ""}]},
        ("outputs", 0, "logs"),
    ),
    Field({"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "n", "output": ""}, ("output",)),
    Field({"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "n", "error": ""}, ("error",)),
    Field(
        {"type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "n", "error": {"message": ""}},
        ("error", "message"),
    ),
    Field({**_TOOLS, "tools": [{"name": "n", "description": ""}]}, ("tools", 0, "description")),
    Field({**_TOOLS, "tools": [{"name": "n", "input_schema": {"title": ""}}]}, ("tools", 0, "input_schema", "title")),
    Field(
        {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "n", "arguments": ""},
        ("arguments",),
        form="json",
    ),
    Field(_call("local_shell_call", action={"type": "exec", "command": [""]}), ("action", "command", 0)),
    Field(_call("local_shell_call", action={"type": "exec", "env": {"KEY": ""}}), ("action", "env", "KEY")),
    Field(_call("local_shell_call", action={"type": "exec", "working_directory": ""}), ("action", "working_directory")),
    Field(_call("local_shell_call", action={"type": "exec", "user": ""}), ("action", "user")),
    Field(_call("shell_call_output", output=[{"stdout": "", "stderr": ""}]), ("output", 0, "stdout")),
    Field(_call("shell_call_output", output=[{"stdout": "", "stderr": ""}]), ("output", 0, "stderr")),
    Field(_call("apply_patch_call", operation={"type": "delete_file", "path": ""}), ("operation", "path")),
    Field(_call("computer_call", action={"type": "type", "text": ""}), ("action", "text")),
    Field(_call("computer_call", action={"type": "keypress", "keys": [""]}), ("action", "keys", 0)),
    Field(
        _call("computer_call", action={"type": "wait"}, pending_safety_checks=[{"id": "s", "message": ""}]),
        ("pending_safety_checks", 0, "message"),
    ),
)


def item_of(field_: Field, text: str) -> dict[str, Any]:
    """The item with this text in its place."""
    item: dict[str, Any] = copy.deepcopy(dict(field_.item))
    holder: Any = item
    for step in field_.path[:-1]:
        holder = holder[step]
    holder[field_.path[-1]] = text
    return item


def whole_response(*items: Mapping[str, Any], **fields: object) -> dict[str, Any]:
    """A response as the last event repeats it."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700000000,
        "status": "completed",
        "model": "m",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "output": list(items),
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7,
        },
        **fields,
    }


def _cut(text: str, chance: random.Random) -> Iterator[str]:
    at = 0
    while at < len(text):
        size = chance.randint(1, 6)
        yield text[at : at + size]
        at += size


def _opening(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item as OpenAI announces it."""
    opening = copy.deepcopy(dict(item))
    for name in ("content", "summary", "queries", "tools", "results", "outputs"):
        if name in opening:
            opening[name] = []
    for name in ("arguments", "input", "code"):
        if name in opening:
            opening[name] = ""
    if item["type"] == "shell_call":
        opening["action"]["commands"] = []
    elif item["type"] == "apply_patch_call":
        opening["operation"]["diff"] = ""
    elif "action" in opening:
        del opening["action"]
    for name in ("output", "error", "pending_safety_checks"):
        opening.pop(name, None)
    return opening | ({"status": "in_progress"} if "status" in opening else {})


def _value(item: Mapping[str, Any], path: Path) -> str:
    value: Any = item
    for step in path:
        value = value[step]
    assert isinstance(value, str)
    return value


def server(*fields: tuple[Field, str], seed: int = 1, only: str = "") -> list[dict[str, Any]]:
    """The events in which OpenAI streams these items. ``only``: how a server does that leaves most of them out.

    ``done`` sends no deltas, ``item`` no more than each item as it ends, ``response`` only the last event.
    """
    chance = random.Random(seed)
    events: list[dict[str, Any]] = []
    started = whole_response(status="in_progress", usage=None)
    events += [{"type": f"response.{name}", "response": started} for name in ("created", "in_progress")]
    items = [item_of(each, text) | {"id": f"item_{at}"} for at, (each, text) in enumerate(fields)]
    for at, (each, text) in enumerate(fields if only != "response" else ()):
        place = {"output_index": at, "item_id": items[at]["id"]}
        if only != "item":
            opening = _opening(items[at])
            events.append({"type": "response.output_item.added", "output_index": at, "item": opening})
            events += _text_events(each, text, place, chance, deltas=only != "done")
        events.append({"type": "response.output_item.done", "output_index": at, "item": items[at]})
    events.append({"type": "response.completed", "response": whole_response(*items)})
    return events


def _logprobs(each: Field, text: str) -> dict[str, Any]:
    token = {"token": text, "bytes": list(text.encode()), "logprob": -1, "top_logprobs": [{"token": text}]}
    return {"logprobs": [token]} if each.event == "response.output_text" else {}


def _text_events(
    each: Field, text: str, place: Mapping[str, Any], chance: random.Random, *, deltas: bool
) -> list[dict[str, Any]]:
    if not each.event:
        return []
    index = {each.index: 0} if each.index else {}
    events: list[dict[str, Any]] = []
    part = ""
    full: dict[str, Any] = {}
    if each.path[0] in ("content", "summary"):
        part = f"response.{'reasoning_summary' if each.path[0] == 'summary' else 'content'}_part"
        full = item_of(each, text)[each.path[0]][0]
        empty = item_of(each, "")[each.path[0]][0]
        events.append({"type": f"{part}.added", **place, **index, "part": empty})
    if deltas:
        for piece in _cut(text, chance):
            copied = _logprobs(each, piece)
            events.append({"type": f"{each.event}.delta", **place, **index, "delta": piece, **copied})
            events[-1]["obfuscation"] = piece
    events.append({"type": f"{each.event}.done", **place, **index, each.done: text, **_logprobs(each, text)})
    if part:
        notes = {"annotations": [{"type": "url_citation", "title": text, "url": text}], **_logprobs(each, text)}
        if each.event == "response.output_text":
            full |= notes
        events.append({"type": f"{part}.done", **place, **index, "part": full})
    return events


def sse(events: Sequence[Mapping[str, Any]]) -> bytes:
    """The events on the wire, numbered."""
    numbered = ({"sequence_number": number, **event} for number, event in enumerate(events))
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in numbered)


def documents(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream; their names are their types."""
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if fields:
            found.append(json.loads(fields["data"]))
            assert fields.get("event", found[-1]["type"]) == found[-1]["type"]
    return found


def sdk(data: bytes, content_type: str = "text/event-stream") -> openai.OpenAI:
    """The SDK, with this for the answer to whatever it asks."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=data, headers={"content-type": content_type})

    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(api_key="none", base_url="http://upstream", http_client=client, max_retries=0)


@dataclass
class Seen:
    """What a user of the SDK has of a stream. ``texts``: the deltas joined, by event, item and index, in order."""

    texts: dict[tuple[str, int, int], str] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    final: dict[str, Any] | None = None
    error: str | None = None


def see(data: bytes) -> Seen:
    """Read a stream with the official SDK."""
    seen = Seen()
    try:
        with sdk(data).responses.create(model="m", input="x", stream=True) as events:
            for event in events:
                document = event.model_dump(warnings=False)
                kind = document["type"]
                if kind.endswith(".delta"):
                    numbers = [document.get(name) for name in ("content_index", "summary_index", "command_index")]
                    index = next((number for number in numbers if number is not None), 0)
                    key = (kind, document["output_index"], index)
                    seen.texts[key] = seen.texts.get(key, "") + document["delta"]
                elif kind in ("response.completed", "response.incomplete", "response.failed"):
                    seen.final = document["response"]
                if not seen.kinds or seen.kinds[-1] != kind or not kind.endswith(".delta"):
                    seen.kinds.append(kind)
    except openai.APIError as error:
        seen.error = error.code or "error"
    return seen


def coherent(events: Sequence[Mapping[str, Any]]) -> None:
    """Check a stream: numbers are dense, everything announced ends, and every copy of a text is its deltas joined."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    said: dict[tuple[object, ...], str] = {}
    items: dict[int, Mapping[str, Any]] = {}
    opened: dict[int, int] = {}
    for event in events:
        base, _, verb = event["type"].rpartition(".")
        at = event.get("output_index")
        index = next((event[name] for name in event if name.endswith("_index") and name != "output_index"), None)
        if base == "response.output_item" and verb == "added":
            assert at == len(opened)
            opened[at] = 0
            texts = [text for part in event["item"].get("content", []) for text in part.values()]
            assert not any(texts)
        elif base == "response.output_item":
            items[event["output_index"]] = event["item"]
        elif verb == "delta":
            assert at in opened
            assert at not in items
            assert event["delta"]
            assert event.get("logprobs", []) == []
            said[base, at, index] = said.get((base, at, index), "") + event["delta"]
        elif base in {each.event for each in STREAMED} and verb == "done":
            done = next(each.done for each in STREAMED if each.event == base)
            assert event[done] == said.get((base, at, index), "")
    last = events[-1]
    if last["type"] in ("response.completed", "response.incomplete"):
        output = last["response"]["output"]
        assert all(item in items.values() for item in output)
        if last["type"] == "response.completed":
            assert set(items) == set(opened)
    everything = json.dumps(list(items.values()), ensure_ascii=False)
    for (base, at, _), text in said.items():
        if isinstance(at, int) and at in items:
            assert json.dumps(text, ensure_ascii=False)[1:-1] in everything, base
