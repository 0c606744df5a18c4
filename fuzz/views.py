"""What a stream of documents says, whatever the events it was cut into; and what none of its strings may hold."""

import json
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

__all__ = ["agree", "said", "strings"]

_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_TELLING = ("type", "index", "thought", "output_index", "content_index", "summary_index", "contentBlockIndex")
"""Fields that say which text an event's text belongs to."""

_ABOUT = frozenset({"id", "model"})
"""Fields about the response: as they are told when an event is written."""

View = Mapping[tuple[Hashable, ...], Sequence[str]]


def said(documents: Sequence[tuple[str, Any]]) -> View:
    """The strings of named documents in their order, by where they stand."""
    found: dict[tuple[Hashable, ...], list[str]] = {}
    for name, document in documents:
        for place, text in _places(document, (name,)):
            found.setdefault(place, []).append(text)
    return found


def _places(value: Any, place: tuple[Hashable, ...]) -> Iterator[tuple[tuple[Hashable, ...], str]]:
    if isinstance(value, dict):
        telling = tuple((name, value[name]) for name in _TELLING if isinstance(value.get(name), str | int))
        if "function" in value:  # of a call, whose type is told once
            telling = tuple(each for each in telling if each[0] != "type")
        for name, each in value.items():
            yield from _places(each, (*place, *telling, name))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            yield from _places(each, (*place, at))
    elif isinstance(value, str):
        yield place, value


def agree(one: View, other: View, *, complete: bool) -> bool:
    """Whether two streams say the same at each place.

    Of one that ends in an error, what stands between texts that are still on hold may be written or not.
    """
    if complete and one.keys() != other.keys():
        return False
    return all(_same(texts, other[place]) for place, texts in one.items() if place in other and place[-1] not in _ABOUT)


def _same(texts: Sequence[str], others: Sequence[str]) -> bool:
    """Texts in pieces, joined; words of structure, which come again and again; texts that grow with every event."""
    if "".join(texts) == "".join(others) or set(texts) == set(others):
        return True
    return texts[-1] == others[-1] and all(
        after.startswith(before) for each in (texts, others) for before, after in pairwise(each)
    )


def strings(view: View) -> Iterator[str]:
    """All texts of a view, joined, as they are and as JSON in them would be read; and the names."""
    for place, texts in view.items():
        joined = "".join(texts)
        yield joined
        yield _ESCAPE.sub(lambda found: chr(int(found[1], 16)), joined)
        yield json.dumps(place)
