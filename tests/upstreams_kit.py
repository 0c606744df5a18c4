"""Model servers of every kind for the tests of pools, on loopback and Unix sockets, and certificates for them."""

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from yarl import URL

from cotguard.telemetry.metrics import Metrics
from cotguard.upstreams.document import PoolDocument
from cotguard.upstreams.outbound import Outgoing
from cotguard.upstreams.pool import Answer, Pool
from cotguard.upstreams.pools import Pools

PATH = "/v1/chat/completions"
LIMIT = 2**20


@dataclass
class Model:
    """A server: it answers with its name, with ``status``; ``held`` requests wait for ``go``."""

    name: str
    url: str = ""
    status: int = 200
    health: int = 200
    lapses: int = 0  # of the next checks so many fail
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    checks: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    runner: web.AppRunner | None = None
    peers: set[int] = field(default_factory=set)  # serial numbers of clients' certificates

    @property
    def connections(self) -> int:
        """Those that are open."""
        assert self.runner is not None
        assert self.runner.server is not None
        return len(self.runner.server.connections)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/health"):
            self.checks += 1
            self.lapses -= 1
            return web.Response(status=self.health if self.lapses < 0 else 503)
        self.paths.append(request.path_qs)
        self.bodies.append(await request.read())
        if certificate := request.get_extra_info("peercert"):
            self.peers.add(int(certificate["serialNumber"], 16))
        if self.status in (301, 307):
            return web.Response(status=self.status, headers={"Location": "http://127.0.0.1:9/elsewhere"})
        response = web.StreamResponse(status=self.status, headers={"Set-Cookie": "seen=1"})
        await response.prepare(request)
        await response.write(self.name.encode())
        if "hold" in request.query:
            await self.go.wait()
        await response.write_eof()
        return response


@asynccontextmanager
async def serving(
    name: str = "a", path: Path | None = None, context: ssl.SSLContext | None = None
) -> AsyncIterator[Model]:
    """A server on loopback, or on the Unix socket ``path``."""
    model = Model(name)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", model.answer)
    runner = model.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    if path is not None:
        await web.UnixSite(runner, str(path)).start()
        model.url = f"unix://{path}"
    else:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        scheme, host = ("https", "localhost") if context else ("http", "127.0.0.1")
        model.url = f"{scheme}://{host}:{runner.addresses[0][1]}"
    try:
        yield model
    finally:
        await runner.cleanup()


@dataclass
class Wire:
    """A server that is no HTTP server; ``requests``: those of which it has read the body."""

    url: str = ""
    requests: int = 0
    seen: int = 0

    def fresh(self) -> bool:
        """Whether there was a request since there was one."""
        fresh, self.seen = self.requests > self.seen, self.requests
        return fresh


@asynccontextmanager
async def talking(answers: int) -> AsyncIterator[Wire]:
    """A server that answers so many requests of a connection, and closes it when it has read the next."""
    wire = Wire()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for left in range(answers, -1, -1):
            await _read(reader)
            wire.requests += 1
            if left:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with _listening(talk) as wire.url:
        yield wire


@asynccontextmanager
async def silent() -> AsyncIterator[Wire]:
    """A server that reads requests and says nothing."""
    wire = Wire()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read(reader)
        wire.requests += 1
        await reader.read()  # until the client has had enough

    async with _listening(talk) as wire.url:
        yield wire


async def _read(reader: asyncio.StreamReader) -> None:
    """One request."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
    await reader.readexactly(length)


@asynccontextmanager
async def _listening(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    talks = set[asyncio.Task[None]]()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1")
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


@contextmanager
def refusing() -> Iterator[str]:
    """The URL of a port that nobody else gets, and at which connections are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@asynccontextmanager
async def pools(metrics: Metrics | None = None, **documents: Mapping[str, object]) -> AsyncIterator[Pools]:
    """Pools by their documents, started."""
    made = Pools(parsed(**documents), metrics or Metrics(), authenticates=False)
    made.start()
    try:
        yield made
    finally:
        await made.close()


def parsed(**documents: Mapping[str, object]) -> dict[str, PoolDocument]:
    return {name: PoolDocument.model_validate(document) for name, document in documents.items()}


async def ask(pool: Pool, body: bytes = b"{}", method: str = "POST", query: str = "") -> Answer:
    """The answer to a request."""

    async def make(base: str) -> Outgoing:
        return Outgoing(URL(base + PATH + query), {}, body if method == "POST" else None)

    return await pool.send(method, make)


async def said(pool: Pool, body: bytes = b"{}", method: str = "POST") -> str:
    """Which server answered."""
    answer = await ask(pool, body, method)
    try:
        return (await answer.whole(LIMIT)).decode()
    finally:
        answer.close()


def counted(metrics: Metrics, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """What a metric says, by the values of ``labels``; what is 0 is left out."""
    found = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name == name and sample.value:
                found[tuple(sample.labels[label] for label in labels)] = sample.value
    return found


def label(url: str) -> str:
    return url.partition("//")[2]


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds, at most for five seconds."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)


class Certified(NamedTuple):
    """PEM files."""

    ca: str
    cert: str
    key: str


def certified(folder: Path, name: str, authority: str = "ca") -> Certified:
    """A certificate for ``localhost`` of an authority in ``folder``, which is made where it is not there yet."""
    ca_cert, ca_key = folder / f"{authority}.pem", folder / f"{authority}.key"
    if not ca_cert.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        _write(ca_key, key)
        ca_cert.write_bytes(_signed(authority, key, authority, key, is_authority=True))
    issuer_key = serialization.load_pem_private_key(ca_key.read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    _write(folder / f"{name}.key", key)
    (folder / f"{name}.pem").write_bytes(_signed(name, key, authority, issuer_key, is_authority=False))
    return Certified(str(ca_cert), str(folder / f"{name}.pem"), str(folder / f"{name}.key"))


def _write(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))


def _signed(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, *, is_authority: bool
) -> bytes:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(by, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])


def asking_for_certificates(server: Certified) -> ssl.SSLContext:
    """Of a server that talks to nobody without a certificate of its own authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=server.ca)
    context.load_cert_chain(server.cert, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context
