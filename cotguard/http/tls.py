"""TLS of a port: TLS 1.2 and 1.3, certificates that are renewed without a restart, certificates of callers.

1. All files of a port make one context: its certificate and key, and the authorities whose certificates callers must
   show, where they must.
2. :class:`ReloadingContext` hands each handshake to the context that was made last. Made anew as a whole it has other
   keys for resumed sessions too, so that nobody goes on under an authority that was taken out.
3. Files that do not fit together, as while they are being written, change nothing: the last context goes on.

Connections that are there keep what they were made with, and are never touched.
"""

import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509

from cotguard.http.watching import Watch, stamps_of
from cotguard.telemetry.metrics import Metrics

__all__ = ["ReloadingContext", "TlsFiles", "context_of", "follow"]

_LOG = logging.getLogger("cotguard.gateway")
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""Of TLS 1.2; those of TLS 1.3 are all like these. The level refuses RSA below 2,048 bits and SHA-1."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a port. ``key`` is in ``certificate`` when empty; with ``client_ca`` callers show certificates."""

    certificate: str
    key: str = ""
    client_ca: str = ""

    @property
    def watched(self) -> Sequence[Path]:
        """The files whose change asks for a reload."""
        return [Path(path) for path in (self.certificate, self.key, self.client_ca) if path]

    def context(self) -> ssl.SSLContext:
        """Raises ``ValueError`` that says what to write if the files cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.key or None, password="")  # asks nobody for one
        except OSError as error:  # of the files, and ssl.SSLError
            files = self.certificate + (f" and {self.key}" if self.key else "")
            raise ValueError(
                f"{files}: {_reason(error)}; write paths of PEM files: the certificate with those that sign it, and "
                "its key without a passphrase"
            ) from None
        if self.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self.client_ca)
            except OSError as error:
                raise ValueError(
                    f"{self.client_ca}: {_reason(error)}; write the path of a PEM file with the authorities that "
                    "sign callers' certificates"
                ) from None
        return context

    def expiry(self) -> float:
        """When the certificate expires, in seconds since 1970. Raises ``ValueError`` and ``OSError``."""
        (certificate, *_) = x509.load_pem_x509_certificates(Path(self.certificate).read_bytes())
        return certificate.not_valid_after_utc.timestamp()


class ReloadingContext(ssl.SSLContext):
    """The context of ``port``, a label of the metric of its expiry. Raises ``ValueError``, as :class:`TlsFiles` does.

    Servers ask a context for nothing but ``wrap_bio``, once for each connection.
    """

    def __new__(cls, *_: object) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, port: str, files: TlsFiles, metrics: Metrics) -> None:
        self.files = files
        self._port = port
        self._expiry = metrics.certificate_expiry.labels(port)
        self._current = self._made()

    def reload(self) -> bool:
        """Serve the files as they are now to all who connect from now on; False if they cannot be used."""
        try:
            self._current = self._made()
        except (ValueError, OSError) as error:
            _LOG.warning("certificate not reloaded", extra={"port": self._port, "problem": str(error)})
            return False
        _LOG.info("certificate reloaded", extra={"port": self._port})
        return True

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # as the class above has it
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """A new connection, on the context that was made last."""
        return self._current.wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def _made(self) -> ssl.SSLContext:
        context = self.files.context()
        self._expiry.set(self.files.expiry())
        return context


def context_of(port: str, files: TlsFiles | None, metrics: Metrics) -> ReloadingContext | None:
    """The context of ``port``, if it has ``files``."""
    return None if files is None else ReloadingContext(port, files, metrics)


async def follow(context: ReloadingContext | None) -> None:
    """Reload the context, if there is one, whenever its files have changed; until cancelled."""
    if context is None:
        return
    watch = Watch(stamps_of(context.files.watched))
    while True:
        await watch.changed()
        watch.read()
        context.reload()


def _reason(error: OSError) -> str:
    """What is wrong, in the system's or OpenSSL's words, which hold nothing of the files."""
    return (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or type(error).__name__
