"""Where the model is served, and how it is trusted: what the settings say, checked, before anything is connected."""

import importlib.util
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["Address", "Served", "Tls", "addresses"]

_HOW = "write grpc://HOST:PORT, grpcs://HOST:PORT, http://HOST:PORT or https://HOST:PORT, several with commas between"


class Address(NamedTuple):
    """A replica. ``path`` is the prefix of the API's paths, over HTTP only."""

    scheme: str
    host: str
    path: str = ""

    @property
    def secure(self) -> bool:
        return self.scheme in ("grpcs", "https")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"


def addresses(text: str) -> tuple[Address, ...]:
    """The replicas of a setting. Raises ``ValueError`` that says what to write or to install."""
    found = tuple(_address(each.strip()) for each in text.split(",")) if text.strip() else ()
    if len(set(found)) < len(found):
        raise ValueError("names a replica twice")
    if any(each.scheme.startswith("grpc") for each in found):
        for module in ("grpc", "google.protobuf"):
            if not _installed(module):
                raise ValueError(
                    "grpc:// needs more packages: pip install 'cotguard[remote]', or use the server's http:// port"
                )
    return found


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package it is in
        return False


def _address(text: str) -> Address:
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(_HOW)
    if parts.scheme in ("http", "https"):
        return Address(parts.scheme, parts.netloc, parts.path.rstrip("/").removesuffix("/v2"))
    if parts.scheme not in ("grpc", "grpcs") or port is None or parts.path.rstrip("/"):
        raise ValueError(_HOW)
    return Address(parts.scheme, parts.netloc)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files, empty where there is none: whom to trust instead of the system's list, and who we are."""

    ca: str = ""
    certificate: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Raises ``ValueError`` for files that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key or None)
        except OSError as error:  # of the files, and ssl.SSLError
            files = ", ".join(filter(None, (self.ca, self.certificate, self.key)))
            reason = error.strerror or type(error).__name__
            raise ValueError(f"{files}: {reason}; write paths of PEM files that fit together") from error
        return context

    def contents(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """CA, key and certificate."""
        ca, key, certificate = (
            Path(path).read_bytes() if path else None
            for path in (self.ca, self.key or self.certificate, self.certificate)
        )
        return ca, key, certificate


@dataclass(frozen=True, slots=True)
class Served:
    """A model that is served elsewhere, by its name there: the bundle's if empty."""

    replicas: Sequence[Address]
    model: str = ""
    tls: Tls = Tls()
