"""Reading requests: the checks that dialects share. Messages are constant text; names in them are the fields' own."""

from collections.abc import Iterator, Mapping
from typing import Any

from cotguard.dialects.contract import ErrorKind, Refused
from cotguard.framing.json import JSONError, loads

__all__ = [
    "bad",
    "flag",
    "function_names",
    "integer",
    "items",
    "last_user_text",
    "objects",
    "read_body",
    "stops",
    "stream_options",
    "string",
    "system_texts",
    "texts",
    "without",
]

_STREAM_OPTIONS = ("include_usage", "continuous_usage_stats")


def bad(message: str) -> Refused:
    """A request that is wrong."""
    return Refused(400, ErrorKind.BAD_REQUEST, message)


def read_body(data: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises :class:`Refused`, as all here do."""
    try:
        body = loads(data)
    except JSONError:
        raise bad("The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise bad("The request body must be a JSON object.")
    return body


def without(body: Mapping[str, Any], stripped: frozenset[str], refused: frozenset[str]) -> dict[str, Any]:
    """``body`` without the fields that are stripped. Refuses those that are ``refused``, unless null or false."""
    for name in sorted(refused):
        if body.get(name) not in (None, False):
            raise Refused(400, ErrorKind.UNSUPPORTED, f"The field '{name}' is not supported here.")
    return {name: value for name, value in body.items() if name not in stripped and name not in refused}


def flag(body: Mapping[str, object], name: str, *, default: bool = False) -> bool:
    """A boolean field."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise bad(f"The field '{name}' must be a boolean.")
    return value


def integer(body: Mapping[str, object], name: str, least: int, most: int, *, default: int) -> int:
    """An integer field."""
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or not least <= value <= most:
        raise bad(f"The field '{name}' must be an integer from {least} to {most}.")
    return value


def string(body: Mapping[str, object], name: str) -> str:
    """A string field; empty where it is missing."""
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise bad(f"The field '{name}' must be a string.")
    return value


def items(body: Mapping[str, object], name: str) -> list[Any]:
    """An array field; empty where it is missing."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad(f"The field '{name}' must be an array.")
    return value


def objects(body: Mapping[str, object], name: str) -> list[dict[str, Any]]:
    """An array of objects."""
    found = items(body, name)
    if not all(isinstance(each, dict) for each in found):
        raise bad(f"Every item of '{name}' must be an object.")
    return found


def texts(content: object) -> Iterator[str]:
    """The text of a message's content: a string, or the ``text`` of its parts, joined."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        yield "\n".join(text for text in parts if isinstance(text, str))


def stops(body: Mapping[str, object]) -> frozenset[str]:
    """The stop strings: ``stop``, a string or an array of them."""
    stop = body.get("stop")
    return frozenset(each for each in (stop if isinstance(stop, list) else [stop]) if isinstance(each, str) and each)


def stream_options(body: dict[str, object], *, stream: bool) -> dict[str, object]:
    """The options that go upstream. Obfuscation is turned off where the client names it: the padding would not fit."""
    options = body.pop("stream_options", None)
    if options is None or not stream:
        return {}
    if not isinstance(options, dict):
        raise bad("The field 'stream_options' must be an object.")
    kept: dict[str, object] = {name: flag(options, name) for name in _STREAM_OPTIONS if name in options}
    if "include_obfuscation" in options:
        kept["include_obfuscation"] = False
    if kept:
        body["stream_options"] = kept
    return kept


def system_texts(messages: list[dict[str, Any]]) -> list[str]:
    """The texts of messages that are the system's."""
    return [text for each in messages if each.get("role") == "system" for text in texts(each.get("content"))]


def last_user_text(messages: list[dict[str, Any]], *, default: str = "") -> str:
    """The text of the user's last message; ``default`` without one."""
    asked = [each for each in messages if each.get("role") == "user"]
    return "".join(texts(asked[-1].get("content"))) if asked else default


def function_names(body: Mapping[str, object]) -> frozenset[str]:
    """The names of the ``tools`` that are described in their ``function``."""
    functions = [tool.get("function") for tool in objects(body, "tools")]
    names = [function.get("name") for function in functions if isinstance(function, dict)]
    return frozenset(name for name in names if isinstance(name, str))
