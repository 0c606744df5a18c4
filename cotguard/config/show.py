"""The configuration in force, as it would be written to a file, with where each setting came from. Secrets are masked.

What is a secret says its field: those that are left out of its model's ``repr``.
"""

from collections.abc import Iterator

import yaml
from pydantic import BaseModel

from cotguard.config.settings import FILE_ONLY, SECTIONS, Settings
from cotguard.config.sources import Loaded

__all__ = ["MASK", "shown"]

MASK = "***"


def shown(loaded: Loaded) -> str:
    """The text of a config file."""
    return "\n".join(_lines(loaded)) + "\n"


def _lines(loaded: Loaded) -> Iterator[str]:
    settings = loaded.settings
    for section in SECTIONS:
        yield f"# --- {section.subject}"
        for name in section.model_fields:
            yield f"{_yaml({name: _masked(settings, name)})}  # {loaded.origins.get(name, 'default')}"
    for name in sorted(FILE_ONLY):
        if value := _masked(settings, name):
            yield f"# --- {Settings.model_fields[name].description} ({loaded.origins.get(name, 'default')})"
            yield yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True).rstrip()


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, allow_unicode=True, width=10_000).strip()


def _masked(model: BaseModel, name: str) -> object:
    value = getattr(model, name)
    return MASK if value and not type(model).model_fields[name].repr else _plain(value)


def _plain(value: object) -> object:
    """``value`` made of what YAML has; what is left at its default in a model is left out."""
    if isinstance(value, BaseModel):
        return {name: _masked(value, name) for name in type(value).model_fields if name in value.model_fields_set}
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
