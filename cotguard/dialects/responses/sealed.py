"""Encrypted reasoning of Responses: sealed in items, restored in requests.

A ``reasoning`` item keeps its moderated texts, and has a token for its ``encrypted_content``. The token is bound to all
of these texts; what it restores is the item's fields as they were.
"""

from typing import Any

from cotguard.dialects.contract import Restored
from cotguard.dialects.sealed import canonical, opened
from cotguard.sealing.seals import Seals, is_token

__all__ = ["original_of", "restore", "seal"]

_KIND = "reasoning"
_CONTENT = "encrypted_content"
_ORIGINAL = ("id", "summary", "content", _CONTENT)
_TEXTS = ("summary", "content")


def restore(item: dict[str, Any], seals: Seals, model: str) -> dict[str, Any]:
    """An item of a request's input as it was, if it is sealed. Raises :class:`Refused`."""
    token = item.get(_CONTENT)
    if item.get("type") != _KIND or not isinstance(token, str) or not is_token(token):
        return item
    return Restored({"type": _KIND, **opened(seals, _KIND, token, model, _issued(item), "input[].encrypted_content")})


def original_of(item: dict[str, Any]) -> dict[str, Any]:
    """What is to be restored of an upstream's item; empty if it is not encrypted."""
    if item.get("type") != _KIND or not isinstance(item.get(_CONTENT), str) or not item[_CONTENT]:
        return {}
    return {name: item[name] for name in _ORIGINAL if name in item}


def seal(original: dict[str, Any], issued: dict[str, Any], seals: Seals, model: str) -> str:
    """The token for an item that goes to the client as ``issued``."""
    return seals.seal(_KIND, original, model, _issued(issued))


def _issued(item: dict[str, Any]) -> str:
    """The texts of an item, in order, and which of them is which."""
    return canonical([[_text(part) for part in _parts(item.get(name))] for name in _TEXTS])


def _parts(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else ""
