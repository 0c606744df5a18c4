"""Chat Completions requests: checked, rid of switches that open leaks, and read for what the response side needs.

A request is written by the client, so fields without a row in the table pass; the table lists those that would widen
the response by copies of its text (stripped: the response is the same without them) and those that would change who
answers or in which form (refused: an answer without them is not what was asked for).

The body that goes upstream is written by our encoder, so that upstream and proxy read the same thing.
"""

from collections.abc import Iterator, Mapping

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.chat_format import Format
from cotguard.dialects.contract import ErrorKind, Prepared, Refused
from cotguard.framing.json import JSONError, dumps, loads

__all__ = ["MAX_CHOICES", "prepare"]

MAX_CHOICES = 16
"""Choices one request may ask for: each has its own state here."""

_SYSTEM_ROLES = frozenset({"system", "developer"})
_STREAM_OPTIONS = ("include_usage", "continuous_usage_stats")


def prepare(data: bytes, form: Format) -> Prepared:
    """See the module. Raises :class:`Refused`."""
    try:
        body = loads(data)
    except JSONError:
        raise _bad("The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise _bad("The request body must be a JSON object.")
    for name in sorted(form.refused):
        if body.get(name) not in (None, False):
            raise Refused(400, ErrorKind.UNSUPPORTED, f"The field '{name}' is not supported here.")
    if body.get("modalities") not in (None, [], ["text"]):
        raise Refused(400, ErrorKind.UNSUPPORTED, "Only the modality 'text' is supported here.")
    body = {name: value for name, value in body.items() if name not in form.stripped and name not in form.refused}
    stream = _flag(body, "stream")
    options = _stream_options(body, stream=stream)
    return Prepared(
        body=dumps(body),
        model=_model(body),
        stream=stream,
        facts=RequestFacts(tuple(_system_prompts(body)), _last_user_message(body)),
        tools=frozenset(_tool_names(body)),
        stops=frozenset(_stops(body)),
        usage_requested=options.get("include_usage") is True,
        choices=_choices(body),
    )


def _bad(message: str) -> Refused:
    return Refused(400, ErrorKind.BAD_REQUEST, message)


def _flag(body: Mapping[str, object], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise _bad(f"The field '{name}' must be a boolean.")
    return bool(value)


def _list(body: Mapping[str, object], name: str) -> list[object]:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        raise _bad(f"The field '{name}' must be an array.")
    return value or []


def _model(body: Mapping[str, object]) -> str:
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise _bad("The field 'model' must be a string.")
    return model or ""


def _choices(body: Mapping[str, object]) -> int:
    count = body.get("n")
    if count is None:
        return 1
    if type(count) is not int or not 1 <= count <= MAX_CHOICES:
        raise _bad(f"The field 'n' must be an integer from 1 to {MAX_CHOICES}.")
    return count


def _stream_options(body: dict[str, object], *, stream: bool) -> dict[str, object]:
    """The options that go upstream. Obfuscation is turned off where the client names it: the padding would not fit."""
    options = body.pop("stream_options", None)
    if options is None or not stream:
        return {}
    if not isinstance(options, dict):
        raise _bad("The field 'stream_options' must be an object.")
    kept: dict[str, object] = {name: _flag(options, name) for name in _STREAM_OPTIONS if name in options}
    if "include_obfuscation" in options:
        kept["include_obfuscation"] = False
    if kept:
        body["stream_options"] = kept
    return kept


def _system_prompts(body: Mapping[str, object]) -> Iterator[str]:
    for message in _list(body, "messages"):
        if not isinstance(message, dict):
            raise _bad("Every message must be an object.")
        if message.get("role") in _SYSTEM_ROLES:
            yield from _text(message.get("content"))


def _last_user_message(body: Mapping[str, object]) -> str:
    for message in reversed(_list(body, "messages")):
        if isinstance(message, dict) and message.get("role") == "user":
            return "".join(_text(message.get("content")))
    return ""


def _text(content: object) -> Iterator[str]:
    """The text of a message, if it has any."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        yield "\n".join(text for text in parts if isinstance(text, str))


def _tool_names(body: Mapping[str, object]) -> Iterator[str]:
    for tool in _list(body, "tools"):
        if not isinstance(tool, dict):
            raise _bad("Every tool must be an object.")
        for form in ("function", "custom"):
            yield from _name(tool.get(form))
    for function in _list(body, "functions"):
        yield from _name(function)


def _name(described: object) -> Iterator[str]:
    name = described.get("name") if isinstance(described, dict) else None
    if isinstance(name, str) and name:
        yield name


def _stops(body: Mapping[str, object]) -> Iterator[str]:
    stop = body.get("stop")
    for each in stop if isinstance(stop, list) else [stop]:
        if isinstance(each, str) and each:
            yield each
