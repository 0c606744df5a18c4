"""Thinking that is signed: sealed in messages, restored in requests.

A ``thinking`` block keeps its moderated text, and has a token for its signature; a ``redacted_thinking`` block has one
for its data. What a token restores is the block as it was: its fields, byte for byte.
"""

from functools import partial
from typing import Any

from cotguard.dialects.contract import Restored
from cotguard.dialects.request import bad
from cotguard.dialects.sealed import opened, with_blocks
from cotguard.sealing.seals import Seals, is_token

__all__ = ["REDACTED", "THINKING", "restore", "seal_message", "sealed_data", "signature_of"]

THINKING = "thinking"
REDACTED = "redacted_thinking"


def restore(messages: list[dict[str, Any]], seals: Seals, model: str) -> list[dict[str, Any]]:
    """A request's messages with their original thinking. Raises :class:`Refused`."""
    return with_blocks(messages, partial(_restored, seals=seals, model=model))


def _restored(block: Any, seals: Seals, model: str) -> Any:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == THINKING and is_token(block.get("signature")):
        text = block.get("thinking")
        if not isinstance(text, str):
            raise bad("The field 'messages[].content[].thinking' must be a string.")
        field = "messages[].content[].signature"
        return Restored({"type": THINKING, **opened(seals, THINKING, block["signature"], model, text, field)})
    if kind == REDACTED and is_token(block.get("data")):
        field = "messages[].content[].data"
        return Restored({"type": REDACTED, **opened(seals, REDACTED, block["data"], model, "", field)})
    return block


def signature_of(block: dict[str, Any]) -> str:
    """The signature of a thinking block; empty if it has none."""
    signature = block.get("signature")
    return signature if isinstance(signature, str) else ""


def sealed_data(block: dict[str, Any], seals: Seals, model: str) -> dict[str, Any] | None:
    """A block of redacted thinking with a token for its data; None if it has none."""
    data = block.get("data")
    if not isinstance(data, str) or not data:
        return None
    return {"type": REDACTED, "data": seals.seal(REDACTED, {"data": data}, model, "")}


def seal_message(content: list[Any], written: list[dict[str, Any]], seals: Seals, model: str) -> None:
    """Put tokens into the blocks that are ``written`` for those of a whole message, which stand in the same order."""
    thoughts = [block for block in content if block["type"] == THINKING]
    for block, original in zip([each for each in written if each["type"] == THINKING], thoughts, strict=True):
        if signature := signature_of(original):
            kept = {"thinking": original.get("thinking", ""), "signature": signature}
            block["signature"] = seals.seal(THINKING, kept, model, block.get("thinking") or "")
