"""Dialect tables: which strings of a JSON shape are which channel, which scalars are structure.

A table is a YAML file of sections. A section maps paths to meanings, in the order in which a client reads the texts:

    message:
      reasoning_content: reasoning                          # text of a channel
      content: content                                      # a string ...
      content[text].text: content                           # ... or a list of parts, told apart by their `type`
      tool_calls[].index: index                             # items of any type
      queries[]: other                                      # items that are texts themselves
      delta[text_delta].text: content                       # one object, told apart by its `type`

A meaning is a channel name (the caller's), one of ``CHECKS`` (structure that passes where the check holds) or the name
of one of the table's ``enums``. One place may have several rows, one for each JSON type it comes in. An object of a
type that has rows with other types only is dropped.

There are two ways to read. :meth:`Shape.read` gives each text with the smallest object that carries it, for streams
whose events are merged by the client field by field. :meth:`Shape.copy` gives the whole object with places for texts.

Guarantees: what either returns holds strings only as a channel's text, or where a check let them through (G3).
Everything without a row is dropped, so is a scalar that fails its check. A value of the wrong type at a place that
holds moderated text or leads to one is a fault: it cannot be told what a client would make of it.

Limit: an identifier that passes its check may still be chosen by the model; checks bound its alphabet and length.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml

from cotguard.dialects.channels import STRUCTURED
from cotguard.dialects.contract import ErrorKind, Route, UpstreamFault
from cotguard.dialects.definitions import Definitions
from cotguard.framing.json import dumps, loads
from cotguard.sealing.seals import is_token

__all__ = [
    "CHECKS",
    "HOLE",
    "Check",
    "Document",
    "Place",
    "Reading",
    "Shape",
    "Step",
    "Table",
    "Text",
    "fill",
    "matching",
]

HOLE = "\0"
"""Stands for a channel's text in a fragment. No check lets a string with this character through."""

Check = Callable[[object], bool]


_TOKEN = re.compile(r"[A-Za-z0-9_-]+")

_MAX_INDEX = 1023
_MAX_NUMBER = 2**53
_MAX_NAME = 256


def matching(pattern: str) -> Check:
    """A check for strings that match ``pattern`` as a whole."""
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _is_number(value: object) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return math.isfinite(value) and abs(value) <= _MAX_NUMBER
    return value is None


CHECKS: Mapping[str, Check] = {
    "id": matching(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,95}"),
    "model": matching(r"[A-Za-z0-9][A-Za-z0-9_.:@/+ -]{0,127}"),
    "word": matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"),
    "time": matching(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,18}(Z|[+-][0-9]{2}:[0-9]{2})"),
    "number": _is_number,
    "boolean": lambda value: type(value) is bool,
    "index": lambda value: type(value) is int and 0 <= value <= _MAX_INDEX,
    # What seals something: never what an upstream sent.
    "token": lambda value: is_token(value) and isinstance(value, str) and _TOKEN.fullmatch(value) is not None,
    # Read but never written unless the caller finds it among the names that the request declared.
    "name": lambda value: isinstance(value, str) and len(value) <= _MAX_NAME,
}
"""Structure by name. Numbers are finite and exact in every JSON parser, or null; booleans are no numbers."""

Step = str | int


