"""The callers file: roles, and who has them. Every mistake in it is told at once, with its place.

roles:
  reader:
    models: [gpt-4o-mini, "llama-*"]
    policy: strict
    requests_per_minute: 60
    reasoning: hidden
oidc:
  issuer: https://login.example.com/
  audience: cotguard
  roles: {"llm-readers": reader}
certificates: {"uri:spiffe://example.com/batch/*": reader}
"""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from cotguard.addresses import is_loopback
from cotguard.callers.caller import Console, Globs, Priority, Reasoning, Scope
from cotguard.callers.certificates import KINDS
from cotguard.dialects.catalogue import dialects
from cotguard.policy import PolicyError
from cotguard.policy.errors import closest
from cotguard.policy.source import Source, read_file

__all__ = [
    "Algorithm",
    "CallersDocument",
    "CallersError",
    "KeyScope",
    "OidcDocument",
    "RoleDocument",
    "checked_url",
    "load_callers",
]

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA"]
"""Signatures by a key pair. ``none`` and shared secrets are not among them."""

_Limit = Annotated[int, Field(ge=1, strict=True)]
_Glob = Annotated[str, Field(min_length=1, max_length=256)]
_Globs = Annotated[tuple[_Glob, ...], Field(min_length=1)]
_RoleName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]

_EXAMPLES: Mapping[str, str] = {
    "audience": "audience: cotguard",
    "algorithms": "algorithms: [RS256, ES256]",
    "certificates": 'certificates: {"uri:spiffe://example.com/batch/*": reader}',
    "concurrency": "concurrency: 4",
    "console": "console: view",
    "dialects": "dialects: [chat_completions, anthropic]",
    "issuer": "issuer: https://login.example.com",
    "jwks_url": "jwks_url: https://login.example.com/keys",
    "keep_keys": "keep_keys: 86400",
    "leeway": "leeway: 30",
    "models": 'models: [gpt-4o-mini, "llama-*"]',
    "oidc": "oidc: {issuer: https://login.example.com, audience: cotguard, roles: {staff: reader}}",
    "policy": "policy: strict",
    "priority": "priority: high",
    "reasoning": "reasoning: hidden",
    "requests_per_minute": "requests_per_minute: 60",
    "role_claim": "role_claim: groups",
    "roles": "roles: {reader: {models: [gpt-4o-mini]}}",
    "routes": 'routes: ["/v1/chat/*"]',
    "tokens_per_day": "tokens_per_day: 100000",
}


class CallersError(ValueError):
    """The callers file cannot be used; the message says where, why and what to write."""


class KeyScope(BaseModel):
    """How a key narrows its role. What is not named is as in the role."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    routes: _Globs | None = None
    models: _Globs | None = None
    dialects: _Globs | None = None
    requests_per_minute: _Limit | None = None
    concurrency: _Limit | None = None
    tokens_per_day: _Limit | None = None
    reasoning: Reasoning = Reasoning.VISIBLE

    @field_validator("dialects")
    @classmethod
    def _dialects(cls, value: Globs | None) -> Globs | None:
        names = [dialect.name for dialect in dialects()]
        for glob in value or ():
            if not fnmatch.filter(names, glob):
                raise ValueError(f"{glob}: no such dialect; write some of: {', '.join(names)}")
        return value

    def scope(self) -> Scope:
        """What is allowed."""
        return Scope(
            _all_of(self.routes),
            _all_of(self.models),
            _all_of(self.dialects),
            requests_per_minute=self.requests_per_minute,
            concurrency=self.concurrency,
            tokens_per_day=self.tokens_per_day,
            reasoning=self.reasoning,
        )


class RoleDocument(KeyScope):
    """One role."""

    policy: Annotated[str, Field(max_length=1024)] = ""
    priority: Priority = Priority.NORMAL
    console: Console = Console.NONE

    def scope(self) -> Scope:
        """What is allowed."""
        return replace(super().scope(), policy=self.policy, priority=self.priority, console=self.console)


class OidcDocument(BaseModel):
    """Whose tokens are taken, and which role they give. Times are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[str, Field(min_length=1)]
    audience: Annotated[str, Field(min_length=1)]
    jwks_url: str = ""
    role_claim: Annotated[str, Field(min_length=1)] = "roles"
    roles: Annotated[Mapping[str, _RoleName], Field(min_length=1)]
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    leeway: Annotated[int, Field(ge=0, le=300)] = 30
    keep_keys: Annotated[int, Field(ge=0, le=7 * 86_400)] = 86_400

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _url(cls, value: str) -> str:
        return checked_url(value) if value else value


