"""What the table ``responses.yaml`` says of responses, and the shapes that clients require of them."""

from collections.abc import Mapping
from typing import Any

from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, UpstreamFault
from cotguard.dialects.table import Document, Table, Text

__all__ = ["Format", "listed"]


_ECHOES: Mapping[str, Any] = {
    "instructions": None,
    "metadata": {},
    "tools": [],
}
"""Fields that clients require and that only repeat the request."""

_REQUIRED: Mapping[str, Any] = {
    "id": "response",
    "created_at": 0,
    "status": "in_progress",
    "model": "",
    "error": None,
    "incomplete_details": None,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "temperature": None,
    "top_p": None,
    "usage": None,
    "output": [],
}

_MALFORMED = "The upstream's response has an item of the wrong type."

_WITHIN = 2  # steps on the way to an item: `output` and its place there


class Format:
    """The dialect's table, compiled."""

    def __init__(self, table: Table) -> None:
        self.response = table.shape("response")
        self.progress = table.names("progress", "events")
        self._error_types = table.names("errors", "types")
        self._error_codes = table.names("errors", "codes")

    def item(self, item: object) -> Document | None:
        """A copy of an item, its texts as seen from there; None for a type that has no rows.

        Raises :class:`~cotguard.dialects.contract.UpstreamFault`.
        """
        if not isinstance(item, dict):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _MALFORMED)
        copied = self.response.copy({"output": [item]})
        output = copied.root["output"]
        if "type" not in output[0]:
            return None
        texts = [
            Text(each.channel, each.origin[_WITHIN:], each.path[_WITHIN:], each.text, each.structured)
            for each in copied.texts
        ]
        return Document(output[0], texts)

    def envelope(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """A response's fields outside its output."""
        fields = {name: value for name, value in response.items() if name != "output"}
        return self.completed(self.response.copy(fields).root, response)

    def completed(self, copied: dict[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of ``response`` with the fields that clients require; an error has its code and no text."""
        error = response.get("error")
        told = {"error": self.failure(error)} if error else {}
        passed = {name: value for name, value in copied.items() if value != {}}
        return {**_REQUIRED, **passed, **told, **_ECHOES, "object": "response"}

    def failure(self, error: object) -> dict[str, Any]:
        """The error of a response that failed."""
        code = error.get("code") if isinstance(error, dict) else None
        known = isinstance(code, str) and code in self._error_codes
        return {"code": code if known else "server_error", "message": UPSTREAM_REPORTED}

    def reported(self, sent: object, message: str) -> dict[str, Any]:
        """An upstream's error, nested or flat, with its type and code if we know them, and ``message`` for its text."""
        nested = sent.get("error") if isinstance(sent, dict) else None
        error = nested if isinstance(nested, dict) else sent if isinstance(sent, dict) else {}
        kind, code = error.get("type"), error.get("code")
        known_kind = kind if isinstance(kind, str) and kind in self._error_types else "upstream_error"
        known = isinstance(code, str) and code in self._error_codes
        known = known or (type(code) is int and 400 <= code < 600)
        return {"error": {"message": message, "type": known_kind, "param": None, "code": code if known else None}}


def listed(value: object) -> list[Any]:
    """An array of an upstream's response; empty where it is missing. Raises :class:`UpstreamFault`."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _MALFORMED)
    return value
