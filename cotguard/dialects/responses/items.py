"""The items of a Responses stream: which of their texts are streamed in which events, and how far each was written.

A text's identity is its path in the final response. Its first appearance is moderated, wherever that is: in deltas, or
as a whole in an event that repeats it. Every later one is a copy, made of what was delivered.

An item holds *parts* (``content``, ``summary``), which have events of their own, *leaves*, texts in the item itself
that are streamed (``arguments``, ``input``, ``code`` ...), and fields. Parts and items are numbered as they are
written: what is dropped leaves no gap.

Source: openai-python ``types/responses/response_stream_event.py``.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["BY_EVENT", "LEAVES", "PARTS", "PART_EVENTS", "Item", "Part", "Path", "Streamed", "open_parts", "part_lists"]

Path = tuple[str | int, ...]
Said = Callable[[Hashable], str]


class Streamed(NamedTuple):
    """A text that is streamed, in the events ``event`` + ``.delta`` and ``.done``.

    ``place``: the names on the way to it within an item of type ``item``; for the text of a part the list's name alone.
    ``part``: the part's type; empty for a leaf. ``field``: the text's name in the last event, and in the part.
    ``counter``: the name in events of the last index on the way, if there is one.
    """

    event: str
    item: str
    place: tuple[str, ...]
    part: str
    channel: str
    field: str
    counter: str = ""


_STREAMED = (
    Streamed("response.output_text", "message", ("content",), "output_text", "content", "text", "content_index"),
    Streamed("response.refusal", "message", ("content",), "refusal", "refusal", "refusal", "content_index"),
    Streamed(
        "response.reasoning_text", "reasoning", ("content",), "reasoning_text", "reasoning", "text", "content_index"
    ),
    Streamed(
        "response.reasoning_summary_text",
        "reasoning",
        ("summary",),
        "summary_text",
        "reasoning",
        "text",
        "summary_index",
    ),
    Streamed("response.function_call_arguments", "function_call", ("arguments",), "", "arguments", "arguments"),
    Streamed("response.mcp_call_arguments", "mcp_call", ("arguments",), "", "arguments", "arguments"),
    Streamed("response.custom_tool_call_input", "custom_tool_call", ("input",), "", "input", "input"),
    Streamed("response.code_interpreter_call_code", "code_interpreter_call", ("code",), "", "input", "code"),
    Streamed(
        "response.shell_call_command", "shell_call", ("action", "commands"), "", "input", "command", "command_index"
    ),
    Streamed(
        "response.apply_patch_call_operation_diff", "apply_patch_call", ("operation", "diff"), "", "input", "diff"
    ),
)
BY_EVENT: Mapping[str, Streamed] = {each.event: each for each in _STREAMED}
PARTS: Mapping[tuple[str, str, str], Streamed] = {
    (each.item, each.place[0], each.part): each for each in _STREAMED if each.part
}
"""By the types of item and part, and the list between."""
LEAVES: Mapping[tuple[str, tuple[str, ...]], Streamed] = {
    (each.item, each.place): each for each in _STREAMED if not each.part
}

PART_EVENTS: Mapping[str, tuple[str, str]] = {
    "response.content_part": ("content", "content_index"),
    "response.reasoning_part": ("content", "content_index"),  # vLLM
    "response.reasoning_summary_part": ("summary", "summary_index"),
}
"""The list and the index that these events, with ``.added`` and ``.done``, are about."""

_PART_EVENT = {"content": "response.content_part", "summary": "response.reasoning_summary_part"}

_LISTS: Mapping[str, tuple[str, ...]] = {"message": ("content",), "reasoning": ("summary", "content")}
_OPTIONAL = frozenset({("reasoning", "content")})


def part_lists(item: str) -> tuple[str, ...]:
    """The lists of parts in an item, in the order in which a client reads them."""
    return _LISTS.get(item, ())


class Part:
    """A part: a text with its type. ``event`` is how the events about it begin, where one told."""

    __slots__ = ("closed", "event", "key", "path", "position", "shown", "streamed", "text_closed")

    def __init__(self, streamed: Streamed, path: Path, key: Hashable, position: int, event: str) -> None:
        self.streamed = streamed
        self.path = path
        self.key = key
        self.position = position
        self.event = event or _PART_EVENT[streamed.place[0]]
        self.shown = False  # these three: written, not only to be
        self.text_closed = False
        self.closed = False

    def document(self, text: str) -> dict[str, Any]:
        """The part with this text. Fields that clients require hold nothing."""
        copies: dict[str, Any] = {"annotations": [], "logprobs": []} if self.streamed.part == "output_text" else {}
        return {"type": self.streamed.part, self.streamed.field: text, **copies}


class Item:
    """An item. ``number`` is the upstream's index of it, ``index`` ours."""

    __slots__ = (
        "_lists",
        "closed",
        "done",
        "fields",
        "fixed",
        "id",
        "index",
        "kind",
        "leaves",
        "number",
        "original",
        "parts",
        "shown",
    )

    def __init__(self, kind: str, number: int, index: int, identity: str) -> None:
        self.kind = kind
        self.number = number
        self.index = index
        self.id = identity
        self.fields: dict[str, Any] = {}
        self.fixed: dict[Path, tuple[str, str]] = {}  # texts in no delta: as they came, as they are written
        self.parts: dict[tuple[str, int], Part] = {}  # by list and the upstream's index, in order
        self.leaves: dict[Path, Streamed] = {}  # by path, those with text
        self._lists: dict[str, None] = {name: None for name in part_lists(kind) if (kind, name) not in _OPTIONAL}
        self.original: dict[str, Any] = {}  # what is to be sealed
        self.done = False  # no more is taken
        self.shown = False  # these two: written, not only to be
        self.closed = False

    def key(self, path: Path) -> Hashable:
        """The channel of the text at this path."""
        return (self.number, *path)

    def take(self, fields: dict[str, Any]) -> None:
        """Take what a copy of the item holds, but for its id, parts and streamed texts."""
        self._lists.update(dict.fromkeys(name for name in part_lists(self.kind) if name in fields))
        self.fields = {name: value for name, value in fields.items() if name not in self._lists and name != "id"}

    def add_part(self, streamed: Streamed, at: tuple[str, int], event: str) -> Part:
        """A new part behind the others of its list."""
        name, number = at
        self._lists[name] = None
        position = sum(known == name for known, _ in self.parts)
        path: Path = (name, number, streamed.field)
        part = self.parts[at] = Part(streamed, path, self.key(path), position, event)
        return part

    def opening(self) -> dict[str, Any]:
        """The item as it is announced: without its streamed texts."""
        return {"type": self.kind, "id": self.id, **self.fields, **{name: [] for name in self._lists}}

    def document(self, said: Said) -> dict[str, Any]:
        """The item with what was delivered of its texts."""
        document = self.opening()
        for (name, _), part in self.parts.items():
            document[name].append(part.document(said(part.key)))
        for path in self.leaves:
            _put(document, path, said(self.key(path)))
        return document

    @property
    def prose(self) -> bool:
        """Whether a beginning of it is of use: half a call is not."""
        return bool(part_lists(self.kind))


def _put(document: dict[str, Any], path: Path, text: str) -> None:
    """Put a text where it stands, if what is around it is there."""
    holder: Any = document
    for step in path[:-1]:
        if isinstance(step, str) and isinstance(holder, dict) and step in holder:
            holder = holder[step]
        else:
            return
    last: Any = path[-1]
    if isinstance(holder, dict) or (isinstance(holder, list) and last < len(holder)):
        holder[last] = text


def open_parts(item: Item) -> Iterator[Part]:
    """Parts that were announced to the client and not ended."""
    return (part for part in item.parts.values() if part.shown and not part.closed)
