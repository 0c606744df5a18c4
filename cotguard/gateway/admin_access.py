"""Who may use the admin port.

* ``/healthz`` and ``/readyz`` are everybody's: who probes them has no token, and they tell nothing else.
* With a token all else needs ``Authorization: Bearer``. An address that sends ten wrong ones within a minute waits
  until the first of them is a minute old, so that nobody guesses fast; other addresses go on.
* Without one, which the settings allow on loopback addresses only, a page in a browser of this machine is the stranger:
  it can send requests here, and under a name of its own that it lets point here it could read the answers. So the host
  must be an address or ``localhost``, and no page may have sent the request.
"""

import hmac
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import sha256
from ipaddress import ip_address

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

__all__ = ["AdminToken", "access"]

_OPEN = frozenset({"/healthz", "/readyz"})
_BEARER = "bearer "
_WINDOW = 60
_FAILURES = 10
_ADDRESSES = 1024
"""Addresses that are remembered; of more the one that failed longest ago is forgotten."""

_PREFIX_BYTES = 8  # of IPv6: whoever has one address of such a network has all


class AdminToken:
    """The token of the admin port, wherever it is shown: an address that was wrong too often waits everywhere."""

    def __init__(self, token: str) -> None:
        self._digest = _digest(token)
        self._failures = _Failures()

    def wait(self, address: str | None) -> int:
        """Seconds until ``address`` may try again."""
        return self._failures.wait(address)

    def is_right(self, sent: str) -> bool:
        """Whether ``sent`` is the token."""
        return hmac.compare_digest(_digest(sent), self._digest)

    def note_wrong(self, address: str | None) -> None:
        """Hold it against ``address`` that it has sent a wrong one."""
        self._failures.note(address)


def access(token: AdminToken | None, apart: str = "") -> Middleware:
    """The check of every request: ``token``, or, where there is none, that no web page sends it.

    What is asked for below ``apart``, if that is not empty, is checked there.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is not None and resource.canonical in _OPEN:
            return await handler(request)
        path = request.path if resource is None else resource.canonical
        if apart and (path == apart or path.startswith(f"{apart}/")):
            return await handler(request)
        if token is None:
            return await handler(request) if _is_local(request) else _refused(403, "Ask localhost, and from no page.")
        if wait := token.wait(request.remote):
            refused = _refused(429, "Too many wrong tokens from this address.")
            refused.headers[hdrs.RETRY_AFTER] = str(wait)
            return refused
        authorization = request.headers.get(hdrs.AUTHORIZATION, "")
        sent = authorization[len(_BEARER) :].strip() if authorization.lower().startswith(_BEARER) else ""
        if token.is_right(sent):
            return await handler(request)
        if sent:
            token.note_wrong(request.remote)
        refused = _refused(401, "Send the admin token: Authorization: Bearer.")
        refused.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="cotguard"' + (', error="invalid_token"' if sent else "")
        return refused

    return check


class _Failures:
    """Wrong tokens of the last minute, by the address that sent them. ``clock`` never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: OrderedDict[bytes, deque[float]] = OrderedDict()

    def wait(self, address: str | None) -> int:
        """Seconds until ``address`` may try again."""
        times = self._times.get(_network(address))
        if times is None or len(times) < _FAILURES:
            return 0
        return max(math.ceil(times[0] + _WINDOW - self._clock()), 0)

    def note(self, address: str | None) -> None:
        """Count a wrong token."""
        network = _network(address)
        self._times.setdefault(network, deque(maxlen=_FAILURES)).append(self._clock())
        self._times.move_to_end(network)
        if len(self._times) > _ADDRESSES:
            self._times.popitem(last=False)


def _network(address: str | None) -> bytes:
    try:
        found = ip_address(address or "")
    except ValueError:  # a Unix socket has none
        return b""
    return found.packed if found.version == 4 else found.packed[:_PREFIX_BYTES]


def _is_local(request: web.Request) -> bool:
    if hdrs.ORIGIN in request.headers:
        return False
    try:
        host = URL.build(scheme="http", authority=request.headers.get(hdrs.HOST, "")).host or ""
        if host.lower() != "localhost":
            ip_address(host)
    except ValueError:
        return False
    return True


def _refused(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=message + "\n")


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="surrogateescape")).digest()