@dataclass(frozen=True, slots=True)
class Place:
    """One text found: the channel's name, where it stood, and the smallest object that carries it, with a hole."""

    channel: str
    path: tuple[Step, ...]
    text: str = field(repr=False)
    fragment: dict[str, object]

    def within(self, step: Step, fragment: dict[str, object]) -> "Place":
        """The same place, seen from one level further out."""
        return Place(self.channel, (step, *self.path), self.text, fragment)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an object holds by a shape: scalars that passed, text places without text (null or ""), and texts."""

    structure: dict[str, object]
    empties: dict[str, object]
    places: list[Place]


@dataclass(slots=True)
class Text:
    """A text of a document: its channel, and where it stood in the original and stands in the copy.

    ``structured``: the place holds a JSON value; ``text`` is the document of it.
    """

    channel: str
    origin: tuple[Step, ...]
    path: tuple[Step, ...]
    text: str = field(repr=False)
    structured: bool = False


@dataclass(slots=True)
class Document:
    """A copy of an object with what a table lets through. Its ``texts``, in order, stand as empty strings in it."""

    root: dict[str, Any] = field(repr=False)
    texts: list[Text]

    def put(self, at: Text, text: str) -> None:
        """Put ``text`` where ``at`` stands; the value of it if the place is structured."""
        holder: Any = self.root
        for step in at.path[:-1]:
            holder = holder[step]
        holder[at.path[-1]] = loads(text.encode("utf-8", "surrogatepass")) if at.structured else text


class _Node:
    """What may stand at one place, one attribute for each JSON type."""

    __slots__ = ("channel", "check", "fields", "items")

    def __init__(self) -> None:
        self.check: Check | None = None
        self.channel: str | None = None
        self.fields: dict[str, _Node] = {}
        self.items: dict[str | None, _Node] = {}  # by `type`; None: any


class Shape:
    """One section of a table, compiled. ``ValueError`` names the row that cannot be read."""

    _PATH = re.compile(r"[\w-]+(\[[\w.-]*\])?(\.[\w-]+(\[[\w.-]*\])?)*")
    _STEP = re.compile(r"([\w-]+)(?:\[([\w.-]*)\])?(?:\.|$)")

    def __init__(self, rows: Mapping[str, str], channels: Sequence[str], checks: Mapping[str, Check]) -> None:
        self._root = _Node()
        for path, meaning in rows.items():
            node = self._at(path)
            if meaning in channels:
                node.channel = meaning
            elif meaning in checks:
                node.check = checks[meaning]
            else:
                raise ValueError(f"{path}: {meaning!r} is neither a channel, nor a check, nor an enum")
        _spread(self._root)

    def _at(self, path: str) -> _Node:
        if self._PATH.fullmatch(path) is None:
            raise ValueError(f"{path!r} is not a path like `a.b[].c` or `a[type].b`")
        node = self._root
        for match in self._STEP.finditer(path):
            node = node.fields.setdefault(match[1], _Node())
            if match[2] is not None:
                node = node.items.setdefault(match[2] or None, _Node())
        return node

    def copy(self, value: Mapping[str, object]) -> Document:
        """Copy an object. Raises :class:`UpstreamFault` on a wrong type at or above a text's place."""
        texts: list[Text] = []
        return Document(_copy(self._root, value, (), (), texts), texts)

    def read(self, value: Mapping[str, object]) -> Reading:
        """Read an object. Raises :class:`UpstreamFault` on a wrong type at or above a text's place."""
        return _read(self._root, value)


def _spread(node: _Node) -> None:
    """Let rows for items of any type hold for the typed ones as well, down to every depth."""
    general = node.items.get(None)
    for kind, item in node.items.items():
        if general is not None and kind is not None:
            for name, child in general.fields.items():
                item.fields.setdefault(name, child)
    for child in (*node.fields.values(), *node.items.values()):
        _spread(child)


def _read(node: _Node, value: Mapping[str, object]) -> Reading:
    structure: dict[str, object] = {}
    empties: dict[str, object] = {}
    found: list[Place] = []
    for name, child in node.fields.items():
        if name not in value:
            continue
        item = value[name]
        if child.channel is not None and (item is None or item == ""):
            empties[name] = item
        elif child.channel is not None and isinstance(item, str):
            found.append(Place(child.channel, (name,), item, {name: HOLE}))
        elif isinstance(item, list) and child.items:
            found.extend(place.within(name, {name: [place.fragment]}) for place in _read_items(child, item))
        elif isinstance(item, dict) and child.fields:
            inner = _read(child, item)
            if inner.structure:
                structure[name] = inner.structure
            found.extend(place.within(name, {name: place.fragment}) for place in inner.places)
        elif child.check is not None:
            if child.check(item):
                structure[name] = item
        elif item is not None:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's response has a field of the wrong type.")
    if structure:
        found = [Place(at.channel, at.path, at.text, structure | at.fragment) for at in found]
    return Reading(structure, empties, found)


