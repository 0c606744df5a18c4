"""JSON as bytes: a reader that refuses what clients read differently, and the writer of all JSON that leaves.

Reading is orjson's: strict UTF-8, no NaN or Infinity, no numbers beyond a double, last of duplicate keys (the others
are gone, since nothing leaves but what is written anew). Beyond it:

* Escaped halves of surrogate pairs are accepted. Servers cut an emoji's escape over two deltas, each of which is a
  document of its own. orjson refuses them, so the standard library reads those documents, under the same rules.
* Nesting is limited.

Writing never puts out U+0085, U+2028, U+2029, VT or FF as such: clients that split an event stream with a Unicode-aware
``splitlines`` would break the document there. Unpaired surrogates are written as the escapes they came in as: the
client reads what it would have read without the proxy.

Guarantees: errors hold no text of the document. Known limit: integers beyond 64 bits are read as doubles.
"""

import json
import math

import orjson

__all__ = ["MAX_DEPTH", "JSONError", "dumps", "dumps_ascii", "loads"]

MAX_DEPTH = 100
"""Arrays and objects inside one another, the outermost included."""

_MIN_INTEGER = -(2**63)
_MAX_INTEGER = 2**64 - 1


class JSONError(ValueError):
    """The bytes are not JSON that this proxy accepts. The message is constant text."""

    def __init__(self) -> None:
        super().__init__("Not valid JSON.")


def loads(data: bytes) -> object:
    """Parse one document. Raises :class:`JSONError`, which holds no text, not even as its context."""
    value = _loads(data)
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and not _is_shallow(value):
        raise JSONError
    return value


def _loads(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass  # what is raised below must not have this error as its context: it holds the document
    if b"\\ud" in data or b"\\uD" in data:
        return _loads_surrogates(data)
    raise JSONError


def _loads_surrogates(data: bytes) -> object:
    try:
        return json.loads(data.decode(), parse_int=_integer, parse_float=_float, parse_constant=_float)
    except (ValueError, RecursionError):
        pass
    raise JSONError


def _integer(token: str) -> int | float:
    number = int(token)
    return number if _MIN_INTEGER <= number <= _MAX_INTEGER else _float(token)


def _float(token: str) -> float:
    number = float(token)
    if not math.isfinite(number):
        raise ValueError
    return number


def _is_shallow(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inside: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inside += each.values()
            elif isinstance(each, list):
                inside += each
        level = [each for each in inside if isinstance(each, (dict, list))]
        if not level:
            return True
    return False


def dumps(value: object) -> bytes:
    """Write ``value`` (of dict, list, str, int, float, bool, None) compactly, on one line.

    Raises TypeError for anything else.
    """
    try:
        out = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return dumps_ascii(value)  # an unpaired surrogate, or an error which this raises again
    if out.isascii():
        return out
    return (
        out.replace(b"\xc2\x85", b"\\u0085").replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    )


def dumps_ascii(value: object) -> bytes:
    """The same with everything outside ASCII as escapes, as Python's own module writes it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
