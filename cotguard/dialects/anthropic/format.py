"""What whole messages and streams of Anthropic Messages have in common: the table, compiled, and the shapes around it.

Source: anthropic-sdk-python ``types/message.py``, ``types/beta/beta_message.py``, ``types/shared/error_response.py``.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cotguard.dialects.contract import ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.table import Table

__all__ = ["CUT_NOTICE", "Format", "error_object"]

CUT_NOTICE = "The rest of this response was removed by policy."

_TOOLSET = re.compile(r"([a-z]+)_toolset_[0-9]+")
_ERROR_TYPES: Mapping[ErrorKind, str] = {
    ErrorKind.BAD_REQUEST: "invalid_request_error",
    ErrorKind.BLOCKED: "invalid_request_error",
    ErrorKind.UNAUTHENTICATED: "authentication_error",
    ErrorKind.FORBIDDEN: "permission_error",
    ErrorKind.RATE_LIMITED: "rate_limit_error",
    ErrorKind.UNSUPPORTED: "invalid_request_error",
    ErrorKind.NOT_FOUND: "not_found_error",
    ErrorKind.TOO_LARGE: "request_too_large",
    ErrorKind.UPSTREAM_TIMEOUT: "timeout_error",
    ErrorKind.OVERLOADED: "overloaded_error",
    ErrorKind.SHUTTING_DOWN: "overloaded_error",
}


class Format:
    """The table, compiled."""

    def __init__(self, table: Table) -> None:
        self.message = table.shape("message")
        self.delta = table.shape("delta")
        self.stripped = table.names("request", "strip")
        self.refused = table.names("request", "refuse")
        self._toolsets = {name: table.names("toolsets", name) for name in ("browser", "computer")}
        self._server_tools = table.names("enums", "server_tool")
        self._stop_reasons = table.names("enums", "stop_reason")
        self._error_types = table.names("errors", "types")

    def tool_names(self, tool: Mapping[str, object]) -> Iterator[str]:
        """The names by which a model may call what a request declares as one tool."""
        name, kind = tool.get("name"), tool.get("type")
        if isinstance(name, str) and name:
            yield name
        toolset = _TOOLSET.fullmatch(kind) if isinstance(kind, str) else None
        if toolset is not None:
            yield from self._toolsets.get(toolset[1], ())

    def declared(self, content: list[Any], tools: frozenset[str]) -> list[Any]:
        """Blocks without calls of tools that were not declared."""
        return [block for block in content if self._is_declared(block, tools)]

    def _is_declared(self, block: object, tools: frozenset[str]) -> bool:
        if not isinstance(block, dict):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's response has a block of the wrong type.")
        kind, name = block.get("type"), block.get("name")
        if kind not in ("tool_use", "server_tool_use"):
            return True
        return isinstance(name, str) and name in (tools if kind == "tool_use" else self._server_tools)

    def stop(self, sent: Mapping[str, object], prepared: Prepared, *, called: bool) -> dict[str, object]:
        """Why the message stopped. ``called``: whether the client got a call of a tool of its own."""
        reason, sequence = sent.get("stop_reason"), sent.get("stop_sequence")
        known = reason if isinstance(reason, str) and reason in self._stop_reasons else reason and "end_turn"
        if known == "tool_use" and not called:
            known = "end_turn"
        asked = isinstance(sequence, str) and sequence in prepared.stops
        return {"stop_reason": known or None, "stop_sequence": sequence if asked else None}

    def cut(self) -> dict[str, object]:
        """Why a message stopped that a policy block cut."""
        details = {"type": "refusal", "category": None, "explanation": CUT_NOTICE}
        return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}

    def reported(self, sent: object, message: str) -> dict[str, object]:
        """An upstream's error document with its type, if it is known, and ``message`` for its text."""
        error = sent.get("error") if isinstance(sent, dict) else None
        kind = error.get("type") if isinstance(error, dict) else None
        known = kind if isinstance(kind, str) and kind in self._error_types else "api_error"
        return {"type": "error", "error": {"type": known, "message": message}}


def error_object(kind: ErrorKind, message: str) -> dict[str, object]:
    """Our own error in the dialect's shape."""
    family = _ERROR_TYPES.get(kind, "api_error")
    return {"type": "error", "error": {"type": family, "message": message, "code": kind.value}}
