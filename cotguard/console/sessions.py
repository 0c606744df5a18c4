"""Who uses the console: a session for each login, known by a cookie that scripts cannot read.

The cookie is sent to this site's own pages only (``SameSite=Strict``); what changes anything must name the session's
CSRF token as well, which other sites cannot read. Sessions are kept in memory and end by themselves, and those of
callers of the gateway when these may no longer do what they might at the login.
"""

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cotguard.callers.caller import Console

__all__ = ["COOKIE", "Session", "Sessions"]

COOKIE: Final = "cotguard_console"
_SECONDS: Final = 8 * 3600
_MOST: Final = 256
"""Sessions that are kept; of more the oldest ends."""

_CHECK_SECONDS: Final = 60
"""How long a caller's right is taken to be what it was."""


@dataclass(slots=True)
class Session:
    """Somebody who is logged in, until ``ends`` on the clock.

    ``credential`` is empty for the admin token, which does not change; what others showed is ``checked`` again.
    """

    name: str
    right: Console
    credential: str = field(repr=False)
    ends: float
    checked: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    def allows(self, csrf: str) -> bool:
        """Whether ``csrf`` is this session's token."""
        return hmac.compare_digest(csrf.encode(errors="surrogateescape"), self.csrf.encode())


class Sessions:
    """See the module. ``clock`` never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def begin(self, name: str, right: Console, credential: str = "") -> str:
        """A new session's id, for the cookie."""
        while len(self._sessions) >= _MOST:
            del self._sessions[next(iter(self._sessions))]
        key, now = secrets.token_urlsafe(32), self._clock()
        self._sessions[key] = Session(name, right, credential, now + _SECONDS, now)
        return key

    def find(self, key: str) -> Session | None:
        """The session of that id, if it lasts."""
        session = self._sessions.get(key)
        if session is not None and session.ends <= self._clock():
            del self._sessions[key]
            return None
        return session

    def is_stale(self, session: Session) -> bool:
        """Whether it is to be checked again what the caller may do."""
        return bool(session.credential) and session.checked + _CHECK_SECONDS <= self._clock()

    def renew(self, session: Session, right: Console) -> None:
        """The caller was checked, and may do this now."""
        session.right, session.checked = right, self._clock()

    def end(self, key: str) -> None:
        """End a session."""
        self._sessions.pop(key, None)
