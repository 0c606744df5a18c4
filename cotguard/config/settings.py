"""All settings: the groups of :mod:`cotguard.config.sections`, and the two that only a file can hold.

Precedence: flag, ``COTGUARD_*`` in the environment, config file, default (:mod:`cotguard.config.sources`).
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from cotguard.addresses import is_loopback, split_address
from cotguard.callers.document import CallersDocument, load_callers
from cotguard.classifier.remote import address
from cotguard.config.routes import RouteDocument
from cotguard.config.sections import RESTART, Accounts, Callers, Limits, Listeners, Models, Section, Served, State
from cotguard.upstreams.document import PoolDocument, PoolName

__all__ = ["DEFAULT_POOL", "FILE_ONLY", "SECTIONS", "Settings", "is_secret", "needs_restart"]

SECTIONS: tuple[type[Section], ...] = (Served, Listeners, Limits, Callers, Models, State, Accounts)
"""The groups of settings that are flags too, in the order in which they are told."""

DEFAULT_POOL = "default"
"""The name of the upstream that is given by its address."""

FILE_ONLY = frozenset({"upstreams", "routes"})
"""Settings that are no flags: only a config file can hold them."""


class Settings(Accounts, State, Models, Callers, Limits, Listeners, Served):
    """Validated settings. Sizes are bytes, times seconds."""

    subject: ClassVar[str] = "upstreams and routes"

    upstreams: Annotated[
        Mapping[PoolName, PoolDocument], Field(description="model servers by name, several for each")
    ] = {}
    routes: Annotated[
        tuple[RouteDocument, ...],
        Field(description="which requests go to which upstream, under which policy; the first that fits"),
    ] = ()

    @property
    def guard(self) -> str:
        """The format of the guard in use, if there is one."""
        return self.guard_format if self.guard_url else ""

    @cached_property
    def callers(self) -> CallersDocument | None:
        """The callers file, if there is one. Raises :class:`~cotguard.callers.document.CallersError`."""
        return load_callers(self.callers_file) if self.callers_file else None

    @property
    def authenticates(self) -> bool:
        """Whether callers must show who they are."""
        return bool(self.keys or (self.callers and (self.callers.oidc or self.callers.certificates)))

    @cached_property
    def served(self) -> address.Served | None:
        """Where the classifier's model is, if not here."""
        replicas = address.addresses(self.classifier_url)
        tls = address.Tls(self.classifier_ca, self.classifier_cert, self.classifier_key)
        return address.Served(replicas, self.classifier_model, tls) if replicas else None

    @property
    def default_pool(self) -> str:
        """The name of the upstream of requests that no route names one for; empty where there is none."""
        return DEFAULT_POOL if "/" in self.upstream else self.upstream

    @cached_property
    def pools(self) -> Mapping[str, PoolDocument]:
        """All upstreams by name, with the one that ``upstream`` is the address of."""
        named = dict(self.upstreams)
        if "/" in self.upstream:
            credential = {"key": self.upstream_key, "key_header": self.upstream_key_header}
            # One server has nowhere else to send requests to: a breaker would only add errors of its own.
            own = {"servers": [self.upstream], "breaker": None, **credential}
            named[DEFAULT_POOL] = PoolDocument.model_validate(own)
        timeouts = {name: getattr(self, name) for name in ("connect_timeout", "first_byte_timeout", "idle_timeout")}
        return {name: each.inheriting(**timeouts) for name, each in named.items()}

    @property
    def policies(self) -> list[str]:
        """The policies in use: the gateway's own first, then those that routes and roles name."""
        named = [route.policy for route in self.routes if route.policy]
        return list(dict.fromkeys([self.policy, *named, *(self.callers.policies if self.callers else ())]))

    @model_validator(mode="after")
    def _callers(self) -> Self:
        if self.keys and self.callers is None:
            raise ValueError("keys: name the roles of keys too, in callers_file (docs/callers.md)")
        if self.callers is not None and not self.authenticates:
            raise ValueError(
                "callers_file: its roles are nobody's; name a file of keys in `keys`, or add oidc or certificates to it"
            )
        if self.callers is not None and self.callers.certificates and not self.tls_client_ca:
            raise ValueError("tls_client_ca: name who signs the certificates that the callers file gives roles to")
        if not (self.authenticates or self.allow_anonymous or is_loopback(split_address(self.listen)[0])):
            raise ValueError(
                f"listen: {self.listen} is open to other machines, and nobody is asked who he is. Give callers keys "
                "(keys and callers_file, docs/callers.md), listen on 127.0.0.1, or write allow_anonymous: true to let "
                "everybody in"
            )
        return self

    @model_validator(mode="after")
    def _destinations(self) -> Self:
        if not self.upstream and not self.routes:
            raise ValueError("upstream: missing; write --upstream VALUE or set COTGUARD_UPSTREAM")
        known = ", ".join(self.upstreams) or "none"
        if self.upstream and "/" not in self.upstream and self.upstream not in self.upstreams:
            raise ValueError(f"upstream: there is no upstream of this name; write http://HOST:PORT or one of: {known}")
        if DEFAULT_POOL in self.upstreams and "/" in self.upstream:
            raise ValueError(f'upstreams: "{DEFAULT_POOL}" is the one in `upstream`; give it another name')
        if self.upstream_key and "/" not in self.upstream:
            raise ValueError("upstream_key: it is for the URL in `upstream`; write `key` in the upstream itself")
        for number, route in enumerate(self.routes, start=1):
            if route.upstream and route.upstream not in self.upstreams:
                raise ValueError(f"routes: route {number}: there is no upstream of this name; write one of: {known}")
            if not route.upstream and not self.upstream:
                raise ValueError(f"routes: route {number}: name its upstream, or one for all in `upstream`")
        return self


def needs_restart(name: str) -> bool:
    """Whether a change of this setting waits for the next start."""
    return RESTART in Settings.model_fields[name].metadata


def is_secret(name: str) -> bool:
    """Whether this setting's value is never shown."""
    return not Settings.model_fields[name].repr
