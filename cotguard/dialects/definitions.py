"""Definitions of tools in a request: where they stand, what they are called, what they say.

A table's section ``tools`` has a row for every place at which a dialect describes a tool, and says where the schema of
its arguments stands in it:

    tools:
      tools[].function: parameters
      toolConfig.tools[].toolSpec: inputSchema.json

An object counts where a list of one is meant. A tool is known by its name, with the names of the objects that it stands
in before it (``calendar/list``); a server of tools by its label.

A definition is what a model is told of the tool, in the same form in every dialect: all its fields but those that are
the protocol's business, and its schema as ``schema``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Definitions", "Tool"]

_NAMES = ("name", "server_label")
_NOT_TOLD = frozenset(
    {
        *_NAMES,
        "strict",
        "cache_control",
        "defer_loading",
        "eager_input_streaming",
        "authorization",
        "authorization_token",
        "headers",
    }
)
"""Fields of the protocol: how arguments are checked and sent, what is cached, credentials of servers."""

_PLAIN_TYPES = ("function", "custom")
"""Types that say no more than that the client carries the tool out."""


class Tool(NamedTuple):
    """A tool that a request describes. ``path`` leads to the description in the document."""

    name: str
    path: tuple[str | int, ...]
    definition: dict[str, Any]


class Definitions:
    """The rows of a table. ``rows``: place and schema's place in it."""

    def __init__(self, rows: Mapping[str, str]) -> None:
        self._rows = [(place.split("."), schema.split(".")) for place, schema in rows.items()]

    def read(self, document: Mapping[str, Any]) -> list[Tool]:
        """The tools of a request's document. What has no name, or another shape, is left out."""
        return [
            Tool(name, path, _definition(described, schema))
            for steps, schema in self._rows
            for name, path, described in _found(document, steps, "", ())
            if name
        ]


def _found(
    value: object, steps: Sequence[str], named: str, path: tuple[str | int, ...]
) -> Iterator[tuple[str, tuple[str | int, ...], dict[str, Any]]]:
    """Objects at the end of ``steps``, with the names that lead to them."""
    if not isinstance(value, dict):
        return
    if path:
        own = next((value[name] for name in _NAMES if isinstance(value.get(name), str)), "")
        named = "/".join(filter(None, (named, own)))
    if not steps:
        yield named, path, value
        return
    step, several = steps[0].removesuffix("[]"), steps[0].endswith("[]")
    inner = value.get(step)
    if several and isinstance(inner, list):
        for position, each in enumerate(inner):
            yield from _found(each, steps[1:], named, (*path, step, position))
    else:
        yield from _found(inner, steps[1:], named, (*path, step))


def _definition(described: Mapping[str, Any], schema: Sequence[str]) -> dict[str, Any]:
    told = {name: value for name, value in described.items() if name not in _NOT_TOLD and name != schema[0]}
    if told.get("type") in _PLAIN_TYPES:
        del told["type"]
    value: Any = described
    for step in schema:
        value = value.get(step) if isinstance(value, dict) else None
    if value is not None:
        told["schema"] = value
    return told
