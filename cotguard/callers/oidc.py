"""Bearer tokens of an OpenID provider: JSON Web Tokens (RFC 7519), checked against the provider's published keys.

1. A token's algorithm is one of those allowed, and fits the key that its ``kid`` names: so neither ``none`` nor a
   public key used as a shared secret is ever tried.
2. Signature, ``iss``, ``aud``, ``exp``, ``nbf`` and ``iat`` are PyJWT's to check; ``exp``, ``iss``, ``aud`` and ``sub``
   must be there.
3. Keys come from ``jwks_url``, or from where the issuer's discovery document says. They are fetched again behind the
   scenes when they are ``_FRESH_SECONDS`` old, and at once for a ``kid`` that is not among them: at most every
   ``_PAUSE_SECONDS``, whatever tokens are made up. While the issuer cannot be reached the last ones are valid for
   ``keep_keys`` seconds.

Nothing of a token is in errors or logs.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import aiohttp
import jwt
from jwt import PyJWK

from cotguard.callers.caller import Caller, Scope
from cotguard.callers.denied import Denied, Reason
from cotguard.callers.document import OidcDocument, checked_url
from cotguard.framing.json import JSONError, loads

__all__ = ["Oidc"]

_LOG = logging.getLogger("cotguard.callers")
_FRESH_SECONDS = 600
_PAUSE_SECONDS = 5.0
_FETCH_SECONDS = 5.0
_MAX_BYTES = 2**20
_MAX_SUBJECT = 255
_RETRY_SECONDS = 5
_DISCOVERY = "/.well-known/openid-configuration"
_REQUIRED = ["exp", "iss", "aud", "sub"]
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})


class _IssuerKey(NamedTuple):
    """A public key, and the algorithms of the tokens that it may have signed."""

    public: Any
    algorithms: frozenset[str]


class _FetchError(Exception):
    """The issuer's keys cannot be had. The message says why, in constant text."""


class Oidc:
    """The tokens of one issuer. ``roles``: scopes by role. ``clock`` never goes back."""

    def __init__(
        self, document: OidcDocument, roles: Mapping[str, Scope], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._document = document
        self._roles = roles
        self._clock = clock
        self._name = sha256(document.issuer.encode()).hexdigest()[:16]
        self._keys: dict[str, _IssuerKey] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Fetch no more."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    async def caller(self, token: str) -> Caller:
        """Who has ``token``. Raises :class:`~cotguard.callers.denied.Denied`."""
        document = self._document
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError):
            raise Denied(Reason.TOKEN) from None
        algorithm = header.get("alg")
        if algorithm not in document.algorithms:
            raise Denied(Reason.TOKEN)
        key = await self._key(header.get("kid"))
        if algorithm not in key.algorithms:
            raise Denied(Reason.TOKEN)
        try:
            claims = jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],
                audience=document.audience,
                issuer=document.issuer,
                leeway=document.leeway,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise Denied(Reason.EXPIRED) from None
        except (jwt.PyJWTError, TypeError, ValueError):
            raise Denied(Reason.TOKEN) from None
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT:
            raise Denied(Reason.TOKEN)
        role = self._role(claims)
        return Caller(f"jwt:{self._name}:{subject}", self._roles[role], role)

    def _role(self, claims: Mapping[str, Any]) -> str:
        """The role of the first value in the document's mapping that the claim has; dots lead into objects."""
        value: Any = claims
        if self._document.role_claim in claims:  # such as a namespaced claim, which has dots in its name
            value = claims[self._document.role_claim]
        else:
            for step in self._document.role_claim.split("."):
                value = value.get(step) if isinstance(value, dict) else None
        held = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        for name, role in self._document.roles.items():
            if name in held:
                return role
        raise Denied(Reason.ROLE)

    async def _key(self, identifier: object) -> _IssuerKey:
        """The issuer's key; a token without ``kid`` needs an issuer with only one."""
        if self._age() > self._document.keep_keys + _FRESH_SECONDS:
            self._keys = {}
        found = self._known(identifier)
        if found is None or self._age() > _FRESH_SECONDS:
            fetching = self._fetch_soon()
            if found is None and fetching is not None:
                await asyncio.shield(fetching)  # others wait for it too
                found = self._known(identifier)
        if found is None:
            raise Denied(Reason.TOKEN) if self._keys else Denied(Reason.UNAVAILABLE, _RETRY_SECONDS)
        return found

    def _known(self, identifier: object) -> _IssuerKey | None:
        if identifier is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(identifier) if isinstance(identifier, str) else None

    def _age(self) -> float:
        return 0 if self._fetched is None else self._clock() - self._fetched

    def _fetch_soon(self) -> asyncio.Task[None] | None:
        """Fetch the keys, if nobody does and the last try is not too recent; the fetch under way, if there is one."""
        if self._fetching is None:
            now = self._clock()
            if self._tried is not None and now - self._tried < _PAUSE_SECONDS:
                return None
            self._tried = now
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
            async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
                url = self._document.jwks_url or await self._discovered(session)
                self._keys = _signing_keys(await _read(session, url))
            self._fetched = self._clock()
        except (_FetchError, aiohttp.ClientError, TimeoutError, OSError) as error:
            _LOG.warning("issuer keys not fetched", extra={"error": type(error).__name__})
        finally:
            self._fetching = None

    async def _discovered(self, session: aiohttp.ClientSession) -> str:
        issuer = self._document.issuer
        told = await _read(session, issuer.rstrip("/") + _DISCOVERY)
        url = told.get("jwks_uri")
        if told.get("issuer") != issuer or not isinstance(url, str):
            raise _FetchError("the discovery document is another issuer's")
        try:
            return checked_url(url)
        except ValueError:
            raise _FetchError("the keys are not behind TLS") from None


async def _read(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise _FetchError("the issuer answered with another status")
        body = bytearray()
        async for data in response.content.iter_any():
            body += data
            if len(body) > _MAX_BYTES:
                raise _FetchError("the issuer's document is too large")
    try:
        document = loads(bytes(body))
    except JSONError:
        document = None
    if not isinstance(document, dict):
        raise _FetchError("the issuer's document is no JSON object")
    return document


def _signing_keys(document: Mapping[str, Any]) -> dict[str, _IssuerKey]:
    """The set's keys for signatures by key pairs, by ``kid``. Those that cannot be read are left out."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise _FetchError("the issuer's document is no set of keys")
    found: dict[str, _IssuerKey] = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("kty") == "oct" or entry.get("use", "sig") != "sig":
            continue
        try:
            key = PyJWK(entry)
            named = frozenset({key.algorithm_name})
            algorithms = _RSA if key.key_type == "RSA" and "alg" not in entry else named
            found[str(entry.get("kid", ""))] = _IssuerKey(key.key, algorithms)
        except (jwt.PyJWTError, TypeError, ValueError):
            continue
    return found
