"""The log of aiohttp's server without the requests: its errors quote the bytes that they could not read (G7)."""

import logging
import traceback

__all__ = ["quote_nothing"]

_SERVER = logging.getLogger("aiohttp.server")


def quote_nothing() -> None:
    """From now on aiohttp's server logs what kind of error it was, and where, and nothing of the message."""
    _SERVER.addFilter(_reduced)


def _reduced(record: logging.LogRecord) -> bool:
    """An error in one line: its type and where it was raised. Clients that send no HTTP are no warning."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return True
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f"{place[0].name}:{place[0].lineno}" if place else "unknown"
    record.msg, record.args = "error in a request kind=%s at=%s", (type(error).__name__, where)
    record.exc_info = record.exc_text = None
    return True
