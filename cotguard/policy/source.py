"""YAML text into plain data that remembers where everything stands.

1. PyYAML composes the text into nodes. Scalars resolve by the core rules of YAML 1.2: ``no``, ``on``, ``12:30`` and
   dates are texts; ``true``, ``null`` and decimal numbers are not.
2. While composing, everything a policy has no use for is refused where it stands: anchors and aliases (and with them
   expansion bombs), tags, duplicate keys, keys that are no texts, deep nesting, a second document.
3. Nodes become dicts, lists and scalars, and the position of every key and value is kept by its path.

Guarantees: errors carry positions and never quote the text. Work is linear in the text, which ``MAX_CHARS`` bounds.
Known limit: the lines counted are those of YAML 1.1, where U+0085, U+2028 and U+2029 end one too.
"""

import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import yaml

from cotguard.policy.errors import PolicyError, Problem

__all__ = ["MAX_CHARS", "Path", "Source", "read", "read_file"]

MAX_CHARS = 1 << 20
"""Longest text of a policy, in characters."""

MAX_DEPTH = 16

Path = tuple[int | str, ...]
"""Keys and indexes that lead to a value: ``("rules", 0, "action")``."""

Position = tuple[int, int]
"""Line and column, both from 1."""

_TAG = "tag:yaml.org,2002:"
_RESOLVERS = {
    "null": (r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)\Z", list("tTfF")),
    "int": (r"[-+]?[0-9]{1,18}\Z", list("-+0123456789")),
    "float": (r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z", list("-+.0123456789")),
}
_SYNTAX = {
    "found character '\\t' that cannot start any token": ("a tab stands here", "indent with spaces"),
    "mapping values are not allowed here": (
        'a ":" stands where no key can be',
        'check the indentation, and put a text that has ": " in it in quotes',
    ),
}


@dataclass(frozen=True, slots=True)
class Source:
    """A text that was read: its data, and where its keys and values stand."""

    name: str
    data: object
    keys: Mapping[Path, Position]
    values: Mapping[Path, Position]

    def problem(self, path: Path, reason: str, hint: str, *, at_key: bool = False) -> Problem:
        """A problem with the value at ``path`` (or its key), or with the nearest thing around it."""
        position = self.keys.get(path) if at_key else None
        while position is None:
            position = self.values.get(path)
            path = path[:-1]
        return Problem(self.name, *position, reason, hint)


class _Mark(Protocol):
    """A place in a text, as both of PyYAML's scanners give it, counted from 0."""

    name: str
    line: int
    column: int


def _position(mark: _Mark) -> Position:
    return mark.line + 1, mark.column + 1


def _error(mark: _Mark, reason: str, hint: str) -> PolicyError:
    return PolicyError([Problem(mark.name, *_position(mark), reason, hint)])


class _Composer(yaml.SafeLoader):
    """PyYAML's composer with narrower manners."""

    # PyYAML's own resolvers are those of YAML 1.1, and are shared by all loaders.
    yaml_implicit_resolvers = {}  # noqa: RUF012  # the base class declares it that way

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        mark = event.start_mark or self.get_mark()
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            hint = "write the value out; a text that begins with & or * needs quotes"
            raise _error(mark, "anchors and aliases are not used here", hint)
        if getattr(event, "tag", None) is not None:
            hint = "write the plain value; a text that begins with ! needs quotes"
            raise _error(mark, "tags are not used here", hint)
        if self.depth == MAX_DEPTH:
            raise _error(mark, f"more than {MAX_DEPTH} levels of nesting", "take some of the brackets away")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _name, (_pattern, _first) in _RESOLVERS.items():
    _Composer.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


def read(text: str, name: str) -> Source:
    """Read one YAML document; ``name`` is what errors call it. Raises :class:`PolicyError` with one problem."""
    if len(text) > MAX_CHARS:
        hint = "put known values in a file of their own"
        raise PolicyError([Problem(name, 0, 0, f"longer than {MAX_CHARS} characters", hint)])
    node = _compose(text, name)
    if node is None:
        raise PolicyError([Problem(name, 1, 1, "there is nothing in this policy", 'begin with "version: 1"')])
    keys: dict[Path, Position] = {}
    values: dict[Path, Position] = {}
    return Source(name, _data(node, (), keys, values), keys, values)


def read_file(path: str, what: str, example: str) -> Source:
    """Read the YAML document in a file that must say something. Raises :class:`PolicyError` with one problem.

    Of a file that cannot be read it asks to name ``what`` ("a config file"), of an empty one to write ``example``.
    """
    try:
        with pathlib.Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_CHARS + 1)
    except OSError as error:
        raise PolicyError([Problem(path, 0, 0, str(error.strerror), f"name {what}")]) from None
    except UnicodeDecodeError:
        raise PolicyError([Problem(path, 0, 0, "not UTF-8 text", f"name {what}")]) from None
    if not text.strip():
        raise PolicyError([Problem(path, 0, 0, "there is nothing in this file", f"write {example}")])
    return read(text, path)


def _compose(text: str, name: str) -> yaml.Node | None:
    # No cause is chained to what is raised here: PyYAML's errors quote the text, which may hold known values.
    try:
        loader = _Composer(text, name)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        raise PolicyError([Problem(name, line, column, "a control character stands here", "remove it")]) from None
    try:
        return loader.get_single_node()
    except yaml.composer.ComposerError as error:
        hint = 'write one policy to a file, without a "---" inside'
        raise _error(error.problem_mark or loader.get_mark(), "a second document begins here", hint) from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, loader.get_mark()) from None
    finally:
        loader.dispose()


def _syntax_error(error: yaml.MarkedYAMLError, end: _Mark) -> PolicyError:
    mark = error.problem_mark or end
    if error.problem in _SYNTAX:
        return _error(mark, *_SYNTAX[error.problem])
    first = (error.context_mark or mark).line + 1
    return _error(mark, "this is not valid YAML", f"check quotes, brackets and indentation from line {first} on")


def _data(node: yaml.Node, path: Path, keys: dict[Path, Position], values: dict[Path, Position]) -> object:
    """Plain data of ``node``; positions go to ``keys`` and ``values``. Nesting is bounded by the composer."""
    values[path] = _position(node.start_mark)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = _key(key_node)
            if key in mapping:
                line = keys[*path, key][0]
                hint = "keep one of the two"
                raise _error(key_node.start_mark, f"this key stands here a second time, first on line {line}", hint)
            keys[*path, key] = _position(key_node.start_mark)
            mapping[key] = _data(value_node, (*path, key), keys, values)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_data(item, (*path, index), keys, values) for index, item in enumerate(node.value)]
    return _scalar(node)


def _key(node: yaml.Node) -> str:
    if node.tag != _TAG + "str":
        raise _error(node.start_mark, "this key is no text", "write a word, or put it in quotes")
    return str(node.value)


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    value: str = node.value
    match node.tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return value.lower() == "true"
        case "int":
            return int(value)
        case "float":
            return float(value)
        case _:
            return value
