"""Signed reasoning of Converse: sealed in messages, restored in requests.

A block of reasoning has a text with a signature, or redacted content, which is bytes. Its original is what the block's
``reasoningContent`` was.
"""

from functools import partial
from typing import Any

from cotguard.dialects.contract import Restored
from cotguard.dialects.request import bad
from cotguard.dialects.sealed import as_blob, from_blob, opened, with_blocks
from cotguard.sealing.seals import Seals, is_token

__all__ = ["reasoning_signature", "redacted_content", "restore", "seal_redacted", "seal_signature"]

_TEXT = "reasoningText"
_REDACTED = "redactedContent"
_FIELD = "messages[].content[].reasoningContent."


def restore(messages: list[dict[str, Any]], seals: Seals, model: str) -> list[dict[str, Any]]:
    """A request's messages with their original reasoning. Raises :class:`Refused`."""
    return with_blocks(messages, partial(_restored, seals=seals, model=model))


def _restored(block: Any, seals: Seals, model: str) -> Any:
    reasoning = block.get("reasoningContent") if isinstance(block, dict) else None
    if not isinstance(reasoning, dict):
        return block
    thought = reasoning.get(_TEXT)
    if isinstance(thought, dict) and is_token(thought.get("signature")):
        text, token = thought.get("text"), thought["signature"]
        if not isinstance(text, str):
            raise bad(f"The field '{_FIELD}{_TEXT}.text' must be a string.")
        original = opened(seals, _TEXT, token, model, text, f"{_FIELD}{_TEXT}.signature")
        return Restored({"reasoningContent": {_TEXT: original}})
    if token := from_blob(reasoning.get(_REDACTED)):
        original = opened(seals, _REDACTED, token, model, "", _FIELD + _REDACTED)
        return Restored({"reasoningContent": original})
    return block


def reasoning_signature(reasoning: dict[str, Any]) -> str:
    """The signature of a block's, or a delta's, reasoning; empty if there is none."""
    thought = reasoning.get(_TEXT)
    signature = (thought if isinstance(thought, dict) else reasoning).get("signature")
    return signature if isinstance(signature, str) else ""


def redacted_content(reasoning: dict[str, Any]) -> str:
    """Redacted content, in base64; empty if there is none."""
    content = reasoning.get(_REDACTED)
    return content if isinstance(content, str) else ""


def seal_signature(text: str, signature: str, seals: Seals, model: str, issued: str) -> str:
    """The token for a text's signature."""
    return seals.seal(_TEXT, {"text": text, "signature": signature}, model, issued)


def seal_redacted(content: str, seals: Seals, model: str) -> dict[str, Any]:
    """Redacted content with a token for what it holds."""
    return {_REDACTED: as_blob(seals.seal(_REDACTED, {_REDACTED: content}, model, ""))}
