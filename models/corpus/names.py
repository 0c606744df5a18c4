"""Names that stand in carriers by themselves: word problems are full of them, and nobody has labelled them."""

import re
from functools import cache

from faker.providers.person.en_US import Provider

from models.tagger.examples import Example

__all__ = ["benign"]

_CAPITALISED = re.compile(r"\b[A-Z][a-z]+(?:['’]s)?(?: [A-Z][a-z]+)*")


@cache
def _first_names() -> frozenset[str]:
    return frozenset(Provider.first_names)


def benign(text: str, source: str, hazards: tuple[str, ...] | None = None) -> Example:
    """Text without planted values: what begins like a name is left out of the loss, the rest is no value."""
    unlabelled = unknown_names(text)
    return Example(text, unlabelled=tuple(unlabelled), hazards=hazards, source=source)


def unknown_names(text: str) -> list[tuple[int, int]]:
    """Where capitalised words begin with a first name."""
    found = []
    for match in _CAPITALISED.finditer(text):
        first = re.split(r"['’ ]", match.group(), maxsplit=1)[0]
        if first in _first_names():
            found.append(match.span())
    return found