def _read_items(node: _Node, items: list[object]) -> list[Place]:
    found: list[Place] = []
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's response has an item of the wrong type.")
        kind = item.get("type")
        typed = node.items.get(kind) if isinstance(kind, str) else None
        chosen = typed or node.items.get(None)
        if chosen is None:
            continue
        named: dict[str, object] = {"type": kind} if typed is not None else {}
        found.extend(place.within(position, named | place.fragment) for place in _read(chosen, item).places)
    return found


_DROPPED: Any = object()


def _copy(
    node: _Node, value: Mapping[str, object], origin: tuple[Step, ...], path: tuple[Step, ...], texts: list[Text]
) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for name, child in node.fields.items():
        if name in value:
            item = _copy_value(child, value[name], (*origin, name), (*path, name), texts)
            if item is not _DROPPED:
                copied[name] = item
    return copied


def _copy_value(node: _Node, value: object, origin: tuple[Step, ...], path: tuple[Step, ...], texts: list[Text]) -> Any:
    if node.channel is not None:
        if value is None or value == "":
            return value
        if isinstance(value, str):
            texts.append(Text(node.channel, origin, path, value))
            return ""
        if node.channel == STRUCTURED:
            texts.append(Text(node.channel, origin, path, dumps(value).decode("utf-8", "surrogatepass"), True))
            return ""
    if isinstance(value, list) and node.items:
        items: list[Any] = []
        for position, each in enumerate(value):
            item = _copy_item(node, each, (*origin, position), (*path, len(items)), texts)
            if item is not _DROPPED:
                items.append(item)
        return items
    if isinstance(value, dict) and node.items:
        return _copy_item(node, value, origin, path, texts)
    if isinstance(value, dict) and node.fields:
        return _copy(node, value, origin, path, texts)
    if node.check is not None:
        return value if node.check(value) else _DROPPED
    if value is None:
        return None
    raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's response has a field of the wrong type.")


def _copy_item(node: _Node, value: object, origin: tuple[Step, ...], path: tuple[Step, ...], texts: list[Text]) -> Any:
    if not isinstance(value, dict):
        general = node.items.get(None)
        if general is None:
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's response has an item of the wrong type.")
        return _copy_value(general, value, origin, path, texts)
    kind = value.get("type")
    typed = node.items.get(kind) if isinstance(kind, str) else None
    chosen = typed or node.items.get(None)
    if chosen is None:
        return _DROPPED
    if not chosen.fields and typed is None:
        return _copy_value(chosen, value, origin, path, texts)
    named: dict[str, Any] = {"type": kind} if typed is not None else {}
    return named | _copy(chosen, value, origin, path, texts)


def fill(fragment: Mapping[str, object], text: str, into: dict[str, object]) -> None:
    """Put ``text`` into the fragment's holes and merge it into an object: texts append, list items too."""
    for name, value in fragment.items():
        before = into.get(name)
        if value == HOLE:
            into[name] = before + text if isinstance(before, str) else text
        elif isinstance(value, dict):
            inner = before if isinstance(before, dict) else {}
            into[name] = inner
            fill(value, text, inner)
        elif isinstance(value, list):
            filled: list[dict[str, object]] = [{} for _ in value]
            for item, target in zip(value, filled, strict=True):
                fill(item, text, target)
            into[name] = [*before, *filled] if isinstance(before, list) else filled
        else:
            into[name] = value


