"""Connections to servers that are kept between exchanges.

aiohttp does not look whether something came on a kept connection while nobody asked, and would take it for the answer
to the next request: the answer to somebody else's, if a server answers twice or late.
"""

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

__all__ = ["TCPConnections", "UnixConnections"]


class _Asked(aiohttp.BaseConnector):
    """Closes kept connections on which something came unasked."""

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None


class TCPConnections(_Asked, aiohttp.TCPConnector):
    """To a host and port."""


class UnixConnections(_Asked, aiohttp.UnixConnector):
    """To a Unix socket."""
