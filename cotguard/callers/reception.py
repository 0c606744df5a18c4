"""Who asks: the one place that turns a request into a caller, and counts his requests.

A key or a token counts where one is sent, and the certificate of the connection where none is: a service mesh shows the
same certificate for many users of one service. What is no key and no token, such as the placeholder that an SDK insists
on, is nobody's credential; but a key or a token that is not valid is refused, whatever certificate comes with it.

Where no authentication is configured everybody may do everything, and a caller is told from others by a hash of the
credential that he sends to the upstream.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cotguard.callers.caller import ANYBODY, Caller, Scope
from cotguard.callers.certificates import Certificates, PeerCertificate
from cotguard.callers.credentials import credentials_of, fingerprint, is_token
from cotguard.callers.denied import Denied, Reason
from cotguard.callers.document import CallersDocument, OidcDocument
from cotguard.callers.keys import KeyStore, is_key
from cotguard.callers.limits import Lease, Limiter, LocalLimiter

if TYPE_CHECKING:
    from cotguard.callers.oidc import Oidc

__all__ = ["Reception", "limiter"]


class Reception:
    """See the module. ``store`` is the path of the file of keys, if there is one; ``limiter`` outlives the reception.

    Not to be forked. Raises :class:`~cotguard.callers.keys.KeyStoreError`.
    """

    def __init__(self, callers: CallersDocument | None, store: str, limiter: Limiter) -> None:
        roles = callers.roles if callers else {}
        self._roles: Mapping[str, Scope] = {name: role.scope() for name, role in roles.items()}
        self._store = KeyStore(store) if store else None
        self._oidc = _issuer(callers.oidc, self._roles) if callers and callers.oidc else None
        self._limiter = limiter
        certificates = callers.certificates if callers else None
        self._certificates = Certificates(certificates, self._roles) if certificates else None

    async def caller(self, headers: Mapping[str, str], certificate: PeerCertificate | None = None) -> Caller:
        """Who sent ``headers`` (names in lower case), having shown ``certificate``. Raises :class:`Denied`."""
        if self._store is None and self._oidc is None and self._certificates is None:
            found = fingerprint(headers)
            return Caller(f"credential:{found}" if found else "anonymous", ANYBODY)
        sent = list(credentials_of(headers))
        for credential in sent:
            if self._store is not None and is_key(credential):
                return self._owner(self._store, credential)
            if self._oidc is not None and is_token(credential):
                return await self._oidc.caller(credential)
        if self._certificates is not None and certificate:
            if (owner := self._certificates.caller(certificate)) is not None:
                return owner
            raise Denied(Reason.CERTIFICATE)
        raise Denied(Reason.UNKNOWN if sent else Reason.MISSING)

    def _owner(self, store: KeyStore, credential: str) -> Caller:
        key = store.find(credential)
        role = self._roles.get(key.role)
        if role is None:
            raise Denied(Reason.ROLE)
        return Caller(f"key:{key.id}", role.narrowed(key.scope.scope()), key.role)

    async def admit(self, caller: Caller, tokens: int) -> Lease | None:
        """Count a request that sends ``tokens``; None where nothing is limited. Raises :class:`Denied`."""
        return await self._limiter.admit(caller, tokens) if caller.scope.limited else None

    async def close(self) -> None:
        """Close what was opened; the limiter is not its own."""
        if self._oidc is not None:
            await self._oidc.close()
        if self._store is not None:
            self._store.close()


def _issuer(document: OidcDocument, roles: Mapping[str, Scope]) -> "Oidc":
    from cotguard.callers.oidc import Oidc  # and with it PyJWT, which others need not load

    return Oidc(document, roles)


def limiter(url: str) -> Limiter:
    """Who counts callers' requests: all processes together in the Redis at ``url``, or this one by itself."""
    if not url:
        return LocalLimiter()
    from cotguard.callers.shared_limits import SharedLimiter  # and with it Redis's client, which others need not load

    return SharedLimiter(url)