class Table:
    """A dialect's table file.

    ``channels`` are the names that rows may use for texts. ``ValueError`` says which row is wrong.
    """

    def __init__(self, text: str, channels: Sequence[str]) -> None:
        data = yaml.safe_load(text)
        if not isinstance(data, dict):
            raise ValueError("a dialect table is a mapping of sections")  # noqa: TRY004  # a bad file, not a bad call
        self._data: dict[str, object] = data
        self._channels = channels
        self._checks = {**CHECKS, **{name: _member(self.names("enums", name)) for name in self._section("enums")}}

    @classmethod
    def load(cls, name: str, channels: Sequence[str]) -> "Table":
        """The table shipped as ``name`` beside this module."""
        return cls(files("cotguard.dialects").joinpath(name).read_text("utf-8"), channels)

    def _section(self, name: str) -> dict[str, object]:
        section = self._data.get(name)
        if not isinstance(section, dict):
            raise ValueError(f"{name}: the section is missing or no mapping")  # noqa: TRY004  # same
        return section

    def shape(self, section: str) -> Shape:
        """A section of rows."""
        rows = {str(path): str(meaning) for path, meaning in self._section(section).items()}
        try:
            return Shape(rows, self._channels, self._checks)
        except ValueError as error:
            raise ValueError(f"{section}: {error}") from None

    @property
    def checks(self) -> Mapping[str, Check]:
        """Structure by name, the table's enums included."""
        return self._checks

    def text(self, section: str, name: str) -> str:
        """A word or sentence in a section."""
        value = self._section(section).get(name)
        if not isinstance(value, str):
            raise ValueError(f"{section}.{name}: a text is missing")  # noqa: TRY004  # same
        return value

    def routes(self) -> tuple[Route, ...]:
        """The routes of the sections ``routes`` (``METHOD path: action``), ``aliases`` (``path: path`` upstream).

        Others have sections of their own, which may be missing: ``query`` (``action: [parameter]``), ``lookups``
        (``action: section`` of what is copied), ``refused`` (``METHOD path: reason``), ``multipart`` (those ``actions``
        whose requests are forms) and ``signing`` (``service: name``, for requests that carry an AWS signature).
        """
        aliases, query, lookups, refused, signing = (
            self._section(name) if name in self._data else {}
            for name in ("aliases", "query", "lookups", "refused", "signing")
        )
        service = str(signing.get("service", ""))
        forms = self.names("multipart", "actions") if "multipart" in self._data else frozenset()
        found = []
        for key, action in self._section("routes").items():
            method, path = str(key).split()
            names = self.names("query", str(action)) if str(action) in query else frozenset()
            spellings = (path, *(str(alias) for alias, target in aliases.items() if target == path))
            route = Route(
                method,
                path,
                str(action),
                path,
                names,
                lookup=str(action) in lookups,
                signed=service,
                multipart=str(action) in forms,
            )
            found += [route._replace(path=each) for each in spellings]
        for key, reason in refused.items():
            method, path = str(key).split()
            found.append(Route(method, path, "", refused=str(reason)))
        return tuple(found)

    def lookups(self) -> dict[str, Shape]:
        """What is copied of lookups, by action."""
        found = self._section("lookups") if "lookups" in self._data else {}
        return {str(action): self.shape(str(section)) for action, section in found.items()}

    def tools(self) -> Definitions:
        """Where requests describe tools: the section ``tools``, which may be missing."""
        return Definitions(self.pairs("tools") if "tools" in self._data else {})

    def pairs(self, section: str) -> dict[str, str]:
        """A section of names and plain words, in its order."""
        return {str(name): str(value) for name, value in self._section(section).items()}

    def names(self, section: str, name: str) -> frozenset[str]:
        """A list of plain names in a section."""
        names = self._section(section).get(name)
        if not isinstance(names, list):
            raise ValueError(f"{section}.{name}: a list of names is missing")  # noqa: TRY004  # same
        return frozenset(str(each) for each in names)


def _member(names: frozenset[str]) -> Check:
    return lambda value: isinstance(value, str) and value in names
