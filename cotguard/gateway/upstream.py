"""The model server: its address, connections to it, and what a request needs so that it answers."""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlencode

import aiohttp
from aiohttp import hdrs
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from cotguard.callers.credentials import injected, without_credentials
from cotguard.dialects.routes import Match
from cotguard.gateway.body import interrupted
from cotguard.gateway.connections import Connections
from cotguard.gateway.encodings import Decoder
from cotguard.gateway.headers import lower, request_headers
from cotguard.gateway.outgoing import Outgoing
from cotguard.gateway.settings import Settings
from cotguard.gateway.signing import Signer, Unsigned

__all__ = ["Upstream"]


class Upstream:
    """See the module."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._signer = Signer()
        self._session: aiohttp.ClientSession | None = None

    def url(self, path: str, query: Mapping[str, str]) -> URL:
        """The address of ``path``."""
        return URL(self._settings.upstream + path + ("?" + urlencode(query) if query else ""), encoded=True)

    def passed(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Of the client's ``headers`` those that may go upstream."""
        allowed = request_headers(headers)
        return without_credentials(allowed) if self._settings.replaces_credentials else allowed

    async def signed(self, unsigned: Unsigned, match: Match, headers: Mapping[str, str], path: str) -> dict[str, str]:
        """The headers that go upstream, with our credential or a signature. Raises :class:`Refused`.

        ``headers`` and ``path`` are the client's.
        """
        settings, client = self._settings, lower(headers)
        if settings.replaces_credentials:
            client = without_credentials(client)
        if settings.upstream_key:
            own = injected(match.dialect.name, settings.upstream_key, settings.upstream_key_header)
            client |= own
            unsigned.headers.update(own)
        if not match.route.signed:
            return unsigned.headers
        return await asyncio.to_thread(self._signer.headers_of, unsigned, client, path)

    async def send(self, method: str, outgoing: Outgoing) -> aiohttp.ClientResponse:
        """The response, when its status line is there. Raises ``TimeoutError`` and ``aiohttp.ClientError``."""
        session = self._opened()
        async with asyncio.timeout(self._settings.first_byte_timeout):
            return await session.request(
                method, outgoing.url, data=outgoing.data, headers=outgoing.headers, allow_redirects=False
            )

    async def whole(self, response: aiohttp.ClientResponse) -> bytes:
        """A whole body, decoded. Raises the same and :class:`~cotguard.gateway.encodings.EncodingError`."""
        decoder = Decoder(response.headers.get(hdrs.CONTENT_ENCODING, ""), self._settings.max_response_bytes)
        body = bytearray()
        while True:
            try:
                async with asyncio.timeout(self._settings.idle_timeout):
                    data = await response.content.readany()
            except HttpProcessingError as error:
                raise interrupted(error) from None
            if not data:
                return bytes(body)
            body += decoder.feed(data)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        """The session, made in the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=Connections(limit=0, keepalive_timeout=30),
                # The limit of silence is the pump's: aiohttp's would set a timer for every read.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session
