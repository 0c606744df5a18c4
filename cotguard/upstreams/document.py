"""The section ``upstreams`` of the config file: pools of model servers.

upstreams:
local:
servers: [http://10.0.0.5:8000, {url: http://10.0.0.6:8000, weight: 2}, "unix:///run/vllm.sock"]
concurrency: 64
health: {path: /health, every: 5, timeout: 2}
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NamedTuple, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from cotguard.classifier.remote.address import Tls

__all__ = [
    "BreakerDocument",
    "HeaderName",
    "HeaderValue",
    "HealthDocument",
    "PoolDocument",
    "PoolName",
    "ServerDocument",
    "TlsDocument",
    "checked_server",
]

_HOW = "write http://HOST:PORT, https://HOST/PREFIX, unix:///PATH/OF/SOCKET or unix:///PATH/OF/SOCKET:/PREFIX"
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_UNIX = re.compile(r"unix://(/[^:?#]+)(?::(/[^:?#]*))?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]*")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]*")


def _header_name(value: str) -> str:
    if _HEADER_NAME.fullmatch(value) is None:
        raise ValueError("this cannot stand in a header")
    return value


def _header_value(value: str) -> str:
    if _HEADER_VALUE.fullmatch(value) is None:
        raise ValueError("this cannot stand in a header")
    return value


HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]
PoolName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def checked_server(url: str) -> str:
    """``url`` without what API paths begin with. Raises ``ValueError`` that says what to write."""
    url = url.rstrip("/").removesuffix("/v1")
    if not (_UNIX.fullmatch(url) or _is_http(urlsplit(url))) or _PRINTABLE.fullmatch(url) is None:
        raise ValueError(_HOW)
    return url


def _is_http(parts: SplitResult) -> bool:
    try:
        named = parts.hostname and parts.port != 0
    except ValueError:
        return False
    return (
        bool(named)
        and parts.scheme in ("http", "https")
        and "@" not in parts.netloc
        and not parts.query + parts.fragment
    )


class ServerDocument(BaseModel):
    """One server of a pool: a URL, or a mapping."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[
        str,
        AfterValidator(checked_server),
        Field(description="http[s]://HOST:PORT, a prefix of paths may follow; unix:///SOCKET"),
    ]
    weight: Annotated[int, Field(ge=1, le=1000, description="its share of requests, beside the others' weights")] = 1

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @property
    def socket(self) -> str:
        """The path of its Unix socket; empty where there is none."""
        found = _UNIX.fullmatch(self.url)
        return found[1] if found else ""

    @property
    def base(self) -> str:
        """The URL before the paths of its API."""
        found = _UNIX.fullmatch(self.url)
        return "http://localhost" + (found[2] or "") if found else self.url

    @property
    def label(self) -> str:
        """Its name in metrics and logs."""
        return f"unix:{self.socket}" if self.socket else urlsplit(self.url).netloc.lower()


class HealthDocument(BaseModel):
    """Active health checks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, Field(pattern=r"^/[!-~]*$", description="what is asked for; a status of 2xx is well")] = (
        "/health"
    )
    every: Annotated[_Seconds, Field(description="seconds between checks, a fifth more or less")] = 5
    timeout: Annotated[_Seconds, Field(description="seconds until a check without an answer has failed")] = 2


class BreakerDocument(BaseModel):
    """Passive health: what became of requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failures: Annotated[int, Field(ge=1, description="failures in a row that open it")] = 5
    pause: Annotated[_Seconds, Field(description="seconds until one request is tried again")] = 10


class TlsDocument(BaseModel):
    """How servers at https:// are trusted, and who we are to them: PEM files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca: Annotated[str, Field(description="whom to trust; the system's when empty")] = ""
    cert: Annotated[str, Field(description="our certificate")] = ""
    key: Annotated[str, Field(description="its key, if it is not in the same file")] = ""

    @model_validator(mode="after")
    def _files(self) -> Self:
        if self.key and not self.cert:
            raise ValueError("key: name its certificate too, in cert")
        self.files.context()
        return self

    @property
    def files(self) -> Tls:
        """The files, not yet read."""
        return Tls(self.ca, self.cert, self.key)


class Connecting(NamedTuple):
    """What a server's connections and its health depend on. Where one of it changes, it is another server to us."""

    url: str
    connect_timeout: float
    health: HealthDocument | None
    breaker: BreakerDocument | None
    files: tuple[str, ...]


class PoolDocument(BaseModel):
    """One pool. Times are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    servers: Annotated[tuple[ServerDocument, ...], Field(max_length=256, description="URLs, or {url, weight}")]
    concurrency: Annotated[
        int | None, Field(ge=1, description="requests under way per server; no limit when missing")
    ] = None
    max_waiting: Annotated[int, Field(ge=0, description="requests that wait where all servers have so many")] = 256
    queue_timeout: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="longest wait for one that is free")
    ] = 5
    retries: Annotated[int, Field(ge=0, le=2, description="other servers tried where connecting fails")] = 2
    connect_timeout: Annotated[_Seconds, Field(description="time to connect, look-up of the name and TLS included")] = (
        10
    )
    first_byte_timeout: Annotated[_Seconds, Field(description="time until a server's status line")] = 600
    idle_timeout: Annotated[_Seconds, Field(description="longest silence of an answer under way")] = 300
    health: Annotated[HealthDocument | None, Field(description="active checks; none when missing")] = None
    breaker: Annotated[BreakerDocument | None, Field(description="passive health; null for none")] = BreakerDocument()
    tls: Annotated[TlsDocument | None, Field(description="for https://; the system's trust when missing")] = None
    key: Annotated[HeaderValue, Field(repr=False, description="the servers' credential; better in the environment")] = (
        ""
    )
    key_header: Annotated[HeaderName, Field(description="where it is sent; the dialect's own place when empty")] = ""

    @field_validator("servers")
    @classmethod
    def _different(cls, value: tuple[ServerDocument, ...]) -> tuple[ServerDocument, ...]:
        if not value:
            raise ValueError("name one at least: http://HOST:PORT")
        labels = [server.label for server in value]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"{label} is named twice; give it a weight instead")
        return value

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if self.tls and not any(server.url.startswith("https:") for server in self.servers):
            raise ValueError("tls: certificates are of use with https:// only")
        return self

    def inheriting(self, **settings: float) -> Self:
        """With ``settings`` where it says nothing itself."""
        return self.model_copy(
            update={name: value for name, value in settings.items() if name not in self.model_fields_set}
        )

    def connecting(self) -> list[Connecting]:
        """Of each server. Reads the files of ``tls``; raises ``OSError``."""
        tls = self.tls
        files = tuple(_digests((tls.ca, tls.cert, tls.key))) if tls else ()
        return [Connecting(each.url, self.connect_timeout, self.health, self.breaker, files) for each in self.servers]


def _digests(paths: Iterable[str]) -> Iterable[str]:
    for path in paths:
        yield hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
