"""Signed reasoning in requests and responses: what dialects share of sealing it and of putting it back.

What a client gets for a signature is a token (:mod:`cotguard.sealing.seals`); what it sends back with a token becomes
the original again. Whatever else stands in the place of a signature is the client's, and passes.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from cotguard.dialects.contract import ErrorKind, Refused, UpstreamFault
from cotguard.framing.json import dumps
from cotguard.sealing.keyring import Unsealable
from cotguard.sealing.seals import Seals, is_token

__all__ = ["as_blob", "canonical", "from_blob", "joined_blobs", "opened", "with_blocks"]

_INVALID = (
    "The field '{}' holds a seal that is not valid here: it was changed, or issued with another text, for another "
    "model or to another caller, or its key is no longer in use. Send reasoning back as it came, or leave it out."
)
_EXPIRED = "The seal in the field '{}' has expired. Leave the reasoning of earlier turns out, or begin the turn again."

_TO_BLOB = str.maketrans("-_", "+/")
_FROM_BLOB = str.maketrans("+/", "-_")


def opened(seals: Seals, kind: str, token: str, model: str, issued: str, field: str) -> dict[str, Any]:
    """What was sealed in ``token``, which stood in ``field``. Raises :class:`Refused`."""
    try:
        return seals.open(kind, token, model, issued)
    except Unsealable as unsealable:
        message = (_EXPIRED if unsealable.expired else _INVALID).format(field)
    raise Refused(400, ErrorKind.BAD_REQUEST, message)


def with_blocks(messages: list[dict[str, Any]], restored: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Messages with every block of their content ``restored``."""
    written = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            message = {**message, "content": [restored(block) for block in content]}
        written.append(message)
    return written


def as_blob(token: str) -> str:
    """A token where a client expects bytes, in the alphabet that all of them decode."""
    return token.translate(_TO_BLOB)


def from_blob(value: object) -> str:
    """The token in a place for bytes, in either alphabet; empty if there is none."""
    token = value.translate(_FROM_BLOB).rstrip("=") if isinstance(value, str) else ""
    return token if is_token(token) else ""


def joined_blobs(pieces: list[str]) -> str:
    """Bytes that came in several pieces, each in base64. Raises :class:`UpstreamFault`."""
    if len(pieces) == 1:
        return pieces[0]
    try:
        return base64.b64encode(b"".join(base64.b64decode(each, validate=True) for each in pieces)).decode()
    except ValueError:
        pass
    raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's reasoning is not in base64.")


def canonical(value: object) -> str:
    """A JSON value as text: the same however a client has ordered and spaced it, or written its whole numbers."""
    return dumps(_ordered(value)).decode()


def _ordered(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _ordered(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_ordered(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
