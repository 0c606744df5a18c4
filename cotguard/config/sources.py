"""Where settings come from: flags, ``COTGUARD_*`` in the environment, a config file, defaults, in that order.

Every mistake in a config file is told at once, with its place. What is loaded remembers where each setting came from
and which files were read, so that it can be shown, watched, and loaded again.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cotguard.config.errors import SettingsError
from cotguard.config.expand import expand
from cotguard.config.settings import FILE_ONLY, Settings
from cotguard.policy.errors import PolicyError, closest, quoted
from cotguard.policy.source import Source, read_file

__all__ = ["Loaded", "Sources", "load_settings", "variable"]

_LINES = "settings as `name: value` lines"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"COTGUARD_{name.upper()}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each came from (``--flag``, a variable, ``FILE:LINE``; defaults are left out), and files read."""

    settings: Settings
    origins: Mapping[str, str]
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """What settings are loaded from, now and when it has changed. Flags that are None were not given."""

    flags: Mapping[str, object] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    config: str | None = None

    @classmethod
    def of(cls, flags: Mapping[str, object], config: str | None) -> Self:
        """Those of this process."""
        return cls(flags, dict(os.environ), config or os.environ.get("COTGUARD_CONFIG"))

    def load(self) -> Loaded:
        """Raises :class:`SettingsError`."""
        values: dict[str, object] = {}
        origins: dict[str, str] = {}
        files: list[Path] = []
        source = None
        if self.config:
            source = _source(self.config)
            data, referred = _expanded(source, self.environment)
            files = [Path(self.config), *referred]
            for key, value in data.items():
                name = key.replace("-", "_")
                values[name] = value
                origins[name] = f"{self.config}:{source.keys[key,][0]}"
        for name in Settings.model_fields.keys() - FILE_ONLY:
            if variable(name) in self.environment:
                values[name], origins[name] = self.environment[variable(name)], variable(name)
        for name, value in self.flags.items():
            if value is not None:
                values[name], origins[name] = value, "--" + name.replace("_", "-")
        try:
            settings = Settings.model_validate(values)
        except ValidationError as error:
            raise SettingsError("\n".join(_problems(error.errors(), source, origins))) from None
        return Loaded(settings, origins, tuple(files))


def load_settings(flags: Mapping[str, object], environment: Mapping[str, str], config: str | None) -> Settings:
    """Settings from the three sources. Raises :class:`SettingsError`."""
    return Sources(flags, environment, config or environment.get("COTGUARD_CONFIG")).load().settings


def _source(path: str) -> Source:
    try:
        return read_file(path, "a config file", _LINES)
    except PolicyError as error:
        raise SettingsError(str(error)) from None


def _expanded(source: Source, environment: Mapping[str, str]) -> tuple[dict[str, object], list[Path]]:
    if not isinstance(source.data, dict):
        raise SettingsError(f"{source.name}: write {_LINES}")
    try:
        data, files = expand(source, environment)
    except PolicyError as error:
        raise SettingsError(str(error)) from None
    assert isinstance(data, dict)  # noqa: S101  # the shape stays
    return data, files


def _problems(errors: Iterable[ErrorDetails], source: Source | None, origins: Mapping[str, str]) -> list[str]:
    # pydantic counts only the good entries of a list: that there are none is told of an empty one.
    telling = (error for error in errors if not (error["type"] == "too_short" and error["input"]))
    found = sorted({_problem(error, source, origins) for error in telling})
    return [text for _, text in found]


def _problem(error: ErrorDetails, source: Source | None, origins: Mapping[str, str]) -> tuple[tuple[int, int], str]:
    """What is wrong with a setting, and what to write; first where it stands, to sort by."""
    path = error["loc"]
    name = str(path[0]) if path else ""
    message, hint = _told(error)
    in_file = source is not None and origins.get(name, "").startswith(f"{source.name}:")
    if source is None or not in_file:
        text = f"{name}: {message}" if name else message
        return (0, 0), f"{text}; {hint}" if hint else text
    place = next((key for key in source.keys if len(key) == 1 and str(key[0]).replace("-", "_") == name), ())
    at_key = error["type"] == "extra_forbidden"
    told = source.problem((*place, *path[1:]), f"{'.'.join(map(str, path))}: {message}", hint, at_key=at_key)
    return (told.line, told.column), str(told).removesuffix("; ")


def _told(error: ErrorDetails) -> tuple[str, str]:
    path = error["loc"]
    if error["type"] == "extra_forbidden":
        model = _model_at(path[:-1])
        meant = closest(path[-1], model.model_fields)[:1]
        what = "no such setting" if len(path) == 1 else f"{quoted(path[-1])} is no key here"
        keys = f"the keys here are: {', '.join(model.model_fields)}" if len(path) > 1 else ""
        return what, f"did you mean {meant[0]}?" if meant else keys
    if error["type"] == "missing":
        return "missing", f"write {path[-1]}: ..."
    return error["msg"].removeprefix("Value error, "), ""


def _model_at(path: tuple[int | str, ...]) -> type[BaseModel]:
    """The model whose keys stand at ``path``."""
    model: type[BaseModel] = Settings
    for step in path:
        if isinstance(step, str) and step in model.model_fields:
            model = next(_models(model.model_fields[step].annotation), model)
    return model


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """Models that ``annotation`` is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
