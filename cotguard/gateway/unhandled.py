"""What is logged of faults that no handler of ours took: their type and place, never their message.

An exception's message may hold what it was about: the HTTP parser quotes a header that it does not like, with the
credential in it, and a ``KeyError`` its key. So aiohttp logs through :data:`SERVER_LOG`, and the event loop through
:func:`log_fault`.
"""

import asyncio
import logging
import traceback
from typing import Any

__all__ = ["SERVER_LOG", "log_fault"]

_LOG = logging.getLogger("cotguard.gateway")


class _TypeAndPlace(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        record.exc_info = None
        if error is not None:
            record.msg, record.args = "%s %s", (record.getMessage(), _told(error))
        return True


SERVER_LOG = logging.getLogger("cotguard.gateway.http")
"""For aiohttp's ``logger``: its own words, and the address of who sent the request."""
SERVER_LOG.addFilter(_TypeAndPlace())


def log_fault(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An event loop's exception handler. A callback is not told, since it shows its arguments."""
    message = str(context.get("message", "")).partition(" in callback ")[0]
    error = context.get("exception")
    _LOG.error("%s %s", message, _told(error) if isinstance(error, BaseException) else "")


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
    return f"error={type(error).__name__} at={place}"
