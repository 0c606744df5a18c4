"""Why a pool has no answer: one class per reason, each with what the client is told.

Messages are constant text: they name no server, and hold nothing of a request.
"""

from typing import ClassVar

from cotguard.dialects.contract import ErrorKind

__all__ = [
    "AllDownError",
    "AllFullError",
    "NoAnswerError",
    "NotConnectedError",
    "PoolError",
    "ServerError",
    "TooSlowError",
]


class PoolError(Exception):
    """No answer. ``retry_after``: the seconds after which the same request may find a server, if time can change it."""

    status: ClassVar[int]
    kind: ClassVar[ErrorKind]
    message: ClassVar[str]

    def __init__(self, retry_after: int | None = None) -> None:
        super().__init__(self.message)
        self.retry_after = retry_after


class AllDownError(PoolError):
    """No server takes requests: health checks or breakers have taken all of them out. Nothing was sent."""

    status = 503
    kind = ErrorKind.OVERLOADED
    message = "No server of the upstream takes requests now."


class AllFullError(PoolError):
    """Every server has as many requests as it may have, and none became free in time. Nothing was sent."""

    status = 503
    kind = ErrorKind.OVERLOADED
    message = "All servers of the upstream are busy."

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__(retry_after)


class ServerError(PoolError):
    """What the server that was chosen last did wrong."""


class NotConnectedError(ServerError):
    """There was no connection. Nothing was sent: another server may be asked."""

    status = 502
    kind = ErrorKind.UPSTREAM_ERROR
    message = "The upstream cannot be reached."


class NoAnswerError(ServerError):
    """The connection ended, or brought no HTTP, before a status line. What the server did with the request is open."""

    status = 502
    kind = ErrorKind.UPSTREAM_ERROR
    message = "The upstream ended the connection without an answer."


class TooSlowError(ServerError):
    """There was no status line in time. What the server does with the request is open."""

    status = 504
    kind = ErrorKind.UPSTREAM_TIMEOUT
    message = "The upstream did not answer in time."
