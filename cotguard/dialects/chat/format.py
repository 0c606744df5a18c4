"""Chat Completions: the compiled table and the shapes that stream, body and request share.

Sources: the OpenAI API reference for ``POST /v1/chat/completions``; error objects as the official SDKs read them.
"""

from collections.abc import Mapping

from cotguard.dialects.contract import ErrorKind, UpstreamFault
from cotguard.dialects.table import Table

__all__ = ["Format", "as_object", "envelope", "error_object"]

_ERROR_TYPES: Mapping[ErrorKind, str] = {
    ErrorKind.BAD_REQUEST: "invalid_request_error",
    ErrorKind.BLOCKED: "invalid_request_error",
    ErrorKind.UNAUTHENTICATED: "authentication_error",
    ErrorKind.FORBIDDEN: "permission_error",
    ErrorKind.RATE_LIMITED: "rate_limit_error",
    ErrorKind.UNSUPPORTED: "invalid_request_error",
    ErrorKind.NOT_FOUND: "invalid_request_error",
    ErrorKind.TOO_LARGE: "invalid_request_error",
}


class Format:
    """A table's sections, compiled. ``ValueError`` says which row is wrong."""

    def __init__(self, table: Table) -> None:
        self.envelope = table.shape("envelope")
        self.extras = table.shape("extras")
        self.opening = table.shape("opening")
        self.message = table.shape("message")
        self.tool_call = table.shape("tool_call")
        self.finish_reasons = table.names("enums", "finish_reason")
        self.padding = tuple(sorted(table.names("padding", "fields")))
        self.stripped = table.names("request", "strip")
        self.refused = table.names("request", "refuse")
        self._error_types = table.names("errors", "types")
        self._error_codes = table.names("errors", "codes")

    def upstream_error(self, error: object, message: str) -> dict[str, object]:
        """An upstream's error object with its type and code, if we know them, and ``message`` for its text."""
        kind: object = None
        code: object = None
        if isinstance(error, dict):
            kind, code = error.get("type"), error.get("code")
        known_kind = kind if isinstance(kind, str) and kind in self._error_types else "upstream_error"
        known = isinstance(code, str) and code in self._error_codes
        known = known or (type(code) is int and 400 <= code < 600)
        return {"error": {"message": message, "type": known_kind, "param": None, "code": code if known else None}}


def error_object(kind: ErrorKind, message: str) -> dict[str, object]:
    """Our own error in the dialect's shape."""
    family = _ERROR_TYPES.get(kind, "server_error")
    return {"error": {"message": message, "type": family, "param": None, "code": kind.value}}


def envelope(fields: Mapping[str, object], kind: str) -> dict[str, object]:
    """A response's or chunk's fields outside ``choices``; those that every client expects are there."""
    return {"id": "", "created": 0, "model": ""} | dict(fields) | {"object": kind}


def as_object(value: object) -> dict[str, object]:
    """``value`` if it is a JSON object; raises :class:`UpstreamFault` else."""
    if not isinstance(value, dict):
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's response is not of the expected shape.")
    return value
