"""TLS of the ports: real handshakes, and certificates that change under a gateway that serves."""

import asyncio
import logging
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from conftest import Upstream
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from log_kit import lines
from scripted import CHAT_PATH, DONE, chunk, events_of, finish
from tls_kit import DAYS, Authority, handshake, listen_tls, replace

from cotguard.config.settings import Settings
from cotguard.detectors.contract import Detector
from cotguard.gateway.app import Gateway, create_app
from cotguard.gateway.moderations import Moderation, load_moderations
from cotguard.http.tls import ReloadingContext, TlsFiles
from cotguard.policy import Policy
from cotguard.telemetry.metrics import Metrics

CHAT = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
Serve = Callable[..., Awaitable[tuple[str, ReloadingContext]]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """A port that speaks TLS, and ``app`` behind it: its URL and its context."""
    runners: list[web.AppRunner] = []

    async def make(files: TlsFiles, app: web.Application | None = None) -> tuple[str, ReloadingContext]:
        context = ReloadingContext("data", files, Metrics())
        runner, url = await listen_tls(app or web.Application(), context)
        runners.append(runner)
        return url, context

    yield make
    for runner in runners:
        await runner.cleanup()


def joined(target: Path, *files: str) -> str:
    """The path of a file that holds all of ``files``."""
    target.write_bytes(b"".join(Path(file).read_bytes() for file in files))
    return str(target)


def serial(certificate: tuple[str, str]) -> int:
    return x509.load_pem_x509_certificate(Path(certificate[0]).read_bytes()).serial_number


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_versions_are_spoken(serve: Serve, authority: Authority, version: ssl.TLSVersion) -> None:
    certificate = authority.server("server")
    url, _ = await serve(TlsFiles(*certificate))
    client = authority.client()
    client.minimum_version = client.maximum_version = version
    assert await handshake(url, client) == (serial(certificate), version.name.replace("_", "."))


async def test_older_versions_and_weak_ciphers_are_refused(serve: Serve, authority: Authority) -> None:
    files = TlsFiles(*authority.server("server"))
    url, _ = await serve(files)
    lax = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # shows that it is the gateway that refuses
    lax.load_cert_chain(files.certificate, files.key)
    old, weak = authority.client(), authority.client()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # which is why nobody should speak them
        lax.minimum_version = old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    for context in (lax, old):
        context.set_ciphers("ALL:@SECLEVEL=0")
    runner, lax_url = await listen_tls(web.Application(), lax)
    for client in (old, weak):
        assert await handshake(lax_url, client)
        with pytest.raises(OSError):  # noqa: PT011  # an alert or a reset, as they race
            await handshake(url, client)
    assert (await handshake(url, authority.client()))[1] == "TLSv1.3"
    await runner.cleanup()


async def test_one_file_may_hold_both(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    certificate = authority.server("server")
    both = joined(tmp_path / "both.pem", *certificate)
    url, context = await serve(TlsFiles(both))
    assert (await handshake(url, authority.client()))[0] == serial(certificate)
    assert [str(path) for path in context.files.watched] == [both]


async def test_callers_show_a_certificate_of_the_authority(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    url, context = await serve(TlsFiles(*authority.server("server"), authority.pem))
    assert [path.name for path in context.files.watched] == ["server.pem", "server.key", "authority.pem"]
    assert await handshake(url, authority.client(authority.issue("ann", "ann")))
    for certificate in (None, other.issue("mallory", "ann")):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = authority.client(certificate)
            client.maximum_version = version
            with pytest.raises(OSError):  # noqa: PT011  # an alert or a reset, as they race
                await handshake(url, client)


async def test_a_certificate_is_renewed_while_a_stream_runs(
    upstream: Upstream, serve: Serve, authority: Authority, balanced: tuple[Policy, tuple[Detector, ...]]
) -> None:
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"content": "mail ann.le"}))
        await go_on.wait()
        await response.write(chunk({"content": "e@example.com now"}) + finish() + DONE)
        return response

    upstream.handler = handler
    used, renewed = authority.server("server"), authority.server("renewed")
    before = serial(used)
    settings = Settings(upstream=upstream.url)
    moderations = load_moderations(settings, own=Moderation.of(*balanced))
    app = create_app(Gateway(settings, moderations, Metrics()))
    url, context = await serve(TlsFiles(*used), app)
    connector = aiohttp.TCPConnector(ssl=authority.client())
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(url + CHAT_PATH, json=CHAT) as response,
    ):
        assert (await handshake(url, authority.client()))[0] == before
        replace(used, renewed)
        assert context.reload()
        assert (await handshake(url, authority.client()))[0] == serial(renewed) != before
        go_on.set()
        written = "".join([event async for event in events_of(response)])
    assert "[EMAIL_ADDRESS]" in written
    assert written.endswith("[DONE]")


