"""Why a caller's request is refused: the reasons that metrics tell, and what the caller is told of them.

A caller learns less than the metrics: a key that never was, one that was revoked and one whose secret is wrong are
answered alike, so that nobody can try which keys there are.
"""

from collections.abc import Mapping
from enum import StrEnum

from cotguard.dialects.contract import ErrorKind, Refused

__all__ = ["Denied", "Reason"]

_NOT_KNOWN = "This credential is not known here, or is no longer valid."


class Reason(StrEnum):
    """What a caller lacks. The value is a metric's label."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED = "expired"
    TOKEN = "token"  # noqa: S105  # what is wrong, and no password
    CERTIFICATE = "certificate"
    ROLE = "role"
    ROUTE = "route"
    DIALECT = "dialect"
    MODEL = "model"
    REQUESTS = "requests"
    CONCURRENCY = "concurrency"
    TOKENS = "tokens"
    UNAVAILABLE = "unavailable"


_ANSWERS: Mapping[Reason, tuple[int, ErrorKind, str]] = {
    Reason.MISSING: (
        401,
        ErrorKind.UNAUTHENTICATED,
        "Send a key of this gateway where the client's API key stands: Authorization: Bearer, x-api-key, api-key "
        "or x-goog-api-key.",
    ),
    Reason.UNKNOWN: (401, ErrorKind.UNAUTHENTICATED, _NOT_KNOWN),
    Reason.REVOKED: (401, ErrorKind.UNAUTHENTICATED, _NOT_KNOWN),
    Reason.EXPIRED: (401, ErrorKind.UNAUTHENTICATED, _NOT_KNOWN),
    Reason.TOKEN: (401, ErrorKind.UNAUTHENTICATED, _NOT_KNOWN),
    Reason.CERTIFICATE: (403, ErrorKind.FORBIDDEN, "The certificate of this connection has no role here."),
    Reason.ROLE: (403, ErrorKind.FORBIDDEN, "This credential has no role here."),
    Reason.ROUTE: (403, ErrorKind.FORBIDDEN, "This credential may not use this path."),
    Reason.DIALECT: (403, ErrorKind.FORBIDDEN, "This credential may not use this API."),
    Reason.MODEL: (403, ErrorKind.FORBIDDEN, "This credential may not use this model."),
    Reason.REQUESTS: (429, ErrorKind.RATE_LIMITED, "The requests per minute of this credential are used up."),
    Reason.CONCURRENCY: (429, ErrorKind.RATE_LIMITED, "Too many requests of this credential are under way."),
    Reason.TOKENS: (429, ErrorKind.RATE_LIMITED, "The tokens per day of this credential are used up."),
    Reason.UNAVAILABLE: (503, ErrorKind.OVERLOADED, "This gateway cannot check credentials and limits now."),
}


class Denied(Exception):  # noqa: N818  # not an error of ours: an answer to the client
    """A caller may not do what is asked. ``retry_after``: seconds until he may, where time alone changes that."""

    def __init__(self, reason: Reason, retry_after: int | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.retry_after = retry_after

    @property
    def refused(self) -> Refused:
        """What the client is told."""
        return Refused(*_ANSWERS[self.reason], self.retry_after)
