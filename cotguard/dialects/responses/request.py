"""Responses requests: checked, rid of switches that open leaks, and read for what the response side needs.

1. Nothing is kept upstream: ``store`` is false in every request, since what is stored can be fetched unmoderated, past
   this proxy. So references to stored things (``previous_response_id``, ``conversation``, items by id) are refused, as
   they would find nothing, and the ids of messages and calls in the history are taken out, for they would be looked up.
2. Reasoning in the history that has neither text nor ciphertext stands for something stored too: it is left out.
3. ``include`` keeps the values that ask for text which is moderated here, and for encrypted reasoning where that is
   sealed; the others ask for copies and ciphertext. Sealed reasoning in the history is as it was again.

The body that goes upstream is written by our encoder, so that upstream and proxy read the same thing.

Source: OpenAI API reference, "Create a response".
"""

from collections.abc import Iterator, Mapping
from typing import Any

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.contract import ErrorKind, Incoming, Prepared, Refused
from cotguard.dialects.request import (
    bad,
    flag,
    items,
    last_user_text,
    objects,
    read_body,
    string,
    texts,
    without,
)
from cotguard.dialects.responses.sealed import restore
from cotguard.dialects.table import Table
from cotguard.sealing.seals import Seals

__all__ = ["Switches", "prepare", "tool_of"]

_STATEFUL = ("background", "conversation", "previous_response_id")
_SYSTEM_ROLES = frozenset({"system", "developer"})
_LOOKED_UP = frozenset({"message", "function_call"})
_ENCRYPTED = "reasoning.encrypted_content"

_TOOLS: Mapping[str, tuple[str, ...]] = {
    "shell_call": ("shell",),
    "local_shell_call": ("local_shell",),
    "apply_patch_call": ("apply_patch",),
    "computer_call": ("computer", "computer_use_preview"),
    "mcp_approval_request": ("mcp",),
}
"""Items that the client acts upon, and the types of the tools that they need."""

_NAMED = frozenset({"function_call", "custom_tool_call"})


class Switches:
    """What the table says of requests."""

    def __init__(self, table: Table) -> None:
        self.stripped = table.names("request", "strip")
        self.refused = table.names("request", "refuse")
        self.include = table.names("request", "include")
        self.reasons = {name: table.text("reasons", name) for name in (*_STATEFUL, "item_reference")}


def prepare(request: Incoming, switches: Switches) -> Prepared:
    """See the module. Raises :class:`Refused`."""
    body = read_body(request.body)
    for name in _STATEFUL:
        if body.pop(name, None) not in (None, False):
            raise Refused(400, ErrorKind.UNSUPPORTED, switches.reasons[name])
    body = without(body, switches.stripped, switches.refused)
    stream = flag(body, "stream")
    body["store"] = False
    if "include" in body:
        included = switches.include if request.seals is None else switches.include | {_ENCRYPTED}
        body["include"] = [each for each in items(body, "include") if _word(each) in included]
    _quiet(body)
    model = string(body, "model")
    history = _history(body, switches, request.seals, model)
    return Prepared(
        document=body,
        model=model,
        stream=stream,
        facts=RequestFacts(tuple(_system_prompts(body, history)), _last_user_message(body, history)),
        tools=frozenset(_tools(objects(body, "tools"))),
        action=request.route.action,
        seals=request.seals,
    )


def tool_of(item: Mapping[str, Any], tools: frozenset[str]) -> bool:
    """Whether an item of a response is no call that the client acts upon, or one of a tool that it declared."""
    kind = _word(item.get("type"))
    if kind in _NAMED:
        space = item.get("namespace")
        return _word(item.get("name")) in tools and (space is None or _word(space) in tools)
    return kind not in _TOOLS or any(_marked(each) in tools for each in _TOOLS[kind])


def _word(value: object) -> str:
    """A string; empty for anything else."""
    return value if isinstance(value, str) else ""


def _marked(kind: str) -> str:
    """The type of a tool, told apart from names."""
    return f":{kind}"


def _quiet(body: dict[str, Any]) -> None:
    """Turn obfuscation off where the client names it: the padding would not fit. There are no other options."""
    options = body.pop("stream_options", None)
    if options is not None and not isinstance(options, dict):
        raise bad("The field 'stream_options' must be an object.")
    if options and "include_obfuscation" in options:
        body["stream_options"] = {"include_obfuscation": False}


def _history(body: dict[str, Any], switches: Switches, seals: Seals | None, model: str) -> list[dict[str, Any]]:
    """The items of the input; written back without what stands for something stored, and with what was sealed."""
    if isinstance(body.get("input"), str):
        return []
    kept = []
    for item in objects(body, "input"):
        kind = _word(item.get("type"))
        if kind == "item_reference" or (not kind and item.keys() <= {"id", "type"}):
            raise Refused(400, ErrorKind.UNSUPPORTED, switches.reasons["item_reference"])
        if kind == "reasoning" and not item.get("encrypted_content") and not item.get("content"):
            continue
        if kind in _LOOKED_UP:
            item = {name: value for name, value in item.items() if name != "id"}
        kept.append(item if seals is None else restore(item, seals, model))
    if "input" in body:
        body["input"] = kept
    return kept


def _system_prompts(body: Mapping[str, Any], history: list[dict[str, Any]]) -> Iterator[str]:
    instructions = body.get("instructions")
    if isinstance(instructions, str):
        yield instructions
    messages = objects(body, "instructions") if isinstance(instructions, list) else []
    for message in (*messages, *history):
        if _word(message.get("role")) in _SYSTEM_ROLES:
            yield from texts(message.get("content"))


def _last_user_message(body: Mapping[str, Any], history: list[dict[str, Any]]) -> str:
    said = body.get("input")
    if isinstance(said, str):
        return said
    return last_user_text(history)


def _tools(declared: list[dict[str, Any]]) -> Iterator[str]:
    """Names of functions, in namespaces too, and the marked types of all tools."""
    for tool in declared:
        kind, name = tool.get("type"), tool.get("name")
        if isinstance(name, str) and name:
            yield name
        if isinstance(kind, str):
            yield _marked(kind)
        yield from _tools(objects(tool, "tools"))