def spoil(how: str, used: tuple[str, str], renewed: tuple[str, str]) -> str:
    """Leave files that are of no use where ``used`` are; returns a line of the new key."""
    certificate, key = (Path(path) for path in used)
    private = Path(renewed[1]).read_text(encoding="utf-8")
    if how == "half":  # the new certificate is there, and a part of the key
        replace(used, renewed)
        key.write_text(private[: len(private) // 2], encoding="utf-8")
    elif how == "key":
        key.write_text(private, encoding="utf-8")
    elif how == "empty":
        certificate.write_bytes(b"")
    else:
        certificate.unlink()
    return private.splitlines()[1]


@pytest.mark.parametrize("broken", ["half", "key", "empty", "missing"])
async def test_a_bad_pair_keeps_the_last_good_one(
    serve: Serve, authority: Authority, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    used, renewed = authority.server("server"), authority.server("renewed")
    before, after = serial(used), serial(renewed)
    url, context = await serve(TlsFiles(*used))
    private = spoil(broken, used, renewed)
    with caplog.at_level(logging.INFO):
        assert not context.reload()
    assert (await handshake(url, authority.client()))[0] == before
    assert f'event="certificate not reloaded" port=data problem="{used[0]} and {used[1]}: ' in lines(caplog)
    assert private not in lines(caplog)
    replace(used, renewed)
    assert context.reload()
    assert (await handshake(url, authority.client()))[0] == after


async def test_an_authority_that_is_taken_out_is_trusted_no_more(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    other, file = Authority(tmp_path, "other"), tmp_path / "trusted.pem"
    url, context = await serve(TlsFiles(*authority.server("server"), joined(file, authority.pem, other.pem)))
    client = authority.client(authority.issue("ann", "ann"))
    client.maximum_version = ssl.TLSVersion.TLSv1_2  # whose sessions can be resumed from one connection to the next
    host, port = url.removeprefix("https://").split(":")
    session = await asyncio.to_thread(_session, client, host, int(port), None)
    assert await asyncio.to_thread(_session, client, host, int(port), session)
    joined(file, other.pem)
    assert context.reload()
    for resumed in (None, session):
        with pytest.raises(OSError):  # noqa: PT011  # an alert or a reset, as they race
            await asyncio.to_thread(_session, client, host, int(port), resumed)
    assert await handshake(url, authority.client(other.issue("bob", "bob")))


def _session(client: ssl.SSLContext, host: str, port: int, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """The session of a new connection, which resumes ``session``."""
    with (
        socket.create_connection((host, port)) as plain,
        client.wrap_socket(plain, server_hostname=host, session=session) as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        if not secure.recv(1):
            raise ConnectionResetError
        assert secure.session_reused == (session is not None)
        return secure.session


def test_files_that_do_not_do_are_told_with_what_to_write(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.server("server")
    _, another = authority.server("another")
    nowhere, text = str(tmp_path / "nowhere.pem"), tmp_path / "text.pem"
    text.write_text("hunter2", encoding="utf-8")
    for files, told in (
        (TlsFiles(nowhere), f"{nowhere}: No such file or directory; write paths of PEM files"),
        (TlsFiles(certificate, nowhere), f"{certificate} and {nowhere}: No such file or directory; write paths"),
        (TlsFiles(certificate, another), f"{certificate} and {another}: KEY_VALUES_MISMATCH; write paths"),
        (TlsFiles(certificate), f"{certificate}: SSLError; write paths of PEM files: the certificate"),
        (TlsFiles(certificate, key, nowhere), f"{nowhere}: No such file or directory; write the path"),
        (TlsFiles(certificate, key, str(text)), f"{text}: NO_CERTIFICATE_OR_CRL_FOUND; write the path"),
    ):
        with pytest.raises(ValueError, match=r"write (the path|paths) of") as raised:
            files.context()
        assert str(raised.value).startswith(told)
        assert "hunter2" not in str(raised.value)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.server("server")
    private = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ValueError, match="without a passphrase"):
        TlsFiles(certificate, str(locked)).context()


def test_the_expiry_is_a_metric(authority: Authority) -> None:
    metrics = Metrics()
    certificate = authority.server("server")
    ReloadingContext("admin", TlsFiles(*certificate), metrics)
    told = metrics.registry.get_sample_value("cotguard_tls_certificate_expiry_timestamp_seconds", {"port": "admin"})
    assert told is not None
    assert time.time() < told < time.time() + 86_400 * DAYS + 1
