"""Who uses the console: a session for each login, known by a cookie that scripts cannot read.

The cookie is sent to this site's own pages only (``SameSite=Strict``); what changes anything must name the session's
CSRF token as well, which other sites cannot read. Sessions are kept in memory and end by themselves.
"""

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["COOKIE", "Session", "Sessions"]

COOKIE: Final = "cotguard_console"
_SECONDS: Final = 8 * 3600
_MOST: Final = 256
"""Sessions that are kept; of more the oldest ends."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is logged in, until ``ends`` on the clock."""

    ends: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    def allows(self, csrf: str) -> bool:
        """Whether ``csrf`` is this session's token."""
        return hmac.compare_digest(csrf.encode(errors="surrogateescape"), self.csrf.encode())


class Sessions:
    """See the module. ``clock`` never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def begin(self) -> str:
        """A new session's id, for the cookie."""
        while len(self._sessions) >= _MOST:
            del self._sessions[next(iter(self._sessions))]
        name = secrets.token_urlsafe(32)
        self._sessions[name] = Session(self._clock() + _SECONDS)
        return name

    def find(self, name: str) -> Session | None:
        """The session of that id, if it lasts."""
        session = self._sessions.get(name)
        if session is not None and session.ends <= self._clock():
            del self._sessions[name]
            return None
        return session

    def end(self, name: str) -> None:
        """End a session."""
        self._sessions.pop(name, None)
