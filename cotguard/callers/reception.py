"""Who asks: the one place that turns a request's headers into a caller, and counts his requests.

Where no authentication is configured everybody may do everything, and a caller is told from others by a hash of the
credential that he sends to the upstream.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cotguard.callers.caller import ANYBODY, Caller, Scope
from cotguard.callers.credentials import credentials_of, fingerprint, is_token
from cotguard.callers.denied import Denied, Reason
from cotguard.callers.document import CallersDocument, OidcDocument
from cotguard.callers.keys import KeyStore, is_key
from cotguard.callers.limits import Lease, Limiter, LocalLimiter

if TYPE_CHECKING:
    from cotguard.callers.oidc import Oidc

__all__ = ["Reception"]


class Reception:
    """See the module. ``store`` is the path of the file of keys, if there is one.

    Not to be forked. Raises :class:`~cotguard.callers.keys.KeyStoreError`.
    """

    def __init__(self, callers: CallersDocument | None, store: str, limits_url: str) -> None:
        roles = callers.roles if callers else {}
        self._roles: Mapping[str, Scope] = {
            name: role.scope(role.policy, role.priority) for name, role in roles.items()
        }
        self._store = KeyStore(store) if store else None
        self._oidc = _issuer(callers.oidc, self._roles) if callers and callers.oidc else None
        self._limiter: Limiter = _shared(limits_url) if limits_url else LocalLimiter()

    async def caller(self, headers: Mapping[str, str]) -> Caller:
        """Who sent ``headers`` (names in lower case). Raises :class:`Denied`."""
        if self._store is None and self._oidc is None:
            found = fingerprint(headers)
            return Caller(f"credential:{found}" if found else "anonymous", ANYBODY)
        sent = list(credentials_of(headers))
        for credential in sent:
            if self._store is not None and is_key(credential):
                return self._owner(self._store, credential)
            if self._oidc is not None and is_token(credential):
                return await self._oidc.caller(credential)
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
        """Close what was opened."""
        await self._limiter.close()
        if self._oidc is not None:
            await self._oidc.close()
        if self._store is not None:
            self._store.close()


def _issuer(document: OidcDocument, roles: Mapping[str, Scope]) -> "Oidc":
    from cotguard.callers.oidc import Oidc  # and with it PyJWT, which others need not load

    return Oidc(document, roles)


def _shared(url: str) -> Limiter:
    from cotguard.callers.shared_limits import SharedLimiter  # and with it Redis's client, which others need not load

    return SharedLimiter(url)
