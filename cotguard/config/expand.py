"""References in a config file: ``${NAME}``, ``${NAME:-default}`` and ``${file:PATH}``.

A secret stands in the environment or in a file of its own, not in the configuration. A file's last line end is left
out; ``$${`` is a ``${`` that is meant.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cotguard.policy.errors import PolicyError, Problem
from cotguard.policy.source import Path as Place
from cotguard.policy.source import Source

__all__ = ["MAX_FILE_BYTES", "expand"]

MAX_FILE_BYTES = 2**16

_REFERENCE = re.compile(r"\$(\$?)\{([^{}]*)\}")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_FILE = "file:"


class _Unresolved(Exception):  # noqa: N818  # what is wrong with a reference, and what to write
    def __init__(self, reason: str, hint: str) -> None:
        self.reason = reason
        self.hint = hint


def expand(source: Source, environment: Mapping[str, str]) -> tuple[object, list[Path]]:
    """The data of ``source`` with every reference replaced, and the files that were read. Raises ``PolicyError``.

    Of what is referred to only the name is ever told.
    """
    files: list[Path] = []
    problems: list[Problem] = []

    def resolve(found: re.Match[str]) -> str:
        if found[1]:
            return f"${{{found[2]}}}"
        if found[2].startswith(_FILE):
            files.append(Path(found[2].removeprefix(_FILE)))
            return _content(files[-1])
        return _variable(found[2], environment)

    def text(value: str, place: Place) -> str:
        try:
            return _REFERENCE.sub(resolve, value)
        except _Unresolved as unresolved:
            problems.append(source.problem(place, unresolved.reason, unresolved.hint))
            return value

    data = _walk(source.data, (), text)
    if problems:
        raise PolicyError(problems)
    return data, files


def _walk(value: object, place: Place, text: Callable[[str, Place], str]) -> object:
    if isinstance(value, str):
        return text(value, place)
    if isinstance(value, list):
        return [_walk(each, (*place, index), text) for index, each in enumerate(value)]
    if isinstance(value, dict):
        return {name: _walk(each, (*place, name), text) for name, each in value.items()}
    return value


def _variable(reference: str, environment: Mapping[str, str]) -> str:
    found = _NAME.fullmatch(reference)
    if found is None:
        raise _Unresolved(
            "this is no reference", "write ${NAME}, ${NAME:-default}, ${file:PATH}, or $${ for a plain ${"
        )
    value = environment.get(found[1], found[2])
    if value is None:
        raise _Unresolved(
            f"{found[1]} is not set in the environment", f"set it, or write a default: ${{{found[1]}:-...}}"
        )
    return value


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise _Unresolved(f"{path} is larger than {MAX_FILE_BYTES} bytes", "is this the right file?")
        return data.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise _Unresolved(f"{path} cannot be read: {error.strerror}", "check its name and its permissions") from None
    except UnicodeDecodeError:
        raise _Unresolved(f"{path} is not UTF-8 text", "is this the right file?") from None
