"""Certificates made here, a TLS listener with the real gateway behind it, and clients that look at handshakes."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["DAYS", "Authority", "handshake", "listen_tls", "replace"]

DAYS = 2


class Authority:
    """Signs certificates; ``pem`` is the file of its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        signed = _signed(self._name, self._name, self._key, self._key.public_key(), [x509.BasicConstraints(True, 0)])
        self.pem = str(folder / f"{name}.pem")
        Path(self.pem).write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(self, file: str, common_name: str, *names: x509.GeneralName) -> tuple[str, str]:
        """Paths of a new certificate and of its key, called after ``file``."""
        key = ec.generate_private_key(ec.SECP256R1())
        extensions: list[x509.ExtensionType] = [x509.SubjectAlternativeName(names)] if names else []
        signed = _signed(_named(common_name), self._name, self._key, key.public_key(), extensions)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificate, key_file = self._folder / f"{file}.pem", self._folder / f"{file}.key"
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(private)
        return str(certificate), str(key_file)

    def server(self, file: str) -> tuple[str, str]:
        """The same for a server on 127.0.0.1."""
        return self.issue(file, "gateway", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))

    def client(self, certificate: tuple[str, str] | None = None) -> ssl.SSLContext:
        """A client that trusts this authority, and shows ``certificate``."""
        context = ssl.create_default_context(cafile=self.pem)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePublicKey,
    extensions: list[x509.ExtensionType],
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(hours=1))
    builder = builder.not_valid_after(now + dt.timedelta(days=DAYS))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(signer, hashes.SHA256())


def replace(old: tuple[str, str], new: tuple[str, str]) -> None:
    """Put a certificate and its key where others are."""
    for target, source in zip(old, new, strict=True):
        Path(target).write_bytes(Path(source).read_bytes())


async def listen_tls(app: web.Application, context: ssl.SSLContext) -> tuple[web.AppRunner, str]:
    """``app`` behind TLS, and its URL."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    host, port = runner.addresses[0][:2]
    return runner, f"https://{host}:{port}"


async def handshake(url: str, client: ssl.SSLContext) -> tuple[int, str]:
    """Serial of the server's certificate and the protocol. Raises ``OSError`` where the server refuses the client."""
    host, port = url.removeprefix("https://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=client)
    try:
        found: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate, version = found.getpeercert(binary_form=True), found.version()
        assert certificate is not None
        assert version is not None
        # With TLS 1.3 a client learns only with the first answer whether its certificate will do.
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        if not await reader.read(1):
            raise ConnectionResetError
        return x509.load_der_x509_certificate(certificate).serial_number, version
    finally:
        writer.close()
