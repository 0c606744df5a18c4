"""Settings of ``serve``: one model, from which flags, ``COTGUARD_*`` variables and the config file are read.

Precedence: flag, environment, config file, default. Unknown keys of the config file are refused.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from cotguard.addresses import is_loopback, split_address
from cotguard.callers.document import CallersDocument, load_callers
from cotguard.classifier.bundle import DEFAULT, NONE
from cotguard.classifier.remote.address import Served, Tls, addresses
from cotguard.guard.format import load_format
from cotguard.moderation.channel import MAX_BYTES
from cotguard.sealing.keyring import KeyRing

__all__ = ["Settings", "SettingsError", "load_settings"]

_HEADER_NAME = re.compile(r"[A-Za-z0-9-]*")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]*")


class SettingsError(ValueError):
    """The settings are wrong; the message says which and what to write."""


class Settings(BaseModel):
    """Validated settings. Sizes are bytes, times seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upstream: Annotated[str, Field(description="URL of the model server, without the /v1 of its API paths")]
    listen: Annotated[str, Field(description="HOST:PORT of the data port")] = "127.0.0.1:8080"
    admin_listen: Annotated[str, Field(description="HOST:PORT of /healthz, /readyz and /metrics")] = "127.0.0.1:9090"
    policy: Annotated[str, Field(description="a ready policy's name or a policy file")] = "balanced"
    bundle: Annotated[str, Field(description="the classifier: a ready bundle's name, a directory, or none")] = DEFAULT
    classifier_threads: Annotated[int, Field(ge=1, description="windows judged at the same time, one core each")] = 1
    classifier_deadline: Annotated[float, Field(gt=0, description="longest wait for the classifier's answer")] = 5
    classifier_url: Annotated[
        str,
        Field(description="where the classifier's model is served, instead of here: grpc[s]:// or http[s]://, commas"),
    ] = ""
    classifier_model: Annotated[str, Field(description="the model's name there; the bundle's when empty")] = ""
    classifier_ca: Annotated[str, Field(description="PEM file of whom to trust there; the system's when empty")] = ""
    classifier_cert: Annotated[str, Field(description="PEM file of our certificate there, and its key")] = ""
    classifier_key: Annotated[str, Field(description="PEM file of that key, if it is not in the same file")] = ""
    guard_url: Annotated[str, Field(description="a guard model's server (Chat Completions), without its /v1")] = ""
    guard_model: Annotated[str, Field(description="the guard's name on that server")] = ""
    guard_format: Annotated[str, Field(description="how it is asked: a ready format's name or a file")] = "llama-guard"
    guard_api_key: Annotated[str, Field(repr=False, description="its key; better in the environment")] = ""
    guard_deadline: Annotated[float, Field(gt=0, description="longest wait for one of the guard's answers")] = 5
    guard_concurrency: Annotated[int, Field(ge=1, description="requests to the guard at the same time")] = 16
    connect_timeout: Annotated[float, Field(gt=0, description="time to connect to the upstream")] = 10
    first_byte_timeout: Annotated[float, Field(gt=0, description="time until the upstream's status line")] = 600
    idle_timeout: Annotated[float, Field(gt=0, description="longest silence of a stream under way")] = 300
    keep_alive_after: Annotated[float, Field(gt=0, description="silence before a keep-alive comment is sent")] = 5
    client_timeout: Annotated[
        float, Field(gt=0, description="time for a request, and until a client that takes nothing is dropped")
    ] = 60
    max_exchanges: Annotated[int, Field(ge=1, description="exchanges under way in one process")] = 1024
    max_waiting: Annotated[int, Field(ge=0, description="requests that wait while so many are under way")] = 256
    max_exchange_bytes: Annotated[int, Field(gt=0, description="memory of one response under way")] = MAX_BYTES
    queue_timeout: Annotated[float, Field(gt=0, description="longest wait for one of them to end")] = 10
    drain_delay: Annotated[float, Field(ge=0, description="time after SIGTERM in which requests are still taken")] = 0
    drain_timeout: Annotated[float, Field(ge=0, description="time for streams under way after SIGTERM")] = 30
    max_request_bytes: Annotated[int, Field(gt=0, description="largest request body, decoded")] = 32 * 2**20
    max_response_bytes: Annotated[int, Field(gt=0, description="largest whole response, decoded")] = 64 * 2**20
    keys: Annotated[str, Field(description="file of the gateway's own API keys, made by `cotguard keys`")] = ""
    callers_file: Annotated[str, Field(description="roles, and whose tokens are taken: a YAML file")] = ""
    allow_anonymous: Annotated[bool, Field(description="let everybody use an address that others can reach")] = False
    upstream_key: Annotated[str, Field(repr=False, description="the upstream's; better in the environment")] = ""
    upstream_key_header: Annotated[str, Field(description="where it is sent; the dialect's own place when empty")] = ""
    limits_url: Annotated[
        str, Field(repr=False, description="redis:// where callers' limits are counted; in each process when empty")
    ] = ""
    pins_file: Annotated[str, Field(description="SQLite file of tool definitions seen first; memory when empty")] = ""
    seal: Annotated[bool, Field(description="signed reasoning goes to clients sealed; off strips it")] = True
    seal_keys: Annotated[str, Field(repr=False, description="NAME:KEY, commas; first seals; random when empty")] = ""
    seal_max_age: Annotated[float, Field(gt=0, description="how long a seal holds")] = 86400
    seal_store: Annotated[
        str, Field(repr=False, description="redis[s]:// where originals are kept, instead of with clients")
    ] = ""
    seal_deadline: Annotated[float, Field(gt=0, description="longest wait for that store's answer")] = 2
    hash_key: Annotated[str, Field(repr=False, description="key of the action hash; random when empty")] = ""

    @property
    def guard(self) -> str:
        """The format of the guard in use, if there is one."""
        return self.guard_format if self.guard_url else ""

    @field_validator("guard_format")
    @classmethod
    def _guard_format(cls, value: str) -> str:
        load_format(value)
        return value

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

    @field_validator("upstream", "guard_url")
    @classmethod
    def _url(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "guard_url":
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("write it as http://HOST:PORT or https://HOST/PREFIX")
        return value.rstrip("/").removesuffix("/v1")

    @field_validator("classifier_url")
    @classmethod
    def _replicas(cls, value: str) -> str:
        addresses(value)
        return value

    @field_validator("classifier_ca", "classifier_cert", "classifier_key")
    @classmethod
    def _file(cls, value: str) -> str:
        if value and not Path(value).is_file():
            raise ValueError(f"{value}: no such file")
        return value

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

    @cached_property
    def callers(self) -> CallersDocument | None:
        """The callers file, if there is one. Raises :class:`~cotguard.callers.document.CallersError`."""
        return load_callers(self.callers_file) if self.callers_file else None

    @property
    def authenticates(self) -> bool:
        """Whether callers must show who they are."""
        return bool(self.keys or (self.callers and self.callers.oidc))

    @property
    def replaces_credentials(self) -> bool:
        """Whether no credential of a client's goes upstream."""
        return self.authenticates or bool(self.upstream_key)

    @model_validator(mode="after")
    def _callers(self) -> Self:
        if self.keys and self.callers is None:
            raise ValueError("keys: name the roles of keys too, in callers_file (docs/callers.md)")
        if self.callers is not None and not self.authenticates:
            raise ValueError("callers_file: its roles are nobody's; name a file of keys in `keys`, or add oidc to it")
        if not (self.authenticates or self.allow_anonymous or is_loopback(split_address(self.listen)[0])):
            raise ValueError(
                f"listen: {self.listen} is open to other machines, and nobody is asked who he is. Give callers keys "
                "(keys and callers_file, docs/callers.md), listen on 127.0.0.1, or write allow_anonymous: true to let "
                "everybody in"
            )
        return self

    @cached_property
    def served(self) -> Served | None:
        """Where the classifier's model is, if not here."""
        replicas = addresses(self.classifier_url)
        tls = Tls(self.classifier_ca, self.classifier_cert, self.classifier_key)
        return Served(replicas, self.classifier_model, tls) if replicas else None

    @field_validator("listen", "admin_listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("write it as HOST:PORT, for example 127.0.0.1:8080")
        return value


def load_settings(flags: Mapping[str, object], environment: Mapping[str, str], config: str | None) -> Settings:
    """Settings from the three sources. Raises :class:`SettingsError`."""
    values: dict[str, object] = {}
    path = config or environment.get("COTGUARD_CONFIG")
    if path:
        try:
            document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SettingsError(f"{path}: {error}") from error
        if not isinstance(document, dict):
            raise SettingsError(f"{path}: write settings as `name: value` lines")
        values |= {str(key).replace("-", "_"): value for key, value in document.items()}
    for name in Settings.model_fields:
        if (variable := "COTGUARD_" + name.upper()) in environment:
            values[name] = environment[variable]
    values |= {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = (
            _problem(str(each["loc"][0]) if each["loc"] else "", each["type"], each["msg"]) for each in error.errors()
        )
        raise SettingsError("\n".join(problems)) from None


def _problem(name: str, kind: str, message: str) -> str:
    """What is wrong with a setting, and what to write."""
    if kind == "missing":
        return f"{name}: missing; write --{name.replace('_', '-')} VALUE or set COTGUARD_{name.upper()}"
    if kind == "extra_forbidden":
        close = get_close_matches(name, Settings.model_fields, 1)
        return f"{name}: no such setting" + (f"; did you mean {close[0]}?" if close else "")
    message = message.removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