def _certificate_name(value: str) -> str:
    kind, _, name = value.partition(":")
    if kind not in KINDS or not name:
        raise ValueError(f"{value}: this is no certificate's name; write uri:, dns:, email: or cn: before the name")
    return value


_CertificateName = Annotated[_Glob, AfterValidator(_certificate_name)]


class CallersDocument(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roles: Annotated[Mapping[_RoleName, RoleDocument], Field(min_length=1)]
    oidc: OidcDocument | None = None
    certificates: Annotated[Mapping[_CertificateName, _RoleName], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _known_roles(self) -> Self:
        tokens = self.oidc.roles.values() if self.oidc else ()
        certificates = self.certificates.values() if self.certificates else ()
        for place, names in (("oidc.roles", tokens), ("certificates", certificates)):
            for name in names:
                if name not in self.roles:
                    raise ValueError(f'{place}: there is no role "{name}"; name one of: {", ".join(self.roles)}')
        return self

    @property
    def policies(self) -> list[str]:
        """Policies that roles name, beside the gateway's own."""
        return list(dict.fromkeys(role.policy for role in self.roles.values() if role.policy))


def load_callers(path: str) -> CallersDocument:
    """The callers file. Raises :class:`CallersError`."""
    try:
        source = read_file(path, "a callers file (docs/callers.md)", f'for example "{_EXAMPLES["roles"]}"')
    except PolicyError as error:
        raise CallersError(str(error)) from None
    try:
        return CallersDocument.model_validate(source.data)
    except ValidationError as error:
        raise CallersError(_told(error.errors(include_url=False), source)) from None


def checked_url(url: str) -> str:
    """``url``, if keys may be fetched there. Raises ``ValueError``."""
    parts = urlsplit(url)
    plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or not (parts.scheme == "https" or plain):
        raise ValueError("keys that are fetched without TLS can be anybody's; write https://HOST/PATH")
    return url


def _all_of(globs: Globs | None) -> tuple[Globs, ...]:
    return () if globs is None else (globs,)


def _told(errors: Iterable[ErrorDetails], source: Source) -> str:
    return "\n".join(str(_problem(error, source)) for error in errors)


def _problem(error: ErrorDetails, source: Source) -> object:
    path = tuple(step for step in error["loc"] if step != "[key]")
    field = next((step for step in reversed(path) if isinstance(step, str) and step in _EXAMPLES), "roles")
    example = f'write for example "{_EXAMPLES[field]}"'
    if error["type"] == "extra_forbidden":
        keys = _keys(path)
        meant = closest(path[-1], keys)[:1]
        hint = f'did you mean "{meant[0]}"?' if meant else f"the keys here are: {', '.join(keys)}"
        return source.problem(path, f'"{path[-1]}" is no key here', hint, at_key=True)
    if error["type"] == "missing":
        return source.problem(path[:-1], f'the key "{path[-1]}" is missing', example)
    if error["type"] == "string_pattern_mismatch":
        hint = "write lower-case letters, digits and dashes, at most 64"
        return source.problem(path, "this is no role's name", hint, at_key=True)
    reason, _, hint = error["msg"].removeprefix("Value error, ").partition("; ")
    return source.problem(path, reason, hint or example)


def _keys(path: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = CallersDocument
    if len(path) > 1:
        model = RoleDocument if path[0] == "roles" else OidcDocument
    return list(model.model_fields)
