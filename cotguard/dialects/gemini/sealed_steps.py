"""Signatures of thoughts in interactions: sealed in steps, restored in requests.

A step of thought keeps its moderated summary, and has a token for its signature; what that restores is both.
"""

from typing import Any

from cotguard.dialects.contract import Restored
from cotguard.dialects.sealed import as_blob, from_blob, opened
from cotguard.sealing.seals import Seals

__all__ = ["THOUGHT", "restore", "seal", "seal_steps", "signature_of"]

THOUGHT = "thought"


def signature_of(step: Any) -> str:
    """The signature of a step of thought, or of a delta that brings one; empty if it has none."""
    signature = step.get("signature") if isinstance(step, dict) else None
    return signature if isinstance(signature, str) else ""


def seal(signature: str, summary: list[Any], issued: str, seals: Seals, model: str) -> str:
    """The token for a signature of the thought that goes to the client as ``issued``."""
    return as_blob(seals.seal(THOUGHT, {"signature": signature, "summary": summary}, model, issued))


def seal_steps(steps: list[Any], written: list[dict[str, Any]], seals: Seals, model: str) -> None:
    """Put tokens into the steps that are ``written`` of a whole response's ``steps``, in the same order."""
    thoughts = [step for step in steps if isinstance(step, dict) and step.get("type") == THOUGHT]
    for step, original in zip([each for each in written if each["type"] == THOUGHT], thoughts, strict=True):
        if signature := signature_of(original):
            summary = original.get("summary")
            kept = summary if isinstance(summary, list) else []
            step["signature"] = seal(signature, kept, _said(step), seals, model)


def restore(steps: object, seals: Seals, model: str) -> object:
    """A request's input with the original thoughts. Raises :class:`Refused`."""
    if not isinstance(steps, list):
        return steps
    return [_restored(step, seals, model) for step in steps]


def _restored(step: Any, seals: Seals, model: str) -> Any:
    token = from_blob(signature_of(step))
    if not token or step.get("type") != THOUGHT:
        return step
    return Restored({"type": THOUGHT, **opened(seals, THOUGHT, token, model, _said(step), "input[].signature")})


def _said(step: dict[str, Any]) -> str:
    summary = step.get("summary")
    found = [each.get("text") for each in summary if isinstance(each, dict)] if isinstance(summary, list) else []
    return "".join(text for text in found if isinstance(text, str))
