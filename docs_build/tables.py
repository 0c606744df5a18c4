"""Tables of keys, from a JSON Schema."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["keys", "table", "takes", "text"]

Schema = Mapping[str, Any]

_SHOWN = 12
_NULL = {"type": "null"}
_NAMES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def keys(schema: Schema, definition: str = "") -> str:
    """A table of the keys of ``schema``, or of one of its definitions."""
    model = schema["$defs"][definition] if definition else schema
    required = model.get("required", ())
    rows = [
        (f"`{key}`", takes(each, schema), _default(each, key in required), text(each), _example(key, each))
        for key, each in model["properties"].items()
    ]
    shown = 5 if any(example for *_, example in rows) else 4
    return table(("key", "takes", "when missing", "", "example")[:shown], [row[:shown] for row in rows])


def takes(value: Schema, schema: Schema) -> str:
    """What may be written for ``value``, in a few words."""
    value = _resolved(value, schema)
    if "anyOf" in value:
        some = [each for each in value["anyOf"] if each != _NULL or value.get("default") is not None]
        return " or ".join(takes(each, schema) for each in some)
    if words := value.get("enum", [value["const"]] if "const" in value else []):
        return ", ".join(f"`{word}`" for word in words) if len(words) <= _SHOWN else "[words](#words)"
    if value.get("type") == "array":
        return f"list of {takes(value['items'], schema)}"
    if value.get("type") == "object":
        if "properties" in value:
            return ", ".join(f"`{key}`" for key in value["properties"])
        return f"by name: {takes(value['additionalProperties'], schema)}"
    if value.get("type") == "null":
        return "`null`"
    bounds = [f"{sign} {value[name]:,}" for name, sign in _BOUNDS.items() if name in value]
    return " ".join([_NAMES[value["type"]], " and ".join(bounds)]).rstrip()


def text(value: Schema) -> str:
    """What a key is for."""
    return str(value.get("description", ""))


def _resolved(value: Schema, schema: Schema) -> Schema:
    if "$ref" not in value:
        return value
    found: Schema = schema["$defs"][value["$ref"].rpartition("/")[2]]
    return found


def _default(value: Schema, required: bool) -> str:
    if required:
        return "**must be there**"
    default = value.get("default")
    if isinstance(default, list):
        return "all" if default else ""
    return _code(default) if default not in (None, "") else ""


def _example(key: str, value: Schema) -> str:
    return next((_code(f"{key}: {_flow(example)}") for example in value.get("examples", ())), "")


def _code(value: object) -> str:
    return f"`{value if isinstance(value, str) else _flow(value)}`"


def _flow(value: object) -> str:
    """``value`` on one line, as YAML reads it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return value if value.replace(" ", "").replace("_", "").replace("-", "").isalnum() else json.dumps(value)
    return json.dumps(value)
