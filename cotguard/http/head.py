"""What a request's head must be beyond what aiohttp's parsers ask, so that nobody on the way reads another request.

aiohttp refuses a length beside chunks, two lengths, two hosts, names that are no tokens, line ends that are none. It
takes what other servers take otherwise, and its parser in Python takes more than the compiled one:

1. Versions other than HTTP/1.0 and HTTP/1.1.
2. Tunnels, and targets other than an absolute path: with a scheme and a host, with a fragment, outside ASCII.
3. Codings of the transfer other than ``chunked``, and any in HTTP/1.0.
4. A host that is no host and port; no check of what it names.
5. Upgrades: what is tunnelled is not moderated.
6. Headers that come twice where one reader takes the first and another the last.
"""

import re

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from cotguard.callers.credentials import CREDENTIALS
from cotguard.dialects.contract import ErrorKind, Refused

__all__ = ["check_head"]

_VERSIONS = frozenset({HttpVersion10, HttpVersion11})
_TARGET = re.compile(r'/[^\x00-\x20"#<>\x7f-\U0010ffff]*')
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ONCE = (*CREDENTIALS, hdrs.CONTENT_ENCODING)


def check_head(request: web.BaseRequest) -> None:
    """Raises :class:`Refused`; the connection is to be closed then, since what follows may be part of this request."""
    if request.version not in _VERSIONS:
        raise Refused(505, ErrorKind.UNSUPPORTED, "Use HTTP/1.1.")
    if request.method == hdrs.METH_CONNECT or _TARGET.fullmatch(request.raw_path) is None:
        raise _bad("Send a path in the request line, in ASCII, without scheme and host, and without a fragment.")
    headers = request.headers
    coding = headers.get(hdrs.TRANSFER_ENCODING)
    if coding is not None and (coding.lower() != "chunked" or request.version < HttpVersion11):
        raise _bad("Of Transfer-Encoding only 'chunked' is accepted, in HTTP/1.1.")
    host = headers.get(hdrs.HOST)
    if host is not None and _HOST.fullmatch(host) is None:
        raise _bad("Send a host, or a host and a port, in the header Host.")
    if headers.get(hdrs.UPGRADE):
        raise Refused(
            400,
            ErrorKind.UNSUPPORTED,
            "WebSocket upgrades are refused: what is tunnelled through a proxy cannot be moderated. Use the HTTP API.",
        )
    for name in _ONCE:
        if len(headers.getall(name, ())) > 1:
            raise _bad(f"Send the header '{name}' once.")


def _bad(message: str) -> Refused:
    return Refused(400, ErrorKind.BAD_REQUEST, message)
