"""Whole responses: every text of a document moderated in its place, in the order in which a client reads them."""

from collections.abc import Callable
from typing import Any

from cotguard.dialects.channels import KINDS, view_of
from cotguard.dialects.contract import ErrorKind, UpstreamFault
from cotguard.dialects.reported import Reported
from cotguard.dialects.table import Document, Shape, Text
from cotguard.framing.json import JSONError, loads
from cotguard.moderation.exchange import Lane
from cotguard.moderation.view import View
from cotguard.spans import ChannelKind

__all__ = ["UNREADABLE", "moderate", "read_object"]

UNREADABLE = "The upstream's response could not be read."


def read_object(data: bytes, reported: Reported | None = None) -> dict[str, Any]:
    """The JSON object of a whole body, noted in ``reported``. Raises :class:`UpstreamFault`."""
    try:
        value = loads(data)
    except JSONError:
        value = None
    if not isinstance(value, dict):
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, UNREADABLE)
    if reported is not None:
        reported.take(value)
    return value


def moderate(
    value: dict[str, Any], shape: Shape, lane: Lane, view: Callable[[Text], View] | None = None
) -> dict[str, Any]:
    """``value`` as ``shape`` lets it through, moderated. ``lane.cut`` then tells whether a block ended it.

    Behind a block nothing is left: items of lists that would follow it are gone, and what holds half a JSON document.
    """
    document = shape.copy(value)
    for number, text in enumerate(document.texts):
        lane.open(number, view_of(text.channel) if view is None else view(text))
        lane.feed(number, text.text)
        lane.end(number)
    lane.finish()
    written = [""] * len(document.texts)
    last = -1
    for emission in lane.take():
        if isinstance(emission.key, int):
            written[emission.key] += emission.text
            last = max(last, emission.key)
    for number, text in enumerate(document.texts):
        if not (lane.cut and _is_unfinished(document, number, last)):
            document.put(text, written[number])
    if lane.cut:
        _end_behind(document, last)
    return document.root


def _is_unfinished(document: Document, number: int, last: int) -> bool:
    """Whether a text is behind the ``last`` that was written, or is the last and half of a JSON document."""
    return number > last or (number == last and KINDS[document.texts[number].channel] is ChannelKind.TOOL_CALL)


def _end_behind(document: Document, last: int) -> None:
    """Drop what follows the text numbered ``last`` (-1: all texts) in lists, and an unfinished call."""
    texts = document.texts
    for number in range(len(texts) - 1, -1, -1):
        if _is_unfinished(document, number, last):
            _drop(document.root, texts[number], keep=texts[last].path if number > last >= 0 else ())


def _drop(root: dict[str, Any], text: Text, keep: tuple[str | int, ...]) -> None:
    """Remove the outermost list item that holds ``text`` and not what is at ``keep``; without one the text is empty."""
    holder: Any = root
    for depth, step in enumerate(text.path):
        if isinstance(step, int):
            if not isinstance(holder, list) or step >= len(holder):
                return
            if text.path[: depth + 1] != keep[: depth + 1]:
                del holder[step:]
                return
        elif step not in holder:
            return
        holder = holder[step]
