"""The settings by subject. Sizes are bytes, times seconds.

Each group checks its own fields; what must fit together over groups is checked by
:class:`~cotguard.config.settings.Settings`. A setting marked ``RESTART`` is read once, when the gateway starts: what
depends on it is opened or loaded then.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from cotguard.addresses import is_loopback, split_address
from cotguard.audit.key import check_key
from cotguard.audit.trail import AuditOptions
from cotguard.classifier.bundle import DEFAULT, NONE
from cotguard.classifier.remote.address import Tls, addresses
from cotguard.guard.format import load_format
from cotguard.http.tls import TlsFiles
from cotguard.moderation.channel import MAX_BYTES
from cotguard.sealing.keyring import KeyRing

__all__ = ["RESTART", "Accounts", "Callers", "Limits", "Listeners", "Models", "Section", "Served", "State", "http_url"]

RESTART = "restart"
"""Marks settings that take effect at the next start only."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9-]*")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]*")
_POOL = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_TOKEN_CHARS = 16


class Section(BaseModel):
    """Settings that belong together; ``subject`` is their heading.

    One model is made of all groups, so validators need names of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    subject: ClassVar[str] = ""


def http_url(value: str) -> str:
    """``value``, if it is the address of a server, without the ``/v1`` of its API's paths."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("write it as http://HOST:PORT or https://HOST/PREFIX")
    return value.rstrip("/").removesuffix("/v1")


def _existing(value: str) -> str:
    if value and not Path(value).is_file():
        raise ValueError(f"{value}: no such file")
    return value


class Served(Section):
    """What is served, and under which policy."""

    subject: ClassVar[str] = "what is served"

    upstream: Annotated[
        str, Field(description="URL of the model server, without the /v1 of its API paths, or one of the upstreams")
    ] = ""
    policy: Annotated[str, Field(description="a ready policy's name or a policy file")] = "balanced"

    @field_validator("upstream")
    @classmethod
    def _upstream(cls, value: str) -> str:
        return value if not value or _POOL.fullmatch(value) else http_url(value)


class Listeners(Section):
    """The two ports."""

    subject: ClassVar[str] = "ports and TLS"

    listen: Annotated[str, RESTART, Field(description="HOST:PORT of the data port")] = "127.0.0.1:8080"
    admin_listen: Annotated[str, RESTART, Field(description="HOST:PORT of the admin port")] = "127.0.0.1:9090"
    tls_cert: Annotated[str, RESTART, Field(description="PEM file of the data port's certificate and chain")] = ""
    tls_key: Annotated[str, RESTART, Field(description="PEM file of its key, if not in the same file")] = ""
    tls_client_ca: Annotated[
        str, RESTART, Field(description="PEM file of whose certificates callers must show; none when empty")
    ] = ""
    admin_token: Annotated[
        str, RESTART, Field(repr=False, description="bearer token of the admin port; /healthz and /readyz need none")
    ] = ""
    admin_tls_cert: Annotated[str, RESTART, Field(description="PEM file of the admin port's certificate")] = ""
    admin_tls_key: Annotated[str, RESTART, Field(description="PEM file of its key, if not in the same file")] = ""

    @field_validator("listen", "admin_listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("write it as HOST:PORT, for example 127.0.0.1:8080")
        return value

    @field_validator("admin_token")
    @classmethod
    def _token(cls, value: str) -> str:
        if value and (len(value) < _TOKEN_CHARS or _HEADER_VALUE.fullmatch(value) is None):
            raise ValueError(f"write at least {_TOKEN_CHARS} characters, for example those of `openssl rand -hex 32`")
        return value

    @property
    def tls(self) -> TlsFiles | None:
        """TLS of the data port, if it has any."""
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_client_ca) if self.tls_cert else None

    @property
    def admin_tls(self) -> TlsFiles | None:
        """TLS of the admin port, if it has any."""
        return TlsFiles(self.admin_tls_cert, self.admin_tls_key) if self.admin_tls_cert else None

    @model_validator(mode="after")
    def _tls(self) -> Self:
        if not self.tls_cert and (self.tls_key or self.tls_client_ca):
            raise ValueError("tls_cert: name the certificate of the data port too")
        if not self.admin_tls_cert and self.admin_tls_key:
            raise ValueError("admin_tls_cert: name the certificate of the admin port too")
        for name, files in (("tls_cert", self.tls), ("admin_tls_cert", self.admin_tls)):
            try:
                if files is not None:
                    files.context()
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return self

    @model_validator(mode="after")
    def _admin(self) -> Self:
        if not (self.admin_token or is_loopback(split_address(self.admin_listen)[0])):
            raise ValueError(
                f"admin_listen: {self.admin_listen} is open to other machines, and so are its metrics. Set admin_token "
                "(COTGUARD_ADMIN_TOKEN), or listen on 127.0.0.1"
            )
        return self


