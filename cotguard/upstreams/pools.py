"""All pools, as the last document names them.

A reload keeps each server that is connected to and judged as before, with its connections, its health and its breaker;
weights, limits and keys may change beside it. Others are retired. A pool that was taken before a reload goes on
with its own servers, so that an exchange under way keeps what it began with.
"""

from collections.abc import Mapping

from cotguard.http.signing import Signer
from cotguard.telemetry.metrics import Metrics
from cotguard.upstreams.breaker import State
from cotguard.upstreams.document import Connecting, PoolDocument
from cotguard.upstreams.outbound import Credentials
from cotguard.upstreams.pool import Pool
from cotguard.upstreams.server import Server

__all__ = ["Pools"]

_Servers = dict[tuple[str, Connecting], Server]  # by pool's name and what they are made by


class Pools:
    """See the module. Not to be forked once started.

    ``authenticates``: clients' credentials are for the gateway, and do not go upstream.
    """

    def __init__(self, documents: Mapping[str, PoolDocument], metrics: Metrics, *, authenticates: bool) -> None:
        self._metrics = metrics
        self._signer = Signer()
        self._pools: dict[str, Pool] = {}
        self._servers: _Servers = {}
        self._retired: list[Server] = []
        self._started = False
        self.reload(documents, authenticates=authenticates)

    @property
    def current(self) -> Mapping[str, Pool]:
        """By name, as the last document has them; it stays as it is at the next reload."""
        return self._pools

    def reload(self, documents: Mapping[str, PoolDocument], *, authenticates: bool) -> None:
        """Go over to ``documents``. Raises ``OSError`` and ``ValueError`` for files of TLS; then nothing is changed."""
        servers: _Servers = {}
        pools: dict[str, Pool] = {}
        for name, document in documents.items():
            context = document.tls.files.context() if document.tls else None
            weights: dict[Server, int] = {}
            for each, connecting in zip(document.servers, document.connecting(), strict=True):
                identity = name, connecting
                if identity in self._servers:
                    server = self._servers[identity]
                else:
                    server = Server(name, each, connecting, context, self._metrics)
                servers[identity] = server
                weights[server] = each.weight
            credentials = Credentials(document.key, document.key_header, authenticates, self._signer)
            pools[name] = Pool(name, document, weights, credentials, self._metrics)
        self._go_over(servers)
        self._pools = pools

    def start(self) -> None:
        """Begin health checks, in the running loop."""
        self._started = True
        for server in self._servers.values():
            server.start()

    async def close(self) -> None:
        """Stop checks and close all connections."""
        for server in (*self._servers.values(), *self._retired):
            await server.close()

    def _go_over(self, servers: _Servers) -> None:
        before, self._servers = self._servers, servers
        gone = [server for identity, server in before.items() if identity not in servers]
        for server in gone:
            server.retire()
        self._retired = [*(server for server in self._retired if server.outstanding), *gone]
        named = {(server.pool, server.label) for server in servers.values()}
        for pool, label in {(server.pool, server.label) for server in gone} - named:
            self._metrics.upstream_up.remove(pool, label)
            self._metrics.upstream_outstanding.remove(pool, label)
            for state in State:
                self._metrics.upstream_breaker.remove(pool, label, state)
        for server in servers.values():
            server.changed()
            if self._started:
                server.start()
