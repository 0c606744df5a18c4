"""A function call of Gemini whose arguments arrive in pieces (Vertex AI, ``streamFunctionCallArguments``).

The first piece has the name. Each later one has ``partialArgs``: values of one type, each with the JSON path of its
place, texts in pieces that go on while ``willContinue`` is set. The call goes on in the same way, and its last piece,
often an empty one, does not say so. Source: google-genai ``types.py`` (FunctionCall, PartialArg); RFC 9535 for paths,
of which names and indexes are read.

The arguments are put together when the call is complete. Limits: ``max_chars`` for all texts and paths of a call; new
places in lists come in order. Work is linear in what arrives.
"""

import re
from collections.abc import Mapping
from typing import Any

from cotguard.dialects.contract import ErrorKind, UpstreamFault
from cotguard.framing.json import MAX_DEPTH, dumps

__all__ = ["MAX_CHARS", "PartialCall"]

MAX_CHARS = 1_048_576
"""Characters of one call's arguments."""

_SEGMENT = re.compile(
    r"""\.(?P<name>[\w-]+)|\[(?P<index>[0-9]{1,6})\]|\['(?P<single>[^'\\\]]*)'\]|\["(?P<double>[^"\\\]]*)"\]"""
)
_MAX_STEPS = MAX_DEPTH - 10


def _invalid() -> UpstreamFault:
    return UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's function call cannot be put together.")


class PartialCall:
    """See the module. Raises :class:`UpstreamFault` for pieces that make no call."""

    def __init__(self, max_chars: int = MAX_CHARS) -> None:
        self._max_chars = max_chars
        self._chars = 0
        self._fields: dict[str, object] = {}  # id and name
        self._values: dict[str, Any] = {}  # whole arguments
        self._partial: dict[str, Any] = {}  # by path; texts as lists of their pieces

    def take(self, fields: Mapping[str, object], values: object, partial: object) -> None:
        """The next piece: identifier and name, if it has them; whole arguments; ``partialArgs``."""
        for name, value in fields.items():
            if self._fields.setdefault(name, value) != value:
                raise _invalid()
        if isinstance(values, dict):
            self._count(len(dumps(values)))
            self._values |= values
        if partial is None:
            return
        if not isinstance(partial, list):
            raise _invalid()
        for each in partial:
            if not isinstance(each, dict):
                raise _invalid()
            self._take_value(each)

    def _take_value(self, partial: Mapping[str, object]) -> None:
        path = partial.get("jsonPath")
        text, number, flag = (partial.get(name) for name in ("stringValue", "numberValue", "boolValue"))
        if not isinstance(path, str):
            raise _invalid()
        if isinstance(text, str):
            self._count(len(text) + len(path))
            pieces = self._partial.setdefault(path, [])
            if not isinstance(pieces, list):
                raise _invalid()
            pieces.append(text)
        elif isinstance(number, (int, float)) or isinstance(flag, bool):
            self._set(path, number if isinstance(number, (int, float)) else flag)
        elif "nullValue" in partial:
            self._set(path, None)
        else:
            raise _invalid()

    def _set(self, path: str, value: object) -> None:
        self._count(len(path))
        if path in self._partial:
            raise _invalid()
        self._partial[path] = value

    def _count(self, chars: int) -> None:
        self._chars += chars
        if self._chars > self._max_chars:
            raise _invalid()

    def put_together(self) -> dict[str, Any]:
        """The call as a whole, as the API writes it."""
        arguments: Any = dict(self._values)
        for path, value in self._partial.items():
            _put(arguments, _steps(path), "".join(value) if isinstance(value, list) else value)
        return {**self._fields, "args": arguments}


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        found = _SEGMENT.match(path, at)
        if found is None or len(steps) == _MAX_STEPS:
            raise _invalid()
        index = found["index"]
        steps.append(int(index) if index is not None else found["name"] or found["single"] or found["double"] or "")
        at = found.end()
    if not path.startswith("$") or not steps:
        raise _invalid()
    return steps


def _put(holder: Any, steps: list[str | int], value: object) -> None:
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        fresh: Any = value if following is None else [] if isinstance(following, int) else {}
        if isinstance(step, int) and isinstance(holder, list) and step <= len(holder):
            if step == len(holder):
                holder.append(fresh)
            elif following is None:
                raise _invalid()
        elif isinstance(step, str) and isinstance(holder, dict):
            if step not in holder:
                holder[step] = fresh
            elif following is None:
                raise _invalid()
        else:
            raise _invalid()
        holder = holder[step]