class Models(Section):
    """Models that detect."""

    subject: ClassVar[str] = "models that detect"

    bundle: Annotated[
        str, RESTART, Field(description="the classifier: a ready bundle's name, a directory, or none")
    ] = DEFAULT
    classifier_threads: Annotated[
        int, RESTART, Field(ge=1, description="windows judged at the same time, one core each")
    ] = 1
    classifier_deadline: Annotated[
        float, RESTART, Field(gt=0, description="longest wait for the classifier's answer")
    ] = 5
    classifier_url: Annotated[
        str,
        RESTART,
        Field(description="where the classifier's model is served, instead of here: grpc[s]:// or http[s]://, commas"),
    ] = ""
    classifier_model: Annotated[str, RESTART, Field(description="the model's name there; the bundle's when empty")] = ""
    classifier_ca: Annotated[
        str, RESTART, Field(description="PEM file of whom to trust there; the system's when empty")
    ] = ""
    classifier_cert: Annotated[str, RESTART, Field(description="PEM file of our certificate there, and its key")] = ""
    classifier_key: Annotated[
        str, RESTART, Field(description="PEM file of that key, if it is not in the same file")
    ] = ""
    guard_url: Annotated[
        str, RESTART, Field(description="a guard model's server (Chat Completions), without its /v1")
    ] = ""
    guard_model: Annotated[str, RESTART, Field(description="the guard's name on that server")] = ""
    guard_format: Annotated[str, RESTART, Field(description="how it is asked: a ready format's name or a file")] = (
        "llama-guard"
    )
    guard_api_key: Annotated[str, RESTART, Field(repr=False, description="its key; better in the environment")] = ""
    guard_deadline: Annotated[float, RESTART, Field(gt=0, description="longest wait for an answer of the guard")] = 5
    guard_concurrency: Annotated[int, RESTART, Field(ge=1, description="requests to the guard at the same time")] = 16

    @field_validator("guard_format")
    @classmethod
    def _guard_format(cls, value: str) -> str:
        load_format(value)
        return value

    @field_validator("guard_url")
    @classmethod
    def _guard_url(cls, value: str) -> str:
        return http_url(value) if value else value

    @field_validator("classifier_url")
    @classmethod
    def _replicas(cls, value: str) -> str:
        addresses(value)
        return value

    @field_validator("classifier_ca", "classifier_cert", "classifier_key")
    @classmethod
    def _file(cls, value: str) -> str:
        return _existing(value)

    @model_validator(mode="after")
    def _remote(self) -> Self:
        if self.classifier_url and self.bundle == NONE:
            raise ValueError("classifier_url: name the bundle whose model is served there: its tokenizer is used here")
        if self.classifier_ca or self.classifier_cert or self.classifier_key:
            if not any(replica.secure for replica in addresses(self.classifier_url)):
                raise ValueError("classifier_url: certificates are of use with grpcs:// and https:// only")
            if self.classifier_key and not self.classifier_cert:
                raise ValueError("classifier_key: name its certificate too, in classifier_cert")
            Tls(self.classifier_ca, self.classifier_cert, self.classifier_key).context()
        return self


class Limits(Section):
    """Timeouts and limits."""

    subject: ClassVar[str] = "timeouts and limits"

    connect_timeout: Annotated[float, Field(gt=0, description="time to connect to the upstream")] = 10
    first_byte_timeout: Annotated[float, Field(gt=0, description="time until the upstream's status line")] = 600
    idle_timeout: Annotated[float, Field(gt=0, description="longest silence of a stream under way")] = 300
    keep_alive_after: Annotated[float, Field(gt=0, description="silence before a keep-alive comment is sent")] = 5
    client_timeout: Annotated[
        float, RESTART, Field(gt=0, description="time for a request, and until a client that takes nothing is dropped")
    ] = 60
    drain_delay: Annotated[
        float, Field(ge=0, description="time after SIGTERM in which requests are still taken, and /readyz says 503")
    ] = 0
    drain_timeout: Annotated[float, Field(ge=0, description="time for streams under way after that")] = 30
    max_request_bytes: Annotated[int, Field(gt=0, description="largest request body, decoded")] = 32 * 2**20
    max_response_bytes: Annotated[int, Field(gt=0, description="largest whole response, decoded")] = 64 * 2**20
    max_exchange_bytes: Annotated[int, Field(gt=0, description="memory of one response under way")] = MAX_BYTES
    max_exchanges: Annotated[int, RESTART, Field(ge=1, description="exchanges under way in one process")] = 1024
    max_waiting: Annotated[int, RESTART, Field(ge=0, description="requests that wait while so many are under way")] = (
        256
    )
    queue_timeout: Annotated[float, RESTART, Field(gt=0, description="longest wait for one of them to end")] = 10


