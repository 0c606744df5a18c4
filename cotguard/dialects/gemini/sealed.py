"""Thought signatures of parts: sealed in responses, restored in requests.

A part that is no text (a function call, code) is restored as it was, and its token is bound to what the client got of
it. A text is an answer, or a summary of thoughts, of which clients make one part or many; so the token of one is bound
to no text, and restores the signature. Where it comes back with the very text it was issued with, it restores the parts
of that text, too.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from cotguard.dialects.contract import Restored
from cotguard.dialects.sealed import as_blob, canonical, from_blob, opened
from cotguard.sealing.seals import Seals

__all__ = ["SIGNATURE", "restore", "seal_part", "seal_text", "signature_of"]

SIGNATURE = "thoughtSignature"

_PARTS: Mapping[str, tuple[str, ...]] = {
    "functionCall": ("name", "args"),
    "executableCode": ("language", "code"),
    "codeExecutionResult": ("outcome", "output"),
}
"""Parts that are no texts, and what of them a token is bound to: clients may add identifiers."""

_SPELLINGS: Mapping[str, str] = {
    "functionCall": "function_call",
    "executableCode": "executable_code",
    "codeExecutionResult": "code_execution_result",
    SIGNATURE: "thought_signature",
}
_FIELD = f"contents[].parts[].{SIGNATURE}"


def signature_of(part: Mapping[str, Any]) -> str:
    """The signature of an upstream's part; empty if it has none."""
    signature = part.get(SIGNATURE)
    return signature if isinstance(signature, str) else ""


def seal_part(original: Mapping[str, Any], issued: Mapping[str, Any], seals: Seals, model: str) -> str:
    """The token for a part that is no text and goes to the client as ``issued``."""
    return as_blob(seals.seal("part", {"part": original}, model, _issued(issued)))


def seal_text(signature: str, parts: Sequence[Mapping[str, Any]], issued: str, seals: Seals, model: str) -> str:
    """The token for the last of some texts' signatures. ``parts``, if they are at hand, go as the text ``issued``."""
    original: dict[str, Any] = {SIGNATURE: signature}
    if len(parts) > 1 or (parts and parts[0].get("text") != issued):
        original |= {"parts": parts, "issued": _digest(issued)}
    return as_blob(seals.seal("text", original, model, ""))


def restore(contents: object, seals: Seals, model: str) -> object:
    """A request's ``contents`` with the original parts. Raises :class:`Refused`."""
    if isinstance(contents, list):
        return [restore(each, seals, model) for each in contents]
    parts = contents.get("parts") if isinstance(contents, dict) else None
    if not isinstance(contents, dict) or parts is None:
        return contents
    listed = parts if isinstance(parts, list) else [parts]
    return {**contents, "parts": [each for part in listed for each in _restored(part, seals, model)]}


def _restored(part: Any, seals: Seals, model: str) -> list[Any]:
    token = from_blob(_named(part, SIGNATURE)) if isinstance(part, dict) else ""
    if not token:
        return [part]
    if any(_named(part, name) is not None for name in _PARTS):
        return [Restored(opened(seals, "part", token, model, _issued(part), _FIELD)["part"])]
    original = opened(seals, "text", token, model, "", _FIELD)
    text = part.get("text")
    if "parts" in original and isinstance(text, str) and _digest(text) == original["issued"]:
        return [Restored(each) for each in original["parts"]]
    rest = {name: value for name, value in part.items() if name != _SPELLINGS[SIGNATURE]}
    return [{**rest, SIGNATURE: original[SIGNATURE]}]


def _named(part: Mapping[str, Any], name: str) -> Any:
    """A field under its JSON name, or under its name in the proto file."""
    value = part.get(name)
    return part.get(_SPELLINGS[name]) if value is None else value


def _issued(part: Mapping[str, Any]) -> str:
    for name, fields in _PARTS.items():
        held = _named(part, name)
        if isinstance(held, dict):
            return canonical([name, [held.get(field) or None for field in fields]])
    return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
