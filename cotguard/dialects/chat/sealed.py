"""Signed reasoning of Chat Completions: sealed in responses, restored in requests.

It comes in three forms: items of ``reasoning_details`` (OpenRouter) and of ``thinking_blocks`` (LiteLLM), each with a
text and its signature or with data alone, and ``extra_content.google.thought_signature`` (Gemini), of a message or of a
tool call. In a stream a text comes in many items and its signature in the last; clients send them back so, or as one.
So a token is bound to the texts of all items since the one before that had a token or data, and restores one item.

The token of a tool call is bound to its name and arguments and restores both; that of a message, to nothing.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cotguard.dialects.contract import Restored
from cotguard.dialects.sealed import as_blob, canonical, from_blob, opened
from cotguard.dialects.table import CHECKS
from cotguard.framing.json import JSONError, loads
from cotguard.sealing.seals import Seals, is_token

__all__ = ["CARRIERS", "Signed", "restore", "signature_of", "signed_call", "signed_item", "signed_message"]

CARRIERS = ("reasoning_details", "thinking_blocks")
"""The lists of a message whose items may be signed."""

_EXTRA = "extra_content"
_SIGNATURE = "thought_signature"


class _Form(NamedTuple):
    text: str
    token: str


_FORMS: Mapping[str, Mapping[str, _Form]] = {
    "reasoning_details": {
        "reasoning.text": _Form("text", "signature"),
        "reasoning.encrypted": _Form("", "data"),
    },
    "thinking_blocks": {
        "thinking": _Form("thinking", "signature"),
        "redacted_thinking": _Form("", "data"),
    },
}
"""By carrier and type of item: where its text is, if it has one, and its signature or data."""

_TEXTS = ("text", "summary", "thinking")
_BESIDE: Mapping[str, str] = {"id": "id", "format": "word", "index": "index"}
"""What else an item has, and the checks by which it passes."""


@dataclass(slots=True)
class Signed:
    """A signature on its way to the client. ``key``: the channel of the text that it is of, if there is one.

    ``carrier``: the list of a message in an item of which the token stands by the name ``place``; both are empty for a
    message's own. ``beside``: what stands beside it. ``original`` is what it restores, but for the text.
    """

    kind: str
    key: Hashable
    carrier: str
    place: str
    beside: dict[str, Any]
    original: dict[str, Any] = field(repr=False)
    text: str = ""
    """The name in the original of the text as it came."""
    ended: Hashable = None
    """Another channel that ends here."""

    def token(self, raw: str, issued: str, seals: Seals, model: str) -> dict[str, Any]:
        """The item of the carrier, or the part of the message, that has the token."""
        original = {**self.original, self.text: raw} if self.text else self.original
        bound = _call(str(self.original["name"]), issued) if self.kind == "tool_call" else issued
        token = seals.seal(self.kind, original, model, bound)
        if not self.place:
            return {**self.beside, _EXTRA: {"google": {_SIGNATURE: as_blob(token)}}}
        return {**self.beside, self.place: token}

    def delta(self, token: dict[str, Any]) -> dict[str, Any]:
        """The message with nothing in it but what ``token`` returned."""
        return {self.carrier: [token]} if self.carrier else token


def signed_item(carrier: str, item: Any) -> Signed | None:
    """What is signed in an item of a list that is a carrier; its ``key`` is for the caller to tell."""
    kind = item.get("type") if isinstance(item, dict) else None
    form = _FORMS[carrier].get(kind) if isinstance(kind, str) else None
    if form is None or not isinstance(item.get(form.token), str) or not item[form.token]:
        return None
    beside = {name: item[name] for name, check in _BESIDE.items() if name in item and CHECKS[check](item[name])}
    original = {name: value for name, value in item.items() if name != form.text}
    return Signed(carrier, None, carrier, form.token, {"type": kind, **beside}, original, form.text)


def signature_of(holder: Mapping[str, Any]) -> str:
    """Gemini's signature of a message or call; empty if it has none."""
    extra = holder.get(_EXTRA)
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get(_SIGNATURE) if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else ""


def signed_message(signature: str) -> Signed:
    """A message's signature."""
    return Signed("message", None, "", "", {}, {_SIGNATURE: signature})


def signed_call(signature: str, key: Hashable, name: str, beside: dict[str, Any]) -> Signed:
    """A tool call's signature."""
    return Signed("tool_call", key, "tool_calls", "", beside, {_SIGNATURE: signature, "name": name}, "arguments")


# Requests.


def restore(messages: list[dict[str, Any]], seals: Seals, model: str) -> list[dict[str, Any]]:
    """A request's messages with what was sealed. Raises :class:`Refused`."""
    return [_restored(message, seals, model) for message in messages]


def _restored(message: dict[str, Any], seals: Seals, model: str) -> dict[str, Any]:
    restored = dict(message)
    for carrier in CARRIERS:
        if isinstance(items := message.get(carrier), list):
            restored[carrier] = _restored_items(carrier, items, seals, model)
    if token := from_blob(signature_of(message)):
        original = opened(seals, "message", token, model, "", f"messages[].{_EXTRA}.google.{_SIGNATURE}")
        restored[_EXTRA] = _with_signature(message, original[_SIGNATURE])
    if isinstance(calls := message.get("tool_calls"), list):
        restored["tool_calls"] = [_restored_call(call, seals, model) for call in calls]
    return restored


def _restored_items(carrier: str, items: list[Any], seals: Seals, model: str) -> list[Any]:
    restored: list[Any] = []
    since = 0  # where the texts begin that the next token is bound to
    for item in items:
        kind = item.get("type") if isinstance(item, dict) else None
        form = _FORMS[carrier].get(kind) if isinstance(kind, str) else None
        token = item.get(form.token) if form is not None else None
        if form is None or not is_token(token) or not isinstance(token, str):
            restored.append(item)
            if token:
                since = len(restored)
            continue
        field_ = f"messages[].{carrier}[].{form.token}"
        issued = ""
        if form.text:
            issued = "".join(map(_text, [*restored[since:], item]))
            del restored[since:]
        restored.append(Restored(opened(seals, carrier, token, model, issued, field_)))
        since = len(restored)
    return restored


def _text(item: Any) -> str:
    found = (item.get(name) for name in _TEXTS) if isinstance(item, dict) else ()
    return next((text for text in found if isinstance(text, str)), "")


def _restored_call(call: Any, seals: Seals, model: str) -> Any:
    token = from_blob(signature_of(call)) if isinstance(call, dict) else ""
    if not token:
        return call
    function = call.get("function")
    name, arguments = (function.get("name"), function.get("arguments")) if isinstance(function, dict) else (None, None)
    issued = _call(name if isinstance(name, str) else "", arguments if isinstance(arguments, str) else "")
    original = opened(seals, "tool_call", token, model, issued, f"messages[].tool_calls[].{_EXTRA}.google.{_SIGNATURE}")
    whole = Restored({"name": original["name"], "arguments": original["arguments"]})
    return {**call, "function": whole, _EXTRA: _with_signature(call, original[_SIGNATURE])}


def _with_signature(holder: Mapping[str, Any], signature: str) -> dict[str, Any]:
    extra: dict[str, Any] = holder[_EXTRA]
    return {**extra, "google": {**extra["google"], _SIGNATURE: signature}}


def _call(name: str, arguments: str) -> str:
    """A call as text, the same however its arguments are spaced and ordered."""
    try:
        value = loads(arguments.encode("utf-8", "surrogatepass"))
    except JSONError:
        value = arguments
    return canonical([name, value])