class Callers(Section):
    """Callers."""

    subject: ClassVar[str] = "callers"

    keys: Annotated[str, Field(description="file of the gateway's own API keys, made by `cotguard keys`")] = ""
    callers_file: Annotated[str, Field(description="roles, and whose tokens are taken: a YAML file")] = ""
    allow_anonymous: Annotated[bool, Field(description="let everybody use an address that others can reach")] = False
    upstream_key: Annotated[str, Field(repr=False, description="the upstream's; better in the environment")] = ""
    upstream_key_header: Annotated[str, Field(description="where it is sent; the dialect's own place when empty")] = ""
    limits_url: Annotated[
        str,
        RESTART,
        Field(repr=False, description="redis:// where callers' limits are counted; in each process when empty"),
    ] = ""

    @field_validator("limits_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in ("redis", "rediss", "unix") or not find_spec("redis")):
            raise ValueError("write it as redis[s]://HOST:PORT/DATABASE, and install cotguard[redis]")
        return value

    @field_validator("upstream_key", "upstream_key_header")
    @classmethod
    def _header(cls, value: str, info: ValidationInfo) -> str:
        if (_HEADER_VALUE if info.field_name == "upstream_key" else _HEADER_NAME).fullmatch(value) is None:
            raise ValueError("this cannot stand in a header")
        return value


class State(Section):
    """What is remembered."""

    subject: ClassVar[str] = "seals, pins and hashes"

    pins_file: Annotated[
        str, RESTART, Field(description="SQLite file of tool definitions seen first; memory when empty")
    ] = ""
    seal: Annotated[bool, Field(description="signed reasoning goes to clients sealed; off strips it")] = True
    seal_keys: Annotated[str, Field(repr=False, description="NAME:KEY, commas; first seals; random when empty")] = ""
    seal_max_age: Annotated[float, Field(gt=0, description="how long a seal holds")] = 86400
    seal_store: Annotated[
        str,
        RESTART,
        Field(repr=False, description="redis[s]:// where originals are kept, instead of with clients"),
    ] = ""
    seal_deadline: Annotated[float, RESTART, Field(gt=0, description="longest wait for that store's answer")] = 2
    hash_key: Annotated[str, RESTART, Field(repr=False, description="key of the action hash; random when empty")] = ""

    @field_validator("seal_keys")
    @classmethod
    def _seal_keys(cls, value: str) -> str:
        if value:
            KeyRing.parse(value)
        return value

    @field_validator("seal_store")
    @classmethod
    def _seal_store(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in ("redis", "rediss"):
            raise ValueError("write it as redis://HOST:PORT/DATABASE or rediss://")
        if value and find_spec("redis") is None:
            raise ValueError("install redis for it: pip install 'cotguard[redis]'")
        return value


class Accounts(Section):
    """Audit, traces, logs."""

    subject: ClassVar[str] = "audit, traces and logs"

    audit_dir: Annotated[str, RESTART, Field(description="directory of the audit trail; none is kept when empty")] = ""
    audit_stdout: Annotated[bool, RESTART, Field(description="audit records on standard output too")] = False
    audit_otlp: Annotated[str, RESTART, Field(description="http[s]:// where audit records go as OTLP logs, too")] = ""
    audit_key: Annotated[
        str, RESTART, Field(repr=False, description="key of the trail's chain and hashes; a file beside it when empty")
    ] = ""
    audit_max_bytes: Annotated[int, RESTART, Field(ge=2**20, description="size at which a file is rotated")] = (
        64 * 2**20
    )
    audit_keep: Annotated[int, RESTART, Field(ge=1, description="rotated files that are kept")] = 16
    audit_deadline: Annotated[float, RESTART, Field(gt=0, description="longest wait until a record is kept")] = 2
    traces: Annotated[
        str, RESTART, Field(description="http[s]:// where OpenTelemetry traces go (OTLP); none when empty")
    ] = ""
    trace_sample: Annotated[
        float, RESTART, Field(ge=0, le=1, description="share of exchanges that are traced where callers do not say")
    ] = 1
    log_format: Annotated[Literal["text", "json"], RESTART, Field(description="text or json")] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], RESTART, Field(description="debug, info, warning or error")
    ] = "info"

    @field_validator("audit_key")
    @classmethod
    def _audit_key(cls, value: str) -> str:
        if value:
            check_key(value)
        return value

    @field_validator("traces")
    @classmethod
    def _traces(cls, value: str) -> str:
        if value and find_spec("opentelemetry.sdk") is None:
            raise ValueError("install OpenTelemetry for it: pip install 'cotguard[otel]'")
        return value

    @field_validator("audit_otlp", "traces")
    @classmethod
    def _collector(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("write it as http://HOST:4318")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _trail(self) -> Self:
        if not self.audit_key and not self.audit_dir and (self.audit_stdout or self.audit_otlp):
            raise ValueError(
                "audit_key: set it where there is no audit_dir: what a random key signed, nobody can verify"
            )
        return self

    @property
    def audit(self) -> AuditOptions | None:
        """Where the audit trail is kept, if one is."""
        if not (self.audit_dir or self.audit_stdout or self.audit_otlp):
            return None
        return AuditOptions(
            self.audit_dir,
            self.audit_stdout,
            self.audit_otlp,
            self.audit_key,
            self.audit_max_bytes,
            self.audit_keep,
            self.audit_deadline,
        )
