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

__all__ = ["CONSOLE", "Failures", "access"]

_OPEN = frozenset({"/healthz", "/readyz"})
CONSOLE = "/console"
"""Below it people log in: :mod:`cotguard.console.app` asks them."""

_BEARER = "bearer "
_WINDOW = 60
_FAILURES = 10
_ADDRESSES = 1024
"""Addresses that are remembered; of more the one that failed longest ago is forgotten."""

_PREFIX_BYTES = 8  # of IPv6: whoever has one address of such a network has all


def access(token: str) -> Middleware:
    """The check of every request: ``token``, or, where it is empty, that no web page sends it."""
    failures = Failures()
    digest = _digest(token)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is not None and (resource.canonical in _OPEN or resource.canonical.startswith(CONSOLE)):
            return await handler(request)
        if not token:
            return await handler(request) if _is_local(request) else _refused(403, "Ask localhost, and from no page.")
        if wait := failures.wait(request.remote):
            refused = _refused(429, "Too many wrong tokens from this address.")
            refused.headers[hdrs.RETRY_AFTER] = str(wait)
            return refused
        authorization = request.headers.get(hdrs.AUTHORIZATION, "")
        sent = authorization[len(_BEARER) :].strip() if authorization.lower().startswith(_BEARER) else ""
        if hmac.compare_digest(_digest(sent), digest):
            return await handler(request)
        if sent:
            failures.note(request.remote)
        refused = _refused(401, "Send the admin token: Authorization: Bearer.")
        refused.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="cotguard"' + (', error="invalid_token"' if sent else "")
        return refused

    return check


class Failures:
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
