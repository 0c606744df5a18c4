"""What goes to the upstream: the request as its dialect wrote it, after the policy was carried out on its texts.

Beside the document there are strings of the client's in headers and in the URL. Where requests are moderated, a header
that holds a value is left out, credentials apart, and a URL that holds one is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cotguard.callers.credentials import CREDENTIALS, PARAMETER
from cotguard.dialects.contract import Dialect, ErrorKind, Refused
from cotguard.dialects.definitions import Tool
from cotguard.dialects.inbound import NO_MEDIA
from cotguard.moderation.exchange import Exchange, ModerationFault, RequestBlocked
from cotguard.policy import Media, RequestTexts
from cotguard.spans import Action, ChannelKind

__all__ = ["Unmoderated", "is_recordable", "moderate"]

_CHANGED = "TOOL_CHANGED"
_WORDS = frozenset({"description", "title"})
_BLOCKED = "The request was blocked by policy."
_IN_URL = "The URL of the request holds a value that the policy takes out: send it in the body."


@dataclass(slots=True)
class Unmoderated:
    """A request's strings: its document, a form's fields, headers that pass, and what stands in its URL."""

    document: dict[str, Any] = field(repr=False)
    fields: list[tuple[str, str]] = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    parameters: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str] = field(repr=False)
    changed: Sequence[Tool] = field(default=(), repr=False)
    """Tools that are not defined as they were when they were seen first."""
    file: bool = False
    """Whether there is a file beside the fields."""


def moderate(request: Unmoderated, dialect: Dialect, exchange: Exchange) -> None:
    """Let ``exchange`` read the request, and rewrite what the policy says.

    Raises :class:`Refused` and :class:`~cotguard.moderation.exchange.ModerationFault`.
    """
    if request.file and exchange.policy.request.media is Media.REFUSE:
        raise Refused(400, ErrorKind.UNSUPPORTED, NO_MEDIA)
    try:
        for tool in request.changed:
            action = exchange.judge(_CHANGED, ChannelKind.TOOL_DESCRIPTION)
            if action is Action.BLOCK:
                raise RequestBlocked
            if action.rewrites:
                _silence(_at(request.document, tool.path))
        dialect.read_request(request.document, request.fields, exchange)
        if exchange.policy.request.texts is RequestTexts.MODERATE:
            for name, value in list(request.headers.items()):
                if name.lower() not in CREDENTIALS and not exchange.is_plain(ChannelKind.USER, value):
                    del request.headers[name]
            asked = [value for name, value in request.query.items() if name != PARAMETER]
            if not all(exchange.is_plain(ChannelKind.USER, each) for each in (*request.parameters.values(), *asked)):
                raise Refused(400, ErrorKind.BAD_REQUEST, _IN_URL)
    except RequestBlocked:
        raise Refused(400, ErrorKind.BLOCKED, _BLOCKED) from None


def is_recordable(name: str, exchange: Exchange) -> bool:
    """Whether a name that the client wrote may stand in records and traces: the policy takes nothing out of it."""
    try:
        return exchange.is_plain(ChannelKind.USER, name)
    except (RequestBlocked, ModerationFault):
        return False


def _at(document: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        document = document[step]
    return document


def _silence(described: Any) -> None:
    """Take the words out of a tool's definition: what is left is how it is called."""
    if isinstance(described, dict):
        for name, value in described.items():
            if name in _WORDS and isinstance(value, str):
                described[name] = f"[{_CHANGED}]"
            else:
                _silence(value)
    elif isinstance(described, list):
        for value in described:
            _silence(value)
