"""What a request needs so that a server answers: an address there, a credential, a signature.

All of it is made anew for each server that is tried: the address is that server's, and a signature covers it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

import aiohttp
from aiohttp import hdrs
from yarl import URL

from cotguard.callers.credentials import injected, without_credentials
from cotguard.dialects.routes import Match
from cotguard.http.headers import lower, request_headers
from cotguard.http.signing import Signer, Unsigned

__all__ = ["Credentials", "Draft", "Outgoing"]


@dataclass(slots=True)
class Outgoing:
    """A request to the upstream. ``data`` is emptied once it is sent: a stream lasts longer."""

    url: URL
    headers: dict[str, str] = field(repr=False)
    data: bytes | aiohttp.FormData | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A pool's: ``key``, sent in ``header``. ``authenticates``: the client's are for the gateway only."""

    key: str = field(repr=False)
    header: str
    authenticates: bool
    signer: Signer = field(repr=False)

    @property
    def replaced(self) -> bool:
        """Whether no credential of a client's goes upstream."""
        return self.authenticates or bool(self.key)

    def passed(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Of the client's ``headers`` those that may go upstream."""
        allowed = request_headers(headers)
        return without_credentials(allowed) if self.replaced else allowed

    async def signed(self, unsigned: Unsigned, match: Match, headers: Mapping[str, str], path: str) -> dict[str, str]:
        """The headers that go upstream, with our credential or a signature. Raises :class:`Refused`.

        ``headers`` and ``path`` are the client's.
        """
        client = lower(headers)
        if self.replaced:
            client = without_credentials(client)
        if self.key:
            own = injected(match.dialect.name, self.key, self.header)
            client |= own
            unsigned.headers.update(own)
        if not match.route.signed:
            return unsigned.headers
        return await asyncio.to_thread(self.signer.headers_of, unsigned, client, path)


@dataclass(slots=True)
class Draft:
    """A request as it goes upstream, but for its server. ``client_headers`` and ``client_path`` are the client's.

    ``same_body``: the body is, byte for byte, what the client sent. ``form`` writes a form, which is sent instead.
    """

    credentials: Credentials
    match: Match
    method: str
    path: str
    query: Mapping[str, str]
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    same_body: bool
    client_headers: Mapping[str, str] = field(repr=False)
    client_path: str = field(repr=False)
    form: Callable[[], aiohttp.FormData] | None = field(default=None, repr=False)

    async def outgoing(self, base: str) -> Outgoing:
        """The request to the server whose URL begins with ``base``. Raises :class:`Refused`."""
        url = URL(base + self.path + ("?" + urlencode(self.query) if self.query else ""), encoded=True)
        signed, body = self.match.route.signed, self.body or b""
        unsigned = Unsigned(signed, self.method, url, dict(self.headers), body, self.same_body)
        headers = await self.credentials.signed(unsigned, self.match, self.client_headers, self.client_path)
        if self.form is None:
            return Outgoing(url, headers, self.body)
        del headers[hdrs.CONTENT_TYPE]  # the form has its own, with its boundary
        return Outgoing(url, headers, self.form())

    def sent(self) -> None:
        """Forget the body: a stream lasts longer."""
        self.body, self.form = None, None
